// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// labelsOf returns the labels of devices; one without is absent.
func labelsOf(ctx context.Context, db *store.DB, tenant string, devices []string) (map[string]map[string]string, error) {
	if len(devices) == 0 {
		return nil, nil
	}
	list, args := store.In([]any{tenant}, devices)
	return collectLabels(db.Query(ctx, `SELECT device_id, name, value FROM label WHERE tenant = $1 AND device_id IN `+list, args...))
}

// labelsIn is labelsOf inside a transaction.
func labelsIn(tx *store.Tx, tenant string, devices []string) (map[string]map[string]string, error) {
	if len(devices) == 0 {
		return nil, nil
	}
	list, args := store.In([]any{tenant}, devices)
	return collectLabels(tx.Query(`SELECT device_id, name, value FROM label WHERE tenant = $1 AND device_id IN `+list, args...))
}

func collectLabels(rows *sql.Rows, err error) (map[string]map[string]string, error) {
	out := map[string]map[string]string{}
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var device, name, value string
		err := r.Scan(&device, &name, &value)
		if out[device] == nil {
			out[device] = map[string]string{}
		}
		out[device][name] = value
		return struct{}{}, err
	})
	return out, err
}

// putLabels writes the change to a device that has these labels.
func putLabels(tx *store.Tx, tenant, device string, l Labelling, have map[string]string) error {
	for _, name := range l.Remove {
		if _, ok := have[name]; !ok {
			continue
		}
		if _, err := tx.Exec(`DELETE FROM label WHERE tenant = $1 AND device_id = $2 AND name = $3`, tenant, device, name); err != nil {
			return err
		}
	}
	for name, value := range l.Set {
		if have[name] == value {
			continue
		}
		if _, err := tx.Exec(`INSERT INTO label(tenant, device_id, name, value) VALUES ($1, $2, $3, $4)
			ON CONFLICT (tenant, device_id, name) DO UPDATE SET value = excluded.value`, tenant, device, name, value); err != nil {
			return err
		}
	}
	return nil
}

// countLabels counts devices by label and value, the most common first.
func countLabels(ctx context.Context, db *store.DB, tenant string, limit int) ([]labelCount, error) {
	rows, err := db.Query(ctx, `SELECT name, value, count(*) AS n FROM label WHERE tenant = $1 GROUP BY name, value ORDER BY n DESC, name, value LIMIT $2`, tenant, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (l labelCount, err error) { return l, r.Scan(&l.name, &l.value, &l.n) })
}

// countUpTo counts rows, "FROM table WHERE …", up to limit.
func countUpTo(ctx context.Context, db *store.DB, rows string, args []any, limit int) (n int64, err error) {
	err = db.View(ctx, func(tx *store.Tx) error { // not prepared: strangers make these texts
		return tx.QueryRow(fmt.Sprintf(`SELECT count(*) FROM (SELECT 1 %s LIMIT %d) q`, rows, limit), args...).Scan(&n)
	})
	return n, err
}

const groupColumns = `id, tenant, name, note, filter, members, created, updated`

func scanGroup(r interface{ Scan(...any) error }) (g Group, err error) {
	var created, updated int64
	err = r.Scan(&g.ID, &g.Tenant, &g.Name, &g.Note, &g.Filter, &g.Members, &created, &updated)
	g.Created, g.Updated = store.Time(created), store.Time(updated)
	return g, err
}

// groupNamed returns the tenant's group with the name or id.
func groupNamed(ctx context.Context, db *store.DB, tenant, name string) (Group, error) {
	g, err := scanGroup(db.QueryRow(ctx, `SELECT `+groupColumns+` FROM fleet_group WHERE tenant = $1 AND (name = $2 OR id = $2)`, tenant, name))
	if errors.Is(err, store.ErrNoRows) {
		return Group{}, problem.NotFound("There is no such group.")
	}
	return g, err
}

// groupsOf returns groups in the order of their names.
func groupsOf(ctx context.Context, db *store.DB, tenant, after string, limit int) ([]Group, error) {
	rows, err := db.Query(ctx, `SELECT `+groupColumns+` FROM fleet_group WHERE tenant = $1 AND name > $2 ORDER BY name LIMIT $3`, tenant, after, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (Group, error) { return scanGroup(r) })
}

func countGroups(tx *store.Tx, tenant string) (n int64, err error) {
	return n, tx.QueryRow(`SELECT count(*) FROM fleet_group WHERE tenant = $1`, tenant).Scan(&n)
}

func insertGroup(tx *store.Tx, g Group) error {
	_, err := tx.Exec(`INSERT INTO fleet_group(`+groupColumns+`) VALUES ($1, $2, $3, $4, $5, 0, $6, $6)`,
		g.ID, g.Tenant, g.Name, g.Note, g.Filter, store.Millis(g.Created))
	return groupTaken(g, err)
}

func updateGroup(tx *store.Tx, g Group) error {
	n, err := tx.Exec(`UPDATE fleet_group SET name = $1, note = $2, filter = $3, updated = $4 WHERE tenant = $5 AND id = $6`,
		g.Name, g.Note, g.Filter, store.Millis(g.Updated), g.Tenant, g.ID)
	if err == nil && n == 0 {
		return problem.NotFound("There is no such group.")
	}
	return groupTaken(g, err)
}

func groupTaken(g Group, err error) error {
	if store.IsUnique(err) {
		return problem.Conflict("There is a group %s already.", g.Name).At("body.name")
	}
	return err
}

func deleteGroup(tx *store.Tx, tenant, id string) error {
	if _, err := tx.Exec(`DELETE FROM group_member WHERE tenant = $1 AND group_id = $2`, tenant, id); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM fleet_group WHERE tenant = $1 AND id = $2`, tenant, id)
	return err
}

// setMember says 1 when it changed something.
func setMember(tx *store.Tx, g Group, device string, remove bool) (int64, error) {
	if remove {
		return tx.Exec(`DELETE FROM group_member WHERE tenant = $1 AND group_id = $2 AND device_id = $3`, g.Tenant, g.ID, device)
	}
	return tx.Exec(`INSERT INTO group_member(tenant, group_id, device_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, g.Tenant, g.ID, device)
}

// addMembers counts members; it keeps changes of one group, and its end, apart.
func addMembers(tx *store.Tx, g Group, by int64) error {
	var n int64
	err := tx.QueryRow(`UPDATE fleet_group SET members = members + $1 WHERE tenant = $2 AND id = $3 RETURNING members`, by, g.Tenant, g.ID).Scan(&n)
	switch {
	case errors.Is(err, store.ErrNoRows):
		return problem.NotFound("There is no such group.")
	case err == nil && n > maxMembers:
		return errTooManyMembers
	}
	return err
}
