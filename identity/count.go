// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"database/sql"
	"time"

	"github.com/openthings-platform/openthings/store"
)

// CountByState returns how many of the tenant's devices stand in each state; a state without devices is absent.
func (s *Service) CountByState(ctx context.Context, tenant string) (map[State]int64, error) {
	out := map[State]int64{}
	rows, err := s.cfg.DB.Query(ctx, `SELECT state, count(*) FROM device WHERE tenant = $1 GROUP BY state`, tenant)
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var st State
		var n int64
		err := r.Scan(&st, &n)
		out[st] = n
		return struct{}{}, err
	})
	return out, err
}

// Census is how many devices share product, solution and state.
type Census struct {
	Product, Solution string
	State             State
	Devices           int64
}

// Count returns the tenant's devices by product, solution and state; groups without a device are absent.
func (s *Service) Count(ctx context.Context, tenant string) ([]Census, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT product, solution, state, count(*) FROM device WHERE tenant = $1 GROUP BY product, solution, state`, tenant)
	return store.Collect(rows, err, func(r *sql.Rows) (c Census, err error) {
		err = r.Scan(&c.Product, &c.Solution, &c.State, &c.Devices)
		return c, err
	})
}

// Ending returns how many LDevIDs in service end before t: devices whose renewal is due or missed.
func (s *Service) Ending(ctx context.Context, tenant string, t time.Time) (n int64, err error) {
	err = s.cfg.DB.QueryRow(ctx, `SELECT count(*) FROM certificate WHERE tenant = $1 AND kind = $2 AND phase = $3 AND not_after < $4`,
		tenant, LDevID, PhaseActive, store.Millis(t)).Scan(&n)
	return n, err
}
