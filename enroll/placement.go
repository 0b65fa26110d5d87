// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// MaxPlacements bounds the units that are placed by one call.
const MaxPlacements = 1000

// UnitOf is a device as product looks for its promise.
func UnitOf(d identity.Device) product.Unit {
	return product.Unit{Tenant: d.Tenant, Product: d.Product, Revision: d.Revision, Device: d.ID, Batch: d.Batch, Made: d.Created}
}

// UnitPlacement says of one unit, by its serial number, when it was placed on the market.
type UnitPlacement struct {
	Serial string `json:"serial" maxLength:"64"`
	product.Placement
}

// Placed says how many units were placed.
type Placed struct {
	Units int `json:"units"`
}

func (s *Service) placementRoutes(a *api.API) {
	const line, read = string(tenant.LineWrite), string(tenant.DeviceRead)
	type placementIn struct {
		ID   string `path:"id" maxLength:"64"`
		Body product.Placement
	}
	type placementsIn struct {
		ID   string `path:"id" maxLength:"64" doc:"Product"`
		Body struct {
			Units []UnitPlacement `json:"units" minItems:"1" maxItems:"1000"`
		}
	}
	type unitIn struct {
		ID string `path:"id" maxLength:"64" doc:"Device"`
	}
	api.Handle(a, api.Op{ID: "place-batch", Method: "PUT", Path: "/v1/batches/{id}/placement", Verb: line, Stage: "enroll",
		Summary: "Say when the units of a batch were placed on the market, or their cohort", Doc: "It decides until when they are supported. What is said of a unit itself goes before it."},
		func(ctx context.Context, in *placementIn) (*api.Out[product.Placement], error) {
			b, err := s.batch(ctx, tenant.LineWrite, in.ID)
			if err != nil {
				return nil, err
			}
			who, _ := tenant.ActorFrom(ctx)
			return api.One(in.Body), s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
				return s.cfg.Products.Place(tx, b.Tenant, b.Product, b.Revision, b.ID, in.Body, who.ID)
			})
		})
	api.Handle(a, api.Op{ID: "place-device", Method: "PUT", Path: "/v1/devices/{id}/placement", Verb: line, Stage: "enroll",
		Summary: "Say when a device was placed on the market, or its cohort"},
		func(ctx context.Context, in *placementIn) (*api.Out[product.UnitSupport], error) {
			d, err := s.cfg.Identity.Visible(ctx, tenant.LineWrite, in.ID)
			if err != nil {
				return nil, err
			}
			who, _ := tenant.ActorFrom(ctx)
			if err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
				return s.cfg.Products.Place(tx, d.Tenant, d.Product, d.Revision, d.ID, in.Body, who.ID)
			}); err != nil {
				return nil, err
			}
			return api.Answer(s.cfg.Products.SupportOfUnit(ctx, UnitOf(d)))
		})
	api.Handle(a, api.Op{ID: "place-units", Method: "POST", Path: "/v1/products/{id}/placements", Verb: line, Stage: "enroll",
		Summary: "Say when units of a product were placed on the market, by serial number", Doc: "At most 1,000 units, all of them or none."},
		func(ctx context.Context, in *placementsIn) (*api.Out[Placed], error) {
			t := tenant.MustTenant(ctx)
			if _, err := s.cfg.Products.Get(ctx, t, in.ID); err != nil {
				return nil, err
			}
			if err := tenant.Require(ctx, tenant.LineWrite, tenant.Thing{Tenant: t, Product: in.ID}); err != nil {
				return nil, err
			}
			who, _ := tenant.ActorFrom(ctx)
			return api.One(Placed{len(in.Body.Units)}), s.placeUnits(ctx, t, in.ID, in.Body.Units, who.ID)
		})
	api.Handle(a, api.Op{ID: "get-device-support", Method: "GET", Path: "/v1/devices/{id}/support", Verb: read, Stage: "enroll",
		Summary: "Until when a device is supported, why, and what comes next"},
		func(ctx context.Context, in *unitIn) (*api.Out[product.UnitSupport], error) {
			d, err := s.cfg.Identity.Visible(ctx, tenant.DeviceRead, in.ID)
			if err != nil {
				return nil, err
			}
			return api.Answer(s.cfg.Products.SupportOfUnit(ctx, UnitOf(d)))
		})
}

// placeUnits places units, all of them or none.
func (s *Service) placeUnits(ctx context.Context, tenant, product string, units []UnitPlacement, actor string) error {
	if len(units) > MaxPlacements {
		return problem.TooLarge("At most %d units are placed at once.", MaxPlacements).At("units")
	}
	return s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
		for _, u := range units {
			d, err := s.cfg.Identity.BySerialTx(tx, tenant, product, u.Serial)
			if problem.Is(err, problem.KindNotFound) {
				return problem.NotFound("The product has no unit %.64s; nothing was placed.", u.Serial).At("units")
			}
			if err == nil {
				err = s.cfg.Products.Place(tx, tenant, product, d.Revision, d.ID, u.Placement, actor)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}
