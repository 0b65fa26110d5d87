// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// The fleets of the measurement: sizes of tenants go by Zipf, so that the largest has a sixth of everything. Each device ran
// three releases in three years.
const (
	exposureDevices  = 1_000_000
	exposureTenants  = 200
	exposureReleases = 2_000
	exposureRuns     = 3
	exposureDays     = 1_096
	exposureLine     = 8 // releases of one product line, between which devices move
	exposureProduct  = "prd_bench"
	exposureMoves    = 300 // installations that are not folded yet while questions are asked, one in twenty of them late
)

// exposureWorld is what really happened: who ran what from when to when. It knows neither counters nor marks, and is the
// oracle of every answer.
type exposureWorld struct {
	tenants  []exposureTenant
	releases []exposureRelease
	devices  []exposureDevice
	runs     []exposureRun // in the order of devices and of time, then the moves
	filled   int           // runs before the moves
	moved    []bool        // of those, whether a move ended it
	now      int64
}

type exposureTenant struct {
	id              string
	release, device [2]int // from, to
}

type exposureRelease struct {
	id     string
	tenant int
	runs   []int32
}

type exposureDevice struct {
	id     string
	tenant int
	last   int32 // its present run, or -1
}

type exposureRun struct {
	device, release int32
	from, to        int64
}

var exposureTruth = sync.OnceValue(newExposureWorld)

func newExposureWorld() *exposureWorld {
	rnd := rand.New(rand.NewPCG(5, 8))
	now := time.Now().Truncate(time.Second)
	w := &exposureWorld{now: now.UnixMilli()}
	begin := now.AddDate(0, 0, -exposureDays).UnixMilli()
	total := 0.0
	for k := range exposureTenants {
		total += 1 / float64(k+1)
	}
	for k := range exposureTenants {
		share := 1 / float64(k+1) / total
		t := exposureTenant{id: store.NewID("ten"), release: [2]int{len(w.releases)}, device: [2]int{len(w.devices)}}
		for range max(2, int(share*exposureReleases+0.5)) {
			w.releases = append(w.releases, exposureRelease{tenant: k})
		}
		devices := int(share*exposureDevices + 0.5)
		if k == exposureTenants-1 {
			devices = exposureDevices - len(w.devices)
		}
		for range devices {
			w.devices = append(w.devices, exposureDevice{id: store.NewID("dev"), tenant: k, last: -1})
		}
		t.release[1], t.device[1] = len(w.releases), len(w.devices)
		w.tenants = append(w.tenants, t)
	}
	for i := range w.releases {
		w.releases[i].id = store.NewID("rel")
	}
	span := w.now - begin
	for d := range w.devices {
		t := w.tenants[w.devices[d].tenant]
		all := t.release[1] - t.release[0]
		line := t.release[0] + rnd.IntN((all+exposureLine-1)/exposureLine)*exposureLine
		in := min(exposureLine, t.release[1]-line)
		if in < 2 { // the rest of a line: go back to the one before
			line, in = line-1, 2
		}
		steps := rnd.Perm(in)[:min(in, exposureRuns)]
		slices.Sort(steps)
		for len(steps) < exposureRuns {
			steps = append(steps, (steps[len(steps)-1]+1)%in)
		}
		at := int64(0)
		for i, s := range steps {
			release := line + s
			// It is installed within two months of its day, or whenever the device comes to it.
			at = max(at+60_000, begin+span*int64(s)/int64(in)+rnd.Int64N(60*24*3600*1000))
			at = min(at, w.now-int64(exposureRuns-i)*1000)
			w.run(d, release, at)
		}
		if rnd.IntN(20) == 0 {
			w.end(d, w.runs[len(w.runs)-1].from+rnd.Int64N(w.now-w.runs[len(w.runs)-1].from))
		}
	}
	w.filled, w.moved = len(w.runs), make([]bool, len(w.runs))
	for i := range exposureMoves {
		d := rnd.IntN(len(w.devices))
		t := w.tenants[w.devices[d].tenant]
		r, last := t.release[0]+rnd.IntN(t.release[1]-t.release[0]), w.devices[d].last
		at := w.now - rnd.Int64N(60_000)
		if i%20 == 0 {
			at -= rnd.Int64N(3 * 24 * 3600 * 1000)
		}
		if last < 0 || int(last) >= w.filled || int(w.runs[last].release) == r || at <= w.runs[last].from {
			continue
		}
		w.moved[last] = true
		w.run(d, r, at)
	}
	return w
}

// run lets a device move to a release.
func (w *exposureWorld) run(device, release int, at int64) {
	w.end(device, at)
	w.devices[device].last = int32(len(w.runs))
	w.releases[release].runs = append(w.releases[release].runs, int32(len(w.runs)))
	w.runs = append(w.runs, exposureRun{int32(device), int32(release), at, fleet.Forever})
}

func (w *exposureWorld) end(device int, at int64) {
	if last := w.devices[device].last; last >= 0 {
		w.runs[last].to = at
	}
	w.devices[device].last = -1
}

// count is what counters have to say: how many ran each of the releases at the moment.
func (w *exposureWorld) count(releases []int, at int64) map[string]int64 {
	out := map[string]int64{}
	for _, r := range releases {
		for _, i := range w.releases[r].runs {
			if run := w.runs[i]; run.from <= at && at < run.to {
				out[w.releases[r].id]++
			}
		}
	}
	return out
}

