// SPDX-License-Identifier: AGPL-3.0-only

package advisory

import (
	"context"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/respond/pgp"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/vuln"
)

// Config is what the room needs. DB's clock is its clock.
type Config struct {
	DB       *store.DB
	Products *product.Service
	Vuln     *vuln.Service    // says which releases are affected
	Cases    *respond.Service // shows the advisories of a case; nil: there are no cases
	Keys     *pgp.Service     // signs
	// Manufacturer is the tenant's legal name.
	Manufacturer func(ctx context.Context, tenant string) (string, error)
	// Releases lists the releases of a product; advisories speak of those that were published, also if withdrawn since.
	Releases func(ctx context.Context, tenant, product string) ([]Release, error)
	// URL is the platform's own address, under which advisories are published for tenants without one of their own.
	URL string
}

// Service is the room.
type Service struct{ cfg Config }

// New makes the room and registers its job; call it before the store runs jobs.
func New(cfg Config) *Service {
	s := &Service{cfg: cfg}
	cfg.DB.Handle(jobHold, s.holdEnds)
	return s
}

func (s *Service) now() time.Time { return s.cfg.DB.Clock().Now().UTC().Truncate(time.Millisecond) }

// who refuses unless the caller may do v to the product (any product of its tenant if empty).
func who(ctx context.Context, v tenant.Verb, product string) (tenant.Actor, error) {
	a, _ := tenant.ActorFrom(ctx)
	return a, tenant.Require(ctx, v, tenant.Thing{Tenant: a.Tenant, Product: product})
}

func text(s string, least, most int) bool {
	n := utf8.RuneCountInString(s)
	return utf8.ValidString(s) && n >= least && n <= most
}

func missing(err error) error {
	if errors.Is(err, store.ErrNoRows) {
		return problem.NotFound("There is no such advisory.")
	}
	return err
}
