// SPDX-License-Identifier: AGPL-3.0-only

package notify

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

//go:embed migrations/*.sql
var migrationsFS embed.FS

// Schema belongs to the platform handle.
var Schema = store.Migrations{Stage: "notify", FS: migrationsFS}

// query asks inside a transaction.
type query func(q string, args ...any) (*sql.Rows, error)

const endpointColumns = `id, tenant, name, kind, address, topics, secret, actor, created, off_reason, faults, fault, reached, header, credential, authority`

func scanEndpoint(r interface{ Scan(...any) error }) (e Endpoint, err error) {
	var topics string
	var created, reached int64
	err = r.Scan(&e.ID, &e.Tenant, &e.Name, &e.Kind, &e.Address, &topics, &e.secret, &e.Actor, &created, &e.Off, &e.Faults, &e.Fault, &reached, &e.Header, &e.credential, &e.Authority)
	e.Topics, e.Created, e.Reached = strings.Fields(topics), store.Time(created), store.Time(reached)
	return e, err
}

func listEndpoints(q query, tenant string) ([]Endpoint, error) {
	rows, err := q(`SELECT `+endpointColumns+` FROM notify_endpoint WHERE tenant = $1 ORDER BY id`, tenant)
	return store.Collect(rows, err, func(r *sql.Rows) (Endpoint, error) { return scanEndpoint(r) })
}

func getEndpoint(tx *store.Tx, tenant, id string) (Endpoint, error) {
	e, err := scanEndpoint(tx.QueryRow(`SELECT `+endpointColumns+` FROM notify_endpoint WHERE tenant = $1 AND id = $2`, tenant, id))
	if errors.Is(err, store.ErrNoRows) {
		return e, problem.NotFound("There is no endpoint %s.", plain(id, 64))
	}
	return e, err
}

func insertEndpoint(tx *store.Tx, e Endpoint) error {
	secret := e.secret
	if secret == nil {
		secret = []byte{}
	}
	_, err := tx.Exec(`INSERT INTO notify_endpoint(`+endpointColumns+`, busy_until) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, '', 0, '', 0, $10, $11, $12, 0)`,
		e.ID, e.Tenant, e.Name, string(e.Kind), e.Address, strings.Join(e.Topics, " "), secret, e.Actor, store.Millis(e.Created), e.Header, e.credential, e.Authority)
	return err
}

func insertNotice(tx *store.Tx, id string, n Notice, data string, at time.Time) (fresh bool, err error) {
	rows, err := tx.Exec(`INSERT INTO notify_notice(id, tenant, topic, subject, title, body, link, data, at, severity, thread, phase) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (id) DO NOTHING`,
		id, n.Tenant, n.Topic, n.Subject, n.Title, n.Text, n.Link, data, store.Millis(at), string(n.Severity), n.Thread, string(n.Phase))
	return rows == 1, err
}

func insertDelivery(tx *store.Tx, notice string, d Delivery) error {
	_, err := tx.Exec(`INSERT INTO notify_delivery(id, tenant, notice, endpoint, state, attempts, next, ended, answer) VALUES ($1, $2, $3, $4, $5, 0, $6, $7, $8)`,
		d.ID, d.Tenant, notice, d.Endpoint, string(d.State), store.Millis(d.Next), store.Millis(d.Ended), d.Answer)
	return err
}

// hasOpen says whether that many deliveries wait for the endpoint.
func hasOpen(tx *store.Tx, endpoint string, most int64) (bool, error) {
	var n int64
	err := tx.QueryRow(`SELECT count(*) FROM notify_delivery WHERE endpoint = $1 AND state = 'open'`, endpoint).Scan(&n)
	return n >= most, err
}

func failOpen(tx *store.Tx, endpoint, why string, at time.Time) error {
	_, err := tx.Exec(`UPDATE notify_delivery SET state = 'failed', ended = $2, answer = $3 WHERE endpoint = $1 AND state = 'open'`, endpoint, store.Millis(at), why)
	return err
}

// told are the endpoints that were told that a thread began, by id.
func told(tx *store.Tx, tenant, thread string) ([]string, error) {
	rows, err := tx.Query(`SELECT DISTINCT d.endpoint FROM notify_notice n JOIN notify_delivery d ON d.notice = n.id WHERE n.tenant = $1 AND n.thread = $2 AND n.phase = ''`, tenant, thread)
	return store.Collect(rows, err, func(r *sql.Rows) (id string, err error) { return id, r.Scan(&id) })
}

// moot ends what still waits to tell the endpoints of a thread.
func moot(tx *store.Tx, tenant, thread string, to []string, at time.Time) error {
	in, args := store.In([]any{tenant, thread, store.Millis(at)}, to)
	_, err := tx.Exec(`UPDATE notify_delivery SET state = 'moot', ended = $3, answer = 'it was over before it arrived'
		WHERE state = 'open' AND notice IN (SELECT id FROM notify_notice WHERE tenant = $1 AND thread = $2) AND endpoint IN `+in, args...)
	return err
}

