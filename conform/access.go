// SPDX-License-Identifier: AGPL-3.0-only

package conform

import (
	"context"

	"github.com/openthings-platform/openthings/tenant"
)

// caller is whoever asks, with the right on the product that was asked for.
type caller struct{ tenant, product, actor string }

// on finds the product in the caller's tenant and asks whether the caller may do v to it.
func (s *Service) on(ctx context.Context, v tenant.Verb, product string) (c caller, err error) {
	c = caller{tenant: tenant.MustTenant(ctx), product: product}
	who, _ := tenant.ActorFrom(ctx)
	c.actor = who.ID
	if _, err := s.cfg.Products.Get(ctx, c.tenant, product); err != nil {
		return c, err
	}
	return c, tenant.Require(ctx, v, tenant.Thing{Tenant: c.tenant, Product: product})
}

// onRelease is on for the product of a release.
func (s *Service) onRelease(ctx context.Context, v tenant.Verb, release string) (caller, error) {
	product, err := s.cfg.Update.ProductOf(ctx, tenant.MustTenant(ctx), release)
	if err != nil {
		return caller{}, err
	}
	return s.on(ctx, v, product)
}

// onRegister asks whether the caller may do v to the register of a product, or with product "" to that of the tenant.
func (s *Service) onRegister(ctx context.Context, v tenant.Verb, product string) (caller, error) {
	if product != "" {
		return s.on(ctx, v, product)
	}
	t := tenant.MustTenant(ctx)
	who, _ := tenant.ActorFrom(ctx)
	return caller{tenant: t, actor: who.ID}, tenant.Require(ctx, v, tenant.Thing{Tenant: t})
}
