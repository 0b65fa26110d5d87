// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// Availability is where a product is made available on the market, as its maker declares it. A notification names the
// Member States (CRA article 14(2)(a)); a person declares them, the fleet is only compared with them.
type Availability struct {
	MemberStates []string  `json:"member_states" maxItems:"27" doc:"ISO 3166 codes of Member States, such as DE, in the order of the alphabet"`
	Actor        string    `json:"actor,omitempty" doc:"Who declared it"`
	Changed      time.Time `json:"changed,omitzero" doc:"When; absent while nothing is declared"`
}

// checkStates returns the codes in upper case, sorted and once each, or refuses one that is no Member State's.
func checkStates(codes []string) ([]string, error) {
	out := make([]string, 0, len(codes))
	for _, c := range codes {
		c = strings.ToUpper(strings.TrimSpace(c))
		if _, ok := law.State(c); !ok {
			return nil, problem.Invalid("%q is not the code of a Member State, such as DE.", c).At("member_states")
		}
		out = append(out, c)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Availability returns the Member States where the product of the tenant is declared to be available, none while
// nothing is declared.
func (s *Service) Availability(ctx context.Context, tenant, product string) ([]string, error) {
	a, err := s.availability(ctx, tenant, product)
	return a.MemberStates, err
}

func (s *Service) availability(ctx context.Context, tenant, product string) (Availability, error) {
	var states string
	var a Availability
	var changed int64
	err := s.cfg.DB.QueryRow(ctx, `SELECT states, actor, changed FROM product_availability WHERE tenant = $1 AND product = $2`, tenant, product).Scan(&states, &a.Actor, &changed)
	if errors.Is(err, store.ErrNoRows) {
		return Availability{MemberStates: []string{}}, nil
	}
	a.MemberStates, a.Changed = strings.Fields(states), store.Time(changed)
	return a, err
}

// SetAvailability declares where a product of the tenant is available, in place of what was declared before.
func (s *Service) SetAvailability(ctx context.Context, tenant, product string, states []string, actor string) (Availability, error) {
	states, err := checkStates(states)
	if err != nil {
		return Availability{}, err
	}
	if _, err := s.Get(ctx, tenant, product); err != nil {
		return Availability{}, err
	}
	a := Availability{MemberStates: states, Actor: actor, Changed: store.Time(store.Millis(s.cfg.Clock.Now()))}
	return a, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.Exec(`INSERT INTO product_availability(tenant, product, states, actor, changed) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (tenant, product) DO UPDATE SET states = excluded.states, actor = excluded.actor, changed = excluded.changed`,
			tenant, product, strings.Join(states, " "), actor, store.Millis(a.Changed)); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "product.availability", Subject: product, Data: map[string]any{"member_states": states}})
	})
}

type availabilityIn struct {
	ID   string `path:"id" doc:"Product"`
	Body struct {
		MemberStates []string `json:"member_states" maxItems:"64" doc:"Codes of Member States, such as DE; an empty list declares none"`
	}
}

func (s *Service) availabilityRoutes(a *api.API) {
	const stage = "product"
	api.Handle(a, api.Op{ID: "get-availability", Method: "GET", Path: "/v1/products/{id}/availability", Verb: string(tenant.ProductRead), Stage: stage,
		Summary: "Read in which Member States a product is declared to be available"}, func(ctx context.Context, in *byID) (*api.Out[Availability], error) {
		v, err := s.readableAvailability(ctx, in.ID)
		return api.One(v), err
	})
	api.Handle(a, api.Op{ID: "set-availability", Method: "PUT", Path: "/v1/products/{id}/availability", Verb: string(tenant.ProductWrite), Stage: stage,
		Summary: "Declare in which Member States a product is available"}, func(ctx context.Context, in *availabilityIn) (*api.Out[Availability], error) {
		v, err := s.setAvailability(ctx, in.ID, in.Body.MemberStates)
		return api.One(v), err
	})
}

// readableAvailability is availability for whoever asks.
func (s *Service) readableAvailability(ctx context.Context, product string) (Availability, error) {
	p, err := s.read(ctx, product)
	if err != nil {
		return Availability{}, err
	}
	return s.availability(ctx, p.Tenant, p.ID)
}

// setAvailability is SetAvailability for whoever asks.
func (s *Service) setAvailability(ctx context.Context, product string, states []string) (Availability, error) {
	t, actor, err := s.mayWrite(ctx, product)
	if err != nil {
		return Availability{}, err
	}
	return s.SetAvailability(ctx, t, product, states, actor)
}

// mayWrite says in whose tenant whoever asks may change the product, and in which name; another tenant's is not found.
func (s *Service) mayWrite(ctx context.Context, product string) (ten, actor string, err error) {
	ten = tenant.MustTenant(ctx)
	if _, err := s.Get(ctx, ten, product); err != nil {
		return "", "", err
	}
	who, _ := tenant.ActorFrom(ctx)
	return ten, who.ID, tenant.Require(ctx, tenant.ProductWrite, tenant.Thing{Tenant: ten, Product: product})
}

// availabilityPart is the declared availability on the product's page.
type availabilityPart struct {
	Availability
	Product  string
	Names    *console.Names
	MayWrite bool
}

// declaredState is one Member State with whether it is declared.
type declaredState struct {
	law.MemberState
	On bool
}

// States are all Member States.
func (p availabilityPart) States() (all []declaredState) {
	for _, m := range law.MemberStates() {
		all = append(all, declaredState{m, slices.Contains(p.MemberStates, m.Code)})
	}
	return all
}

func (s *Service) availabilityPages(c *console.Console) {
	c.Fragment("product", console.Fragment{Order: 46, Title: "Made available in", Verb: string(tenant.ProductRead), FS: pagesFS, Template: "pages/availability.html",
		Load: func(r *http.Request, id string) (any, error) {
			v, err := s.readableAvailability(r.Context(), id)
			return availabilityPart{v, id, c.Names(r.Context()), tenant.Holds(r.Context(), string(tenant.ProductWrite))}, err
		}})
	c.Form("/products/{id}/availability", string(tenant.ProductWrite), func(r *http.Request) (string, error) {
		a, err := s.setAvailability(r.Context(), r.PathValue("id"), r.Form["state"])
		if err == nil {
			console.Say(r, console.Plural(len(a.MemberStates), "Member State is", "Member States are")+" declared.")
		}
		return "/products/" + r.PathValue("id"), err
	})
}
