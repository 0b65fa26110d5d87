// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"embed"
	"html/template"
	"net/http"
	"net/url"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

type listPage struct {
	Products []Product
	MayWrite bool
	Typed    url.Values
}

type productPage struct {
	ProductOut
	MayWrite bool
	Typed    url.Values
	Slot     template.HTML
}

// Heading is the page's title.
func (p productPage) Heading() string { return p.Name }

// Pages mounts the console pages. /products/{id} is shared with later stages: the slot "product".
func (s *Service) Pages(c *console.Console) {
	c.Page(console.Page{Path: "/products", Title: "Products", Menu: "Products", Verb: string(tenant.ProductRead), FS: pagesFS, Template: "pages/products.html",
		Load: func(r *http.Request) (any, error) {
			ps, err := s.readable(r.Context())
			return listPage{Products: ps, MayWrite: tenant.Holds(r.Context(), string(tenant.ProductWrite)), Typed: console.Typed(r)}, err
		}})
	c.Page(console.Page{Path: "/products/{id}", Title: "Product", Menu: "Products", Verb: string(tenant.ProductRead), FS: pagesFS, Template: "pages/product.html",
		Load: func(r *http.Request) (any, error) {
			p, err := s.read(r.Context(), r.PathValue("id"))
			if err != nil {
				return nil, err
			}
			return productPage{ProductOut: p, MayWrite: tenant.Holds(r.Context(), string(tenant.ProductWrite)), Typed: console.Typed(r),
				Slot: c.Slot("product").Render(r, p.ID)}, nil
		}})
	c.Form("/products", string(tenant.ProductWrite), func(r *http.Request) (string, error) {
		p, err := s.create(r.Context(), Product{Name: r.FormValue("name"), Model: r.FormValue("model")})
		if err == nil {
			console.Say(r, p.Name+" is created. Add its first hardware revision.")
		}
		return "/products/" + p.ID, err
	})
	c.Form("/products/{id}/revisions", string(tenant.ProductWrite), func(r *http.Request) (string, error) {
		placed, err := day(r, "placed")
		if err != nil {
			return "", err
		}
		end, err := day(r, "support_end")
		if err != nil {
			return "", err
		}
		v, err := s.addRevision(r.Context(), Revision{Product: r.PathValue("id"), Name: r.FormValue("name"), Placed: placed, SupportEnd: end, Reason: r.FormValue("reason")})
		if err == nil {
			console.Say(r, "Hardware revision "+v.Name+" is created.")
		}
		return "/products/" + r.PathValue("id"), err
	})
	s.baselinePages(c)
	s.availabilityPages(c)
	s.supportPages(c)
	c.Step(console.Step{Order: 10, Title: "Describe what you sell", Text: "A product and its hardware revision, with the end of its support.", Href: "/products", Button: "Describe a product",
		Done: s.started})
}

// day reads a field of type date; empty is the zero time.
func day(r *http.Request, name string) (time.Time, error) {
	v := r.FormValue(name)
	if v == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.DateOnly, v)
	if err != nil {
		return time.Time{}, problem.Invalid("%q is not a day such as 2031-12-31.", v).At(name)
	}
	return t, nil
}
