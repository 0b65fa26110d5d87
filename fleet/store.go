// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"database/sql"
	"embed"
	"fmt"

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
	n, err := tx.Exec(`UPDATE install SET to_ts = $4 WHERE tenant = $1 AND device_id = $2 AND from_ts = $3 AND to_ts = 9223372036854775807`, tenant, device, from, to)
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

func running(ctx context.Context, db *store.DB, tenant string, devices []string) (map[string]string, error) {
	out := map[string]string{}
	if len(devices) == 0 {
		return out, nil
	}
	list, args := store.In([]any{tenant}, devices)
	rows, err := db.Query(ctx, `SELECT device_id, release_id FROM install WHERE tenant = $1 AND to_ts = 9223372036854775807 AND device_id IN `+list, args...)
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var device, release string
		err := r.Scan(&device, &release)
		out[device] = release
		return struct{}{}, err
	})
	return out, err
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
	rows, err := db.Query(ctx, `SELECT release_id FROM fleet_count WHERE tenant = $1 UNION SELECT to_release FROM fleet_delta WHERE tenant = $1 AND to_release <> ''`, tenant)
	return store.Collect(rows, err, func(r *sql.Rows) (id string, err error) { return id, r.Scan(&id) })
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
	list, args := store.In([]any{tenant}, devices)
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
