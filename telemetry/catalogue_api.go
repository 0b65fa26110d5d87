// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"strconv"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/tenant"
)

type productIn struct {
	ID string `path:"id" doc:"Product"`
}

type catalogueIn struct {
	ID   string `path:"id" doc:"Product"`
	Body Catalogue
}

type declareIn struct {
	ID   string `path:"id" doc:"Product"`
	Body struct {
		Fields []Field `json:"fields" minItems:"1" maxItems:"100"`
	}
}

type cataloguesIn struct {
	ID string `path:"id" doc:"Product"`
	api.Paging
}

// RetentionOut is how long a tenant keeps what no catalogue says more of.
type RetentionOut struct {
	Days int `json:"days" minimum:"1" maximum:"36500"`
}

// Undeclared is a field that devices of a product sent and its catalogue does not name.
type Undeclared struct {
	Stream string    `json:"stream"`
	Field  string    `json:"field"`
	Count  int64     `json:"count" doc:"Values dropped; 0: they are kept, since the catalogue does not drop or there is none"`
	Last   time.Time `json:"last"`
	Device string    `json:"device,omitempty" doc:"A device that sent it, where it is kept"`
}

// catalogueRoutes mounts the API of catalogues and retention.
func (s *Service) catalogueRoutes(a *api.API) {
	const stage = "telemetry"
	api.Handle(a, api.Op{ID: "get-catalogue", Method: "GET", Path: "/v1/products/{id}/catalogue", Verb: string(tenant.ProductRead), Stage: stage,
		Summary: "Read what a product's devices may send", Doc: "Version 0: nobody has declared anything, and everything is taken."},
		func(ctx context.Context, in *productIn) (*api.Out[CatalogueVersion], error) {
			t, err := s.catalogued(ctx, tenant.ProductRead, in.ID)
			if err != nil {
				return nil, err
			}
			v, err := s.Catalogue(ctx, t, in.ID)
			return api.One(v), err
		})
	api.Handle(a, api.Op{ID: "set-catalogue", Method: "PUT", Path: "/v1/products/{id}/catalogue", Verb: string(tenant.CatalogueWrite), Stage: stage,
		Summary: "Set what a product's devices may send, as the next version", Doc: "A field that is not named is dropped from now on, and counted, unless undeclared is keep."},
		func(ctx context.Context, in *catalogueIn) (*api.Out[CatalogueVersion], error) {
			t, err := s.catalogued(ctx, tenant.CatalogueWrite, in.ID)
			if err != nil {
				return nil, err
			}
			v, err := s.SetCatalogue(ctx, t, in.ID, in.Body, actor(ctx).ID)
			return api.One(v), err
		})
	api.Handle(a, api.Op{ID: "declare-fields", Method: "POST", Path: "/v1/products/{id}/catalogue/fields", Verb: string(tenant.CatalogueWrite), Stage: stage,
		Summary: "Declare further fields of a product's devices, or declare some anew"},
		func(ctx context.Context, in *declareIn) (*api.Out[CatalogueVersion], error) {
			t, err := s.catalogued(ctx, tenant.CatalogueWrite, in.ID)
			if err != nil {
				return nil, err
			}
			v, err := s.Declare(ctx, t, in.ID, in.Body.Fields, actor(ctx).ID)
			return api.One(v), err
		})
	api.Handle(a, api.Op{ID: "list-catalogues", Method: "GET", Path: "/v1/products/{id}/catalogues", Verb: string(tenant.ProductRead), Stage: stage,
		Summary: "List the versions of a product's catalogue, the newest first"},
		func(ctx context.Context, in *cataloguesIn) (*api.List[CatalogueVersion], error) {
			t, err := s.catalogued(ctx, tenant.ProductRead, in.ID)
			if err != nil {
				return nil, err
			}
			key, err := in.After(a)
			if err != nil {
				return nil, err
			}
			before, _ := strconv.ParseInt(key, 10, 64) // ours: the token is authenticated; empty is 0, the newest
			vs, err := s.Catalogues(ctx, t, in.ID, before, in.Size()+1)
			return api.More(a, in.Paging, vs, func(v CatalogueVersion) string { return strconv.FormatInt(v.Version, 10) }), err
		})
	api.Handle(a, api.Op{ID: "list-undeclared-fields", Method: "GET", Path: "/v1/products/{id}/undeclared-fields", Verb: string(tenant.ProductRead), Stage: stage,
		Summary: "List fields that a product's devices send and its catalogue does not name"},
		func(ctx context.Context, in *productIn) (*api.List[Undeclared], error) {
			t, err := s.catalogued(ctx, tenant.ProductRead, in.ID)
			if err != nil {
				return nil, err
			}
			us, err := s.Undeclared(ctx, t, in.ID)
			return api.Items(us), err
		})
	api.Handle(a, api.Op{ID: "get-retention", Method: "GET", Path: "/v1/telemetry/retention", Verb: string(tenant.ProductRead), Stage: stage,
		Summary: "Read how many days a field is kept whose catalogue does not say"},
		func(ctx context.Context, _ *struct{}) (*api.Out[RetentionOut], error) {
			days, err := s.Retention(ctx, tenant.MustTenant(ctx))
			return api.One(RetentionOut{days}), err
		})
	api.Handle(a, api.Op{ID: "set-retention", Method: "PUT", Path: "/v1/telemetry/retention", Verb: string(tenant.CatalogueWrite), Stage: stage,
		Summary: "Set how many days a field is kept whose catalogue does not say", Doc: "What is older is deleted within a day."},
		func(ctx context.Context, in *struct{ Body RetentionOut }) (*api.Out[RetentionOut], error) {
			t := tenant.MustTenant(ctx)
			if err := tenant.Require(ctx, tenant.CatalogueWrite, tenant.Thing{Tenant: t}); err != nil {
				return nil, err
			}
			return api.One(in.Body), s.SetRetention(ctx, t, in.Body.Days, actor(ctx).ID)
		})
}

