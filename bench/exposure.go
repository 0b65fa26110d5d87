// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"archive/zip"
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/blob"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/vuln"
	"github.com/openthings-platform/openthings/vuln/feed"
)

// The fleet of the measurement. Each device ran three releases; the vulnerability asked for is in 60 of the 200, as one
// of a common library is, and so on about 30,000 devices.
const (
	exposureDevices  = 100_000
	exposureReleases = 200
	exposureHit      = 60
	exposureModules  = 50 // components per release, each with a vulnerability of its own
	exposureMoving   = 100
	exposureRounds   = 201
	exposureBaseline = 21
	exposureTenant   = "ten_bench"
	exposureProduct  = "prd_bench"
	exposureCVE      = "CVE-2026-0000"
)

// exposureOn measures "how many devices of which release are affected" by counters against counting the same live, in
// the same database, and fails if the two differ.
func exposureOn(engine string) func(context.Context) (Result, error) {
	return func(ctx context.Context) (Result, error) {
		dir, err := os.MkdirTemp("", "openthings-bench-")
		if err != nil {
			return Result{}, err
		}
		defer os.RemoveAll(dir)
		url := "sqlite://" + filepath.Join(dir, "bench.db")
		if engine == string(store.Postgres) {
			var stop func()
			if url, stop, err = storetest.StartPostgres(); err != nil {
				return Result{}, err
			}
			defer stop()
		}
		return exposure(ctx, engine, url, dir)
	}
}

func exposure(ctx context.Context, engine, url, dir string) (Result, error) {
	db, err := store.Open(ctx, store.Config{URL: url, Schema: []store.Migrations{audit.Schema, sbom.Schema, fleet.Schema, vuln.Schema}})
	if err != nil {
		return Result{}, err
	}
	defer db.Close()
	blobs, err := blob.NewDir(filepath.Join(dir, "blobs"))
	if err != nil {
		return Result{}, err
	}
	f := exposureFleet{db: db, sbom: sbom.New(sbom.Config{DB: db, Blobs: blobs}), fleet: fleet.New(fleet.Config{DB: db})}
	f.vuln = vuln.New(vuln.Config{DB: db, SBOM: f.sbom, Fleet: f.fleet, Release: func(_ context.Context, _, release string) (vuln.Release, error) {
		return vuln.Release{Product: exposureProduct, Version: strings.TrimPrefix(release, "rel_")}, nil
	}})
	if err := f.fill(ctx); err != nil {
		return Result{}, fmt.Errorf("fill: %w", err)
	}

	var counted, live map[string]int64
	value, err := median(exposureRounds, func() error {
		e, err := f.vuln.Affected(ctx, exposureTenant, exposureCVE, time.Time{})
		counted = map[string]int64{}
		for _, r := range e.Releases {
			counted[r.Release] = r.Devices
		}
		return err
	})
	if err != nil {
		return Result{}, err
	}
	baseline, err := median(exposureBaseline, func() (err error) {
		live, err = f.countLive(ctx)
		return err
	})
	if err != nil {
		return Result{}, err
	}
	if !maps.Equal(counted, live) || len(counted) != exposureHit {
		return Result{}, fmt.Errorf("the counters say %v, counting says %v", counted, live)
	}
	return Result{Name: "exposure_summary_ms_" + engine + "_100k", Value: value, Unit: "ms", Baseline: "counting intervals live",
		BaselineValue: baseline, Ratio: value / baseline}, nil
}

type exposureFleet struct {
	db    *store.DB
	sbom  *sbom.Service
	fleet *fleet.Service
	vuln  *vuln.Service
}

