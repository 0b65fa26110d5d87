// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/blob"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/vuln"
)

// One maker with one product: each of its releases has the vulnerable component, so that every device counts.
const (
	packDevices  = 100_000
	packReleases = 200
	packParts    = 300 // components of a release
	packCases    = 5   // declared one after the other; the slowest counts
	packBar      = 2.0 // seconds from the click that declares awareness to the complete pack
	packCVE      = "CVE-2026-200000"
)

var packCountries = []string{"DE", "FR", "IT", "NL", "PL", "CH", "US"}

// packRooms are the rooms that a declaration of awareness and its pack pass through.
type packRooms struct {
	db        *store.DB
	products  *product.Service
	fleet     *fleet.Service
	vuln      *vuln.Service
	respond   *respond.Service
	product   string
	published []respond.Release
}

// earlyWarningPack measures from declared awareness to a complete early warning at 100,000 devices: the person gives a
// title and a summary, everything else is drafted.
func earlyWarningPack(engine string) func(context.Context) (Result, error) {
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
		r, err := openPackRooms(ctx, dir, url)
		if err != nil {
			return Result{}, err
		}
		defer r.db.Close()
		begun := time.Now()
		if err := r.fill(ctx); err != nil {
			return Result{}, fmt.Errorf("fill: %w", err)
		}
		fmt.Fprintf(os.Stderr, "  %s: %d devices, %d releases in %s\n", engine, packDevices, packReleases, time.Since(begun).Round(time.Second))
		person := tenant.WithActor(ctx, tenant.Actor{ID: "per_bench", Kind: tenant.KindPerson, Tenant: deltaTenant, Grants: []tenant.Grant{{Role: tenant.ComplianceOfficer, Tenant: deltaTenant}}})
		if _, err := r.respond.ConfirmCoordinator(person, respond.Seat{InUnion: true, Decisions: "DE"}, "DE", ""); err != nil {
			return Result{}, err
		}
		worst := 0.0
		for range packCases {
			s, err := r.declare(person)
			if err != nil {
				return Result{}, err
			}
			worst = max(worst, s)
		}
		return ratio(Result{Name: "early_warning_pack_s_" + engine + "_100k", Value: worst, Unit: "s", Baseline: "bar", BaselineValue: packBar}), nil
	}
}

func openPackRooms(ctx context.Context, dir, url string) (*packRooms, error) {
	r := &packRooms{}
	keys, err := seal.Open(filepath.Join(dir, "keys"), clock.System)
	if err != nil {
		return nil, err
	}
	if r.db, err = store.Open(ctx, store.Config{URL: url, Schema: []store.Migrations{audit.Schema, seal.Schema, product.Schema, identity.Schema, sbom.Schema, fleet.Schema, vuln.Schema, respond.Schema}}); err != nil {
		return nil, err
	}
	issuer, err := embedded.Open(embedded.Config{Dir: filepath.Join(dir, "ca"), Keys: keys, Name: "Bench", Clock: clock.System})
	if err != nil {
		return nil, err
	}
	devices, err := identity.New(identity.Config{DB: r.db, Issuer: issuer})
	if err != nil {
		return nil, err
	}
	blobs, err := blob.NewDir(filepath.Join(dir, "blobs"))
	if err != nil {
		return nil, err
	}
	r.products = product.New(product.Config{DB: r.db, Clock: clock.System})
	r.fleet = fleet.New(fleet.Config{DB: r.db, Identity: devices})
	r.vuln = vuln.New(vuln.Config{DB: r.db, Fleet: r.fleet, SBOM: sbom.New(sbom.Config{DB: r.db, Blobs: blobs}), Release: func(_ context.Context, _, release string) (vuln.Release, error) {
		return vuln.Release{Product: r.product, Version: release}, nil
	}})
	r.respond = respond.New(respond.Config{DB: r.db, Products: r.products, Vuln: r.vuln, Keys: keys,
		Manufacturer: func(context.Context, string) (string, error) { return "Lumen GmbH", nil },
		Facts: respond.Facts{
			Releases: func(context.Context, string, string) ([]respond.Release, error) { return r.published, nil },
			Countries: func(ctx context.Context, t string, releases []string) (map[string]int64, error) {
				return r.fleet.Breakdown(ctx, t, releases, time.Time{}, "country")
			}}})
	return r, nil
}

// declare walks from the decision of a person to the pack, and fails when the pack is not complete or does not count.
func (r *packRooms) declare(person context.Context) (seconds float64, err error) {
	sig, err := r.respond.AddSignal(person, respond.Signal{Product: r.product, Title: "Shells on lamps", Ref: packCVE, Exploited: "yes"})
	if err != nil {
		return 0, err
	}
	as, err := r.respond.Assess(person, sig.ID, "")
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	_, cases, err := r.respond.Decide(person, as.ID, respond.Declaration{Verdict: respond.Aware, Basis: "three units with a shell", AEV: new(true), SI: new(false), T0: time.Now().Add(-time.Minute),
		Title: "Shells on lamps", Summary: "A shell was opened on three lamps."})
	if err != nil {
		return 0, err
	}
	decided := time.Since(begun)
	p, err := r.respond.Pack(person, cases[0], respond.EarlyWarning)
	took := time.Since(begun).Seconds()
	if err != nil {
		return 0, err
	}
	if !p.Complete() || len(p.Annex) != packReleases && len(p.Annex) != 0 || len(p.Countries.Undeclared) != 3 {
		return 0, fmt.Errorf("the pack is not complete or does not count: %+v, annex of %d, %+v", p.Faults, len(p.Annex), p.Countries)
	}
	for _, f := range p.Fields {
		if f.ID == "impact" && f.Value[:6] != "100000" {
			return 0, fmt.Errorf("impact says %q", f.Value)
		}
	}
	fmt.Fprintf(os.Stderr, "  decided in %s, pack in %s\n", decided.Round(time.Millisecond), (time.Duration(took*float64(time.Second)) - decided).Round(time.Millisecond))
	return took, nil
}

