// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/update"
)

// caseFacts are what the other rooms tell of a product, for the drafts of a report.
func (h *house) caseFacts() respond.Facts {
	return respond.Facts{
		Releases: func(ctx context.Context, tenant, product string) ([]respond.Release, error) {
			all, err := h.update.List(ctx, tenant, product)
			all = slices.DeleteFunc(all, func(r update.Release) bool { return r.Published.IsZero() })
			slices.SortStableFunc(all, func(a, b update.Release) int { return a.Published.Compare(b.Published) })
			out := make([]respond.Release, len(all))
			for i, r := range all {
				out[i] = respond.Release{ID: r.ID, Version: r.Version}
			}
			return out, err
		},
		Countries: func(ctx context.Context, tenant string, releases []string) (map[string]int64, error) {
			return h.fleet.Breakdown(ctx, tenant, releases, time.Time{}, "country")
		},
		Class: func(ctx context.Context, tenant, product string) (c respond.Class, err error) {
			x, err := h.conform.Classified(ctx, tenant, product)
			if err != nil || x.Confirmed.Version == 0 {
				return c, err // what one person alone says of the class is in no report
			}
			c.Type, c.Class, _ = strings.Cut(x.Class.Name(), ", ")
			c.Class = strings.ToUpper(c.Class[:min(1, len(c.Class))]) + c.Class[min(1, len(c.Class)):]
			if of, ok := law.CategoryOf(x.Category); ok {
				c.Category = of.Title
			}
			return c, nil
		},
		Advice: func(ctx context.Context, _, product, vulnerability string) (respond.Advice, error) {
			list, err := h.advisory.List(ctx, "", 200)
			for _, a := range list {
				if a.Product == product && a.Vulnerability == vulnerability {
					return respond.Advice{Action: a.Action, Source: "advisory " + a.Tracking}, err
				}
			}
			return respond.Advice{}, err
		},
	}
}
