// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// oracle knows who ran what from when to when, and nothing of counters: every answer is found by looking at all of it.
type oracle struct{ runs []ranRelease }

type ranRelease struct {
	tenant, device, release string
	from, to                int64
}

// move is what fleet is told, told to the oracle; late news about a device are ignored by both.
func (o *oracle) move(tenant, device, release string, at int64) {
	last := -1
	for i, r := range o.runs {
		if r.tenant == tenant && r.device == device && (last < 0 || r.from >= o.runs[last].from) {
			last = i
		}
	}
	if last >= 0 {
		r := &o.runs[last]
		running := r.to == Forever
		if at < r.from || !running && at < r.to || running && r.release == release || !running && release == "" {
			return
		}
		if running {
			if r.to = at; r.from == at {
				o.runs = slices.Delete(o.runs, last, last+1)
			}
		}
	}
	if release != "" {
		o.runs = append(o.runs, ranRelease{tenant, device, release, at, Forever})
	}
}

func (o *oracle) count(tenant string, at int64) map[string]int64 {
	n := map[string]int64{}
	for _, r := range o.runs {
		if r.tenant == tenant && r.from <= at && at < r.to {
			n[r.release]++
		}
	}
	return n
}

func (o *oracle) placed(tenant string, releases []string, at int64) []Placed {
	var out []Placed
	for _, r := range o.runs {
		if r.tenant == tenant && r.from <= at && at < r.to && slices.Contains(releases, r.release) {
			out = append(out, Placed{r.device, r.release, store.Time(r.from)})
		}
	}
	slices.SortFunc(out, func(a, b Placed) int {
		return cmp.Or(strings.Compare(a.Release, b.Release), strings.Compare(a.Device, b.Device))
	})
	return out
}

// exposed adds up, millisecond by millisecond of each run, what lies in any of the spans: spans of one release may overlap.
func (o *oracle) exposed(tenant string, spans []Span, until int64) (millis int64, ever int) {
	devices := map[string]bool{}
	for _, r := range o.runs {
		var cuts []int64
		for _, s := range spans {
			cuts = append(cuts, s.From, s.To)
		}
		cuts = append(cuts, r.from, min(r.to, until))
		slices.Sort(cuts)
		for i := range cuts[1:] {
			from, to := max(cuts[i], r.from), min(cuts[i+1], r.to, until)
			in := slices.ContainsFunc(spans, func(s Span) bool { return s.Release == r.release && s.From <= from && from < s.To })
			if r.tenant == tenant && from < to && in {
				millis += to - from
				devices[r.device] = true
			}
		}
	}
	return millis, len(devices)
}

func pick[T any](rnd *rand.Rand, list []T) T { return list[rnd.IntN(len(list))] }

