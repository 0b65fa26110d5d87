// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

// maxLookedUp bounds the conditions of a filter with those of all the groups it names, and so of these in turn.
const maxLookedUp = 200

// maxBelow bounds the solutions that those of a filter hold together: engines take so many values in one question.
const maxBelow = 12_000

// lookUp finds the ids behind the names in e, and the filters behind groups. through are the groups on the way here.
func (s *Service) lookUp(ctx context.Context, q *query, e expr, through []string) error {
	switch e := e.(type) {
	case all:
		return s.lookUpAll(ctx, q, e, through)
	case some:
		return s.lookUpAll(ctx, q, e, through)
	case not:
		return s.lookUp(ctx, q, e.of, through)
	}
	t := e.(*term)
	if q.terms++; q.terms > maxLookedUp {
		return problem.Invalid("The filter and the groups that it names have more than %d conditions together.", maxLookedUp).At("filter")
	}
	if t.of == "group" {
		return s.lookUpGroups(ctx, q, t, through)
	}
	if t.of == "batch" {
		return s.lookUpBatches(ctx, q, t)
	}
	list := s.words(t.of)
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
		case q.outer && t.of != "solution" && t.of != "owner":
			// An outsider reads no list of these names: what exists and what does not is the same to it, nothing.
		default:
			return unknown(t, v, words)
		}
	}
	if t.of == "solution" {
		if ids, err = s.andBelow(ctx, q.tenant, ids); err != nil {
			return err
		}
		if q.below += len(ids); q.below > maxBelow {
			return problem.Invalid("The filter names solutions with more than %d solutions in them.", maxBelow).At("filter")
		}
	}
	slices.Sort(ids)
	q.ids[t] = slices.Compact(ids)
	return nil
}

func (s *Service) lookUpAll(ctx context.Context, q *query, parts []expr, through []string) error {
	for _, part := range parts {
		if err := s.lookUp(ctx, q, part, through); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) lookUpGroups(ctx context.Context, q *query, t *term, through []string) error {
	for _, v := range t.values {
		g, err := groupNamed(ctx, s.cfg.DB, q.tenant, v.text)
		if problem.Is(err, problem.KindNotFound) && q.outer {
			continue
		}
		if problem.Is(err, problem.KindNotFound) {
			groups, err := groupsOf(ctx, s.cfg.DB, q.tenant, "", maxGroups)
			if err != nil {
				return err
			}
			var words []named
			for _, g := range groups {
				words = append(words, named{g.ID, []string{g.Name}})
			}
			return unknown(t, v, words)
		}
		if err != nil {
			return err
		}
		if g.Filter == "" {
			q.groups[t] = append(q.groups[t], member{id: g.ID})
			continue
		}
		if slices.Contains(through, g.ID) {
			return problem.Invalid("The group %s asks for itself.", g.Name).At("filter").Hint("Take group:%s out of its filter, or out of a group that the filter names.", g.Name)
		}
		f, err := ParseFilter(g.Filter)
		if err == nil {
			err = s.lookUp(ctx, q, f.root, append(slices.Clip(through), g.ID))
		}
		if err != nil {
			p := problem.Of(err)
			if p.Kind != problem.KindInvalid || len(through) > 0 {
				return err
			}
			return problem.Invalid("The group %s cannot be asked any more: %s", g.Name, p.Text).At("filter").Hint("%s", p.Help)
		}
		q.groups[t] = append(q.groups[t], member{filter: f.root})
	}
	return nil
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
	case "station":
		return s.stationWords
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
	sols, err := s.solutionsSeen(ctx, t)
	for _, so := range sols {
		out = append(out, named{so.ID, names(so)})
	}
	return out, err
}

// releaseWords are the releases that some device runs or ran; nobody can be on another.
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
	if t.of == "group" {
		return e.Hint("The groups are listed at /v1/groups.")
	}
	return e.Hint("Write its name or its id; %s:none finds devices without one.", t.key)
}
