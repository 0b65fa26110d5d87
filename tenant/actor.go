// SPDX-License-Identifier: AGPL-3.0-only

package tenant

import (
	"context"
	"slices"

	"github.com/openthings-platform/openthings/problem"
)

// Kinds of actor.
const (
	KindPerson = "person" // signed in with a passkey
	KindToken  = "token"  // a program with a bearer token
	KindHost   = "host"   // the administrator of the machine, through the unix socket
	KindSystem = "system" // background work of the platform itself
)

// Actor is who asks. The zero Actor may do nothing.
type Actor struct {
	ID     string // "per_…", "tok_…", "host" or "system"
	Kind   string
	Name   string
	Tenant string // home tenant: the only one that it can act in
	Grants []Grant
	tree   *Tree // how the solutions stood when it was let in; see Service.Rooted
}

// Grant is a role held on a tenant, or below it on one product or one solution. At most one of Product and Solution is set.
type Grant struct {
	Role     Role   `json:"role"`
	Tenant   string `json:"tenant"`
	Product  string `json:"product,omitempty"`
	Solution string `json:"solution,omitempty"`
}

// Thing is what is acted upon: its tenant, and the product and solution it belongs to where it has them.
// A device has both; a release only a product; a tenant's list neither.
type Thing struct{ Tenant, Product, Solution string }

// covers says whether g reaches down to t. A right on a product never reaches a thing that names no product,
// so a list over the whole tenant needs a right on the tenant. A right on a solution reaches what lies below it.
func (g Grant) covers(t Thing, tree *Tree) bool {
	if g.Tenant == "" || g.Tenant != t.Tenant {
		return false
	}
	return (g.Product == "" || g.Product == t.Product) && (g.Solution == "" || tree.Within(t.Solution, g.Solution))
}

// on is what g is held on.
func (g Grant) on() Thing { return Thing{Tenant: g.Tenant, Product: g.Product, Solution: g.Solution} }

// Can says whether a may do v to t. It is pure: everything it knows is in its arguments.
func Can(a Actor, v Verb, t Thing) bool {
	if a.Tenant == "" || a.Tenant != t.Tenant {
		return false
	}
	return slices.ContainsFunc(a.Grants, func(g Grant) bool { return g.covers(t, a.tree) && g.Role.Has(v) })
}

// Anywhere says whether a holds v on anything at all in its tenant. The doors ask it before they look anything up.
func Anywhere(a Actor, v Verb) bool {
	return slices.ContainsFunc(a.Grants, func(g Grant) bool { return a.Tenant != "" && g.Tenant == a.Tenant && g.Role.Has(v) })
}

// Scope returns the products and solutions that a's right to v is limited to, with all solutions that lie below; whole is
// true when it holds v on the whole tenant. A list shows what lies in one of them.
func Scope(a Actor, v Verb) (whole bool, products, solutions []string) {
	held := 0
	for _, g := range a.Grants {
		switch {
		case a.Tenant == "" || g.Tenant != a.Tenant || !g.Role.Has(v):
		case g.Product == "" && g.Solution == "":
			return true, nil, nil
		case g.Product != "" && g.Solution == "":
			products = append(products, g.Product)
		case g.Solution != "" && g.Product == "":
			held++
			solutions = append(solutions, a.tree.reach(g.Solution)...)
		}
	}
	if held > 1 { // the parts may overlap
		slices.Sort(solutions)
		solutions = slices.Compact(solutions)
	}
	return false, products, solutions
}

// Staff says whether whoever asks is of the manufacturer: its right is not held to a solution. Work in the background,
// with nobody in ctx, is too. Others never learn what there is beside their solutions.
func Staff(ctx context.Context) bool {
	a, ok := ActorFrom(ctx)
	return !ok || a.staff()
}

func (a Actor) staff() bool {
	return slices.ContainsFunc(a.Grants, func(g Grant) bool { return g.Solution == "" })
}

type actorKey struct{}

// WithActor puts the actor into the context.
func WithActor(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// ActorFrom returns who asks; false when nobody was authenticated.
func ActorFrom(ctx context.Context) (Actor, bool) {
	a, ok := ctx.Value(actorKey{}).(Actor)
	return a, ok
}

// MustTenant returns the tenant of the actor in ctx. It panics without one: a route that reads tenant data must not be public.
func MustTenant(ctx context.Context) string {
	a, ok := ActorFrom(ctx)
	if !ok || a.Tenant == "" {
		panic("tenant: no actor in the context")
	}
	return a.Tenant
}

// System is the platform itself at work in the background inside one tenant.
func System(tenant string) Actor {
	return Actor{ID: "system", Kind: KindSystem, Name: "OpenThings", Tenant: tenant, Grants: []Grant{{Role: Owner, Tenant: tenant}}}
}

// Require refuses unless the actor in ctx may do v to t. A thing of another tenant is "not found", so that nobody learns
// what others have; inside the own tenant the refusal names the verb.
func Require(ctx context.Context, v Verb, t Thing) error {
	a, ok := ActorFrom(ctx)
	switch {
	case !ok:
		return problem.Unauthenticated("This needs you to be signed in.")
	case a.Tenant != t.Tenant:
		return problem.NotFound("There is no such thing.")
	case !Can(a, v, t):
		return problem.Forbidden("access."+string(v), "Your roles do not let you %s here.", v.Text()).
			Hint("Ask an owner for a role that includes %s.", v)
	}
	return nil
}

// Holds says whether the actor in ctx holds the verb anywhere; it is handed to the api and console kits.
func Holds(ctx context.Context, verb string) bool {
	a, ok := ActorFrom(ctx)
	return ok && Anywhere(a, Verb(verb))
}

// Whole returns the tenant and the id of whoever asks, who must hold v on all of the tenant.
func Whole(ctx context.Context, v Verb) (tenant, actor string, err error) {
	who, _ := ActorFrom(ctx)
	tenant = MustTenant(ctx)
	return tenant, who.ID, Require(ctx, v, Thing{Tenant: tenant})
}
