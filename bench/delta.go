// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/blob"
	"github.com/openthings-platform/openthings/vuln"
	"github.com/openthings-platform/openthings/vuln/feed"
)

// The portfolio of the measurement: as many version checks (some 32,000) and pairs of a record and a release (some
// 143,000) as a delta of real records made on real Go modules in the prototype that the bars come from.
const (
	deltaReleases = 10_000
	deltaParts    = 500    // components of a release
	deltaPackages = 11_500 // of the ecosystem
	deltaVersions = 64     // of a package
	deltaDevices  = 1_000_000
	deltaRecords  = 500
	deltaTenant   = "ten_bench"
	deltaProduct  = "prd_bench"
)

// delta is one run from which several results are taken: the portfolio costs minutes to build.
type delta struct {
	dir    string
	err    error
	did    bool
	heapMB float64 // the most that was live or not yet collected
	took   time.Duration
	match  time.Duration // of it: records to findings, in memory
	scan   time.Duration // the same findings by reading every bill
	load   time.Duration // from opening the files, none of them in memory, to the same findings
}

func (d *delta) close() { _ = os.RemoveAll(d.dir) }

// measure runs once, whatever is asked first.
func (d *delta) measure(ctx context.Context) error {
	if !d.did {
		d.did = true
		d.err = d.run(ctx)
	}
	return d.err
}

func (d *delta) seconds(ctx context.Context) (Result, error) {
	if err := d.measure(ctx); err != nil {
		return Result{}, err
	}
	return ratio(Result{Name: "vuln_delta_s", Value: d.took.Seconds(), Unit: "s", Baseline: "reading every bill instead", BaselineValue: d.scan.Seconds()}), nil
}

func (d *delta) heap(ctx context.Context) (Result, error) {
	if err := d.measure(ctx); err != nil {
		return Result{}, err
	}
	return ratio(Result{Name: "vuln_heap_mb", Value: d.heapMB, Unit: "MB", Baseline: "bar", BaselineValue: 512}), nil
}

func (d *delta) againstScan(ctx context.Context) (Result, error) {
	if err := d.measure(ctx); err != nil {
		return Result{}, err
	}
	return ratio(Result{Name: "vuln_delta_vs_scan", Value: d.scan.Seconds(), Unit: "s (scan)", Baseline: "the inverted match, same findings", BaselineValue: d.match.Seconds()}), nil
}

func (d *delta) loading(ctx context.Context) (Result, error) {
	if err := d.measure(ctx); err != nil {
		return Result{}, err
	}
	return ratio(Result{Name: "vuln_index_load_s", Value: d.load.Seconds(), Unit: "s", Baseline: "the same when it is in memory", BaselineValue: d.match.Seconds()}), nil
}

func ratio(r Result) Result {
	r.Ratio = r.Value / r.BaselineValue
	return r
}

// deltaRooms are the rooms of the platform that a delta passes through.
type deltaRooms struct {
	db    *store.DB
	fleet *fleet.Service
	vuln  *vuln.Service
}

func (d *delta) open(ctx context.Context) (r deltaRooms, err error) {
	if r.db, err = store.Open(ctx, store.Config{URL: "sqlite://" + filepath.Join(d.dir, "bench.db"), Schema: []store.Migrations{audit.Schema, sbom.Schema, fleet.Schema, vuln.Schema}}); err != nil {
		return r, err
	}
	blobs, err := blob.NewDir(filepath.Join(d.dir, "blobs"))
	if err != nil {
		return r, err
	}
	r.fleet = fleet.New(fleet.Config{DB: r.db})
	r.vuln = vuln.New(vuln.Config{DB: r.db, Fleet: r.fleet, SBOM: sbom.New(sbom.Config{DB: r.db, Blobs: blobs}), Release: func(_ context.Context, _, release string) (vuln.Release, error) {
		return vuln.Release{Product: deltaProduct, Version: release}, nil
	}})
	return r, nil
}

