// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"
	"database/sql"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// jobMatch goes on with what an import began, should the process have died in between. Its key is the tenant.
const jobMatch = "vuln.match"

// matchLater is when the job looks after an import: by then the import itself has matched, if it lives.
const matchLater = time.Minute

func (s *Service) listen() {
	s.cfg.DB.Handle(jobExpire, s.expire)
	s.cfg.DB.Handle(jobMatch, func(ctx context.Context, j store.Job) error { return s.match(ctx, j.Key) })
	for _, topic := range []string{"sbom.attached", "release.uploaded", "release.published"} {
		s.cfg.DB.On(topic, "vuln", func(ctx context.Context, e store.Event) error {
			err := s.matchRelease(ctx, e.Tenant, e.Subject)
			if problem.Is(err, problem.KindNotFound) {
				return nil // the release is gone again
			}
			return err
		})
	}
}

// Work derives again what older rules derived, and then waits for the end: everything else is done by jobs.
func (s *Service) Work(ctx context.Context) error {
	err := s.watchFeeds(ctx) // it goes on by itself
	if err == nil {
		err = s.rebuildOld(ctx)
	}
	if err != nil && ctx.Err() == nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (s *Service) rebuildOld(ctx context.Context) error {
	rows, err := s.cfg.DB.Query(ctx, `SELECT tenant FROM vuln_state WHERE rules < $1 ORDER BY tenant`, int64(rulesVersion))
	tenants, err := store.Collect(rows, err, func(r *sql.Rows) (t string, err error) { return t, r.Scan(&t) })
	for _, t := range tenants {
		if err == nil {
			err = s.rebuild(ctx, t)
		}
	}
	return err
}
