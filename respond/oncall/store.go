// SPDX-License-Identifier: AGPL-3.0-only

package oncall

import (
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

//go:embed migrations/*.sql
var migrationsFS embed.FS

// Schema holds rotas and calls.
var Schema = store.Migrations{Stage: "oncall", FS: migrationsFS}

func rotaOf(tx *store.Tx, tenant string) (r Rota, set bool, err error) {
	var data string
	err = tx.QueryRow(`SELECT data FROM oncall_rota WHERE tenant = $1`, tenant).Scan(&data)
	if errors.Is(err, store.ErrNoRows) {
		return r, false, nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(data), &r)
	}
	return r, err == nil, err
}

func putRota(tx *store.Tx, tenant string, r Rota, actor string, at time.Time) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("rota: %w", err)
	}
	_, err = tx.Exec(`INSERT INTO oncall_rota(tenant, data, updated, actor) VALUES ($1, $2, $3, $4)
		ON CONFLICT (tenant) DO UPDATE SET data = excluded.data, updated = excluded.updated, actor = excluded.actor`, tenant, string(b), store.Millis(at), actor)
	return err
}

const callColumns = `id, topic, subject, title, link, data, at, answered, answered_by, ended, why, drill`

func scanCall(r interface{ Scan(...any) error }) (c Call, err error) {
	var at, answered, ended, drill int64
	var data string
	err = r.Scan(&c.ID, &c.Topic, &c.Subject, &c.Title, &c.Link, &data, &at, &answered, &c.AnsweredBy, &ended, &c.Why, &drill)
	c.Drill = drill == 1
	c.At, c.Answered, c.Ended, c.data = store.Time(at), store.Time(answered), store.Time(ended), []byte(data)
	if errors.Is(err, store.ErrNoRows) {
		err = problem.NotFound("There is no such call.")
	}
	return c, err
}

// insertCall adds a call; false means that it was there.
func insertCall(tx *store.Tx, tenant string, c Call) (fresh bool, err error) {
	n, err := tx.Exec(`INSERT INTO oncall_call(tenant, `+callColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, '', 0, '', $9) ON CONFLICT (id) DO NOTHING`,
		tenant, c.ID, c.Topic, c.Subject, c.Title, c.Link, string(c.data), store.Millis(c.At), flag(c.Drill))
	return n == 1, err
}

func insertStep(tx *store.Tx, tenant, call string, s Step) error {
	_, err := tx.Exec(`INSERT INTO oncall_step(call, n, tenant, person, name, endpoints, at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		call, s.N, tenant, s.Person, s.Name, s.Endpoints, store.Millis(s.At))
	return err
}

// endCall ends a call; by is who answered it.
func endCall(tx *store.Tx, tenant, id string, at time.Time, why, by string) error {
	answered := int64(0)
	if by != "" {
		answered = store.Millis(at)
	}
	_, err := tx.Exec(`UPDATE oncall_call SET ended = $3, why = $4, answered = $5, answered_by = $6 WHERE tenant = $1 AND id = $2`,
		tenant, id, store.Millis(at), why, answered, by)
	return err
}

func callByID(tx *store.Tx, tenant, id string) (Call, error) {
	c, err := scanCall(tx.QueryRow(`SELECT `+callColumns+` FROM oncall_call WHERE tenant = $1 AND id = $2`, tenant, id))
	if err != nil {
		return c, err
	}
	c.Steps, err = steps(tx, tenant, id)
	return c, err
}

// pending are the calls about a subject that nobody has answered and that are not over.
func pending(tx *store.Tx, tenant, subject string) ([]Call, error) {
	rows, err := tx.Query(`SELECT `+callColumns+` FROM oncall_call WHERE tenant = $1 AND subject = $2 AND why IN ('', 'unanswered') ORDER BY id`, tenant, subject)
	return store.Collect(rows, err, func(r *sql.Rows) (Call, error) { return scanCall(r) })
}

// open are the calls that somebody is called for now: those of drills, or the others.
func open(tx *store.Tx, tenant string, drill bool) ([]Call, error) {
	return calls(tx, tenant, drill, true, "", 1000)
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func calls(tx *store.Tx, tenant string, drill, open bool, after string, n int) ([]Call, error) {
	only := ``
	if open {
		only = ` AND ended = 0`
	}
	rows, err := tx.Query(`SELECT `+callColumns+` FROM oncall_call WHERE tenant = $1 AND ($2 = '' OR id < $2) AND drill = $4`+only+` ORDER BY id DESC LIMIT $3`, tenant, after, n, flag(drill))
	cs, err := store.Collect(rows, err, func(r *sql.Rows) (Call, error) { return scanCall(r) })
	for i := range cs {
		if err != nil {
			break
		}
		cs[i].Steps, err = steps(tx, tenant, cs[i].ID)
	}
	return cs, err
}

func steps(tx *store.Tx, tenant, call string) ([]Step, error) {
	rows, err := tx.Query(`SELECT n, person, name, endpoints, at FROM oncall_step WHERE tenant = $1 AND call = $2 ORDER BY n`, tenant, call)
	return store.Collect(rows, err, func(r *sql.Rows) (s Step, err error) {
		var at int64
		err = r.Scan(&s.N, &s.Person, &s.Name, &s.Endpoints, &at)
		s.At = store.Time(at)
		return s, err
	})
}
