// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"embed"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

const pageRows = 50

type fleetPage struct {
	Summary  *Summary // nil for visitors who see a part of the fleet only
	States   console.Bar
	Releases console.Bar
	Query    url.Values
	Facets   []facet
	Kept     []console.Option // what the search keeps of the filter
	Devices  []deviceRow
	Pager    console.Pager
}

// facet is one property that the list may be narrowed to.
type facet struct {
	Title   string
	Choices []choice
}

// choice is one value of a facet; choosing the one that is chosen takes it back.
type choice struct {
	Word, Href string
	N          string // how many devices; empty: not counted under this filter
	Here       bool
}

type deviceRow struct {
	DeviceOut
	ProductName, SolutionName, ReleaseName string
}

type devicePage struct {
	deviceRow
	LifeLine []console.Stage
	Revision string
	Support  time.Time // end of the support period
	Slot     template.HTML
}

type historyRow struct {
	Interval
	Name string
}

// Heading is the page's title.
func (p devicePage) Heading() string { return p.Serial }

// Pages mounts Fleet and the device's passport. /devices/{id} is shared with other stages: the slot "device".
func (s *Service) Pages(c *console.Console) {
	verb := string(tenant.DeviceRead)
	c.Page(console.Page{Path: "/fleet", Title: "Fleet", Menu: "Fleet", Verb: verb, FS: pagesFS, Template: "pages/fleet.html", Load: s.loadFleet})
	c.Page(console.Page{Path: "/devices/{id}", Title: "Device", Menu: "Fleet", Verb: verb, FS: pagesFS, Template: "pages/device.html",
		Load: func(r *http.Request) (any, error) {
			p, err := s.loadDevice(r.Context(), r.PathValue("id"))
			if err != nil {
				return nil, err
			}
			p.Slot = c.Slot("device").Render(r, p.ID)
			return p, nil
		}})
	c.Fragment("device", console.Fragment{Order: 40, Half: true, Title: "Software over time", Verb: verb, FS: pagesFS, Template: "pages/history.html",
		Load: func(r *http.Request, id string) (any, error) { return s.loadHistory(r.Context(), id) }})
	c.Fragment("device", console.Fragment{Order: 70, Title: "Connections", Verb: verb, FS: pagesFS, Template: "pages/connections.html",
		Load: func(r *http.Request, id string) (any, error) {
			was, err := s.Connections(r.Context(), tenant.MustTenant(r.Context()), id)
			if len(was) == 0 {
				return nil, err
			}
			return was, err
		}})
	c.Tile(console.Tile{Order: 10, Verb: verb, Load: s.onlineTile})
	c.Step(console.Step{Order: 50, Title: "See it at work", Text: "It comes online over mutual TLS, measures, and takes commands.", Href: "/fleet", Button: "Look at the fleet",
		Done: func(ctx context.Context) (bool, error) { return anySeen(ctx, s.cfg.DB, tenant.MustTenant(ctx)) }})
	c.Live("/fleet/live", verb, func(ctx context.Context, r *http.Request, send func(event, html string)) {
		t := tenant.MustTenant(ctx)
		who, _ := tenant.ActorFrom(ctx)
		if !tenant.Can(who, tenant.DeviceRead, tenant.Thing{Tenant: t}) {
			return
		}
		for {
			n, changed := s.OnlineCount(t)
			send("fleet-online", console.Count(n))
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
			// A wave of reconnections is one message a moment, not one each.
			pause := s.cfg.Clock.NewTimer(200 * time.Millisecond)
			select {
			case <-ctx.Done():
				pause.Stop()
				return
			case <-pause.C:
			}
		}
	})
}

