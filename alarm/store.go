// SPDX-License-Identifier: AGPL-3.0-only

package alarm

import (
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

//go:embed migrations/*.sql
var migrationsFS embed.FS

// Schema belongs to the platform handle.
var Schema = store.Migrations{Stage: "alarm", FS: migrationsFS}

type scanner interface{ Scan(...any) error }

func scanRule(r scanner) (rule Rule, removed bool, err error) {
	var id, tenant, body string
	var changed, gone int64
	if err := r.Scan(&id, &tenant, &changed, &gone, &body); err != nil {
		return rule, false, err
	}
	if err := json.Unmarshal([]byte(body), &rule); err != nil {
		return rule, false, fmt.Errorf("alarm: rule %s: %w", id, err)
	}
	rule.ID, rule.Tenant, rule.Changed = id, tenant, store.Time(changed)
	return rule, gone > 0, nil
}

const ruleColumns = `id, tenant, changed, removed, body`

// rulesOf lists the rules of a tenant in the order of their making; an empty tenant means all.
func rulesOf(tx *store.Tx, tenant string) ([]Rule, error) {
	rows, err := tx.Query(`SELECT `+ruleColumns+` FROM alarm_rule WHERE removed = 0 AND ($1 = '' OR tenant = $1) ORDER BY id`, tenant)
	return store.Collect(rows, err, func(r *sql.Rows) (Rule, error) {
		rule, _, err := scanRule(r)
		return rule, err
	})
}

func ruleByID(tx *store.Tx, tenant, id string) (Rule, error) {
	rule, removed, err := scanRule(tx.QueryRow(`SELECT `+ruleColumns+` FROM alarm_rule WHERE tenant = $1 AND id = $2`, tenant, id))
	if errors.Is(err, store.ErrNoRows) || err == nil && removed {
		return rule, problem.NotFound("There is no such rule.")
	}
	return rule, err
}

func putRule(tx *store.Tx, r Rule, removed time.Time) error {
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO alarm_rule(id, tenant, changed, removed, body) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (id) DO UPDATE SET changed = excluded.changed, removed = excluded.removed, body = excluded.body`,
		r.ID, r.Tenant, store.Millis(r.Changed), store.Millis(removed), string(body))
	return err
}

// stand returns what a rule remembers of a device; ok is false when it has never seen it.
func stand(tx *store.Tx, rule, device string) (st standing, ok bool, err error) {
	var body string
	err = tx.QueryRow(`SELECT body FROM alarm_standing WHERE rule = $1 AND device = $2`, rule, device).Scan(&body)
	if errors.Is(err, store.ErrNoRows) {
		return st, false, nil
	}
	if err != nil {
		return st, false, err
	}
	return st, true, json.Unmarshal([]byte(body), &st)
}

func putStanding(tx *store.Tx, r Rule, device string, st standing) error {
	body, err := json.Marshal(st)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO alarm_standing(rule, device, tenant, body) VALUES ($1, $2, $3, $4) ON CONFLICT (rule, device) DO UPDATE SET body = excluded.body`,
		r.ID, device, r.Tenant, string(body))
	return err
}

const alarmColumns = `id, tenant, rule, name, device, product, solution, severity, since, value, ended, why, acked, acked_by, note`

func scanAlarm(r scanner) (a Alarm, err error) {
	var since, ended, acked int64
	err = r.Scan(&a.ID, &a.Tenant, &a.Rule, &a.Name, &a.Device, &a.Product, &a.Solution, &a.Severity, &since, &a.Value, &ended, &a.Why, &acked, &a.AckedBy, &a.Note)
	a.Since, a.Ended, a.Acked = store.Time(since), store.Time(ended), store.Time(acked)
	return a, err
}

