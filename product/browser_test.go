// SPDX-License-Identifier: AGPL-3.0-only

package product

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
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

// TestBrowser declares and publishes support in a real browser and reads it as a buyer; every page is accessible and quiet.
func TestBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a browser")
	}
	hand := clock.NewHand(day0)
	h := openShop(t, storetest.Open(t, storetest.SQLiteURL(t), schema, func(c *store.Config) { c.Clock = hand }), hand)
	l, origin := browsertest.Listen(t)
	c := console.New(console.Config{Clock: hand, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Menu: []string{"Today", "Products"}, Holds: tenant.Holds,
		Authenticate: func(r *http.Request) (context.Context, error) { return tenant.WithActor(r.Context(), ann), nil }, Visitor: func(context.Context) string { return "Ann" }})
	h.cfg.Running = func(context.Context, string, Revision) (Fleet, error) {
		return Fleet{Newest: "5.0", Releases: []Running{{Version: "4.1", Devices: 1310}, {Version: "5.0", Devices: 594, Newest: true}}}, nil
	}
	h.Pages(c)
	browsertest.Serve(t, l, c)
	b := browsertest.Open(t, origin)
	look := func(path, shot string) {
		t.Helper()
		b.Go(path)
		b.Accessible()
		b.Shots(shot)
	}
	at := "/products/" + h.product.ID
	id := h.first().ID
	b.Go(at + "/support")
	for field, text := range map[string]string{"use": "84", "sec": "Fixes for every vulnerability that can be exploited.", "upd": "Over the air, automatic by default.", "users": "Lamps stay on walls for years.",
		"dec": "Ann Maker", "app": "Bo Boss"} {
		b.Type("#f-"+field+"-"+id, text)
	}
	b.Shots("support-draft")
	b.Click(`form[action="/cohorts/` + id + `"] button.primary`)
	b.Until(`document.querySelector('form[action$="/publish"]') !== null`)
	b.Click(`form[action$="/publish"] button`)
	b.Until(`document.querySelector(".facts") !== null`)
	if got := b.Text(".said"); !strings.Contains(got, "December 2031") {
		t.Errorf("after publishing: %q", got)
	}
	later := sold("2034-06")
	later.FirstPlaced, later.FeatureEnd, later.SalesEnd, later.ServiceEnd = "2027-01-01", "2030-03-31", "2029-06-30", "2034-12-31"
	if _, err := h.AddCohort(t.Context(), "ten_a", h.rev.ID, "2027", later, ann.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := h.DecideEnd(t.Context(), "ten_a", EndDecision{Cohort: id, Kind: EndExtend, Reason: "Many are in use.", Actor: ann.ID}); err != nil {
		t.Fatal(err)
	}
	for _, row := range law.Annex(annexII) {
		if err := h.SetItem(t.Context(), "ten_a", h.product.ID, "en", Item{ID: row.ID, Text: row.Wording + "\nhttps://lamps.example/" + row.ID}, ann.ID); err != nil {
			t.Fatal(err)
		}
	}
	look(at, "product")
	look(at+"/support", "support")
	look(at+"/information", "information")
	b.Click(`form[action$="/information/publish"] button`)
	b.Until(`document.querySelector(".said") !== null`)
	look(at+"/point-of-sale", "sale")
	look("/ends", "ends")
	if _, err := h.DeclareCessation(t.Context(), "ten_a", day0.AddDate(1, 0, 0), "The owners retire.", ann.ID); err != nil {
		t.Fatal(err)
	}
	look("/cessation", "cessation")
	look("/p/"+h.product.ID, "public")
	look("/p/"+h.product.ID+"?lang=de", "public-de")
	hand.Set(time.Date(2032, 2, 1, 0, 0, 0, 0, time.UTC))
	look("/p/"+h.product.ID, "public-ended")
	look(at+"/support", "support-ended")
	b.Size(390, 844)
	for path, shot := range map[string]string{at: "product-390", at + "/support": "support-390", "/p/" + h.product.ID: "public-390", "/ends": "ends-390", at + "/information": "information-390"} {
		b.Go(path)
		b.Accessible()
		b.Shot(shot)
	}
	b.QuietLog()
}
