// SPDX-License-Identifier: AGPL-3.0-only

package inform

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

// TestTellUsersInTheBrowser adds a contact, drafts from a case, sends, and reads the proof and the reader's own page, on a wide
// screen, on a phone and on paper.
func TestTellUsersInTheBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a browser")
	}
	h := alone(t)
	id := h.cased("CVE-2026-1")
	l, origin := browsertest.Listen(t)
	who, _ := tenant.ActorFrom(ann)
	c := console.New(console.Config{Clock: h.hand, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Menu: []string{"Today", "Cases", "Tell users", "Law"}, Holds: tenant.Holds,
		Authenticate: func(r *http.Request) (context.Context, error) { return tenant.WithActor(r.Context(), who), nil }, Visitor: func(context.Context) string { return "Ann" }})
	h.cases.Pages(c)
	h.Pages(c)
	browsertest.Serve(t, l, c)
	b := browsertest.Open(t, origin)
	look := func(shot string) {
		t.Helper()
		b.Accessible()
		b.Shots(shot)
	}
	b.Go("/inform")
	look("inform-none")
	b.Go("/contacts")
	look("inform-contacts-none")
	b.Type("#f-name", "Anna Berg")
	b.Type("#f-address", "anna@buyer.example")
	b.Click("form[action='/contacts'] button")
	b.Until(`document.querySelector("tbody a") !== null`)
	look("inform-contacts")
	b.Click("tbody a")
	b.Until(`location.pathname.startsWith("/contacts/con_")`)
	look("inform-contact")

	b.Go("/cases/" + id)
	b.Click("form[action$='/tell'] button")
	b.Until(`location.pathname.startsWith("/inform/cpn_")`)
	look("inform-draft")
	b.Click("form[action$='/send'] button")
	b.Until(`document.querySelector("figure.bar") !== null`)
	h.pass()
	cs, err := h.Campaigns(ann, id, "", 2)
	h.must(err)
	if len(cs) != 1 || cs[0].State != Sent || !strings.Contains(cs[0].Texts["en"].Text, "A shell was opened on three sensors.") {
		t.Fatalf("%+v", cs)
	}
	b.Go("/inform/" + cs[0].ID)
	look("inform-sent")
	b.Go("/cases/" + id)
	look("inform-case")
	b.Go("/inform")
	look("inform")
	code, err := h.readCode(h.proof(cs[0].ID).Deliveries[0].ID)
	h.must(err)
	b.Go("/told/" + code)
	look("inform-told")
	b.Click("form button")
	b.Until(`document.querySelector("[role=status]") !== null`)
	if h.proof(cs[0].ID).States[string(Read)] != 1 {
		t.Error("the button said nothing")
	}
}
