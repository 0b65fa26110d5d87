// SPDX-License-Identifier: AGPL-3.0-only

package conform

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/update"
)

// Config is what the stage needs. All but Clock and Log is mandatory.
type Config struct {
	DB       *store.DB // the platform handle
	Products *product.Service
	SBOM     *sbom.Service
	Update   *update.Service
	Tenants  func(context.Context) ([]string, error) // for what is told once per tenant
	Clock    clock.Clock                             // nil: clock.System
	Log      *slog.Logger
}

// Service is the stage. Its methods are safe for concurrent use.
type Service struct{ cfg Config }

// New makes the stage. It registers its reactions, so call it before the store runs them.
func New(cfg Config) *Service {
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg}
	s.listen()
	return s
}

func (s *Service) now() time.Time { return s.cfg.Clock.Now().UTC() }

// Classified is the class of a product as it was recorded last, and who confirmed it.
type Classified struct {
	Classification
	Class     law.Class `json:"class" enum:"default,important-1,important-2,critical"`
	ClassName string    `json:"class_name"`
	Stamp
	Confirmed Stamp  `json:"confirmed" doc:"By a second person; version 0: not yet"`
	Note      string `json:"note,omitempty" doc:"Of who confirmed"`
}

type confirmation struct {
	Note string `json:"note"`
}

func classified(tx *store.Tx, tenant, product string) (c Classified, err error) {
	if c.Stamp, err = newest(tx, place{tenant, product, kindClass, ""}, &c.Classification); err != nil {
		return c, err
	}
	c.Class = c.Classification.Class()
	c.ClassName = c.Class.Name()
	var by confirmation
	c.Confirmed, err = newest(tx, place{tenant, product, kindConfirmed, decimal(c.Version)}, &by)
	c.Note = by.Note
	return c, err
}

// Classified returns the newest classification of a product; version 0 if there is none.
func (s *Service) Classified(ctx context.Context, tenant, product string) (c Classified, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		c, err = classified(tx, tenant, product)
		return err
	})
	return c, err
}

// Classify records the answered questionnaire as the next version. A second person confirms it.
func (s *Service) Classify(ctx context.Context, tenant, product, actor string, c Classification) (out Classified, err error) {
	if err := c.check(); err != nil {
		return out, err
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if _, err := put(tx, place{tenant, product, kindClass, ""}, c, actor, s.now()); err != nil {
			return err
		}
		out, err = classified(tx, tenant, product)
		return err
	})
	return out, err
}

// Confirm records that a second person agrees with a version of the classification.
func (s *Service) Confirm(ctx context.Context, tenant, product, actor string, n int64, note string) (out Classified, err error) {
	if err := short("note", note); err != nil {
		return out, err
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if out, err = classified(tx, tenant, product); err != nil {
			return err
		}
		switch {
		case out.Version == 0:
			return problem.NotFound("The product is not classified yet.")
		case out.Version != n:
			return problem.Conflict("Version %d is not the newest: it is %d.", n, out.Version)
		case out.By == actor:
			return problem.Forbidden(RuleSecond, "A second person confirms: this version is yours.")
		case out.Confirmed.Version > 0:
			return nil
		}
		if _, err := put(tx, place{tenant, product, kindConfirmed, decimal(n)}, confirmation{note}, actor, s.now()); err != nil {
			return err
		}
		out, err = classified(tx, tenant, product)
		return err
	})
	return out, err
}

// Classifications returns the versions of a product's classification, the newest first.
func (s *Service) Classifications(ctx context.Context, tenant, product string, before int64, limit int) (out []Classified, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		list, err := history[Classification](tx, place{tenant, product, kindClass, ""}, before, limit)
		out = nil
		for _, x := range list {
			c := Classified{Classification: x.Doc, Class: x.Doc.Class(), Stamp: x.Stamp}
			var by confirmation
			if c.Confirmed, err = newest(tx, place{tenant, product, kindConfirmed, decimal(x.Version)}, &by); err != nil {
				return err
			}
			c.ClassName, c.Note = c.Class.Name(), by.Note
			out = append(out, c)
		}
		return err
	})
	return out, err
}

// Route is the chosen procedure with what is open to the product now.
type Route struct {
	Choice
	Stamp
	Class   law.Class `json:"class" enum:"default,important-1,important-2,critical"`
	Options []Option  `json:"options" doc:"What the class and the claims permit today"`
	Stands  bool      `json:"stands" doc:"The choice is permitted today; class, claims and citations may have changed since it was made"`
}

func (s *Service) route(tx *store.Tx, tenant, product string) (r Route, err error) {
	c, err := classified(tx, tenant, product)
	if err != nil {
		return r, err
	}
	if r.Stamp, err = newest(tx, place{tenant, product, kindRoute, ""}, &r.Choice); err != nil {
		return r, err
	}
	r.Class, r.Options = c.Class, Routes(c.Class, r.Claims, law.Citations(), s.now())
	r.Stands = c.Version > 0 && slices.ContainsFunc(r.Options, func(o Option) bool { return o.Module == r.Module && o.Open })
	return r, nil
}

// Route returns the route of a product; version 0 if none was chosen.
func (s *Service) Route(ctx context.Context, tenant, product string) (r Route, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		r, err = s.route(tx, tenant, product)
		return err
	})
	return r, err
}

// ChooseRoute records the procedure, if the class permits it.
func (s *Service) ChooseRoute(ctx context.Context, tenant, product, actor string, c Choice) (r Route, err error) {
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		k, err := classified(tx, tenant, product)
		if err != nil {
			return err
		}
		if k.Version == 0 {
			return problem.Conflict("Classify the product first: the class decides which procedures are open.")
		}
		if err := c.check(k.Class, law.Citations(), s.now()); err != nil {
			return err
		}
		if _, err := put(tx, place{tenant, product, kindRoute, ""}, c, actor, s.now()); err != nil {
			return err
		}
		r, err = s.route(tx, tenant, product)
		return err
	})
	return r, err
}

// Settings are what a tenant demands of itself.
type Settings struct {
	Screen bool  `json:"screen" doc:"A release of a product on the market is published only after its modification screen is answered"`
	Months int64 `json:"months" minimum:"1" maximum:"24" doc:"A review of a component is good for this long"`
}

func settings(tx *store.Tx, tenant string) (Settings, Stamp, error) {
	set := Settings{Months: 12}
	stamp, err := newest(tx, place{tenant: tenant, kind: kindSettings}, &set)
	return set, stamp, err
}

// Settings returns what the tenant demands of itself; reviews are good for a year unless it says otherwise.
func (s *Service) Settings(ctx context.Context, tenant string) (set Settings, stamp Stamp, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		set, stamp, err = settings(tx, tenant)
		return err
	})
	return set, stamp, err
}

// Set records what the tenant demands of itself.
func (s *Service) Set(ctx context.Context, tenant, actor string, set Settings) error {
	if set.Months < 1 || set.Months > 24 {
		return problem.Invalid("A review is good for 1 to 24 months.").At("months")
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := put(tx, place{tenant: tenant, kind: kindSettings}, set, actor, s.now())
		return err
	})
}
