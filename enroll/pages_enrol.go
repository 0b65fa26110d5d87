// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"encoding/json"
	"fmt"
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

type serialsPage struct {
	Products []console.Option
	Product  string
	Search   string
	Serials  []Preauthorised
	Preview  *Imported
	CSV      string
	MayWrite bool
	Typed    url.Values
	Pager    console.Pager
}

func (s *Service) serialPages(c *console.Console) {
	c.Page(console.Page{Path: "/enrol/serials", Title: "Serial numbers", Menu: menu, Tab: "Serial numbers", TabOrder: 20, Verb: string(tenant.LineRead), FS: pagesFS, Template: "pages/serials.html", Load: s.loadSerials})
	// What was understood is shown before it counts.
	c.Page(console.Page{Path: "/enrol/serials/preview", Method: http.MethodPost, Title: "Serial numbers", Menu: menu, Tab: "Serial numbers", Verb: string(tenant.LineWrite), FS: pagesFS, Template: "pages/serials.html",
		Load: func(r *http.Request) (any, error) {
			out, err := s.importForm(r, true)
			if err != nil {
				return nil, err
			}
			return serialsPage{Product: r.FormValue("product"), CSV: r.FormValue("csv"), Preview: &out, MayWrite: true}, nil
		}})
	c.Form("/enrol/serials", string(tenant.LineWrite), func(r *http.Request) (string, error) {
		out, err := s.importForm(r, false)
		if err == nil {
			console.Say(r, console.Plural(out.Rows, "serial number", "serial numbers")+" may be made.")
		}
		return "/enrol/serials?" + url.Values{"product": {r.FormValue("product")}}.Encode(), err
	})
	c.Form("/enrol/serials/revoke", string(tenant.LineWrite), func(r *http.Request) (string, error) {
		product, serial := r.FormValue("product"), r.FormValue("serial")
		_, err := s.preauthoriseFor(r.Context(), product, "", func(t, actor string) (Imported, error) {
			return Imported{}, s.RevokePreauthorised(r.Context(), t, product, []string{serial}, actor)
		})
		if err == nil {
			console.Say(r, serial+" may no longer be made.")
		}
		return "/enrol/serials?" + url.Values{"product": {product}}.Encode(), err
	})
}

func (s *Service) importForm(r *http.Request, preview bool) (Imported, error) {
	ctx, product := r.Context(), r.FormValue("product")
	return s.preauthoriseFor(ctx, product, "", func(t, actor string) (Imported, error) {
		return s.Preauthorise(ctx, t, product, "", strings.NewReader(r.FormValue("csv")), preview, actor)
	})
}

func (s *Service) loadSerials(r *http.Request) (any, error) {
	ctx := r.Context()
	q := r.URL.Query()
	p := serialsPage{Product: q.Get("product"), Search: q.Get("search"), MayWrite: tenant.Holds(ctx, string(tenant.LineWrite)), Typed: console.Typed(r)}
	var err error
	if p.Products, err = s.productsOf(ctx, tenant.LineRead); err != nil || len(p.Products) == 0 {
		return p, err
	}
	if p.Product == "" {
		p.Product = p.Products[0].Value
	}
	t := tenant.MustTenant(ctx)
	if err := tenant.Require(ctx, tenant.LineRead, tenant.Thing{Tenant: t, Product: p.Product}); err != nil {
		return nil, err
	}
	p.Serials, err = s.PreauthorisedSerials(ctx, t, SerialFilter{Product: p.Product, Search: p.Search, After: q.Get("after"), Limit: pageSize + 1})
	path := "/enrol/serials?" + url.Values{"product": {p.Product}, "search": {p.Search}}.Encode()
	p.Serials, p.Pager = turn(p.Serials, path, "after", q.Get("after"), func(p Preauthorised) string { return p.Serial })
	return p, err
}

// productsOf are the products on which whoever asks holds v.
func (s *Service) productsOf(ctx context.Context, v tenant.Verb) (out []console.Option, err error) {
	who, _ := tenant.ActorFrom(ctx)
	all, err := s.cfg.Products.List(ctx, who.Tenant)
	for _, p := range all {
		if tenant.Can(who, v, tenant.Thing{Tenant: p.Tenant, Product: p.ID}) {
			out = append(out, console.Option{Value: p.ID, Word: p.Name})
		}
	}
	return out, err
}

// choice is one of the lists that a page can show.
type choice struct {
	Href, Word string
	Here       bool
}

