// SPDX-License-Identifier: AGPL-3.0-only

package advisory

import (
	"embed"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/vuln"
	"github.com/openthings-platform/openthings/vuln/csaf"
)

//go:embed pages/*.html
var pagesFS embed.FS

// shown is how many advisories a page lists; the API has them all.
const shown = 100

// check is one line of the list of what is done and what is missing.
type check struct {
	Done bool
	Text string
}

// advisoriesView is the list of advisories with the form of a new one.
type advisoriesView struct {
	Advisories []Advisory
	Products   []console.Option
	Labels     []console.Option
	Typed      url.Values
	Publisher  Publisher
	Provider   string // the public list; "" while nothing was published
}

// advisoryView is an advisory with its forms.
type advisoryView struct {
	Advisory
	Labels            []console.Option
	Links, ThanksTo   string // as they are typed: one a line
	Typed             url.Values
	Names             *console.Names
	Page              string // path of the published page
	Ready             []check
	Writes, Publishes bool
}

// Heading is the page's title.
func (v advisoryView) Heading() string { return v.Title }

var labelOptions = []console.Option{{Value: "WHITE", Word: "TLP:WHITE, for everybody"}, {Value: "GREEN", Word: "TLP:GREEN, for the community"},
	{Value: "AMBER", Word: "TLP:AMBER, for those who need to know"}, {Value: "RED", Word: "TLP:RED, for named readers only"}}

// Pages registers the pages of advisories and the public tree.
func (s *Service) Pages(c *console.Console) {
	read, write, publish := string(tenant.AdvisoryRead), string(tenant.AdvisoryWrite), string(tenant.AdvisoryPublish)
	c.Page(console.Page{Path: "/advisories", Title: "Advisories", Menu: "Advisories", Verb: read, FS: pagesFS, Template: "pages/advisories.html", Load: s.listPage})
	c.Page(console.Page{Path: "/advisories/publisher", Title: "Publisher", Menu: "Advisories", Verb: read, FS: pagesFS, Template: "pages/publisher.html",
		Load: func(r *http.Request) (any, error) {
			p, err := s.Publisher(r.Context())
			return map[string]any{"Publisher": p, "Typed": console.Typed(r)}, err
		}})
	c.Page(console.Page{Path: "/advisories/{id}", Title: "Advisory", Menu: "Advisories", Verb: read, FS: pagesFS, Template: "pages/advisory.html",
		Load: func(r *http.Request) (any, error) {
			v, err := s.advisoryView(r)
			v.Names = c.Names(r.Context())
			return v, err
		}})
	c.Fragment("today", console.Fragment{Order: 15, Title: "Advisories", Verb: read, FS: pagesFS, Template: "pages/today.html", Load: s.today})
	c.Fragment("product", console.Fragment{Order: 62, Title: "Security advisories", Verb: read, FS: pagesFS, Template: "pages/product.html",
		Load: func(r *http.Request, id string) (any, error) {
			as, err := s.List(r.Context(), "", shown)
			as = slices.DeleteFunc(as, func(a Advisory) bool { return a.Product != id })
			if err != nil || len(as) == 0 {
				return nil, err
			}
			return as, nil
		}})

	c.Fragment("case", console.Fragment{Order: 20, Title: "Security advisory", Verb: read, FS: pagesFS, Template: "pages/case.html", Load: s.ofCase})

	c.Fragment("vulnerability", console.Fragment{Order: 20, Title: "Security advisories", Verb: read, FS: pagesFS, Template: "pages/vulnerability.html", Load: s.ofVulnerability})

	c.Form("/advisories", write, func(r *http.Request) (string, error) {
		a, err := s.Draft(r.Context(), r.PostFormValue("product"), strings.TrimSpace(r.PostFormValue("vulnerability")), typedText(r))
		return "/advisories/" + a.ID, err
	})
	c.Form("/advisories/publisher", publish, func(r *http.Request) (string, error) {
		_, err := s.SetPublisher(r.Context(), Publisher{Name: r.PostFormValue("name"), Namespace: r.PostFormValue("namespace"), Contact: r.PostFormValue("contact"),
			Authority: r.PostFormValue("authority"), URL: r.PostFormValue("url"), Prefix: r.PostFormValue("prefix")})
		if err == nil {
			console.Say(r, "The next revision of each advisory says it.")
		}
		return "/advisories/publisher", err
	})
	act := func(path, verb, said string, fn func(r *http.Request, id string) error) {
		c.Form("/advisories/{id}"+path, verb, func(r *http.Request) (string, error) {
			id := r.PathValue("id")
			if err := fn(r, id); err != nil {
				return "", err
			}
			console.Say(r, said)
			return "/advisories/" + id, nil
		})
	}
	act("", write, "The next revision says it.", func(r *http.Request, id string) error {
		_, err := s.Change(r.Context(), id, typedText(r))
		return err
	})
	act("/publish", publish, "It is published, signed and in the feed.", func(r *http.Request, id string) error {
		_, err := s.Publish(r.Context(), id, r.PostFormValue("change"))
		return err
	})
	act("/hold", publish, "It is held back. You will be reminded.", func(r *http.Request, id string) error {
		until, err := console.Instant(r, "until")
		if err == nil {
			_, err = s.Hold(r.Context(), id, Hold{Reason: r.PostFormValue("reason"), Until: until})
		}
		return err
	})
	act("/lift", publish, "It may be published.", func(r *http.Request, id string) error {
		_, err := s.LiftHold(r.Context(), id)
		return err
	})

	c.Handle("GET /csaf/{tenant}/{file...}", "", s.provide)
	c.Handle("GET /.well-known/csaf/{file...}", "", s.provideHere)
}

