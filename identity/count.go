// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"database/sql"

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
