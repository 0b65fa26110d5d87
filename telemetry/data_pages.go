// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/tenant"
)

// Where these pages stand: under the entry Data of the menu, each below a tab.
const (
	dataMenu     = "Data"
	tabCatalogue = "Catalogue"
	tabUnknown   = "Undeclared"
	tabExport    = "Export"
	tabShares    = "Sharing"
)

// productLine is a product with the state of its catalogue.
type productLine struct {
	product.Product
	Catalogue CatalogueVersion
}

type catalogueList struct {
	Products []productLine
	Days     int
	MayWrite bool
}

type cataloguePage struct {
	productLine
	Unknown  []unknownField
	Days     int
	Names    *console.Names
	MayWrite bool
	Typed    url.Values
	Types    []console.Option
}

// Heading is the page's title.
func (p cataloguePage) Heading() string { return "Data catalogue of " + p.Name }

// unknownField is an undeclared field of a product, with the form that declares it.
type unknownField struct {
	Undeclared
	Product  product.Product
	MayWrite bool
}

type exportPageData struct {
	Gaps     []Gap
	Names    *console.Names
	Typed    url.Values
	Formats  []console.Option
	MayGaps  bool
	MoreGaps bool
}

type sharesPage struct {
	Shares    []Share
	Solutions []console.Option
	Names     *console.Names
	Typed     url.Values
	More      bool
}

// gapsShown and sharesShown are how many lines the pages show; the API has all.
const (
	gapsShown   = 50
	sharesShown = 100
)

// dataPages mounts the pages about what devices may send and who reads it.
func (s *Service) dataPages(c *console.Console) {
	read, write := string(tenant.ProductRead), string(tenant.CatalogueWrite)
	c.Page(console.Page{Path: "/data", Title: "Data catalogue", Menu: dataMenu, Tab: tabCatalogue, TabOrder: 10, Verb: read, FS: pagesFS, Template: "pages/catalogues.html",
		Load: func(r *http.Request) (any, error) {
			lines, err := s.productLines(r.Context())
			if err != nil {
				return nil, err
			}
			days, err := s.Retention(r.Context(), tenant.MustTenant(r.Context()))
			return catalogueList{lines, days, tenant.Holds(r.Context(), write)}, err
		}})
	c.Page(console.Page{Path: "/data/products/{id}", Title: "Data catalogue", Menu: dataMenu, Tab: tabCatalogue, Verb: read, FS: pagesFS, Template: "pages/catalogue.html", Load: s.cataloguePage(c)})
	c.Page(console.Page{Path: "/data/undeclared", Title: "Undeclared fields", Menu: dataMenu, Tab: tabUnknown, TabOrder: 20, Verb: read, FS: pagesFS, Template: "pages/undeclared.html",
		Load: func(r *http.Request) (any, error) {
			lines, err := s.productLines(r.Context())
			out := []unknownField{}
			for _, p := range lines {
				found, e := s.unknown(r.Context(), p.Product)
				if e != nil {
					return nil, e
				}
				out = append(out, found...)
			}
			return out, err
		}})
	c.Page(console.Page{Path: "/data/export", Title: "Export", Menu: dataMenu, Tab: tabExport, TabOrder: 30, Verb: string(tenant.TelemetryRead), FS: pagesFS, Template: "pages/export.html",
		Load: func(r *http.Request) (any, error) {
			p := exportPageData{Names: c.Names(r.Context()), Typed: r.URL.Query(), Formats: []console.Option{{Value: formatCSV, Word: "CSV"}, {Value: formatLines, Word: "JSON Lines"}}}
			t := tenant.MustTenant(r.Context())
			if p.MayGaps = tenant.Can(actor(r.Context()), tenant.TelemetryRead, tenant.Thing{Tenant: t}); !p.MayGaps {
				return p, nil
			}
			gaps, err := s.OpenGaps(r.Context(), t, "", gapsShown+1)
			p.Gaps, p.MoreGaps = gaps[:min(len(gaps), gapsShown)], len(gaps) > gapsShown
			return p, err
		}})
	c.Handle("GET /data/export/file", string(tenant.TelemetryRead), s.serveExport)
	c.Page(console.Page{Path: "/data/shares", Title: "Sharing", Menu: dataMenu, Tab: tabShares, TabOrder: 40, Verb: string(tenant.DataShare), FS: pagesFS, Template: "pages/shares.html", Load: s.sharesPage(c)})
	c.Page(console.Page{Path: "/data/shares", Method: http.MethodPost, Title: "Shared", Menu: dataMenu, Tab: tabShares, Verb: string(tenant.DataShare), FS: pagesFS, Template: "pages/shared.html",
		Load: func(r *http.Request) (any, error) {
			until, err := time.Parse(time.DateOnly, r.FormValue("expires"))
			if err != nil {
				return nil, problem.Invalid("%q is not a day such as 2027-01-31.", cut(r.FormValue("expires"))).At("expires")
			}
			return s.share(r.Context(), Share{Solution: r.FormValue("solution"), Recipient: r.FormValue("recipient"), Purpose: r.FormValue("purpose"), Expires: until}, r.FormValue("not_gatekeeper") != "")
		}})
	c.Form("/data/shares/{id}/end", string(tenant.DataShare), func(r *http.Request) (string, error) {
		err := s.endShare(r.Context(), r.PathValue("id"))
		if err == nil {
			console.Say(r, "The share has ended; its token opens nothing any more.")
		}
		return "/data/shares", err
	})
	s.dataForms(c, write)
	c.Fragment("product", console.Fragment{Order: 60, Title: "Data catalogue", Verb: read, FS: pagesFS, Template: "pages/product.html",
		Load: func(r *http.Request, id string) (any, error) {
			t, err := s.catalogued(r.Context(), tenant.ProductRead, id)
			if err != nil {
				return nil, err
			}
			return s.Catalogue(r.Context(), t, id)
		}})
}

