// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/console/browsertest"
	"github.com/openthings-platform/openthings/tenant"
)

// The pages under Data in a real browser: accessible in light and dark and on a telephone, and a field is declared from
// the list of what devices send.
func TestDataPagesInABrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a browser")
	}
	w := newWorld(t)
	w.measured()
	w.append(says(w.devices[1].ID, 9, `"temp":5`))
	w.compactAll()
	if _, err := w.turn(t.Context(), w.lookForGaps); err != nil {
		t.Fatal(err)
	}
	l, origin := browsertest.Listen(t)
	c := console.New(console.Config{Clock: w.clk, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Menu: []string{"Today", "Data"}, Holds: tenant.Holds,
		Authenticate: func(r *http.Request) (context.Context, error) {
			return tenant.WithActor(r.Context(), tenant.Actor{ID: "per_owner", Kind: tenant.KindPerson, Tenant: "ten", Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: "ten"}}}), nil
		}, Visitor: func(context.Context) string { return "Ann" }})
	w.Pages(c)
	browsertest.Serve(t, l, c)
	b := browsertest.Open(t, origin)
	own := "/data/products/" + w.product
	look := func(path, shot string) {
		t.Helper()
		b.Go(path)
		b.Accessible()
		b.Size(390, 844)
		if wide := browsertest.Value[int](b, `document.documentElement.scrollWidth`); wide > 390 {
			t.Errorf("%s is %d px wide on a telephone", path, wide)
		}
		b.Size(1280, 900)
		b.Shots(shot)
	}
	look("/data", "data-none")
	look(own, "data-catalogue-none")
	b.Go(own)
	b.Click("details.add summary")
	b.Type("#f-stream", "env")
	b.Type("#f-name", "temp")
	b.Type("#f-unit", "Cel")
	b.Type("#f-purpose", "keeps food")
	b.Click("details.add[open] button.primary")
	b.Until(`document.body.textContent.includes("Version 1")`)
	look(own, "data-catalogue")
	b.Go(own)
	b.Click("details.add:last-of-type summary")
	b.Click("input[value=drop]")
	b.Click("details.add[open] button.primary")
	b.Until(`document.body.textContent.includes("Version 2")`)
	w.append(says(w.devices[1].ID, 10, `"temp":5,"ssid":40`))
	w.compactAll()
	b.Go("/data/undeclared")
	b.Type(`input[name=purpose]`, "finds the network")
	b.Press("\r")
	b.Until(`location.pathname.startsWith("/data/products/")`)
	if got := b.Text("main"); !strings.Contains(got, "finds the network") || !strings.Contains(got, "Version 3") {
		t.Errorf("after declaring from the list: %s", got)
	}
	look("/data/undeclared", "data-undeclared")
	look("/data/export", "data-export")
	look("/data/shares", "data-shares")
	b.QuietLog()
}
