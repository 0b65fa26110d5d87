// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/console/browsertest"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/vuln/feed"
)

// TestBrowserFeeds adds a source and uploads a file in a real browser; the page is accessible and quiet in every state.
func TestBrowserFeeds(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a browser")
	}
	hand := clock.NewHand(day0)
	db := storetest.Open(t, storetest.SQLiteURL(t), []store.Migrations{audit.Schema, sbom.Schema, fleet.Schema, Schema}, func(c *store.Config) { c.Clock = hand })
	h := newHouse(t, db, hand)
	h.vuln.cfg.PrivateFeeds, h.vuln.cfg.FeedSpool, h.vuln.cfg.FeedDir = true, filepath.Join(t.TempDir(), "spool"), t.TempDir()
	ctx := tenant.WithActor(t.Context(), tenant.Actor{ID: "usr_1", Tenant: "tnt_a", Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: "tnt_a"}}})
	l, origin := browsertest.Listen(t)
	c := console.New(console.Config{Clock: hand, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Menu: []string{"Vulnerabilities"}, Holds: tenant.Holds,
		Authenticate: func(r *http.Request) (context.Context, error) {
			a, _ := tenant.ActorFrom(ctx)
			return tenant.WithActor(r.Context(), a), nil
		}, Visitor: func(context.Context) string { return "Ann" }})
	h.vuln.Pages(c)
	browsertest.Serve(t, l, c)
	b := browsertest.Open(t, origin)
	b.Go("/vulnerabilities/feeds")
	b.Accessible()
	b.Shots("feeds-none")

	b.Type("#f-name", "osv")
	b.Type("#f-location", "http://feeds.example/all")
	b.Type("#f-ecosystems", "Go, npm")
	b.Click("form[action='/vulnerabilities/feeds'] button.primary")
	b.Until(`document.body.innerText.includes("over https")`)
	b.Accessible()
	b.Log() // the refusal's status

	// Sources in every state, with a history.
	p := publish(t)
	p.set(archive(t, "GO-2026-0001.json", `{"id":"GO-2026-0001"}`), 0, false)
	for _, name := range []string{"csaf-of-acme", "epss", "kev", "osv"} {
		h.put(name, SourceIn{Source: feed.Source{Kind: feed.KindURL, Location: p.URL + "/" + name, Whole: name == "osv"}, EveryMinutes: 60, StaleMinutes: 3 * 24 * 60})
	}
	for i := range 24 {
		files := []string{}
		for n := range i%7*i + 1 {
			id := fmt.Sprintf("GO-2026-%d%03d", i/7, n)
			files = append(files, id+".json", fmt.Sprintf(`{"id":%q,"summary":"%d"}`, id, i))
		}
		p.set(archive(t, files...), map[bool]int{true: 503}[i%9 == 8], false)
		h.due(day0.Add(time.Duration(i) * time.Hour))
	}
	key, line := feedKey(t)
	h.put("site", SourceIn{Source: feed.Source{Kind: feed.KindBundle, Keys: []string{line}}})
	if _, err := h.upload("site", bundle(t, key, 12, day0.Add(-9*24*time.Hour), "A.json", `{"id":"A"}`)); err != nil {
		t.Fatal(err)
	}
	p.set(nil, 503, false)
	h.due(h.source("kev").Next)
	h.put("new", SourceIn{Source: feed.Source{Kind: feed.KindOSV, Location: "https://feeds.example", Ecosystems: []string{"Go", "npm"}}})
	if err := db.Write(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE vuln_source SET beat = $1, progress = $2 WHERE name = 'new'`, store.Millis(hand.Now()), `{"file":"Go/all.zip","done":1,"files":2,"bytes":4100000}`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	b.Go("/vulnerabilities/feeds")
	b.Accessible()
	b.Shots("feeds")
	for _, word := range []string{"failing", "behind", "syncing", "days behind"} {
		if got := b.Text("table.feeds"); !strings.Contains(got, word) {
			t.Errorf("the page does not say %q: %s", word, got)
		}
	}

	// A file is uploaded by hand; a broken one is refused on the same page.
	file := filepath.Join(t.TempDir(), "kev.json")
	if err := os.WriteFile(file, bytes.Repeat([]byte("x"), 10), 0o600); err != nil {
		t.Fatal(err)
	}
	b.Click("details.add:last-of-type summary")
	b.Type("#f-feed", "mine")
	b.File("#f-file", file)
	b.Click("form[enctype] button.primary")
	b.Until(`document.body.innerText.includes("not valid")`)
	b.Log() // the refusal's status
	if err := os.WriteFile(file, []byte(`{"catalogVersion":"1","count":1,"vulnerabilities":[{"cveID":"CVE-2024-0001","dateAdded":"2024-01-01"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	b.Type("#f-feed", "mine")
	b.File("#f-file", file)
	b.Click("form[enctype] button.primary")
	b.Until(`document.body.innerText.includes("mine: 1 entry; ")`)
	b.QuietLog()
}
