// SPDX-License-Identifier: AGPL-3.0-only

package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

var schema = []store.Migrations{seal.Schema, Schema}

func TestMain(m *testing.M) {
	if url := os.Getenv("AUDIT_TEST_VICTIM"); url != "" {
		victim(url, os.Getenv("AUDIT_TEST_KEYS"))
	}
	os.Exit(m.Run())
}

const origin = "log.test/openthings"

func openKeys(t *testing.T) *seal.Keys {
	t.Helper()
	k, err := seal.Open(filepath.Join(t.TempDir(), "keys"), clock.System)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// openLog opens a log; options may change its configuration.
func openLog(t *testing.T, db *store.DB, keys *seal.Keys, opts ...func(*Config)) *Log {
	t.Helper()
	cfg := Config{DB: db, Clock: db.Clock(), Keys: keys, Origin: origin, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	for _, o := range opts {
		o(&cfg)
	}
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func appendEntry(t *testing.T, db *store.DB, e Entry) {
	t.Helper()
	if err := db.Write(t.Context(), func(tx *store.Tx) error { return Append(tx, e) }); err != nil {
		t.Fatal(err)
	}
}

// some appends n entries about a device in one transaction.
func some(t *testing.T, db *store.DB, tenant, subject string, n int) {
	t.Helper()
	err := db.Write(t.Context(), func(tx *store.Tx) error {
		for i := range n {
			if err := Append(tx, Entry{Tenant: tenant, Actor: "per_1", Kind: "device.claimed", Subject: subject, Data: map[string]any{"n": i, "note": "<&> \u2028"}}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func drain(t *testing.T, l *Log) {
	t.Helper()
	if err := l.drain(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// verify recomputes the whole log and wants no faults.
func verify(t *testing.T, db *store.DB, key string) Report {
	t.Helper()
	r, err := VerifyDB(t.Context(), db, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !r.OK() {
		t.Fatalf("the log is broken: %s", strings.Join(r.Faults, "; "))
	}
	return r
}

func count(t *testing.T, db *store.DB, query string, args ...any) (n int64) {
	t.Helper()
	if err := db.QueryRow(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAppendRefuses(t *testing.T) {
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		good := Entry{Tenant: "ten_a", Actor: "per_1", Kind: "device.claimed", Subject: "dev_1"}
		for name, bend := range map[string]func(*Entry){
			"kind":      func(e *Entry) { e.Kind = "claimed" },
			"kind case": func(e *Entry) { e.Kind = "Device.claimed" },
			"subject":   func(e *Entry) { e.Subject = "" },
			"actor":     func(e *Entry) { e.Actor = "" },
			"utf8":      func(e *Entry) { e.Subject = "dev_\xff" },
			"nul":       func(e *Entry) { e.Actor = "per\x00" },
			"long":      func(e *Entry) { e.Tenant = strings.Repeat("t", 300) },
			"large":     func(e *Entry) { e.Data = strings.Repeat("x", MaxData) },
			"data":      func(e *Entry) { e.Data = make(chan int) },
		} {
			e := good
			bend(&e)
			if err := db.Write(t.Context(), func(tx *store.Tx) error { return Append(tx, e) }); err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
		appendEntry(t, db, good)
		if n := count(t, db, `SELECT count(*) FROM audit_entry`); n != 1 {
			t.Errorf("%d entries", n)
		}
	})
}

// TestOrder: entries stand in the log in the order in which they were appended, however fast.
func TestOrder(t *testing.T) {
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		l := openLog(t, db, openKeys(t))
		some(t, db, "ten_a", "dev_1", 600)
		drain(t, l)
		set, err := l.Prove(t.Context(), "ten_a", "dev_1")
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range set.Entries {
			var d struct{ N int }
			if err := json.Unmarshal(e.Data.Data, &d); err != nil || d.N != i {
				t.Fatalf("entry %d stands at %d, %v", d.N, i, err)
			}
		}
	})
}

func TestRunSequencesAndWaits(t *testing.T) {
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		l := openLog(t, db, openKeys(t))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		for i := range 3 {
			some(t, db, "ten_a", fmt.Sprintf("dev_%d", i), 300)
			if err := l.Wait(ctx); err != nil {
				t.Fatal(err)
			}
			set, err := l.Prove(ctx, "ten_a", fmt.Sprintf("dev_%d", i))
			if err != nil {
				t.Fatal(err)
			}
			if len(set.Entries) != 300 || set.Checkpoint.Size != int64(300*(i+1)) {
				t.Fatalf("%d entries are proven under size %d", len(set.Entries), set.Checkpoint.Size)
			}
		}
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if r := verify(t, db, l.VerifierKey()); r.Size != 900 || r.Unsigned != 0 || r.Checkpoints < 6 {
			t.Errorf("%+v", r)
		}
		// Released: a successor need not wait for the lease to run out.
		some(t, db, "ten_a", "dev_9", 1)
		drain(t, openLog(t, db, openKeysOf(l)))
		if r := verify(t, db, l.VerifierKey()); r.Size != 901 {
			t.Errorf("%+v", r)
		}
	})
}

func openKeysOf(l *Log) *seal.Keys { return l.cfg.Keys }

func TestPendingHasNoProof(t *testing.T) {
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		l := openLog(t, db, openKeys(t))
		some(t, db, "ten_a", "dev_1", 1)
		drain(t, l)
		some(t, db, "ten_a", "dev_1", 1)
		items, err := l.List(t.Context(), "ten_a", Filter{}, 10)
		if err != nil || len(items) != 2 {
			t.Fatal(items, err)
		}
		for _, it := range items {
			_, err := l.ProveEntry(t.Context(), "ten_a", it.ID)
			if it.Pos == nil && !problem.Is(err, problem.KindConflict) || it.Pos != nil && err != nil {
				t.Errorf("%s at %v: %v", it.ID, it.Pos, err)
			}
		}
	})
}

// TestHeadsLeftUnsignedAreSigned takes the note away, as if the process had been killed between commit and signature.
func TestHeadsLeftUnsignedAreSigned(t *testing.T) {
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		keys := openKeys(t)
		l := openLog(t, db, keys)
		for range 3 {
			some(t, db, "ten_a", "dev_1", 2)
			drain(t, l)
		}
		mustExec(t, db, `UPDATE audit_head SET note = NULL WHERE size > 2`)
		l.release(t.Context())
		next := openLog(t, db, keys)
		if _, err := next.Prove(t.Context(), "ten_a", "dev_1"); err != nil {
			t.Fatal(err)
		}
		drain(t, next)
		if r := verify(t, db, l.VerifierKey()); r.Checkpoints != 3 || r.Unsigned != 0 {
			t.Errorf("%+v", r)
		}
	})
}

func TestErase(t *testing.T) {
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		l := openLog(t, db, openKeys(t))
		appendEntry(t, db, Entry{Tenant: "ten_a", Actor: "per_1", Kind: "device.claimed", Subject: "dev_1", Data: "Jane Doe, 1 Example Street"})
		drain(t, l)
		items, err := l.List(t.Context(), "ten_a", Filter{}, 1)
		if err != nil {
			t.Fatal(err)
		}
		erase := func(tenant string) error {
			return db.Write(t.Context(), func(tx *store.Tx) error { return Erase(tx, tenant, items[0].ID, "per_1", "asked for") })
		}
		if err := erase("ten_b"); !problem.Is(err, problem.KindNotFound) {
			t.Fatalf("another tenant erased it: %v", err)
		}
		if err := erase("ten_a"); err != nil {
			t.Fatal(err)
		}
		drain(t, l)
		set, err := l.Prove(t.Context(), "ten_a", "dev_1")
		if err != nil || len(set.Entries) != 2 || set.Entries[0].Data != nil {
			t.Fatalf("%+v, %v", set.Entries, err)
		}
		if r := verify(t, db, l.VerifierKey()); r.Erased != 1 {
			t.Errorf("%+v", r)
		}
		items, err = l.List(t.Context(), "ten_a", Filter{Kind: kindErased}, 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := erase("ten_a"); !problem.Is(err, problem.KindForbidden) {
			t.Errorf("the record of the erasure was erased: %v", err)
		}
	})
}

func TestJournal(t *testing.T) {
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		keys, path := openKeys(t), filepath.Join(t.TempDir(), "journal", "checkpoints")
		withJournal := func(c *Config) { c.Journal = path }
		l := openLog(t, db, keys, withJournal)
		some(t, db, "ten_a", "dev_1", 300)
		drain(t, l)
		some(t, db, "ten_a", "dev_1", 10)
		drain(t, l)
		// A crash in the middle of a line is no loss: what was published stands in whole lines.
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(`{"checkpoint":"half`); err != nil {
			t.Fatal(err)
		}
		f.Close()
		l.release(t.Context())
		l = openLog(t, db, keys, withJournal)
		if l.Behind() {
			t.Fatal("an intact database is said to be behind")
		}
		some(t, db, "ten_a", "dev_1", 1)
		drain(t, l)
		l.release(t.Context())

		t.Run("forked", func(t *testing.T) {
			saved, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			defer os.WriteFile(path, saved, 0o600) //nolint:errcheck // the next test would tell
			lines := strings.SplitAfter(strings.TrimSuffix(string(saved), "\n"), "\n")
			line := strings.Replace(lines[len(lines)-1], `\n311\n`, `\n310\n`, 1)
			if err := os.WriteFile(path, []byte(line+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if !openLog(t, db, keys, withJournal).Behind() {
				t.Error("another root for a published size went unnoticed")
			}
			for _, bad := range []string{"not json\n", "{}\n", `{"checkpoint":"a\nb\nc\n"}` + "\n", `{"acknowledged":{"size":-1}}` + "\n"} {
				if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
					t.Fatal(err)
				}
				if _, err := New(Config{DB: db, Keys: keys, Origin: origin, Journal: path}); err == nil {
					t.Errorf("journal %q was taken", bad)
				}
			}
		})

		// The restore of an older backup: the newest batch is gone.
		mustExec(t, db, `DELETE FROM audit_entry WHERE pos >= 300`)
		mustExec(t, db, `DELETE FROM audit_head WHERE size > 250`)
		mustExec(t, db, `DELETE FROM audit_entry WHERE pos >= 250`)
		mustExec(t, db, `UPDATE audit_tip SET size = 250, root = (SELECT root FROM audit_head WHERE size = 250)`)
		l = openLog(t, db, keys, withJournal)
		if !l.Behind() {
			t.Fatal("a restored backup went unnoticed")
		}
		some(t, db, "ten_a", "dev_2", 1)
		drain(t, l)
		if n := count(t, db, `SELECT count(*) FROM audit_entry WHERE pos IS NULL`); n != 1 {
			t.Fatal("a log that is behind went on")
		}
		if err := l.Wait(t.Context()); !problem.Is(err, problem.KindUnavailable) {
			t.Errorf("Wait: %v", err)
		}
		if err := l.Acknowledge(t.Context(), "host", ""); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("without a reason: %v", err)
		}
		if err := l.Acknowledge(t.Context(), "host", "restored after a disk failure"); err != nil {
			t.Fatal(err)
		}
		l = openLog(t, db, keys, withJournal) // a restart at this moment remembers it
		if l.Behind() {
			t.Fatal("acknowledged and still behind")
		}
		drain(t, l)
		if r := verify(t, db, l.VerifierKey()); r.Size != 252 {
			t.Errorf("%+v", r)
		}
		if err := l.Acknowledge(t.Context(), "host", "again"); !problem.Is(err, problem.KindConflict) {
			t.Errorf("nothing to acknowledge: %v", err)
		}
	})
}

func TestSignRefusesCheckpoints(t *testing.T) {
	db := storetest.Open(t, storetest.SQLiteURL(t), schema)
	l := openLog(t, db, openKeys(t))
	some(t, db, "ten_a", "dev_1", 1)
	drain(t, l)
	c, err := l.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(c.Note, "\n\n")
	for _, forged := range []string{text + "\n", origin + "\n9\n" + c.Root.String() + "\nmore\n"} {
		if _, err := l.Sign(forged); err == nil {
			t.Errorf("a checkpoint was signed outside the sequencer: %q", forged)
		}
	}
	if _, err := l.Sign("something else\n"); err != nil {
		t.Error(err)
	}
}

// TestThin: old checkpoints are thinned to one an hour; the log stays whole and any two sizes stay provable.
func TestThin(t *testing.T) {
	hand := clock.NewHand(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC))
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		l := openLog(t, db, openKeys(t))
		for range 3 * 6 { // three hours, a checkpoint every ten minutes
			some(t, db, "ten_a", "dev_1", 2)
			drain(t, l)
			hand.Advance(10 * time.Minute)
		}
		hand.Advance(24*time.Hour - 59*time.Minute) // of the last hour, all but the newest five are a day old
		if err := l.thin(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := count(t, db, `SELECT count(*) FROM audit_head`); n != 2+5 {
			t.Errorf("%d checkpoints are left", n)
		}
		if r := verify(t, db, l.VerifierKey()); r.Size != 36 || r.Checkpoints != 7 {
			t.Errorf("%+v", r)
		}
		if _, _, err := l.Consistency(t.Context(), 4, 0); err != nil {
			t.Error(err)
		}
		hand.Advance(240 * time.Hour)
		if err := l.thin(t.Context()); err != nil {
			t.Fatal(err)
		}
		if c, err := l.Checkpoint(t.Context()); err != nil || c.Size != 36 {
			t.Errorf("the newest checkpoint: %+v, %v", c, err)
		}
		if n := count(t, db, `SELECT count(*) FROM audit_head`); n != 3 {
			t.Errorf("%d checkpoints are left", n)
		}
	}, func(c *store.Config) { c.Clock = hand })
}

