// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
	"time"

	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// A job acts in the name of whoever made it, with the rights that they hold at that moment: what they lose, it loses.
const (
	noRight    = "whoever made it may not ask this of any device any more"
	narrowed   = "whoever made it may ask this of some of the devices only: the others are left out"
	notAnyMore = "whoever made the job may not ask this of the device any more"
)

func thingOf(d identity.Device) tenant.Thing {
	return tenant.Thing{Tenant: d.Tenant, Product: d.Product, Solution: d.Solution}
}

// actFor finds out what the job may reach in this round.
func (s *Service) actFor(ctx context.Context, j *Job) (err error) {
	if j.maker, err = s.cfg.Acting(ctx, j.Tenant, j.Actor); err != nil {
		return err
	}
	if j.within = []string{j.Solution}; j.Solution != "" && s.cfg.Tenant != nil {
		j.within, err = s.cfg.Tenant.Within(ctx, j.Tenant, j.Solution)
	}
	return err
}

// tellNarrowed says at the job that it reaches less than was asked for.
func (s *Service) tellNarrowed(ctx context.Context, j *Job) error {
	if j.Reason == narrowed || tenant.Can(j.maker, j.verb(), j.thing()) {
		return nil
	}
	j.Reason = narrowed
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := moveJob(tx, *j, j.State, narrowed, j.Started, time.Time{})
		return err
	})
}

// usesGroup lists the jobs that have yet to look who belongs to the group.
func (s *Service) usesGroup(ctx context.Context, g fleet.Group) (uses []fleet.Use, err error) {
	jobs, err := openFilters(ctx, s.cfg.DB, g.Tenant)
	for _, j := range jobs {
		if fleet.Names(j.Filter, g) {
			uses = append(uses, fleet.Use{Kind: "job", ID: j.ID, Name: j.What(), Href: "/jobs/" + j.ID})
		}
	}
	return uses, err
}

// jobKind is what a product's catalogue and the maker's roles say about a job's command on a kind of devices.
type jobKind struct {
	Declared
	refused string // why it is not sent; empty: it is
}

// kindsFor looks the command up for what the devices are.
func (s *Service) kindsFor(ctx context.Context, j Job, devices []identity.Device) (map[tenant.Thing]jobKind, error) {
	ctx = tenant.WithActor(ctx, j.maker)
	kinds := map[tenant.Thing]jobKind{}
	for _, d := range devices {
		thing := thingOf(d)
		if _, ok := kinds[thing]; ok {
			continue
		}
		kind, err := s.fits(ctx, thing, j.Name, j.Args)
		switch {
		case problem.Is(err, problem.KindForbidden), problem.Is(err, problem.KindInvalid):
			kinds[thing] = jobKind{refused: problem.Of(err).Text}
		case err != nil:
			return nil, err
		default:
			kinds[thing] = jobKind{Declared: kind}
		}
	}
	return kinds, nil
}