const deliveryColumns = `d.id, d.tenant, d.endpoint, n.topic, n.subject, n.title, n.at, d.state, d.attempts, d.next, d.ended, d.answer, n.body, n.link, n.data, n.severity, n.thread, n.phase`

func scanDelivery(r *sql.Rows) (d Delivery, err error) {
	var at, next, ended int64
	err = r.Scan(&d.ID, &d.Tenant, &d.Endpoint, &d.Topic, &d.Subject, &d.Title, &at, &d.State, &d.Attempts, &next, &ended, &d.Answer, &d.notice.Text, &d.notice.Link, &d.data, &d.notice.Severity, &d.notice.Thread, &d.notice.Phase)
	d.At, d.Ended = store.Time(at), store.Time(ended)
	if d.State == Open {
		d.Next = store.Time(next)
	}
	return d, err
}

// listDeliveries is a page of the tenant's deliveries, the newest first; empty endpoint and state mean any.
func listDeliveries(ctx context.Context, db *store.DB, tenant, endpoint, state, before string, limit int) ([]Delivery, error) {
	rows, err := db.Query(ctx, `SELECT `+deliveryColumns+` FROM notify_delivery d JOIN notify_notice n ON n.id = d.notice
		WHERE d.tenant = $1 AND ($2 = '' OR d.endpoint = $2) AND ($3 = '' OR d.state = $3) AND ($4 = '' OR d.id < $4) ORDER BY d.id DESC LIMIT $5`, tenant, endpoint, state, before, limit)
	return store.Collect(rows, err, scanDelivery)
}

// claim takes one endpoint for which something is due, so that nobody else delivers to it until then.
func claim(tx *store.Tx, now, until time.Time) (Endpoint, error) {
	skip := ""
	if tx.Engine() == store.Postgres {
		skip = " FOR UPDATE SKIP LOCKED"
	}
	return scanEndpoint(tx.QueryRow(`UPDATE notify_endpoint SET busy_until = $2 WHERE id IN (
		SELECT e.id FROM notify_endpoint e WHERE e.off_reason = '' AND e.busy_until <= $1
			AND EXISTS (SELECT 1 FROM notify_delivery d WHERE d.endpoint = e.id AND d.state = 'open' AND d.next <= $1)
		ORDER BY e.busy_until LIMIT 1`+skip+`) RETURNING `+endpointColumns, store.Millis(now), store.Millis(until)))
}

// due is what waits for an endpoint now, the oldest first.
func due(ctx context.Context, db *store.DB, endpoint string, now time.Time, limit int) ([]Delivery, error) {
	rows, err := db.Query(ctx, `SELECT `+deliveryColumns+` FROM notify_delivery d JOIN notify_notice n ON n.id = d.notice
		WHERE d.endpoint = $1 AND d.state = 'open' AND d.next <= $2 ORDER BY d.id LIMIT $3`, endpoint, store.Millis(now), limit)
	return store.Collect(rows, err, scanDelivery)
}

// settle records an attempt.
func settle(tx *store.Tx, d Delivery) error {
	_, err := tx.Exec(`UPDATE notify_delivery SET state = $2, attempts = $3, next = $4, ended = $5, answer = $6 WHERE id = $1 AND state = 'open'`,
		d.ID, string(d.State), d.Attempts, store.Millis(d.Next), store.Millis(d.Ended), d.Answer)
	return err
}

// release gives an endpoint back and notes how it went.
func release(tx *store.Tx, e Endpoint, until time.Time) error {
	_, err := tx.Exec(`UPDATE notify_endpoint SET busy_until = $2, faults = $3, fault = $4, reached = $5, off_reason = $6 WHERE id = $1`,
		e.ID, store.Millis(until), e.Faults, e.Fault, store.Millis(e.Reached), e.Off)
	return err
}

// forget removes deliveries that ended before at and notices that nobody needs any more, at most that many of each.
func forget(tx *store.Tx, at time.Time, limit int) (int64, error) {
	n, err := tx.Exec(`DELETE FROM notify_delivery WHERE id IN (SELECT id FROM notify_delivery WHERE state <> 'open' AND ended < $1 ORDER BY id LIMIT $2)`, store.Millis(at), limit)
	if err != nil {
		return 0, err
	}
	_, err = tx.Exec(`DELETE FROM notify_notice WHERE id IN (SELECT id FROM notify_notice WHERE at < $1
		AND NOT EXISTS (SELECT 1 FROM notify_delivery d WHERE d.notice = notify_notice.id) ORDER BY at LIMIT $2)`, store.Millis(at), limit)
	return n, err
}