func (s *Service) listPage(r *http.Request) (any, error) {
	v := advisoriesView{Typed: console.Typed(r), Labels: labelOptions}
	if len(v.Typed) == 0 {
		v.Typed = r.URL.Query() // a link from a vulnerability or a case fills the form in
	}
	var err error
	if v.Advisories, err = s.List(r.Context(), "", shown); err != nil {
		return nil, err
	}
	ps, err := s.cfg.Products.List(r.Context(), tenant.MustTenant(r.Context()))
	for _, p := range ps {
		if _, refused := who(r.Context(), tenant.AdvisoryWrite, p.ID); refused == nil {
			v.Products = append(v.Products, console.Option{Value: p.ID, Word: p.Name})
		}
	}
	if slices.ContainsFunc(v.Advisories, func(a Advisory) bool { return a.Revision > 0 }) {
		p, _, err := s.publisher(r.Context(), tenant.MustTenant(r.Context()))
		if err != nil {
			return nil, err
		}
		v.Provider = "/csaf/" + p.tenant + "/"
	}
	return v, err
}

func (s *Service) advisoryView(r *http.Request) (advisoryView, error) {
	a, err := s.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return advisoryView{}, err
	}
	v := advisoryView{Advisory: a, Labels: labelOptions, Typed: console.Typed(r)}
	for _, l := range a.References {
		v.Links += l.URL + " " + l.Summary + "\n"
	}
	for _, t := range a.Acknowledgments {
		v.ThanksTo += t.typed() + "\n"
	}
	if a.Revision > 0 {
		if u, err := url.Parse(strings.TrimSuffix(a.URL, ".json") + ".html"); err == nil {
			v.Page = u.Path
		}
	}
	_, refused := who(r.Context(), tenant.AdvisoryWrite, a.Product)
	v.Writes = refused == nil
	_, refused = who(r.Context(), tenant.AdvisoryPublish, a.Product)
	v.Publishes = refused == nil
	fixed := slices.ContainsFunc(a.Releases, func(r ReleaseStatus) bool { return r.Status == "fixed" })
	v.Ready = []check{
		{len(a.Releases) > 0, "Published releases of the product are known"},
		{a.Summary != "", "Users are told what it is"},
		{fixed || a.Action != "", "There is a fixed release, or something that users can do"},
		{a.CVSS != "", "Severity is scored (CVSS)"},
		{a.State != "held", "Nothing holds it back"},
		{a.Revision > 0 && !a.Outdated, "What is published is what is known"},
	}
	return v, nil
}

// ofCase are those about the vulnerability of a case in its product, or where one is drafted.
func (s *Service) ofCase(r *http.Request, id string) (any, error) {
	if s.cfg.Cases == nil {
		return nil, nil
	}
	c, err := s.cfg.Cases.Case(r.Context(), id)
	if err != nil || c.Ref == "" {
		return nil, err
	}
	as, err := s.List(r.Context(), "", shown)
	as = slices.DeleteFunc(as, func(a Advisory) bool { return a.Product != c.Product || a.Vulnerability != c.Ref })
	return map[string]any{"Advisories": as, "Draft": "/advisories?" + url.Values{"product": {c.Product}, "vulnerability": {c.Ref}, "title": {c.Title}}.Encode()}, err
}

