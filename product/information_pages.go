// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"context"
	"net/http"
	"slices"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/tenant"
)

type informationIn struct {
	ID   string `path:"id" doc:"Product"`
	Lang string `path:"lang" doc:"Language: en or de"`
}

type itemIn struct {
	ID   string `path:"id" doc:"Product"`
	Lang string `path:"lang" doc:"Language: en or de"`
	Item string `path:"item" doc:"Row of Annex II, such as cra.ii.10"`
	Body struct {
		Text   string `json:"text" maxLength:"16000" doc:"Empty takes the item away"`
		Absent bool   `json:"not_applicable,omitempty" required:"false" doc:"It does not apply; text says why"`
	}
}

func (s *Service) informationRoutes(a *api.API) {
	const stage, read, write = "product", string(tenant.ProductRead), string(tenant.ProductWrite)
	api.Handle(a, api.Op{ID: "list-information", Method: "GET", Path: "/v1/products/{id}/information/{lang}", Verb: read, Stage: stage,
		Summary: "Read the user information of a product (CRA Annex II) as it is being prepared"}, func(ctx context.Context, in *informationIn) (*api.List[Item], error) {
		p, err := s.read(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		items, err := s.Information(ctx, p.Tenant, p.ID, in.Lang)
		return api.Items(items), err
	})
	api.Handle(a, api.Op{ID: "set-information", Method: "PUT", Path: "/v1/products/{id}/information/{lang}/{item}", Verb: write, Stage: stage,
		Summary: "Fill an item of the user information of a product"}, func(ctx context.Context, in *itemIn) (*api.List[Item], error) {
		items, err := s.setItem(ctx, in.ID, in.Lang, Item{ID: in.Item, Text: in.Body.Text, Absent: in.Body.Absent})
		return api.Items(items), err
	})
	api.Handle(a, api.Op{ID: "publish-information", Method: "POST", Path: "/v1/products/{id}/information", Verb: write, Stage: stage, Status: 201,
		Summary: "Publish the user information of a product as its next version"}, func(ctx context.Context, in *byID) (*api.Out[Page], error) {
		p, err := s.publishPage(ctx, in.ID)
		return api.One(p), err
	})
	api.Handle(a, api.Op{ID: "get-readiness", Method: "GET", Path: "/v1/products/{id}/readiness", Verb: read, Stage: stage,
		Summary: "Count what a product has of what it needs before it is sold"}, func(ctx context.Context, in *byID) (*api.Out[Readiness], error) {
		p, err := s.read(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		r, err := s.Readiness(ctx, p.Tenant, p.ID)
		return api.One(r), err
	})
}

func (s *Service) setItem(ctx context.Context, product, lang string, i Item) ([]Item, error) {
	t, actor, err := s.mayWrite(ctx, product)
	if err != nil {
		return nil, err
	}
	if err := s.SetItem(ctx, t, product, lang, i, actor); err != nil {
		return nil, err
	}
	return s.Information(ctx, t, product, lang)
}

func (s *Service) publishPage(ctx context.Context, product string) (Page, error) {
	t, actor, err := s.mayWrite(ctx, product)
	if err != nil {
		return Page{}, err
	}
	return s.PublishPage(ctx, t, product, actor)
}

type informationPage struct {
	Product, Name, Model string
	Lang                 string
	Langs                []string
	Items                []Item
	Given                int
	Page                 Page
	Public               string
	MayWrite             bool
}

// Heading is the page's title.
func (p informationPage) Heading() string { return p.Name + ": user information" }

func (s *Service) informationPages(c *console.Console) {
	const read, write = string(tenant.ProductRead), string(tenant.ProductWrite)
	c.Page(console.Page{Path: "/products/{id}/information", Title: "User information", Menu: "Products", Verb: read, FS: pagesFS, Template: "pages/information.html",
		Load: func(r *http.Request) (any, error) {
			prd, err := s.read(r.Context(), r.PathValue("id"))
			if err != nil {
				return nil, err
			}
			p := informationPage{Product: prd.ID, Name: prd.Name, Model: prd.Model, Lang: Languages[0], Langs: Languages, MayWrite: tenant.Holds(r.Context(), write)}
			if l := r.URL.Query().Get("lang"); slices.Contains(Languages, l) {
				p.Lang = l
			}
			if p.Items, err = s.Information(r.Context(), prd.Tenant, prd.ID, p.Lang); err != nil {
				return nil, err
			}
			for _, i := range p.Items {
				if i.Given {
					p.Given++
				}
			}
			p.Page, err = s.page(r.Context(), prd.ID)
			if p.Page.Version > 0 {
				p.Public = "/p/" + prd.ID
			}
			return p, err
		}})
	c.Form("/products/{id}/information", write, func(r *http.Request) (string, error) {
		lang := r.FormValue("lang")
		_, err := s.setItem(r.Context(), r.PathValue("id"), lang, Item{ID: r.FormValue("item"), Text: text(r, "text"), Absent: r.FormValue("not_applicable") != ""})
		if err == nil {
			console.Say(r, "The item is kept. Users read it once the user information is published.")
		}
		return "/products/" + r.PathValue("id") + "/information?lang=" + lang + "#" + r.FormValue("item"), err
	})
	c.Form("/products/{id}/information/publish", write, func(r *http.Request) (string, error) {
		p, err := s.publishPage(r.Context(), r.PathValue("id"))
		if err == nil {
			console.Say(r, "Version "+console.Count(p.Version)+" of the user information is published.")
		}
		return "/products/" + r.PathValue("id") + "/information", err
	})
	c.Page(console.Page{Path: "/products/{id}/point-of-sale", Title: "Point of sale", Menu: "Products", Verb: read, FS: pagesFS, Template: "pages/sale.html",
		Load: func(r *http.Request) (any, error) {
			prd, err := s.read(r.Context(), r.PathValue("id"))
			if err != nil {
				return nil, err
			}
			p := salePage{Name: prd.Name, Product: prd.ID, URL: s.PublicURL(prd.ID)}
			if p.QR, err = console.QR(p.URL, "QR code of "+p.URL); err != nil {
				return nil, err
			}
			cs, err := s.Cohorts(r.Context(), prd.Tenant, prd.ID)
			for _, co := range cs {
				if co.Public == nil || co.Ended(s.now()) {
					continue
				}
				sc := saleCohort{Name: co.Name}
				if at := slices.IndexFunc(prd.Revisions, func(v Revision) bool { return v.ID == co.Revision }); at >= 0 {
					sc.Revision = prd.Revisions[at].Name
				}
				for _, l := range Languages {
					sc.Lines = append(sc.Lines, saleLine{l, publicWords[l]["until"] + " " + localMonth(l, co.Public.SupportEnd)})
				}
				p.Cohorts = append(p.Cohorts, sc)
			}
			return p, err
		}})
}
