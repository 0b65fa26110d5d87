// SPDX-License-Identifier: AGPL-3.0-only

package conform

import (
	"context"
	"embed"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

// head is what every page of a product shows.
type head struct {
	Title            string
	ID               string // of the product
	MayWrite, MaySig bool
	Me               string // id of the visitor
	Typed            url.Values
	Names            *console.Names
}

// Heading is the page's title.
func (h head) Heading() string { return h.Title }

func (s *Service) head(r *http.Request, c *console.Console, on caller, title string) (head, error) {
	p, err := s.cfg.Products.Get(r.Context(), on.tenant, on.product)
	thing := tenant.Thing{Tenant: on.tenant, Product: on.product}
	who, _ := tenant.ActorFrom(r.Context())
	return head{Title: p.Name + ": " + title, ID: on.product, MayWrite: tenant.Can(who, tenant.ConformWrite, thing), MaySig: tenant.Can(who, tenant.ConformSign, thing), Me: who.ID,
		Typed: console.Typed(r), Names: c.Names(r.Context())}, err
}

// Pages mounts the console pages and the parts of other stages' pages.
func (s *Service) Pages(c *console.Console) {
	s.lawPages(c)
	s.conformityPages(c)
	s.riskPages(c)
	s.registerPages(c)
	s.modificationPages(c)
}

func (s *Service) lawPages(c *console.Console) {
	c.Page(console.Page{Path: "/law", Title: "Law", Menu: "Law", Tab: "Rules", TabOrder: 10, Verb: mayRead, FS: pagesFS, Template: "pages/law.html",
		Load: func(*http.Request) (any, error) {
			list, stale := rules(s.now())
			return struct {
				Rules     []RuleView
				Stale     int
				Glossary  law.Glossary
				Citations []law.Citation
			}{list, stale, law.NewestSRP(), law.Citations()}, nil
		}})
}

// conformityPage is the class and the route of a product.
type conformityPage struct {
	head
	Class      Classified
	Route      Route
	Categories []law.Category
	Picks      []console.Option
	Modules    []console.Option
	Items      []Item
	Past       []Classified
}

// Integrates says whether a category is among those of integrated components.
func (p conformityPage) Integrates(id string) bool { return slices.Contains(p.Class.Integrates, id) }

// Category is the category of the core functionality.
func (p conformityPage) Category() law.Category {
	c, _ := law.CategoryOf(p.Class.Category)
	return c
}

// Done counts what is there.
func Done(items []Item) (n int) {
	for _, i := range items {
		if i.Done {
			n++
		}
	}
	return n
}

// Done counts what is there.
func (p conformityPage) Done() int { return Done(p.Items) }

func (s *Service) conformityPages(c *console.Console) {
	c.Page(console.Page{Path: "/products/{id}/conformity", Title: "Class and route", Menu: "Products", Verb: mayRead, FS: pagesFS, Template: "pages/conformity.html",
		Load: func(r *http.Request) (any, error) {
			on, err := s.on(r.Context(), tenant.ProductRead, r.PathValue("id"))
			if err != nil {
				return nil, err
			}
			p := conformityPage{Categories: law.Classes(), Picks: []console.Option{{Value: "", Word: "None of these: the default class"}}}
			for _, x := range p.Categories {
				p.Picks = append(p.Picks, console.Option{Value: x.ID, Word: x.Class.Name() + ", " + strconv.Itoa(x.Number) + ": " + x.Title})
			}
			if p.head, err = s.head(r, c, on, "class and route"); err != nil {
				return nil, err
			}
			if p.Class, err = s.Classified(r.Context(), on.tenant, on.product); err != nil {
				return nil, err
			}
			if p.Route, err = s.Route(r.Context(), on.tenant, on.product); err != nil {
				return nil, err
			}
			for _, o := range p.Route.Options {
				p.Modules = append(p.Modules, console.Option{Value: string(o.Module), Word: o.Name})
			}
			if p.Past, err = s.Classifications(r.Context(), on.tenant, on.product, 0, 20); err != nil {
				return nil, err
			}
			p.Items, err = s.Readiness(r.Context(), on.tenant, on.product)
			return p, err
		}})
	c.Fragment("product", console.Fragment{Order: 56, Title: "Conformity", Verb: mayRead, FS: pagesFS, Template: "pages/product.html",
		Load: func(r *http.Request, id string) (any, error) { return s.productPart(r.Context(), id) }})
	c.Form("/products/{id}/classification", mayWrite, func(r *http.Request) (string, error) {
		on, err := s.on(r.Context(), tenant.ConformWrite, r.PathValue("id"))
		if err != nil {
			return "", err
		}
		x, err := s.Classify(r.Context(), on.tenant, on.product, on.actor, Classification{Core: r.FormValue("core"), Category: r.FormValue("category"),
			Integrates: r.Form["integrates"], Reason: r.FormValue("reason")})
		if err == nil {
			console.Say(r, "Version "+decimal(x.Version)+" is recorded: "+x.ClassName+". A second person confirms it.")
		}
		return at(on.product, "/conformity"), err
	})
	c.Form("/products/{id}/classification/confirm", maySign, func(r *http.Request) (string, error) {
		on, err := s.on(r.Context(), tenant.ConformSign, r.PathValue("id"))
		if err != nil {
			return "", err
		}
		n, err := console.Number(r, "version")
		if err != nil {
			return "", err
		}
		if _, err = s.Confirm(r.Context(), on.tenant, on.product, on.actor, n, r.FormValue("note")); err == nil {
			console.Say(r, "The class is confirmed.")
		}
		return at(on.product, "/conformity"), err
	})
	c.Form("/products/{id}/conformity-route", maySign, func(r *http.Request) (string, error) {
		on, err := s.on(r.Context(), tenant.ConformSign, r.PathValue("id"))
		if err != nil {
			return "", err
		}
		if _, err = s.ChooseRoute(r.Context(), on.tenant, on.product, on.actor, Choice{Module: Module(r.FormValue("module")), Reason: r.FormValue("route_reason"),
			Claims: Claims{OpenSource: r.FormValue("open_source") != "", PublicDocs: strings.TrimSpace(r.FormValue("public_docs")), Standards: lines(r.FormValue("standards"))}}); err == nil {
			console.Say(r, "The route is recorded.")
		}
		return at(on.product, "/conformity#route"), err
	})
}

// at is a page of a product.
func at(product, page string) string { return "/products/" + url.PathEscape(product) + page }

// lines are the lines of a text that say something.
func lines(text string) (out []string) {
	for l := range strings.Lines(text) {
		if l = strings.TrimSpace(l); l != "" {
			out = append(out, l)
		}
	}
	return out
}

// productPart is what the product's page shows.
type productPart struct {
	Product  string
	Class    Classified
	Route    Route
	Decided  int
	Rows     int
	Sealed   Stamp
	Due      int
	Register int
	Waiting  int // components that need a review
	Endings  []Ending
}

// Module is the chosen procedure in words.
func (p productPart) Module() string { return p.Route.Module.Name() }

func (s *Service) productPart(ctx context.Context, id string) (any, error) {
	on, err := s.on(ctx, tenant.ProductRead, id)
	if err != nil {
		return nil, err
	}
	p := productPart{Product: id}
	if err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		if p.Class, err = classified(tx, on.tenant, id); err != nil {
			return err
		}
		if p.Route, err = s.route(tx, on.tenant, id); err != nil {
			return err
		}
		d, err := draft(tx, on.tenant, id)
		p.Decided, p.Rows, p.Sealed, p.Due = d.Decided(), len(d.Rows), d.Sealed, len(d.Due)
		return err
	}); err != nil {
		return nil, err
	}
	list, err := s.whole(ctx, on.tenant, id)
	if err != nil {
		return nil, err
	}
	end, err := s.SupportEnd(ctx, on.tenant, id)
	if err != nil {
		return nil, err
	}
	p.Register, p.Endings = len(list), endings(id, list, end)
	for _, e := range list {
		if e.State != "current" {
			p.Waiting++
		}
	}
	return p, nil
}

