// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/store"
)

// rowsPerStatement bounds what the fold asks of one statement.
const rowsPerStatement = 256

func addDelta(tx *store.Tx, d delta) error {
	_, err := tx.Exec(`INSERT INTO fleet_delta(tenant, id, from_release, to_release, at) VALUES ($1, $2, $3, $4, $5)`, d.tenant, store.NewID("fd"), d.from, d.to, d.at)
	return err
}

// takeDeltas removes some deltas and returns them. It never goes by "id beyond the last": a lower one may commit later.
func takeDeltas(tx *store.Tx, limit int) ([]delta, error) {
	rows, err := tx.Query(`DELETE FROM fleet_delta WHERE (tenant, id) IN (SELECT tenant, id FROM fleet_delta ORDER BY tenant, id LIMIT $1) RETURNING tenant, from_release, to_release, at`, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (d delta, err error) {
		return d, r.Scan(&d.tenant, &d.from, &d.to, &d.at)
	})
}

func hasDeltas(ctx context.Context, db *store.DB) (bool, error) {
	var n int64
	err := db.QueryRow(ctx, `SELECT count(*) FROM (SELECT 1 FROM fleet_delta LIMIT 1) q`).Scan(&n)
	return n > 0, err
}

// readCounts fills in what is folded so far.
func readCounts(tx *store.Tx, counts []*count) error {
	at := map[[2]string]*count{}
	for _, c := range counts {
		at[[2]string{c.tenant, c.release}] = c
	}
	for part := range slices.Chunk(counts, rowsPerStatement) {
		var args []any
		pairs := make([]string, padded(len(part)))
		for i := range pairs {
			c := part[min(i, len(part)-1)]
			args = append(args, c.tenant, c.release)
			pairs[i] = fmt.Sprintf("($%d, $%d)", 2*i+1, 2*i+2)
		}
		rows, err := tx.Query(`SELECT tenant, release_id, n, moment, events, last_at, mark_at FROM fleet_count WHERE (tenant, release_id) IN (VALUES `+strings.Join(pairs, ", ")+`)`, args...)
		if _, err = store.Collect(rows, err, func(r *sql.Rows) (c count, err error) {
			err = r.Scan(&c.tenant, &c.release, &c.n, &c.moment, &c.events, &c.lastAt, &c.markedAt)
			*at[[2]string{c.tenant, c.release}] = c
			return c, err
		}); err != nil {
			return err
		}
	}
	return nil
}

func putCounts(tx *store.Tx, counts []*count) error {
	rows := make([][]any, len(counts))
	for i, c := range counts {
		rows[i] = []any{c.tenant, c.release, c.n, c.moment, c.events, c.lastAt, c.markedAt}
	}
	return tx.InsertMany(`INSERT INTO fleet_count(tenant, release_id, n, moment, events, last_at, mark_at)`, rows,
		`ON CONFLICT (tenant, release_id) DO UPDATE SET n = excluded.n, moment = excluded.moment, events = excluded.events, last_at = excluded.last_at, mark_at = excluded.mark_at`)
}

// folded writes a query for the events that are folded of some releases: those of all intervals, less those that wait.
// Both are read in one statement, or an installation between two of them would be seen in one only. releases is the query
// of (tenant, release_id, after, until).
func folded(releases string) string {
	const of = ` FROM p CROSS JOIN install i WHERE i.tenant = p.tenant AND i.release_id = p.release_id AND `
	const waits = ` FROM p CROSS JOIN fleet_delta d WHERE d.tenant = p.tenant AND d.at > p.after AND d.at <= p.until AND `
	return `WITH p(tenant, release_id, after, until) AS (` + releases + `)
		SELECT p.tenant, p.release_id, i.from_ts, 1` + of + `i.from_ts > p.after AND i.from_ts <= p.until
		UNION ALL SELECT p.tenant, p.release_id, i.to_ts, -1` + of + `i.to_ts > p.after AND i.to_ts <= p.until AND i.to_ts < 9223372036854775807
		UNION ALL SELECT p.tenant, p.release_id, d.at, -1` + waits + `d.to_release = p.release_id
		UNION ALL SELECT p.tenant, p.release_id, d.at, 1` + waits + `d.from_release = p.release_id`
}

func scanEvent(r *sql.Rows) (e event, err error) {
	return e, r.Scan(&e.tenant, &e.release, &e.at, &e.n)
}

// readChanges returns all that is folded of a release.
func readChanges(tx *store.Tx, tenant, release string) ([]change, error) {
	rows, err := tx.Query(folded(`VALUES ($1, $2, CAST(-1 AS bigint), 9223372036854775806)`), tenant, release)
	return store.Collect(rows, err, func(r *sql.Rows) (change, error) {
		e, err := scanEvent(r)
		return e.change, err
	})
}

