// SPDX-License-Identifier: AGPL-3.0-only

package conform

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

// riskPage is the draft of the risk assessment with its forms.
type riskPage struct {
	head
	Draft
	Past []Assessment
}

// Lines are links as a form's field takes them.
func (r Row) Lines() string { return strings.Join(r.Evidence, "\n") }

// Part is the part of Annex I that the row stands in.
func (r Row) Part() string {
	if strings.HasPrefix(r.ID, "cra.i.2.") {
		return "Annex I Part II: handling of vulnerabilities"
	}
	return "Annex I Part I: properties of the product"
}

// Offers are the answers that a row takes.
func (r Row) Offers() []console.Option {
	list := []console.Option{{Value: "yes", Word: "Applies"}}
	if r.MayNotApply() {
		list = append(list, console.Option{Value: "no", Word: "Does not apply"})
	}
	return list
}

// Group is a part of the annex with its rows.
type Group struct {
	Title string
	Rows  []Row
}

// grouped cuts the rows at the parts of the annex.
func grouped(rows []Row) (out []Group) {
	for _, r := range rows {
		if len(out) == 0 || out[len(out)-1].Title != r.Part() {
			out = append(out, Group{Title: r.Part()})
		}
		g := &out[len(out)-1]
		g.Rows = append(g.Rows, r)
	}
	return out
}

// Groups are the rows of the draft, by part of the annex.
func (d Draft) Groups() []Group { return grouped(d.Rows) }

// Groups are the rows of the assessment, by part of the annex.
func (a Assessment) Groups() []Group { return grouped(a.Rows) }

// sealed reads a version that an address names; "latest" is the newest.
func (s *Service) sealed(ctx context.Context, on caller, name string) (Assessment, error) {
	n, err := strconv.ParseInt(name, 10, 64)
	if name == "latest" {
		n, err = 0, nil
	} else if err == nil && n < 1 {
		err = strconv.ErrRange
	}
	if err != nil {
		return Assessment{}, problem.NotFound("There is no version %q.", name)
	}
	return s.Assessment(ctx, on.tenant, on.product, n)
}

func (s *Service) riskPages(c *console.Console) {
	c.Page(console.Page{Path: "/products/{id}/risk", Title: "Risk assessment", Menu: "Products", Verb: mayRead, FS: pagesFS, Template: "pages/risk.html",
		Load: func(r *http.Request) (any, error) {
			on, err := s.on(r.Context(), tenant.ProductRead, r.PathValue("id"))
			if err != nil {
				return nil, err
			}
			var p riskPage
			if p.head, err = s.head(r, c, on, "risk assessment"); err != nil {
				return nil, err
			}
			if p.Draft, err = s.Draft(r.Context(), on.tenant, on.product); err != nil {
				return nil, err
			}
			p.Past, err = s.Assessments(r.Context(), on.tenant, on.product, 0, 20)
			return p, err
		}})
	type assessmentPage struct {
		head
		Assessment
	}
	c.Page(console.Page{Path: "/products/{id}/risk/{version}", Title: "Risk assessment", Menu: "Products", Verb: mayRead, FS: pagesFS, Template: "pages/assessment.html",
		Load: func(r *http.Request) (any, error) {
			on, err := s.on(r.Context(), tenant.ProductRead, r.PathValue("id"))
			if err != nil {
				return nil, err
			}
			var p assessmentPage
			if p.Assessment, err = s.sealed(r.Context(), on, r.PathValue("version")); err != nil {
				return nil, err
			}
			p.head, err = s.head(r, c, on, "risk assessment, version "+decimal(p.Assessment.Version))
			return p, err
		}})
	c.Form("/products/{id}/risk/context", mayWrite, func(r *http.Request) (string, error) {
		on, err := s.on(r.Context(), tenant.ConformWrite, r.PathValue("id"))
		if err != nil {
			return "", err
		}
		years, err := console.Number(r, "years")
		if err != nil {
			return "", err
		}
		if _, err = s.SetContext(r.Context(), on.tenant, on.product, on.actor, Context{Purpose: r.FormValue("purpose"), Use: r.FormValue("use"), Environment: r.FormValue("environment"),
			Assets: r.FormValue("assets"), Threats: r.FormValue("threats"), Assumptions: r.FormValue("assumptions"), Years: years}); err == nil {
			console.Say(r, "Recorded.")
		}
		return at(on.product, "/risk"), err
	})
	c.Form("/products/{id}/risk/rows/{row}", mayWrite, func(r *http.Request) (string, error) {
		on, err := s.on(r.Context(), tenant.ConformWrite, r.PathValue("id"))
		if err != nil {
			return "", err
		}
		d, err := s.Decide(r.Context(), on.tenant, on.product, r.PathValue("row"), on.actor,
			Decision{Applies: r.FormValue("applies"), Why: r.FormValue("why"), Treatment: r.FormValue("treatment"), Evidence: lines(r.FormValue("evidence"))})
		if err == nil {
			console.Say(r, decimal(int64(d.Decided()))+" of "+decimal(int64(len(d.Rows)))+" requirements are decided.")
		}
		return at(on.product, "/risk#"+url.PathEscape(r.PathValue("row"))), err
	})
	c.Form("/products/{id}/risk/seal", maySign, func(r *http.Request) (string, error) {
		on, err := s.on(r.Context(), tenant.ConformSign, r.PathValue("id"))
		if err != nil {
			return "", err
		}
		a, err := s.Seal(r.Context(), on.tenant, on.product, on.actor, r.FormValue("note"))
		if err == nil {
			console.Say(r, "Version "+decimal(a.Version)+" is sealed.")
		}
		return at(on.product, "/risk/"+decimal(a.Version)), err
	})
	c.Fragment("today", console.Fragment{Order: 34, Title: "Risk assessments to review", Verb: mayRead, FS: pagesFS, Template: "pages/today.html",
		Load: func(r *http.Request, _ string) (any, error) { return s.todayPart(r.Context()) }})
}

