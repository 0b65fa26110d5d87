// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// Bounds of groups.
const (
	maxGroups   = 500     // of a tenant
	maxMembers  = 100_000 // of a static group
	maxNote     = 200     // characters
	usesNamed   = 5       // how many of those that use a group a refusal names
	countAtMost = 10_000  // how far the devices of a filter are counted
)

// MaxSerials is how many serial numbers one change of members names at most.
const MaxSerials = 1000

var groupName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,47}$`)

// Group is a set of devices with a name: a dynamic one is its filter, a static one its members.
type Group struct {
	ID      string    `json:"id"`
	Tenant  string    `json:"-"`
	Name    string    `json:"name" doc:"As filters name it: group:NAME"`
	Note    string    `json:"note,omitempty" doc:"What it is for"`
	Filter  string    `json:"filter,omitempty" doc:"Of a dynamic group; a static one has none"`
	Members int64     `json:"-"`
	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"`
}

// Use is something that names a group.
type Use struct {
	Kind string `json:"kind" doc:"group, job or alarm rule"`
	ID   string `json:"id"`
	Name string `json:"name"`
	Href string `json:"-"` // its page
}

// GroupUses says what of a later stage names the group.
type GroupUses func(ctx context.Context, g Group) ([]Use, error)

// UsedBy asks a later stage too before a group is renamed or removed. Names says whether a filter names it.
func (s *Service) UsedBy(ask GroupUses) { s.uses = append(s.uses, ask) }

func (g *Group) check() error {
	if !groupName.MatchString(g.Name) {
		return problem.Invalid("%q cannot be the name of a group.", g.Name).Hint("A name is at most 48 of a-z 0-9 . _ and -, and begins with a letter or a digit.").At("body.name")
	}
	if len([]rune(g.Note)) > maxNote {
		return problem.Invalid("A note is at most %d characters.", maxNote).At("body.note")
	}
	if g.Filter == "" {
		return nil
	}
	f, err := ParseFilter(g.Filter)
	if err != nil {
		return err
	}
	if f.Empty() {
		return problem.Invalid("The filter selects every device.").At("body.filter").Hint("Say what the devices of the group have in common, such as state:commissioned.")
	}
	g.Filter = f.String()
	return nil
}

// lookThrough refuses a filter that names what does not exist, or the group itself by some way round.
func (s *Service) lookThrough(ctx context.Context, g Group) error {
	if g.Filter == "" {
		return nil
	}
	f, err := ParseFilter(g.Filter)
	if err != nil {
		return err
	}
	q := newQuery(g.Tenant, f, s.cfg.Clock.Now())
	return s.lookUp(ctx, q, f.root, []string{g.ID})
}

// CreateGroup makes a group; without a filter it is static and empty.
func (s *Service) CreateGroup(ctx context.Context, g Group) (Group, error) {
	g.Tenant = tenant.MustTenant(ctx)
	if err := tenant.Require(ctx, tenant.GroupWrite, tenant.Thing{Tenant: g.Tenant}); err != nil {
		return Group{}, err
	}
	if err := g.check(); err != nil {
		return Group{}, err
	}
	g.ID = store.NewID("grp")
	g.Created = store.Time(store.Millis(s.cfg.Clock.Now()))
	g.Updated = g.Created
	if err := s.lookThrough(ctx, g); err != nil {
		return Group{}, err
	}
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		n, err := countGroups(tx, g.Tenant)
		if err != nil {
			return err
		}
		if n >= maxGroups {
			return problem.Conflict("There are %d groups already.", n).Hint("Remove one that is not used any more.")
		}
		if err := insertGroup(tx, g); err != nil {
			return err
		}
		return s.groupLeaf(ctx, tx, g, "group.created", map[string]any{"name": g.Name, "filter": g.Filter})
	})
	return g, err
}

// ChangeGroup writes a group's name, note and filter. A dynamic group stays one, and a static one too.
func (s *Service) ChangeGroup(ctx context.Context, id string, change func(*Group)) (Group, error) {
	t := tenant.MustTenant(ctx)
	if err := tenant.Require(ctx, tenant.GroupWrite, tenant.Thing{Tenant: t}); err != nil {
		return Group{}, err
	}
	before, err := groupNamed(ctx, s.cfg.DB, t, id)
	if err != nil {
		return Group{}, err
	}
	g := before
	change(&g)
	if err := g.check(); err != nil {
		return Group{}, err
	}
	if (g.Filter == "") != (before.Filter == "") {
		return Group{}, problem.Invalid("A dynamic group stays dynamic, and a static one static.").At("body.filter").Hint("Make a new group.")
	}
	if g == before {
		return g, nil
	}
	if err := s.lookThrough(ctx, g); err != nil {
		return Group{}, err
	}
	if g.Name != before.Name {
		if err := s.unused(ctx, before, "renamed"); err != nil {
			return Group{}, err
		}
	}
	g.Updated = store.Time(store.Millis(s.cfg.Clock.Now()))
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := updateGroup(tx, g); err != nil {
			return err
		}
		return s.groupLeaf(ctx, tx, g, "group.changed", map[string]any{"name": g.Name, "filter": g.Filter, "was": before.Name, "was_filter": before.Filter})
	})
	return g, err
}