// HowWords say through which door the device came.
func (g Guest) HowWords() string {
	switch g.How {
	case ByLine:
		return "from a line"
	case ByCA:
		return "by a trusted CA"
	case ByToken:
		return "with a token"
	}
	return g.How
}

// Shown is what the device showed, as short phrases.
func (g guest) Shown() (out []string) {
	var m map[string]any
	if json.Unmarshal(g.Evidence, &m) != nil {
		return []string{string(g.Evidence)}
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		v := fmt.Sprint(m[k])
		if name := g.names.Word(v); name != v {
			out = append(out, name)
			continue
		}
		out = append(out, strings.ReplaceAll(k, "_", " ")+": "+console.Short(v))
	}
	return out
}

// guest is a device on the page of the lobby.
type guest struct {
	Guest
	names *console.Names
}

type lobbyPage struct {
	Verdict   Verdict
	Verdicts  []choice
	Guests    []guest
	Solutions []console.Option
	Names     *console.Names
	MayDecide bool
	Typed     url.Values
	Pager     console.Pager
}

type quarantinePage struct {
	Clones    []suspicion
	Devices   []identity.Device
	Names     *console.Names
	MayDecide bool
	Pager     console.Pager
}

func (s *Service) lobbyPages(c *console.Console) {
	c.Page(console.Page{Path: "/enrol/lobby", Title: "Lobby", Menu: menu, Tab: "Lobby", TabOrder: 40, Verb: string(tenant.EnrolRead), FS: pagesFS, Template: "pages/lobby.html",
		Load: func(r *http.Request) (any, error) { return s.loadLobby(r, c) }})
	c.Form("/enrol/lobby", string(tenant.EnrolWrite), func(r *http.Request) (string, error) {
		devices := r.Form["device"]
		var said string
		var err error
		switch r.FormValue("decision") {
		case "approve":
			said = "approved"
			labels, wrong := parseLabels(r.FormValue("labels"))
			if wrong != nil {
				return "", wrong
			}
			err = s.approveFor(r.Context(), devices, r.FormValue("solution"), labels)
		case "deny":
			said = "turned away"
			err = s.denyFor(r.Context(), devices, r.FormValue("reason"))
		default:
			err = problem.Invalid("Approve or deny.").At("decision")
		}
		if err != nil {
			return "", err
		}
		console.Say(r, console.Plural(len(devices), "device is ", "devices are ")+said+".")
		return "/enrol/lobby", nil
	})
	c.Page(console.Page{Path: "/enrol/quarantine", Title: "Quarantine", Menu: menu, Tab: "Quarantine", TabOrder: 80, Verb: string(tenant.DeviceRead), FS: pagesFS, Template: "pages/quarantine.html",
		Load: func(r *http.Request) (any, error) {
			ctx := r.Context()
			who, _ := tenant.ActorFrom(ctx)
			p := quarantinePage{Names: c.Names(ctx), MayDecide: tenant.Holds(ctx, string(tenant.DeviceSuspend))}
			if tenant.Holds(ctx, string(tenant.EnrolRead)) {
				var err error
				if p.Clones, err = s.suspicions(ctx, p.Names); err != nil {
					return nil, err
				}
			}
			whole, products, solutions := tenant.Scope(who, tenant.DeviceRead)
			if !whole && len(products)+len(solutions) == 0 {
				return p, nil
			}
			after := r.FormValue("after")
			ds, err := s.cfg.Identity.List(ctx, who.Tenant, identity.Filter{State: identity.Suspended, Products: products, Solutions: solutions, After: after, Limit: pageSize + 1})
			p.Devices, p.Pager = turn(ds, "/enrol/quarantine", "after", after, func(d identity.Device) string { return d.ID })
			return p, err
		}})
	c.Fragment("device", console.Fragment{Order: 25, Half: true, Title: "Making", Verb: string(tenant.DeviceRead), FS: pagesFS, Template: "pages/made.html",
		Load: func(r *http.Request, id string) (any, error) { return s.loadMade(r, id, c.Names(r.Context())) }})
	c.Form("/devices/{id}/transfer", string(tenant.DeviceClaim), func(r *http.Request) (string, error) {
		d, err := s.Transfer(r.Context(), r.PathValue("id"), r.FormValue("solution"), r.FormValue("reason"))
		console.Say(r, "The device serves elsewhere now.")
		return "/devices/" + d.ID, err
	})
	c.Form("/devices/{id}/labels", string(tenant.DeviceClaim), func(r *http.Request) (string, error) {
		d, err := s.cfg.Identity.Visible(r.Context(), tenant.DeviceClaim, r.PathValue("id"))
		if err != nil {
			return "", err
		}
		labels, err := parseLabels(r.FormValue("labels"))
		if err != nil {
			return "", err
		}
		who, _ := tenant.ActorFrom(r.Context())
		return "/devices/" + d.ID, s.SetLabels(r.Context(), d.Tenant, d.ID, labels, who.ID)
	})
}

