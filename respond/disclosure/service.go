// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"context"
	"log/slog"
	"time"

	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// Config is what the room needs. DB's clock is its clock.
type Config struct {
	DB  *store.DB
	Log *slog.Logger // default discards
	// CSAF is the address of a tenant's CSAF provider metadata, or nothing while it published no advisory. Nil: nowhere.
	CSAF func(ctx context.Context, tenant string) string
	// Contact answers for hosts of which no tenant has said where to report. Without contacts there is no security.txt for them.
	Contact Contact
}

// Service is the room.
type Service struct{ cfg Config }

// New makes the room.
func New(cfg Config) *Service {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.CSAF == nil {
		cfg.CSAF = func(context.Context, string) string { return "" }
	}
	return &Service{cfg: cfg}
}

func (s *Service) now() time.Time { return s.cfg.DB.Clock().Now().UTC().Truncate(time.Millisecond) }

// who refuses unless the caller may do v to the product (any product of its tenant if empty).
func who(ctx context.Context, v tenant.Verb, product string) (tenant.Actor, error) {
	a, _ := tenant.ActorFrom(ctx)
	return a, tenant.Require(ctx, v, tenant.Thing{Tenant: a.Tenant, Product: product})
}
