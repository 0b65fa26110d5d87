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

const columns = `id, tenant, device, name, args, state, actor, attempts, created, not_after, sent, received, accepted, ended, reason, result,
	key, job, next, due, ack_timeout, result_timeout, retries, backoff, idempotent, asked, answered, notice`

func scan(scan func(...any) error) (c Command, err error) {
	var args, result string
	var created, notAfter, sent, received, accepted, ended, next, ack, res, backoff, idempotent int64
	err = scan(&c.ID, &c.Tenant, &c.Device, &c.Name, &args, &c.State, &c.Actor, &c.Attempts, &created, &notAfter, &sent, &received, &accepted, &ended, &c.Reason, &result,
		&c.Key, &c.Job, &next, &c.due, &ack, &res, &c.Retries, &backoff, &idempotent, &c.asked, &c.answered, &c.Notice)
	c.Args = json.RawMessage(args)
	if result != "" {
		c.Result = json.RawMessage(result)
	}
	c.Created, c.NotAfter = store.Time(created), store.Time(notAfter)
	c.Sent, c.Received, c.Accepted, c.Ended = moment(sent), moment(received), moment(accepted), moment(ended)
	if c.State == Queued && next > created {
		c.Next = moment(next)
	}
	c.AckTimeout, c.ResultTimeout, c.Backoff, c.Idempotent = ack/1000, res/1000, backoff/1000, idempotent == 1
	return c, err
}

func moment(ms int64) *time.Time {
	if ms == 0 {
		return nil
	}
	t := store.Time(ms)
	return &t
}

// insert says false when the device has a command of that key already.
func insert(tx *store.Tx, c Command) (bool, error) {
	n, err := tx.Exec(`INSERT INTO command(`+columns+`) VALUES ($1, $2, $3, $4, '', $5, $6, 0, $7, $8, 0, 0, 0, 0, '', '', $9, $10, $7, $8, $11, $12, $13, $14, $15, $16, NULL, $17)
		ON CONFLICT (tenant, device, key) WHERE key <> '' DO NOTHING`,
		c.ID, c.Tenant, c.Device, c.Name, c.State, c.Actor, store.Millis(c.Created), store.Millis(c.NotAfter), c.Key, c.Job,
		c.AckTimeout*1000, c.ResultTimeout*1000, c.Retries, c.Backoff*1000, flag(c.Idempotent), c.asked, c.Notice)
	return n == 1, err
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func byKey(tx *store.Tx, tenant, device, key string) (Command, error) {
	return scan(tx.QueryRow(`SELECT `+columns+` FROM command WHERE tenant = $1 AND device = $2 AND key = $3 AND key <> ''`, tenant, device, key).Scan)
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
	rows, err := db.Query(ctx, `SELECT `+columns+` FROM command WHERE device = $1 AND state IN ('queued', 'sent') AND not_after > $2 AND next <= $2 ORDER BY id LIMIT 100`, device, now)
	return store.Collect(rows, err, func(r *sql.Rows) (Command, error) { return scan(r.Scan) })
}

// openOf returns what has been asked of a device and has not ended, the oldest first.
func openOf(tx *store.Tx, tenant, device string) ([]Command, error) {
	rows, err := tx.Query(`SELECT `+columns+` FROM command WHERE tenant = $1 AND device = $2 AND state IN ('queued', 'sent', 'received', 'accepted') ORDER BY id`, tenant, device)
	return store.Collect(rows, err, func(r *sql.Rows) (Command, error) { return scan(r.Scan) })
}

// openAmong returns some of what has been asked of these devices and has not ended. They are in no order: by their ids all
// commands would be read.
func openAmong(tx *store.Tx, tenant string, devices []string, limit int) ([]Command, error) {
	in, args := store.In([]any{tenant, limit}, devices)
	rows, err := tx.Query(`SELECT `+columns+` FROM command WHERE tenant = $1 AND device IN `+in+` AND state IN ('queued', 'sent', 'received', 'accepted') LIMIT $2`, args...)
	return store.Collect(rows, err, func(r *sql.Rows) (Command, error) { return scan(r.Scan) })
}

// devicesWith returns the devices of queued commands whose time to be handed over lies between, on whatever node they
// were asked for.
func devicesWith(ctx context.Context, db *store.DB, from, to int64) ([]string, error) {
	rows, err := db.Query(ctx, `SELECT DISTINCT device FROM command WHERE state = 'queued' AND next >= $1 AND next <= $2`, from, to)
	return store.Collect(rows, err, func(r *sql.Rows) (s string, err error) { return s, r.Scan(&s) })
}

// overdue returns commands whose state has lasted too long.
func overdue(ctx context.Context, db *store.DB, now int64, limit int) ([]Command, error) {
	rows, err := db.Query(ctx, `SELECT `+columns+` FROM command WHERE state IN ('queued', 'sent', 'received', 'accepted') AND due <= $1 ORDER BY due LIMIT $2`, now, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (Command, error) { return scan(r.Scan) })
}

// reached are the columns that hold the time at which a state was reached.
var reached = map[State]string{Received: "received", Accepted: "accepted", Done: "ended", Failed: "ended", Expired: "ended", Cancelled: "ended"}

// step is what a move leaves in the row.
type step struct {
	at       time.Time
	reason   string    // the platform's words
	answered []byte    // the device's, sealed
	attempt  int64     // not 0: only if the command was handed over so often; whoever handed it over again meanwhile decides
	next     time.Time // when a queued command may be handed over again
	undone   bool      // nothing was handed over: the attempt does not count
}

// move changes the state if the law allows it from where the row stands now, and says whether it did. The new state's own
// deadline is set with it.
func move(tx *store.Tx, c Command, to State, p step) (bool, error) {
	now := store.Millis(p.at)
	args := []any{c.Tenant, c.ID, to, p.reason, p.answered, store.Millis(c.deadline(to, p.at))}
	set := "state = $3, reason = $4, answered = $5, due = $6"
	add := func(text string, v any) {
		args = append(args, v)
		set += fmt.Sprintf(text, len(args))
	}
	if column := reached[to]; column != "" {
		add(", "+column+" = $%d", now)
	}
	switch {
	case to == Queued && p.undone:
		set += ", attempts = attempts - 1"
	case to == Queued:
		add(", next = $%d", max(now, store.Millis(p.next)))
	}
	where := ""
	if p.attempt > 0 {
		args = append(args, p.attempt)
		where = fmt.Sprintf(" AND attempts = $%d", len(args))
	}
	var from []string
	for _, s := range states {
		if s.May(to) {
			from = append(from, "'"+string(s)+"'")
		}
	}
	n, err := tx.Exec(fmt.Sprintf(`UPDATE command SET %s WHERE tenant = $1 AND id = $2 AND state IN (%s)%s`, set, strings.Join(from, ", "), where), args...)
	return n == 1, err
}

// handOver notes an attempt, if nobody else has begun one since c was read.
func handOver(tx *store.Tx, c Command, now time.Time) (bool, error) {
	n, err := tx.Exec(`UPDATE command SET state = 'sent', sent = $4, due = $5, reason = '', attempts = attempts + 1
		WHERE tenant = $1 AND id = $2 AND attempts = $3 AND state IN ('queued', 'sent')`,
		c.Tenant, c.ID, c.Attempts, store.Millis(now), store.Millis(c.deadline(Sent, now)))
	return n == 1, err
}