// registerPage is a page of the register.
type registerPage struct {
	Product  string
	Name     string // of the product
	Due      bool
	Entries  []Entry
	All      int
	Waiting  int
	Endings  []Ending
	Settings Settings
	MaySig   bool
	Pager    console.Pager
	Names    *console.Names
	Typed    url.Values
}

// Heading is the page's title.
func (p registerPage) Heading() string {
	if p.Name != "" {
		return p.Name + ": components"
	}
	return "Components"
}

// pageSize is how many lines of the register a page shows.
const pageSize = 100

func (s *Service) registerPages(c *console.Console) {
	c.Page(console.Page{Path: "/components", Title: "Components", Menu: "Products", Verb: mayRead, FS: pagesFS, Template: "pages/components.html",
		Load: func(r *http.Request) (any, error) {
			q := r.URL.Query()
			on, err := s.onRegister(r.Context(), tenant.ProductRead, q.Get("product"))
			if err != nil {
				return nil, err
			}
			p := registerPage{Product: on.product, Due: q.Get("due") != "", Names: c.Names(r.Context()), Typed: console.Typed(r), MaySig: tenant.Holds(r.Context(), maySign)}
			list, err := s.whole(r.Context(), on.tenant, on.product)
			if err != nil {
				return nil, err
			}
			if p.Settings, _, err = s.Settings(r.Context(), on.tenant); err != nil {
				return nil, err
			}
			if on.product != "" {
				x, err := s.cfg.Products.Get(r.Context(), on.tenant, on.product)
				if err != nil {
					return nil, err
				}
				end, err := s.SupportEnd(r.Context(), on.tenant, on.product)
				if err != nil {
					return nil, err
				}
				p.Name, p.Endings = x.Name, endings(on.product, list, end)
			}
			p.All = len(list)
			waits := func(e Entry) bool { return e.State != "current" }
			for _, e := range list {
				if waits(e) {
					p.Waiting++
				}
			}
			list = slices.DeleteFunc(list, func(e Entry) bool { return e.Name <= q.Get("after") || p.Due && !waits(e) })
			p.Entries = list[:min(len(list), pageSize)]
			if len(list) > pageSize {
				q.Set("after", p.Entries[pageSize-1].Name)
				p.Pager.Next = "/components?" + q.Encode()
			}
			if q.Get("after") != "" && p.Pager.Next == "" {
				q.Del("after")
				p.Pager.First = "/components?" + q.Encode()
			}
			return p, nil
		}})
	c.Page(console.Page{Path: "/components/review", Title: "Component", Menu: "Products", Verb: mayRead, FS: pagesFS, Template: "pages/component.html",
		Load: func(r *http.Request) (any, error) {
			on, err := s.onRegister(r.Context(), tenant.ProductRead, "")
			if err != nil {
				return nil, err
			}
			e, err := s.Entry(r.Context(), on.tenant, r.URL.Query().Get("name"))
			return componentPage{e, tenant.Holds(r.Context(), mayWrite), c.Names(r.Context()), console.Typed(r)}, err
		}})
	c.Form("/components/review", mayWrite, func(r *http.Request) (string, error) {
		on, err := s.onRegister(r.Context(), tenant.ConformWrite, "")
		if err != nil {
			return "", err
		}
		x := Component{Supplier: r.FormValue("supplier"), Contact: r.FormValue("contact"), Marking: r.FormValue("marking"), Note: r.FormValue("note")}
		if day := r.FormValue("support_end"); day != "" {
			if x.SupportEnd, err = time.Parse(time.DateOnly, day); err != nil {
				return "", problem.Invalid("A day looks like 2031-06-30.").At("support_end")
			}
		}
		e, err := s.Review(r.Context(), on.tenant, r.FormValue("name"), on.actor, x)
		if err == nil {
			console.Say(r, "The review of "+e.Title+" is recorded.")
		}
		return "/components/review?name=" + url.QueryEscape(r.FormValue("name")), err
	})
	c.Form("/components/settings", maySign, func(r *http.Request) (string, error) {
		on, err := s.onRegister(r.Context(), tenant.ConformSign, "")
		if err != nil {
			return "", err
		}
		n, err := console.Number(r, "months")
		if err != nil {
			return "", err
		}
		if err = s.Set(r.Context(), on.tenant, on.actor, Settings{Screen: r.FormValue("screen") != "", Months: n}); err == nil {
			console.Say(r, "This holds from now on.")
		}
		return "/components", err
	})
}

// componentPage is one component with its newest review.
type componentPage struct {
	Entry
	MayWrite bool
	Names    *console.Names
	Typed    url.Values
}

// Heading is the page's title.
func (p componentPage) Heading() string { return p.Title }

// Day is the end of support as a form's field takes it.
func (p componentPage) Day() string {
	if p.SupportEnd.IsZero() {
		return ""
	}
	return p.SupportEnd.UTC().Format(time.DateOnly)
}
