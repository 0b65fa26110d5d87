// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

type groupRow struct {
	Group
	Kind    string
	Count   string // "–": it would have taken too long
	Devices string // address
}

type groupsPage struct {
	Groups   []groupRow
	MayWrite bool
	Typed    url.Values
}

type groupPage struct {
	groupRow
	Uses     []Use
	MayWrite bool
	Typed    url.Values
}

// Heading is the page's title.
func (p groupPage) Heading() string { return p.Name }

func (s *Service) groupPages(c *console.Console) {
	const tab = "Groups"
	read, write := string(tenant.DeviceRead), string(tenant.GroupWrite)
	c.Page(console.Page{Path: "/groups", Title: "Groups", Menu: menu, Tab: tab, TabOrder: 20, Verb: read, FS: pagesFS, Template: "pages/groups.html", Load: s.loadGroups})
	c.Page(console.Page{Path: "/groups/{id}", Title: "Group", Menu: menu, Tab: tab, Verb: read, FS: pagesFS, Template: "pages/group.html", Load: s.loadGroup})
	c.Form("/groups", write, func(r *http.Request) (string, error) {
		f := strings.TrimSpace(r.PostForm.Get("filter"))
		if r.PostForm.Get("kind") == "static" {
			f = ""
		} else if f == "" {
			return "", problem.Invalid("A dynamic group needs a filter.").At("filter").Hint("Write one such as state:commissioned, or make the group static.")
		}
		g, err := s.CreateGroup(r.Context(), Group{Name: strings.TrimSpace(r.PostForm.Get("name")), Note: strings.TrimSpace(r.PostForm.Get("note")), Filter: f})
		if err != nil {
			return "", err
		}
		console.Say(r, "The group "+g.Name+" is there.")
		return "/groups/" + g.ID, nil
	})
	c.Form("/groups/{id}", write, func(r *http.Request) (string, error) {
		g, err := s.ChangeGroup(r.Context(), r.PathValue("id"), func(g *Group) {
			g.Note = strings.TrimSpace(r.PostForm.Get("note"))
			if g.Filter != "" {
				g.Filter = strings.TrimSpace(r.PostForm.Get("filter"))
			}
		})
		if err != nil {
			return "", err
		}
		console.Say(r, "The group "+g.Name+" is changed.")
		return "/groups/" + g.ID, nil
	})
	c.Form("/groups/{id}/remove", write, func(r *http.Request) (string, error) {
		console.Say(r, "The group is removed; its devices stay.")
		return "/groups", s.RemoveGroup(r.Context(), r.PathValue("id"))
	})
	c.Form("/groups/{id}/members", write, s.postMembers)
	c.Form("/fleet/members", write, s.postMembers)
}

// postMembers takes devices into a static group or out of it: those of a filter, or serial numbers one on a line.
func (s *Service) postMembers(r *http.Request) (string, error) {
	id := r.PathValue("id")
	if id == "" {
		id = r.PostForm.Get("group")
	}
	m := Membership{Filter: strings.TrimSpace(r.PostForm.Get("filter")), Remove: r.PostForm.Get("do") == "remove"}
	serials := FirstColumn(r.PostForm.Get("serials"))
	if m.Filter == "" && len(serials) == 0 {
		return "", problem.Invalid("Write serial numbers, one on a line, or a filter.").At("serials")
	}
	parts := slices.Collect(slices.Chunk(serials, MaxSerials))
	if m.Filter != "" {
		parts = append(parts, nil)
	}
	var done Members
	for _, m.Serials = range parts {
		one, err := s.ChangeMembers(r.Context(), id, m)
		if err != nil {
			return "", err
		}
		done.Add(one)
	}
	word := "added"
	if m.Remove {
		word = "taken out"
	}
	said := console.Plural(done.Changed, "device", "devices") + " " + word + "."
	if n := len(done.Unknown); n > 0 {
		said += " Unknown: " + strings.Join(done.Unknown[:min(n, 5)], ", ")
		if n > 5 {
			said += " and " + console.Count(n-5) + " more"
		}
		said += "."
	}
	console.Say(r, said)
	return "/groups/" + url.PathEscape(id), nil
}

func (s *Service) loadGroups(r *http.Request) (any, error) {
	ctx := r.Context()
	t := tenant.MustTenant(ctx)
	who, _ := tenant.ActorFrom(ctx)
	if err := tenant.Require(ctx, tenant.DeviceRead, tenant.Thing{Tenant: t}); err != nil {
		return nil, err
	}
	groups, err := groupsOf(ctx, s.cfg.DB, t, "", maxGroups)
	if err != nil {
		return nil, err
	}
	p := groupsPage{MayWrite: tenant.Can(who, tenant.GroupWrite, tenant.Thing{Tenant: t}), Typed: console.Typed(r)}
	// Each dynamic group is a question of its own: together they may take as long as one page may.
	counting, cancel := context.WithTimeout(ctx, tallyTime)
	defer cancel()
	for _, g := range groups {
		row, err := s.groupRow(counting, g)
		if err != nil && counting.Err() == nil {
			return nil, err
		}
		p.Groups = append(p.Groups, row)
	}
	return p, nil
}

// groupRow is a group as people see it. One whose filter names what is gone is shown without a count.
func (s *Service) groupRow(ctx context.Context, g Group) (groupRow, error) {
	row := groupRow{Group: g, Kind: g.kind(), Count: "–", Devices: address(Filter{}.With("group", g.Name))}
	if g.Filter == "" {
		row.Count = console.Count(g.Members)
		return row, nil
	}
	n, err := s.tallied(ctx, Filter{}.With("group", g.ID))
	if problem.Is(err, problem.KindInvalid) {
		return row, nil
	}
	if err == nil {
		row.Count = orDash(n)
	}
	return row, err
}

func (s *Service) loadGroup(r *http.Request) (any, error) {
	ctx := r.Context()
	t := tenant.MustTenant(ctx)
	who, _ := tenant.ActorFrom(ctx)
	if err := tenant.Require(ctx, tenant.DeviceRead, tenant.Thing{Tenant: t}); err != nil {
		return nil, err
	}
	g, err := groupNamed(ctx, s.cfg.DB, t, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	p := groupPage{MayWrite: tenant.Can(who, tenant.GroupWrite, tenant.Thing{Tenant: t}), Typed: console.Typed(r)}
	if p.groupRow, err = s.groupRow(ctx, g); err != nil {
		return nil, err
	}
	p.Uses, err = s.Uses(ctx, g)
	return p, err
}
