// SPDX-License-Identifier: AGPL-3.0-only

package oncall

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
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

// TestBrowser looks at a bad day in a real browser: two linked cases with several regions in use, an idle signal, a drill
// that calls, then a call in earnest. Every page is accessible, on a telephone as well.
func TestBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a browser")
	}
	hand := clock.NewHand(t0)
	keys := newKeys(t, hand)
	db := storetest.Open(t, storetest.SQLiteURL(t), append([]store.Migrations{product.Schema, respond.Schema}, schema...), func(c *store.Config) { c.Clock = hand })
	h := newHouse(t, db, hand, keys)
	h.phones()
	ps := product.New(product.Config{DB: db, Clock: hand})
	cases := respond.New(respond.Config{DB: db, Products: ps, Keys: keys, Name: func(_ context.Context, id string) string { return people[id] }, Rota: respond.Rota{Ring: h.Rehearse, Hush: h.Hush,
		Rang: func(ctx context.Context, t, drill string) (respond.Rang, error) {
			c, _, err := h.OfDrill(ctx, t, drill)
			r := respond.Rang{At: c.At, Answered: c.Answered, AnsweredBy: c.AnsweredBy, End: c.Why}
			for _, s := range c.Steps {
				r.People = append(r.People, s.Person)
			}
			return r, err
		},
		Turn: func(ctx context.Context, t string) (ids []string, err error) {
			turn, _, err := h.Now(ctx, t)
			for _, m := range turn.People {
				ids = append(ids, m.Person)
			}
			return ids, err
		}}})
	p, err := ps.Create(t.Context(), product.Product{Tenant: ten, Name: "Street lamp", Model: "lamp"}, "per_ann")
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	h.set(h.rota())
	owner := signedIn("per_ann", tenant.Owner)
	second := signedIn("per_bob", tenant.Owner)
	must(cases.SetFiler(owner, true, respond.Primary, true))
	must(cases.SetFiler(second, true, respond.Secondary, false))
	idle, err := cases.AddSignal(owner, respond.Signal{Product: p.ID, Title: "A customer reports logins at night"})
	must(err)
	hand.Advance(10 * time.Hour)
	sig, err := cases.AddSignal(owner, respond.Signal{Product: p.ID, Title: "Shells on street lamps in three cities", Ref: "CVE-2026-1234", Exploited: "yes"})
	must(err)
	as, err := cases.Assess(owner, sig.ID, "")
	must(err)
	yes := true
	_, ids, err := cases.Decide(owner, as.ID, respond.Declaration{Verdict: respond.Aware, Basis: "three units with a shell, images kept", AEV: &yes, SI: &yes, T0: hand.Now().Add(-time.Hour),
		Title: "Shells on street lamps in three cities", Summary: "Somebody opened a shell on three lamps through the maintenance port and used our update key.", Coordinator: "DE", MemberStates: []string{"DE", "FI", "PT"},
		Fields: map[string]string{"versions": "1.0 to 1.4", "malicious": "Yes"}})
	must(err)
	at := func() time.Time { return hand.Now() }
	add := func(id string, k respond.EventKind, d respond.Data) respond.Event {
		t.Helper()
		hand.Advance(time.Minute)
		e, err := cases.Append(owner, id, k, d)
		must(err)
		return e
	}
	e := add(ids[0], respond.SubmissionAttempted, respond.Data{Stage: respond.EarlyWarning, At: at(), Deviation: "the platform took it"})
	_, err = cases.Append(second, ids[0], respond.SubmissionAccepted, respond.Data{Attempt: e.Seq, Receipt: "SRP-2026-1"})
	must(err)
	add(ids[0], respond.MitigationExpected, respond.Data{At: at(), Note: "a configuration that closes the port"})
	add(ids[0], respond.PlatformOutage, respond.Data{At: at(), Note: "503 after each attempt, since 20:10"})
	add(ids[0], respond.PublicationHeld, respond.Data{At: at(), Due: at().Add(200 * time.Hour), Note: "two thirds of the lamps have no fix yet"})
	add(ids[0], respond.PECInvoked, respond.Data{At: at(), Ground: respond.ImminentRisk, Note: "exploitation would spread with the details"})
	add(ids[0], respond.InterimRequested, respond.Data{At: at(), Due: at().Add(30 * time.Hour), Note: "How many lamps are concerned?"})
	add(ids[0], respond.UpstreamReported, respond.Data{At: at(), Component: "busybox", Note: "by its mailing list"})
	drill, err := cases.StartDrill(owner, p.ID, respond.AEV, "On Saturday night a customer sends the log of a break-in", true)
	must(err)

	l, origin := browsertest.Listen(t)
	c := console.New(console.Config{Clock: hand, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Menu: []string{"Today", "Cases", "Alarms"}, Holds: tenant.Holds,
		Name: func(_ context.Context, id string) string {
			return map[string]string{p.ID: "Street lamp", idle.ID: idle.Title, sig.ID: sig.Title, ids[0]: sig.Title, ids[1]: sig.Title, "per_ann": "Ann", "per_bob": "Bob", "per_eve": "Eve"}[id]
		},
		Authenticate: func(r *http.Request) (context.Context, error) {
			a, _ := tenant.ActorFrom(owner)
			return tenant.WithActor(r.Context(), a), nil
		}, Visitor: func(context.Context) string { return "Ann" }})
	cases.Pages(c)
	h.Pages(c)
	h.notify.Pages(c)
	browsertest.Serve(t, l, c)
	b := browsertest.Open(t, origin)
	look := func(path, shot string) {
		t.Helper()
		b.Size(1280, 900)
		b.Go(path)
		b.Accessible()
		b.Shots(shot)
		b.Print(shot + "-print")
		b.Screen()
		b.Size(390, 844)
		if wide := browsertest.Value[int](b, `document.documentElement.scrollWidth`); wide > 390 {
			t.Errorf("%s is %d pixels wide on a telephone", path, wide)
		}
		b.Shots(shot + "-390")
	}
	look("/", "g-today-drill")
	if body := b.Text("main"); !strings.Contains(body, "DRILL: On Saturday night") || !strings.Contains(body, "Early warning") || !strings.Contains(body, "A customer reports logins at night") {
		t.Errorf("Today says\n%s", body)
	}
	look("/drills/"+drill.ID, "g-drill")
	look("/drills", "g-drills")
	h.announce(ids[1])
	look("/", "g-today")
	if body := b.Text("main"); strings.Contains(body, "DRILL: I take it") || !strings.Contains(body, "I take it") {
		t.Errorf("Today says\n%s", body)
	}
	look("/cases/"+ids[0], "g-case")
	look("/cases/"+ids[1]+"/pack", "g-pack")
	look("/on-call", "g-oncall")
	look("/readiness", "g-ready")
	look("/notifications", "g-notify")
	b.QuietLog()
}
