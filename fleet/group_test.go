// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// as is a context in which somebody of the house asks.
func (h *house) as(name string) context.Context {
	return tenant.WithActor(h.t.Context(), tenant.Actor{ID: "per_" + name, Kind: tenant.KindPerson, Tenant: "ten", Grants: people[name]})
}

// serials are the devices that a filter selects for the owner.
func (h *house) serials(filter string) string {
	h.t.Helper()
	ds, err := h.Select(h.as("owner"), "ten", filter, "", 1000)
	must(h.t, err)
	var out []string
	for _, d := range ds {
		out = append(out, d.Serial)
	}
	return strings.Join(out, " ")
}

// leaves are the kinds of entries about a subject, the oldest first.
func (h *house) leaves(subject string) (kinds []string) {
	h.t.Helper()
	rows, err := h.cfg.DB.Query(h.t.Context(), `SELECT kind FROM audit_entry WHERE tenant = 'ten' AND subject = $1 ORDER BY id`, subject)
	kinds, err = store.Collect(rows, err, func(r *sql.Rows) (kind string, err error) { return kind, r.Scan(&kind) })
	must(h.t, err)
	return kinds
}

func TestLabels(t *testing.T) {
	h := newHouse(t)
	owner := h.as("owner")
	got, err := h.Label(owner, h.ids[0], Labelling{Set: map[string]string{"site": "ghent", "pole": "17"}})
	if err != nil || !maps.Equal(got, map[string]string{"site": "ghent", "pole": "17"}) {
		t.Fatalf("%v, %v", got, err)
	}
	got, err = h.Label(owner, h.ids[0], Labelling{Set: map[string]string{"site": "kiel"}, Remove: []string{"pole", "never"}})
	if err != nil || !maps.Equal(got, map[string]string{"site": "kiel"}) {
		t.Fatalf("%v, %v", got, err)
	}
	done, err := h.LabelAll(owner, "sn-00", Labelling{Set: map[string]string{"site": "kiel"}})
	if err != nil || done != (Bulk{10, 9}) {
		t.Errorf("by filter: %+v, %v", done, err)
	}
	if got := h.serials("label.site:kiel SN-001"); got != "SN-001" {
		t.Errorf("the label selects %q", got)
	}
	if kinds := h.leaves(h.ids[0]); !slices.Equal(kinds, []string{"device.manufactured", "device.labelled", "device.labelled"}) {
		t.Errorf("entries about the device: %v", kinds)
	}
	if kinds := h.leaves("ten"); !slices.Equal(kinds, []string{"device.labelled"}) {
		t.Errorf("entries about the tenant: %v", kinds)
	}
	// Nothing to change is no entry.
	if done, err := h.LabelAll(owner, "sn-00", Labelling{Set: map[string]string{"site": "kiel"}}); err != nil || done != (Bulk{10, 0}) || len(h.leaves("ten")) != 1 {
		t.Errorf("again: %+v, %v", done, err)
	}
	many := Labelling{Set: map[string]string{}}
	for i := range MaxLabels {
		many.Set[fmt.Sprintf("l%d", i)] = "x"
	}
	for what, l := range map[string]Labelling{"nothing": {}, "a name": {Set: map[string]string{"Site": "x"}}, "an empty value": {Set: map[string]string{"a": ""}}, "a line": {Set: map[string]string{"a": "b\nc"}},
		"too many": many, "both": {Set: map[string]string{"a": "b"}, Remove: []string{"a"}}, "too long": {Set: map[string]string{"a": strings.Repeat("x", 65)}}} {
		if _, err := h.Label(owner, h.ids[0], l); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := h.Label(h.as("customer"), h.ids[0], Labelling{Set: map[string]string{"a": "b"}}); !problem.Is(err, problem.KindForbidden) {
		t.Errorf("a customer labels: %v", err)
	}
	if done, err := h.LabelAll(h.as("customer"), "", Labelling{Set: map[string]string{"a": "b"}}); err != nil || done.Devices != 0 {
		t.Errorf("a customer labels all: %+v, %v", done, err)
	}
}

func TestGroups(t *testing.T) {
	h := newHouse(t)
	must(t, h.flush(t.Context()))
	owner := h.as("owner")
	make := func(name, filter string) (Group, error) {
		return h.CreateGroup(owner, Group{Name: name, Filter: filter})
	}
	pilot, err := make("pilot", "")
	must(t, err)
	first, err := make("first", "group:pilot  -online:yes")
	must(t, err)
	if first.Filter != "group:pilot -online:yes" {
		t.Errorf("the filter is kept as %q", first.Filter)
	}
	change := func(m Membership) string {
		done, err := h.ChangeMembers(owner, "pilot", m)
		must(t, err)
		return fmt.Sprint(done.Changed, " of ", done.Devices, " ", done.Unknown)
	}
	for _, c := range []struct {
		m    Membership
		want string
	}{
		{Membership{Serials: []string{"SN-000", "SN-001", "SN-404"}}, "2 of 2 [SN-404]"},
		{Membership{Devices: []string{h.ids[1], h.ids[2]}}, "1 of 2 []"},
		{Membership{Filter: "sn-00"}, "7 of 10 []"},
		{Membership{Filter: "sn-005,x or sn-006", Remove: true}, "1 of 1 []"},
		{Membership{Filter: "sn-009", Remove: true}, "1 of 1 []"},
	} {
		if got := change(c.m); got != c.want {
			t.Errorf("%+v: %s, want %s", c.m, got, c.want)
		}
	}
	if got := h.serials("group:first"); got != "SN-001 SN-002 SN-003 SN-004 SN-005 SN-007 SN-008" {
		t.Errorf("the group of a group selects %s", got)
	}
	if g, err := groupNamed(t.Context(), h.cfg.DB, "ten", "pilot"); err != nil || g.Members != 8 {
		t.Errorf("%d members, %v", g.Members, err)
	}
	if kinds := h.leaves(pilot.ID); len(kinds) != 6 || kinds[0] != "group.created" || kinds[5] != "group.members" {
		t.Errorf("entries: %v", kinds)
	}
	if page, err := h.Select(h.as("customer"), "ten", "group:pilot", "", 100); err != nil || len(page) != 3 {
		t.Errorf("a customer finds %d of the group, %v", len(page), err)
	}
	// What cannot be.
	_, itself := h.ChangeGroup(owner, "first", func(g *Group) { g.Filter = "group:first" })
	round, err := make("round", "group:first")
	must(t, err)
	_, circle := h.ChangeGroup(owner, "first", func(g *Group) { g.Filter = "-group:round" })
	_, static := h.ChangeGroup(owner, "pilot", func(g *Group) { g.Filter = "online:yes" })
	_, twice := make("pilot", "")
	_, everything := make("everything", " ")
	_, name := make("Über uns", "online:yes")
	_, unknown := make("x", "group:pilots")
	_, dynamic := h.ChangeMembers(owner, "first", Membership{Filter: "online:yes"})
	_, byTwo := h.ChangeMembers(owner, "pilot", Membership{Filter: "online:yes", Serials: []string{"a"}})
	_, renamed := h.ChangeGroup(owner, "pilot", func(g *Group) { g.Name = "other" })
	_, stranger := h.CreateGroup(h.as("customer"), Group{Name: "mine", Filter: "online:yes"})
	for what, c := range map[string]struct {
		err  error
		want string
	}{
		"itself": {itself, "The group first asks for itself"}, "circle": {circle, "asks for itself"}, "static": {static, "a static one static"}, "everything": {everything, "selects every device"}, "twice": {twice, "There is a group pilot already"},
		"name": {name, "cannot be the name"}, "unknown": {unknown, "Did you mean group:pilot?"}, "dynamic": {dynamic, "its filter says who belongs"}, "two ways": {byTwo, "by one of"},
		"renamed": {renamed, "is used by the group first and cannot be re"}, "removed": {h.RemoveGroup(owner, "pilot"), "is used by the group first and cannot be re"}, "a customer": {stranger, "do not let you"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, c.err, c.want)
		}
	}
	for _, g := range []string{round.Name, "first", "pilot"} {
		must(t, h.RemoveGroup(owner, g))
	}
	if _, err := h.Select(owner, "ten", "group:pilot", "", 1); !problem.Is(err, problem.KindInvalid) {
		t.Errorf("a group that is gone: %v", err)
	}
}