// Histories at random, folded at random, late news among them: what is said of any past instant is what an oracle finds in
// the intervals.
func TestPastEqualsTheIntervals(t *testing.T) {
	defer func(n int) { eachStep = n }(eachStep)
	eachStep = 3 * eachTogether // so that some releases are large
	each(t, func(r rig) {
		ctx, rnd, o := r.t.Context(), rand.New(rand.NewPCG(7, 11)), &oracle{}
		tenants, releases := []string{"ten_a", "ten_b"}, []string{"rel_1", "rel_2", "rel_3", "rel_4"}
		const begin, length = 1_790_000_000_000, 20 * 24 * 3600 * 1000
		for i := range 900 {
			at := begin + int64(i)*length/900 + rnd.Int64N(3600_000)
			if rnd.IntN(10) == 0 {
				at -= rnd.Int64N(3 * 24 * 3600 * 1000) // late
			}
			if rnd.IntN(10) == 0 {
				at -= at % 3600_000 // several in one millisecond
			}
			tenant, device, release := pick(rnd, tenants), fmt.Sprintf("dev_%02d", rnd.IntN(60)), pick(rnd, releases)
			if rnd.IntN(12) == 0 {
				release = ""
			}
			r.installed(tenant, device, release, store.Time(at))
			o.move(tenant, device, release, at)
			if rnd.IntN(15) == 0 {
				r.fold()
			}
			if i%150 == 149 {
				r.agrees(ctx, rnd, o, tenants, releases, begin, length)
			}
		}
		r.fold()
		r.agrees(ctx, rnd, o, tenants, releases, begin, length)
		if n, err := r.Recount(ctx); err != nil || n != 0 {
			r.t.Fatalf("the recount found %d wrong releases, %v", n, err)
		}
		// It finds what is wrong, wherever it is, and puts it right.
		for _, harm := range []string{`UPDATE fleet_count SET n = n + 1 WHERE tenant = 'ten_a' AND release_id = 'rel_1'`, `UPDATE fleet_mark SET n = n - 1 WHERE tenant = 'ten_a' AND release_id = 'rel_2'`,
			`UPDATE fleet_mark SET body = (SELECT body FROM fleet_mark ORDER BY at LIMIT 1) WHERE tenant = 'ten_b' AND release_id = 'rel_3'`, `DELETE FROM fleet_count WHERE tenant = 'ten_b' AND release_id = 'rel_4'`} {
			must(r.t, r.cfg.DB.Write(ctx, func(tx *store.Tx) error { _, err := tx.Exec(harm); return err }))
			if n, err := r.Recount(ctx); err != nil || n != 1 {
				r.t.Errorf("after %s the recount found %d wrong releases, %v", harm, n, err)
			}
			r.agrees(ctx, rnd, o, tenants, releases, begin, length)
		}
		// Without marks the past is told as well; the recount makes them and calls nothing wrong.
		must(r.t, r.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			if _, err := tx.Exec(`DELETE FROM fleet_mark`); err != nil {
				return err
			}
			_, err := tx.Exec(`UPDATE fleet_count SET mark_at = -1`)
			return err
		}))
		r.agrees(ctx, rnd, o, tenants, releases, begin, length)
		if n, err := r.Recount(ctx); err != nil || n != 0 {
			r.t.Errorf("without marks the recount found %d wrong releases, %v", n, err)
		}
		var marks int
		must(r.t, r.cfg.DB.QueryRow(ctx, `SELECT count(*) FROM fleet_mark`).Scan(&marks))
		if marks < 20 {
			r.t.Errorf("%d marks were made again", marks)
		}
		r.agrees(ctx, rnd, o, tenants, releases, begin, length)
	})
}