func (s *Service) loadFleet(r *http.Request) (any, error) {
	ctx, q := r.Context(), r.URL.Query()
	t := tenant.MustTenant(ctx)
	who, _ := tenant.ActorFrom(ctx)
	p := fleetPage{Query: q}
	n := s.names(ctx, t)
	f, err := ParseFilter(q.Get("q"))
	if err != nil {
		return nil, err
	}
	for _, key := range filters[1:] {
		if v := q.Get(key); v != "" {
			f = f.And(Filter{&term{key: key, of: key, values: []value{{text: v}}}})
		}
	}
	ds, err := s.list(ctx, f, q.Get("after"), pageRows+1)
	if err != nil {
		return nil, err
	}
	if len(ds) > pageRows {
		ds = ds[:pageRows]
		p.Pager.Next = "/fleet?" + keep(q, "after", ds[pageRows-1].ID).Encode()
	}
	if q.Get("after") != "" {
		p.Pager.First = "/fleet?" + keep(q, "", "").Encode()
	}
	for _, d := range ds {
		p.Devices = append(p.Devices, s.row(ctx, n, d))
	}
	for _, k := range filters[1:] {
		if v := q.Get(k); v != "" {
			p.Kept = append(p.Kept, console.Option{Value: v, Word: k})
		}
	}
	if p.Facets, err = s.facets(ctx, n, q); err != nil || !tenant.Can(who, tenant.DeviceRead, tenant.Thing{Tenant: t}) {
		return p, err
	}
	sum, err := s.Summary(ctx, t)
	if err != nil {
		return nil, err
	}
	p.Summary = &sum
	p.States = console.Bar{Label: "By state", Total: sum.Devices}
	for _, st := range identity.States {
		if k := sum.States[st]; k > 0 {
			p.States.Parts = append(p.States.Parts, console.BarPart{Word: string(st), N: k, Tone: console.NewBadge(string(st)).Tone})
		}
	}
	p.Releases = console.Bar{Label: "By release", Total: sum.Devices}
	releases := facet{Title: "Release"}
	alone := q.Get("state") == "" && q.Get("product") == "" && q.Get("solution") == "" && q.Get("q") == ""
	for i, rc := range sum.Releases {
		p.Releases.Parts = append(p.Releases.Parts, console.BarPart{Word: rc.Name, N: rc.Devices, Tone: []string{"good", "busy", "past"}[min(i, 2)]})
		ch := narrow(q, "release", rc.Release, rc.Name)
		if alone {
			ch.N = console.Count(rc.Devices)
		}
		releases.Choices = append(releases.Choices, ch)
	}
	if len(releases.Choices) > 0 {
		p.Facets = slices.Insert(p.Facets, 1, releases)
	}
	return p, nil
}

// facets counts the devices that whoever asks may read by state, product and solution, each under the other two.
func (s *Service) facets(ctx context.Context, n names, q url.Values) ([]facet, error) {
	who, _ := tenant.ActorFrom(ctx)
	census, err := s.cfg.Identity.Count(ctx, who.Tenant)
	if err != nil {
		return nil, err
	}
	counts := map[string]map[string]int64{"state": {}, "product": {}, "solution": {}}
	for _, c := range census {
		if !tenant.Can(who, tenant.DeviceRead, tenant.Thing{Tenant: who.Tenant, Product: c.Product, Solution: c.Solution}) {
			continue
		}
		has := map[string]string{"state": string(c.State), "product": c.Product, "solution": c.Solution}
		for k := range counts {
			fits := true
			for other, v := range has {
				fits = fits && (other == k || q.Get(other) == "" || q.Get(other) == v)
			}
			if fits {
				counts[k][has[k]] += c.Devices
			}
		}
	}
	counted := q.Get("release") == "" && q.Get("q") == ""
	list := func(title, key string, options []console.Option) facet {
		f := facet{Title: title}
		for _, o := range options {
			k := counts[key][o.Value]
			if k == 0 && q.Get(key) != o.Value {
				continue
			}
			ch := narrow(q, key, o.Value, o.Word)
			if counted {
				ch.N = console.Count(k)
			}
			f.Choices = append(f.Choices, ch)
		}
		return f
	}
	states := []console.Option{}
	for _, st := range identity.States {
		states = append(states, console.Option{Value: string(st), Word: string(st)})
	}
	out := []facet{list("State", "state", states), list("Product", "product", n.products), list("Solution", "solution", n.solutions)}
	return out, nil
}

// filters are the parts of an address that narrow the list; the first is typed, the others are chosen.
var filters = []string{"q", "state", "release", "product", "solution"}

// keep copies the filter of a list without its place, with key set to value.
func keep(q url.Values, key, value string) url.Values {
	out := url.Values{}
	for _, k := range filters {
		if v := q.Get(k); v != "" {
			out.Set(k, v)
		}
	}
	if out.Del(key); value != "" {
		out.Set(key, value)
	}
	return out
}

