// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"context"
	"slices"
	"time"
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

// Promised is the published support of a unit that was made on a day: that of the placement cohort that
// had begun by then, or of the first. False says that none was published.
func (s *Service) Promised(ctx context.Context, tenant, product, revision string, made time.Time) (d Declaration, ok bool, err error) {
	cs, err := s.Cohorts(ctx, tenant, product)
	if err != nil {
		return d, false, err
	}
	day := dayOf(made)
	for _, c := range cs {
		if c.Revision != revision || c.Public == nil {
			continue
		}
		// The latest one that began by then; units that were made before the first began are of the first.
		first, best := c.Public.FirstPlaced, d.FirstPlaced
		if !ok || first <= day && (first > best || best > day) || first > day && best > day && first < best {
			d, ok = c.Public.Declaration, true
		}
	}
	return d, ok, nil
}