// parseLabels reads labels as people type them: name=value, separated by commas or lines.
func parseLabels(text string) (map[string]string, error) {
	out := map[string]string{}
	for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == '\n' }) {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if name = strings.TrimSpace(name); !ok || name == "" {
			if strings.TrimSpace(part) == "" {
				continue
			}
			return nil, problem.Invalid("A label is name=value; %.40q is not.", part).At("labels")
		}
		out[name] = strings.TrimSpace(value)
	}
	return out, checkLabels(out)
}

func (s *Service) loadLobby(r *http.Request, c *console.Console) (any, error) {
	ctx := r.Context()
	q := r.URL.Query()
	p := lobbyPage{Verdict: Verdict(q.Get("verdict")), Names: c.Names(ctx), MayDecide: tenant.Holds(ctx, string(tenant.EnrolWrite)), Typed: console.Typed(r)}
	if p.Verdict == "" {
		p.Verdict = Waiting
	}
	for _, v := range []Verdict{Waiting, Denied, Approved} {
		p.Verdicts = append(p.Verdicts, choice{"/enrol/lobby?verdict=" + string(v), string(v), v == p.Verdict})
	}
	var err error
	if p.Solutions, err = s.allSolutions(ctx); err != nil {
		return nil, err
	}
	gs, err := s.guests(ctx, p.Verdict, q.Get("after"), pageSize+1)
	gs, p.Pager = turn(gs, "/enrol/lobby?verdict="+url.QueryEscape(string(p.Verdict)), "after", q.Get("after"), func(g Guest) string { return g.Device })
	for _, g := range gs {
		p.Guests = append(p.Guests, guest{g, p.Names})
	}
	return p, err
}

func (s *Service) allSolutions(ctx context.Context) (out []console.Option, err error) {
	all, err := s.cfg.Tenants.SeenByStaff(ctx, tenant.EnrolWrite)
	return options(all), err
}

type madePart struct {
	Device   identity.Device
	Made     *Manufacture
	Names    *console.Names
	Labels   map[string]string
	Text     string // the labels as they are typed
	Guest    Verdict
	Places   []console.Option // where it may be moved to
	MayLabel bool
	MayCode  bool
}

func (s *Service) loadMade(r *http.Request, id string, names *console.Names) (any, error) {
	ctx := r.Context()
	d, err := s.cfg.Identity.Visible(ctx, tenant.DeviceRead, id)
	if err != nil {
		return nil, err
	}
	who, _ := tenant.ActorFrom(ctx)
	on := tenant.Thing{Tenant: d.Tenant, Product: d.Product, Solution: d.Solution}
	p := madePart{Device: d, Names: names, MayLabel: tenant.Can(who, tenant.DeviceClaim, on), MayCode: d.State == identity.Provisioned && tenant.Can(who, tenant.LineWrite, on)}
	m, err := s.Manufacture(ctx, d.Tenant, d.ID)
	switch {
	case err == nil:
		p.Made = &m
	case !problem.Is(err, problem.KindNotFound):
		return nil, err
	}
	if p.Guest, err = s.Decided(s.reads(ctx), d.Tenant, d.ID); err != nil {
		return nil, err
	}
	if p.Labels, err = s.Labels(ctx, d.Tenant, d.ID); err != nil {
		return nil, err
	}
	p.Text = labelLines(p.Labels)
	p.Places, err = s.transferPlaces(ctx, d)
	return p, err
}

type hooksPage struct {
	Hooks    []Hook
	Products []console.Option
	Names    *console.Names
	Secret   string
	MayWrite bool
	Typed    url.Values
}

