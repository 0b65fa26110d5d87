// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"context"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/tenant"
)

type productIn struct {
	Body struct {
		Name  string `json:"name" maxLength:"480"`
		Model string `json:"model" maxLength:"64" doc:"Short name for machines: a-z, 0-9 and -" example:"lamp"`
	}
}

type revisionIn struct {
	ID   string `path:"id" doc:"Product"`
	Body struct {
		Name       string    `json:"name" maxLength:"480"`
		Placed     time.Time `json:"placed,omitzero" required:"false" doc:"When it is first placed on the market; default now"`
		SupportEnd time.Time `json:"support_end,omitzero" required:"false" doc:"Mandatory; five years after placing or later, unless there is a reason"`
		Reason     string    `json:"reason,omitempty" maxLength:"2000" doc:"Why support is shorter than five years"`
	}
}

type byID struct {
	ID string `path:"id"`
}

// ProductOut is a product with its hardware revisions.
type ProductOut struct {
	Product
	Revisions []Revision `json:"revisions"`
}

// Routes mounts the API.
func (s *Service) Routes(a *api.API) {
	const stage = "product"
	api.Handle(a, api.Op{ID: "create-product", Method: "POST", Path: "/v1/products", Verb: string(tenant.ProductWrite), Stage: stage, Status: 201,
		Summary: "Create a product"}, func(ctx context.Context, in *productIn) (*api.Out[Product], error) {
		p, err := s.create(ctx, Product{Name: in.Body.Name, Model: in.Body.Model})
		return &api.Out[Product]{Body: p, Location: "/v1/products/" + p.ID}, err
	})
	api.Handle(a, api.Op{ID: "list-products", Method: "GET", Path: "/v1/products", Verb: string(tenant.ProductRead), Stage: stage,
		Summary: "List products"}, func(ctx context.Context, _ *struct{}) (*api.List[Product], error) {
		ps, err := s.readable(ctx)
		return api.Items(ps), err
	})
	api.Handle(a, api.Op{ID: "get-product", Method: "GET", Path: "/v1/products/{id}", Verb: string(tenant.ProductRead), Stage: stage,
		Summary: "Read a product and its hardware revisions"}, func(ctx context.Context, in *byID) (*api.Out[ProductOut], error) {
		p, err := s.read(ctx, in.ID)
		return api.One(p), err
	})
	api.Handle(a, api.Op{ID: "create-revision", Method: "POST", Path: "/v1/products/{id}/revisions", Verb: string(tenant.ProductWrite), Stage: stage, Status: 201,
		Summary: "Add a hardware revision; its end of support is mandatory"}, func(ctx context.Context, in *revisionIn) (*api.Out[Revision], error) {
		v, err := s.addRevision(ctx, Revision{Product: in.ID, Name: in.Body.Name, Placed: in.Body.Placed, SupportEnd: in.Body.SupportEnd, Reason: in.Body.Reason})
		return api.One(v), err
	})
	s.baselineRoutes(a)
	s.availabilityRoutes(a)
	s.cohortRoutes(a)
	s.informationRoutes(a)
	s.cessationRoutes(a)
	s.transitionRoutes(a)
}

// create is Create for whoever asks.
func (s *Service) create(ctx context.Context, p Product) (Product, error) {
	p.Tenant = tenant.MustTenant(ctx)
	if err := tenant.Require(ctx, tenant.ProductWrite, tenant.Thing{Tenant: p.Tenant}); err != nil {
		return Product{}, err
	}
	who, _ := tenant.ActorFrom(ctx)
	return s.Create(ctx, p, who.ID)
}

// addRevision is CreateRevision for whoever asks.
func (s *Service) addRevision(ctx context.Context, v Revision) (Revision, error) {
	v.Tenant = tenant.MustTenant(ctx)
	if err := tenant.Require(ctx, tenant.ProductWrite, tenant.Thing{Tenant: v.Tenant, Product: v.Product}); err != nil {
		return Revision{}, err
	}
	if v.Placed.IsZero() {
		v.Placed = s.cfg.Clock.Now().UTC().Truncate(24 * time.Hour)
	}
	who, _ := tenant.ActorFrom(ctx)
	return s.CreateRevision(ctx, v, who.ID)
}

// read returns a product that whoever asks may read.
func (s *Service) read(ctx context.Context, id string) (ProductOut, error) {
	t := tenant.MustTenant(ctx)
	p, err := s.Get(ctx, t, id)
	if err != nil {
		return ProductOut{}, err
	}
	if err := tenant.Require(ctx, tenant.ProductRead, tenant.Thing{Tenant: t, Product: p.ID}); err != nil {
		return ProductOut{}, err
	}
	vs, err := s.Revisions(ctx, t, p.ID)
	return ProductOut{Product: p, Revisions: vs}, err
}

// readable returns the products that whoever asks may read.
func (s *Service) readable(ctx context.Context) ([]Product, error) {
	who, _ := tenant.ActorFrom(ctx)
	all, err := s.List(ctx, who.Tenant)
	var mine []Product
	for _, p := range all {
		if tenant.Can(who, tenant.ProductRead, tenant.Thing{Tenant: p.Tenant, Product: p.ID}) {
			mine = append(mine, p)
		}
	}
	return mine, err
}
