// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/respond/pgp"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/blob"
	"github.com/openthings-platform/openthings/tenant"
)

// Config is what the room needs. DB's clock is its clock.
type Config struct {
	DB       *store.DB
	Keys     *seal.Keys
	Blobs    blob.Store
	PGP      *pgp.Service
	Products *product.Service
	Respond  *respond.Service
	Log      *slog.Logger // default discards
	// URL is the platform's own address, under which policy and form stand.
	URL string
	// Maker is the tenant's name for people outside; not found for a tenant that does not exist.
	Maker func(ctx context.Context, tenant string) (string, error)
	// Tenants are the ids of all tenants: the only one answers for a host that nobody named.
	Tenants func(ctx context.Context) ([]string, error)
	// CSAF is the address of a tenant's CSAF provider metadata, or nothing while it published no advisory. Nil: nowhere.
	CSAF func(ctx context.Context, tenant string) string
	// Advisory says where an advisory of the tenant is published and since when; not found or a conflict if it is not.
	Advisory func(ctx context.Context, tenant, id string) (url string, since time.Time, err error)
}

// Service is the room.
type Service struct {
	cfg   Config
	rates *api.Limiter // of what strangers send, by address
	flood *api.Limiter // of what all strangers together send to a tenant
	lines lines        // on which strangers are sending now
	held  atomic.Int64 // bytes of files that are in memory
}

// How much strangers may send, of which nothing honest comes near: each address, and all together to one tenant.
const (
	sendingsBurst     = 30
	sendingsPerSecond = 30.0 / 3600
	floodBurst        = 1000
	floodPerSecond    = 1000.0 / 3600
)

// New makes the room and registers its jobs; call it before the store runs jobs.
func New(cfg Config) *Service {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.CSAF == nil {
		cfg.CSAF = func(context.Context, string) string { return "" }
	}
	s := &Service{cfg: cfg, rates: api.NewLimiter(cfg.DB.Clock(), api.Limits{PerSecond: sendingsPerSecond, Burst: sendingsBurst}),
		flood: api.NewLimiter(cfg.DB.Clock(), api.Limits{PerSecond: floodPerSecond, Burst: floodBurst})}
	s.react()
	return s
}

func (s *Service) now() time.Time { return s.cfg.DB.Clock().Now().UTC().Truncate(time.Millisecond) }

// who refuses unless the caller may do v to the product (any product of its tenant if empty).
func who(ctx context.Context, v tenant.Verb, product string) (tenant.Actor, error) {
	a, _ := tenant.ActorFrom(ctx)
	return a, tenant.Require(ctx, v, tenant.Thing{Tenant: a.Tenant, Product: product})
}
