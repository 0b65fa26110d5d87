// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"
	"slices"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

// stopRoutes registers the operations of stops.
func (s *Service) stopRoutes(a *api.API) {
	read, write := string(tenant.VulnRead), string(tenant.VulnDecide)
	type listIn struct {
		Product string `query:"product" maxLength:"64"`
		All     bool   `query:"all" doc:"Also what was lifted"`
		api.Paging
	}
	api.Handle(a, api.Op{ID: "list-stops", Method: "GET", Path: "/v1/stops", Verb: read, Stage: "vuln",
		Summary: "Units whose making is stopped, the newest first"},
		func(ctx context.Context, in *listIn) (*api.List[Stop], error) {
			after, err := in.After(a)
			if err != nil {
				return nil, err
			}
			list, err := s.Stops(ctx, tenant.MustTenant(ctx), enroll.HoldFilter{Product: in.Product, Standing: !in.All}, visible(ctx))
			if err != nil {
				return nil, err
			}
			list = slices.DeleteFunc(list, func(x Stop) bool { return after != "" && x.ID >= after })
			return api.More(a, in.Paging, list, func(x Stop) string { return x.ID }), nil
		})
	type stopIn struct{ Body Stopping }
	api.Handle(a, api.Op{ID: "stop-units", Method: "POST", Path: "/v1/stops", Verb: write, Stage: "vuln", Status: 201,
		Summary: "Stop the making of units: none that matches gets a new identity until the stop is lifted",
		Doc: "Stations, tokens, trusted CAs, claims, approvals and first enrolments are refused by the rule enroll.hold. Devices in the field renew as before. " +
			"A unit that does not say what it runs counts as running what is stopped."},
		func(ctx context.Context, in *stopIn) (*api.Out[Stop], error) {
			x, err := s.stopAs(ctx, in.Body)
			if err != nil {
				return nil, err
			}
			return api.One(x), nil
		})
	type liftIn struct {
		ID   string `path:"id" maxLength:"64"`
		Body struct {
			Reason string `json:"reason" minLength:"1" maxLength:"500"`
		}
	}
	api.Handle(a, api.Op{ID: "lift-stop", Method: "POST", Path: "/v1/stops/{id}/lift", Verb: write, Stage: "vuln",
		Summary: "Lift a stop: units get identities again"},
		func(ctx context.Context, in *liftIn) (*api.Out[Stop], error) {
			x, err := s.resumeAs(ctx, in.ID, in.Body.Reason)
			if err != nil {
				return nil, err
			}
			return api.One(x), nil
		})
	type policyIn struct {
		ID string `path:"id" maxLength:"64" doc:"Product"`
	}
	api.Handle(a, api.Op{ID: "get-stop-policy", Method: "GET", Path: "/v1/products/{id}/stop-policy", Verb: read, Stage: "vuln",
		Summary: "What happens to the making of units when a release turns out to be exploited"},
		func(ctx context.Context, in *policyIn) (*api.Out[StopSetting], error) {
			t, err := s.onProduct(ctx, tenant.VulnRead, in.ID)
			if err != nil {
				return nil, err
			}
			p, err := s.StopPolicyOf(ctx, t, in.ID)
			if err != nil {
				return nil, err
			}
			return api.One(p), nil
		})
	type setIn struct {
		ID   string `path:"id" maxLength:"64" doc:"Product"`
		Body struct {
			Policy StopPolicy `json:"policy" enum:"off,ask,automatic"`
		}
	}
	api.Handle(a, api.Op{ID: "set-stop-policy", Method: "PUT", Path: "/v1/products/{id}/stop-policy", Verb: write, Stage: "vuln",
		Summary: "Say what happens to the making of units when a release turns out to be exploited",
		Doc:     "It holds at once for what is exploited already. Setting another policy lifts nothing."},
		func(ctx context.Context, in *setIn) (*api.Out[StopSetting], error) {
			p, err := s.setStopPolicyAs(ctx, in.ID, in.Body.Policy)
			if err != nil {
				return nil, err
			}
			return api.One(p), nil
		})
}

// stopAs, resumeAs and setStopPolicyAs act in the name of the caller, who must hold the right on the product.
func (s *Service) stopAs(ctx context.Context, in Stopping) (Stop, error) {
	t, err := s.onProduct(ctx, tenant.VulnDecide, in.Product)
	if err != nil {
		return Stop{}, err
	}
	actor, _ := tenant.ActorFrom(ctx)
	return s.StopUnits(ctx, t, actor.ID, in)
}

func (s *Service) resumeAs(ctx context.Context, id, why string) (Stop, error) {
	t := tenant.MustTenant(ctx)
	list, err := s.Stops(ctx, t, enroll.HoldFilter{}, visible(ctx))
	if err != nil {
		return Stop{}, err
	}
	i := slices.IndexFunc(list, func(x Stop) bool { return x.ID == id })
	if i < 0 {
		return Stop{}, problem.NotFound("There is no such stop.")
	}
	if err := tenant.Require(ctx, tenant.VulnDecide, tenant.Thing{Tenant: t, Product: list[i].Product}); err != nil {
		return Stop{}, err
	}
	actor, _ := tenant.ActorFrom(ctx)
	return s.Resume(ctx, t, actor.ID, id, why)
}

func (s *Service) setStopPolicyAs(ctx context.Context, product string, policy StopPolicy) (StopSetting, error) {
	t, err := s.onProduct(ctx, tenant.VulnDecide, product)
	if err != nil {
		return StopSetting{}, err
	}
	actor, _ := tenant.ActorFrom(ctx)
	return s.SetStopPolicy(ctx, t, actor.ID, product, policy)
}
