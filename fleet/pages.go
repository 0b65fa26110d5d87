// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"embed"
	"html/template"
	"net/http"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

const (
	menu       = "Fleet"
	tabDevices = "Devices"
	pageRows   = 50
)

type deviceRow struct {
	DeviceOut
	ProductName, SolutionName, ReleaseName string
}

// status is the presence as the kit's part "status" shows it.
func (p Presence) status() map[string]any {
	if p.Online {
		return map[string]any{"State": "online"}
	}
	return map[string]any{"State": "offline", "At": p.LastSeen, "Note": p.Reason}
}

// Status is what the template gives the kit's part "status".
func (d deviceRow) Status() map[string]any { return d.Presence.status() }

// LostBadge says with what the device lost its trust, beside its state; nil for one that did not.
func (d DeviceOut) LostBadge() *console.Badge {
	if d.Lost == nil {
		return nil
	}
	b := console.NewBadge("revoked")
	b.Word += " with its " + d.Lost.With()
	return &b
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
	c.Page(console.Page{Path: "/devices/{id}", Title: "Device", Menu: menu, Tab: tabDevices, Verb: verb, FS: pagesFS, Template: "pages/device.html",
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
	s.twinPages(c)
	c.Tile(console.Tile{Order: 10, Verb: verb, Load: s.onlineTile})
	c.Step(console.Step{Order: 50, Title: "See it at work", Text: "It comes online over mutual TLS, measures, and takes commands.", Href: "/fleet", Button: "Look at the fleet",
		Done: func(ctx context.Context) (bool, error) { return anySeen(ctx, s.cfg.DB, tenant.MustTenant(ctx)) }})
	s.fleetPages(c)
	s.selectionPages(c)
	s.groupPages(c)
}

// names are the words for ids that a page shows.
type names struct {
	products, solutions []console.Option
	tree                []tenant.Solution
}

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
	if n.tree, err = s.solutionsSeen(ctx, t); err != nil {
		s.cfg.Log.ErrorContext(ctx, "names of solutions", "error", err)
	}
	for _, so := range n.tree {
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
