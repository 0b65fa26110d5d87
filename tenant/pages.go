// SPDX-License-Identifier: AGPL-3.0-only

package tenant

import (
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
	c.Page(console.Page{Path: "/access", Title: "Access", Menu: "Access", Tab: "People and tokens", TabOrder: 10, Verb: string(AccessRead), FS: pagesFS, Template: "pages/access.html", Load: s.accessPage})
	s.solutionPages(c)
	c.Page(console.Page{Path: "/access/roles", Title: "Roles", Menu: "Access", Tab: "Roles", TabOrder: 30, Verb: string(DeviceRead), FS: pagesFS, Template: "pages/roles.html",
		Load: func(*http.Request) (any, error) { return rolesPage(), nil }})
	c.Page(console.Page{Path: "/access/tokens", Method: http.MethodPost, Title: "New token", Menu: "Access", Tab: "People and tokens", Verb: string(AccessWrite), FS: pagesFS, Template: "pages/token.html",
		Load: s.tokenPage})
	c.Page(console.Page{Path: "/access/people", Method: http.MethodPost, Title: "Invitation", Menu: "Access", Tab: "People and tokens", Verb: string(AccessWrite), FS: pagesFS, Template: "pages/invited.html",
		Load: s.invitedPage})
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
	s.commandLineDoors(c)
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
	Tenant Tenant
	People []Person
	Tokens []tokenLine
	Me     string
	Write  bool
	Places []console.Option
	choices
	names map[string]string // of solutions and people, by id
}

// choices are what the forms that give access offer.
type choices struct{ Roles, Lives []console.Option }

// choicesFor are the roles that a can give on t, and how long a token may live.
func choicesFor(a Actor, t Thing) (c choices) {
	for _, row := range Roles {
		if Gives(a, Grant{Role: row.Role, Tenant: t.Tenant, Solution: t.Solution}) == nil {
			c.Roles = append(c.Roles, console.Option{Value: string(row.Role), Word: string(row.Role)})
		}
	}
	c.Lives = []console.Option{{Value: "1", Word: "a day"}, {Value: "30", Word: "30 days"}, {Value: "90", Word: "90 days"}, {Value: "366", Word: "a year"}}
	return c
}

// offered bounds how many solutions a form offers by name; deeper ones have a page of their own to give access from.
const offered = 200

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
	a, _ := ActorFrom(ctx)
	d := accessData{Me: a.ID, Write: Holds(ctx, string(AccessWrite)), names: map[string]string{KindHost: "host administrator"}}
	var err error
	if d.Tenant, err = s.Get(ctx, a.Tenant); err != nil {
		return nil, err
	}
	if d.People, err = s.People(ctx, a); err != nil {
		return nil, err
	}
	for _, p := range d.People {
		d.names[p.ID] = p.Name
	}
	sols, err := s.Seen(ctx, AccessRead)
	if err != nil {
		return nil, err
	}
	on := Thing{Tenant: a.Tenant}
	if Can(a, AccessWrite, on) {
		d.Places = append(d.Places, console.Option{Word: "the whole organisation"})
	} else if len(sols) > 0 {
		on.Solution = sols[0].ID
	}
	d.choices = choicesFor(a, on)
	held := map[string]bool{} // what somebody's right is on is always offered, so that saving a role never widens it
	for _, p := range d.People {
		for _, g := range p.Grants {
			held[g.Solution] = true
		}
	}
	for _, sol := range sols {
		d.names[sol.ID] = sol.Path
		if (len(d.Places) < offered || held[sol.ID]) && Can(a, AccessWrite, Thing{Tenant: a.Tenant, Solution: sol.ID}) {
			d.Places = append(d.Places, console.Option{Value: sol.ID, Word: "only " + sol.Path})
		}
	}
	tokens, err := s.Tokens(ctx, a)
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