// RemoveGroup takes a group away that nothing names any more. Its devices stay.
func (s *Service) RemoveGroup(ctx context.Context, id string) error {
	t := tenant.MustTenant(ctx)
	if err := tenant.Require(ctx, tenant.GroupWrite, tenant.Thing{Tenant: t}); err != nil {
		return err
	}
	g, err := groupNamed(ctx, s.cfg.DB, t, id)
	if err != nil {
		return err
	}
	if err := s.unused(ctx, g, "removed"); err != nil {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := deleteGroup(tx, t, g.ID); err != nil {
			return err
		}
		return s.groupLeaf(ctx, tx, g, "group.removed", map[string]any{"name": g.Name, "filter": g.Filter})
	})
}

// unused refuses while something names the group.
func (s *Service) unused(ctx context.Context, g Group, done string) error {
	uses, err := s.Uses(ctx, g)
	if err != nil || len(uses) == 0 {
		return err
	}
	names := make([]string, 0, usesNamed)
	for _, u := range uses[:min(len(uses), usesNamed)] {
		names = append(names, "the "+u.Kind+" "+u.Name)
	}
	if more := len(uses) - usesNamed; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return problem.Conflict("The group %s is used by %s and cannot be %s.", g.Name, strings.Join(names, ", "), done).Hint("Change or end what uses it first.")
}

// Uses lists what names the group: other groups, and what later stages keep.
func (s *Service) Uses(ctx context.Context, g Group) ([]Use, error) {
	groups, err := groupsOf(ctx, s.cfg.DB, g.Tenant, "", maxGroups)
	if err != nil {
		return nil, err
	}
	uses := []Use{}
	for _, other := range groups {
		if other.ID != g.ID && Names(other.Filter, g) {
			uses = append(uses, Use{"group", other.ID, other.Name, "/groups/" + other.ID})
		}
	}
	for _, ask := range s.uses {
		more, err := ask(ctx, g)
		if err != nil {
			return nil, err
		}
		uses = append(uses, more...)
	}
	return uses, nil
}

// Names says whether a filter names the group.
func Names(filter string, g Group) bool {
	f, err := ParseFilter(filter)
	if err != nil || f.root == nil {
		return false
	}
	return slices.ContainsFunc(terms(f.root), func(t *term) bool {
		return t.of == "group" && slices.ContainsFunc(t.values, func(v value) bool { return v.text == g.Name || v.text == g.ID })
	})
}

// terms lists the terms of e.
func terms(e expr) (out []*term) {
	switch e := e.(type) {
	case all:
		for _, part := range e {
			out = append(out, terms(part)...)
		}
	case some:
		for _, part := range e {
			out = append(out, terms(part)...)
		}
	case not:
		return terms(e.of)
	case *term:
		return []*term{e}
	}
	return out
}

// GroupName is what people call the group.
func (s *Service) GroupName(ctx context.Context, tenantID, id string) (string, error) {
	g, err := groupNamed(ctx, s.cfg.DB, tenantID, id)
	return g.Name, err
}

// Membership is a change of a static group: who comes or goes, by filter, by serial number or by id.
type Membership struct {
	Filter  string   `json:"filter,omitempty" maxLength:"2000" doc:"All devices of this filter"`
	Serials []string `json:"serials,omitempty" maxItems:"1000" doc:"Devices with these serial numbers"`
	Product string   `json:"product,omitempty" maxLength:"64" doc:"Of the serial numbers, where two products have the same"`
	Devices []string `json:"devices,omitempty" maxItems:"1000" doc:"Devices with these ids"`
	Remove  bool     `json:"remove,omitempty" doc:"Take them out; otherwise they are added"`
}

// Members is what a change of a static group did.
type Members struct {
	Bulk
	Unknown []string `json:"unknown,omitempty" doc:"Serial numbers and ids that no device has, or that you may not read"`
}

// Add puts two parts of one change together.
func (m *Members) Add(part Members) {
	m.Devices += part.Devices
	m.Changed += part.Changed
	m.Unknown = append(m.Unknown, part.Unknown...)
}

// FirstColumn reads serial numbers from a list, or from the first column of a table in CSV.
func FirstColumn(text string) (out []string) {
	for line := range strings.Lines(text) {
		cell, _, _ := strings.Cut(line, ",")
		cell, _, _ = strings.Cut(cell, ";")
		if cell = strings.Trim(strings.TrimSpace(cell), `"`); cell != "" && !strings.EqualFold(cell, "serial") {
			out = append(out, cell)
		}
	}
	return out
}

