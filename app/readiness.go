// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"context"
	"fmt"

	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/tenant"
)

// reporting is what rooms beside respond ask for before the first 24 hours begin: somebody who is called, a place where
// finders report, and of each product what an early warning says of it.
func (h *house) reporting(ctx context.Context, t string) ([]respond.Ready, error) {
	_, called, err := h.oncall.Now(ctx, t)
	if err != nil {
		return nil, err
	}
	_, contact, err := h.desk.Contact(tenant.WithActor(ctx, tenant.System(t)))
	if err != nil {
		return nil, err
	}
	out := []respond.Ready{
		{Text: "Somebody is on call, with a deputy", Done: called, Href: "/on-call"},
		{Text: "Finders are told where to report", Done: contact, Href: "/disclosure/contact"},
	}
	products, err := h.product.List(ctx, t)
	if err != nil {
		return nil, err
	}
	class := h.caseFacts().Class
	for _, of := range []struct {
		text string
		has  func(p product.Product) (bool, error)
	}{
		{"The Member States in which each product is available are declared", func(p product.Product) (bool, error) {
			states, err := h.product.Availability(ctx, t, p.ID)
			return len(states) > 0, err
		}},
		{"The end of support of each product is published", func(p product.Product) (bool, error) {
			cs, err := h.product.Cohorts(ctx, t, p.ID)
			for _, c := range cs {
				if c.Public == nil {
					return false, err
				}
			}
			return len(cs) > 0, err
		}},
		{"Each product is classified, and a second person has confirmed it", func(p product.Product) (bool, error) {
			c, err := class(ctx, t, p.ID)
			return c != (respond.Class{}), err
		}},
	} {
		lacks, first := 0, ""
		for _, p := range products {
			has, err := of.has(p)
			if err != nil {
				return nil, err
			}
			if !has {
				if lacks++; first == "" {
					first = p.ID
				}
			}
		}
		r := respond.Ready{Text: of.text, Done: lacks == 0 && len(products) > 0, Href: "/products"}
		switch {
		case len(products) == 0:
			r.Note = "No product is described yet."
		case lacks > 0:
			r.Note, r.Href = fmt.Sprintf("Missing for %d of %d.", lacks, len(products)), "/products/"+first
		}
		out = append(out, r)
	}
	return out, nil
}