func (d *delta) run(ctx context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "openthings-bench-"); err != nil {
		return err
	}
	r, err := d.open(ctx)
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := fillDelta(ctx, r.db); err != nil {
		return fmt.Errorf("fill: %w", err)
	}
	fmt.Fprintf(os.Stderr, "  portfolio built in %s\n", time.Since(begun).Round(time.Second))
	before, err := deltaFeed(0)
	if err != nil {
		return err
	}
	if _, err := r.vuln.Import(ctx, deltaTenant, "bench", "before", before); err != nil { // tables and statements are warm
		return err
	}

	set, err := deltaFeed(1)
	if err != nil {
		return err
	}
	stop := d.watchHeap()
	begun = time.Now()
	if _, err := r.vuln.Import(ctx, deltaTenant, "bench", "delta", set); err != nil {
		return err
	}
	imported := time.Since(begun)
	reach, err := r.vuln.Reach(ctx, deltaTenant, deltaIDs())
	if err != nil {
		return err
	}
	joined := time.Since(begun)
	devices := 0
	if err := r.fleet.EachDevice(ctx, deltaTenant, reach.Releases, func(_ string, ids []string) error { devices += len(ids); return nil }); err != nil {
		return err
	}
	d.took = time.Since(begun)
	stop()
	fmt.Fprintf(os.Stderr, "  %d records: %d findings in %d releases, %d devices; import and match %s, findings %s, devices %s\n", deltaRecords, reach.Findings, len(reach.Releases),
		devices, imported.Round(time.Millisecond), (joined - imported).Round(time.Millisecond), (d.took - joined).Round(time.Millisecond))
	if len(reach.Releases) < deltaReleases*9/10 || devices < deltaDevices*9/10 {
		return fmt.Errorf("the draw is too kind: %d releases, %d devices", len(reach.Releases), devices)
	}

	var hits int
	if d.match, err = shortest(5, func() (err error) { hits, err = r.vuln.Rematch(ctx, deltaTenant, deltaIDs()); return err }); err != nil {
		return err
	}
	begun = time.Now()
	audit, err := r.vuln.Audit(ctx, deltaTenant, deltaIDs())
	if err != nil {
		return err
	}
	d.scan = time.Since(begun)
	if audit.Hits != hits || len(audit.Missing)+len(audit.Surplus) > 0 {
		return fmt.Errorf("the index finds %d, reading every bill %d; missing %.3q, surplus %.3q", hits, audit.Hits, audit.Missing, audit.Surplus)
	}
	if err := r.db.Close(); err != nil {
		return err
	}
	if err := forgetPages(d.dir); err != nil {
		return err
	}
	begun = time.Now()
	if r, err = d.open(ctx); err != nil {
		return err
	}
	defer r.db.Close()
	if _, err := r.vuln.Rematch(ctx, deltaTenant, deltaIDs()); err != nil {
		return err
	}
	d.load = time.Since(begun)
	return nil
}

// shortest runs fn n times and returns the shortest time.
func shortest(n int, fn func() error) (time.Duration, error) {
	best := time.Duration(1<<63 - 1)
	for range n {
		begun := time.Now()
		if err := fn(); err != nil {
			return 0, err
		}
		best = min(best, time.Since(begun))
	}
	return best, nil
}

// watchHeap looks at the heap until it is told to stop.
func (d *delta) watchHeap() (stop func()) {
	runtime.GC()
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			d.heapMB = max(d.heapMB, float64(m.HeapAlloc)/1e6)
			select {
			case <-end:
				return
			case <-tick.C:
			}
		}
	}()
	return func() { close(end); <-ended }
}

// forgetPages makes the system read the files from the disk again.
func forgetPages(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return err
	}
	for _, name := range names {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			continue // a folder
		}
		if err = f.Sync(); err == nil {
			const dontNeed = 4 // POSIX_FADV_DONTNEED
			if _, _, no := syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, dontNeed, 0, 0); no != 0 {
				err = no
			}
		}
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func deltaPackage(n int) string { return fmt.Sprintf("example.com/team%03d/module%05d", n%500, n) }

// deltaIDs are the records of the second feed.
func deltaIDs() []string {
	ids := make([]string, deltaRecords)
	for i := range ids {
		ids[i] = fmt.Sprintf("BENCH-1-%04d", i)
	}
	return ids
}

// deltaFeed writes records, each about one package and two thirds of its versions, as a zip and reads it.
func deltaFeed(round int) (*feed.Feed, error) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := range deltaRecords {
		id := fmt.Sprintf("BENCH-%d-%04d", round, i)
		w, err := z.Create(id + ".json")
		if err != nil {
			return nil, err
		}
		if _, err := fmt.Fprintf(w, `{"id":%q,"aliases":["CVE-2026-%d%05d"],"summary":"a fault","details":%q,"affected":[{"package":{"ecosystem":"Go","name":%q},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"1.%d.0"},{"introduced":"1.%d.0"},{"fixed":"1.%d.0"}]}]}]}`,
			id, round+1, i, strings.Repeat("what it does and to whom ", 40), deltaPackage((i*23+round*7)%deltaPackages), deltaVersions/3, deltaVersions/2, deltaVersions*5/6); err != nil {
			return nil, err
		}
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return feed.Open(bytes.NewReader(b.Bytes()), int64(b.Len()))
}

