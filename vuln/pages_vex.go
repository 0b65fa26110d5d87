// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// proposalsPage shows what might be decided on a vulnerability, side by side with what is.
type proposalsPage struct {
	Group
	Cards []proposalCard
	Known *console.Names
	May   bool // decide
}

// Heading is the page's title.
func (p proposalsPage) Heading() string { return p.Name }

// proposalCard is one proposal with its form.
type proposalCard struct {
	Proposal
	N           int // tells the fields of forms apart
	ProductName string
	Versions    []console.Option // of the releases that it is about
	Holds       []console.Option // for which the decision may be made
	Reasons     []console.Option
	Seen        string     // the newest decision on the product
	Typed       url.Values // what was sent and refused
}

// lapses are the reasons why an earlier decision does not hold, for people.
var lapses = map[Lapse]string{
	Expired: "its date has passed", NewlyExploited: "it became known to be exploited", RangeChanged: "records say something else now",
	EvidenceChanged: "the release was built from other sources, or nobody has shown from which", ComponentChanged: "it was about another version of the component",
	OtherRelease: "it was about another release",
}

// Words says in words whose proposal it is.
func (c proposalCard) Words() string {
	switch c.From {
	case earlier:
		return "Decided here before; " + lapses[c.Why]
	case "own":
		return "A statement of our own"
	case "vendor":
		return "The maker of the component says"
	}
	return "A distribution says"
}

func (s *Service) vexPages(c *console.Console) {
	c.Page(console.Page{Path: "/vulnerabilities/{id}/proposals", Title: "Proposed decisions", Menu: "Vulnerabilities", Tab: tabOpen, Verb: string(tenant.VulnRead), FS: pagesFS,
		Template: "pages/proposals.html", Load: func(r *http.Request) (any, error) {
			p, err := s.loadProposals(r)
			p.Known = c.Names(r.Context())
			return p, err
		}})
	c.Form("/vulnerabilities/{id}/proposals", string(tenant.VulnDecide), func(r *http.Request) (string, error) {
		id := r.PathValue("id")
		back := "/vulnerabilities/" + url.PathEscape(id) + "/proposals"
		in := Deciding{Product: r.PostFormValue("product"), Component: r.PostFormValue("component"), Release: r.PostFormValue("release"), Origin: r.PostFormValue("origin"),
			Justification: r.PostFormValue("justification"), Evidence: r.PostFormValue("evidence")}
		if seen, ok := r.PostForm["seen"]; ok {
			in.Seen = &seen[0]
		}
		if day := r.PostFormValue("expires"); day != "" {
			at, err := time.Parse(time.DateOnly, day)
			if err != nil {
				return back, problem.Invalid("%.40q is not a date.", day).At("expires").Hint("write %s", time.DateOnly)
			}
			in.Expires = at
		}
		made, err := s.decideAs(r.Context(), id, in)
		if err == nil {
			console.Say(r, "Decided for "+console.Plural(len(made), "component", "components")+".")
		}
		return back, err
	})
}

func (s *Service) loadProposals(r *http.Request) (proposalsPage, error) {
	ctx := r.Context()
	t := tenant.MustTenant(ctx)
	p := proposalsPage{May: tenant.Holds(ctx, string(tenant.VulnDecide))}
	typed := console.Typed(r)
	list, err := s.Proposals(ctx, t, r.PathValue("id"), visible(ctx))
	if err != nil {
		return p, err
	}
	newest := map[string]string{}
	var about map[string]Release
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		if p.Group, err = s.group(tx, t, r.PathValue("id")); err != nil {
			return err
		}
		l, err := s.book(tx, t).on(p.ID, "")
		if err != nil {
			return err
		}
		for _, d := range l.list {
			newest[d.Product] = d.ID
		}
		releases := map[string]bool{}
		for _, x := range list {
			for _, id := range x.Releases {
				releases[id] = true
			}
		}
		about, err = s.releases(tx, t, sortedKeys(releases))
		return err
	})
	if err != nil {
		return p, err
	}
	for i, x := range list {
		c := s.card(ctx, t, i, x, about, newest[x.Product])
		if typed.Get("origin") == x.Origin && typed.Get("component") == x.Component && typed.Get("product") == x.Product {
			c.Typed = typed
		}
		p.Cards = append(p.Cards, c)
	}
	return p, nil
}

// versionsShown are the releases that a card names; the rest is counted.
const versionsShown = 20

func (s *Service) card(ctx context.Context, t string, n int, x Proposal, about map[string]Release, seen string) proposalCard {
	c := proposalCard{Proposal: x, N: n, ProductName: s.cfg.ProductName(ctx, t, x.Product), Seen: seen}
	for i, id := range x.Releases {
		o := console.Option{Value: id, Word: c.ProductName + " " + about[id].Version}
		if i < versionsShown {
			c.Versions = append(c.Versions, o)
		}
		c.Holds = append(c.Holds, o)
	}
	if x.Status != Fixed {
		c.Holds = append([]console.Option{{Value: "", Word: "All releases with this component"}}, c.Holds...)
	}
	if x.Status == NotAffected {
		c.Reasons = reasons(x.Justification == "")
	}
	return c
}

// More counts the releases that are not named.
func (c proposalCard) More() int { return len(c.Releases) - len(c.Versions) }

// Source names the document of a statement.
func (c proposalCard) Source() string {
	if c.Document == nil || c.Document.Name == "" {
		return ""
	}
	return fmt.Sprintf("%s %s", c.Document.Name, c.Document.Version)
}

// reasons are the justifications to choose from; with none if nothing is proposed.
func reasons(none bool) (out []console.Option) {
	if none {
		out = append(out, console.Option{Value: "", Word: "Choose one"})
	}
	for i, word := range []string{"The component is not present", "The vulnerable code is not present", "The vulnerable code is never executed",
		"An attacker cannot control the vulnerable code", "Mitigations are built in"} {
		out = append(out, console.Option{Value: Justifications[i], Word: word})
	}
	return out
}
