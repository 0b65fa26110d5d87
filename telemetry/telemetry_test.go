// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

var (
	schema = []store.Migrations{seal.Schema, audit.Schema, CatalogueSchema, Schema}
	t0     = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
)

type rig struct {
	*Service
	t   *testing.T
	clk *clock.Hand
}

// each runs fn on both engines with a service whose clock stands at t0.
func each(t *testing.T, fn func(r rig)) {
	clk := clock.NewHand(t0)
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		clk.Set(t0)
		fn(newRig(t, db, clk))
	}, func(c *store.Config) { c.Clock = clk })
}

func newRig(t *testing.T, db *store.DB, clk *clock.Hand) rig {
	keys, err := seal.Open(filepath.Join(t.TempDir(), "keys"), clk)
	if err != nil {
		t.Fatal(err)
	}
	return rig{New(Config{DB: db, Platform: db, Keys: keys, Clock: clk}), t, clk}
}

// message is a record of stream env as the gateway hands it over.
func message(device string, ts time.Time, seq int, v float64) gateway.Record {
	return gateway.Record{Tenant: "ten", Device: device, Topic: "tele/env", At: t0.UnixMilli(),
		Body: fmt.Appendf(nil, `{"ts":%d,"boot":1,"seq":%d,"values":{"temp":%g}}`, ts.UnixMilli(), seq, v)}
}

func (r rig) append(records ...gateway.Record) {
	r.t.Helper()
	if err := r.Append(r.t.Context(), records); err != nil {
		r.t.Fatal(err)
	}
}