// told is what users of one product were told about a vulnerability.
type told struct {
	Product    string // its name
	Advisories []Advisory
	Draft      string // address of the form, filled in; "": the visitor may not write
}

// ofVulnerability says of each product that has or had it what its users were told. group is the vulnerability's id.
func (s *Service) ofVulnerability(r *http.Request, group string) (any, error) {
	ctx := r.Context()
	v, err := s.cfg.Vuln.Get(ctx, tenant.MustTenant(ctx), group)
	if err != nil {
		return nil, err
	}
	as, err := s.List(ctx, "", shown)
	if err != nil {
		return nil, err
	}
	ps, err := s.cfg.Products.List(ctx, tenant.MustTenant(ctx))
	var out []told
	for _, p := range ps {
		if _, refused := who(ctx, tenant.AdvisoryRead, p.ID); refused != nil || !slices.ContainsFunc(v.Findings, func(f vuln.Finding) bool { return f.Product == p.ID }) {
			continue
		}
		t := told{Product: p.Name}
		for _, a := range as {
			if a.Product == p.ID && slices.Contains(v.Names, a.Vulnerability) {
				t.Advisories = append(t.Advisories, a)
			}
		}
		if _, refused := who(ctx, tenant.AdvisoryWrite, p.ID); refused == nil && len(t.Advisories) == 0 {
			t.Draft = "/advisories?" + url.Values{"vulnerability": {v.Name}, "product": {p.ID}}.Encode()
		}
		out = append(out, t)
	}
	if err != nil || len(out) == 0 {
		return nil, err
	}
	return out, nil
}

// typedText reads the words of an advisory from a form. References and thanks are typed one a line.
func typedText(r *http.Request) Text {
	f := func(name string) string {
		return strings.ReplaceAll(strings.TrimSpace(r.PostFormValue(name)), "\r\n", "\n")
	}
	t := Text{Title: f("title"), Summary: f("summary"), Action: f("action"), CVSS: f("cvss"), CWE: f("cwe"), TLP: csaf.TLPLabel(f("tlp")), Lang: f("lang")}
	for line := range strings.Lines(f("references")) {
		if address, summary, _ := strings.Cut(strings.TrimSpace(line), " "); address != "" {
			if summary = strings.TrimSpace(summary); summary == "" {
				summary = address
			}
			t.References = append(t.References, Link{Summary: summary, URL: address})
		}
	}
	for line := range strings.Lines(f("thanks")) {
		if line = strings.TrimSpace(line); line != "" {
			t.Acknowledgments = append(t.Acknowledgments, typedThanks(line))
		}
	}
	return t
}

// typed is how thanks are typed: "Ann, Bob / Organization: for what".
func (t Thanks) typed() string {
	line := strings.Join(t.Names, ", ")
	if t.Organization != "" {
		line += " / " + t.Organization
	}
	if t.Summary != "" {
		line += ": " + t.Summary
	}
	return strings.TrimSpace(line)
}

func typedThanks(line string) Thanks {
	to, summary, _ := strings.Cut(line, ": ")
	names, organization, _ := strings.Cut(to, "/")
	return Thanks{Names: split(names), Organization: strings.TrimSpace(organization), Summary: strings.TrimSpace(summary)}
}

// split cuts a line at its commas.
func split(line string) (out []string) {
	for part := range strings.SplitSeq(line, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// today are those whose hold is over, or soon will be: they wait for a person.
func (s *Service) today(r *http.Request, _ string) (any, error) {
	as, err := s.List(r.Context(), "", shown)
	if err != nil {
		return nil, err
	}
	soon := store.Millis(s.now().Add(holdSoon))
	as = slices.DeleteFunc(as, func(a Advisory) bool { return a.Hold == nil || store.Millis(a.Hold.Until) > soon })
	if len(as) == 0 {
		return nil, nil
	}
	return as, nil
}

// Next is the number of the next revision.
func (v advisoryView) Next() int64 { return v.Revision + 1 }