func (s *Service) hookPages(c *console.Console) {
	load := func(r *http.Request) (hooksPage, error) {
		ctx := r.Context()
		p := hooksPage{Names: c.Names(ctx), MayWrite: tenant.Holds(ctx, string(tenant.EnrolWrite)), Typed: console.Typed(r)}
		var err error
		if p.Products, err = s.productsOf(ctx, tenant.EnrolRead); err != nil {
			return p, err
		}
		p.Products = append([]console.Option{{Word: "Every product"}}, p.Products...)
		p.Hooks, err = s.hooksFor(ctx)
		return p, err
	}
	c.Page(console.Page{Path: "/enrol/hooks", Title: "Hooks", Menu: menu, Tab: "Hooks", TabOrder: 70, Verb: string(tenant.EnrolRead), FS: pagesFS, Template: "pages/hooks.html",
		Load: func(r *http.Request) (any, error) { return load(r) }})
	// The secret is shown at once, as the answer of the form.
	c.Page(console.Page{Path: "/enrol/hooks", Method: http.MethodPost, Title: "Hooks", Menu: menu, Tab: "Hooks", Verb: string(tenant.EnrolWrite), FS: pagesFS, Template: "pages/hooks.html",
		Load: func(r *http.Request) (any, error) {
			patience, err := console.Number(r, "patience")
			if err != nil {
				return nil, err
			}
			secret, err := s.setHookFor(r.Context(), Hook{Product: r.FormValue("product"), URL: r.FormValue("url"), Patience: patience, Open: r.FormValue("open") != ""})
			if err != nil {
				return nil, err
			}
			p, err := load(r)
			p.Secret = secret
			return p, err
		}})
	c.Form("/enrol/hooks/drop", string(tenant.EnrolWrite), func(r *http.Request) (string, error) {
		err := s.dropHookFor(r.Context(), r.FormValue("product"))
		if err == nil {
			console.Say(r, "The hook is gone.")
		}
		return "/enrol/hooks", err
	})
}

type labelsPage struct {
	Labels []printed
	Link   string
	Typed  url.Values
}

// printed is a label with its QR code.
type printed struct {
	Label
	QR template.HTML
}

// maxSheet is how many labels one sheet has.
const maxSheet = 200

func (s *Service) labelPages(c *console.Console) {
	c.Page(console.Page{Path: "/enrol/labels", Title: "Labels", Menu: menu, Tab: "Labels", TabOrder: 30, Verb: string(tenant.LineWrite), FS: pagesFS, Template: "pages/labels.html",
		Load: func(r *http.Request) (any, error) {
			return labelsPage{Link: origin(r), Typed: console.Typed(r)}, nil
		}})
	// Codes are not known here: whoever has them types them, and what comes back is printed. Nothing is kept.
	c.Page(console.Page{Path: "/enrol/labels", Method: http.MethodPost, Title: "Labels", Menu: menu, Tab: "Labels", Verb: string(tenant.LineWrite), FS: pagesFS, Template: "pages/labels.html",
		Load: func(r *http.Request) (any, error) {
			p := labelsPage{Link: r.FormValue("link")}
			for line := range strings.Lines(r.FormValue("codes")) {
				if line = strings.TrimSpace(line); line == "" {
					continue
				}
				if len(p.Labels) == maxSheet {
					return nil, problem.TooLarge("A sheet has at most %d labels.", maxSheet)
				}
				serial, code, ok := strings.Cut(line, ",")
				if !ok {
					serial, code = "", line
				}
				one, err := printOne(strings.TrimSpace(serial), strings.TrimSpace(code), p.Link)
				if err != nil {
					return nil, err
				}
				p.Labels = append(p.Labels, one)
			}
			return p, nil
		}})
	c.Page(console.Page{Path: "/devices/{id}/claim-code", Method: http.MethodPost, Title: "Claim code", Menu: menu, Verb: string(tenant.LineWrite), FS: pagesFS, Template: "pages/labels.html",
		Load: func(r *http.Request) (any, error) {
			code, err := s.newClaim(r.Context(), r.PathValue("id"))
			if err != nil {
				return nil, err
			}
			one, err := printOne(code.Serial, code.Code, origin(r))
			return labelsPage{Labels: []printed{one}}, err
		}})
	c.Handle("POST /enrol/labels/png", string(tenant.LineWrite), func(w http.ResponseWriter, r *http.Request) error {
		l, err := NewLabel(r.FormValue("serial"), r.FormValue("code"), r.FormValue("link"))
		if err != nil {
			return err
		}
		b, err := l.PNG()
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "image/png")
		w.Header().Set("Content-Disposition", `attachment; filename="label.png"`)
		_, err = w.Write(b)
		return err
	})
}

func printOne(serial, code, link string) (printed, error) {
	l, err := NewLabel(serial, code, link)
	if err != nil {
		return printed{}, err
	}
	svg, err := l.SVG()
	return printed{l, template.HTML(svg)}, err // digits, letters and hyphens only come from the code
}

// origin is the address under which the visitor sees the platform.
func origin(r *http.Request) string {
	if r.Host == "" {
		return ""
	}
	return "https://" + r.Host
}