// agrees compares every answer with the oracle's, at random instants.
func (r rig) agrees(ctx context.Context, rnd *rand.Rand, o *oracle, tenants, releases []string, begin, length int64) {
	r.t.Helper()
	instants := []int64{begin - 5*24*3600*1000, begin + 2*length}
	for range 12 {
		instants = append(instants, begin+rnd.Int64N(length), pick(rnd, o.runs).from)
	}
	equal := func(what string, want, got any, err error) {
		r.t.Helper()
		must(r.t, err)
		if d := gocmp.Diff(want, got); d != "" {
			r.t.Fatalf("%s (-intervals +said):\n%s", what, d)
		}
	}
	for _, tenant := range tenants {
		for _, at := range instants {
			got, err := r.CountOf(ctx, tenant, nil, store.Time(at))
			equal(fmt.Sprintf("%s at %d", tenant, at), o.count(tenant, at), got, err)
		}
		got, err := r.CountByRelease(ctx, tenant)
		equal(tenant+" now", o.count(tenant, Forever-1), got, err)

		var spans []Span
		for range 6 {
			s := Span{pick(rnd, releases), pick(rnd, instants), pick(rnd, instants)}
			if rnd.IntN(3) == 0 {
				s.To = Forever
			}
			spans = append(spans, s)
		}
		until := begin + rnd.Int64N(2*length)
		millis, devices := o.exposed(tenant, spans, until)
		gotMillis, err := r.DeviceTime(ctx, tenant, spans, store.Time(until))
		equal("device time", millis, gotMillis, err)
		// What happens at the instant itself has happened, for no time yet.
		_, devices = o.exposed(tenant, spans, until+1)
		gotEver, asOf, err := r.Ever(ctx, tenant, spans, store.Time(until))
		equal(fmt.Sprintf("ever in %v until %d", spans, until), int64(devices), gotEver, err)
		equal("instant of the answer", store.Time(until), asOf.UTC(), nil)

		var want []int64
		var at []time.Time
		for _, t := range instants {
			n := int64(0)
			for release, k := range o.count(tenant, t) {
				if slices.ContainsFunc(spans, func(s Span) bool { return s.Release == release && s.From <= t && t < s.To }) {
					n += k
				}
			}
			want, at = append(want, n), append(at, store.Time(t))
		}
		curve, err := r.Curve(ctx, tenant, spans, at)
		equal("curve", want, curve, err)

		some := releases[rnd.IntN(len(releases)-1):]
		for _, at := range []int64{0, pick(rnd, instants)} {
			moment := at
			if at == 0 {
				moment = Forever - 1
			}
			var list []Placed
			for after := ""; ; {
				page, err := r.Devices(ctx, tenant, some, store.Time(at), Page{After: after, Limit: 1 + rnd.IntN(9)})
				must(r.t, err)
				if len(page) == 0 {
					break
				}
				list, after = append(list, page...), page[len(page)-1].Cursor()
			}
			equal(fmt.Sprintf("pages at %d", at), o.placed(tenant, some, moment), list, nil)
		}
		var list []Placed
		must(r.t, r.EachDevice(ctx, tenant, some, func(release string, devices []string) error {
			for _, d := range devices {
				list = append(list, Placed{Device: d, Release: release})
			}
			return nil
		}))
		all := o.placed(tenant, some, Forever-1)
		for i := range all {
			all[i].Since = time.Time{}
		}
		equal("all devices", all, list, nil)
	}
}

// While devices move, news come late and one folds, whoever asks finds each device once, now and at any past instant.
func TestNobodyReadsHalfAFold(t *testing.T) {
	each(t, func(r rig) {
		const devices, moves = 40, 500
		ctx, rnd := r.t.Context(), rand.New(rand.NewPCG(3, 9))
		release := func() string { return fmt.Sprintf("rel_%d", rnd.IntN(5)) }
		must(r.t, r.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			for d := range devices {
				if err := r.Installed(tx, "ten", "prd", fmt.Sprintf("dev_%02d", d), release(), t0); err != nil {
					return err
				}
			}
			return nil
		}))
		var wg sync.WaitGroup
		var done atomic.Bool
		var reads atomic.Int64
		defer wg.Wait()
		wg.Go(func() {
			for !done.Load() {
				if err := r.Fold(ctx); err != nil {
					r.t.Error(err)
					return
				}
			}
		})
		for i := range 3 {
			rnd := rand.New(rand.NewPCG(1, uint64(i)))
			wg.Go(func() {
				for !done.Load() {
					var at time.Time
					if rnd.IntN(2) == 0 {
						at = t0.Add(time.Duration(rnd.IntN(moves)) * time.Minute)
					}
					counts, err := r.CountOf(ctx, "ten", []string{"rel_0", "rel_1", "rel_2", "rel_3", "rel_4"}, at)
					n := int64(0)
					for _, k := range counts {
						n += k
					}
					if err != nil || n != devices {
						r.t.Errorf("%d devices at %v: %v, %v", n, at, counts, err)
						return
					}
					reads.Add(1)
				}
			})
		}
		for i := range moves {
			at := t0.Add(time.Duration(i) * time.Minute)
			if i%10 == 0 {
				at = at.Add(-time.Duration(rnd.IntN(i+1)) * time.Minute)
			}
			r.installed("ten", fmt.Sprintf("dev_%02d", rnd.IntN(devices)), release(), at)
		}
		for reads.Load() < 50 && !r.t.Failed() {
			r.installed("ten", "dev_00", release(), t0.Add(moves*time.Minute))
		}
		done.Store(true)
		wg.Wait()
		must(r.t, r.Fold(ctx))
		if n, err := r.Recount(ctx); err != nil || n != 0 {
			r.t.Errorf("the recount found %d wrong releases, %v", n, err)
		}
	})
}

