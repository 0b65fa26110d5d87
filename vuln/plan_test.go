// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/vuln/vex"
)

// What is asked about one vulnerability, or one release, costs what those are, not what all records, hits and bills of a
// tenant are, on both engines. So does the arrival of a record, or of a release.
func TestNoQuestionReadsThePortfolio(t *testing.T) {
	plans := &storetest.Plans{Big: []string{"vuln_record", "vuln_name", "vuln_group", "vuln_grouped", "vuln_member", "vuln_claim", "vuln_component", "vuln_identity", "vuln_hit",
		"release_part", "part", "component_identity", "sbom"}, Few: []string{"vuln_group_exploited"}}
	hand := clock.NewHand(day0)
	storetest.Each(t, houseSchema, func(t *testing.T, db *store.DB) {
		hand.Set(day0)
		h := newHouse(t, db, hand)
		for n := range 5 {
			fillPortfolio(t, db, fmt.Sprintf("ten_%d", n), 2000/(1+4*n))
		}
		h.release("ten_0", "rel_1", "prd_1", "1.0", "golang.org/x/net@v0.1.0", "golang.org/x/text@v0.3.0")
		_, err := h.feed("ten_0", xnet("GO-2023-2102", "CVE-2023-44487", "0.17.0", ""), kevRapidReset)
		h.must(err)
		plans.Analyze(t, db)
		begun := hand.Now()
		hand.Advance(time.Hour)
		for _, q := range []struct {
			what  string
			ask   func(ctx context.Context) error
			whole []string
		}{
			{"what a record touches", func(ctx context.Context) error { return of(h.vuln.Reach(ctx, "ten_0", []string{"GO-2023-2102"})) }, nil},
			{"a record compared again", func(ctx context.Context) error { return of(h.vuln.Rematch(ctx, "ten_0", []string{"GO-2023-2102"})) }, nil},
			{"who is exposed", func(ctx context.Context) error {
				return of(h.vuln.Affected(ctx, "ten_0", "CVE-2023-44487", time.Time{}))
			}, nil},
			{"who was exposed", func(ctx context.Context) error { return of(h.vuln.Affected(ctx, "ten_0", "CVE-2023-44487", begun)) }, nil},
			{"one vulnerability", func(ctx context.Context) error { return of(h.vuln.Get(ctx, "ten_0", "CVE-2023-44487")) }, nil},
			{"a page of exposed devices", func(ctx context.Context) error {
				return of(h.vuln.AffectedDevices(ctx, "ten_0", "CVE-2023-44487", time.Time{}, func(string) bool { return true }, fleet.Page{Limit: 100}))
			}, nil},
			{"what is open in a release", func(ctx context.Context) error { return of(h.vuln.OpenFindings(ctx, "ten_0", "rel_1")) }, nil},
			{"a decision", func(ctx context.Context) error {
				return of(h.vuln.Decide(ctx, "ten_0", "per_1", "CVE-2023-44487", Deciding{Product: "prd_1", Status: UnderInvestigation, Evidence: "a look at it"}))
			}, nil},
			{"the VEX of a release", func(ctx context.Context) error { return of(h.vuln.ReleaseVEX(ctx, "ten_0", "rel_1", vex.OpenVEX)) }, nil},
			{"a record that comes again", func(context.Context) error {
				return of(h.feed("ten_0", xnet("GO-2023-2102", "CVE-2023-44487", "0.18.0", ""), kevRapidReset))
			}, []string{"vuln_record"}}, // what is known of each is compared with the feed
			{"a release that comes", func(context.Context) error {
				h.release("ten_0", "rel_2", "prd_1", "2.0", "golang.org/x/net@v0.18.0", "golang.org/x/text@v0.3.0", "golang.org/x/sys@v0.1.0")
				return nil
			}, nil},
		} {
			plans.Check(t, db, q.what, 60, q.ask, q.whole...)
		}
	}, func(c *store.Config) { c.Clock = hand }, plans.Config)
}

func of[T any](_ T, err error) error { return err }

// fillPortfolio gives a tenant so many records, each with two names, two claims and two open hits, and as many components,
// of which every release lists fifty.
func fillPortfolio(t *testing.T, db *store.DB, tenant string, n int) {
	into := map[string][][]any{}
	add := func(head string, row ...any) { into[head] = append(into[head], row) }
	for i := range n {
		id, cve, group := fmt.Sprintf("GHSA-%s-%05d", tenant[4:], i), fmt.Sprintf("CVE-2020-%05d", i), fmt.Sprintf("vul_%s_%05d", tenant, i)
		component, part, version := fmt.Sprintf("cmp_%s_%05d", tenant, i), fmt.Sprintf("prt_%s_%05d", tenant, i), fmt.Sprintf("1.%d.0", i)
		name := fmt.Sprintf("example.org/m%04d", i/2)
		add(`vuln_record (tenant, id, content_hash, source, withdrawn, reviewed, seen, is_current)`, tenant, id, "hash", "feed", int64(0), "", int64(1), int64(1))
		add(`vuln_group (tenant, id, name, summary, exploited)`, tenant, group, cve, "", int64(0))
		add(`vuln_grouped (tenant, record_id, group_id)`, tenant, id, group)
		for _, ident := range []string{id, cve} {
			add(`vuln_name (tenant, record_id, ident)`, tenant, id, ident)
			add(`vuln_member (tenant, ident, group_id)`, tenant, ident, group)
		}
		add(`vuln_component (tenant, component_id)`, tenant, component)
		add(`vuln_identity (tenant, space, name, component_id, version, vendor)`, tenant, "Go", name, component, version, "")
		add(`component_identity (component_id, space, name, version, vendor)`, component, "Go", name, version, "")
		add(`part (id, component_id, name, version, purl, cpe, kind, licence, supplier, spaces)`, part, component, name, version, "", "", "library", "", "", "Go")
		for k := range 2 {
			add(`vuln_claim (tenant, space, name, record_id, body)`, tenant, "Go", fmt.Sprintf("example.org/m%04d", (i/2+k)%n), id, "[]")
			add(`vuln_hit (tenant, component_id, record_id, since, state, until, reason, fixed, rule, confidence, conditions, why)`,
				tenant, fmt.Sprintf("cmp_%s_%05d", tenant, (i+k)%n), id, int64(1), "affected", int64(forever), "", "", "purl-osv", "exact", "", "")
		}
		release := fmt.Sprintf("rel_%s_%03d", tenant, i%(n/20))
		if i < n/20 {
			add(`vuln_release (tenant, release_id, product, version, image)`, tenant, release, "prd_2", version, "")
			add(`sbom (id, tenant, release_id, format, spec_version, digest, sha512, size, name, version, quality, at)`,
				"bom_"+release, tenant, release, "cyclonedx", "1.6", "sha256:0", "", int64(1), "", "", "{}", int64(1))
		}
		for k := range 50 {
			if j := (i + k*n/50) % n; k%20 == i%20 || k < 3 {
				add(`release_part (release_id, part_id, from_ts, to_ts, component_id, tenant)`, release, fmt.Sprintf("prt_%s_%05d", tenant, j), int64(1), int64(forever), fmt.Sprintf("cmp_%s_%05d", tenant, j), tenant)
			}
		}
	}
	if err := db.WriteBulk(t.Context(), func(tx *store.Tx) error {
		for _, head := range sortedKeys(into) {
			if err := tx.InsertMany(`INSERT INTO `+head, into[head], ` ON CONFLICT DO NOTHING`); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
