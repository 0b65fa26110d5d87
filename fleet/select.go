// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"fmt"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/tenant"
)

// Select returns the tenant's devices that match the filter, in the order of their ids, at most limit after the id
// after. Whoever asks in ctx gets what it may read; work in the background, with nobody in ctx, gets the tenant's
// whole fleet.
func (s *Service) Select(ctx context.Context, tenantID, filter, after string, limit int) ([]identity.Device, error) {
	f, err := ParseFilter(filter)
	if err != nil {
		return nil, err
	}
	return s.find(ctx, tenant.DeviceRead, tenantID, f, identity.Filter{After: after, Limit: limit})
}

// SelectFor is Select for work that goes on in somebody's name: it returns what who reaches with v.
func (s *Service) SelectFor(ctx context.Context, who tenant.Actor, v tenant.Verb, filter, after string, limit int) ([]identity.Device, error) {
	f, err := ParseFilter(filter)
	if err != nil {
		return nil, err
	}
	return s.find(tenant.WithActor(ctx, who), v, who.Tenant, f, identity.Filter{After: after, Limit: limit})
}

// Matches says whether the device is among those that Select returns for the filter.
func (s *Service) Matches(ctx context.Context, tenantID, filter, device string) (bool, error) {
	f, err := ParseFilter(filter)
	if err != nil {
		return false, err
	}
	ds, err := s.find(ctx, tenant.DeviceRead, tenantID, f, identity.Filter{IDs: []string{device}, Limit: 1})
	return len(ds) == 1, err
}

// CheckFilter says what is wrong with a filter that is to be kept: its form, or a name that nothing of the tenant has.
func (s *Service) CheckFilter(ctx context.Context, tenantID, filter string) error {
	f, err := ParseFilter(filter)
	if err != nil {
		return err
	}
	_, err = s.prepare(ctx, tenantID, f)
	return err
}

// find is the one way from a filter to devices: its names are looked up, and whoever asks is held to what its grants
// reach with the verb.
func (s *Service) find(ctx context.Context, v tenant.Verb, t string, f Filter, page identity.Filter) ([]identity.Device, error) {
	page, ok, err := s.narrowed(ctx, v, t, f, page)
	if err != nil || !ok {
		return nil, err
	}
	return s.cfg.Identity.List(ctx, t, page)
}

// narrowed puts the filter and the reach of whoever asks into page; false: nothing can be within its reach.
func (s *Service) narrowed(ctx context.Context, v tenant.Verb, t string, f Filter, page identity.Filter) (identity.Filter, bool, error) {
	if who, ok := tenant.ActorFrom(ctx); ok {
		if who.Tenant != t {
			return page, false, nil
		}
		whole, products, solutions := tenant.Scope(who, v)
		if !whole {
			if len(products)+len(solutions) == 0 {
				return page, false, nil
			}
			page.Products, page.Solutions = products, solutions
		}
	}
	if f.Empty() {
		return page, true, nil
	}
	q, err := s.prepare(ctx, t, f)
	if err != nil {
		return page, false, err
	}
	if len(page.IDs) == 0 {
		if err := s.weigh(ctx, q); err != nil {
			return page, false, err
		}
	}
	page.Where = q.where
	return page, true, nil
}

// prepare looks up what the filter names.
func (s *Service) prepare(ctx context.Context, t string, f Filter) (*query, error) {
	q := newQuery(t, f, s.cfg.Clock.Now())
	q.outer = !tenant.Staff(ctx)
	if f.root == nil {
		return q, nil
	}
	return q, s.lookUp(ctx, q, f.root, nil)
}

// weigh finds the terms that few devices fulfil. SQLite keeps no statistics by itself, and a planner that takes a rare
// release for a common one walks the whole fleet.
func (s *Service) weigh(ctx context.Context, q *query) error {
	for _, t := range required(q.filter.root) {
		var args []any
		rows := q.rare(t, func(v any) string { args = append(args, v); return fmt.Sprintf("$%d", len(args)) })
		if rows == "" {
			continue
		}
		n, err := countUpTo(ctx, s.cfg.DB, rows, args, fewAtMost+1)
		if err != nil {
			return err
		}
		q.few[t] = n <= fewAtMost
	}
	return nil
}
