// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"bytes"
	"database/sql"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openthings-platform/openthings/realdata"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/feed"
	"github.com/openthings-platform/openthings/vuln/record"
)

// realFeed is opened once for all tests, and only read.
func realFeed(t *testing.T) *feed.Feed {
	t.Helper()
	dir := realdata.Dir(t)
	realOnce.Do(func() { realOnce.feed, realOnce.err = feed.OpenPath(filepath.Join(dir, "vuln/osv/Go/all.zip")) })
	if realOnce.err != nil {
		t.Fatal(realOnce.err)
	}
	return realOnce.feed
}

var realOnce struct {
	sync.Once
	feed *feed.Feed
	err  error
}

// realPart is the real records that name a part of the bill, and one in five of the others, among which these must be found.
func realPart(t *testing.T, b sbom.Bill) *feed.Feed {
	t.Helper()
	listed := map[string]bool{}
	for _, c := range b.Components {
		listed[c.Package] = true
	}
	var bodies []string
	n := 0
	if err := realFeed(t).Each(func(string, string) bool { return true }, func(r record.Record, body []byte) error {
		n++
		if n%5 == 0 || slices.ContainsFunc(r.Affected, func(a record.Affected) bool { return listed[sbom.Fold("Go", a.Package.Name)] }) {
			bodies = append(bodies, string(body))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	z := zipped(t, bodies...)
	f, err := feed.Open(bytes.NewReader(z), int64(len(z)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func realBill(t *testing.T, name string) (sbom.Bill, []byte) {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join(realdata.Dir(t), "sbom", name))
	if err != nil {
		t.Fatal(err)
	}
	b, err := sbom.Parse(doc)
	if err != nil {
		t.Fatal(err)
	}
	return b, doc
}

func TestRealRecordsAgainstRealBills(t *testing.T) {
	t.Parallel()
	f := realFeed(t)
	if f.Records != 3809 {
		t.Fatalf("%d records, want 3809", f.Records)
	}
	for _, c := range []struct {
		name                           string
		open, withdrawn, modules, xnet int
	}{
		{"cyclonedx/csaf_checker.syft-1.57.1.6.json", 1, 1, 1, 0},
		{"spdx/csaf_checker.syft-1.57.spdx-3.0.json", 1, 1, 1, 0},
		{"cyclonedx/proton-bridge-v1.8.0.json", 52, 1, 14, 20},
	} {
		b, _ := realBill(t, c.name)
		rep, err := Check(b, f)
		if err != nil {
			t.Fatal(err)
		}
		withdrawn, xnet, modules := 0, 0, map[string]bool{}
		for _, h := range rep.Hits {
			switch {
			case h.Withdrawn:
				withdrawn++
				continue
			case h.Component == "golang.org/x/net":
				xnet++
			case h.Record == "GO-2026-5932" && h.Component != "golang.org/x/crypto":
				t.Errorf("%s on %s", h.Record, h.Component)
			}
			modules[h.Component] = true
		}
		if rep.Affected != c.open || withdrawn != c.withdrawn || len(modules) != c.modules || xnet != c.xnet || rep.Unknown != 0 {
			t.Errorf("%s: %d open, %d withdrawn, %d modules, %d of x/net, %d unknown; want %d, %d, %d, %d, 0", c.name,
				rep.Affected, withdrawn, len(modules), xnet, rep.Unknown, c.open, c.withdrawn, c.modules, c.xnet)
		}
	}
}

// TestDeltaEqualsWhole loads the real records in two halves for one tenant and all at once for another: the findings
// must be the same, and loading them again must change nothing.
func TestDeltaEqualsWhole(t *testing.T) {
	realdata.Dir(t)
	each(t, func(h *house) {
		bill, doc := realBill(h.T, "cyclonedx/proton-bridge-v1.8.0.json")
		whole := realPart(h.T, bill)
		for _, tenant := range []string{"ten_whole", "ten_delta"} {
			h.attach(tenant, "rel_"+tenant, "prd_bridge", "1.8.0", doc)
		}
		load := func(tenant string, f *feed.Feed) Imported {
			out, err := h.vuln.Import(h.Context(), tenant, "per_1", "go", f)
			h.must(err)
			h.run()
			return out
		}
		load("ten_whole", whole)
		for half := range 2 {
			var bodies []string
			n := 0
			h.must(whole.Each(func(string, string) bool { return true }, func(_ record.Record, body []byte) error {
				if n++; n%2 == half {
					bodies = append(bodies, string(body))
				}
				return nil
			}))
			z := zipped(h.T, bodies...)
			part, err := feed.Open(bytes.NewReader(z), int64(len(z)))
			h.must(err)
			load("ten_delta", part)
		}
		if again := load("ten_delta", whole); again.New != 0 || again.Changed != 0 {
			t.Errorf("loading the same records again: %+v", again)
		}
		a, b := h.findings("ten_whole"), h.findings("ten_delta")
		if d := cmp.Diff(a, b); d != "" || len(a) < 40 {
			t.Errorf("%d and %d findings differ:\n%s", len(a), len(b), d)
		}
		rep, err := Check(bill, whole)
		h.must(err)
		groups := map[string]bool{}
		for _, hit := range rep.Hits {
			if !hit.Withdrawn {
				groups[hit.Component+" "+h.groupOf("ten_whole", hit.Record)] = true
			}
		}
		if len(groups) != len(a) {
			t.Errorf("the index finds %d, the plain check %d", len(a), len(groups))
		}
	})
}

func (h *house) groupOf(tenant, record string) (name string) {
	h.Helper()
	h.must(h.db.QueryRow(h.Context(), `SELECT g.name FROM vuln_group g JOIN vuln_member m ON m.tenant = g.tenant AND m.group_id = g.id
		WHERE g.tenant = $1 AND m.ident = $2`, tenant, record).Scan(&name))
	return name
}

// openFinding is an open finding under the names that people know.
type openFinding struct {
	name string // of the vulnerability
	finding
}

// open is every open finding of the tenant, one of each component, vulnerability and release.
func (h *house) open(tenant string) []openFinding {
	h.Helper()
	var out []openFinding
	h.must(h.db.View(h.Context(), func(tx *store.Tx) error {
		out = nil
		rows, err := tx.Query(`SELECT id, name FROM vuln_group WHERE tenant = $1 ORDER BY name`, tenant)
		groups, err := store.Collect(rows, err, func(r *sql.Rows) (g Group, err error) { return g, r.Scan(&g.ID, &g.Name) })
		for _, g := range groups {
			var found []finding
			if found, err = h.vuln.findings(tx, tenant, g.ID, h.vuln.now()); err != nil {
				return err
			}
			for _, f := range oneEach(found) {
				out = append(out, openFinding{g.Name, f})
			}
		}
		return err
	}))
	return out
}

// findings are the open findings by the names that do not depend on when they were found.
func (h *house) findings(tenant string) []string {
	h.Helper()
	var list []string
	for _, f := range h.open(tenant) {
		list = append(list, strings.Join([]string{f.name, f.component, string(f.State), f.Fixed}, " "))
	}
	slices.Sort(list)
	return list
}
