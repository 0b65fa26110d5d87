// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"cmp"
	"context"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/tenant"
)

// ends are what stages after product add to the calendar of ends, each within the reach of whoever asks.
func (h *house) ends() []func(context.Context) ([]product.EndDate, error) {
	return []func(context.Context) ([]product.EndDate, error){h.securityTxtEnds, h.componentEnds, h.authorityEnds}
}

// onDay is the day of an instant in UTC, as the calendar counts.
func onDay(t time.Time) product.Day { return product.Day(t.UTC().Format(time.DateOnly)) }

// securityTxtEnds are when the signed security.txt expire.
func (h *house) securityTxtEnds(ctx context.Context) (out []product.EndDate, err error) {
	if !tenant.Holds(ctx, string(tenant.CaseRead)) {
		return nil, nil
	}
	files, err := h.desk.SecurityTxts(ctx)
	if problem.Is(err, problem.KindForbidden) {
		return nil, nil // holds it for some products only
	}
	for _, f := range files {
		out = append(out, product.EndDate{Day: onDay(f.Expires), What: "security-txt", Text: "security.txt of " + cmp.Or(f.Host, "this platform") + " expires", Published: true, Href: "/disclosure/contact"})
	}
	return out, err
}

// componentEnds are when the support of components ends that products of a longer support rest on.
func (h *house) componentEnds(ctx context.Context) (out []product.EndDate, err error) {
	who, _ := tenant.ActorFrom(ctx)
	ps, err := h.product.List(ctx, who.Tenant)
	if err != nil {
		return nil, err
	}
	for _, p := range ps {
		if !tenant.Can(who, tenant.ProductRead, tenant.Thing{Tenant: p.Tenant, Product: p.ID}) {
			continue
		}
		es, err := h.conform.Endings(ctx, p.Tenant, p.ID)
		if problem.Is(err, problem.KindNotFound) {
			continue // nothing is promised, or nothing is released
		}
		if err != nil {
			return nil, err
		}
		for _, e := range es {
			out = append(out, product.EndDate{Day: onDay(e.Ends), What: "component-end", Text: p.Name + ": support of its component " + cmp.Or(e.Title, e.Component) + " ends", Product: p.ID, Href: "/products/" + p.ID})
		}
	}
	return out, nil
}

// authorityEnds are when the authorities that sign for devices end.
func (h *house) authorityEnds(ctx context.Context) (out []product.EndDate, err error) {
	if !tenant.Holds(ctx, string(tenant.IssuerRead)) {
		return nil, nil
	}
	all, err := h.identity.Authorities(ctx)
	for _, a := range all {
		switch a.Status {
		case identity.Active, identity.Retiring, identity.Standby:
			if !a.NotAfter.IsZero() {
				out = append(out, product.EndDate{Day: onDay(a.NotAfter), What: "authority-end", Text: "the authority " + a.ID + " ends", Published: true, Href: "/issuers"})
			}
		}
	}
	return out, err
}