// compactAll empties the inbox as Work does.
func (r rig) compactAll() {
	r.t.Helper()
	for more := true; more; {
		var err error
		if more, err = r.step(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
	}
}

// all is everything a device said, as text.
func (r rig) all(device string) string {
	r.t.Helper()
	series, err := r.Series(r.t.Context(), "ten", device, Query{From: t0, To: t0.Add(50 * time.Millisecond * MaxPoints), Max: MaxPoints})
	if err != nil {
		r.t.Fatal(err)
	}
	latest, err := r.Latest(r.t.Context(), "ten", device)
	if err != nil {
		r.t.Fatal(err)
	}
	b, err := json.MarshalIndent([]any{series, latest}, "", " ")
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

func (r rig) rows(table string) (n int) {
	r.t.Helper()
	if err := r.cfg.DB.QueryRow(r.t.Context(), `SELECT count(*) FROM `+table).Scan(&n); err != nil {
		r.t.Fatal(err)
	}
	return n
}

// What is read does not depend on whether it lies in the inbox or in chunks.
func TestReadersSeeEachValueOnce(t *testing.T) {
	each(t, func(r rig) {
		r.append(message("dev_a", t0, 1, 20), message("dev_a", t0.Add(time.Second), 2, 21), message("dev_b", t0, 1, 99))
		r.append(message("dev_a", t0.Add(2*time.Second), 3, 20.5), message("dev_a", t0, 1, 20))
		inbox := r.all("dev_a")
		if n := strings.Count(inbox, `"count": 1`); n != 3 {
			r.t.Errorf("%d points in the inbox, want 3:\n%s", n, inbox)
		}
		r.compactAll()
		if n := r.rows("telemetry_inbox"); n != 0 {
			r.t.Errorf("%d inbox rows remain", n)
		}
		if d := cmp.Diff(inbox, r.all("dev_a")); d != "" {
			r.t.Errorf("compaction changed what is read (-inbox +chunks):\n%s", d)
		}
		if s := r.all("dev_none"); strings.Contains(s, "count") {
			r.t.Errorf("a silent device has values: %s", s)
		}
		if other, err := r.Series(r.t.Context(), "tenant2", "dev_a", Query{From: t0.Add(-time.Hour), To: t0.Add(time.Hour)}); err != nil || len(other) != 0 {
			r.t.Errorf("another tenant reads %v, %v", other, err)
		}
	})
}

// The chunk is written and the inbox row deleted in one transaction: whatever interrupts it, every value stays once.
func TestS05_InterruptedCompaction(t *testing.T) {
	each(t, func(r rig) {
		ctx := r.t.Context()
		r.append(message("dev_a", t0, 1, 20), message("dev_a", t0.Add(time.Second), 2, 21))
		want := r.all("dev_a")
		rows, _, err := readInbox(ctx, r.cfg.DB, enoughRecords)
		if err != nil {
			r.t.Fatal(err)
		}
		b := r.newBatch()
		b.rows = rows
		records, _, err := r.open(ctx, rows[0])
		if err != nil {
			r.t.Fatal(err)
		}
		for _, rec := range records {
			if err := r.sort(ctx, b, rec); err != nil {
				r.t.Fatal(err)
			}
		}
		if err := r.pack(ctx, b); err != nil {
			r.t.Fatal(err)
		}
		power := errors.New("power cut")
		if err := r.cfg.DB.Write(ctx, func(tx *store.Tx) error { return errors.Join(r.put(tx, b), power) }); !errors.Is(err, power) {
			r.t.Fatal(err)
		}
		if d := cmp.Diff(want, r.all("dev_a")); d != "" {
			r.t.Errorf("after the interruption (-want +got):\n%s", d)
		}
		// A second compactor with the same rows in hand: one of them wins.
		r.compactAll()
		if err := r.cfg.DB.Write(ctx, func(tx *store.Tx) error { return r.put(tx, b) }); !errors.Is(err, errMoved) {
			r.t.Errorf("the second compactor got %v, want errMoved", err)
		}
		if d := cmp.Diff(want, r.all("dev_a")); d != "" {
			r.t.Errorf("after two compactors (-want +got):\n%s", d)
		}
		if n := r.rows("telemetry_chunk"); n != 1 {
			r.t.Errorf("%d chunks, want 1", n)
		}
	})
}

// S16: late, repeated and shuffled telemetry reads as if it had come in order, compacted and merged at any moment.
func TestS16_OrderOfArrivalNeverShows(t *testing.T) {
	each(t, func(r rig) {
		random := rand.New(rand.NewPCG(7, 11))
		var inOrder []gateway.Record
		for seq := 1; seq <= 300; seq++ {
			ts := t0.Add(time.Duration(seq/2) * time.Second) // two messages share each second
			m := message("dev_in", ts, seq, float64(random.IntN(400))/10)
			if seq%3 == 0 {
				m.Topic = "tele/power"
			}
			inOrder = append(inOrder, m)
		}
		for part := range slices.Chunk(inOrder, 50) {
			r.append(part...)
		}
		r.compactAll()
		want := r.all("dev_in")

		shuffled := slices.Concat(inOrder, inOrder[100:200], inOrder[:50])
		for i := range shuffled {
			shuffled[i].Device = "dev_out"
		}
		random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		compactions := 0
		for part := range slices.Chunk(shuffled, 7) {
			r.append(part...)
			switch random.IntN(6) {
			case 0, 1, 2:
				r.compactAll()
				compactions++
			case 3:
				if err := r.tidy(r.t.Context()); err != nil {
					r.t.Fatal(err)
				}
			}
		}
		if d := cmp.Diff(want, r.all("dev_out")); d != "" {
			r.t.Fatalf("while some lies in the inbox (-in order +shuffled):\n%s", d)
		}
		r.compactAll()
		if err := r.tidy(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
		if n := r.rows("telemetry_chunk WHERE device = 'dev_out'"); n >= compactions {
			r.t.Errorf("%d chunks after %d compactions: they were not merged", n, compactions)
		}
		if d := cmp.Diff(want, r.all("dev_out")); d != "" {
			r.t.Errorf("after merging (-in order +shuffled):\n%s", d)
		}
	})
}

// A message that is sent again because its receipt was lost counts once, also when only the platform knows the time.
func TestRepeatWithoutTimeCountsOnce(t *testing.T) {
	each(t, func(r rig) {
		m := message("dev_a", time.UnixMilli(0), 1, 20)
		for range 3 {
			m.At += 1000
			r.append(m)
			r.compactAll()
		}
		m.At += 1000
		r.append(m, m) // two more in the inbox
		if n := strings.Count(r.all("dev_a"), `"count"`); n != 1 {
			r.t.Errorf("one message, sent five times, is read as %d", n)
		}
	})
}

// S17 for the live data: after an erasure nothing of the device can be read, and others are untouched.
func TestS17_EraseDevice(t *testing.T) {
	each(t, func(r rig) {
		ctx := r.t.Context()
		r.append(message("dev_a", t0, 1, 20), message("dev_b", t0, 1, 30))
		r.compactAll()
		var sealed []byte
		if err := r.cfg.DB.QueryRow(ctx, `SELECT body FROM telemetry_chunk WHERE device = 'dev_a'`).Scan(&sealed); err != nil {
			r.t.Fatal(err)
		}
		r.append(message("dev_a", t0.Add(time.Second), 2, 21), message("dev_b", t0.Add(time.Second), 2, 31)) // still in the inbox
		other := r.all("dev_b")
		for range 2 {
			if err := r.EraseDevice(ctx, "ten", "dev_a"); err != nil {
				r.t.Fatal(err)
			}
		}
		r.append(message("dev_a", t0.Add(2*time.Second), 3, 22)) // what was still under way
		r.compactAll()
		for _, table := range []string{"telemetry_chunk", "telemetry_latest"} {
			var n int
			if err := r.cfg.DB.QueryRow(ctx, `SELECT count(*) FROM `+table+` WHERE device = 'dev_a'`).Scan(&n); err != nil || n != 0 {
				r.t.Errorf("%s holds %d rows of the erased device (%v)", table, n, err)
			}
		}
		if n := r.rows("telemetry_inbox"); n != 0 {
			r.t.Errorf("%d rows remain in the inbox", n)
		}
		if _, err := r.Series(ctx, "ten", "dev_a", Query{From: t0, To: t0.Add(time.Hour)}); !problem.Is(err, problem.KindNotFound) {
			r.t.Errorf("Series of an erased device: %v", err)
		}
		if _, err := r.Latest(ctx, "ten", "dev_a"); !problem.Is(err, problem.KindNotFound) {
			r.t.Errorf("Latest of an erased device: %v", err)
		}
		// A copy of the chunk, as a backup would hold it, does not open either: there is no key any more.
		if _, err := r.cfg.Keys.Subject(ctx, r.cfg.Platform, "ten", "dev_a"); !errors.Is(err, seal.ErrDestroyed) {
			r.t.Errorf("the key of the erased device: %v", err)
		}
		if len(sealed) == 0 || strings.Contains(string(sealed), "temp") {
			r.t.Error("the chunk was not sealed")
		}
		if d := cmp.Diff(other, r.all("dev_b")); d != "" {
			r.t.Errorf("the erasure changed another device (-before +after):\n%s", d)
		}
	})
}

// Bad payloads are counted against their device and stop nobody else.
func TestBadPayloadsAreDroppedAndCounted(t *testing.T) {
	each(t, func(r rig) {
		bad := message("dev_bad", t0, 1, 1)
		bad.Body = []byte("\xff\x00not json")
		alien := message("dev_bad", t0, 2, 1)
		alien.Topic = "tele/../../etc"
		r.append(bad, message("dev_good", t0, 1, 20), alien)
		r.compactAll()
		latest, err := r.Latest(r.t.Context(), "ten", "dev_bad")
		if err != nil {
			r.t.Fatal(err)
		}
		if latest.Refused != 2 || !strings.Contains(latest.Reason, "stream") || len(latest.Streams) != 0 {
			r.t.Errorf("latest of the bad device: %+v", latest)
		}
		if !strings.Contains(r.all("dev_good"), `"count": 1`) {
			r.t.Error("the good device lost its value")
		}
		if n := r.rows("telemetry_inbox"); n != 0 {
			r.t.Errorf("%d inbox rows remain", n)
		}
	})
}

// S4: a damaged inbox row is found, set aside and reported; the others go on.
func TestS04_DamagedRowIsIsolated(t *testing.T) {
	each(t, func(r rig) {
		r.append(message("dev_a", t0, 1, 20))
		if err := r.cfg.DB.Write(r.t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE telemetry_inbox SET body = $1`, []byte("damaged"))
			return err
		}); err != nil {
			r.t.Fatal(err)
		}
		r.append(message("dev_a", t0.Add(time.Second), 2, 21))
		if got := r.all("dev_a"); strings.Count(got, `"count": 1`) != 1 {
			r.t.Errorf("with a damaged row in the inbox: %s", got)
		}
		r.compactAll()
		got := r.all("dev_a")
		if strings.Count(got, `"count": 1`) != 1 || !strings.Contains(got, `"missing": 1`) {
			r.t.Errorf("after compaction: %s", got)
		}
		if n := r.rows("telemetry_inbox WHERE error <> ''"); n != 1 {
			r.t.Errorf("%d rows set aside, want 1", n)
		}
	})
}

// A damaged row of one device does not stop the others.
func TestDamagedLatestRowIsBegunAnew(t *testing.T) {
	each(t, func(r rig) {
		r.append(message("dev_a", t0, 1, 20), message("dev_b", t0, 1, 30))
		r.compactAll()
		if err := r.cfg.DB.Write(r.t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE telemetry_latest SET body = $1 WHERE device = 'dev_a'`, []byte("damaged"))
			return err
		}); err != nil {
			r.t.Fatal(err)
		}
		r.append(message("dev_a", t0.Add(time.Second), 2, 21), message("dev_b", t0.Add(time.Second), 2, 31))
		r.compactAll()
		for _, d := range []string{"dev_a", "dev_b"} {
			if n := strings.Count(r.all(d), `"count": 1`); n != 2 {
				r.t.Errorf("%s has %d points, want 2", d, n)
			}
		}
	})
}

// More records than one transaction may carry still are one receipt.
func TestLargeBatch(t *testing.T) {
	each(t, func(r rig) {
		var records []gateway.Record
		for i := range 1200 {
			records = append(records, message(fmt.Sprintf("dev_%03d", i%300), t0.Add(time.Duration(i)*time.Millisecond), i/300+1, float64(i)))
		}
		r.append(records...)
		if n := r.rows("telemetry_inbox"); n != 4 {
			r.t.Errorf("%d inbox rows, want 4", n)
		}
		r.compactAll()
		for _, d := range []string{"dev_000", "dev_299"} {
			if n := strings.Count(r.all(d), `"count": 1`); n != 4 {
				r.t.Errorf("%s has %d points, want 4", d, n)
			}
		}
	})
}

// Other records reach their handlers: again after a passing failure, once when refused for good, and never in the way
// of measurements.
func TestDispatch(t *testing.T) {
	each(t, func(r rig) {
		var mu sync.Mutex
		calls := map[string]int{}
		handler := func(answer func(call int) error) Handler {
			return func(_ context.Context, rec gateway.Record) error {
				mu.Lock()
				defer mu.Unlock()
				calls[rec.Topic]++
				return answer(calls[rec.Topic])
			}
		}
		r.Route("cmd/", handler(func(n int) error {
			if n < 3 {
				return errors.New("the database is away")
			}
			return nil
		}))
		r.Route("inv", handler(func(int) error { return problem.Invalid("no such release") }))
		r.Route("ota/", handler(func(int) error { panic("bug") }))
		r.Route("ota/fine/", handler(func(int) error { return nil }))
		record := func(topic string) gateway.Record {
			return gateway.Record{Tenant: "ten", Device: "dev_a", Topic: topic, At: t0.UnixMilli(), Body: []byte(`{"ok":true}`)}
		}
		r.append(record("cmd/1/res"), record("inv"), record("ota/x/status"), record("ota/fine/status"), message("dev_a", t0, 1, 20))
		r.compactAll()
		if !strings.Contains(r.all("dev_a"), `"count": 1`) {
			r.t.Error("the measurement waits for handlers")
		}
		for i := range 5 {
			if _, err := r.dispatch(r.t.Context()); err != nil {
				r.t.Fatal(err)
			}
			if i == 0 {
				if n := r.rows("telemetry_pending"); n != 2 {
					r.t.Errorf("%d records wait after the first round, want 2", n)
				}
			}
			r.clk.Advance(time.Minute)
		}
		want := map[string]int{"cmd/1/res": 3, "inv": 1, "ota/x/status": 5, "ota/fine/status": 1}
		if d := cmp.Diff(want, calls); d != "" {
			r.t.Errorf("calls (-want +got):\n%s", d)
		}
		if n := r.rows("telemetry_pending"); n != 1 {
			r.t.Errorf("%d records wait, want the one that always panics", n)
		}
	})
}

// Work does it all by itself: compacts, dispatches and stops.
func TestWork(t *testing.T) {
	each(t, func(r rig) {
		done := make(chan gateway.Record, 1)
		r.Route("cmd/", func(_ context.Context, rec gateway.Record) error { done <- rec; return nil })
		ctx, stop := context.WithCancel(r.t.Context())
		ended := make(chan error)
		go func() { ended <- r.Work(ctx) }()
		r.append(message("dev_a", t0, 1, 20), gateway.Record{Tenant: "ten", Device: "dev_a", Topic: "cmd/1/res", Body: []byte(`{"ok":true}`)})
		if rec := <-done; rec.Topic != "cmd/1/res" || string(rec.Body) != `{"ok":true}` {
			r.t.Errorf("the handler got %+v", rec)
		}
		stop()
		if err := <-ended; err != nil {
			r.t.Error(err)
		}
		if !strings.Contains(r.all("dev_a"), `"count": 1`) || r.rows("telemetry_inbox") != 0 {
			r.t.Error("the measurement was not compacted")
		}
	})
}

// A pass costs two rows for every stream, so what arrives while one is made waits until it is worth another: for Linger,
// for so many records, or for one that should not wait.
func TestAPassIsWorthItsRows(t *testing.T) {
	each(t, func(r rig) {
		woken := func() bool {
			select {
			case <-r.wake:
				return true
			default:
				return false
			}
		}
		step := func() bool {
			more, err := r.step(r.t.Context())
			if err != nil {
				r.t.Fatal(err)
			}
			return more
		}
		seq := 0
		batch := func(n int) (out []gateway.Record) {
			for range n {
				seq++
				out = append(out, message("dev_a", t0.Add(time.Duration(seq)*time.Millisecond), seq, 20))
			}
			return out
		}
		r.append(batch(300)...)
		if woken() {
			r.t.Error("some measurements are called worth a pass")
		}
		if step() {
			r.t.Error("a pass that took everything is followed by another at once")
		}
		r.append(batch(enoughRecords - 1)...)
		if woken() {
			r.t.Error("what the pass before took counts again")
		}
		r.append(batch(301)...)
		if !woken() {
			r.t.Error("so many records are not worth a pass")
		}
		if !step() || r.rows("telemetry_inbox") == 0 {
			r.t.Error("a pass has no bound")
		}
		if step() || r.rows("telemetry_inbox") != 0 {
			r.t.Error("the rest was not taken")
		}
		if n := r.rows("telemetry_chunk"); n > 12 {
			r.t.Errorf("%d chunks of one stream after three passes", n)
		}
	})
}

// Hourly keys go once nothing needs them; those of rows that wait stay.
func TestHourlyKeysEnd(t *testing.T) {
	each(t, func(r rig) {
		r.append(message("dev_a", t0, 1, 20))
		r.clk.Advance(3 * time.Hour)
		if err := r.tidy(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
		if n := r.rows("seal_hour"); n != 1 {
			r.t.Fatalf("%d hourly keys, but a row waits for one", n)
		}
		r.compactAll()
		if err := r.tidy(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
		if n := r.rows("seal_hour"); n != 0 {
			r.t.Errorf("%d hourly keys outlive their rows", n)
		}
	})
}

func TestBuckets(t *testing.T) {
	g := gather{}
	q := Query{From: t0, To: t0.Add(10 * time.Second), Step: 5 * time.Second, Fields: []string{"env/a"}}
	for i, v := range []float64{1, 2, 6, 4, 5} {
		g.add(q, "env", tableOf([]point{{t: t0.Add(time.Duration(i) * 2 * time.Second).UnixMilli(), values: []value{{"a", v}, {"b", 0}}}}))
	}
	g.add(q, "env", tableOf([]point{{t: q.To.UnixMilli(), values: []value{{"a", 100}}}})) // To is excluded
	want := []Series{{Stream: "env", Field: "a", Points: []Bucket{
		{Time: t0.Add(4 * time.Second), Min: 1, Max: 6, Mean: 3, Last: 6, Count: 3},
		{Time: t0.Add(8 * time.Second), Min: 4, Max: 5, Mean: 4.5, Last: 5, Count: 2}}}}
	if d := cmp.Diff(want, g.series(q)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