// fill writes product, bills, devices with their countries and what they run in the form in which the rooms keep them, and
// imports records through the room of vulnerabilities.
func (r *packRooms) fill(ctx context.Context) error {
	p, err := r.products.Create(ctx, product.Product{Tenant: deltaTenant, Name: "Street lamp", Model: "lamp"}, "per_bench")
	if err != nil {
		return err
	}
	r.product = p.ID
	if _, err := r.products.SetAvailability(ctx, deltaTenant, p.ID, []string{"DE", "FR"}, "per_bench"); err != nil {
		return err
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	const forever = int64(1<<63 - 1)
	var releases, uses, parts, identities, known, index, devices, labels, installs [][]any
	drawn := map[int]bool{}
	for n := range packReleases {
		release := deltaRelease(n)
		r.published = append(r.published, respond.Release{ID: release, Version: release})
		releases = append(releases, []any{deltaTenant, release, p.ID, release})
		taken := map[int]bool{}
		for i := 0; len(taken) < packParts; i++ {
			pkg := 7 // of the first record
			if i > 0 {
				pkg = rnd.IntN(deltaPackages)
			}
			if taken[pkg] {
				continue
			}
			taken[pkg] = true
			c := pkg*deltaVersions + rnd.IntN(deltaVersions/4) // the first versions are affected
			drawn[c] = true
			uses = append(uses, []any{release, "prt_" + deltaComponent(c), int64(1), forever, deltaComponent(c), deltaTenant})
		}
	}
	for n := range drawn {
		component, name, version := deltaComponent(n), deltaPackage(n/deltaVersions), fmt.Sprintf("1.%d.0", n%deltaVersions)
		parts = append(parts, []any{"prt_" + component, component, name, "v" + version, "pkg:golang/" + name + "@v" + version, "", "library", "", "", "Go"})
		identities = append(identities, []any{component, "Go", name, version, ""})
		known = append(known, []any{deltaTenant, component})
		index = append(index, []any{deltaTenant, "Go", name, component, version, ""})
	}
	start := store.Millis(time.Now().Add(-time.Hour))
	for i := range packDevices {
		id := fmt.Sprintf("dev_%026d", i)
		devices = append(devices, []any{id, deltaTenant, p.ID, "rev_bench", "", fmt.Sprintf("SN%06d", i), "", "commissioned", "", "", "", start, start})
		if i%20 != 0 {
			labels = append(labels, []any{deltaTenant, id, fleet.CountryLabel, packCountries[rnd.IntN(len(packCountries))]})
		}
		installs = append(installs, []any{deltaTenant, p.ID, id, deltaRelease(rnd.IntN(packReleases)), start, forever})
	}
	if err := r.insert(ctx, []packTable{
		{`INSERT INTO part (id, component_id, name, version, purl, cpe, kind, licence, supplier, spaces)`, parts},
		{`INSERT INTO component_identity (component_id, space, name, version, vendor)`, identities},
		{`INSERT INTO vuln_component (tenant, component_id)`, known},
		{`INSERT INTO vuln_identity (tenant, space, name, component_id, version, vendor)`, index},
		{`INSERT INTO vuln_release (tenant, release_id, product, version)`, releases},
		{`INSERT INTO release_part (release_id, part_id, from_ts, to_ts, component_id, tenant)`, uses},
		{`INSERT INTO device (id, tenant, product, revision, batch, serial, solution, state, reason, resume, firmware, created, updated)`, devices},
		{`INSERT INTO label (tenant, device_id, name, value)`, labels},
		{`INSERT INTO install (tenant, product, device_id, release_id, from_ts, to_ts)`, installs},
	}); err != nil {
		return err
	}
	if _, err := r.fleet.Recount(ctx); err != nil {
		return err
	}
	set, err := deltaFeed(1)
	if err != nil {
		return err
	}
	if _, err := r.vuln.Import(ctx, deltaTenant, "per_bench", "bench", set); err != nil {
		return err
	}
	if r.db.Engine() == store.SQLite {
		return nil
	}
	return r.db.Write(ctx, func(tx *store.Tx) error { _, err := tx.Exec(`ANALYZE`); return err }) // as its autovacuum would within a minute
}

type packTable struct {
	head string
	rows [][]any
}

func (r *packRooms) insert(ctx context.Context, tables []packTable) error {
	const step = 1_000
	for _, t := range tables {
		for from := 0; from < len(t.rows); from += step {
			part := t.rows[from:min(from+step, len(t.rows))]
			if err := r.db.WriteBulk(ctx, func(tx *store.Tx) error { return tx.InsertMany(t.head, part, ``) }); err != nil {
				return err
			}
		}
	}
	return nil
}
