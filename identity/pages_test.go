// SPDX-License-Identifier: AGPL-3.0-only

package identity_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// The card of a device that was revoked with its batch must not say that it only has to enrol.
func TestTheCardSaysWhoIsLockedOut(t *testing.T) {
	w := alone(t)
	who := tenant.Actor{Kind: tenant.KindPerson, ID: "per_a", Tenant: "ten_a", Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: "ten_a"}}}
	c := console.New(console.Config{Clock: w.clock, Log: slog.New(slog.DiscardHandler), Menu: []string{"Enrol", "Issuers"}, Holds: tenant.Holds, Visitor: func(context.Context) string { return "x" },
		Authenticate: func(r *http.Request) (context.Context, error) { return tenant.WithActor(r.Context(), who), nil }})
	w.Pages(c)
	card := func(device string) string {
		r := httptest.NewRequest("GET", "/devices/"+device, nil)
		return string(c.Slot("device").Render(r.WithContext(tenant.WithActor(r.Context(), who)), device))
	}
	born, _ := w.born("S1")
	if page := card(born.ID); !strings.Contains(page, "not enrolled") || strings.Contains(page, "locked out") {
		t.Errorf("a device from the line: %s", page)
	}
	d, _, ldevid := w.commissioned("S2")
	if page := card(d.ID); strings.Contains(page, "not enrolled") || strings.Contains(page, "locked out") {
		t.Errorf("a device at work: %s", page)
	}
	w.write(func(tx *store.Tx) error { return w.RevokeRow(tx, ldevid.Fingerprint) })
	if page := card(d.ID); !strings.Contains(page, "not enrolled") || strings.Contains(page, "locked out") {
		t.Errorf("a device that can enrol anew: %s", page)
	}
	w.write(func(tx *store.Tx) error { return w.Bar(tx, "ten_a", identity.ScopeBatch, d.Batch, "per_a", "leaked") })
	if _, err := w.BarStep(t.Context(), "ten_a", identity.ScopeBatch, d.Batch); err != nil {
		t.Fatal(err)
	}
	if page := card(d.ID); !strings.Contains(page, "locked out") || strings.Contains(page, "shows its birth certificate") {
		t.Errorf("a device that was revoked with its batch: %s", page)
	}
}