// Review is a product whose risk assessment is due for review.
type Review struct {
	Product, Name string
	Due           []Due
}

// todayPart lists what is due for review in the products that the visitor may read; nil if nothing is.
func (s *Service) todayPart(ctx context.Context) (any, error) {
	who, _ := tenant.ActorFrom(ctx)
	products, err := s.cfg.Products.List(ctx, who.Tenant)
	if err != nil {
		return nil, err
	}
	var list []Review
	for _, p := range products {
		if !tenant.Can(who, tenant.ProductRead, tenant.Thing{Tenant: p.Tenant, Product: p.ID}) {
			continue
		}
		d, err := s.Draft(ctx, p.Tenant, p.ID)
		if err != nil {
			return nil, err
		}
		if len(d.Due) > 0 {
			list = append(list, Review{p.ID, p.Name, d.Due})
		}
	}
	if len(list) == 0 {
		return nil, nil
	}
	return list, nil
}

// modificationPage is the screen of a release.
type modificationPage struct {
	head
	Screened
	Version   string // of the release
	Demanded  bool
	Questions []Question
	Choices   []console.Option
}

// Said is the answer to a question as the form's field takes it: yes, no, or nothing yet.
func (p modificationPage) Said(id string) string {
	a, ok := p.Answer(id)
	if !ok {
		return ""
	}
	return yes(a.Yes)
}

// Why is the reason that was given to a question.
func (p modificationPage) Why(id string) string {
	a, _ := p.Answer(id)
	return a.Why
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// Concluded is the conclusion as the form's field takes it.
func (p modificationPage) Concluded() string {
	if p.Stamp.Version == 0 {
		return ""
	}
	return yes(p.Substantial)
}

func (s *Service) modificationPages(c *console.Console) {
	load := func(r *http.Request, release string) (p modificationPage, err error) {
		on, err := s.onRelease(r.Context(), tenant.ProductRead, release)
		if err != nil {
			return p, err
		}
		p.Version = s.cfg.Update.ReleaseName(r.Context(), on.tenant, release)
		if p.head, err = s.head(r, c, on, p.Version+", substantial modification"); err != nil {
			return p, err
		}
		set, _, err := s.Settings(r.Context(), on.tenant)
		if err != nil {
			return p, err
		}
		p.Demanded, p.Questions = set.Screen, Questions
		p.Choices = []console.Option{{Value: "", Word: "Not answered"}, {Value: "no", Word: "No"}, {Value: "yes", Word: "Yes"}}
		p.Screened, err = s.Screened(r.Context(), on.tenant, on.product, release)
		return p, err
	}
	c.Page(console.Page{Path: "/releases/{id}/modification", Title: "Substantial modification", Menu: "Releases", Verb: mayRead, FS: pagesFS, Template: "pages/modification.html",
		Load: func(r *http.Request) (any, error) { return load(r, r.PathValue("id")) }})
	c.Fragment("release", console.Fragment{Order: 45, Title: "Substantial modification", Verb: mayRead, FS: pagesFS, Template: "pages/release.html",
		Load: func(r *http.Request, release string) (any, error) {
			p, err := load(r, release)
			if problem.Is(err, problem.KindNotFound) { // the platform's own release is of no product
				return nil, nil
			}
			return p, err
		}})
	c.Form("/releases/{id}/modification", maySign, func(r *http.Request) (string, error) {
		release := r.PathValue("id")
		on, err := s.onRelease(r.Context(), tenant.ConformSign, release)
		if err != nil {
			return "", err
		}
		in := Screen{Reason: r.FormValue("reason"), Covered: r.FormValue("covered"), Substantial: r.FormValue("substantial") == "yes"}
		for _, q := range Questions {
			switch v := r.FormValue(q.ID); v {
			case "yes", "no":
				in.Answers = append(in.Answers, Answer{ID: q.ID, Yes: v == "yes", Why: r.FormValue("why_" + q.ID)})
			}
		}
		if r.FormValue("substantial") == "" {
			return "", problem.Invalid("Say whether it is a substantial modification.").At("substantial")
		}
		if _, err = s.Sign(r.Context(), on.tenant, on.product, release, on.actor, in); err == nil {
			console.Say(r, "The answers are signed.")
		}
		return "/releases/" + url.PathEscape(release) + "/modification", err
	})
}
