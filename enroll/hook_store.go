// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"database/sql"

	"github.com/openthings-platform/openthings/store"
)

const hookColumns = `tenant, product, url, secret, patience, open, actor, created, asked, denied, failed, fault`

func scanHook(r scanner) (Hook, error) {
	var h Hook
	var open, created int64
	err := r.Scan(&h.Tenant, &h.Product, &h.URL, &h.secret, &h.Patience, &open, &h.Actor, &created, &h.Asked, &h.Denied, &h.Failed, &h.Fault)
	h.Open, h.Created = open > 0, store.Time(created)
	return h, err
}

// hooksAbout are the hooks that have a say in a product: that of the tenant first, then its own.
func (s *Service) hooksAbout(ctx context.Context, tenant, product string) ([]Hook, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT `+hookColumns+` FROM hook WHERE tenant = $1 AND product IN ($2, '') ORDER BY product`, tenant, product)
	return store.Collect(rows, err, func(r *sql.Rows) (Hook, error) { return scanHook(r) })
}

// Hooks lists the hooks of the tenant: at most one for each product and one for all of them.
func (s *Service) Hooks(ctx context.Context, tenant string) ([]Hook, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT `+hookColumns+` FROM hook WHERE tenant = $1 ORDER BY product`, tenant)
	return store.Collect(rows, err, func(r *sql.Rows) (Hook, error) { return scanHook(r) })
}

func putHook(tx *store.Tx, h Hook) error {
	_, err := tx.Exec(`INSERT INTO hook(`+hookColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, 0, 0, '') ON CONFLICT (tenant, product) DO UPDATE SET
		url = excluded.url, secret = excluded.secret, patience = excluded.patience, open = excluded.open, actor = excluded.actor, created = excluded.created,
		asked = 0, denied = 0, failed = 0, fault = ''`,
		h.Tenant, h.Product, h.URL, h.secret, h.Patience, number01(h.Open), h.Actor, store.Millis(h.Created))
	return err
}