// dataForms mounts what changes a catalogue.
func (s *Service) dataForms(c *console.Console, write string) {
	c.Form("/data/retention", write, func(r *http.Request) (string, error) {
		t := tenant.MustTenant(r.Context())
		days, err := strconv.Atoi(r.FormValue("days"))
		if err != nil {
			return "", problem.Invalid("%q is no number of days.", cut(r.FormValue("days"))).At("days")
		}
		if err := tenant.Require(r.Context(), tenant.CatalogueWrite, tenant.Thing{Tenant: t}); err != nil {
			return "", err
		}
		if err := s.SetRetention(r.Context(), t, days, actor(r.Context()).ID); err != nil {
			return "", err
		}
		console.Say(r, "What no catalogue says more of is kept for "+console.Plural(days, "day", "days")+".")
		return "/data", nil
	})
	c.Form("/data/products/{id}/fields", write, func(r *http.Request) (string, error) {
		t, err := s.catalogued(r.Context(), tenant.CatalogueWrite, r.PathValue("id"))
		if err != nil {
			return "", err
		}
		f, err := fieldForm(r)
		if err != nil {
			return "", err
		}
		v, err := s.Declare(r.Context(), t, r.PathValue("id"), []Field{f}, actor(r.Context()).ID)
		if err == nil {
			console.Say(r, f.key()+" is declared; version "+strconv.FormatInt(v.Version, 10)+" of the catalogue counts from now on.")
		}
		return "/data/products/" + r.PathValue("id"), err
	})
	c.Form("/data/products/{id}/remove", write, func(r *http.Request) (string, error) {
		return s.changed(r, "is not taken any more", func(c Catalogue) Catalogue {
			kept := c.Fields[:0]
			for _, f := range c.Fields {
				if f.key() != r.FormValue("field") {
					kept = append(kept, f)
				}
			}
			c.Fields = kept
			return c
		})
	})
	c.Form("/data/products/{id}/undeclared", write, func(r *http.Request) (string, error) {
		return s.changed(r, "is set", func(c Catalogue) Catalogue { c.Undeclared = r.FormValue("undeclared"); return c })
	})
}

