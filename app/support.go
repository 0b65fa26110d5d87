// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"context"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/update"
)

// running says what the units of a hardware revision run, by the releases of its product, and which release is the newest
// one published for that hardware.
func (h *house) running(ctx context.Context, tenant string, v product.Revision) (product.Fleet, error) {
	releases, err := h.update.List(ctx, tenant, v.Product)
	if err != nil {
		return product.Fleet{}, err
	}
	f := product.Fleet{Releases: []product.Running{}}
	var newest update.Release
	for _, r := range releases {
		if r.State == update.Published && slices.Contains(r.HW, v.Name) && r.Published.After(newest.Published) {
			newest = r
		}
	}
	f.Newest = newest.Version
	for _, r := range releases {
		by, err := h.fleet.Breakdown(ctx, tenant, []string{r.ID}, time.Time{}, "revision")
		if err != nil {
			return product.Fleet{}, err
		}
		if n := by[v.ID]; n > 0 {
			f.Releases = append(f.Releases, product.Running{Version: r.Version, Devices: n, Newest: r.ID == newest.ID})
		}
	}
	return f, nil
}
