// SPDX-License-Identifier: AGPL-3.0-only

package tenant

import (
	"context"
	"net/http"
	"net/url"
	"slices"

	"github.com/openthings-platform/openthings/console"
)

// treeShown is how many solutions the page draws as a tree. Where there are more it lists what stands right in the
// place it looks at, as many a page.
const treeShown = 200

// solutionPages are the tree of solutions and its forms.
func (s *Service) solutionPages(c *console.Console) {
	c.Page(console.Page{Path: "/access/solutions", Title: "Solutions", Menu: "Access", Tab: "Solutions", TabOrder: 20, Verb: string(AccessRead), FS: pagesFS, Template: "pages/solutions.html", Load: s.solutionsPage})
	c.Step(console.Step{Order: 25, Title: "Make a solution", Text: "Where devices will serve: one deployment for one customer.", Href: "/access/solutions", Button: "Make a solution", Done: s.hasSolution})
	c.Form("/access/solutions", string(AccessWrite), func(r *http.Request) (string, error) {
		parent := r.PostFormValue("parent")
		sol, err := s.newSolution(r.Context(), parent, r.PostFormValue("name"), r.PostFormValue("owner"))
		console.Say(r, "Solution "+sol.Name+" is there.")
		return solutionPath(parent), err
	})
	c.Form("/access/solutions/{id}", string(AccessWrite), func(r *http.Request) (string, error) {
		id, name, owner, parent := r.PathValue("id"), r.PostFormValue("name"), r.PostFormValue("owner"), r.PostFormValue("parent")
		sol, err := s.change(r.Context(), id, Change{Name: &name, Owner: &owner, Parent: &parent})
		console.Say(r, "Solution "+sol.Name+" is changed.")
		return solutionPath(id), err
	})
}

// solutionPath is the page of one solution, or of the whole tree.
func solutionPath(id string) string {
	if id == "" {
		return "/access/solutions"
	}
	return "/access/solutions?" + url.Values{"at": {id}}.Encode()
}

type solutionsData struct {
	At       *Solution // nil: the top of what the visitor can see
	Trail    []Solution
	Rows     []solutionRow
	All      int // how many lie below the place
	Flat     bool
	Devices  int64 // at the place and below
	People   []Person
	Me       string
	Write    bool // may make solutions and give access here
	Change   bool // may name and move the place
	Places   []console.Option
	Pager    console.Pager
	Typed    url.Values
	counting bool
	choices
}

// Heading is the page's title.
func (d solutionsData) Heading() string {
	if d.At != nil {
		return d.At.Name
	}
	return "Solutions"
}

// Counted says whether the platform counts devices here.
func (d solutionsData) Counted() bool { return d.counting }

// Parent is the id of the place, "" at the top.
func (d solutionsData) Parent() string {
	if d.At != nil {
		return d.At.ID
	}
	return ""
}

type solutionRow struct {
	Solution
	Level   int // below the place, from 1
	Devices int64
	People  int
	Below   int
}

// Href is the page of the solution.
func (r solutionRow) Href() string { return solutionPath(r.ID) }

// Fleet is the list of its devices.
func (r solutionRow) Fleet() string { return fleetPath(r.ID) }

// fleetPath is the list of devices in a solution and below.
func fleetPath(id string) string {
	return "/fleet?" + url.Values{"filter": {"solution:" + id}}.Encode()
}

// Fleet is the list of the place's devices.
func (d solutionsData) Fleet() string { return fleetPath(d.Parent()) }

// Href is the page of a solution on the trail.
func (d solutionsData) Href(sol Solution) string { return solutionPath(sol.ID) }

func (s *Service) solutionsPage(r *http.Request) (any, error) {
	ctx, q := r.Context(), r.URL.Query()
	a, _ := ActorFrom(ctx)
	sols, err := s.Seen(ctx, AccessRead)
	if err != nil {
		return nil, err
	}
	d := solutionsData{Me: a.ID, Typed: console.Typed(r), All: len(sols)}
	here, below := Thing{Tenant: a.Tenant}, sols
	if id := q.Get("at"); id != "" {
		part := part(sols, id)
		if len(part) == 0 {
			return nil, errNoSolution(id)
		}
		d.At, below, here.Solution, d.All = &part[0], part[1:], id, len(part)-1
		d.Trail = trail(sols, *d.At)
		d.Change = Can(a, AccessWrite, here) && s.place(ctx, s.parentOf(ctx, id)) == nil
	}
	d.Write = Can(a, AccessWrite, here)
	d.choices = choicesFor(a, here)
	people, err := s.People(ctx, a)
	if err != nil {
		return nil, err
	}
	count, err := s.countBelow(ctx, a, sols)
	if err != nil {
		return nil, err
	}
	d.counting = count.devices != nil
	if d.At != nil {
		d.People = slices.DeleteFunc(people, func(p Person) bool {
			return !slices.ContainsFunc(p.Grants, func(g Grant) bool { return g.Solution == d.At.ID })
		})
		d.Devices = count.devices[d.At.ID]
	}
	if d.Change {
		d.Places = s.placesFor(a, sols, *d.At)
	}
	d.rows(below, q.Get("after"), count, people)
	return d, nil
}

