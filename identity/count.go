// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
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

// Tally is how many devices share what Tally was asked for.
type Tally struct {
	Keys    []string
	Devices int64
}

// Tally counts the devices of a filter by expressions over the row "device" (see Filter.Where), each of which is a text.
// It counts the first f.Limit in the order of their ids and no more, so that its cost is bounded; without expressions
// it returns one line.
func (s *Service) Tally(ctx context.Context, tenant string, f Filter, by ...string) (out []Tally, err error) {
	where, args := f.where(tenant)
	inner, keys := make([]string, len(by)), make([]string, len(by))
	for i, e := range by {
		keys[i] = fmt.Sprintf("k%d", i)
		inner[i] = e + " AS " + keys[i]
	}
	group := ""
	if len(by) == 0 {
		inner = []string{"1 AS one"}
	} else {
		group = " GROUP BY " + strings.Join(keys, ", ")
	}
	query := `SELECT ` + strings.Join(append(keys, "count(*)"), ", ") + ` FROM (SELECT ` + strings.Join(inner, ", ") + ` FROM device WHERE ` + where +
		` ORDER BY id LIMIT ` + strconv.Itoa(f.limit()) + `) q` + group
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) { // not prepared: strangers make these texts
		rows, err := tx.Query(query, args...)
		out, err = store.Collect(rows, err, func(r *sql.Rows) (Tally, error) {
			t := Tally{Keys: make([]string, len(by))}
			into := make([]any, len(by), len(by)+1)
			for i := range t.Keys {
				into[i] = &t.Keys[i]
			}
			err := r.Scan(append(into, &t.Devices)...)
			return t, err
		})
		return err
	})
	return out, err
}
