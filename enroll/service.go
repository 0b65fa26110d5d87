// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/webhook"
)

// Config is what enroll needs. All but Clock, Log and TrustRoot are mandatory.
type Config struct {
	DB       *store.DB // the platform handle
	Identity *identity.Service
	Products *product.Service
	Tenants  *tenant.Service
	Clock    clock.Clock // nil: clock.System
	Log      *slog.Logger
	// TrustRoot returns the tenant's update trust root for new units, nil if none is set. May be nil.
	TrustRoot func(ctx context.Context, tenant string) (json.RawMessage, error)
	// Sign signs a text that ends in a newline with the log key, LogKey is its public half: for manifests and permits.
	// Nil: there are none.
	Sign   func(text string) ([]byte, error)
	LogKey func() string
	// Keys seals the secrets of hooks. Nil: there are no hooks.
	Keys *seal.Keys
	// PrivateHooks lets hooks reach private and loopback addresses, as the administrator of the host says.
	PrivateHooks bool
}

// Service runs the lines, the claims and the EST routes.
type Service struct {
	cfg    Config
	hooks  *http.Client
	asking asking
	crowd  *crowd

	lists   lists        // revocation lists of trusted CAs
	guesses *api.Limiter // of enrolment tokens
	tells   *api.Limiter // what devices say of themselves
	accuses *api.Limiter // units suspended for their serial number
	floods  *api.Limiter // leaves about those that were not
	swaps   swaps        // sessions taken over
	noting  sync.WaitGroup
}

// New makes the service.
func New(cfg Config) *Service {
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg, hooks: webhook.Client(cfg.PrivateHooks)}
	s.crowd = newCrowd(s.cfg.Clock.Now)
	s.guesses = api.NewLimiter(cfg.Clock, guesses)
	s.tells = api.NewLimiter(cfg.Clock, tells)
	s.accuses, s.floods = api.NewLimiter(cfg.Clock, accusations), api.NewLimiter(cfg.Clock, floods)
	cfg.DB.Handle(jobCRL, s.fetchCRL)
	cfg.Identity.BeforeFirst(s.notHeld)
	return s
}

func (s *Service) now() time.Time { return store.Time(store.Millis(s.cfg.Clock.Now())) }
