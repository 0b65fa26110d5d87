// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/store"
)

//go:embed migrations/*.sql
var migrationsFS embed.FS

// Schema belongs to the platform handle.
var Schema = store.Migrations{Stage: "fleet", FS: migrationsFS}

// install is an interval as stored.
type install struct {
	release  string
	from, to int64
}

// lastInstall returns the interval that began last, or store.ErrNoRows.
func lastInstall(tx *store.Tx, tenant, device string) (i install, err error) {
	err = tx.QueryRow(`SELECT release_id, from_ts, to_ts FROM install WHERE tenant = $1 AND device_id = $2 ORDER BY from_ts DESC LIMIT 1`, tenant, device).
		Scan(&i.release, &i.from, &i.to)
	return i, err
}

func insertInstall(tx *store.Tx, tenant, product, device, release string, from int64) error {
	_, err := tx.Exec(`INSERT INTO install(tenant, product, device_id, release_id, from_ts, to_ts) VALUES ($1, $2, $3, $4, $5, $6)`,
		tenant, product, device, release, from, int64(Forever))
	return err
}

// closeInstall ends the open interval; it fails when another process has ended it meanwhile.
func closeInstall(tx *store.Tx, tenant, device string, from, to int64) error {
	n, err := tx.Exec(`UPDATE install SET to_ts = $4 WHERE tenant = $1 AND device_id = $2 AND from_ts = $3 AND to_ts = $5`, tenant, device, from, to, int64(Forever))
	if err == nil && n != 1 {
		err = fmt.Errorf("fleet: what %s runs was changed by another process", device)
	}
	return err
}

func deleteInstall(tx *store.Tx, tenant, device string, from int64) error {
	_, err := tx.Exec(`DELETE FROM install WHERE tenant = $1 AND device_id = $2 AND from_ts = $3`, tenant, device, from)
	return err
}

func history(ctx context.Context, db *store.DB, tenant, device string) ([]Interval, error) {
	rows, err := db.Query(ctx, `SELECT release_id, from_ts, to_ts FROM install WHERE tenant = $1 AND device_id = $2 ORDER BY from_ts DESC LIMIT 1000`, tenant, device)
	return store.Collect(rows, err, func(r *sql.Rows) (i Interval, err error) {
		var from, to int64
		err = r.Scan(&i.Release, &from, &to)
		i.From = store.Time(from)
		if to != Forever {
			t := store.Time(to)
			i.To = &t
		}
		return i, err
	})
}

// in writes "($2, $3, …)" for the ids and appends them to args.
func in(args []any, ids []string) (string, []any) {
	marks := make([]string, len(ids))
	for i, id := range ids {
		args = append(args, id)
		marks[i] = fmt.Sprintf("$%d", len(args))
	}
	return "(" + strings.Join(marks, ", ") + ")", args
}

func running(ctx context.Context, db *store.DB, tenant string, devices []string) (map[string]string, error) {
	out := map[string]string{}
	if len(devices) == 0 {
		return out, nil
	}
	list, args := in([]any{tenant, int64(Forever)}, devices)
	rows, err := db.Query(ctx, `SELECT device_id, release_id FROM install WHERE tenant = $1 AND to_ts = $2 AND device_id IN `+list, args...)
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var device, release string
		err := r.Scan(&device, &release)
		out[device] = release
		return struct{}{}, err
	})
	return out, err
}

// devicesOf returns a page of one release. Now is its own query: with to_ts fixed the index yields the ids in order.
func devicesOf(tx *store.Tx, tenant, release string, at time.Time, page Page) ([]Placed, error) {
	query := `SELECT device_id, release_id, from_ts FROM install WHERE tenant = $1 AND release_id = $2 AND to_ts = $3 AND device_id > $4 ORDER BY device_id LIMIT $5`
	args := []any{tenant, release, int64(Forever), page.After, page.Limit}
	if !at.IsZero() {
		query = `SELECT device_id, release_id, from_ts FROM install WHERE tenant = $1 AND release_id = $2 AND to_ts > $3 AND from_ts <= $3 AND device_id > $4 ORDER BY device_id LIMIT $5`
		args[2] = store.Millis(at)
	}
	rows, err := tx.Query(query, args...)
	return store.Collect(rows, err, func(r *sql.Rows) (p Placed, err error) {
		var from int64
		err = r.Scan(&p.Device, &p.Release, &from)
		p.Since = store.Time(from)
		return p, err
	})
}

func addDelta(tx *store.Tx, tenant, release string, at, n int64) error {
	_, err := tx.Exec(`INSERT INTO fleet_delta(id, tenant, release_id, at, n) VALUES ($1, $2, $3, $4, $5)`, store.NewID("fd"), tenant, release, at, n)
	return err
}

type delta struct {
	tenant, release string
	at, n           int64
}