// fill uploads the bills and the feed through the real rooms, writes past installations in bulk in the form in which
// fleet keeps them, and lets the last devices move through fleet itself, so that some counts are not folded yet.
func (f *exposureFleet) fill(ctx context.Context) error {
	for r := range exposureReleases {
		if err := f.release(ctx, r); err != nil {
			return err
		}
	}
	if _, err := f.db.RunDue(ctx); err != nil {
		return err
	}
	if err := f.feed(ctx); err != nil {
		return err
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	now := time.Now()
	counts := map[string]int64{}
	for from := 0; from < exposureDevices; from += 200 {
		err := f.db.WriteBulk(ctx, func(tx *store.Tx) error {
			var q strings.Builder
			q.WriteString(`INSERT INTO install(tenant, product, device_id, release_id, from_ts, to_ts) VALUES `)
			for d := from; d < from+200; d++ {
				for i := range 3 {
					start, end := store.Millis(now.AddDate(0, 0, 10*i-40)), store.Millis(now.AddDate(0, 0, 10*i-30))
					release := releaseID(rnd.IntN(exposureReleases))
					if i == 2 {
						end = fleet.Forever
						counts[release]++
					}
					fmt.Fprintf(&q, "('%s', '%s', 'dev_%06d', '%s', %d, %d), ", exposureTenant, exposureProduct, d, release, start, end)
				}
			}
			_, err := tx.Exec(strings.TrimSuffix(q.String(), ", "))
			return err
		})
		if err != nil {
			return err
		}
	}
	err := f.db.Write(ctx, func(tx *store.Tx) error {
		for release, n := range counts {
			if _, err := tx.Exec(`INSERT INTO fleet_count(tenant, release_id, n) VALUES ($1, $2, $3)`, exposureTenant, release, n); err != nil {
				return err
			}
		}
		for d := range exposureMoving {
			device := fmt.Sprintf("dev_%06d", rnd.IntN(exposureDevices/exposureMoving)+d*exposureDevices/exposureMoving)
			if err := f.fleet.Installed(tx, exposureTenant, exposureProduct, device, releaseID(rnd.IntN(exposureReleases)), now); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return f.db.Write(ctx, func(tx *store.Tx) error { // so that the planner knows what counting live costs
		_, err := tx.Exec(`ANALYZE`)
		return err
	})
}

// feed imports one record per module, as one zip.
func (f *exposureFleet) feed(ctx context.Context) error {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for m := range exposureModules {
		introduced, fixed, id := "0", fmt.Sprintf("1.%d.0", 4*m), fmt.Sprintf("CVE-2026-%04d", m)
		if m == 0 {
			introduced, fixed, id = "1.40.0", fmt.Sprintf("1.%d.0", 40+exposureHit), exposureCVE
		}
		w, err := z.Create(id + ".json")
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, `{"id":%q,"affected":[{"package":{"ecosystem":"Go","name":"example.com/m%d"},"ranges":[{"type":"SEMVER","events":[{"introduced":%q},{"fixed":%q}]}]}]}`,
			id, m, introduced, fixed); err != nil {
			return err
		}
	}
	if err := z.Close(); err != nil {
		return err
	}
	set, err := feed.Open(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		return err
	}
	_, err = f.vuln.Import(ctx, exposureTenant, "bench", "bench", set)
	return err
}

func releaseID(n int) string { return fmt.Sprintf("rel_%03d", n) }

func (f *exposureFleet) release(ctx context.Context, n int) error {
	var parts []string
	for m := range exposureModules {
		parts = append(parts, fmt.Sprintf(`{"type":"library","name":"example.com/m%[1]d","version":"v1.%[2]d.0","purl":"pkg:golang/example.com/m%[1]d@v1.%[2]d.0"}`, m, n))
	}
	doc := []byte(`{"bomFormat":"CycloneDX","specVersion":"1.6","components":[` + strings.Join(parts, ",") + `]}`)
	bill, err := sbom.Parse(doc)
	if err != nil {
		return err
	}
	kept, err := f.sbom.Keep(ctx, doc)
	if err != nil {
		return err
	}
	return f.db.Write(ctx, func(tx *store.Tx) error {
		return f.sbom.Attach(tx, exposureTenant, releaseID(n), bill, kept, "bench")
	})
}

// countLive is what a platform without counters does: join the open findings with every interval that is open now.
func (f *exposureFleet) countLive(ctx context.Context) (map[string]int64, error) {
	out := map[string]int64{}
	rows, err := f.db.Query(ctx, `SELECT i.release_id, count(*) FROM install i WHERE i.tenant = $1 AND i.to_ts = 9223372036854775807 AND i.release_id IN (
			SELECT x.release_id FROM finding x JOIN vuln_member m ON m.tenant = x.tenant AND m.group_id = x.group_id
			WHERE x.tenant = $1 AND m.ident = $2 AND x.closed_at = 9223372036854775807)
		GROUP BY i.release_id`, exposureTenant, exposureCVE)
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var release string
		var n int64
		err := r.Scan(&release, &n)
		out[release] = n
		return struct{}{}, err
	})
	return out, err
}

// median runs fn n times and returns the median duration in milliseconds.
func median(n int, fn func() error) (float64, error) {
	took := make([]float64, n)
	for i := range took {
		start := time.Now()
		if err := fn(); err != nil {
			return 0, err
		}
		took[i] = float64(time.Since(start)) / float64(time.Millisecond)
	}
	slices.Sort(took)
	return took[n/2], nil
}
