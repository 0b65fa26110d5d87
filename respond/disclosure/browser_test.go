// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/console/browsertest"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

// TestBrowser reports a vulnerability in a real browser by keyboard alone, comes back, and works on it at the desk. Every
// page is accessible and quiet, in light and dark, wide and narrow, without scripts and on paper.
func TestBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a browser")
	}
	hand := clock.NewHand(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC))
	h := openHouse(t, storetest.SQLiteURL(t), t.TempDir(), hand)
	l, origin := browsertest.Listen(t)
	h.cfg.URL = origin
	var inside atomic.Bool // whether the visitor is of the house
	c := console.New(console.Config{Clock: hand, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Menu: []string{"Today", "Cases", "Disclosure"}, SignIn: "/sign-in", Holds: tenant.Holds,
		Authenticate: func(*http.Request) (context.Context, error) {
			if !inside.Load() {
				return nil, problem.Unauthenticated("This needs you to be signed in.")
			}
			return ann, nil
		}, Visitor: func(ctx context.Context) string {
			a, _ := tenant.ActorFrom(ctx)
			return a.ID
		}})
	h.Pages(c)
	h.cfg.Respond.Pages(c)
	browsertest.Serve(t, l, c)

	b := browsertest.Open(t, origin)
	look := func(path, shot string) {
		t.Helper()
		b.Go(path)
		b.Accessible()
		b.Shots(shot)
		b.Size(390, 844)
		if wide := browsertest.Value[int](b, `document.documentElement.scrollWidth`); wide > 390 {
			t.Errorf("%s is %d wide on a telephone", path, wide)
		}
		b.Shot(shot + "-narrow")
		b.Size(1280, 860)
	}
	at := "/security/" + maker
	look(at, "policy")
	b.Print("policy-print")
	b.Screen()
	look(at+"?lang=de", "policy-de")
	look(at+"/report", "report")
	b.Type("#f-subject", "Overflow in the parser")
	// From here on with the keyboard alone: text, product, version, files, seen exploited, where.
	for _, keys := range []string{"The parser overflows at 4097 bytes.", "", "1.2.3", "", "Yes", "On a sensor in the field"} {
		b.Press("\t")
		b.Press(keys)
	}
	b.Press("\r")
	b.Until(`location.pathname.includes("/status/") && document.readyState === "complete"`)
	status := browsertest.Value[string](b, `location.pathname`)
	b.Accessible()
	b.Shots("status")
	if got := b.Text("main"); !strings.Contains(got, "rpt_") || strings.Contains(got, "overflows") {
		t.Errorf("behind the status link: %s", got)
	}

	inside.Store(true)
	rs, err := h.Reports(ann, true, "", 1)
	h.must(err)
	if rs[0].Exploited != "yes" || rs[0].Signal == "" {
		t.Errorf("%+v", rs[0])
	}
	here := "/disclosure/reports/" + rs[0].ID
	look("/", "today")
	look("/signals/"+rs[0].Signal, "signal")
	look("/disclosure", "desk")
	look(here, "desk-report")
	b.Print("desk-report-print")
	b.Screen()
	b.Click(`form[action$="/open"] button`)
	b.UntilPath(here + "/open")
	b.Accessible()
	b.Shots("desk-open")
	look("/disclosure/policy", "desk-policy")
	look("/disclosure/contact", "desk-contact")
	h.did(ann, rs[0].ID, ReportAck, "Thank you.", Data{})
	look(status, "status-answered")
	look(at+"/thanks", "thanks")
	look(at+"/figures", "figures")
	look("/disclosure/figures", "desk-figures")
	b.Print("desk-figures-print")
	b.Screen()
	b.QuietLog()
}
