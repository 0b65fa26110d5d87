// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/tenant"
)

// solutionsSeen are the solutions that whoever asks may see devices in, each before those that stand in it; work in the
// background, with nobody in ctx, sees all of them.
func (s *Service) solutionsSeen(ctx context.Context, t string) ([]tenant.Solution, error) {
	if s.cfg.Tenant == nil {
		return nil, nil
	}
	if _, asks := tenant.ActorFrom(ctx); !asks {
		return s.cfg.Tenant.Solutions(ctx, t)
	}
	return s.cfg.Tenant.SeenByStaff(ctx, tenant.DeviceRead)
}

// andBelow adds to ids of solutions those of all that lies below them.
func (s *Service) andBelow(ctx context.Context, t string, ids []string) ([]string, error) {
	if s.cfg.Tenant == nil {
		return ids, nil
	}
	tree, err := s.cfg.Tenant.Tree(ctx, t)
	out := slices.Clone(ids)
	for _, id := range ids {
		if id == "" {
			continue // what nobody has claimed
		}
		for _, sol := range tree.Below(id) {
			out = append(out, sol.ID)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), err
}

// solutionFacet draws the tree of solutions with the devices of each and below: the top, what is chosen, the way down to
// it, and what stands right in it.
func (s *Service) solutionFacet(f Filter, t tally, n names) facet {
	out := facet{Title: facetTitles["solution"]}
	count, parent := andAllBelow(t.by["solution"], n.tree), map[string]string{}
	for _, sol := range n.tree {
		parent[sol.ID] = sol.Parent
	}
	chosen := f.Chosen("solution")
	open := map[string]bool{"": true}
	for _, sol := range n.tree {
		if isChosen(chosen, sol) {
			for id := sol.ID; id != ""; id = parent[id] {
				open[id] = true
			}
		}
	}
	var rows []tenant.Solution
	for _, sol := range n.tree {
		if open[sol.Parent] && (count[sol.ID] > 0 || isChosen(chosen, sol)) {
			rows = append(rows, sol)
		}
	}
	for _, sol := range mostOf(rows, count, open) {
		_, ask := n.ask(n.solutions, sol.ID)
		ch := choice{Word: sol.Name, Level: sol.Depth, Here: isChosen(chosen, sol), Href: address(f.With("solution", ask)), ID: "n-solution-" + sol.ID}
		if ch.Here {
			ch.Href = address(f.Without("solution"))
		}
		if t.known {
			ch.N = counted(count[sol.ID], t.more)
		}
		out.Choices = append(out.Choices, ch)
	}
	if k := count[""]; k > 0 || slices.Contains(chosen, none) {
		ch := choice{Word: "not claimed", Level: 1, Here: slices.Contains(chosen, none), Href: address(f.With("solution", none)), ID: "n-solution-", N: counted(k, t.more)}
		if ch.Here {
			ch.Href = address(f.Without("solution"))
		}
		out.Choices = append(out.Choices, ch)
	}
	return out
}

// andAllBelow adds to the devices of each solution those of what lies below it. What stands in others comes after them.
func andAllBelow(devices map[string]int64, tree []tenant.Solution) map[string]int64 {
	count := maps.Clone(devices)
	for _, sol := range slices.Backward(tree) {
		if sol.Parent != "" {
			count[sol.Parent] += count[sol.ID]
		}
	}
	return count
}

func isChosen(chosen []string, sol tenant.Solution) bool {
	return slices.ContainsFunc(chosen, func(c string) bool { return c == sol.ID || strings.EqualFold(c, sol.Name) })
}

// mostOf keeps the rows that have most devices, and those that are open, in the order of the tree.
func mostOf(rows []tenant.Solution, count map[string]int64, open map[string]bool) []tenant.Solution {
	if len(rows) <= choicesMost {
		return rows
	}
	by := slices.SortedStableFunc(slices.Values(rows), func(a, b tenant.Solution) int { return cmp.Compare(count[b.ID], count[a.ID]) })
	kept := map[string]bool{}
	for _, sol := range by[:choicesMost] {
		kept[sol.ID] = true
	}
	return slices.DeleteFunc(rows, func(sol tenant.Solution) bool { return !kept[sol.ID] && !open[sol.ID] })
}

// suggested are the words of products that a visitor may be offered: the manufacturer's own people read all of them,
// others those of their own devices.
func suggested(ctx context.Context, options []console.Option, have map[string]int64) []console.Option {
	if tenant.Staff(ctx) {
		return options
	}
	return slices.DeleteFunc(slices.Clone(options), func(o console.Option) bool { return have[o.Value] == 0 })
}
