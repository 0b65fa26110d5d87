// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"context"
	"slices"

	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/tenant"
)

// anomaly is what a room saw that may be an attack. The id of a clone may be that of one of its devices: the suspicion
// that is open about it.
func (h *house) anomaly(ctx context.Context, kind, id string) (respond.Anomaly, error) {
	t := tenant.MustTenant(ctx)
	x := respond.Anomaly{Kind: kind, ID: id}
	device := id
	switch kind {
	case respond.AnomalyAlarm:
		a, err := h.alarm.Visible(ctx, id)
		if err != nil {
			return x, err
		}
		x.Product, x.Title = a.Product, "Alarm “"+a.Name+"” on a device"
		x.Detail = a.Value + " on device " + a.Device + ". Find out whether somebody attacks the device or its product, and whether a vulnerability was exploited."
		return x, nil
	case respond.AnomalyClone:
		open, err := h.enroll.Clones(ctx, t, true, "", 1000)
		if err != nil {
			return x, err
		}
		at := slices.IndexFunc(open, func(c enroll.Clone) bool { return c.ID == id || slices.Contains(c.Devices, id) })
		if at < 0 || len(open[at].Devices) == 0 {
			return x, problem.NotFound("There is no such suspicion.")
		}
		x.ID, device = open[at].ID, open[at].Devices[0]
		x.Title = "Two units show one identity"
		x.Detail = "The same " + open[at].What + " was seen twice, on device " + device + ". Find out whether its key was copied, and how somebody came by it."
	case respond.AnomalyChain:
		x.Title = "The security records of a device do not fit together"
		x.Detail = "Records of device " + device + " are missing or altered. Find out whether somebody changed them to hide something."
	default:
		return x, problem.NotFound("There is no such anomaly.")
	}
	d, err := h.identity.Visible(ctx, tenant.DeviceRead, device)
	if err != nil {
		return x, err
	}
	x.Product = d.Product
	if kind == respond.AnomalyChain {
		chain, err := h.telemetry.Chain(ctx, d.Tenant, d.ID)
		if err != nil {
			return x, err
		}
		if chain.Whole {
			return x, problem.NotFound("The chain of this device is whole.")
		}
	}
	return x, nil
}
