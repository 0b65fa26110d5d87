// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"slices"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

type transferIn struct {
	ID   string `path:"id" maxLength:"64" doc:"Device"`
	Body struct {
		Solution string `json:"solution" maxLength:"64" doc:"Where it serves from now on"`
		Reason   string `json:"reason,omitempty" maxLength:"500" doc:"Kept in the audit log"`
	}
}

// Transfer moves a claimed device from its solution to another one of the tenant: up, down or beside. Whoever asks must
// hold the right to claim on both. What the device measured and how it was treated goes with it, to whoever has a right
// on its new solution.
func (s *Service) Transfer(ctx context.Context, device, solution, reason string) (identity.Device, error) {
	d, err := s.cfg.Identity.Visible(ctx, tenant.DeviceClaim, device)
	if err != nil {
		return d, err
	}
	if err := tenant.Require(ctx, tenant.DeviceClaim, tenant.Thing{Tenant: d.Tenant, Product: d.Product, Solution: solution}); err != nil {
		return d, err
	}
	if _, err := s.cfg.Tenants.Solution(ctx, d.Tenant, solution); err != nil {
		return d, err
	}
	who, _ := tenant.ActorFrom(ctx)
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		now, err := s.cfg.Identity.GetTx(tx, d.Tenant, d.ID)
		switch {
		case err != nil:
			return err
		case now.Solution != d.Solution:
			return problem.Conflict("The device was moved at the same time.").Hint("Look where it serves now, and try again.")
		case now.Solution == "":
			return problem.Conflict("Nobody has claimed this device yet.").Hint("Claim it with the code on its box.")
		case !slices.Contains([]identity.State{identity.Pending, identity.Commissioned, identity.Suspended}, now.State):
			return problem.Conflict("A device that is %s stays where it served.", now.State)
		case now.Solution == solution:
			return nil
		}
		if err := s.cfg.Identity.SetSolution(tx, d.Tenant, d.ID, solution); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: d.Tenant, Actor: who.ID, Kind: "device.transferred", Subject: d.ID,
			Data: map[string]string{"from": d.Solution, "to": solution, "reason": reason}})
	})
	if err != nil {
		return d, err
	}
	return s.cfg.Identity.Get(ctx, d.Tenant, d.ID)
}

// transferPlaces are the solutions that whoever asks may move the device to, where it serves now among them; none when
// it cannot move.
func (s *Service) transferPlaces(ctx context.Context, d identity.Device) ([]console.Option, error) {
	who, _ := tenant.ActorFrom(ctx)
	if d.Solution == "" || d.State.Barred() || !tenant.Can(who, tenant.DeviceClaim, tenant.Thing{Tenant: d.Tenant, Product: d.Product, Solution: d.Solution}) {
		return nil, nil
	}
	places, err := s.solutions(ctx)
	if len(places) < 2 {
		return nil, err
	}
	return places, err
}
