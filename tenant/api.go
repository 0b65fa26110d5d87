// SPDX-License-Identifier: AGPL-3.0-only

package tenant

import (
	"context"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/store"
)

// Me is who the caller is and what it may do.
type Me struct {
	ID     string  `json:"id"`
	Kind   string  `json:"kind" enum:"person,token,host,system"`
	Name   string  `json:"name"`
	Tenant Tenant  `json:"tenant"`
	Grants []Grant `json:"grants"`
}

// Invitation is a link that lets one person in, once.
type Invitation struct {
	Link string `json:"link" doc:"Open it within a day; it works once"`
}

// NewToken is a token at the only moment when its text is known.
type NewToken struct {
	Token
	Text string `json:"token" doc:"Shown this once; send it as Authorization: Bearer"`
}

// RoleRow is one line of the table of roles.
type RoleRow struct {
	Role  Role   `json:"role"`
	Text  string `json:"text"`
	Verbs []Verb `json:"verbs"`
}

// GrantInput is a role and where it is held; without product and solution on the whole tenant.
type GrantInput struct {
	Role     Role   `json:"role" minLength:"1"`
	Product  string `json:"product,omitempty"`
	Solution string `json:"solution,omitempty"`
}

func (g GrantInput) grant(tenant string) Grant {
	return Grant{Role: g.Role, Tenant: tenant, Product: g.Product, Solution: g.Solution}
}

// Routes registers the operations of this room.
func (s *Service) Routes(a *api.API) {
	op := func(id, method, path string, verb Verb, summary string) api.Op {
		return api.Op{ID: id, Method: method, Path: path, Verb: string(verb), Summary: summary, Stage: "tenant"}
	}
	api.Handle(a, op("get-me", "GET", "/v1/me", DeviceRead, "Who the caller is"), s.getMe)
	api.Handle(a, op("list-tenants", "GET", "/v1/tenants", DeviceRead, "The caller's tenant"), s.listTenants)
	api.Handle(a, op("list-roles", "GET", "/v1/roles", DeviceRead, "The table of roles"), listRoles)
	api.Handle(a, op("list-solutions", "GET", "/v1/solutions", DeviceRead, "Solutions that the caller can see, each before those that stand in it"), s.listSolutions(a))
	api.Handle(a, op("get-solution", "GET", "/v1/solutions/{id}", DeviceRead, "One solution"), s.getSolution)
	create := op("create-solution", "POST", "/v1/solutions", AccessWrite, "Make a solution, in the tenant or in another solution")
	create.Status = 201
	api.Handle(a, create, s.postSolution)
	api.Handle(a, op("change-solution", "PATCH", "/v1/solutions/{id}", AccessWrite, "Rename a solution, or move it with all below; it takes a right on what it stands in, now and then"), s.patchSolution)
	api.Handle(a, op("list-people", "GET", "/v1/people", AccessRead, "Who may enter"), s.listPeople)
	invite := op("invite-person", "POST", "/v1/people", AccessWrite, "Invite a person by a one-time link")
	invite.Status, invite.Secret = 201, true
	api.Handle(a, invite, s.postPerson)
	api.Handle(a, op("set-person-grants", "PUT", "/v1/people/{id}/grants", AccessWrite, "Replace what a person holds"), s.putGrants)
	api.Handle(a, op("remove-person", "POST", "/v1/people/{id}/remove", AccessWrite, "End a person's access and sessions"), s.removePerson)
	api.Handle(a, op("sign-out-person", "POST", "/v1/people/{id}/sign-out", AccessWrite, "End a person's sessions"), s.signOutPerson)
	api.Handle(a, op("list-tokens", "GET", "/v1/tokens", AccessRead, "Tokens by age and last use"), s.listTokens)
	token := op("create-token", "POST", "/v1/tokens", AccessWrite, "Make a token; it is shown once")
	token.Status, token.Secret = 201, true
	api.Handle(a, token, s.postToken)
	api.Handle(a, op("revoke-token", "POST", "/v1/tokens/{id}/revoke", AccessWrite, "End a token at once"), s.revokeToken)
}

