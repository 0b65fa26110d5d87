// SPDX-License-Identifier: AGPL-3.0-only

package conform

import (
	"context"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// Register returns lines of the component register after the cursor: what the newest release of each product lists, or
// that of one product. The cursor is a component's name.
func (s *Service) Register(ctx context.Context, tenant, product, after string, limit int) (list []Entry, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		set, _, err := settings(tx, tenant)
		if err != nil {
			return err
		}
		if list, err = entries(tx, tenant, product, after, limit); err != nil {
			return err
		}
		reviews, err := allNewest[Component](tx, tenant, "", kindComponent)
		if err != nil {
			return err
		}
		by := map[string]record[Component]{}
		for _, x := range reviews {
			by[x.Key] = x
		}
		for i := range list {
			e := &list[i]
			if x, ok := by[e.Name]; ok {
				billed := e.Supplier
				e.Component, e.Review = x.Doc, x.Stamp
				if e.Supplier == "" {
					e.Supplier = billed
				}
			}
			e.judge(s.now(), set.Months)
		}
		return nil
	})
	return list, err
}

// maxRegister bounds what is read of the register at once, in lines.
const maxRegister = 100_000

// whole returns all lines of the register of a product, or of the tenant.
func (s *Service) whole(ctx context.Context, tenant, product string) ([]Entry, error) {
	return s.Register(ctx, tenant, product, "", maxRegister)
}

// Entry returns one line of the register, or problem.NotFound.
func (s *Service) Entry(ctx context.Context, tenant, name string) (Entry, error) {
	list, err := s.whole(ctx, tenant, "")
	if err != nil {
		return Entry{}, err
	}
	i := slices.IndexFunc(list, func(e Entry) bool { return e.Name == name })
	if i < 0 {
		return Entry{}, problem.NotFound("No bill of materials of a newest release names this component.")
	}
	return list[i], nil
}

// Review records what a person found out about a component that some bill of the tenant names.
func (s *Service) Review(ctx context.Context, tenant, name, actor string, c Component) (Entry, error) {
	if err := c.check(); err != nil {
		return Entry{}, err
	}
	if err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		ok, err := known(tx, tenant, name)
		if err != nil {
			return err
		}
		if !ok {
			return problem.NotFound("No bill of materials names this component.")
		}
		_, err = put(tx, place{tenant: tenant, kind: kindComponent, key: name}, c, actor, s.now())
		return err
	}); err != nil {
		return Entry{}, err
	}
	return s.Entry(ctx, tenant, name)
}

// SupportEnd is when support of the product ends: of the units that are supported longest; zero if none are declared.
func (s *Service) SupportEnd(ctx context.Context, tenant, product string) (end time.Time, err error) {
	cohorts, err := s.cfg.Products.Cohorts(ctx, tenant, product)
	for _, c := range cohorts {
		if d := c.Declared(); d.End().After(end) {
			end = d.End()
		}
	}
	return end, err
}

// Endings are the components of the product's newest release whose support ends before the product's.
func (s *Service) Endings(ctx context.Context, tenant, product string) ([]Ending, error) {
	end, err := s.SupportEnd(ctx, tenant, product)
	if err != nil {
		return nil, err
	}
	list, err := s.whole(ctx, tenant, product)
	return endings(product, list, end), err
}
