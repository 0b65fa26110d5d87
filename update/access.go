// SPDX-License-Identifier: AGPL-3.0-only

package update

import (
	"context"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/tenant"
)

// What both doors, programs and people, do: find the thing, ask who may, act.

// release returns a release of the caller's tenant if the caller holds v on its product.
func (s *Service) release(ctx context.Context, v tenant.Verb, id string) (Release, error) {
	r, err := s.Get(ctx, tenant.MustTenant(ctx), id)
	if err != nil {
		return Release{}, err
	}
	return r, tenant.Require(ctx, v, tenant.Thing{Tenant: r.Tenant, Product: r.Product})
}

// readable lists the releases that the caller may read.
func (s *Service) readable(ctx context.Context, product string) ([]Release, error) {
	actor, _ := tenant.ActorFrom(ctx)
	list, err := s.List(ctx, actor.Tenant, product)
	return slices.DeleteFunc(list, func(r Release) bool {
		return !tenant.Can(actor, tenant.ReleaseRead, tenant.Thing{Tenant: r.Tenant, Product: r.Product})
	}), err
}

func (s *Service) publish(ctx context.Context, id string) (Release, error) {
	r, err := s.release(ctx, tenant.ReleasePublish, id)
	if err != nil {
		return Release{}, err
	}
	actor, _ := tenant.ActorFrom(ctx)
	return s.Publish(ctx, r.Tenant, r.ID, actor.ID)
}

func (s *Service) withdraw(ctx context.Context, id, reason string) (Release, error) {
	r, err := s.release(ctx, tenant.ReleasePublish, id)
	if err != nil {
		return Release{}, err
	}
	actor, _ := tenant.ActorFrom(ctx)
	return s.Withdraw(ctx, r.Tenant, r.ID, actor.ID, reason)
}

// deployment returns a deployment if the caller holds v on what it reaches.
func (s *Service) deployment(ctx context.Context, v tenant.Verb, id string) (Deployment, error) {
	d, err := s.Deployment(ctx, tenant.MustTenant(ctx), id)
	if err != nil {
		return Deployment{}, err
	}
	return d, tenant.Require(ctx, v, tenant.Thing{Tenant: d.Tenant, Product: d.Product, Solution: d.Solution})
}

// readableDeployments lists the deployments that the caller may read.
func (s *Service) readableDeployments(ctx context.Context, release string) ([]Deployment, error) {
	actor, _ := tenant.ActorFrom(ctx)
	list, err := listDeployments(ctx, s.cfg.DB, actor.Tenant, release, "")
	return slices.DeleteFunc(list, func(d Deployment) bool {
		return !tenant.Can(actor, tenant.ReleaseRead, tenant.Thing{Tenant: d.Tenant, Product: d.Product, Solution: d.Solution})
	}), err
}

func (s *Service) start(ctx context.Context, release, solution string, waves []int64, override string) (Deployment, error) {
	r, err := s.Get(ctx, tenant.MustTenant(ctx), release)
	if err != nil {
		return Deployment{}, err
	}
	if err := tenant.Require(ctx, tenant.DeploymentWrite, tenant.Thing{Tenant: r.Tenant, Product: r.Product, Solution: solution}); err != nil {
		return Deployment{}, err
	}
	if len(waves) == 0 {
		waves = []int64{10, 100}
	}
	actor, _ := tenant.ActorFrom(ctx)
	return s.Deploy(ctx, Deployment{Tenant: r.Tenant, Release: r.ID, Product: r.Product, Solution: solution, Actor: actor.ID, Override: strings.TrimSpace(override)}, waves)
}

func (s *Service) steer(ctx context.Context, id, to string) error {
	d, err := s.deployment(ctx, tenant.DeploymentWrite, id)
	if err != nil {
		return err
	}
	actor, _ := tenant.ActorFrom(ctx)
	return s.Steer(ctx, d.Tenant, d.ID, to, actor.ID, "by hand")
}