// changed edits the catalogue of the product that a form is about.
func (s *Service) changed(r *http.Request, said string, edit func(Catalogue) Catalogue) (string, error) {
	id := r.PathValue("id")
	t, err := s.catalogued(r.Context(), tenant.CatalogueWrite, id)
	if err != nil {
		return "", err
	}
	v, err := s.editCatalogue(r.Context(), t, id, actor(r.Context()).ID, func(c Catalogue) (Catalogue, error) { return edit(c), nil })
	if err == nil {
		what := "What becomes of undeclared fields "
		if f := r.FormValue("field"); f != "" {
			what = f + " "
		}
		console.Say(r, what+said+": version "+strconv.FormatInt(v.Version, 10)+" of the catalogue.")
	}
	return "/data/products/" + id, err
}

// fieldForm reads a field; a box that is empty says nothing.
func fieldForm(r *http.Request) (f Field, err error) {
	f = Field{Stream: r.FormValue("stream"), Name: r.FormValue("name"), Type: FieldType(r.FormValue("type")), Unit: r.FormValue("unit"),
		Purpose: r.FormValue("purpose"), Personal: r.FormValue("personal") != ""}
	if v := r.FormValue("retention_days"); v != "" {
		if f.Retention, err = strconv.Atoi(v); err != nil {
			return f, problem.Invalid("%q is no number of days.", cut(v)).At("retention_days")
		}
	}
	for name, into := range map[string]**float64{"min": &f.Min, "max": &f.Max} {
		if v := r.FormValue(name); v != "" {
			x, err := strconv.ParseFloat(v, 64)
			if err != nil {
				return f, problem.Invalid("%q is no number.", cut(v)).At(name)
			}
			*into = &x
		}
	}
	return f, nil
}

// productLines are the products that whoever asks may read.
func (s *Service) productLines(ctx context.Context) (out []productLine, err error) {
	t := tenant.MustTenant(ctx)
	ps, err := s.cfg.Product.List(ctx, t)
	if err != nil {
		return nil, err
	}
	for _, p := range ps {
		if !tenant.Can(actor(ctx), tenant.ProductRead, tenant.Thing{Tenant: t, Product: p.ID}) {
			continue
		}
		v, err := s.Catalogue(ctx, t, p.ID)
		if err != nil {
			return nil, err
		}
		out = append(out, productLine{p, v})
	}
	return out, nil
}

// unknown are the undeclared fields of a product.
func (s *Service) unknown(ctx context.Context, p product.Product) (out []unknownField, err error) {
	us, err := s.Undeclared(ctx, p.Tenant, p.ID)
	may := tenant.Can(actor(ctx), tenant.CatalogueWrite, tenant.Thing{Tenant: p.Tenant, Product: p.ID})
	for _, u := range us {
		out = append(out, unknownField{u, p, may})
	}
	return out, err
}

func (s *Service) cataloguePage(c *console.Console) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		ctx := r.Context()
		t, err := s.catalogued(ctx, tenant.ProductRead, r.PathValue("id"))
		if err != nil {
			return nil, err
		}
		p := cataloguePage{Names: c.Names(ctx), Typed: console.Typed(r), Types: []console.Option{{Value: string(Number), Word: "number"}, {Value: string(Integer), Word: "integer"}, {Value: string(Boolean), Word: "boolean"}}}
		if p.Product, err = s.cfg.Product.Get(ctx, t, r.PathValue("id")); err != nil {
			return nil, err
		}
		p.MayWrite = tenant.Can(actor(ctx), tenant.CatalogueWrite, tenant.Thing{Tenant: t, Product: p.ID})
		if p.Catalogue, err = s.Catalogue(ctx, t, p.ID); err != nil {
			return nil, err
		}
		if p.Days, err = s.Retention(ctx, t); err != nil {
			return nil, err
		}
		p.Unknown, err = s.unknown(ctx, p.Product)
		return p, err
	}
}

func (s *Service) sharesPage(c *console.Console) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		ctx := r.Context()
		p := sharesPage{Names: c.Names(ctx), Typed: console.Typed(r)}
		shs, err := s.shares(ctx, "", sharesShown+1)
		if err != nil {
			return nil, err
		}
		p.Shares, p.More = shs[:min(len(shs), sharesShown)], len(shs) > sharesShown
		sols, err := s.cfg.Tenants.Seen(ctx, tenant.DataShare)
		for _, sol := range sols {
			p.Solutions = append(p.Solutions, console.Option{Value: sol.ID, Word: sol.Path})
		}
		return p, err
	}
}