// catalogued returns the tenant of a product at which whoever asks holds the verb.
func (s *Service) catalogued(ctx context.Context, v tenant.Verb, product string) (string, error) {
	t := tenant.MustTenant(ctx)
	p, err := s.cfg.Product.Get(ctx, t, product)
	if err != nil {
		return "", err
	}
	return t, tenant.Require(ctx, v, tenant.Thing{Tenant: t, Product: p.ID})
}

// sampled is how many devices are looked at for fields that are kept without being declared.
const sampled = 20

// Undeclared returns the fields that the product's devices sent and its catalogue does not name: those that were dropped,
// and where they are kept, those that some of its devices said last.
func (s *Service) Undeclared(ctx context.Context, tenant, product string) ([]Undeclared, error) {
	dropped, err := s.undeclared(ctx, tenant, product)
	if err != nil {
		return nil, err
	}
	out := []Undeclared{}
	known := map[string]bool{}
	for _, u := range dropped {
		known[u.stream+"/"+u.field] = true
		out = append(out, Undeclared{Stream: u.stream, Field: u.field, Count: u.n, Last: time.UnixMilli(u.at).UTC()})
	}
	v, err := s.Catalogue(ctx, tenant, product)
	if err != nil || v.Undeclared == DropUndeclared {
		return out, err
	}
	for _, f := range v.Fields {
		known[f.key()] = true
	}
	devices, err := s.cfg.Identity.List(ctx, tenant, identity.Filter{Product: product, State: identity.Commissioned, Limit: sampled})
	if err != nil {
		return nil, err
	}
	for _, d := range devices {
		latest, err := s.Latest(ctx, tenant, d.ID)
		if err != nil {
			return nil, err
		}
		for _, l := range latest.Streams {
			for name := range l.Values {
				if key := l.Stream + "/" + name; !known[key] {
					known[key] = true
					out = append(out, Undeclared{Stream: l.Stream, Field: name, Last: l.Time, Device: d.ID})
				}
			}
		}
	}
	return out, nil
}
