// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"slices"
	"strings"

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
	return s.find(ctx, tenantID, f, identity.Filter{After: after, Limit: limit})
}

// Matches says whether the device is among those that Select returns for the filter.
func (s *Service) Matches(ctx context.Context, tenantID, filter, device string) (bool, error) {
	f, err := ParseFilter(filter)
	if err != nil {
		return false, err
	}
	ds, err := s.find(ctx, tenantID, f, identity.Filter{IDs: []string{device}, Limit: 1})
	return len(ds) == 1, err
}

// find is the one way from a filter to devices: its names are looked up, whoever asks is held to its grants.
func (s *Service) find(ctx context.Context, t string, f Filter, page identity.Filter) ([]identity.Device, error) {
	page, ok, err := s.narrowed(ctx, t, f, page)
	if err != nil || !ok {
		return nil, err
	}
	return s.cfg.Identity.List(ctx, t, page)
}

// narrowed puts the filter and the reach of whoever asks into page; false: nothing can be within its reach.
func (s *Service) narrowed(ctx context.Context, t string, f Filter, page identity.Filter) (identity.Filter, bool, error) {
	if who, ok := tenant.ActorFrom(ctx); ok {
		if who.Tenant != t {
			return page, false, nil
		}
		whole, products, solutions := tenant.Scope(who, tenant.DeviceRead)
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
	q := &query{filter: f, tenant: t, now: s.cfg.Clock.Now(), ids: map[*term][]string{}}
	if err := s.lookUp(ctx, q, f.root); err != nil {
		return page, false, err
	}
	page.Where = q.where
	return page, true, nil
}

// lookUp finds the ids behind the names in e.
func (s *Service) lookUp(ctx context.Context, q *query, e expr) (err error) {
	switch e := e.(type) {
	case all:
		for _, part := range e {
			err = cmpErr(err, s.lookUp(ctx, q, part))
		}
		return err
	case some:
		for _, part := range e {
			err = cmpErr(err, s.lookUp(ctx, q, part))
		}
		return err
	case not:
		return s.lookUp(ctx, q, e.of)
	}
	t := e.(*term)
	list := s.words(t.key)
	if list == nil {
		return nil
	}
	words, err := list(ctx, q.tenant)
	if err != nil {
		return err
	}
	ids := []string{}
	for _, v := range t.values {
		found := false
		for _, w := range words {
			if slices.ContainsFunc(w.names, func(n string) bool { return strings.EqualFold(n, v.text) }) {
				ids, found = append(ids, w.id), true
			}
		}
		switch {
		case found:
		case v.is(none):
			ids = append(ids, "")
		default:
			return unknown(t, v, words)
		}
	}
	slices.Sort(ids)
	q.ids[t] = slices.Compact(ids)
	return nil
}

func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// named is a thing that a filter may name.
type named struct {
	id    string
	names []string // the id among them
}

// words returns how the things that a key names are listed; nil: it takes no names.
func (s *Service) words(key string) func(ctx context.Context, tenant string) ([]named, error) {
	switch key {
	case "product":
		return s.productWords
	case "revision":
		return s.revisionWords
	case "solution":
		return func(ctx context.Context, t string) ([]named, error) {
			return s.solutionWords(ctx, t, func(so tenant.Solution) []string { return []string{so.ID, so.Name} })
		}
	case "owner":
		return func(ctx context.Context, t string) ([]named, error) {
			return s.solutionWords(ctx, t, func(so tenant.Solution) []string { return []string{so.Owner} })
		}
	case "release":
		return s.releaseWords
	}
	return nil
}

func (s *Service) productWords(ctx context.Context, t string) (out []named, err error) {
	ps, err := s.cfg.Product.List(ctx, t)
	for _, p := range ps {
		out = append(out, named{p.ID, []string{p.ID, p.Name, p.Model}})
	}
	return out, err
}

func (s *Service) revisionWords(ctx context.Context, t string) (out []named, err error) {
	ps, err := s.cfg.Product.List(ctx, t)
	if err != nil {
		return nil, err
	}
	for _, p := range ps {
		rs, err := s.cfg.Product.Revisions(ctx, t, p.ID)
		if err != nil {
			return nil, err
		}
		for _, r := range rs {
			out = append(out, named{r.ID, []string{r.ID, r.Name}})
		}
	}
	return out, nil
}

func (s *Service) solutionWords(ctx context.Context, t string, names func(tenant.Solution) []string) (out []named, err error) {
	if s.cfg.Tenant == nil {
		return nil, nil
	}
	sols, err := s.cfg.Tenant.Solutions(ctx, t)
	for _, so := range sols {
		out = append(out, named{so.ID, names(so)})
	}
	return out, err
}

// releaseWords are the releases that some device ran; nobody can be on another.
func (s *Service) releaseWords(ctx context.Context, t string) (out []named, err error) {
	ids, err := releasesSeen(ctx, s.cfg.DB, t)
	for _, id := range ids {
		out = append(out, named{id, []string{id, s.cfg.ReleaseName(ctx, t, id)}})
	}
	return out, err
}

// unknown says that nothing has the name, and what was perhaps meant.
func unknown(t *term, v value, words []named) error {
	var p parser
	e := p.fail(v.at, "There is no %s %q.", t.key, v.text)
	var names []string
	for _, w := range words {
		names = append(names, w.names...)
	}
	if near := nearest(v.text, names); near != "" {
		return e.Hint("Did you mean %s:%s?", t.key, value{text: near}.write(false))
	}
	return e.Hint("Write its name or its id; %s:none finds devices without one.", t.key)
}