// An id says nothing of when its transaction commits: what appears behind others that were folded already is folded too.
func TestFoldTakesWhatCommitsLate(t *testing.T) {
	each(t, func(r rig) {
		for _, id := range []string{"fd_9", "fd_1"} {
			must(r.t, r.cfg.DB.Write(r.t.Context(), func(tx *store.Tx) error {
				if err := insertInstall(tx, "ten", "prd", "dev_"+id, "rel_1", t0.UnixMilli()); err != nil {
					return err
				}
				_, err := tx.Exec(`INSERT INTO fleet_delta(tenant, id, from_release, to_release, at) VALUES ('ten', $1, '', 'rel_1', $2)`, id, t0.UnixMilli())
				return err
			}))
			r.fold()
		}
		var n, waiting int64
		must(r.t, r.cfg.DB.QueryRow(r.t.Context(), `SELECT (SELECT n FROM fleet_count), (SELECT count(*) FROM fleet_delta)`).Scan(&n, &waiting))
		if n != 2 || waiting != 0 {
			r.t.Errorf("%d of 2 are folded and %d wait", n, waiting)
		}
	})
}

// Questions about many releases go other ways than those about few; all ways lead to the same answer.
func TestManyReleases(t *testing.T) {
	each(t, func(r rig) {
		const all = 400
		ctx, o := r.t.Context(), &oracle{}
		must(r.t, r.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			*o = oracle{}
			for i := range all {
				for d := range 1 + i%3 + i/(all-10)*markEvery { // the last have marks
					device, release, at := fmt.Sprintf("dev_%d_%d", i, d), fmt.Sprintf("rel_%03d", i), t0.Add(time.Duration(i*d)*time.Hour)
					o.move("ten", device, release, at.UnixMilli())
					if err := r.Installed(tx, "ten", "prd", device, release, at); err != nil {
						return err
					}
				}
			}
			return nil
		}))
		for range 2 { // before and after the fold
			for _, n := range []int{1, 8, 9, fewPoints, fewPoints + 1, maxNamed, maxNamed + 1, all/wholeTimes + 1, all} {
				releases := make([]string, n)
				for i := range releases {
					releases[i] = fmt.Sprintf("rel_%03d", i)
				}
				for _, at := range []time.Time{{}, t0.Add(100 * time.Hour)} {
					moment := at.UnixMilli()
					if at.IsZero() {
						moment = Forever - 1
					}
					want := o.count("ten", moment)
					maps.DeleteFunc(want, func(release string, _ int64) bool { return !slices.Contains(releases, release) })
					got, err := r.CountOf(ctx, "ten", releases, at)
					must(r.t, err)
					if d := gocmp.Diff(want, got); d != "" {
						r.t.Errorf("%d releases at %v (-intervals +said):\n%s", n, at, d)
					}
				}
			}
			r.fold()
		}
	})
}

