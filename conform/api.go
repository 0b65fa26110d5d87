// SPDX-License-Identifier: AGPL-3.0-only

package conform

import (
	"context"
	"slices"
	"strconv"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/tenant"
)

const (
	mayRead  = string(tenant.ProductRead)
	mayWrite = string(tenant.ConformWrite)
	maySign  = string(tenant.ConformSign)
	stage    = "conform"
)

type byProduct struct {
	ID string `path:"id" maxLength:"64" doc:"Product"`
}

type versionsIn struct {
	ID string `path:"id" maxLength:"64" doc:"Product"`
	api.Paging
}

// Routes registers the operations of the stage.
func (s *Service) Routes(a *api.API) {
	s.lawRoutes(a)
	s.classRoutes(a)
	s.riskRoutes(a)
	s.registerRoutes(a)
	s.screenRoutes(a)
	api.Handle(a, api.Op{ID: "get-conformity-readiness", Method: "GET", Path: "/v1/products/{id}/conformity-readiness", Verb: mayRead, Stage: stage,
		Summary: "What a product needs for its conformity assessment, and what is recorded of it"},
		func(ctx context.Context, in *byProduct) (*api.List[Item], error) {
			c, err := s.on(ctx, tenant.ProductRead, in.ID)
			if err != nil {
				return nil, err
			}
			list, err := s.Readiness(ctx, c.tenant, c.product)
			return api.Items(list), err
		})
}

// out is the answer of an operation.
// before is the version at which a page of versions goes on; 0 is the newest.
func before(a *api.API, p api.Paging) (int64, error) {
	key, err := p.After(a)
	n, _ := strconv.ParseInt(key, 10, 64) // ours: the token is authenticated
	return n, err
}

func (s *Service) classRoutes(a *api.API) {
	api.Handle(a, api.Op{ID: "list-product-classes", Method: "GET", Path: "/v1/product-classes", Verb: mayRead, Stage: stage,
		Summary: "Categories of important and critical products (CRA Annexes III and IV), with the heart of their description"},
		func(context.Context, *struct{}) (*api.List[law.Category], error) {
			return api.Items(law.Classes()), nil
		})
	api.Handle(a, api.Op{ID: "get-classification", Method: "GET", Path: "/v1/products/{id}/classification", Verb: mayRead, Stage: stage,
		Summary: "The class of a product, why, and who confirmed it"},
		func(ctx context.Context, in *byProduct) (*api.Out[Classified], error) {
			c, err := s.on(ctx, tenant.ProductRead, in.ID)
			if err != nil {
				return nil, err
			}
			return api.Answer(s.Classified(ctx, c.tenant, c.product))
		})
	api.Handle(a, api.Op{ID: "list-classifications", Method: "GET", Path: "/v1/products/{id}/classifications", Verb: mayRead, Stage: stage,
		Summary: "The versions of a product's classification, the newest first"},
		func(ctx context.Context, in *versionsIn) (*api.List[Classified], error) {
			c, err := s.on(ctx, tenant.ProductRead, in.ID)
			if err != nil {
				return nil, err
			}
			n, err := before(a, in.Paging)
			if err != nil {
				return nil, err
			}
			list, err := s.Classifications(ctx, c.tenant, c.product, n, in.Size()+1)
			return api.More(a, in.Paging, list, func(c Classified) string { return decimal(c.Version) }), err
		})
	type classIn struct {
		ID   string `path:"id" maxLength:"64" doc:"Product"`
		Body Classification
	}
	api.Handle(a, api.Op{ID: "classify-product", Method: "PUT", Path: "/v1/products/{id}/classification", Verb: mayWrite, Stage: stage,
		Summary: "Record the class of a product as a new version",
		Doc:     "The category of the core functionality decides. A component of an important category does not make the product important."},
		func(ctx context.Context, in *classIn) (*api.Out[Classified], error) {
			c, err := s.on(ctx, tenant.ConformWrite, in.ID)
			if err != nil {
				return nil, err
			}
			return api.Answer(s.Classify(ctx, c.tenant, c.product, c.actor, in.Body))
		})
	type confirmClassIn struct {
		ID   string `path:"id" maxLength:"64" doc:"Product"`
		Body struct {
			Version int64  `json:"version" minimum:"1"`
			Note    string `json:"note,omitempty" maxLength:"4000"`
		}
	}
	api.Handle(a, api.Op{ID: "confirm-classification", Method: "POST", Path: "/v1/products/{id}/classification/confirm", Verb: maySign, Stage: stage,
		Summary: "Confirm a version of the classification as a second person"},
		func(ctx context.Context, in *confirmClassIn) (*api.Out[Classified], error) {
			c, err := s.on(ctx, tenant.ConformSign, in.ID)
			if err != nil {
				return nil, err
			}
			return api.Answer(s.Confirm(ctx, c.tenant, c.product, c.actor, in.Body.Version, in.Body.Note))
		})
	api.Handle(a, api.Op{ID: "get-route", Method: "GET", Path: "/v1/products/{id}/conformity-route", Verb: mayRead, Stage: stage,
		Summary: "The chosen conformity assessment procedure, and which are open to the product today"},
		func(ctx context.Context, in *byProduct) (*api.Out[Route], error) {
			c, err := s.on(ctx, tenant.ProductRead, in.ID)
			if err != nil {
				return nil, err
			}
			return api.Answer(s.Route(ctx, c.tenant, c.product))
		})
	type routeIn struct {
		ID   string `path:"id" maxLength:"64" doc:"Product"`
		Body Choice
	}
	api.Handle(a, api.Op{ID: "choose-route", Method: "PUT", Path: "/v1/products/{id}/conformity-route", Verb: maySign, Stage: stage,
		Summary: "Choose the conformity assessment procedure; one that the class does not permit is refused"},
		func(ctx context.Context, in *routeIn) (*api.Out[Route], error) {
			c, err := s.on(ctx, tenant.ConformSign, in.ID)
			if err != nil {
				return nil, err
			}
			return api.Answer(s.ChooseRoute(ctx, c.tenant, c.product, c.actor, in.Body))
		})
}

