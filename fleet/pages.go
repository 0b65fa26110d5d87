// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"embed"
	"html/template"
	"net/http"
	"net/url"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

const pageRows = 50

type fleetPage struct {
	Summary   *Summary // nil for visitors who see a part of the fleet only
	States    console.Bar
	Releases  console.Bar
	Query     url.Values
	StateOf   []console.Option
	Products  []console.Option
	Solutions []console.Option
	Devices   []deviceRow
	Pager     console.Pager
}

type deviceRow struct {
	DeviceOut
	ProductName, SolutionName, ReleaseName string
}

type devicePage struct {
	deviceRow
	History  []historyRow
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
	c.Step(console.Step{Order: 50, Title: "See it at work", Text: "It comes online over mutual TLS, measures, and takes commands.", Href: "/fleet",
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
	p := fleetPage{Query: q, StateOf: []console.Option{{Word: "any"}}, Products: []console.Option{{Word: "any"}}, Solutions: []console.Option{{Word: "any"}}}
	for _, st := range identity.States {
		p.StateOf = append(p.StateOf, console.Option{Value: string(st), Word: string(st)})
	}
	n := s.names(ctx, t)
	for _, pr := range n.products {
		if tenant.Can(who, tenant.DeviceRead, tenant.Thing{Tenant: t, Product: pr.Value}) {
			p.Products = append(p.Products, pr)
		}
	}
	for _, so := range n.solutions {
		if tenant.Can(who, tenant.DeviceRead, tenant.Thing{Tenant: t, Solution: so.Value}) {
			p.Solutions = append(p.Solutions, so)
		}
	}
	ds, err := s.list(ctx, identity.Filter{State: identity.State(q.Get("state")), Product: q.Get("product"), Solution: q.Get("solution"),
		Search: q.Get("q"), After: q.Get("after"), Limit: pageRows + 1})
	if err != nil {
		return nil, err
	}
	if len(ds) > pageRows {
		ds = ds[:pageRows]
		next := url.Values{"after": {ds[pageRows-1].ID}}
		p.Pager.Next = "/fleet?" + keep(q, next).Encode()
	}
	if q.Get("after") != "" {
		p.Pager.First = "/fleet?" + keep(q, nil).Encode()
	}
	for _, d := range ds {
		p.Devices = append(p.Devices, s.row(ctx, n, d))
	}
	if !tenant.Can(who, tenant.DeviceRead, tenant.Thing{Tenant: t}) {
		return p, nil
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
	for i, rc := range sum.Releases {
		p.Releases.Parts = append(p.Releases.Parts, console.BarPart{Word: rc.Name, N: rc.Devices, Tone: []string{"good", "busy", "past"}[min(i, 2)]})
	}
	return p, nil
}

// keep copies the filter of a list without its place, and adds more.
func keep(q, more url.Values) url.Values {
	out := url.Values{}
	for _, k := range []string{"state", "product", "solution", "q"} {
		if v := q.Get(k); v != "" {
			out.Set(k, v)
		}
	}
	for k, v := range more {
		out[k] = v
	}
	return out
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
	for _, h := range d.History {
		p.History = append(p.History, historyRow{h, s.cfg.ReleaseName(ctx, d.Tenant, h.Release)})
	}
	if rev, err := s.cfg.Product.Revision(ctx, d.Tenant, d.Device.Revision); err == nil {
		p.Revision, p.Support = rev.Name, rev.SupportEnd
	}
	p.LifeLine = lifeLine(d.Device)
	return p, nil
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