// page is the first devices of the releases at the moment.
func (w *exposureWorld) page(releases []int, at int64, limit int) []fleet.Placed {
	var out []fleet.Placed
	for _, r := range slices.SortedFunc(slices.Values(releases), func(a, b int) int { return cmp.Compare(w.releases[a].id, w.releases[b].id) }) {
		var here []fleet.Placed
		for _, i := range w.releases[r].runs {
			if run := w.runs[i]; run.from <= at && at < run.to {
				here = append(here, fleet.Placed{Device: w.devices[run.device].id, Release: w.releases[r].id, Since: store.Time(run.from)})
			}
		}
		slices.SortFunc(here, func(a, b fleet.Placed) int { return strings.Compare(a.Device, b.Device) })
		if out = append(out, here...); len(out) >= limit {
			return out[:limit]
		}
	}
	return out
}

func (w *exposureWorld) ids(releases []int) []string {
	out := make([]string, len(releases))
	for i, r := range releases {
		out[i] = w.releases[r].id
	}
	return out
}

// exposureHouse is the world in a database, filled once for all measurements of an engine.
type exposureHouse struct {
	*exposureWorld
	db    *store.DB
	fleet *fleet.Service
	stop  []func()
}

// exposureHouses opens them when they are first asked for.
type exposureHouses map[string]*exposureHouse

func (all exposureHouses) close() {
	for _, h := range all {
		for _, stop := range slices.Backward(h.stop) {
			stop()
		}
	}
}

func (all exposureHouses) open(ctx context.Context, engine string) (*exposureHouse, error) {
	if h := all[engine]; h != nil {
		return h, nil
	}
	dir, err := os.MkdirTemp("", "openthings-bench-")
	if err != nil {
		return nil, err
	}
	h := &exposureHouse{exposureWorld: exposureTruth(), stop: []func(){func() { os.RemoveAll(dir) }}}
	all[engine] = h
	url := "sqlite://" + filepath.Join(dir, "bench.db")
	if engine == string(store.Postgres) {
		var stop func()
		if url, stop, err = storetest.StartPostgres(); err != nil {
			return nil, err
		}
		h.stop = append(h.stop, stop)
	}
	if h.db, err = store.Open(ctx, store.Config{URL: url, Schema: []store.Migrations{audit.Schema, fleet.Schema}}); err != nil {
		return nil, err
	}
	h.stop = append(h.stop, func() { h.db.Close() })
	h.fleet = fleet.New(fleet.Config{DB: h.db})
	begun := time.Now()
	if err := h.fill(ctx, url); err != nil {
		return nil, fmt.Errorf("fill: %w", err)
	}
	fmt.Fprintf(os.Stderr, "  %s: %d devices and %d intervals in %s\n", engine, len(h.devices), len(h.runs), time.Since(begun).Round(time.Second))
	return h, nil
}

// fill writes the intervals in bulk, lets fleet count them as it does every night, and moves some devices through fleet
// itself.
func (h *exposureHouse) fill(ctx context.Context, url string) error {
	load := h.insert
	if h.db.Engine() == store.Postgres {
		load = func(ctx context.Context) error { return h.copy(ctx, url) }
	}
	if err := load(ctx); err != nil {
		return err
	}
	if err := h.analyze(ctx); err != nil {
		return err
	}
	if _, err := h.fleet.Recount(ctx); err != nil {
		return err
	}
	if err := h.analyze(ctx); err != nil {
		return err
	}
	return h.db.Write(ctx, func(tx *store.Tx) error {
		for _, m := range h.runs[h.filled:] {
			t := h.tenants[h.devices[m.device].tenant]
			if err := h.fleet.Installed(tx, t.id, exposureProduct, h.devices[m.device].id, h.releases[m.release].id, time.UnixMilli(m.from)); err != nil {
				return err
			}
		}
		return nil
	})
}

// analyze does what the autovacuum of PostgreSQL does within a minute; nobody does it on SQLite.
func (h *exposureHouse) analyze(ctx context.Context) error {
	if h.db.Engine() == store.SQLite {
		return nil
	}
	return h.exec(ctx, `ANALYZE`)
}

// row is an interval as stored before the moves.
func (h *exposureHouse) row(i int) []any {
	r := h.runs[i]
	d := h.devices[r.device]
	if h.moved[i] {
		r.to = fleet.Forever
	}
	return []any{h.tenants[d.tenant].id, exposureProduct, d.id, h.releases[r.release].id, r.from, r.to}
}

// insert fills SQLite; its indexes are made when the rows are there.
func (h *exposureHouse) insert(ctx context.Context) error {
	rows, err := h.db.Query(ctx, `SELECT name, sql FROM sqlite_master WHERE tbl_name = 'install' AND type = 'index' AND sql <> ''`)
	indexes, err := store.Collect(rows, err, func(r *sql.Rows) (i [2]string, err error) { return i, r.Scan(&i[0], &i[1]) })
	if err != nil {
		return err
	}
	for _, i := range indexes {
		if err := h.exec(ctx, `DROP INDEX `+i[0]); err != nil {
			return err
		}
	}
	const step = 6_400
	for from := 0; from < h.filled; from += step {
		var rows [][]any
		for i := from; i < min(from+step, h.filled); i++ {
			rows = append(rows, h.row(i))
		}
		if err := h.db.WriteBulk(ctx, func(tx *store.Tx) error {
			return tx.InsertMany(`INSERT INTO install(tenant, product, device_id, release_id, from_ts, to_ts)`, rows, ``)
		}); err != nil {
			return err
		}
	}
	for _, i := range indexes {
		if err := h.exec(ctx, i[1]); err != nil {
			return err
		}
	}
	return nil
}

// copy fills PostgreSQL.
func (h *exposureHouse) copy(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.CopyFrom(ctx, pgx.Identifier{"install"}, []string{"tenant", "product", "device_id", "release_id", "from_ts", "to_ts"},
		pgx.CopyFromSlice(h.filled, func(i int) ([]any, error) { return h.row(i), nil }))
	return err
}

func (h *exposureHouse) exec(ctx context.Context, q string) error {
	return h.db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(q)
		return err
	})
}
