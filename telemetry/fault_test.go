// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/store"
)

// The answer to an Append is lost after the commit, as when a connection to the database breaks at the wrong moment: devices
// are told that it failed and send again, and every message is there once.
func TestM05_LostAnswerMakesNoDuplicate(t *testing.T) {
	eachPlace(t, func(t *testing.T, at place) {
		s, done, err := at.open(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		var batches, records atomic.Int64
		lossy := func(ctx context.Context, rs []gateway.Record) error {
			err := s.Append(ctx, rs)
			if err == nil && batches.Add(1)%3 != 0 {
				records.Add(int64(len(rs)))
				return errors.New("the answer was lost")
			}
			return err
		}
		l := newLoad(newParty(t, 4))
		addr, err := serveMQTT(t.Context(), l.dir, lossy, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		l.publish(t.Context(), addr.Addr().String(), 100)
		if err := s.settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := l.found(t.Context(), s, &l.History); err != nil {
			t.Fatal(err)
		}
		v := l.Check()
		t.Logf("%d sent, %d acknowledged, %d found; of %d records the answer was lost", v.Sent, v.Acked, v.Found, records.Load())
		if err := v.Err(); err != nil {
			t.Error(err)
		}
		if v.Acked != 400 || records.Load() < 100 {
			t.Error("the test proves too little")
		}
	})
}

// Rows of the inbox that were damaged in every way that a disk can think of are found, set aside and counted; those before,
// between and after them are read, in order.
func TestM04_DamagedRecordsLeaveTheOthersIntact(t *testing.T) {
	each(t, func(r rig) {
		ctx := r.t.Context()
		for i := range 20 {
			r.append(message(fmt.Sprintf("dev_%02d", i), t0, 1, float64(i)), timed(fmt.Sprintf("dev_%02d", i), "boot", t0.Add(time.Second), fmt.Sprint(i)))
		}
		rows, _, err := readInbox(ctx, r.cfg.DB, enoughRecords)
		if err != nil || len(rows) != 20 {
			r.t.Fatalf("%d rows, %v", len(rows), err)
		}
		flipped := append([]byte(nil), rows[3].body...)
		flipped[len(flipped)/2] ^= 1
		damaged := map[int][]byte{
			3:  flipped,
			7:  rows[7].body[:len(rows[7].body)/2],                        // torn
			8:  {},                                                        // empty
			12: rows[13].body,                                             // another row's
			19: append(append([]byte(nil), rows[19].body...), 0, 0, 0, 0), // with a tail
		}
		for i, body := range damaged {
			if err := r.cfg.DB.Write(ctx, func(tx *store.Tx) error {
				_, err := tx.Exec(`UPDATE telemetry_inbox SET body = $1 WHERE id = $2`, body, rows[i].id)
				return err
			}); err != nil {
				r.t.Fatal(err)
			}
		}
		r.append(message("dev_late", t0, 1, 1))
		r.compactAll()
		for i := range 20 {
			device := fmt.Sprintf("dev_%02d", i)
			want := 1
			if damaged[i] != nil {
				want = 0
			}
			if n := strings.Count(r.all(device), `"count": 1`); n != want || len(r.events("ten", device)) != want {
				r.t.Errorf("%s has %d values and %d events, want %d", device, n, len(r.events("ten", device)), want)
			}
		}
		if n := strings.Count(r.all("dev_late"), `"count": 1`); n != 1 {
			r.t.Error("what came after the damage is not read")
		}
		if n, err := aside(ctx, r.cfg.DB); err != nil || n != len(damaged) {
			r.t.Errorf("%d rows were set aside, want %d (%v)", n, len(damaged), err)
		}
		if n := r.rows("telemetry_inbox"); n != len(damaged) {
			r.t.Errorf("%d rows remain, want the damaged ones", n)
		}
	})
}
