// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"strings"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

type byID struct {
	ID string `path:"id" doc:"Device"`
}

type reasonIn struct {
	ID   string `path:"id" doc:"Device"`
	Body struct {
		Reason string `json:"reason" minLength:"1" maxLength:"500" doc:"Why; kept in the audit log"`
	}
}

// Routes mounts the API.
func (s *Service) Routes(a *api.API) {
	const stage = "identity"
	s.trustRoutes(a)
	s.revocationRoutes(a)
	api.Handle(a, api.Op{ID: "list-certificates", Method: "GET", Path: "/v1/devices/{id}/certificates", Verb: string(tenant.DeviceRead), Stage: stage,
		Summary: "List every certificate that the device ever had"}, func(ctx context.Context, in *byID) (*api.List[Certificate], error) {
		d, err := s.Visible(ctx, tenant.DeviceRead, in.ID)
		if err != nil {
			return nil, err
		}
		cs, err := s.Certificates(ctx, d.Tenant, d.ID)
		return api.Items(cs), err
	})
	api.Handle(a, api.Op{ID: "suspend-device", Method: "POST", Path: "/v1/devices/{id}/suspend", Verb: string(tenant.DeviceSuspend), Stage: stage,
		Summary: "Lock a device out until it is resumed; live sessions are cut"}, func(ctx context.Context, in *reasonIn) (*api.Out[Device], error) {
		return s.toggle(ctx, in.ID, in.Body.Reason, s.Suspend)
	})
	api.Handle(a, api.Op{ID: "resume-device", Method: "POST", Path: "/v1/devices/{id}/resume", Verb: string(tenant.DeviceSuspend), Stage: stage,
		Summary: "End a suspension; the device returns to the state it had"}, func(ctx context.Context, in *reasonIn) (*api.Out[Device], error) {
		return s.toggle(ctx, in.ID, in.Body.Reason, s.Resume)
	})
}

func (s *Service) toggle(ctx context.Context, id, reason string, do func(ctx context.Context, tenant, id, actor, reason string) error) (*api.Out[Device], error) {
	d, err := s.change(ctx, id, reason, do)
	return api.One(d), err
}

// change suspends or resumes a device for whoever asks.
func (s *Service) change(ctx context.Context, id, reason string, do func(ctx context.Context, tenant, id, actor, reason string) error) (Device, error) {
	d, err := s.Visible(ctx, tenant.DeviceSuspend, id)
	if err != nil {
		return Device{}, err
	}
	if strings.TrimSpace(reason) == "" {
		return Device{}, problem.Invalid("Say why.").At("reason")
	}
	who, _ := tenant.ActorFrom(ctx)
	if err := do(ctx, d.Tenant, d.ID, who.ID, reason); err != nil {
		return Device{}, err
	}
	return s.Get(ctx, d.Tenant, d.ID)
}

// Visible returns the device if the actor in ctx may do v to it. Every route about a device begins with it.
func (s *Service) Visible(ctx context.Context, v tenant.Verb, id string) (Device, error) {
	d, err := s.Get(ctx, tenant.MustTenant(ctx), id)
	if err != nil {
		return Device{}, err
	}
	if err := tenant.Require(ctx, v, tenant.Thing{Tenant: d.Tenant, Product: d.Product, Solution: d.Solution}); err != nil {
		return Device{}, err
	}
	return d, nil
}
