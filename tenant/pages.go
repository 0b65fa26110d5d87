// SPDX-License-Identifier: AGPL-3.0-only

package tenant

import (
	"context"
	"embed"
	"encoding/json"
	"io"
	"net/http"
	"strconv"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
)

//go:embed pages/*.html
var pagesFS embed.FS

// SignInPath is where visitors who are not signed in are sent.
const SignInPath = "/sign-in"

// Pages registers the pages of this room.
func (s *Service) Pages(c *console.Console) {
	s.doors(c)
	c.Page(console.Page{Path: "/access", Title: "Access", Menu: "Access", Verb: string(AccessRead), FS: pagesFS, Template: "pages/access.html", Load: s.accessPage})
	c.Page(console.Page{Path: "/access/roles", Title: "Roles", Menu: "Access", Verb: string(DeviceRead), FS: pagesFS, Template: "pages/roles.html",
		Load: func(*http.Request) (any, error) { return rolesPage(), nil }})
	c.Page(console.Page{Path: "/access/tokens", Method: http.MethodPost, Title: "New token", Menu: "Access", Verb: string(AccessWrite), FS: pagesFS, Template: "pages/token.html",
		Load: s.tokenPage})
	c.Page(console.Page{Path: "/access/people", Method: http.MethodPost, Title: "Invitation", Menu: "Access", Verb: string(AccessWrite), FS: pagesFS, Template: "pages/invited.html",
		Load: s.invitedPage})
	c.Step(console.Step{Order: 25, Title: "Make a solution", Text: "Where devices will serve: one deployment for one customer.", Href: "/access#solutions", Button: "Make a solution", Done: s.hasSolution})
	c.Form("/access/solutions", string(AccessWrite), func(r *http.Request) (string, error) {
		sol, err := s.newSolution(r.Context(), r.PostFormValue("name"), r.PostFormValue("owner"))
		console.Say(r, "Solution "+sol.Name+" is there.")
		return "/access", err
	})
	c.Form("/access/tokens/{id}/revoke", string(AccessWrite), func(r *http.Request) (string, error) {
		_, err := s.revokeToken(r.Context(), &ByID{ID: r.PathValue("id")})
		console.Say(r, "The token is revoked.")
		return "/access", err
	})
	c.Form("/access/people/{id}/remove", string(AccessWrite), func(r *http.Request) (string, error) {
		_, err := s.removePerson(r.Context(), &ByID{ID: r.PathValue("id")})
		console.Say(r, "The person may no longer enter.")
		return "/access", err
	})
	c.Form("/access/people/{id}/sign-out", string(AccessWrite), func(r *http.Request) (string, error) {
		_, err := s.signOutPerson(r.Context(), &ByID{ID: r.PathValue("id")})
		console.Say(r, "All sessions of the person are ended.")
		return "/access", err
	})
	c.Form("/access/people/{id}/role", string(AccessWrite), func(r *http.Request) (string, error) {
		g := Grant{Role: Role(r.PostFormValue("role")), Tenant: MustTenant(r.Context()), Solution: r.PostFormValue("solution")}
		console.Say(r, "The role is changed.")
		return "/access", s.regrant(r.Context(), r.PathValue("id"), []Grant{g})
	})
}

// doors are the pages before anybody is signed in.
func (s *Service) doors(c *console.Console) {
	c.Page(console.Page{Path: SignInPath, Title: "Sign in", Public: true, FS: pagesFS, Template: "pages/sign-in.html", Load: func(r *http.Request) (any, error) {
		return struct{ Next string }{console.Local(r.URL.Query().Get("next"))}, nil
	}})
	c.Page(console.Page{Path: "/enter/{secret}", Title: "Welcome", Public: true, FS: pagesFS, Template: "pages/enter.html", Load: s.enterPage})
	c.Handle("POST /enter/{secret}/begin", "", s.ceremony(func(w http.ResponseWriter, r *http.Request) (any, error) {
		var in struct{ Name, Organisation string }
		if err := json.NewDecoder(io.LimitReader(r.Body, 4<<10)).Decode(&in); err != nil {
			return nil, problem.Invalid("The form could not be read.").Because(err)
		}
		return s.beginJoin(r.Context(), w, r.PathValue("secret"), in.Name, in.Organisation)
	}))
	c.Handle("POST /enter/{secret}/finish", "", s.ceremony(func(w http.ResponseWriter, r *http.Request) (any, error) {
		return struct{}{}, s.finishJoin(r.Context(), w, r, r.PathValue("secret"))
	}))
	c.Handle("POST "+SignInPath+"/begin", "", s.ceremony(func(w http.ResponseWriter, r *http.Request) (any, error) {
		return s.beginSignIn(r.Context(), w)
	}))
	c.Handle("POST "+SignInPath+"/finish", "", s.ceremony(func(w http.ResponseWriter, r *http.Request) (any, error) {
		return struct{}{}, s.finishSignIn(r.Context(), w, r)
	}))
	c.Handle("POST /sign-out", "", func(w http.ResponseWriter, r *http.Request) error {
		if err := s.endSession(r.Context(), cookieOf(r, sessionCookie)); err != nil {
			return err
		}
		setCookie(w, sessionCookie, "", 0)
		http.Redirect(w, r, SignInPath, http.StatusSeeOther)
		return nil
	})
}

// ceremony serves the scripts of the passkey pages: JSON out, problems as JSON, five tries a second per address in the long run.
func (s *Service) ceremony(fn func(w http.ResponseWriter, r *http.Request) (any, error)) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		out, err := any(nil), s.limiter.Take(api.Address(r), 1)
		if err == nil {
			out, err = fn(w, r)
		}
		if err != nil {
			s.fail(w, r, err)
			return nil
		}
		s.answer(w, out)
		return nil
	}
}