// Who belonged to a filter when the walk began, and still does, is seen once, whoever comes and goes meanwhile.
func TestS19_PagesOfAFilterAreStable(t *testing.T) {
	houses(t, func(h *house) {
		h.furnish()
		owner := h.as("owner")
		_, err := h.LabelAll(owner, "", Labelling{Set: map[string]string{"site": "ghent"}})
		must(t, err)
		seen := map[string]int{}
		step := 0
		for after := ""; ; step++ {
			ds, err := h.Select(owner, "ten", "label.site:ghent", after, 7)
			must(t, err)
			for _, d := range ds {
				seen[d.ID]++
				after = d.ID
			}
			if len(ds) < 7 {
				break
			}
			must(t, h.cfg.DB.Write(t.Context(), func(tx *store.Tx) error { // before and behind the walk
				for _, id := range []string{"dev_0" + fmt.Sprint(step), "dev_z" + fmt.Sprint(step)} {
					if _, err := h.cfg.Identity.Register(tx, identity.Device{ID: id, Tenant: "ten", Product: h.prod.ID, Serial: id}, "per_x"); err != nil {
						return err
					}
					if err := putLabels(tx, "ten", id, Labelling{Set: map[string]string{"site": "ghent"}}, nil); err != nil {
						return err
					}
				}
				return nil
			}))
			_, err = h.Label(owner, ds[0].ID, Labelling{Remove: []string{"site"}}) // it was seen already
			must(t, err)
		}
		for _, id := range h.ids {
			if seen[id] != 1 {
				t.Errorf("%s was seen %d times", id, seen[id])
			}
		}
		for id, n := range seen {
			if n != 1 {
				t.Errorf("%s was seen %d times", id, n)
			}
		}
		if step < 8 {
			t.Errorf("the walk had %d pages", step)
		}
	})
}

