// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"context"
	"slices"
)

// ItemRemoval is the row of Annex II about removing data and taking the product out of service (8(d)).
const ItemRemoval = annexII + ".11"

// Told is what users were told about an item of Annex II, in the first language that has it. Published is false while the
// product has no public page.
func (s *Service) Told(ctx context.Context, product, item string) (text string, published bool, err error) {
	p, err := s.page(ctx, product)
	if err != nil || p.Version == 0 {
		return "", false, err
	}
	for _, lang := range Languages {
		if i := slices.IndexFunc(p.Texts[lang], func(i Item) bool { return i.ID == item && !i.Absent }); i >= 0 {
			return p.Texts[lang][i].Text, true, nil
		}
	}
	return "", true, nil
}

// Page is the newest published user information of a product of the tenant; version 0 while none was published.
func (s *Service) Page(ctx context.Context, tenant, product string) (Page, error) {
	if _, err := s.Get(ctx, tenant, product); err != nil {
		return Page{}, err
	}
	return s.page(ctx, product)
}
