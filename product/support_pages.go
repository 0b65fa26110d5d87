// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"context"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

// supportPart is the support on the product's page: the bars and how ready the product is.
type supportPart struct {
	Product   string
	Bars      []supportBar
	Readiness Readiness
	Public    string // address of the public page; empty while there is none
}

// supportPage is the page where support is declared, cohort by cohort.
type supportPage struct {
	supportPart
	Name      string
	Revisions []Revision
	Cohorts   []cohortCard
	Factors   []struct{ ID, Words string }
	MayWrite  bool
	Names     *console.Names
}

// Heading is the page's title.
func (p supportPage) Heading() string { return p.Name + ": support" }

// cohortCard is one cohort on the support page.
type cohortCard struct {
	CohortOut
	Bar        supportBar
	Revision   string
	MissWords  string
	Dirty      bool // the draft differs from what is published
	Ended      bool
	Late       bool // units may no longer be placed under this end, and the cohort is open
	Successors []Revision
	Transition *Transition // once the end is near
}

func (s *Service) supportPages(c *console.Console) {
	const read, write = string(tenant.ProductRead), string(tenant.ProductWrite)
	c.Fragment("product", console.Fragment{Order: 44, Title: "Support", Verb: read, FS: pagesFS, Template: "pages/support_part.html",
		Load: func(r *http.Request, id string) (any, error) { return s.supportPart(r.Context(), id) }})
	c.Page(console.Page{Path: "/products/{id}/support", Title: "Support", Menu: "Products", Verb: read, FS: pagesFS, Template: "pages/support.html",
		Load: func(r *http.Request) (any, error) {
			p, err := s.supportPage(r.Context(), r.PathValue("id"))
			p.MayWrite, p.Names = tenant.Holds(r.Context(), write), c.Names(r.Context())
			return p, err
		}})
	form := func(path string, fn func(ctx context.Context, r *http.Request) (product, said string, err error)) {
		c.Form(path, write, func(r *http.Request) (string, error) {
			product, said, err := fn(r.Context(), r)
			if err == nil {
				console.Say(r, said)
			}
			return "/products/" + product + "/support", err
		})
	}
	form("/products/{id}/cohorts", func(ctx context.Context, r *http.Request) (string, string, error) {
		d, err := declarationForm(r)
		if err != nil {
			return "", "", err
		}
		co, err := s.addCohort(ctx, r.FormValue("revision"), r.FormValue("name"), d)
		return co.Product, "The placement cohort " + co.Name + " is prepared. Publish it when it is complete.", err
	})
	form("/cohorts/{id}", func(ctx context.Context, r *http.Request) (string, string, error) {
		d, err := declarationForm(r)
		if err != nil {
			return "", "", err
		}
		co, err := s.prepare(ctx, r.PathValue("id"), d)
		return co.Product, "The draft of " + co.Name + " is kept. Nothing changes for buyers until it is published.", err
	})
	form("/cohorts/{id}/publish", func(ctx context.Context, r *http.Request) (string, string, error) {
		co, err := s.publish(ctx, r.PathValue("id"))
		if err != nil {
			return "", "", err
		}
		return co.Product, "Support of " + co.Name + " until the end of " + co.Public.SupportEnd.Words() + " is published.", nil
	})
	form("/cohorts/{id}/decisions", func(ctx context.Context, r *http.Request) (string, string, error) {
		d, err := s.decideEnd(ctx, EndDecision{Cohort: r.PathValue("id"), Kind: r.FormValue("kind"), Successor: r.FormValue("successor"), Reason: r.FormValue("reason")})
		if err != nil {
			return "", "", err
		}
		co, err := s.Cohort(ctx, tenant.MustTenant(ctx), d.Cohort)
		return co.Product, "The decision is on record.", err
	})
	form("/revisions/{id}/enrol-leave", func(ctx context.Context, r *http.Request) (string, string, error) {
		until, err := day(r, "until")
		if err != nil {
			return "", "", err
		}
		l, err := s.allowEnrol(ctx, Leave{Revision: r.PathValue("id"), Reason: r.FormValue("reason"), Until: until.Add(24*time.Hour - time.Millisecond)})
		if err != nil {
			return "", "", err
		}
		v, err := s.Revision(ctx, tenant.MustTenant(ctx), l.Revision)
		return v.Product, "New units of " + v.Name + " get identities until " + l.Until.UTC().Format("2006-01-02 15:04 UTC") + ".", err
	})
	c.Page(console.Page{Path: "/ends", Title: "Calendar of ends", Menu: "Products", Verb: read, FS: pagesFS, Template: "pages/ends.html",
		Load: func(r *http.Request) (any, error) {
			es, err := s.ends(r.Context())
			return endsPage{byMonth(es), dayOf(s.now())}, err
		}})
	s.informationPages(c)
	s.cessationPages(c)
	s.publicPages(c)
}

func (s *Service) supportPart(ctx context.Context, id string) (p supportPart, err error) {
	t := tenant.MustTenant(ctx)
	cs, err := s.Cohorts(ctx, t, id)
	if err != nil {
		return p, err
	}
	vs, err := s.Revisions(ctx, t, id)
	if err != nil {
		return p, err
	}
	name := func(revision string) string {
		for _, v := range vs {
			if v.ID == revision {
				return v.Name
			}
		}
		return revision
	}
	p.Product, p.Bars = id, bars(cs, name, s.now())
	if p.Readiness, err = s.Readiness(ctx, t, id); err != nil {
		return p, err
	}
	page, err := s.page(ctx, id)
	if page.Version > 0 || slices.ContainsFunc(cs, func(c Cohort) bool { return c.Public != nil }) {
		p.Public = "/p/" + id
	}
	return p, err
}

