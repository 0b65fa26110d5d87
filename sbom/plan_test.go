// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"context"
	"fmt"
	"testing"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/blob"
	"github.com/openthings-platform/openthings/store/storetest"
)

// What is asked about one release, or a few components, costs what those are, not what all bills of all tenants are, on
// both engines.
func TestNoQuestionReadsAllBills(t *testing.T) {
	const releases, listed = 300, 50 // parts of each
	plans := &storetest.Plans{Big: []string{"sbom", "release_part", "part", "component_identity", "release_evidence"}}
	storetest.Each(t, []store.Migrations{audit.Schema, Schema}, func(t *testing.T, db *store.DB) {
		blobs, err := blob.NewDir(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		s := New(Config{DB: db, Blobs: blobs})
		fillBills(t, db, releases, listed)
		plans.Analyze(t, db)
		bill, err := Parse([]byte(first))
		if err != nil {
			t.Fatal(err)
		}
		some := []string{"cmp_00010", "cmp_00011", "cmp_00012"} // each in two releases
		two := []string{"rel_000", "rel_001"}
		for _, q := range []struct {
			what string
			rows int
			ask  func(ctx context.Context, tx *store.Tx) error
		}{
			{"the names in a bill", 2 * listed, func(_ context.Context, tx *store.Tx) error { return of(s.Keys(tx, "ten_a", "rel_000")) }},
			{"who uses components", 10, func(_ context.Context, tx *store.Tx) error { return of(s.Uses(tx, "ten_a", some, anyTime)) }},
			{"who lists components", 10, func(_ context.Context, tx *store.Tx) error { return of(s.Listed(tx, "ten_a", some)) }},
			{"how components are spelled", 10, func(_ context.Context, tx *store.Tx) error { return of(s.Spelled(tx, "ten_a", two, some)) }},
			{"a page of a bill", 2 * listed, func(ctx context.Context, _ *store.Tx) error { return of(s.Components(ctx, "ten_a", "rel_000", "", 20)) }},
			{"what stands for a bill", 5, func(ctx context.Context, _ *store.Tx) error { return of(s.Current(ctx, "ten_a", "rel_000")) }},
			{"what bills describe", 5, func(_ context.Context, tx *store.Tx) error { return of(s.Subjects(tx, "ten_a", two)) }},
			{"a bill that comes", 2 * listed, func(_ context.Context, tx *store.Tx) error {
				return s.Attach(tx, "ten_a", "rel_000", bill, Document{Blob: "sha256:1"}, "per_1")
			}},
		} {
			plans.Check(t, db, q.what, q.rows, func(ctx context.Context) error {
				return db.Write(ctx, func(tx *store.Tx) error { return q.ask(ctx, tx) })
			})
		}
	}, plans.Config)
}

// anyTime asks Uses for all of time.
const anyTime = -1

func of[T any](_ T, err error) error { return err }

// fillBills lets two tenants list parts in releases, of which each shares half with the next.
func fillBills(t *testing.T, db *store.DB, releases, listed int) {
	var bills, parts, names, lists [][]any
	for i := range (releases + 1) * listed / 2 {
		part, component, name := fmt.Sprintf("prt_%05d", i), fmt.Sprintf("cmp_%05d", i), fmt.Sprintf("example.org/m%05d", i)
		parts = append(parts, []any{part, component, name, "1.0", "", "", "library", "", "", "Go"})
		names = append(names, []any{component, "Go", name, "1.0", ""})
	}
	for r := range releases {
		release, tenant := fmt.Sprintf("rel_%03d", r), "ten_a"
		if r >= releases/2 {
			tenant = "ten_b"
		}
		bills = append(bills, []any{"bom_" + release, tenant, release, "cyclonedx", "1.6", "sha256:0", "", int64(1), "", "", "{}", int64(1)})
		for i := range listed {
			n := r*listed/2 + i
			lists = append(lists, []any{release, fmt.Sprintf("prt_%05d", n), int64(1), int64(forever), fmt.Sprintf("cmp_%05d", n), tenant})
		}
	}
	if err := db.WriteBulk(t.Context(), func(tx *store.Tx) error {
		for _, in := range []struct {
			head string
			rows [][]any
		}{
			{`INSERT INTO sbom (id, tenant, release_id, format, spec_version, digest, sha512, size, name, version, quality, at)`, bills},
			{`INSERT INTO part (id, component_id, name, version, purl, cpe, kind, licence, supplier, spaces)`, parts},
			{`INSERT INTO component_identity (component_id, space, name, version, vendor)`, names},
			{`INSERT INTO release_part (release_id, part_id, from_ts, to_ts, component_id, tenant)`, lists},
		} {
			if err := tx.InsertMany(in.head, in.rows, ``); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
