// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"embed"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

type enrolPage struct {
	Batches   []BatchOut
	Stations  []StationOut
	Revisions []console.Option
	Open      []console.Option // batches that take a station
	Solutions []console.Option
	Names     map[string]string // of revisions and batches by id
	MayWrite  bool
	MayClaim  bool
	Typed     url.Values
}

type openedPage struct{ Opened }

// Heading is the page's title.
func (p openedPage) Heading() string { return "Line station " + p.Name }

// Pages mounts the console pages.
func (s *Service) Pages(c *console.Console) {
	c.Page(console.Page{Path: "/enrol", Title: "Enrol", Menu: "Enrol", Verb: string(tenant.LineRead), FS: pagesFS, Template: "pages/enrol.html", Load: s.loadEnrol})
	c.Page(console.Page{Path: "/claim", Title: "Claim a unit", Menu: "Enrol", Verb: string(tenant.DeviceClaim), FS: pagesFS, Template: "pages/claim.html",
		Load: func(r *http.Request) (any, error) {
			sols, err := s.solutions(r.Context())
			return enrolPage{Solutions: sols, MayClaim: true, Typed: console.Typed(r)}, err
		}})
	// The certificate is shown at once, as the answer of the form.
	c.Page(console.Page{Path: "/enrol/stations", Method: http.MethodPost, Title: "Line station", Menu: "Enrol", Verb: string(tenant.LineWrite),
		FS: pagesFS, Template: "pages/station.html", Load: func(r *http.Request) (any, error) {
			quota, err := number(r, "quota")
			if err != nil {
				return nil, err
			}
			hours, err := number(r, "hours")
			if err != nil {
				return nil, err
			}
			o, err := s.openStation(r.Context(), Station{Batch: r.FormValue("batch"), Name: r.FormValue("station"), Quota: quota}, time.Duration(hours)*time.Hour, r.FormValue("csr"))
			return openedPage{o}, err
		}})
	c.Form("/enrol/batches", string(tenant.LineWrite), func(r *http.Request) (string, error) {
		size, err := number(r, "size")
		if err != nil {
			return "", err
		}
		b, err := s.openBatch(r.Context(), Batch{Revision: r.FormValue("revision"), Name: r.FormValue("name"), Size: size})
		if err == nil {
			console.Say(r, "Batch "+b.Name+" is open.")
		}
		return "/enrol", err
	})
	c.Form("/enrol/batches/{id}/close", string(tenant.LineWrite), func(r *http.Request) (string, error) {
		produced, err := number(r, "produced")
		if err != nil {
			return "", err
		}
		b, err := s.endBatch(r.Context(), r.PathValue("id"), produced)
		if err == nil {
			said := "Batch " + b.Name + " is closed."
			if n := b.Surplus(); n > 0 {
				said += " Alarm: " + console.Plural(n, "identity has", "identities have") + " no unit that was made."
			}
			console.Say(r, said)
		}
		return "/enrol", err
	})
	c.Form("/enrol/stations/{id}/kill", string(tenant.LineWrite), func(r *http.Request) (string, error) {
		ids, err := s.kill(r.Context(), r.PathValue("id"), r.FormValue("reason"))
		if err == nil {
			console.Say(r, "The line station is dead. It made "+console.Plural(len(ids), "unit", "units")+".")
		}
		return "/enrol", err
	})
	c.Form("/claims", string(tenant.DeviceClaim), func(r *http.Request) (string, error) {
		d, err := s.Claim(r.Context(), r.FormValue("code"), r.FormValue("solution"))
		if err == nil {
			console.Say(r, d.Serial+" is claimed. It enrols by itself when it is switched on.")
		}
		return "/devices/" + d.ID, err
	})
	c.Step(console.Step{Order: 20, Title: "Make the first unit", Text: "A batch, a line station with its quota, a unit with its certificate of birth.", Href: "/enrol", Button: "Open a batch",
		Done: s.anyDevice("")})
	c.Step(console.Step{Order: 30, Title: "Claim a unit", Text: "The code on the box binds it to a solution; then it enrols by itself.", Href: "/claim", Button: "Enter a claim code",
		Done: s.anyDevice(identity.Commissioned)})
	c.Tile(console.Tile{Order: 60, Verb: string(tenant.LineRead), Load: s.batchTile})
}

