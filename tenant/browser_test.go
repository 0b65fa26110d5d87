// SPDX-License-Identifier: AGPL-3.0-only

package tenant_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/console/browsertest"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

// TestBrowser walks the way of the first person: setup link, passkey, Today, out, in again, and on to Access.
func TestBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a browser")
	}
	db := storetest.Open(t, storetest.SQLiteURL(t), []store.Migrations{audit.Schema, api.Schema, tenant.Schema})
	l, origin := browsertest.Listen(t)
	log := testLogger(t)
	s, err := tenant.New(tenant.Config{DB: db, Clock: clock.System, Log: log, Origins: []string{origin}})
	if err != nil {
		t.Fatal(err)
	}
	c := console.New(console.Config{Clock: clock.System, Log: log, Menu: []string{"Today", "Access"}, SignIn: tenant.SignInPath,
		Authenticate: s.Authenticate, Holds: tenant.Holds, Visitor: tenant.Visitor})
	s.Pages(c)
	a := api.New(api.Config{Title: "Test", DB: db, Clock: clock.System, Log: log, Authenticate: s.Authenticate, Holds: tenant.Holds, Caller: tenant.Caller})
	s.Routes(a)
	mux := http.NewServeMux()
	a.Mount(mux)
	mux.Handle("/", c)
	browsertest.Serve(t, l, mux)

	link, err := s.SetupLink(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := browsertest.Open(t, origin)
	b.Authenticator()

	b.Go(link)
	b.Accessible()
	b.Shots("setup")
	b.Type("#f-organisation", "Acme Instruments GmbH")
	b.Type("#f-name", "Ada Lovelace")
	b.Click("button.primary")
	b.UntilPath("/")
	b.Accessible()
	b.Shots("today-new")

	b.Click(".visitor button")
	b.UntilPath("/sign-in")
	b.Accessible()
	b.Shots("sign-in")
	b.Go("/access")
	b.UntilPath("/sign-in")
	b.Click("button.primary")
	b.UntilPath("/access")
	if got := b.Text("#people tbody"); !strings.Contains(got, "Ada Lovelace") || !strings.Contains(got, "owner") {
		t.Errorf("people: %q", got)
	}

	b.Go("/access/solutions")
	b.Type("#f-solutions-name", "Vineyard Rhône")
	b.Click("#solutions button.primary")
	b.Until(`document.querySelector(".said")`)
	if got := b.Text(".said"); !strings.Contains(got, "Vineyard Rhône is there") {
		t.Errorf("said: %q", got)
	}
	// Into it: a customer, and in that a site; then the tree, and who is invited from a place in it.
	for _, name := range []string{"Port of Kiel", "Pier 7"} {
		b.Click("#solutions tbody tr:last-child a")
		b.Until(`document.querySelector("#about-h")`)
		b.Type("#f-solutions-name", name)
		b.Click("#solutions button.primary")
		b.Until(`document.querySelector(".said")`)
	}
	if got := b.Text(`main nav[aria-label="Where it stands"]`); !strings.Contains(got, "Vineyard Rhône / Port of Kiel") {
		t.Errorf("the way up: %q", got)
	}
	b.Click("#people details.add summary")
	b.Accessible()
	b.Shots("solution")
	b.Size(390, 844)
	if wide := browsertest.Value[bool](b, `document.documentElement.scrollWidth > 390`); wide {
		t.Error("the page of a solution is wider than a phone")
	}
	b.Accessible()
	b.Shot("solution-narrow")
	b.Size(1280, 860)
	b.Go("/access/solutions")
	if got := b.Text("#solutions tbody"); !strings.Contains(got, "Pier 7") || !strings.Contains(got, "Port of Kiel") {
		t.Errorf("the tree: %q", got)
	}
	b.Accessible()
	b.Shots("solutions")
	b.Go("/access")
	b.Click("#tokens details.add summary")
	b.Type("#f-tokens-name", "release pipeline")
	b.Click("#tokens button.primary")
	b.UntilPath("/access/tokens")
	if got := browsertest.Value[string](b, `document.querySelector(".secret").value`); !strings.HasPrefix(got, "ot_") || len(got) < 70 {
		t.Errorf("token: %q", got)
	}
	b.Accessible()
	b.Shots("token")

	b.Go("/access")
	b.Accessible()
	b.Shots("access")
	b.Go("/access/roles")
	b.Accessible()
	b.Shots("roles")
	b.Go("/")
	if got := b.Text(".calm"); !strings.Contains(got, "Nothing needs you today") {
		t.Errorf("Today: %q", got)
	}
	b.Accessible()
	b.Shots("today-calm")
	b.QuietLog()

	b.Go(link)
	if got := b.Text("main"); !strings.Contains(got, "This link does not work") {
		t.Errorf("a used link answers: %q", got)
	}
}