// Who ever ran a release is stored where it is dear to count, tells for when, and is counted again when it is old. What
// begins in the future does not count yet.
func TestEverTellsItsInstant(t *testing.T) {
	each(t, func(r rig) {
		ctx := r.t.Context()
		r.cfg.DB.Handle(jobEver, r.answerAgain)
		r.installed("ten", "dev_1", "rel_1", t0.Add(-time.Hour))
		r.fold()
		ask := func(spans ...Span) (int64, time.Time) {
			n, at, err := r.Ever(ctx, "ten", spans, r.clk.Now())
			must(r.t, err)
			return n, at.UTC()
		}
		now := store.Millis(t0)
		if n, _ := ask(Span{"rel_1", now + 1, Forever}); n != 0 {
			r.t.Errorf("%d devices ran it in the future", n)
		}
		if n, _ := ask(Span{"rel_1", 0, Forever}); n != 1 {
			r.t.Errorf("%d devices of 1", n)
		}
		must(r.t, r.cfg.DB.Write(ctx, func(tx *store.Tx) error { // as if very much had happened
			_, err := tx.Exec(`UPDATE fleet_count SET events = 1000000`)
			return err
		}))
		whole := Span{"rel_1", 0, Forever}
		if n, at := ask(whole); n != 1 || !at.Equal(t0) {
			r.t.Errorf("%d devices at %v", n, at)
		}
		r.installed("ten", "dev_2", "rel_1", t0)
		r.clk.Advance(30 * time.Minute)
		if n, at := ask(whole); n != 1 || !at.Equal(t0) {
			r.t.Errorf("half an hour later: %d devices at %v", n, at)
		}
		r.clk.Advance(time.Hour)
		if n, at := ask(whole); n != 1 || !at.Equal(t0) {
			r.t.Errorf("later, at once: %d devices at %v", n, at)
		}
		if _, err := r.cfg.DB.RunDue(ctx); err != nil {
			r.t.Fatal(err)
		}
		if n, at := ask(whole); n != 2 || !at.Equal(r.clk.Now().UTC()) {
			r.t.Errorf("after the job: %d devices at %v", n, at)
		}
		r.clk.Advance(everForget + time.Hour)
		must(r.t, r.forgetAnswers(ctx))
		var kept int
		must(r.t, r.cfg.DB.QueryRow(ctx, `SELECT count(*) FROM fleet_ever`).Scan(&kept))
		if kept != 0 {
			r.t.Errorf("%d answers are kept that nobody asks for", kept)
		}
	})
}

// A database of before is counted when it is opened.
func TestOldHistoryIsCounted(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		before := fstest.MapFS{}
		entries, err := migrationsFS.ReadDir("migrations")
		must(t, err)
		for _, e := range entries {
			if e.Name() < "0006" {
				text, err := migrationsFS.ReadFile("migrations/" + e.Name())
				must(t, err)
				before["migrations/"+e.Name()] = &fstest.MapFile{Data: text}
			}
		}
		db, err := store.Open(t.Context(), store.Config{URL: url, Schema: []store.Migrations{{Stage: "fleet", FS: before}}})
		must(t, err)
		o := &oracle{}
		must(t, db.Write(t.Context(), func(tx *store.Tx) error {
			*o = oracle{}
			for i := range 300 {
				o.move("ten", fmt.Sprintf("dev_%d", i%50), fmt.Sprintf("rel_%d", i*7%3), t0.UnixMilli()+int64(i))
			}
			for _, r := range o.runs {
				if _, err := tx.Exec(`INSERT INTO install(tenant, product, device_id, release_id, from_ts, to_ts) VALUES ($1, 'prd', $2, $3, $4, $5)`, r.tenant, r.device, r.release, r.from, r.to); err != nil {
					return err
				}
			}
			_, err := tx.Exec(`INSERT INTO fleet_delta(id, tenant, release_id, at, n) VALUES ('fd_1', 'ten', 'rel_1', 1, 1)`) // the intervals have it too
			return err
		}))
		must(t, db.Close())

		s := New(Config{DB: storetest.Open(t, url, schema)})
		for range 2 { // before the first recount and after
			for _, at := range []int64{0, t0.UnixMilli() + 17, t0.UnixMilli() + 200} {
				moment := at
				if at == 0 {
					moment = Forever - 1
				}
				got, err := s.CountOf(t.Context(), "ten", nil, store.Time(at))
				must(t, err)
				if d := gocmp.Diff(o.count("ten", moment), got); d != "" {
					t.Errorf("at %d (-intervals +said):\n%s", at, d)
				}
			}
			if n, err := s.Recount(t.Context()); err != nil || n != 0 {
				t.Errorf("the recount found %d wrong releases, %v", n, err)
			}
		}
	})
}