// batchTile counts the batches that made more identities than units.
func (s *Service) batchTile(ctx context.Context) (console.Figure, error) {
	bs, err := s.batches(ctx)
	if err != nil || len(bs) == 0 {
		return console.Figure{}, err
	}
	var open, over, surplus int64
	for _, b := range bs {
		if b.Closed.IsZero() {
			open++
		}
		if n := b.Surplus(); n > 0 {
			over, surplus = over+1, surplus+n
		}
	}
	f := console.Figure{Label: "Batches open", Value: console.Count(open), Note: "no surplus", Href: "/enrol"}
	if over > 0 {
		f = console.Figure{Label: "Batches with surplus", Value: console.Count(over), Note: console.Plural(surplus, "identity", "identities") + " without a unit", Href: "/enrol", Tone: "bad"}
	}
	return f, nil
}

func (s *Service) loadEnrol(r *http.Request) (any, error) {
	ctx := r.Context()
	p := enrolPage{Names: map[string]string{}, Typed: console.Typed(r), MayWrite: tenant.Holds(ctx, string(tenant.LineWrite)),
		MayClaim: tenant.Holds(ctx, string(tenant.DeviceClaim))}
	bs, err := s.batches(ctx)
	if err != nil {
		return nil, err
	}
	for _, b := range bs {
		p.Batches = append(p.Batches, outBatch(b))
		p.Names[b.ID] = b.Name
		if b.Closed.IsZero() {
			p.Open = append(p.Open, console.Option{Value: b.ID, Word: b.Name})
		}
	}
	if p.Stations, err = s.stations(ctx); err != nil {
		return nil, err
	}
	if p.Solutions, err = s.solutions(ctx); err != nil {
		return nil, err
	}
	products, err := s.cfg.Products.List(ctx, tenant.MustTenant(ctx))
	if err != nil {
		return nil, err
	}
	for _, pr := range products {
		if err := s.addRevisions(ctx, &p, pr); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (s *Service) addRevisions(ctx context.Context, p *enrolPage, pr product.Product) error {
	revs, err := s.cfg.Products.Revisions(ctx, pr.Tenant, pr.ID)
	for _, v := range revs {
		p.Names[v.ID] = pr.Name + " " + v.Name
		p.Revisions = append(p.Revisions, console.Option{Value: v.ID, Word: p.Names[v.ID]})
	}
	return err
}

// solutions are those that whoever asks may claim into.
func (s *Service) solutions(ctx context.Context) ([]console.Option, error) {
	who, _ := tenant.ActorFrom(ctx)
	whole, products, mine := tenant.Scope(who, tenant.DeviceClaim)
	all, err := s.cfg.Tenants.Solutions(ctx, tenant.MustTenant(ctx))
	var out []console.Option
	for _, sol := range all {
		if whole || len(products) > 0 || slices.Contains(mine, sol.ID) {
			out = append(out, console.Option{Value: sol.ID, Word: sol.Name})
		}
	}
	return out, err
}

// anyDevice says whether the tenant has a device, in the state if one is named.
func (s *Service) anyDevice(state identity.State) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		ds, err := s.cfg.Identity.List(ctx, tenant.MustTenant(ctx), identity.Filter{State: state, Limit: 1})
		return len(ds) > 0, err
	}
}

// number reads a field of type number; empty is zero.
func number(r *http.Request, name string) (int64, error) {
	v := r.FormValue(name)
	if v == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return 0, problem.Invalid("%q is not a number.", v).At(name)
	}
	return n, nil
}
