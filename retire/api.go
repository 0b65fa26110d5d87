// SPDX-License-Identifier: AGPL-3.0-only

package retire

import (
	"context"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/tenant"
)

// Routes registers the operations of the stage.
func (s *Service) Routes(a *api.API) {
	type byID struct {
		ID string `path:"id" maxLength:"64" doc:"Device"`
	}
	type decommissionIn struct {
		ID   string `path:"id" maxLength:"64" doc:"Device"`
		Body struct {
			Reason string `json:"reason" maxLength:"500" doc:"Why; kept in the audit log"`
		}
	}
	type deprovisionIn struct {
		ID   string `path:"id" maxLength:"64" doc:"Device"`
		Body struct {
			Reason      string `json:"reason" maxLength:"500" doc:"Why; kept in the audit log"`
			WithoutWipe bool   `json:"without_wipe,omitempty" doc:"The device is lost or broken and cannot wipe itself"`
		}
	}
	api.Handle(a, api.Op{ID: "get-retirement", Method: "GET", Path: "/v1/devices/{id}/retirement", Verb: string(tenant.DeviceRead), Stage: "retire",
		Summary: "How far a device is on its last way: wipe, receipt, steps, erasure"},
		func(ctx context.Context, in *byID) (*api.Out[Retirement], error) {
			d, err := s.cfg.Identity.Visible(ctx, tenant.DeviceRead, in.ID)
			if err != nil {
				return nil, err
			}
			return api.Answer(s.Retirement(ctx, d.Tenant, d.ID))
		})
	api.Handle(a, api.Op{ID: "decommission-device", Method: "POST", Path: "/v1/devices/{id}/decommission", Verb: string(tenant.DeviceRetire), Stage: "retire", Status: 202,
		Summary: "Ask a device to wipe itself and to prove it"},
		func(ctx context.Context, in *decommissionIn) (*api.Out[Retirement], error) {
			return api.Answer(s.decommission(ctx, in.ID, in.Body.Reason))
		})
	api.Handle(a, api.Op{ID: "deprovision-device", Method: "POST", Path: "/v1/devices/{id}/deprovision", Verb: string(tenant.DeviceRetire), Stage: "retire", Status: 202,
		Summary: "Revoke a device for ever, cut its sessions, erase its data and keep the evidence"},
		func(ctx context.Context, in *deprovisionIn) (*api.Out[Retirement], error) {
			return api.Answer(s.deprovision(ctx, in.ID, in.Body.Reason, in.Body.WithoutWipe))
		})
}

// decommission is Decommission for whoever asks.
func (s *Service) decommission(ctx context.Context, id, reason string) (Retirement, error) {
	d, err := s.cfg.Identity.Visible(ctx, tenant.DeviceRetire, id)
	if err != nil {
		return Retirement{}, err
	}
	a, _ := tenant.ActorFrom(ctx)
	return s.Decommission(ctx, d.Tenant, d.ID, a.ID, reason)
}

// deprovision is Deprovision for whoever asks.
func (s *Service) deprovision(ctx context.Context, id, reason string, unwiped bool) (Retirement, error) {
	d, err := s.cfg.Identity.Visible(ctx, tenant.DeviceRetire, id)
	if err != nil {
		return Retirement{}, err
	}
	a, _ := tenant.ActorFrom(ctx)
	return s.Deprovision(ctx, d.Tenant, d.ID, a.ID, reason, unwiped)
}
