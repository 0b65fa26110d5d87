// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"context"
	"path"
	"time"

	"github.com/openthings-platform/openthings/notify"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/respond/advisory"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/csaf"
)

// publishedReleases are the releases of a product, with when each was published.
func (h *house) publishedReleases(ctx context.Context, tenant, product string) ([]advisory.Release, error) {
	all, err := h.update.List(ctx, tenant, product)
	var out []advisory.Release
	for _, r := range all {
		out = append(out, advisory.Release{ID: r.ID, Version: r.Version, Image: r.Image, File: path.Base(r.Path), Published: r.Published, Withdrawn: !r.Withdrawn.IsZero()})
	}
	return out, err
}

// holdEnded tells people that an advisory may be published now.
func holdEnded(_ *house, _ context.Context, e store.Event) (n notify.Notice, err error) {
	var x advisory.HoldEnded
	if err := e.Decode(&x); err != nil {
		return n, err
	}
	return notify.Notice{Title: "The hold of advisory " + x.Tracking + " has ended: " + x.Title, Text: "It was held back for this reason: " + x.Reason + " Publish it, or hold it back for a new reason until a new end.",
		Link: "/advisories/" + e.Subject, Data: x}, nil
}

// advisoryPublished tells people that users are told.
func advisoryPublished(h *house, ctx context.Context, e store.Event) (n notify.Notice, err error) {
	var x advisory.Published
	if err := e.Decode(&x); err != nil {
		return n, err
	}
	return notify.Notice{Title: "Advisory " + x.Tracking + " about " + x.Vulnerability + " in " + h.productName(ctx, e.Tenant, x.Product) + " is published", Link: "/advisories/" + e.Subject, Data: x}, nil
}

// publicAdvisory says where an advisory stands that everybody may read.
func (h *house) publicAdvisory(ctx context.Context, _, id string) (url string, since time.Time, err error) {
	a, err := h.advisory.Get(ctx, id)
	if err == nil && (a.Revision == 0 || a.TLP != csaf.TLPWhite) {
		err = problem.Conflict("Advisory %s is not published for everybody.", a.Tracking).At("advisory")
	}
	return a.URL, a.Initial, err
}

// tenantIDs lists all tenants.
func (h *house) tenantIDs(ctx context.Context) ([]string, error) {
	all, err := h.tenant.Tenants(ctx)
	ids := make([]string, len(all))
	for i, t := range all {
		ids[i] = t.ID
	}
	return ids, err
}