func (s *Service) registerRoutes(a *api.API) {
	type listIn struct {
		Product string `query:"product" maxLength:"64" doc:"Only what its newest release lists"`
		Due     bool   `query:"due" doc:"Only what needs a review"`
		api.Paging
	}
	api.Handle(a, api.Op{ID: "list-register", Method: "GET", Path: "/v1/component-register", Verb: mayRead, Stage: stage,
		Summary: "Components of the newest releases, one line for all versions, with the newest review"},
		func(ctx context.Context, in *listIn) (*api.List[Entry], error) {
			c, err := s.onRegister(ctx, tenant.ProductRead, in.Product)
			if err != nil {
				return nil, err
			}
			after, err := in.After(a)
			if err != nil {
				return nil, err
			}
			limit := in.Size() + 1
			if in.Due {
				limit = maxRegister
			}
			list, err := s.Register(ctx, c.tenant, c.product, after, limit)
			if in.Due {
				list = slices.DeleteFunc(list, func(e Entry) bool { return e.State == "current" })
			}
			return api.More(a, in.Paging, list, func(e Entry) string { return e.Name }), err
		})
	type reviewComponentIn struct {
		Body struct {
			Name string `json:"name" minLength:"1" maxLength:"1000" doc:"As the register has it"`
			Component
		}
	}
	api.Handle(a, api.Op{ID: "review-component", Method: "POST", Path: "/v1/component-register", Verb: mayWrite, Stage: stage, Status: 201,
		Summary: "Record a review of a component, for all products of the tenant that have it"},
		func(ctx context.Context, in *reviewComponentIn) (*api.Out[Entry], error) {
			c, err := s.onRegister(ctx, tenant.ConformWrite, "")
			if err != nil {
				return nil, err
			}
			return api.Answer(s.Review(ctx, c.tenant, in.Body.Name, c.actor, in.Body.Component))
		})
	api.Handle(a, api.Op{ID: "list-endings", Method: "GET", Path: "/v1/products/{id}/component-endings", Verb: mayRead, Stage: stage,
		Summary: "Components of the newest release whose support ends before the product's"},
		func(ctx context.Context, in *byProduct) (*api.List[Ending], error) {
			c, err := s.on(ctx, tenant.ProductRead, in.ID)
			if err != nil {
				return nil, err
			}
			list, err := s.Endings(ctx, c.tenant, c.product)
			return api.Items(list), err
		})
	type settingsOut struct {
		Settings
		Stamp
	}
	api.Handle(a, api.Op{ID: "get-conformity-settings", Method: "GET", Path: "/v1/conformity-settings", Verb: mayRead, Stage: stage,
		Summary: "What the tenant demands of itself"},
		func(ctx context.Context, _ *struct{}) (*api.Out[settingsOut], error) {
			set, stamp, err := s.Settings(ctx, tenant.MustTenant(ctx))
			return api.Answer(settingsOut{set, stamp}, err)
		})
	type settingsIn struct{ Body Settings }
	api.Handle(a, api.Op{ID: "set-conformity-settings", Method: "PUT", Path: "/v1/conformity-settings", Verb: maySign, Stage: stage,
		Summary: "Say what the tenant demands of itself"},
		func(ctx context.Context, in *settingsIn) (*api.Out[Settings], error) {
			c, err := s.onRegister(ctx, tenant.ConformSign, "")
			if err != nil {
				return nil, err
			}
			return api.Answer(in.Body, s.Set(ctx, c.tenant, c.actor, in.Body))
		})
}
