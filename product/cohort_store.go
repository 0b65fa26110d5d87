// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// cohorts reads cohorts with what is published of each, those that were placed last first.
func (s *Service) cohorts(ctx context.Context, where string, args ...any) ([]Cohort, error) {
	rows, err := s.cfg.DB.Query(ctx, cohortQuery+` WHERE `+where+` ORDER BY c.product, c.created DESC, c.id DESC`, args...)
	return store.Collect(rows, err, func(r *sql.Rows) (Cohort, error) { return scanCohort(r) })
}

// cohortsIn reads cohorts in a transaction.
func cohortsIn(tx *store.Tx, where string, args ...any) ([]Cohort, error) {
	rows, err := tx.Query(cohortQuery+` WHERE `+where+` ORDER BY c.product, c.created DESC, c.id DESC`, args...)
	return store.Collect(rows, err, func(r *sql.Rows) (Cohort, error) { return scanCohort(r) })
}

const cohortQuery = `SELECT c.id, c.tenant, c.product, c.revision, c.name, c.declaration, c.version, c.created,
		r.placed, r.support_end, r.reason, coalesce(v.declaration, ''), coalesce(v.note, ''), coalesce(v.actor, ''), coalesce(v.published, 0)
	FROM product_cohort c JOIN hardware_revision r ON r.id = c.revision AND r.tenant = c.tenant
	LEFT JOIN product_cohort_version v ON v.cohort = c.id AND v.version = c.version`

func scanCohort(r scanner) (c Cohort, err error) {
	var rev Revision
	var draft, public string
	var p Published
	var created, placed, end, published int64
	if err = r.Scan(&c.ID, &c.Tenant, &c.Product, &c.Revision, &c.Name, &draft, &c.Version, &created, &placed, &end, &rev.Reason, &public, &p.Note, &p.Actor, &published); err != nil {
		return c, err
	}
	c.Created = store.Time(created)
	if draft == "" {
		rev.Placed, rev.SupportEnd = store.Time(placed), store.Time(end)
		c.Draft = rev.declared()
	} else if err := json.Unmarshal([]byte(draft), &c.Draft); err != nil {
		return c, fmt.Errorf("product: cohort %s: %w", c.ID, err)
	}
	c.Missing = c.Draft.Missing()
	if c.Version > 0 {
		p.Version, p.Published = c.Version, store.Time(published)
		if err := json.Unmarshal([]byte(public), &p.Declaration); err != nil {
			return c, fmt.Errorf("product: cohort %s: %w", c.ID, err)
		}
		c.Public = &p
	}
	return c, nil
}

// Cohort returns a cohort of the tenant, or a problem of kind not-found.
func (s *Service) Cohort(ctx context.Context, tenant, id string) (Cohort, error) {
	cs, err := s.cohorts(ctx, `c.tenant = $1 AND c.id = $2`, tenant, id)
	if err == nil && len(cs) == 0 {
		err = problem.NotFound("There is no such placement cohort.")
	}
	if err != nil {
		return Cohort{}, err
	}
	return cs[0], nil
}

// Cohorts returns the cohorts of a product of the tenant.
func (s *Service) Cohorts(ctx context.Context, tenant, product string) ([]Cohort, error) {
	return s.cohorts(ctx, `c.tenant = $1 AND c.product = $2`, tenant, product)
}

// Versions returns what was published of a cohort, the newest first.
func (s *Service) Versions(ctx context.Context, tenant, cohort string) ([]Published, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT version, declaration, note, actor, published FROM product_cohort_version WHERE tenant = $1 AND cohort = $2 ORDER BY version DESC`, tenant, cohort)
	return store.Collect(rows, err, func(r *sql.Rows) (p Published, err error) {
		var text string
		var at int64
		if err := r.Scan(&p.Version, &text, &p.Note, &p.Actor, &at); err != nil {
			return p, err
		}
		p.Published = store.Time(at)
		return p, json.Unmarshal([]byte(text), &p.Declaration)
	})
}

// insertCohort adds a cohort; without a declaration it says what its hardware revision states.
func insertCohort(tx *store.Tx, c Cohort, d *Declaration) error {
	text := []byte{}
	if d != nil {
		var err error
		if text, err = json.Marshal(d); err != nil {
			return err
		}
	}
	_, err := tx.Exec(`INSERT INTO product_cohort(id, tenant, product, revision, name, declaration, version, ends_at, created) VALUES ($1, $2, $3, $4, $5, $6, 0, 0, $7)`,
		c.ID, c.Tenant, c.Product, c.Revision, c.Name, string(text), store.Millis(c.Created))
	if store.IsUnique(err) {
		return problem.Conflict("The hardware revision already has a placement cohort %s.", c.Name).At("name")
	}
	return err
}

// saveDraft replaces the draft of the version that was read; a version that was published meanwhile wins.
func saveDraft(tx *store.Tx, c Cohort) error {
	text, err := json.Marshal(c.Draft)
	if err != nil {
		return err
	}
	n, err := tx.Exec(`UPDATE product_cohort SET declaration = $4 WHERE tenant = $1 AND id = $2 AND version = $3`, c.Tenant, c.ID, c.Version, string(text))
	if err == nil && n == 0 {
		err = problem.Conflict("The cohort has just been published by somebody else.")
	}
	return err
}

// insertVersion publishes a version: it becomes the newest, and the hardware revision is supported at least as long.
func insertVersion(tx *store.Tx, c Cohort, p Published) error {
	text, err := json.Marshal(p.Declaration)
	if err != nil {
		return err
	}
	if _, err = tx.Exec(`INSERT INTO product_cohort_version(cohort, version, tenant, declaration, note, actor, published) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		c.ID, p.Version, c.Tenant, string(text), p.Note, p.Actor, store.Millis(p.Published)); store.IsUnique(err) {
		return problem.Conflict("The cohort has just been published by somebody else.")
	} else if err != nil {
		return err
	}
	ends := store.Millis(p.End())
	if _, err := tx.Exec(`UPDATE product_cohort SET version = $3, ends_at = $4, declaration = $5 WHERE tenant = $1 AND id = $2`, c.Tenant, c.ID, p.Version, ends, string(text)); err != nil {
		return err
	}
	_, err = tx.Exec(`UPDATE hardware_revision SET support_end = $3 WHERE tenant = $1 AND id = $2 AND support_end < $3`, c.Tenant, c.Revision, ends)
	return err
}

// notices returns what is on record about the notices of a cohort.
func notices(tx *store.Tx, tenant, cohort string) ([]told, error) {
	rows, err := tx.Query(`SELECT month, step, skipped FROM product_notice WHERE tenant = $1 AND cohort = $2 ORDER BY at, step DESC`, tenant, cohort)
	return store.Collect(rows, err, func(r *sql.Rows) (t told, err error) {
		var skipped int64
		err = r.Scan(&t.end, &t.step, &skipped)
		t.skip = skipped != 0
		return t, err
	})
}

// insertNotice records a step, or reports that it is on record already.
func insertNotice(tx *store.Tx, tenant, cohort string, t told, at time.Time) (added bool, err error) {
	skipped := int64(0)
	if t.skip {
		skipped = 1
	}
	n, err := tx.Exec(`INSERT INTO product_notice(cohort, month, step, tenant, skipped, at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`,
		cohort, string(t.end), t.step, tenant, skipped, store.Millis(at))
	return n == 1, err
}
