// SPDX-License-Identifier: AGPL-3.0-only

package advisory

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/console/browsertest"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

// TestAdvisoryInTheBrowser drafts, holds back and publishes an advisory through the forms and reads its public page on a
// wide screen, on a phone and on paper.
func TestAdvisoryInTheBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a browser")
	}
	hand := clock.NewHand(time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC))
	p := newPress(t, storetest.Open(t, storetest.SQLiteURL(t), pressSchema, func(c *store.Config) { c.Clock = hand }), hand)
	p.story()
	l, origin := browsertest.Listen(t)
	who, _ := tenant.ActorFrom(pso)
	c := console.New(console.Config{Clock: hand, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Menu: []string{"Today", "Cases", "Advisories", "Law"}, Holds: tenant.Holds,
		Authenticate: func(r *http.Request) (context.Context, error) { return tenant.WithActor(r.Context(), who), nil }, Visitor: func(context.Context) string { return "Bob" }})
	p.Pages(c)
	browsertest.Serve(t, l, c)
	b := browsertest.Open(t, origin)
	look := func(shot string) {
		t.Helper()
		b.Accessible()
		b.Shots(shot)
	}

	b.Go("/advisories?vulnerability=" + cve)
	look("advisories-none")
	b.Type("#f-title", "Overflow in the radio of the street lamp")
	b.Type("#f-summary", "A message of the radio can write past the end of a buffer. An attacker within reach of the radio can make the lamp restart, and may be able to run code on it.")
	b.Click("form[action='/advisories'] button")
	b.Until(`location.pathname.startsWith("/advisories/adv_")`)
	look("advisory-draft")

	b.Click("details summary")
	b.Type("#f-reason", "The fixed release is still rolling out.")
	b.Type("#f-until", "2026-11-21T09:00Z")
	b.Click("form[action$='/hold'] button")
	b.Until(`document.querySelector(".said") !== null`)
	look("advisory-held")
	b.Go("/")
	look("today-advisory")

	as, err := p.List(pso, "", 1)
	p.must(err)
	path := "/advisories/" + as[0].ID
	b.Go(path)
	b.Click("form[action$='/publish'] button")
	b.Until(`document.querySelector(".problem") !== null`)
	if got := b.Text(".problem"); !strings.Contains(got, "held back until") {
		t.Errorf("it says %q", got)
	}
	b.Go(path)
	b.Click("form[action$='/lift'] button")
	b.Until(`document.querySelector(".said") !== null`)
	words := p.words()
	words.Title, words.Summary = as[0].Title, as[0].Text.Summary
	_, err = p.Change(pso, as[0].ID, words)
	p.must(err)
	b.Go(path)
	b.Click("form[action$='/publish'] button")
	b.Until(`document.querySelector(".said") !== null`)
	look("advisory-published")
	b.Go("/advisories")
	look("advisories")
	b.Go("/advisories/publisher")
	look("advisory-publisher")

	b.Go(p.path(as[0], ".html"))
	look("public-advisory")
	b.Size(390, 844)
	look("public-advisory-phone")
	if wide := browsertest.Value[int](b, `document.documentElement.scrollWidth`); wide > 390 {
		t.Errorf("the page is %d pixels wide on a phone of 390", wide)
	}
	b.Size(794, 1123)
	b.Print("public-advisory-print")
	b.Screen()
	b.Size(1280, 900)
	b.Go("/csaf/" + maker + "/")
	look("public-advisories")
	if log := b.Log(); len(log) > 1 { // the refused publication is one
		t.Errorf("browser log: %q", log)
	}
}
