// SPDX-License-Identifier: AGPL-3.0-only

package conform

import (
	"context"
	"fmt"
	"net/url"
	"slices"

	"github.com/openthings-platform/openthings/store"
)

// Item is one thing that a product needs before December 2027, and whether it is there.
type Item struct {
	Done bool   `json:"done"`
	Text string `json:"text"`
	Href string `json:"href" doc:"The page where it is done"`
}

// Readiness lists what this stage needs of a product. It states what is recorded, never that the product conforms.
func (s *Service) Readiness(ctx context.Context, tenant, product string) ([]Item, error) {
	var c Classified
	var r Route
	var d Draft
	var release string
	var x Screened
	if err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		if c, err = classified(tx, tenant, product); err != nil {
			return err
		}
		if r, err = s.route(tx, tenant, product); err != nil {
			return err
		}
		if d, err = draft(tx, tenant, product); err != nil {
			return err
		}
		if release, err = newestBilled(tx, tenant, product); err != nil || release == "" {
			return err
		}
		x, err = s.screened(tx, tenant, product, release)
		return err
	}); err != nil {
		return nil, err
	}
	list, err := s.whole(ctx, tenant, product)
	if err != nil {
		return nil, err
	}
	end, err := s.SupportEnd(ctx, tenant, product)
	if err != nil {
		return nil, err
	}
	reviewed := 0
	for _, e := range list {
		if e.State == "current" {
			reviewed++
		}
	}
	short := len(endings(product, list, end))
	at := "/products/" + url.PathEscape(product)
	register := "/components?product=" + url.QueryEscape(product)
	items := []Item{
		{c.Version > 0 && c.Confirmed.Version > 0, "The class is decided, and a second person has confirmed it", at + "/conformity"},
		{r.Stands, "A conformity route is chosen that the class permits today", at + "/conformity#route"},
		{d.Sealed.Version > 0 && len(d.Due) == 0, fmt.Sprintf("The risk assessment is sealed with all %d rows, and no review of it is due", len(d.Rows)), at + "/risk"},
		{len(list) > 0 && reviewed == len(list), fmt.Sprintf("Each component of the newest release is reviewed (%d of %d)", reviewed, len(list)), register},
		{len(list) > 0 && short == 0, "No component's support is known to end before the product's", register},
	}
	if release != "" && x.Placed {
		items = append(items, Item{x.Version > 0 && !x.Blocks(), "It is signed whether the newest release is a substantial modification", "/releases/" + url.PathEscape(release) + "/modification"})
	}
	return slices.Clip(items), nil
}
