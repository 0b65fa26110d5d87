// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

// TestNoNewUnitAfterSupportEnded: the line makes no unit whose support has ended unless somebody gave leave, and a device
// in the field renews as ever.
func TestNoNewUnitAfterSupportEnded(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		st, _ := h.station("B1", 20, 20)
		idevid, unit := h.unit(st, "FIELD")
		if code, m := h.claim(unit.Claim); code != 201 {
			t.Fatal(code, m)
		}
		h.ldevid(idevid)
		ctx, boss := t.Context(), tenant.Actor{ID: owner.ID, Kind: tenant.KindPerson, Tenant: ten}
		rev, err := h.products.Revision(ctx, ten, h.revision)
		h.must(err)
		cs, err := h.products.Cohorts(ctx, ten, rev.Product)
		h.must(err)
		d := cs[0].Draft
		d.SupportEnd = product.Month(h.clock.Now().AddDate(0, 2, 0).Format("2006-01"))
		d.Justification, d.ExpectedUse, d.Factors, d.SecuritySupport, d.UpdatePolicy, d.DecidedBy, d.ApprovedBy = "sold for one fair", 1, map[string]string{"users": "x"}, "x", "x", "Ann", "Bo"
		_, err = h.products.Prepare(ctx, ten, cs[0].ID, d, owner.ID)
		h.must(err)
		c, err := h.products.Publish(ctx, ten, cs[0].ID, boss)
		h.must(err)
		make := func(serial string) (int, string) {
			code, _, body := h.line(st, wire.LineRequest{Serial: serial, CSR: csrPEM(t, newKey(t))})
			return code, body
		}
		if code, body := make("IN-TIME"); code != 200 {
			t.Fatalf("while it is supported: %d %s", code, body)
		}
		h.clock.Set(c.Public.End().Add(time.Second))
		st, _ = h.station("B2", 20, 20)
		if code, body := make("TOO-LATE"); code != 403 || !strings.Contains(body, product.RuleEnded) {
			t.Errorf("after the end: %d %s", code, body)
		}
		if code, body := h.enrol(idevid, "simpleenroll", csrFor(t, newKey(t), nil)); code != 200 {
			t.Errorf("a device in the field returns: %d %s", code, body)
		}
		_, err = h.products.AllowEnrol(ctx, ten, product.Leave{Revision: c.Revision, Reason: "spares under warranty", Until: h.clock.Now().Add(time.Hour), Actor: owner.ID})
		h.must(err)
		if code, body := make("SPARE"); code != 200 {
			t.Errorf("with leave: %d %s", code, body)
		}
	})
}
