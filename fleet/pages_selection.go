// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"encoding/csv"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

// selectionPage is some devices, and what can be done with them. Later stages add to it by the slot "selection", whose
// key is the filter.
type selectionPage struct {
	Filter   string
	Count    string
	One      bool
	Back     string
	Export   string
	Statics  []console.Option
	MayLabel bool
	MayGroup bool
	Typed    url.Values
	Slot     template.HTML
}

// Heading says how many there are.
func (p selectionPage) Heading() string {
	if p.One {
		return "1 device"
	}
	return p.Count + " devices"
}

func (s *Service) selectionPages(c *console.Console) {
	read, write := string(tenant.DeviceRead), string(tenant.GroupWrite)
	c.Page(console.Page{Path: "/fleet/selection", Title: "Selection", Menu: menu, Tab: tabDevices, Verb: read, FS: pagesFS, Template: "pages/selection.html",
		Load: func(r *http.Request) (any, error) {
			p, err := s.loadSelection(r)
			if err == nil {
				p.Slot = c.Slot("selection").Render(r, p.Filter)
			}
			return p, err
		}})
	c.Handle("GET /fleet/export", read, s.exportCSV)
	c.Form("/fleet/labels", write, func(r *http.Request) (string, error) {
		name, text := strings.TrimSpace(r.PostForm.Get("name")), strings.TrimSpace(r.PostForm.Get("value"))
		l := Labelling{Set: map[string]string{name: text}}
		if r.PostForm.Get("do") == "remove" {
			l = Labelling{Remove: []string{name}}
		}
		done, err := s.LabelAll(r.Context(), r.PostForm.Get("filter"), l)
		if err != nil {
			return "", err
		}
		console.Say(r, console.Plural(done.Changed, "device", "devices")+" changed, of "+console.Count(done.Devices)+".")
		f, err := ParseFilter(r.PostForm.Get("back"))
		return address(f), err
	})
}

// selected reads which devices a form means: a filter, or devices that were ticked.
func selected(q url.Values) (Filter, error) {
	if ids := q["device"]; len(ids) > 0 {
		if len(ids) > maxFilterValues {
			return Filter{}, problem.Invalid("At most %d devices can be ticked.", maxFilterValues).Hint("Use a filter for more.")
		}
		t := &term{key: "id", of: "id"}
		for _, id := range ids {
			t.values = append(t.values, value{text: id})
		}
		return ParseFilter(Filter{t}.String())
	}
	return ParseFilter(q.Get("filter"))
}

func (s *Service) loadSelection(r *http.Request) (selectionPage, error) {
	ctx := r.Context()
	t := tenant.MustTenant(ctx)
	who, _ := tenant.ActorFrom(ctx)
	f, err := selected(r.URL.Query())
	if err != nil {
		return selectionPage{}, err
	}
	n, err := s.count(ctx, t, f)
	if err != nil {
		return selectionPage{}, err
	}
	p := selectionPage{Filter: f.String(), Count: counted(n.Devices, n.More), One: n.Devices == 1, Back: address(f), MayLabel: tenant.Anywhere(who, tenant.GroupWrite),
		MayGroup: tenant.Can(who, tenant.GroupWrite, tenant.Thing{Tenant: t}), Typed: console.Typed(r), Export: "/fleet/export?" + url.Values{"filter": {f.String()}}.Encode()}
	if p.MayGroup {
		groups, err := groupsOf(ctx, s.cfg.DB, t, "", maxGroups)
		if err != nil {
			return p, err
		}
		for _, g := range groups {
			if g.Filter == "" {
				p.Statics = append(p.Statics, console.Option{Value: g.ID, Word: g.Name})
			}
		}
	}
	return p, nil
}

// exportCSV writes the devices of a filter as a table, page by page.
func (s *Service) exportCSV(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	t := tenant.MustTenant(ctx)
	f, err := selected(r.URL.Query())
	if err != nil {
		return err
	}
	n := s.names(ctx, t)
	out := csv.NewWriter(w)
	begun := false
	err = s.each(ctx, tenant.DeviceRead, t, f, func(ds []identity.Device) error {
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "text/csv; charset=utf-8")
			w.Header().Set("Content-Disposition", `attachment; filename="devices.csv"`)
			if err := out.Write([]string{"id", "serial", "product", "solution", "state", "online", "last_seen", "release", "labels"}); err != nil {
				return err
			}
		}
		dressed, err := s.dress(ctx, t, ds)
		if err != nil {
			return err
		}
		for _, d := range dressed {
			row := s.row(ctx, n, d)
			seen, online := "", "no"
			if d.Presence.LastSeen != nil {
				seen = d.Presence.LastSeen.Format("2006-01-02T15:04:05Z")
			}
			if d.Presence.Online {
				online = "yes"
			}
			var labels []string
			for _, name := range slices.Sorted(maps.Keys(d.Labels)) {
				labels = append(labels, name+"="+d.Labels[name])
			}
			if err := out.Write([]string{d.ID, harmless(d.Serial), harmless(row.ProductName), harmless(row.SolutionName), string(d.State), online, seen, harmless(row.ReleaseName), harmless(strings.Join(labels, " "))}); err != nil {
				return err
			}
		}
		out.Flush()
		return out.Error()
	})
	if err == nil && !begun {
		return problem.NotFound("No device matches.")
	}
	return err
}

// harmless keeps a spreadsheet from taking a text for a formula.
func harmless(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}
