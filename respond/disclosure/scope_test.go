// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"context"
	"testing"

	"github.com/openthings-platform/openthings/tenant"
)

// TestReportsOfSomeProducts: whoever works for some products finds the reports about those alone, in both orders.
func TestReportsOfSomeProducts(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		about := h.sent(Intake{Product: h.product}).ID
		h.sent(Intake{}) // about a product that nobody named
		whose := func(products ...string) context.Context {
			a := tenant.Actor{ID: "per_pat", Kind: tenant.KindPerson, Tenant: maker}
			for _, p := range products {
				a.Grants = append(a.Grants, tenant.Grant{Role: tenant.ProductSecurityOfficer, Tenant: maker, Product: p})
			}
			return tenant.WithActor(context.Background(), a)
		}
		for _, open := range []bool{true, false} {
			for name, c := range map[string]struct {
				who  context.Context
				want int
			}{"its product and two more": {whose("prd_x", h.product, "prd_y"), 1}, "another product": {whose("prd_x"), 0}, "none": {whose(), 0}} {
				rs, err := h.Reports(c.who, open, "", 10)
				if err != nil || len(rs) != c.want || c.want == 1 && rs[0].ID != about {
					t.Errorf("%s, open %v: %d reports, %v", name, open, len(rs), err)
				}
			}
		}
	})
}