// tenantWide refuses unless the actor holds v on the whole of its tenant.
func tenantWide(ctx context.Context, v Verb) (Actor, error) {
	a, _ := ActorFrom(ctx)
	return a, Require(ctx, v, Thing{Tenant: a.Tenant})
}

// solutionsIn chooses solutions.
type solutionsIn struct {
	api.Paging
	Within string `query:"within" maxLength:"64" doc:"Only this solution and what lies below it"`
}

// ByID is the input of operations on one thing.
type ByID struct {
	ID string `path:"id"`
}

func (s *Service) getMe(ctx context.Context, _ *struct{}) (*api.Out[Me], error) {
	a, _ := ActorFrom(ctx)
	t, err := s.Get(ctx, a.Tenant)
	return api.One(Me{ID: a.ID, Kind: a.Kind, Name: a.Name, Tenant: t, Grants: a.Grants}), err
}

func (s *Service) listTenants(ctx context.Context, _ *struct{}) (*api.List[Tenant], error) {
	t, err := s.Get(ctx, MustTenant(ctx))
	return api.Items([]Tenant{t}), err
}

func listRoles(context.Context, *struct{}) (*api.List[RoleRow], error) {
	rows := make([]RoleRow, len(Roles))
	for i, r := range Roles {
		rows[i] = RoleRow(r)
	}
	return api.Items(rows), nil
}

func (s *Service) listSolutions(a *api.API) func(context.Context, *solutionsIn) (*api.List[Solution], error) {
	return func(ctx context.Context, in *solutionsIn) (*api.List[Solution], error) {
		sols, err := s.Seen(ctx, DeviceRead)
		if err != nil {
			return nil, err
		}
		after, err := in.After(a)
		if err != nil {
			return nil, err
		}
		if in.Within != "" {
			sols = part(sols, in.Within)
		}
		if i := slices.IndexFunc(sols, func(sol Solution) bool { return sol.ID == after }); i >= 0 {
			sols = sols[i+1:]
		}
		return api.More(a, in.Paging, sols, func(sol Solution) string { return sol.ID }), nil
	}
}

// part is the solution with that id and what follows it deeper down; nothing if it is not among them.
func part(sols []Solution, id string) []Solution {
	i := slices.IndexFunc(sols, func(sol Solution) bool { return sol.ID == id })
	if i < 0 {
		return nil
	}
	end := slices.IndexFunc(sols[i+1:], func(sol Solution) bool { return sol.Depth <= sols[i].Depth })
	if end < 0 {
		return sols[i:]
	}
	return sols[i : i+1+end]
}

func (s *Service) getSolution(ctx context.Context, in *ByID) (*api.Out[Solution], error) {
	return s.shown(ctx, in.ID)
}

// shown is the solution as whoever asks may see it.
func (s *Service) shown(ctx context.Context, id string) (*api.Out[Solution], error) {
	a, _ := ActorFrom(ctx)
	a, err := s.Rooted(ctx, a) // it may have changed the tree just now
	if err != nil {
		return nil, err
	}
	sols, err := s.Seen(WithActor(ctx, a), DeviceRead)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(sols, func(sol Solution) bool { return sol.ID == id })
	if i < 0 {
		return nil, errNoSolution(id)
	}
	return api.One(sols[i]), nil
}

func (s *Service) postSolution(ctx context.Context, in *struct {
	Body struct {
		Name   string `json:"name"`
		Owner  string `json:"owner,omitempty" maxLength:"200" doc:"The customer, in words"`
		Parent string `json:"parent,omitempty" maxLength:"64" doc:"The solution that it stands in; empty: right under the tenant"`
	}
}) (*api.Out[Solution], error) {
	sol, err := s.newSolution(ctx, in.Body.Parent, in.Body.Name, in.Body.Owner)
	if err != nil {
		return nil, err
	}
	out, err := s.shown(ctx, sol.ID)
	if err == nil {
		out.Location = "/v1/solutions/" + sol.ID
	}
	return out, err
}

func (s *Service) patchSolution(ctx context.Context, in *struct {
	ByID
	Body Change
}) (*api.Out[Solution], error) {
	if _, err := s.change(ctx, in.ID, in.Body); err != nil {
		return nil, err
	}
	return s.shown(ctx, in.ID)
}