// ChangeMembers adds devices to a static group, or takes them out. A change by filter goes in steps, as LabelAll does.
func (s *Service) ChangeMembers(ctx context.Context, id string, m Membership) (out Members, err error) {
	t := tenant.MustTenant(ctx)
	if err := tenant.Require(ctx, tenant.GroupWrite, tenant.Thing{Tenant: t}); err != nil {
		return out, err
	}
	g, err := groupNamed(ctx, s.cfg.DB, t, id)
	if err != nil {
		return out, err
	}
	if g.Filter != "" {
		return out, problem.Conflict("The group %s is dynamic: its filter says who belongs to it.", g.Name).Hint("Change the filter, or make a static group.")
	}
	f, wanted, err := m.filter()
	if err != nil {
		return out, err
	}
	found := map[string]int{}
	err = s.each(ctx, tenant.DeviceRead, t, f, func(ds []identity.Device) error {
		ids := make([]string, len(ds))
		for i, d := range ds {
			ids[i] = d.ID
			found[d.Serial]++
			found[d.ID]++
			if len(m.Serials) > 0 && found[d.Serial] > 1 {
				return problem.Conflict("More than one product has a device with the serial number %s.", d.Serial).At("body.product").Hint("Say which product the serial numbers belong to.")
			}
		}
		n, err := s.changeMembers(ctx, g, ids, m.Remove)
		out.Devices += len(ds)
		out.Changed += n
		return err
	})
	for _, w := range wanted {
		if found[w] == 0 {
			out.Unknown = append(out.Unknown, w)
		}
	}
	return out, err
}

// filter selects whom the change is about; wanted are the serial numbers or ids that should be among them.
func (m Membership) filter() (f Filter, wanted []string, err error) {
	named := 0
	for _, there := range []bool{m.Filter != "", len(m.Serials) > 0, len(m.Devices) > 0} {
		if there {
			named++
		}
	}
	if named != 1 {
		return f, nil, problem.Invalid("Name the devices by one of filter, serials and devices.").At("body")
	}
	if m.Filter != "" {
		f, err = ParseFilter(m.Filter)
		return f, nil, err
	}
	t := &term{key: "serial", of: "serial"}
	if wanted = m.Serials; len(m.Devices) > 0 {
		t.key, t.of, wanted = "id", "id", m.Devices
	}
	for _, w := range wanted {
		t.values = append(t.values, value{text: w, quoted: true})
	}
	f = Filter{t}
	if m.Product != "" {
		f = f.And(Filter{&term{key: "product", of: "product", values: []value{{text: m.Product, quoted: true}}}})
	}
	return f, wanted, nil
}

var errTooManyMembers = errors.New("fleet: too many members")

func (s *Service) changeMembers(ctx context.Context, g Group, ids []string, remove bool) (changed int, err error) {
	err = s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
		var touched []string
		for _, id := range ids {
			n, err := setMember(tx, g, id, remove)
			if err != nil {
				return err
			}
			if n == 1 {
				touched = append(touched, id)
			}
		}
		if changed = len(touched); changed == 0 {
			return nil
		}
		by := int64(changed)
		if remove {
			by = -by
		}
		if err := addMembers(tx, g, by); err != nil {
			return err
		}
		return s.groupLeaf(ctx, tx, g, "group.members", map[string]any{"name": g.Name, "devices": touched, "removed": remove})
	})
	if errors.Is(err, errTooManyMembers) {
		return 0, problem.Conflict("A static group has at most %d devices.", maxMembers).Hint("Make a dynamic group of a label, which has no such limit.")
	}
	return changed, err
}

func (s *Service) groupLeaf(ctx context.Context, tx *store.Tx, g Group, kind string, data map[string]any) error {
	who, _ := tenant.ActorFrom(ctx)
	return audit.Append(tx, audit.Entry{Tenant: g.Tenant, Actor: who.ID, Kind: kind, Subject: g.ID, Data: data})
}

// Counted is a number of devices that is not counted to its end.
type Counted struct {
	Devices int64 `json:"devices" doc:"How many devices belong to it, among those that you may read"`
	More    bool  `json:"more,omitempty" doc:"There are more: counting ended there"`
}

// count counts the devices of a filter that whoever asks may read, up to countAtMost.
func (s *Service) count(ctx context.Context, t string, f Filter) (c Counted, err error) {
	page, ok, err := s.narrowed(ctx, tenant.DeviceRead, t, f, identity.Filter{Limit: countAtMost + 1})
	if err != nil || !ok {
		return c, err
	}
	n, err := s.cfg.Identity.Tally(ctx, t, page)
	if err != nil {
		return c, err
	}
	c.Devices = n[0].Devices
	if c.Devices > countAtMost {
		c.Devices, c.More = countAtMost, true
	}
	return c, nil
}
