// SPDX-License-Identifier: AGPL-3.0-only

package respond

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
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

// TestBrowser declares awareness in a real browser and reads the running clock; every page is accessible and quiet.
func TestBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a browser")
	}
	hand := clock.NewHand(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC))
	h := openHouse(t, storetest.SQLiteURL(t), hand, "")
	l, origin := browsertest.Listen(t)
	c := console.New(console.Config{Clock: hand, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Menu: []string{"Today", "Cases"}, Holds: tenant.Holds,
		Authenticate: func(r *http.Request) (context.Context, error) { return ann, nil }, Visitor: func(context.Context) string { return "Ann" }})
	h.Pages(c)
	browsertest.Serve(t, l, c)
	as := h.assessed(t)

	b := browsertest.Open(t, origin)
	look := func(path, shot string) {
		t.Helper()
		b.Go(path)
		b.Accessible()
		b.Shots(shot)
	}
	look("/", "today-signal")
	look("/cases", "cases")
	look("/signals/"+as.Signal, "signal")
	b.Click(`input[name=aev][value=yes]`)
	b.Click(`input[name=si][value=no]`)
	b.Type("#f-basis", "three units with a shell, images kept")
	b.Type("#f-summary", "A shell was opened on three sensors.")
	b.Type("#f-coordinator", "Germany")
	b.Click("button.danger")
	b.Until(`location.pathname.startsWith("/cases/cas_")`)
	b.Accessible()
	b.Shots("case")
	if got := b.Text(".numbers"); !strings.Contains(got, "Early warning") || !strings.Contains(got, "1 d left") {
		t.Errorf("the clock says %q", got)
	}
	look("/", "today-clock")
	cs, err := h.Cases(ann, true, "", 1)
	if err != nil || len(cs) != 1 {
		t.Fatalf("%v, %v", cs, err)
	}
	look("/cases/"+cs[0].ID+"/pack", "pack")
	b.Print("pack-print")
	b.Screen()
	look("/coordinator?in_union=yes&decisions=DE", "coordinator")
	b.QuietLog()
}
