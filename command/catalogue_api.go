// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/tenant"
)

type declareCommandIn struct {
	ID   string `path:"id" doc:"Product"`
	Name string `path:"name"`
	Body struct {
		Title         string   `json:"title" maxLength:"120" doc:"What people call it" example:"Restart"`
		About         string   `json:"about,omitempty" maxLength:"500"`
		Args          []Arg    `json:"args,omitempty"`
		Roles         []string `json:"roles,omitempty" doc:"Who may send it; empty: every role that may send commands"`
		Idempotent    bool     `json:"idempotent,omitempty" doc:"Carrying it out twice is as good as once"`
		AckTimeout    int64    `json:"ack_timeout_s,omitempty" default:"30" minimum:"1" maximum:"3600" doc:"Seconds that a device has to acknowledge the packet"`
		ResultTimeout int64    `json:"result_timeout_s,omitempty" minimum:"0" doc:"Seconds from the receipt to the result; 0: until not_after"`
		Retries       int64    `json:"retries,omitempty" default:"5" minimum:"0" maximum:"100"`
		Backoff       int64    `json:"backoff_s,omitempty" default:"10" minimum:"0" maximum:"3600"`
	}
}

type declaredIn struct {
	ID   string `path:"id" doc:"Product"`
	Name string `path:"name"`
}

func (s *Service) catalogueRoutes(a *api.API) {
	const stage = "command"
	may := func(ctx context.Context, v tenant.Verb, product string) (string, error) {
		t := tenant.MustTenant(ctx)
		if err := s.isProduct(ctx, t, product); err != nil {
			return t, err
		}
		return t, tenant.Require(ctx, v, tenant.Thing{Tenant: t, Product: product})
	}
	api.Handle(a, api.Op{ID: "list-product-commands", Method: "GET", Path: "/v1/products/{id}/commands", Verb: string(tenant.ProductRead), Stage: stage,
		Summary: "List the commands that a product's devices understand"}, func(ctx context.Context, in *byIDIn) (*api.List[Declared], error) {
		t, err := may(ctx, tenant.ProductRead, in.ID)
		if err != nil {
			return nil, err
		}
		ds, err := s.Catalogue(ctx, t, in.ID)
		return api.Items(ds), err
	})
	api.Handle(a, api.Op{ID: "declare-command", Method: "PUT", Path: "/v1/products/{id}/commands/{name}", Verb: string(tenant.CatalogueWrite), Stage: stage,
		Summary: "Declare a command that a product's devices understand", Doc: "Once a product declares any command, others are for those who may declare."},
		func(ctx context.Context, in *declareCommandIn) (*api.Out[Declared], error) {
			t, err := may(ctx, tenant.CatalogueWrite, in.ID)
			if err != nil {
				return nil, err
			}
			who, _ := tenant.ActorFrom(ctx)
			b := in.Body
			d, err := s.Declare(ctx, t, Declared{Product: in.ID, Name: in.Name, Title: b.Title, About: b.About, Args: b.Args, Roles: b.Roles, Actor: who.ID,
				Policy: Policy{AckTimeout: b.AckTimeout, ResultTimeout: b.ResultTimeout, Retries: b.Retries, Backoff: b.Backoff, Idempotent: b.Idempotent}})
			return api.One(d), err
		})
	api.Handle(a, api.Op{ID: "withdraw-command", Method: "DELETE", Path: "/v1/products/{id}/commands/{name}", Verb: string(tenant.CatalogueWrite), Stage: stage,
		Summary: "Take a command out of a product's catalogue"}, func(ctx context.Context, in *declaredIn) (*struct{}, error) {
		t, err := may(ctx, tenant.CatalogueWrite, in.ID)
		if err != nil {
			return nil, err
		}
		who, _ := tenant.ActorFrom(ctx)
		return nil, s.Withdraw(ctx, t, in.ID, in.Name, who.ID)
	})
}
