// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/tenant"
)

// GroupOut is a group with how many devices belong to it and what names it.
type GroupOut struct {
	Group
	Kind string `json:"kind" enum:"dynamic,static"`
	Counted
	UsedBy []Use `json:"used_by" doc:"What names it"`
}

// GroupLine is a group in a list.
type GroupLine struct {
	Group
	Kind string `json:"kind" enum:"dynamic,static"`
}

// kind says dynamic or static.
func (g Group) kind() string {
	if g.Filter == "" {
		return "static"
	}
	return "dynamic"
}

type groupIn struct {
	Name   string `json:"name" maxLength:"48" doc:"As filters name it"`
	Note   string `json:"note,omitempty" maxLength:"200" doc:"What it is for"`
	Filter string `json:"filter,omitempty" maxLength:"2000" doc:"Makes it dynamic; without one it is static and empty"`
}

type groupChange struct {
	Name   *string `json:"name,omitempty" maxLength:"48"`
	Note   *string `json:"note,omitempty" maxLength:"200"`
	Filter *string `json:"filter,omitempty" maxLength:"2000"`
}

func (s *Service) groupRoutes(a *api.API) {
	const stage = "fleet"
	read, write := string(tenant.DeviceRead), string(tenant.GroupWrite)
	api.Handle(a, api.Op{ID: "label-device", Method: "PATCH", Path: "/v1/devices/{id}/labels", Verb: write, Stage: stage,
		Summary: "Set and remove labels of a device"}, func(ctx context.Context, in *struct {
		ID   string `path:"id"`
		Body Labelling
	}) (*api.Out[map[string]string], error) {
		labels, err := s.Label(ctx, in.ID, in.Body)
		return api.One(labels), err
	})
	api.Handle(a, api.Op{ID: "label-devices", Method: "POST", Path: "/v1/devices/labels", Verb: write, Stage: stage,
		Summary: "Set and remove labels of all devices of a filter", Doc: "It goes in steps; after an error the same again does the rest."}, func(ctx context.Context, in *struct {
		Body struct {
			Filter string `json:"filter" maxLength:"2000" doc:"Which devices; the empty filter is every device"`
			Labelling
		}
	}) (*api.Out[Bulk], error) {
		done, err := s.LabelAll(ctx, in.Body.Filter, in.Body.Labelling)
		return api.One(done), err
	})
	api.Handle(a, api.Op{ID: "list-groups", Method: "GET", Path: "/v1/groups", Verb: read, Stage: stage, Summary: "List groups of devices"},
		func(ctx context.Context, in *struct{ api.Paging }) (*api.List[GroupLine], error) {
			after, err := in.After(a)
			if err != nil {
				return nil, err
			}
			t := tenant.MustTenant(ctx)
			if err := tenant.Require(ctx, tenant.DeviceRead, tenant.Thing{Tenant: t}); err != nil {
				return nil, err
			}
			groups, err := groupsOf(ctx, s.cfg.DB, t, after, in.Size()+1)
			lines := make([]GroupLine, len(groups))
			for i, g := range groups {
				lines[i] = GroupLine{g, g.kind()}
			}
			return api.More(a, in.Paging, lines, func(g GroupLine) string { return g.Name }), err
		})
	api.Handle(a, api.Op{ID: "create-group", Method: "POST", Path: "/v1/groups", Verb: write, Stage: stage, Status: 201, Summary: "Make a group of devices"},
		func(ctx context.Context, in *struct{ Body groupIn }) (*api.Out[GroupOut], error) {
			g, err := s.CreateGroup(ctx, Group{Name: in.Body.Name, Note: in.Body.Note, Filter: in.Body.Filter})
			return s.groupOut(ctx, g, err)
		})
	api.Handle(a, api.Op{ID: "get-group", Method: "GET", Path: "/v1/groups/{id}", Verb: read, Stage: stage, Summary: "Read a group by name or id, with how many devices belong to it and what names it"},
		func(ctx context.Context, in *byIDIn) (*api.Out[GroupOut], error) {
			t := tenant.MustTenant(ctx)
			if err := tenant.Require(ctx, tenant.DeviceRead, tenant.Thing{Tenant: t}); err != nil {
				return nil, err
			}
			g, err := groupNamed(ctx, s.cfg.DB, t, in.ID)
			return s.groupOut(ctx, g, err)
		})
	api.Handle(a, api.Op{ID: "change-group", Method: "PATCH", Path: "/v1/groups/{id}", Verb: write, Stage: stage, Summary: "Change a group's name, note or filter"},
		func(ctx context.Context, in *struct {
			ID   string `path:"id"`
			Body groupChange
		}) (*api.Out[GroupOut], error) {
			g, err := s.ChangeGroup(ctx, in.ID, func(g *Group) {
				for _, c := range []struct {
					to   *string
					from *string
				}{{&g.Name, in.Body.Name}, {&g.Note, in.Body.Note}, {&g.Filter, in.Body.Filter}} {
					if c.from != nil {
						*c.to = *c.from
					}
				}
			})
			return s.groupOut(ctx, g, err)
		})
	api.Handle(a, api.Op{ID: "remove-group", Method: "DELETE", Path: "/v1/groups/{id}", Verb: write, Stage: stage, Status: 204,
		Summary: "Take a group away that nothing names; its devices stay"}, func(ctx context.Context, in *byIDIn) (*struct{}, error) {
		return nil, s.RemoveGroup(ctx, in.ID)
	})
	api.Handle(a, api.Op{ID: "change-group-members", Method: "POST", Path: "/v1/groups/{id}/members", Verb: write, Stage: stage,
		Summary: "Add devices to a static group, or take them out", Doc: "A change by filter goes in steps; after an error the same again does the rest."},
		func(ctx context.Context, in *struct {
			ID   string `path:"id"`
			Body Membership
		}) (*api.Out[Members], error) {
			done, err := s.ChangeMembers(ctx, in.ID, in.Body)
			return api.One(done), err
		})
}

func (s *Service) groupOut(ctx context.Context, g Group, err error) (*api.Out[GroupOut], error) {
	if err != nil {
		return nil, err
	}
	out := GroupOut{Group: g, Kind: g.kind()}
	if out.Counted, err = s.count(ctx, g.Tenant, g.filter()); err != nil {
		return nil, err
	}
	out.UsedBy, err = s.Uses(ctx, g)
	return api.One(out), err
}

// filter selects the group's devices.
func (g Group) filter() Filter {
	return Filter{&term{key: "group", of: "group", values: []value{{text: g.ID}}}}
}
