// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
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
var Schema = store.Migrations{Stage: "command", FS: migrationsFS}

const columns = `id, tenant, device, name, args, state, actor, attempts, created, not_after, sent, received, accepted, ended, reason, result`

func scan(scan func(...any) error) (c Command, err error) {
	var args, result string
	var created, notAfter, sent, received, accepted, ended int64
	err = scan(&c.ID, &c.Tenant, &c.Device, &c.Name, &args, &c.State, &c.Actor, &c.Attempts, &created, &notAfter, &sent, &received, &accepted, &ended, &c.Reason, &result)
	c.Args = json.RawMessage(args)
	if result != "" {
		c.Result = json.RawMessage(result)
	}
	c.Created, c.NotAfter = store.Time(created), store.Time(notAfter)
	c.Sent, c.Received, c.Accepted, c.Ended = moment(sent), moment(received), moment(accepted), moment(ended)
	return c, err
}

func moment(ms int64) *time.Time {
	if ms == 0 {
		return nil
	}
	t := store.Time(ms)
	return &t
}

func insert(tx *store.Tx, c Command) error {
	_, err := tx.Exec(`INSERT INTO command(`+columns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8, $9, 0, 0, 0, 0, '', '')`,
		c.ID, c.Tenant, c.Device, c.Name, string(c.Args), c.State, c.Actor, store.Millis(c.Created), store.Millis(c.NotAfter))
	return err
}

type queryRow func(query string, args ...any) *sql.Row

func byID(q queryRow, tenant, id string) (Command, error) {
	c, err := scan(q(`SELECT `+columns+` FROM command WHERE tenant = $1 AND id = $2`, tenant, id).Scan)
	if errors.Is(err, store.ErrNoRows) {
		return c, problem.NotFound("There is no such command.")
	}
	return c, err
}

// ofDevice returns a page of a device's commands, the newest first.
func ofDevice(ctx context.Context, db *store.DB, tenant, device, before string, limit int) ([]Command, error) {
	rows, err := db.Query(ctx, `SELECT `+columns+` FROM command WHERE tenant = $1 AND device = $2 AND ($3 = '' OR id < $3) ORDER BY id DESC LIMIT $4`,
		tenant, device, before, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (Command, error) { return scan(r.Scan) })
}

// waiting returns what a device has not acknowledged yet, the oldest first. Device ids are unique among all tenants.
func waiting(ctx context.Context, db *store.DB, device string, now int64) ([]Command, error) {
	rows, err := db.Query(ctx, `SELECT `+columns+` FROM command WHERE device = $1 AND state IN ('queued', 'sent') AND not_after > $2 ORDER BY id LIMIT 100`, device, now)
	return store.Collect(rows, err, func(r *sql.Rows) (Command, error) { return scan(r.Scan) })
}

// step columns hold the time at which a state was reached.
var step = map[State]string{Sent: "sent", Received: "received", Accepted: "accepted", Done: "ended", Failed: "ended", Expired: "ended"}

// move changes the state if the law allows it from where the row stands now, and says whether it did.
func move(tx *store.Tx, tenant, id string, to State, at int64, reason, result string) (bool, error) {
	set := "state = $3, reason = $4, result = $5"
	if c := step[to]; c != "" {
		set += ", " + c + " = $6"
	}
	if to == Sent {
		set += ", attempts = attempts + 1"
	}
	var states []string
	for _, s := range from(to) {
		states = append(states, "'"+string(s)+"'")
	}
	args := []any{tenant, id, to, reason, result, at}
	if step[to] == "" {
		args = args[:5]
	}
	n, err := tx.Exec(fmt.Sprintf(`UPDATE command SET %s WHERE tenant = $1 AND id = $2 AND state IN (%s)`, set, strings.Join(states, ", ")), args...)
	return n == 1, err
}
