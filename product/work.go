// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"context"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/store"
)

// EventNotice is announced for each notice that is due; its data is a Notice and its subject the cohort.
const EventNotice = "support.notice"

const jobRound = "product.support-round"

// roundEvery is how often the cohorts are looked through, and so how late a notice may be.
const roundEvery = time.Hour

// Work announces notices of the end of support until ctx ends.
func (s *Service) Work(ctx context.Context) error {
	if err := s.cfg.DB.Write(ctx, s.soon); err != nil && ctx.Err() == nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// soon has the cohorts looked through at once.
func (s *Service) soon(tx *store.Tx) error {
	return s.cfg.DB.Enqueue(tx, jobRound, "all", s.now(), nil)
}

// round announces what is due for each published cohort, and comes again.
func (s *Service) round(ctx context.Context, _ store.Job) error {
	cs, err := s.cohorts(ctx, `c.version > 0`)
	if err != nil {
		return err
	}
	for _, c := range cs {
		if err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.announce(tx, c) }); err != nil {
			return err
		}
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		return s.cfg.DB.Enqueue(tx, jobRound, "all", s.now().Add(roundEvery), nil)
	})
}

// announce puts on record what is due for a cohort and emits it, in one transaction: each step of each end happens once,
// whatever breaks off in between and whichever machine comes first.
func (s *Service) announce(tx *store.Tx, c Cohort) error {
	var version int64
	if err := tx.QueryRow(`SELECT version FROM product_cohort WHERE tenant = $1 AND id = $2`, c.Tenant, c.ID).Scan(&version); err != nil {
		return err
	}
	if version != c.Version {
		return s.soon(tx) // published since it was read
	}
	record, err := notices(tx, c.Tenant, c.ID)
	if err != nil {
		return err
	}
	now, d := s.now(), c.Public.Declaration
	tell, leave, was := due(d.SupportEnd, d.Location(), now, record)
	for _, t := range leave {
		if _, err := insertNotice(tx, c.Tenant, c.ID, t, now); err != nil {
			return err
		}
	}
	for _, t := range tell {
		if added, err := insertNotice(tx, c.Tenant, c.ID, t, now); err != nil || !added {
			return err
		}
		n := Notice{Tenant: c.Tenant, Product: c.Product, Revision: c.Revision, Cohort: c.ID, Kind: kindOf(t.step), Months: monthsLeft(d.SupportEnd, d.Location(), now),
			Step: t.step, End: d.SupportEnd, Version: c.Version}
		if n.Kind == NoticeCorrection {
			n.Step, n.Was = 0, was
		}
		if err := audit.Append(tx, audit.Entry{Tenant: c.Tenant, Actor: "system", Kind: "support.notice", Subject: c.Product, Data: n}); err != nil {
			return err
		}
		if err := s.cfg.DB.Emit(tx, EventNotice, c.Tenant, c.ID, n); err != nil {
			return err
		}
	}
	return nil
}
