// SPDX-License-Identifier: AGPL-3.0-only

package audit

import (
	"fmt"
	"testing"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

func benchLog(b *testing.B) (*store.DB, *Log) {
	b.Helper()
	db := storetest.Open(b, storetest.SQLiteURL(b), schema)
	keys, err := seal.Open(b.TempDir()+"/keys", clock.System)
	if err != nil {
		b.Fatal(err)
	}
	l, err := New(Config{DB: db, Keys: keys, Origin: origin})
	if err != nil {
		b.Fatal(err)
	}
	return db, l
}

func fill(b *testing.B, db *store.DB, n int) {
	b.Helper()
	err := db.Write(b.Context(), func(tx *store.Tx) error {
		for i := range n {
			if err := Append(tx, Entry{Tenant: "ten_a", Actor: "per_1", Kind: "device.claimed", Subject: fmt.Sprint("dev_", i%100), Data: i}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkIdle is one look at an idle log; Run takes five a second.
func BenchmarkIdle(b *testing.B) {
	db, l := benchLog(b)
	fill(b, db, 1000)
	for b.Loop() {
		if err := l.drain(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSequence is the sequencer's work for one entry, signatures included, in full batches.
func BenchmarkSequence(b *testing.B) {
	db, l := benchLog(b)
	left := 0
	for b.Loop() {
		if left == 0 {
			b.StopTimer()
			left = 4 * batch
			fill(b, db, left)
			b.StartTimer()
			if err := l.drain(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		left--
	}
}

// BenchmarkProve is the proof of the 200 entries about one device in a log of 20,000.
func BenchmarkProve(b *testing.B) {
	db, l := benchLog(b)
	for range 20 {
		fill(b, db, 1000)
	}
	if err := l.drain(b.Context()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if set, err := l.Prove(b.Context(), "ten_a", "dev_7"); err != nil || len(set.Entries) != 200 {
			b.Fatal(len(set.Entries), err)
		}
	}
}

// BenchmarkVerify is the recomputation of one entry of a log of 20,000.
func BenchmarkVerify(b *testing.B) {
	db, l := benchLog(b)
	for range 20 {
		fill(b, db, 1000)
	}
	if err := l.drain(b.Context()); err != nil {
		b.Fatal(err)
	}
	left := int64(0)
	for b.Loop() {
		if left == 0 {
			r, err := VerifyDB(b.Context(), db, l.VerifierKey(), nil)
			if err != nil || !r.OK() {
				b.Fatal(r.Faults, err)
			}
			left = r.Size
		}
		left--
	}
}