func (s *Service) listPeople(ctx context.Context, _ *struct{}) (*api.List[Person], error) {
	a, _ := ActorFrom(ctx)
	ps, err := s.People(ctx, a)
	return api.Items(ps), err
}

func (s *Service) postPerson(ctx context.Context, in *struct {
	Body struct {
		GrantInput
		Name string `json:"name,omitempty" doc:"Whom it is for"`
	}
}) (*api.Out[Invitation], error) {
	link, err := s.invite(ctx, in.Body.Name, in.Body.grant(MustTenant(ctx)))
	return api.One(Invitation{Link: link}), err
}

// invite makes an invitation by the actor and returns the whole link.
func (s *Service) invite(ctx context.Context, name string, g Grant) (link string, err error) {
	a, _ := ActorFrom(ctx)
	if err := s.gives(ctx, a, g); err != nil {
		return "", err
	}
	if name, err = checkName("person", name); err != nil {
		return "", err
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		link, err = s.Invite(tx, a.ID, name, g)
		return err
	})
	return s.cfg.Origins[0] + link, err
}

// gives checks what is given and that the solution it is limited to exists.
func (s *Service) gives(ctx context.Context, a Actor, g Grant) error {
	if g.Solution != "" && g.Product == "" {
		if _, err := s.visible(ctx, AccessWrite, g.Solution); err != nil {
			return err
		}
	}
	return Gives(a, g)
}

func (s *Service) putGrants(ctx context.Context, in *struct {
	ByID
	Body struct {
		Grants []GrantInput `json:"grants" maxItems:"100"`
	}
}) (*struct{}, error) {
	gs := make([]Grant, len(in.Body.Grants))
	for i, g := range in.Body.Grants {
		gs[i] = g.grant(MustTenant(ctx))
	}
	return nil, s.regrant(ctx, in.ID, gs)
}

func (s *Service) regrant(ctx context.Context, person string, gs []Grant) error {
	a, _ := ActorFrom(ctx)
	for _, g := range gs {
		if err := s.gives(ctx, a, g); err != nil {
			return err
		}
	}
	return s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error { return s.setHeld(tx, a, person, gs) })
}

func (s *Service) removePerson(ctx context.Context, in *ByID) (*struct{}, error) {
	a, _ := ActorFrom(ctx)
	return nil, s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error { return s.removeHeld(tx, a, in.ID) })
}

func (s *Service) signOutPerson(ctx context.Context, in *ByID) (*struct{}, error) {
	a, _ := ActorFrom(ctx)
	return nil, s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error { return s.signOutHeld(tx, a, in.ID) })
}

func (s *Service) listTokens(ctx context.Context, _ *struct{}) (*api.List[Token], error) {
	a, _ := ActorFrom(ctx)
	ts, err := s.Tokens(ctx, a)
	return api.Items(ts), err
}

func (s *Service) postToken(ctx context.Context, in *struct {
	Body struct {
		GrantInput
		Name    string    `json:"name"`
		Expires time.Time `json:"expires" doc:"At most a year and a day from now"`
	}
}) (*api.Out[NewToken], error) {
	t, text, err := s.newToken(ctx, in.Body.Name, in.Body.grant(MustTenant(ctx)), in.Body.Expires)
	return api.One(NewToken{Token: t, Text: text}), err
}

func (s *Service) newToken(ctx context.Context, name string, g Grant, expires time.Time) (t Token, text string, err error) {
	a, _ := ActorFrom(ctx)
	if err := s.gives(ctx, a, g); err != nil {
		return t, "", err
	}
	if name, err = checkName("token", name); err != nil {
		return t, "", err
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		t, text, err = s.CreateToken(tx, a.ID, name, g, expires)
		return err
	})
	return t, text, err
}

func (s *Service) revokeToken(ctx context.Context, in *ByID) (*struct{}, error) {
	a, _ := ActorFrom(ctx)
	return nil, s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error { return s.revokeHeld(tx, a, in.ID) })
}