type enterData struct {
	Setup                    bool
	Name, Organisation, Path string
	Into                     string // name of the tenant that the invitation leads to
	Role                     Role
}

func (s *Service) enterPage(r *http.Request) (any, error) {
	if err := s.limiter.Take(api.Address(r), 1); err != nil {
		return nil, err
	}
	l, err := s.openLink(r.Context(), r.PathValue("secret"))
	if err != nil {
		return nil, err
	}
	d := enterData{Setup: l.setup(), Name: l.name, Path: "/enter/" + r.PathValue("secret"), Role: l.grant.Role}
	if !d.Setup {
		t, err := s.Get(r.Context(), l.grant.Tenant)
		d.Into = t.Name
		return d, err
	}
	// A host administrator may have made a tenant before anybody joined; the first person then most likely belongs to it.
	ts, err := s.Tenants(r.Context())
	if len(ts) > 0 {
		d.Organisation = ts[0].Name
	}
	return d, err
}

type accessData struct {
	Tenant    Tenant
	People    []Person
	Tokens    []tokenLine
	Solutions []Solution
	Me        string
	Write     bool
	Roles     []console.Option
	Places    []console.Option
	Lives     []console.Option
	Typed     map[string]string
	names     map[string]string // of solutions and people, by id
}

type tokenLine struct {
	Token
	State, By string
}

// Where names what a grant is held on.
func (d accessData) Where(g Grant) string {
	switch {
	case g.Solution != "":
		return "in " + d.name(g.Solution)
	case g.Product != "":
		return "for product " + d.name(g.Product)
	}
	return ""
}

func (d accessData) name(id string) string {
	if n := d.names[id]; n != "" {
		return n
	}
	return id
}

func (s *Service) accessPage(r *http.Request) (any, error) {
	ctx := r.Context()
	a, err := tenantWide(ctx, AccessRead)
	if err != nil {
		return nil, err
	}
	d := accessData{Me: a.ID, Write: Can(a, AccessWrite, Thing{Tenant: a.Tenant}), names: map[string]string{KindHost: "host administrator"}, Typed: map[string]string{},
		Places: []console.Option{{Value: "", Word: "the whole organisation"}},
		Lives:  []console.Option{{Value: "1", Word: "a day"}, {Value: "30", Word: "30 days"}, {Value: "90", Word: "90 days"}, {Value: "366", Word: "a year"}}}
	for k := range console.Typed(r) {
		d.Typed[k] = console.Typed(r).Get(k)
	}
	if d.Tenant, err = s.Get(ctx, a.Tenant); err != nil {
		return nil, err
	}
	if d.People, err = s.People(ctx, a.Tenant); err != nil {
		return nil, err
	}
	for _, p := range d.People {
		d.names[p.ID] = p.Name
	}
	if d.Solutions, err = s.Solutions(ctx, a.Tenant); err != nil {
		return nil, err
	}
	for _, sol := range d.Solutions {
		d.names[sol.ID] = sol.Name
		d.Places = append(d.Places, console.Option{Value: sol.ID, Word: "only " + sol.Name})
	}
	for _, row := range Roles {
		d.Roles = append(d.Roles, console.Option{Value: string(row.Role), Word: string(row.Role)})
	}
	tokens, err := s.Tokens(ctx, a.Tenant)
	for _, t := range tokens {
		l := tokenLine{Token: t, State: "active", By: d.name(t.MadeBy)}
		switch {
		case !t.Revoked.IsZero():
			l.State = "revoked"
		case !s.cfg.Clock.Now().Before(t.Expires):
			l.State = "expired"
		}
		d.Tokens = append(d.Tokens, l)
	}
	return d, err
}

type roleCell struct {
	Verb Verb
	Text string
	Has  []bool
}

type rolesData struct {
	Roles []RoleRow
	Rows  []roleCell
}

func rolesPage() rolesData {
	var d rolesData
	for _, r := range Roles {
		d.Roles = append(d.Roles, RoleRow(r))
	}
	for _, v := range Verbs {
		c := roleCell{Verb: v.Verb, Text: v.Text}
		for _, r := range Roles {
			c.Has = append(c.Has, r.Role.Has(v.Verb))
		}
		d.Rows = append(d.Rows, c)
	}
	return d
}

func (s *Service) tokenPage(r *http.Request) (any, error) {
	days, err := strconv.Atoi(r.PostFormValue("days"))
	if err != nil {
		return nil, problem.Invalid("Choose how long the token is valid.").At("days")
	}
	g := Grant{Role: Role(r.PostFormValue("role")), Tenant: MustTenant(r.Context()), Solution: r.PostFormValue("solution")}
	t, text, err := s.newToken(r.Context(), r.PostFormValue("name"), g, s.cfg.Clock.Now().AddDate(0, 0, days))
	return NewToken{Token: t, Text: text}, err
}

func (s *Service) invitedPage(r *http.Request) (any, error) {
	g := Grant{Role: Role(r.PostFormValue("role")), Tenant: MustTenant(r.Context()), Solution: r.PostFormValue("solution")}
	link, err := s.invite(r.Context(), r.PostFormValue("name"), g)
	return struct {
		Name, Link string
		Role       Role
	}{r.PostFormValue("name"), link, g.Role}, err
}

func (s *Service) hasSolution(ctx context.Context) (bool, error) {
	n, err := count(s.reading(ctx), `SELECT COUNT(*) FROM solution WHERE tenant = $1`, MustTenant(ctx))
	return n > 0, err
}