func (s *Service) supportPage(ctx context.Context, id string) (p supportPage, err error) {
	prd, err := s.read(ctx, id)
	if err != nil {
		return p, err
	}
	if p.supportPart, err = s.supportPart(ctx, id); err != nil {
		return p, err
	}
	p.Name, p.Revisions, p.Factors = prd.Name, prd.Revisions, Factors
	today := dayOf(s.now())
	for _, b := range p.Bars {
		b.Named = true
		out, err := s.readCohort(ctx, b.Cohort.ID)
		if err != nil {
			return p, err
		}
		card := cohortCard{CohortOut: out, Bar: b, Revision: b.Revision, MissWords: list(out.Missing), Ended: out.Cohort.Ended(s.now())}
		card.Dirty = out.Public == nil || !same(out.Draft, out.Public.Declaration)
		card.Late = out.Declared().LastPlaced == "" && today > out.PlaceUntil
		card.Successors = slices.DeleteFunc(slices.Clone(prd.Revisions), func(v Revision) bool { return v.ID == out.Cohort.Revision })
		if s.cfg.Running != nil && out.Months <= Steps[0] {
			t, err := s.Transition(ctx, prd.Tenant, out.ID)
			if err != nil {
				return p, err
			}
			card.Transition = &t
		}
		p.Cohorts = append(p.Cohorts, card)
	}
	return p, nil
}

// Options are the hardware revisions as choices.
func (p supportPage) Options() (out []console.Option) {
	for _, v := range p.Revisions {
		out = append(out, console.Option{Value: v.ID, Word: v.Name})
	}
	return out
}

// Follows are the hardware revisions that could follow.
func (c cohortCard) Follows() []console.Option {
	out := []console.Option{{Value: "", Word: "–"}}
	for _, v := range c.Successors {
		out = append(out, console.Option{Value: v.ID, Word: v.Name})
	}
	return out
}

// EndKinds are the decisions as choices.
func (p supportPage) EndKinds() []console.Option {
	return []console.Option{{Value: EndExtend, Word: "Extend: publish a later end"}, {Value: EndSuccessor, Word: "Successor: lead users to other hardware"},
		{Value: EndRestrict, Word: "Restrict: reduce it to what is safe without updates"}, {Value: EndIsolate, Word: "Isolate: it stays in use without a network"}}
}

// Blank is the declaration that a new cohort begins with.
func (p supportPage) Blank() Declaration { return Declaration{Zone: "Europe/Brussels"} }

// declarationForm reads a declaration from a form.
func declarationForm(r *http.Request) (Declaration, error) {
	use, err := console.Number(r, "expected_use_months")
	if err != nil {
		return Declaration{}, err
	}
	d := Declaration{
		FirstPlaced: Day(r.FormValue("first_placed")), LastPlaced: Day(r.FormValue("last_placed")), SupportEnd: Month(r.FormValue("support_end")), Zone: strings.TrimSpace(r.FormValue("zone")),
		ExpectedUse: int(use), Justification: text(r, "justification"), SecuritySupport: text(r, "security_support"), UpdatePolicy: text(r, "update_policy"),
		FeatureEnd: Day(r.FormValue("feature_end")), SalesEnd: Day(r.FormValue("sales_end")), ServiceEnd: Day(r.FormValue("service_end")),
		LatestOnly: r.FormValue("latest_only") != "", LatestTerms: text(r, "latest_terms"), DecidedBy: text(r, "decided_by"), ApprovedBy: text(r, "approved_by"),
	}
	for _, f := range Factors {
		if v := text(r, "factor-"+f.ID); v != "" {
			if d.Factors == nil {
				d.Factors = map[string]string{}
			}
			d.Factors[f.ID] = v
		}
	}
	if d.ExpectedUse < 0 {
		return d, problem.Invalid("The expected use is 0 to 1200 months.").At("expected_use_months")
	}
	return d, nil
}

// text reads a field without the blanks around it and with the line ends of one kind.
func text(r *http.Request, name string) string {
	return strings.TrimSpace(strings.ReplaceAll(r.FormValue(name), "\r\n", "\n"))
}

// endsPage is the calendar of ends.
type endsPage struct {
	Months []endsMonth
	Today  Day
}

type endsMonth struct {
	Month Month
	Ends  []EndDate
}

// Past says whether the day is over.
func (p endsPage) Past(d Day) bool { return d < p.Today }

func byMonth(es []EndDate) (out []endsMonth) {
	for _, e := range es {
		m := Month(e.Day[:len("2006-01")])
		if len(out) == 0 || out[len(out)-1].Month != m {
			out = append(out, endsMonth{Month: m})
		}
		out[len(out)-1].Ends = append(out[len(out)-1].Ends, e)
	}
	return out
}

// saleLine is the text for a shop in one language.
type saleLine struct{ Lang, Text string }

// salePage is what stands at the point of sale: the end of support at the time of purchase (CRA article 13(19)).
type salePage struct {
	Name    string
	Product string
	URL     string
	QR      template.HTML
	Cohorts []saleCohort
}

// Heading is the page's title.
func (p salePage) Heading() string { return p.Name + ": point of sale" }

type saleCohort struct {
	Revision, Name string
	Lines          []saleLine
}