// narrow is the choice of value for key under the filter q.
func narrow(q url.Values, key, value, word string) choice {
	if q.Get(key) == value {
		return choice{Word: word, Here: true, Href: "/fleet?" + keep(q, key, "").Encode()}
	}
	return choice{Word: word, Href: "/fleet?" + keep(q, key, value).Encode()}
}

// names are the words for ids that a page shows.
type names struct{ products, solutions []console.Option }

func (s *Service) names(ctx context.Context, t string) (n names) {
	ps, err := s.cfg.Product.List(ctx, t)
	if err != nil {
		s.cfg.Log.ErrorContext(ctx, "names of products", "error", err)
	}
	for _, p := range ps {
		n.products = append(n.products, console.Option{Value: p.ID, Word: p.Name})
	}
	if s.cfg.Tenant == nil {
		return n
	}
	sols, err := s.cfg.Tenant.Solutions(ctx, t)
	if err != nil {
		s.cfg.Log.ErrorContext(ctx, "names of solutions", "error", err)
	}
	for _, so := range sols {
		n.solutions = append(n.solutions, console.Option{Value: so.ID, Word: so.Name})
	}
	return n
}

// word is the name of an id, or the id itself.
func word(options []console.Option, id string) string {
	for _, o := range options {
		if o.Value == id {
			return o.Word
		}
	}
	return id
}

func (s *Service) row(ctx context.Context, n names, d DeviceOut) deviceRow {
	row := deviceRow{DeviceOut: d, ProductName: word(n.products, d.Product), SolutionName: word(n.solutions, d.Solution)}
	if d.Release != "" {
		row.ReleaseName = s.cfg.ReleaseName(ctx, d.Tenant, d.Release)
	}
	return row
}

func (s *Service) loadDevice(ctx context.Context, id string) (devicePage, error) {
	d, err := s.passport(ctx, id)
	if err != nil {
		return devicePage{}, err
	}
	p := devicePage{deviceRow: s.row(ctx, s.names(ctx, d.Tenant), d.DeviceOut), Revision: d.Device.Revision}
	if rev, err := s.cfg.Product.Revision(ctx, d.Tenant, d.Device.Revision); err == nil {
		p.Revision, p.Support = rev.Name, rev.SupportEnd
	}
	p.LifeLine = lifeLine(d.Device)
	return p, nil
}

// loadHistory is what ran on the device, for the slot of its page; whoever asks may read the device.
func (s *Service) loadHistory(ctx context.Context, id string) (any, error) {
	t := tenant.MustTenant(ctx)
	history, err := s.History(ctx, t, id)
	if err != nil || len(history) == 0 {
		return nil, err
	}
	rows := make([]historyRow, len(history))
	for i, h := range history {
		rows[i] = historyRow{h, s.cfg.ReleaseName(ctx, t, h.Release)}
	}
	return rows, nil
}

// onlineTile counts who is here, for those who see the whole fleet. Retired devices are not expected.
func (s *Service) onlineTile(ctx context.Context) (console.Figure, error) {
	t := tenant.MustTenant(ctx)
	who, _ := tenant.ActorFrom(ctx)
	if !tenant.Can(who, tenant.DeviceRead, tenant.Thing{Tenant: t}) {
		return console.Figure{}, nil
	}
	states, err := s.cfg.Identity.CountByState(ctx, t)
	if err != nil || len(states) == 0 {
		return console.Figure{}, err
	}
	var all int64
	for _, n := range states {
		all += n
	}
	serving := states[identity.Commissioned]
	n, _ := s.OnlineCount(t)
	return console.Figure{Label: "Devices online", Value: console.Count(n), Of: " of " + console.Count(serving), Note: console.Plural(all, "device", "devices") + " ever made",
		Href: "/fleet", ID: "fleet-online", Live: "/fleet/live"}, nil
}

// lifeLine is the device's way. A suspended device stands where it will resume; the wipe is the way into decommissioned.
func lifeLine(d identity.Device) []console.Stage {
	here := d.State
	if here == identity.Suspended {
		here = d.Resume
	}
	var stages []string
	for _, st := range identity.States {
		switch {
		case st == identity.Suspended, st == identity.Decommissioning && here != st, st == identity.Decommissioned && here == identity.Decommissioning:
		default:
			stages = append(stages, string(st))
		}
	}
	return console.LifeLine(stages, string(here), func(name string) time.Time {
		switch name {
		case string(identity.Manufactured):
			return d.Created
		case string(here):
			return d.Updated
		}
		return time.Time{}
	})
}