// A breakdown counts the devices of the releases, each once, by what each is today.
func TestBreakdown(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		h := openHouse(t, url)
		h.furnish() // three in sol_1 run rel_1
		ctx := t.Context()
		must(t, h.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			if err := h.Installed(tx, "ten", h.prod.ID, h.ids[2], "rel_2", t0.Add(time.Hour)); err != nil {
				return err
			}
			if err := h.Installed(tx, "ten", h.prod.ID, h.ids[5], "rel_1", t0.Add(time.Hour)); err != nil {
				return err
			}
			return putLabels(tx, "ten", h.ids[0], Labelling{Set: map[string]string{CountryLabel: "BE"}}, nil)
		}))
		past := t0.Add(time.Minute)
		for _, c := range []struct {
			by       string
			at       time.Time
			releases []string
			want     map[string]int64
		}{
			{"solution", time.Time{}, []string{"rel_1"}, map[string]int64{"sol_1": 2, "": 1}},
			{"solution", past, []string{"rel_1"}, map[string]int64{"sol_1": 3}},
			{"solution", time.Time{}, []string{"rel_2", "rel_1", "rel_2"}, map[string]int64{"sol_1": 3, "": 1}},
			{"revision", time.Time{}, []string{"rel_1"}, map[string]int64{"rev_none": 3}},
			{"country", time.Time{}, []string{"rel_1"}, map[string]int64{"BE": 1, "": 2}},
			{"batch", past, []string{"rel_1"}, map[string]int64{"": 3}},
			{"batch", past, []string{"rel_2"}, map[string]int64{}},
			{"batch", past, nil, map[string]int64{}},
		} {
			got, err := h.Breakdown(ctx, "ten", c.releases, c.at, c.by)
			must(t, err)
			if d := gocmp.Diff(c.want, got); d != "" {
				t.Errorf("%v by %s at %v (-want +got):\n%s", c.releases, c.by, c.at, d)
			}
		}
		if got, err := h.Breakdown(ctx, "other", []string{"rel_1"}, time.Time{}, "batch"); err != nil || len(got) != 0 {
			t.Errorf("another tenant counts %v, %v", got, err)
		}
		if _, err := h.Breakdown(ctx, "ten", []string{"rel_1"}, time.Time{}, "shoe size"); err == nil {
			t.Error("devices are broken down by shoe size")
		}
	})
}

func TestSilent(t *testing.T) {
	each(t, func(r rig) {
		ctx := r.t.Context()
		must(r.t, r.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			for i, d := range []string{"dev_here", "dev_gone", "dev_left", "dev_never", "dev_other"} {
				release := "rel_1"
				if i == 4 {
					release = "rel_2"
				}
				if err := r.Installed(tx, "ten", "prd", d, release, t0); err != nil {
					return err
				}
			}
			return nil
		}))
		for _, d := range []string{"dev_gone", "dev_other", "dev_left", "dev_here"} {
			peer := gateway.Peer{Kind: gateway.LDevID, Tenant: "ten", Device: d}
			r.Online(peer)
			r.clk.Advance(time.Hour)
			if d != "dev_here" {
				r.Offline(peer, "keep alive")
			}
			must(r.t, r.flush(ctx))
		}
		for _, c := range []struct {
			tenant   string
			releases []string
			before   time.Time
			devices  int64
			since    time.Time
		}{
			{"ten", []string{"rel_1"}, t0, 1, time.Time{}}, // the one that never came
			{"ten", []string{"rel_1"}, t0.Add(90 * time.Minute), 2, t0.Add(time.Hour)},
			{"ten", []string{"rel_1", "rel_2", "rel_1"}, t0.Add(240 * time.Hour), 4, t0.Add(time.Hour)},
			{"ten", nil, t0.Add(240 * time.Hour), 0, time.Time{}},
			{"other", []string{"rel_1"}, t0.Add(240 * time.Hour), 0, time.Time{}},
		} {
			n, since, err := r.Silent(ctx, c.tenant, c.releases, c.before)
			if err != nil || n != c.devices || !since.Equal(c.since) {
				r.t.Errorf("%s %v before %s: %d since %s, %v; want %d since %s", c.tenant, c.releases, c.before, n, since, err, c.devices, c.since)
			}
		}
	})
}
