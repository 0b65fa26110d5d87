// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"context"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

// Fleet is what the units of a hardware revision run today.
type Fleet struct {
	Newest   string    `json:"newest,omitempty" doc:"Newest published version for this hardware"`
	Releases []Running `json:"releases"`
}

// Running is how many units run a version.
type Running struct {
	Version string `json:"version"`
	Devices int64  `json:"devices"`
	Newest  bool   `json:"newest" doc:"It is the newest for this hardware: these units go no further without other hardware"`
}

// Transition is what the customers of an ending cohort can do: the devices of its hardware revision by release, how many
// can move to newer software and how many need hardware. Devices are not told apart by cohort within a hardware revision.
type Transition struct {
	Cohort    string `json:"cohort"`
	End       Month  `json:"support_end"`
	Months    int    `json:"months_left"`
	Devices   int64  `json:"devices"`
	Move      int64  `json:"can_move" doc:"Devices for which a newer published release exists"`
	Hardware  int64  `json:"need_hardware" doc:"Devices that run the newest release for their hardware"`
	Decision  string `json:"decision,omitempty" doc:"What was decided about the end"`
	Successor string `json:"successor,omitempty" doc:"Hardware revision that follows"`
	Fleet
}

// Transition reports on the devices of a cohort of the tenant.
func (s *Service) Transition(ctx context.Context, tenant, cohort string) (Transition, error) {
	if s.cfg.Running == nil {
		return Transition{}, problem.Unavailable("This platform does not know what devices run.")
	}
	c, err := s.Cohort(ctx, tenant, cohort)
	if err != nil {
		return Transition{}, err
	}
	v, err := s.Revision(ctx, tenant, c.Revision)
	if err != nil {
		return Transition{}, err
	}
	d := c.Declared()
	t := Transition{Cohort: c.ID, End: d.SupportEnd, Months: monthsLeft(d.SupportEnd, d.Location(), s.now())}
	ds, err := s.EndDecisions(ctx, tenant, c.ID)
	if err != nil {
		return Transition{}, err
	}
	if len(ds) > 0 {
		t.Decision, t.Successor = ds[0].Kind, ds[0].Successor
	}
	if t.Fleet, err = s.cfg.Running(ctx, tenant, v); err != nil {
		return Transition{}, err
	}
	for _, r := range t.Releases {
		t.Devices += r.Devices
		if r.Newest {
			t.Hardware += r.Devices
		} else {
			t.Move += r.Devices
		}
	}
	return t, nil
}

func (s *Service) transitionRoutes(a *api.API) {
	api.Handle(a, api.Op{ID: "get-transition", Method: "GET", Path: "/v1/cohorts/{id}/transition", Verb: string(tenant.ProductRead), Stage: "product",
		Summary: "Report what the devices of an ending cohort can do: move to newer software, or need hardware"}, func(ctx context.Context, in *byID) (*api.Out[Transition], error) {
		c, err := s.readCohort(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		t, err := s.Transition(ctx, tenant.MustTenant(ctx), c.ID)
		return api.One(t), err
	})
}
