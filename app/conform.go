// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"context"

	"github.com/openthings-platform/openthings/product"
)

// productChecks are what the stage of conformity needs of a product, for the list on the product's page.
func (h *house) productChecks(ctx context.Context, tenant, id string) ([]product.Check, error) {
	items, err := h.conform.Readiness(ctx, tenant, id)
	out := make([]product.Check, len(items))
	for i, x := range items {
		out[i] = product.Check{Text: x.Text, Done: x.Done, Href: x.Href}
	}
	return out, err
}