// parentOf is what the solution stands in, as it is stored.
func (s *Service) parentOf(ctx context.Context, id string) string {
	sol, err := s.Solution(ctx, MustTenant(ctx), id)
	if err != nil {
		return id // it is gone; nobody may change it
	}
	return sol.Parent
}

// rows fills the table: all below as a tree, or where that is too long what stands right in the place, page by page.
func (d *solutionsData) rows(below []Solution, after string, count counted, people []Person) {
	top := 1
	if d.At != nil {
		top = d.At.Depth + 1
	}
	shown := below
	if d.Flat = len(below) > treeShown; d.Flat {
		shown = slices.DeleteFunc(slices.Clone(below), func(sol Solution) bool { return sol.Depth != top })
		if i := slices.IndexFunc(shown, func(sol Solution) bool { return sol.ID == after }); i >= 0 {
			shown, d.Pager.First = shown[i+1:], solutionPath(d.Parent())
		}
		if len(shown) > treeShown {
			v := url.Values{"after": {shown[treeShown-1].ID}}
			if d.At != nil {
				v.Set("at", d.At.ID)
			}
			shown, d.Pager.Next = shown[:treeShown], "/access/solutions?"+v.Encode()
		}
	}
	in := map[string]int{}
	for _, p := range people {
		for _, g := range p.Grants {
			in[g.Solution]++
		}
	}
	for _, sol := range shown {
		d.Rows = append(d.Rows, solutionRow{Solution: sol, Level: sol.Depth - top + 1, Devices: count.devices[sol.ID], People: in[sol.ID], Below: count.below[sol.ID]})
	}
}

// trail lists what the solution stands in, from the top of what is seen.
func trail(sols []Solution, at Solution) (out []Solution) {
	for at.Parent != "" {
		i := slices.IndexFunc(sols, func(sol Solution) bool { return sol.ID == at.Parent })
		if i < 0 {
			break
		}
		at = sols[i]
		out = append(out, at)
	}
	slices.Reverse(out)
	return out
}

// placesFor are where a can move the solution to, and where it stands.
func (s *Service) placesFor(a Actor, sols []Solution, at Solution) (out []console.Option) {
	if Can(a, AccessWrite, Thing{Tenant: a.Tenant}) {
		out = append(out, console.Option{Word: "right under the organisation"})
	}
	inside := map[string]bool{}
	for _, sol := range part(sols, at.ID) {
		inside[sol.ID] = true
	}
	for _, sol := range sols {
		if sol.ID == at.Parent || len(out) < offered && !inside[sol.ID] && sol.Depth < MaxDepth && Can(a, AccessWrite, Thing{Tenant: a.Tenant, Solution: sol.ID}) {
			out = append(out, console.Option{Value: sol.ID, Word: "in " + sol.Path})
		}
	}
	return out
}

// counted is what lies in each solution and below: devices, and further solutions.
type counted struct {
	devices map[string]int64 // nil: this platform does not count them
	below   map[string]int
}

// countBelow counts for the solutions that are seen, which stand each before those that stand in it.
func (s *Service) countBelow(ctx context.Context, a Actor, sols []Solution) (c counted, err error) {
	c.below = map[string]int{}
	if s.cfg.Devices != nil {
		if c.devices, err = s.cfg.Devices(ctx, a.Tenant); err != nil {
			return c, err
		}
	}
	for _, sol := range slices.Backward(sols) {
		if sol.Parent == "" {
			continue
		}
		c.below[sol.Parent] += c.below[sol.ID] + 1
		if c.devices != nil {
			c.devices[sol.Parent] += c.devices[sol.ID]
		}
	}
	return c, nil
}

// hasSolution says whether the visitor has a solution already.
func (s *Service) hasSolution(ctx context.Context) (bool, error) {
	sols, err := s.Seen(ctx, DeviceRead)
	return len(sols) > 0, err
}
