// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"context"
	"net/url"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/evidence"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/vuln"
)

// unit is what the public page of a device says, by the code of its label.
func (h *house) unit(ctx context.Context, code string) (u evidence.Unit, err error) {
	d, err := h.enroll.Labelled(ctx, code)
	if err != nil {
		return u, err
	}
	u = evidence.Unit{Thing: tenant.Thing{Tenant: d.Tenant, Product: d.Product, Solution: d.Solution}, Device: d.ID, Zone: time.UTC}
	if u.Maker, err = h.manufacturer(ctx, d.Tenant); err != nil {
		return u, err
	}
	u.Product = h.productName(ctx, d.Tenant, d.Product)
	rev, err := h.product.Revision(ctx, d.Tenant, d.Revision)
	if err != nil && !problem.Is(err, problem.KindNotFound) {
		return u, err
	}
	u.Revision = rev.Name
	promise, ok, err := h.product.Promised(ctx, enroll.UnitOf(d))
	if err != nil {
		return u, err
	}
	if ok {
		u.SupportEnd, u.Zone = promise.End(), promise.Location()
	}
	if u.Remove, ok, err = h.product.Told(ctx, d.Product, product.ItemRemoval); err != nil {
		return u, err
	}
	if ok {
		u.About = pathOf(h.product.PublicURL(d.Product))
	}
	u.Report = "/security/" + d.Tenant
	told, err := h.advisory.Told(ctx, d.Tenant, d.Product)
	for _, a := range told {
		u.Advisories = append(u.Advisories, evidence.Notice{Title: a.Title, At: a.At, Href: pathOf(a.Page)})
	}
	return u, err
}

// runs is what a device runs, for its claimant. A device that has not reported yet is a problem of kind not-found.
func (h *house) runs(ctx context.Context, u evidence.Unit) (out evidence.Running, err error) {
	now, err := h.fleet.Running(ctx, u.Thing.Tenant, []string{u.Device})
	if err != nil {
		return out, err
	}
	r, err := h.update.Get(ctx, u.Thing.Tenant, now[u.Device])
	if err != nil {
		return out, err
	}
	out.Version = r.Version
	found, err := h.vuln.OpenFindings(ctx, u.Thing.Tenant, r.ID)
	if err != nil {
		return out, err
	}
	for _, f := range found {
		if f.Exploited && f.Status != vuln.NotAffected && f.Status != vuln.Fixed && !slices.Contains(out.Open, f.Group.Name) {
			out.Open = append(out.Open, f.Group.Name)
		}
	}
	all, err := h.update.List(ctx, u.Thing.Tenant, u.Thing.Product)
	newest := r
	for _, other := range all {
		if !other.Published.IsZero() && other.Withdrawn.IsZero() && other.SecurityVersion >= r.SecurityVersion && other.Published.After(newest.Published) && slices.Contains(other.HW, u.Revision) {
			newest = other
		}
	}
	if newest.ID != r.ID {
		out.Newest = newest.Version
	}
	return out, err
}

// pathOf is where this platform itself serves what the world finds under an address of it.
func pathOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Path
}