// fillDelta writes bills, the index of their components and what devices run, in the form in which the rooms keep them:
// through the rooms it would take an hour.
func fillDelta(ctx context.Context, db *store.DB) error {
	rnd := rand.New(rand.NewPCG(1, 2))
	const forever = int64(1<<63 - 1)
	releases := make([][]any, 0, deltaReleases)
	uses := make([][]any, 0, deltaReleases*deltaParts)
	drawn := make([]bool, deltaPackages*deltaVersions) // components that a release has
	for r := range deltaReleases {
		release := deltaRelease(r)
		releases = append(releases, []any{deltaTenant, release, deltaProduct, release})
		taken := make(map[int]int, deltaParts) // package: version
		for len(taken) < deltaParts {
			if p := rnd.IntN(deltaPackages); taken[p] == 0 {
				taken[p] = p*deltaVersions + rnd.IntN(deltaVersions)
				drawn[taken[p]] = true
			}
		}
		for _, n := range slices.Sorted(maps.Values(taken)) {
			uses = append(uses, []any{release, "prt_" + deltaComponent(n), int64(1), forever, deltaComponent(n), deltaTenant})
		}
	}
	var parts, identities, known, index [][]any
	for n, in := range drawn {
		if !in {
			continue
		}
		component, name, version := deltaComponent(n), deltaPackage(n/deltaVersions), fmt.Sprintf("1.%d.0", n%deltaVersions)
		parts = append(parts, []any{"prt_" + component, component, name, "v" + version, "pkg:golang/" + name + "@v" + version, "", "library", "", "", "Go"})
		identities = append(identities, []any{component, "Go", name, version, ""})
		known = append(known, []any{deltaTenant, component})
		index = append(index, []any{deltaTenant, "Go", name, component, version, ""})
	}
	slices.SortFunc(index, func(a, b []any) int { return strings.Compare(a[2].(string)+a[3].(string), b[2].(string)+b[3].(string)) })
	installs := make([][]any, 0, deltaDevices)
	start := store.Millis(time.Now().Add(-time.Hour))
	for i := range deltaDevices {
		installs = append(installs, []any{deltaTenant, deltaProduct, fmt.Sprintf("dev_%026d", i), deltaRelease(rnd.IntN(deltaReleases)), start, forever})
	}
	const later = `CREATE INDEX release_part_uses ON release_part (component_id, tenant, release_id, from_ts, to_ts)`
	if err := db.Write(ctx, func(tx *store.Tx) error { _, err := tx.Exec(`DROP INDEX release_part_uses`); return err }); err != nil {
		return err
	}
	for _, t := range []struct {
		head string
		rows [][]any
	}{
		{`INSERT INTO part (id, component_id, name, version, purl, cpe, kind, licence, supplier, spaces)`, parts},
		{`INSERT INTO component_identity (component_id, space, name, version, vendor)`, identities},
		{`INSERT INTO vuln_component (tenant, component_id)`, known},
		{`INSERT INTO vuln_identity (tenant, space, name, component_id, version, vendor)`, index},
		{`INSERT INTO vuln_release (tenant, release_id, product, version)`, releases},
		{`INSERT INTO release_part (release_id, part_id, from_ts, to_ts, component_id, tenant)`, uses},
		{`INSERT INTO install (tenant, product, device_id, release_id, from_ts, to_ts)`, installs},
	} {
		for part := range slices.Chunk(t.rows, 64*512) {
			if err := db.WriteBulk(ctx, func(tx *store.Tx) error { return tx.InsertMany(t.head, part, ``) }); err != nil {
				return err
			}
		}
	}
	if err := db.Write(ctx, func(tx *store.Tx) error { _, err := tx.Exec(later); return err }); err != nil {
		return err
	}
	_, err := fleet.New(fleet.Config{DB: db}).Recount(ctx)
	return err
}

func deltaRelease(n int) string { return fmt.Sprintf("rel_%026d", n) }

func deltaComponent(n int) string { return fmt.Sprintf("cmp_%024d", n) }
