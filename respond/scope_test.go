// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"
	"testing"

	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/tenant"
)

// TestListsOfSomeProducts: whoever works for some products finds the signals, cases and drills of those alone.
func TestListsOfSomeProducts(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		h.declared(t)
		if _, err := h.StartDrill(ann, h.product, AEV, "a log of a break-in", false); err != nil {
			t.Fatal(err)
		}
		other, err := h.cfg.Products.Create(t.Context(), product.Product{Tenant: maker, Name: "Bell", Model: "b1"}, "per_ann")
		if err != nil {
			t.Fatal(err)
		}
		whose := func(products ...string) context.Context {
			a := tenant.Actor{ID: "per_pat", Kind: tenant.KindPerson, Tenant: maker}
			for _, p := range products {
				a.Grants = append(a.Grants, tenant.Grant{Role: tenant.ProductSecurityOfficer, Tenant: maker, Product: p})
			}
			return tenant.WithActor(context.Background(), a)
		}
		for name, c := range map[string]struct {
			who  context.Context
			want int
		}{"its product and two more": {whose("prd_x", h.product, other.ID), 1}, "another product": {whose(other.ID), 0}, "none": {whose(), 0}} {
			sigs, err := h.Signals(c.who, "", 10)
			if err != nil || len(sigs) != c.want {
				t.Errorf("%s: %d signals, %v", name, len(sigs), err)
			}
			for _, open := range []bool{true, false} {
				if cs, err := h.Cases(c.who, open, "", 10); err != nil || len(cs) != c.want {
					t.Errorf("%s, open %v: %d cases, %v", name, open, len(cs), err)
				}
			}
			if ds, err := h.Drills(c.who, "", 10); err != nil || len(ds) != c.want {
				t.Errorf("%s: %d drills, %v", name, len(ds), err)
			}
		}
	})
}