func insertAlarm(tx *store.Tx, a Alarm) (fresh bool, err error) {
	n, err := tx.Exec(`INSERT INTO alarm(`+alarmColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, '', 0, '', '') ON CONFLICT DO NOTHING`,
		a.ID, a.Tenant, a.Rule, a.Name, a.Device, a.Product, a.Solution, string(a.Severity), store.Millis(a.Since), a.Value)
	return n == 1, err
}

func alarmByID(tx *store.Tx, tenant, id string) (Alarm, error) {
	a, err := scanAlarm(tx.QueryRow(`SELECT `+alarmColumns+` FROM alarm WHERE tenant = $1 AND id = $2`, tenant, id))
	if errors.Is(err, store.ErrNoRows) {
		return a, problem.NotFound("There is no such alarm.")
	}
	return a, err
}

// openAlarm returns the open alarm of a rule and device; ok is false when there is none.
func openAlarm(tx *store.Tx, rule, device string) (a Alarm, ok bool, err error) {
	a, err = scanAlarm(tx.QueryRow(`SELECT `+alarmColumns+` FROM alarm WHERE rule = $1 AND device = $2 AND ended = 0`, rule, device))
	if errors.Is(err, store.ErrNoRows) {
		return a, false, nil
	}
	return a, err == nil, err
}

// end ends an open alarm; false: it had ended.
func end(tx *store.Tx, id, why string, at time.Time) (bool, error) {
	n, err := tx.Exec(`UPDATE alarm SET ended = $2, why = $3 WHERE id = $1 AND ended = 0`, id, store.Millis(at), why)
	return n == 1, err
}

// Question chooses alarms. Products and Solutions bound what may be read unless Whole.
type Question struct {
	State     string // open, closed; empty: any
	Device    string
	Severity  Severity
	Whole     bool
	Products  []string
	Solutions []string
	Before    string
	Limit     int
}

func alarms(tx *store.Tx, tenant string, q Question) ([]Alarm, error) {
	where, args := q.where(tenant)
	args = append(args, q.Before, q.Limit)
	rows, err := tx.Query(fmt.Sprintf(`SELECT `+alarmColumns+` FROM alarm WHERE %s AND ($%d = '' OR id < $%[2]d) ORDER BY id DESC LIMIT $%d`, where, len(args)-1, len(args)), args...)
	return store.Collect(rows, err, func(r *sql.Rows) (Alarm, error) { return scanAlarm(r) })
}

// countOpen counts open alarms by severity, and among them those that nobody has acknowledged.
func countOpen(tx *store.Tx, tenant string, q Question) (map[Severity]int64, int64, error) {
	q.State = "open"
	where, args := q.where(tenant)
	rows, err := tx.Query(`SELECT severity, count(*), sum(CASE WHEN acked = 0 THEN 1 ELSE 0 END) FROM alarm WHERE `+where+` GROUP BY severity`, args...)
	out, fresh := map[Severity]int64{}, int64(0)
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var s Severity
		var n, unacked int64
		err := r.Scan(&s, &n, &unacked)
		out[s], fresh = n, fresh+unacked
		return struct{}{}, err
	})
	return out, fresh, err
}

func (q Question) where(tenant string) (string, []any) {
	args := []any{tenant}
	mark := func(v any) string { args = append(args, v); return fmt.Sprintf("$%d", len(args)) }
	parts := []string{"tenant = $1"}
	switch q.State {
	case "open":
		parts = append(parts, "ended = 0")
	case "closed":
		parts = append(parts, "ended > 0")
	}
	if q.Device != "" {
		parts = append(parts, "device = "+mark(q.Device))
	}
	if q.Severity != "" {
		parts = append(parts, "severity = "+mark(string(q.Severity)))
	}
	if !q.Whole {
		mine := []string{"1 = 0"}
		for _, p := range q.Products {
			mine = append(mine, "product = "+mark(p))
		}
		if len(q.Solutions) > 0 {
			var list string
			list, args = store.In(args, q.Solutions)
			mine = append(mine, "solution IN "+list)
		}
		parts = append(parts, "("+strings.Join(mine, " OR ")+")")
	}
	return strings.Join(parts, " AND "), args
}
