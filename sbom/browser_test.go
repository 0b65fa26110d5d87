// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/console/browsertest"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/blob"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

// A person explores what is inside a release, narrows it down by links alone, and sees what another release changes: with
// the keyboard, on a telephone, in light and dark.
func TestExplorerInABrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a browser")
	}
	hand := clock.NewHand(begin)
	db := storetest.Open(t, storetest.SQLiteURL(t), []store.Migrations{audit.Schema, Schema}, func(c *store.Config) { c.Clock = hand })
	blobs, err := blob.NewDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{"rel_1": "Street lamp 1.0.0", "rel_2": "Street lamp 1.1.0", "rel_3": "Gateway 12.5"}
	s := New(Config{DB: db, Blobs: blobs, Clock: hand, ProductOf: func(_ context.Context, _, release string) (string, error) {
		if names[release] == "" {
			return "", problem.NotFound("There is no such release.")
		}
		return strings.Fields(names[release])[0], nil
	}})
	attach := func(release, doc string, b Bill) {
		t.Helper()
		kept, err := s.Keep(t.Context(), []byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Write(t.Context(), func(tx *store.Tx) error { return s.Attach(tx, "ten_a", release, b, kept, "per_1") }); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile("testdata/buildroot.cdx.json")
	if err != nil {
		t.Fatal(err)
	}
	next := strings.NewReplacer(`"version":"8.4.0"`, `"version":"8.7.1"`, `haxx:libcurl:8.4.0`, `haxx:libcurl:8.7.1`, `"GPL-2.0-only"}},{`, `"GPL-3.0-only"}},{`,
		`"name":"skeleton-init-sysv"`, `"name":"skeleton-init-systemd"`).Replace(string(raw))
	for release, doc := range map[string]string{"rel_1": string(raw), "rel_2": next} {
		b, err := Parse([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		attach(release, doc, b)
	}
	attach("rel_3", "debian", real(t, "cyclonedx/debian12.syft-1.57.1.6.json.gz"))
	if _, err := s.AddEvidence(t.Context(), "ten_a", "rel_2", CompiledFiles, strings.NewReader("init/main.c\nnet/ipv4/route.c\n"), "per_1"); err != nil {
		t.Fatal(err)
	}

	l, origin := browsertest.Listen(t)
	c := console.New(console.Config{Clock: hand, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Menu: []string{"Today", "Releases"}, Holds: tenant.Holds,
		Authenticate: func(r *http.Request) (context.Context, error) {
			return tenant.WithActor(r.Context(), tenant.Actor{ID: "per_ann", Kind: tenant.KindPerson, Tenant: "ten_a", Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: "ten_a"}}}), nil
		},
		Visitor: func(context.Context) string { return "Ann" },
		Name:    func(_ context.Context, id string) string { return names[id] }})
	s.Pages(c)
	browsertest.Serve(t, l, c)
	b := browsertest.Open(t, origin)
	looks := func(path, shot string) {
		t.Helper()
		b.Go(path)
		b.Accessible()
		b.Size(390, 844)
		if wide := browsertest.Value[int](b, `document.documentElement.scrollWidth`); wide > 390 {
			t.Errorf("%s is %d px wide on a telephone", path, wide)
		}
		b.Accessible()
		b.Shots(shot + "-narrow")
		b.Size(1280, 900)
		b.Shots(shot)
	}
	looks("/releases/rel_2/sbom", "sbom-explorer")
	looks("/releases/compare?from=rel_1&to=rel_2", "sbom-compare")
	looks("/releases/rel_3/sbom?q=lib", "sbom-explorer-large")

	b.Go("/releases/rel_2/sbom")
	b.Click(`.facet a[href="?space=not+matchable"]`)
	b.Until(`document.querySelectorAll("tbody tr").length == 1 && document.querySelector("tbody tr").textContent.includes("skeleton-init-systemd")`)
	b.Click(`.facet a[aria-current]`)
	b.Until(`document.querySelectorAll("tbody tr").length == 6`)
	b.Type("#f-q", "curl haxx")
	b.Press("\r")
	b.Until(`document.querySelectorAll("tbody tr").length == 1 && document.querySelector("tbody tr").textContent.includes("8.7.1")`)
	b.Go("/releases/rel_3/sbom")
	b.Click(`.pager a[rel=next]`)
	b.Until(`location.search.includes("after=") && document.querySelectorAll("tbody tr").length == 100`)
	b.QuietLog()
}
