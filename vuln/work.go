// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// jobMatch goes on with what an import began, should the process have died in between. Its key is the tenant.
const jobMatch = "vuln.match"

// matchLater is when the job looks after an import: by then the import itself has matched, if it lives.
const matchLater = time.Minute

func (s *Service) listen() {
	s.cfg.DB.Handle(jobMatch, func(ctx context.Context, j store.Job) error { return s.matchTouched(ctx, j.Key) })
	for _, topic := range []string{"sbom.attached", "release.uploaded"} {
		s.cfg.DB.On(topic, "vuln", func(ctx context.Context, e store.Event) error {
			err := s.matchRelease(ctx, e.Tenant, e.Subject)
			if problem.Is(err, problem.KindNotFound) {
				return nil // the release is gone again
			}
			return err
		})
	}
}

// checkExploited is the name of the check that the release gate waits for.
const checkExploited = "known-exploited"

// Verdicts of the check.
const (
	verdictPass = "pass"
	verdictFail = "fail"
)

// recheck tells the release gate whether the release holds a vulnerability that is known as exploited and that nobody
// has decided to be harmless there. The evidence names the feeds: "none found" is never said alone.
func (s *Service) recheck(tx *store.Tx, tenant, release string) error {
	if s.cfg.RecordCheck == nil {
		return nil
	}
	rows, err := tx.Query(`SELECT f.group_id, f.component_id, g.name, r.product FROM finding f
		JOIN vuln_group g ON g.tenant = f.tenant AND g.id = f.group_id
		JOIN vuln_release r ON r.tenant = f.tenant AND r.release_id = f.release_id
		WHERE f.tenant = $1 AND f.release_id = $2 AND f.closed_at = 9223372036854775807 AND g.exploited > 0 ORDER BY g.name`, tenant, release)
	type exploited struct{ group, component, name, product string }
	open, err := store.Collect(rows, err, func(r *sql.Rows) (x exploited, err error) {
		return x, r.Scan(&x.group, &x.component, &x.name, &x.product)
	})
	if err != nil {
		return err
	}
	var names []string
	for _, x := range open {
		decided, err := s.decisions(tx, tenant, x.group, x.product)
		if err != nil {
			return err
		}
		if d := decided.at(x.product, x.component, release, forever); d == nil || !d.harmless() {
			names = append(names, x.name)
		}
	}
	feeds, err := s.feedsLine(tx, tenant)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return s.cfg.RecordCheck(tx, tenant, release, checkExploited, verdictFail, strings.Join(names, ", ")+" known as exploited; "+feeds, "vuln")
	}
	return s.cfg.RecordCheck(tx, tenant, release, checkExploited, verdictPass, "nothing found that is known as exploited; "+feeds, "vuln")
}

// feedsLine names what was compared with, and when it was last brought up to date.
func (s *Service) feedsLine(tx *store.Tx, tenant string) (string, error) {
	rows, err := tx.Query(`SELECT name, digest, records, catalogue, at FROM vuln_feed WHERE tenant = $1 ORDER BY name`, tenant)
	lines, err := store.Collect(rows, err, func(r *sql.Rows) (string, error) {
		var name, digest, catalogue string
		var records, at int64
		if err := r.Scan(&name, &digest, &records, &catalogue, &at); err != nil {
			return "", err
		}
		if catalogue != "" {
			catalogue = ", KEV " + catalogue
		}
		return fmt.Sprintf("%s (%d records%s, %s, %s)", name, records, catalogue, store.Time(at).Format("2006-01-02 15:04 UTC"), digest), nil
	})
	if err != nil {
		return "", err
	}
	if len(lines) == 0 {
		return "no feed was ever imported, so nothing is known", nil
	}
	return "compared with " + strings.Join(lines, ", "), nil
}
