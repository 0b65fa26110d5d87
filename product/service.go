// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"context"
	"strings"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/store"
)

// Config is what product needs.
type Config struct {
	DB    *store.DB   // the platform handle
	Clock clock.Clock // nil: clock.System
	// Sign puts the platform's signature under a baseline, Verify checks one and returns its text. Without them no
	// product can have a baseline.
	Sign   func(text string) ([]byte, error)
	Verify func(signed []byte) (text string, err error)
	// Maker is the name of a tenant's manufacturer, and URL the platform's address as the world sees it: both stand on the
	// public page of a product.
	Maker func(ctx context.Context, tenant string) (string, error)
	URL   string
	// Running says what the units of a hardware revision run, and which of them a published release would take further. Nil:
	// no stage knows.
	Running func(ctx context.Context, tenant string, v Revision) (Fleet, error)
	// Ends add what other stages have that ends on a day to the calendar of ends, for whoever asks in ctx.
	Ends []func(ctx context.Context) ([]EndDate, error)
	// Checks are what later stages need of a product before it is sold; nil: nothing.
	Checks func(ctx context.Context, tenant, product string) ([]Check, error)
}

// Service keeps products and hardware revisions.
type Service struct{ cfg Config }

// New makes the service and registers its job; call it before the store runs jobs.
func New(cfg Config) *Service {
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	s := &Service{cfg: cfg}
	cfg.DB.Handle(jobRound, s.round)
	return s
}

// Create adds a product; ID and Created are filled in.
func (s *Service) Create(ctx context.Context, p Product, actor string) (Product, error) {
	if err := p.check(); err != nil {
		return Product{}, err
	}
	p.ID, p.Created = store.NewID("prd"), store.Time(store.Millis(s.cfg.Clock.Now()))
	return p, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := insertProduct(tx, p); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: p.Tenant, Actor: actor, Kind: "product.created", Subject: p.ID, Data: p})
	})
}

// firstCohort is the name of the cohort that each hardware revision begins with.
const firstCohort = "first"

// CreateRevision adds a hardware revision to a product of the tenant, with its first placement cohort; ID and Created are
// filled in.
func (s *Service) CreateRevision(ctx context.Context, v Revision, actor string) (Revision, error) {
	if err := v.check(); err != nil {
		return Revision{}, err
	}
	if _, err := s.Get(ctx, v.Tenant, v.Product); err != nil {
		return Revision{}, err
	}
	v.ID, v.Created = store.NewID("rev"), store.Time(store.Millis(s.cfg.Clock.Now()))
	return v, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := insertRevision(tx, v); err != nil {
			return err
		}
		first := Cohort{ID: "coh" + strings.TrimPrefix(v.ID, "rev"), Tenant: v.Tenant, Product: v.Product, Revision: v.ID, Name: firstCohort, Created: v.Created}
		if err := insertCohort(tx, first, nil); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: v.Tenant, Actor: actor, Kind: "revision.created", Subject: v.ID, Data: v})
	})
}