// What people do with a selection, without any script.
func TestSelection(t *testing.T) {
	h := newHouse(t)
	must(t, h.flush(t.Context()))
	_, page := h.get(h.pages, "owner", "/fleet/selection?filter=sn-00")
	for _, want := range []string{"10 devices</h1>", "<code>sn-00</code>", `action="/fleet/labels"`, `href="/fleet/export?filter=sn-00"`} {
		if !strings.Contains(page, want) {
			t.Errorf("the selection lacks %s: %s", want, page)
		}
	}
	_, page = h.get(h.pages, "owner", "/fleet/selection?device="+h.ids[0]+"&device="+h.ids[1])
	if !strings.Contains(page, "2 devices</h1>") || !strings.Contains(page, "id:"+h.ids[0]+","+h.ids[1]) {
		t.Errorf("ticked devices: %s", page)
	}
	if _, page := h.get(h.pages, "customer", "/fleet/selection?filter=sn-00"); !strings.Contains(page, "3 devices</h1>") || strings.Contains(page, `action="/fleet/labels"`) {
		t.Errorf("a customer's selection: %s", page)
	}
	post := func(path string, form url.Values) string {
		t.Helper()
		r := httptest.NewRequest("POST", path, strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("X-Test-Actor", "owner")
		w := httptest.NewRecorder()
		h.pages.ServeHTTP(w, r)
		if w.Code != 303 {
			t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		}
		return w.Header().Get("Location")
	}
	if to := post("/fleet/labels", url.Values{"filter": {"sn-00"}, "back": {"sn-00"}, "name": {"site"}, "value": {"ghent"}, "do": {"set"}}); to != "/fleet?filter=sn-00" {
		t.Errorf("after labelling: %s", to)
	}
	to := post("/groups", url.Values{"name": {"pilot"}, "kind": {"static"}, "filter": {"sn-00"}})
	post(to+"/members", url.Values{"serials": {"serial;site\nSN-001;x\nSN-002;y\n\n"}, "do": {"add"}})
	post("/fleet/members", url.Values{"group": {"pilot"}, "filter": {"serial:SN-003"}, "do": {"add"}})
	if got := h.serials("group:pilot label.site:ghent"); got != "SN-001 SN-002 SN-003" {
		t.Errorf("the group has %s", got)
	}
	for path, want := range map[string][]string{
		"/fleet?filter=group:pilot": {`<a class="chip" href="/fleet" aria-current="true">pilot`, `<b id="fleet-count">3</b>`, "site <b>ghent</b>"},
		"/groups":                   {">pilot</a>", "static", `>3</a>`},
		to:                          {"pilot</h1>", "nothing", `action="` + to + `/members"`},
		"/devices/" + h.ids[0]:      {"Connections", "Ended because"},
	} {
		_, page := h.get(h.pages, "owner", path)
		for _, w := range want {
			if !strings.Contains(page, w) {
				t.Errorf("%s lacks %s: %s", path, w, page)
			}
		}
	}
	code, table := h.get(h.pages, "owner", "/fleet/export?filter=group:pilot")
	if lines := strings.Split(strings.TrimSpace(table), "\n"); code != 200 || len(lines) != 4 || lines[0] != "id,serial,product,solution,state,online,last_seen,release,labels" || !strings.HasSuffix(lines[2], ",SN-002,Lamp <1>,sol_1,manufactured,no,,v1,site=ghent") {
		t.Errorf("the table (%d): %s", code, table)
	}
	if code, _ := h.get(h.pages, "customer", "/groups"); code != 403 {
		t.Errorf("a customer sees the tenant's groups: %d", code)
	}
	post(to+"/remove", nil)
}