func readMarks(tx *store.Tx, tenant, release string) ([]mark, error) {
	rows, err := tx.Query(`SELECT at, n, moment, body FROM fleet_mark WHERE tenant = $1 AND release_id = $2 ORDER BY at`, tenant, release)
	return store.Collect(rows, err, func(r *sql.Rows) (m mark, err error) {
		var body []byte
		if err := r.Scan(&m.at, &m.n, &m.moment, &body); err != nil {
			return m, err
		}
		m.changes, err = unpacked(m.at, body)
		return m, err
	})
}

func deleteMarks(tx *store.Tx, tenant, release string) error {
	_, err := tx.Exec(`DELETE FROM fleet_mark WHERE tenant = $1 AND release_id = $2`, tenant, release)
	return err
}

func insertMarks(tx *store.Tx, tenant, release string, marks []mark) error {
	rows := make([][]any, len(marks))
	for i, m := range marks {
		rows[i] = []any{tenant, release, m.at, m.n, m.moment, m.packed()}
	}
	return tx.InsertMany(`INSERT INTO fleet_mark(tenant, release_id, at, n, moment, body)`, rows, ``)
}

// putMarks reads what happened before each of the marks and writes them.
func putMarks(tx *store.Tx, made []newMarks) error {
	changes := map[[2]string][]change{}
	for part := range slices.Chunk(made, rowsPerStatement) {
		var args []any
		values := make([]string, padded(len(part)))
		for i := range values {
			m := newMarks{marks: []mark{{}}} // no release at all: the statement has more rows than we need
			if i < len(part) {
				m = part[i]
			}
			args = append(args, m.tenant, m.release, m.after, m.marks[len(m.marks)-1].at)
			values[i] = fmt.Sprintf("($%d, $%d, CAST($%d AS bigint), CAST($%d AS bigint))", 4*i+1, 4*i+2, 4*i+3, 4*i+4)
		}
		rows, err := tx.Query(folded(`VALUES `+strings.Join(values, ", ")), args...)
		if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
			e, err := scanEvent(r)
			k := [2]string{e.tenant, e.release}
			changes[k] = append(changes[k], e.change)
			return struct{}{}, err
		}); err != nil {
			return err
		}
	}
	var rows [][]any
	for _, m := range made {
		rest := netted(changes[[2]string{m.tenant, m.release}])
		for _, k := range m.marks {
			n := 0
			for n < len(rest) && rest[n].at <= k.at {
				n++
			}
			k.changes, rest = rest[:n], rest[n:]
			rows = append(rows, []any{m.tenant, m.release, k.at, k.n, k.moment, k.packed()})
		}
	}
	return tx.InsertMany(`INSERT INTO fleet_mark(tenant, release_id, at, n, moment, body)`, rows, ``)
}

// moveMarks counts an event that came late into the marks at it and after it, and into the story of the first.
func moveMarks(tx *store.Tx, e event) error {
	m := mark{}
	var body []byte
	err := tx.QueryRow(`SELECT at, body FROM fleet_mark WHERE tenant = $1 AND release_id = $2 AND at >= $3 ORDER BY at LIMIT 1`, e.tenant, e.release, e.at).Scan(&m.at, &body)
	if errors.Is(err, store.ErrNoRows) {
		return errNoMark
	}
	if err != nil {
		return err
	}
	if m.changes, err = unpacked(m.at, body); err != nil {
		return err
	}
	m.changes = netted(append(m.changes, e.change))
	if _, err := tx.Exec(`UPDATE fleet_mark SET body = $4 WHERE tenant = $1 AND release_id = $2 AND at = $3`, e.tenant, e.release, m.at, m.packed()); err != nil {
		return err
	}
	_, err = tx.Exec(`UPDATE fleet_mark SET n = n + $4, moment = moment + $5 WHERE tenant = $1 AND release_id = $2 AND at >= $3`, e.tenant, e.release, e.at, e.n, e.n*(e.at-countEpoch))
	return err
}

// nextRelease returns the release after one, over all tenants, that some device runs or ran or that is counted; empty at
// the end.
func nextRelease(ctx context.Context, db *store.DB, tenant, release string) (t, r string, err error) {
	err = db.QueryRow(ctx, `SELECT tenant, release_id FROM (
			SELECT * FROM (SELECT tenant, release_id FROM install WHERE (tenant, release_id) > ($1, $2) ORDER BY tenant, release_id LIMIT 1) i
			UNION ALL SELECT * FROM (SELECT tenant, release_id FROM fleet_count WHERE (tenant, release_id) > ($1, $2) ORDER BY tenant, release_id LIMIT 1) c) q
		ORDER BY tenant, release_id LIMIT 1`, tenant, release).Scan(&t, &r)
	if errors.Is(err, store.ErrNoRows) {
		return "", "", nil
	}
	return t, r, err
}