// takeDeltas removes some deltas and returns them. It never goes by "id beyond the last": a lower one may commit later.
func takeDeltas(tx *store.Tx, limit int) ([]delta, error) {
	rows, err := tx.Query(`DELETE FROM fleet_delta WHERE id IN (SELECT id FROM fleet_delta ORDER BY id LIMIT $1) RETURNING tenant, release_id, at, n`, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (d delta, err error) {
		return d, r.Scan(&d.tenant, &d.release, &d.at, &d.n)
	})
}

func hasDeltas(ctx context.Context, db *store.DB) (bool, error) {
	var n int64
	err := db.QueryRow(ctx, `SELECT count(*) FROM (SELECT 1 FROM fleet_delta LIMIT 1) q`).Scan(&n)
	return n > 0, err
}

func addCount(tx *store.Tx, tenant, release string, n int64) error {
	_, err := tx.Exec(`INSERT INTO fleet_count(tenant, release_id, n) VALUES ($1, $2, $3)
		ON CONFLICT (tenant, release_id) DO UPDATE SET n = fleet_count.n + excluded.n`, tenant, release, n)
	return err
}

func addDay(tx *store.Tx, tenant, release string, day, n int64) error {
	_, err := tx.Exec(`INSERT INTO fleet_day(tenant, day, release_id, n) VALUES ($1, $2, $3, $4)
		ON CONFLICT (tenant, day, release_id) DO UPDATE SET n = fleet_day.n + excluded.n`, tenant, day, release, n)
	return err
}

func collectCounts(rows *sql.Rows, err error) (map[string]int64, error) {
	out := map[string]int64{}
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var release string
		var n int64
		err := r.Scan(&release, &n)
		out[release] = n
		return struct{}{}, err
	})
	return out, err
}

// releasesSeen lists the releases that devices of the tenant run or ran.
func releasesSeen(ctx context.Context, db *store.DB, tenant string) ([]string, error) {
	rows, err := db.Query(ctx, `SELECT release_id FROM fleet_count WHERE tenant = $1 UNION SELECT release_id FROM fleet_delta WHERE tenant = $1`, tenant)
	return store.Collect(rows, err, func(r *sql.Rows) (id string, err error) { return id, r.Scan(&id) })
}

func countByRelease(ctx context.Context, db *store.DB, tenant string) (map[string]int64, error) {
	return collectCounts(db.Query(ctx, `SELECT release_id, CAST(sum(n) AS bigint) FROM (
			SELECT release_id, n FROM fleet_count WHERE tenant = $1
			UNION ALL SELECT release_id, n FROM fleet_delta WHERE tenant = $1) q
		GROUP BY release_id HAVING sum(n) <> 0`, tenant))
}

// countAsOf adds the days before, deltas of those days that are not folded yet, and what began and ended in the day
// itself, all in one statement and so on one snapshot.
func countAsOf(ctx context.Context, db *store.DB, tenant string, at int64) (map[string]int64, error) {
	day := at / dayMillis
	return collectCounts(db.Query(ctx, `SELECT release_id, CAST(sum(n) AS bigint) FROM (
			SELECT release_id, n FROM fleet_day WHERE tenant = $1 AND day < $2
			UNION ALL SELECT release_id, n FROM fleet_delta WHERE tenant = $1 AND at < $3
			UNION ALL SELECT release_id, 1 AS n FROM install WHERE tenant = $1 AND from_ts >= $3 AND from_ts <= $4
			UNION ALL SELECT release_id, -1 AS n FROM install WHERE tenant = $1 AND to_ts >= $3 AND to_ts <= $4) q
		GROUP BY release_id HAVING sum(n) <> 0`, tenant, day, day*dayMillis, at))
}

// anySeen says whether any device of the tenant ever had a session.
func anySeen(ctx context.Context, db *store.DB, tenant string) (bool, error) {
	var n int64
	err := db.QueryRow(ctx, `SELECT count(*) FROM (SELECT 1 FROM presence WHERE tenant = $1 LIMIT 1) q`, tenant).Scan(&n)
	return n > 0, err
}

// presences looks each device up by its key. The text that is added keeps SQLite, which has no statistics, from the index
// of who is online: to it a tenant looks narrower than fifty keys.
func presences(ctx context.Context, db *store.DB, tenant string, devices []string) (map[string]Presence, error) {
	out := map[string]Presence{}
	if len(devices) == 0 {
		return out, nil
	}
	list, args := in([]any{tenant}, devices)
	rows, err := db.Query(ctx, `SELECT device_id, online, since, seen, reason FROM presence WHERE tenant || '' = $1 AND device_id IN `+list, args...)
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var device, reason string
		var online, since, seen int64
		err := r.Scan(&device, &online, &since, &seen, &reason)
		out[device] = newPresence(online == 1, store.Time(since), store.Time(seen), reason)
		return struct{}{}, err
	})
	return out, err
}