// TestFullJournal puts a full journal aside and finds its last line there, also right after the crash of doing so.
func TestFullJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoints")
	line := func(n int) record {
		return record{Acknowledged: &acknowledged{Size: int64(n), Reason: strings.Repeat("x", 1000)}}
	}
	j, err := openJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for j.size < journalMax {
		n++
		b, err := json.Marshal(line(n))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := j.file.Write(append(b, '\n')); err != nil { // without the fsync of append
			t.Fatal(err)
		}
		j.size += int64(len(b) + 1)
	}
	last := func() int64 {
		t.Helper()
		again, err := openJournal(path)
		if err != nil {
			t.Fatal(err)
		}
		defer again.file.Close()
		return again.last.N
	}
	if got := last(); got != int64(n) {
		t.Fatalf("the last line is %d, not %d", got, n)
	}
	if err := j.append(line(n + 1)); err != nil {
		t.Fatal(err)
	}
	if got := last(); got != int64(n+1) {
		t.Fatalf("after it was put aside: %d, not %d", got, n+1)
	}
	if err := j.file.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if got := last(); got != int64(n) {
		t.Fatalf("after a crash of putting it aside: %d, not %d", got, n)
	}
	if err := j.file.Close(); err != nil {
		t.Fatal(err)
	}
}

// FuzzJournal: whatever stands in the last line of a journal, reading it fails or names a state of the tree.
func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"checkpoint":"log.test/openthings\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n— log.test/openthings AAAA\n"}`))
	f.Add([]byte(`{"acknowledged":{"size":1,"root":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","at":1,"actor":"host","reason":"r"}}`))
	f.Add([]byte(`{"acknowledged":{"size":-1}}`))
	f.Add([]byte(`{"checkpoint":"\n\n\n"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if tree, err := parseRecord(b); err == nil && tree.N < 0 {
			t.Fatalf("size %d", tree.N)
		}
	})
}
