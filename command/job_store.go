// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

const jobColumns = `id, tenant, kind, title, filter, product, solution, follows, name, args, rate, parallel, abort_count, abort_percent, abort_after, timeout, retries,
	not_before, not_after, state, reason, actor, created, started, ended, place, selected, credit, credited`

func scanJob(scan func(...any) error) (j Job, err error) {
	var args string
	var follow, timeout, notBefore, notAfter, created, started, ended, selected, credited int64
	err = scan(&j.ID, &j.Tenant, &j.Kind, &j.Title, &j.Filter, &j.Product, &j.Solution, &follow, &j.Name, &args, &j.Rate, &j.Parallel, &j.AbortCount, &j.AbortPercent, &j.AbortAfter, &timeout, &j.Retries,
		&notBefore, &notAfter, &j.State, &j.Reason, &j.Actor, &created, &started, &ended, &j.place, &selected, &j.credit, &credited)
	j.Args, j.Follow, j.Timeout = json.RawMessage(args), follow == 1, timeout/1000
	j.NotBefore, j.NotAfter, j.Created = store.Time(notBefore), store.Time(notAfter), store.Time(created)
	j.Started, j.Ended, j.selected, j.credited = timeOf(started), timeOf(ended), timeOf(selected), timeOf(credited)
	return j, err
}

func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return store.Time(ms)
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return store.Millis(t)
}

func insertJob(tx *store.Tx, j Job) error {
	_, err := tx.Exec(`INSERT INTO command_job(`+jobColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, '', $21, $22, 0, 0, '', 0, 0, 0)`,
		j.ID, j.Tenant, j.Kind, j.Title, j.Filter, j.Product, j.Solution, flag(j.Follow), j.Name, string(j.Args), j.Rate, j.Parallel, j.AbortCount, j.AbortPercent, j.AbortAfter,
		j.Timeout*1000, j.Retries, millis(j.NotBefore), millis(j.NotAfter), j.State, j.Actor, millis(j.Created))
	return err
}

func jobByID(q queryRow, tenant, id string) (Job, error) {
	j, err := scanJob(q(`SELECT `+jobColumns+` FROM command_job WHERE tenant = $1 AND id = $2`, tenant, id).Scan)
	if errors.Is(err, store.ErrNoRows) {
		return j, problem.NotFound("There is no such job.")
	}
	return j, err
}

// jobsOf returns a page of the tenant's jobs, the newest first.
func jobsOf(ctx context.Context, db *store.DB, tenant, before string, limit int) ([]Job, error) {
	rows, err := db.Query(ctx, `SELECT `+jobColumns+` FROM command_job WHERE tenant = $1 AND ($2 = '' OR id < $2) ORDER BY id DESC LIMIT $3`, tenant, before, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (Job, error) { return scanJob(r.Scan) })
}

// openFilters returns the jobs of the tenant that have yet to look whom their filter selects.
func openFilters(ctx context.Context, db *store.DB, tenant string) ([]Job, error) {
	rows, err := db.Query(ctx, `SELECT `+jobColumns+` FROM command_job WHERE tenant = $1 AND filter <> '' AND state IN ('scheduled', 'running', 'paused') AND (follows = 1 OR selected = 0) ORDER BY id`, tenant)
	return store.Collect(rows, err, func(r *sql.Rows) (Job, error) { return scanJob(r.Scan) })
}

// moveJob changes the state if it is still the one that was read.
func moveJob(tx *store.Tx, j Job, to, reason string, started, ended time.Time) (bool, error) {
	n, err := tx.Exec(`UPDATE command_job SET state = $4, reason = $5, started = $6, ended = $7 WHERE tenant = $1 AND id = $2 AND state = $3 AND ended = 0`,
		j.Tenant, j.ID, j.State, to, reason, millis(started), millis(ended))
	return n == 1, err
}

// keepJob writes how far a running job has come.
func keepJob(tx *store.Tx, j Job) error {
	_, err := tx.Exec(`UPDATE command_job SET place = $3, selected = $4, credit = $5, credited = $6 WHERE tenant = $1 AND id = $2`,
		j.Tenant, j.ID, j.place, millis(j.selected), j.credit, millis(j.credited))
	return err
}

func countJob(q func(string, ...any) (*sql.Rows, error), id string) (c Counts, err error) {
	rows, err := q(`SELECT state, count(*) FROM command_job_device WHERE job = $1 GROUP BY state`, id)
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var state string
		var n int64
		err := r.Scan(&state, &n)
		*c.at(state) += n
		c.Devices += n
		return struct{}{}, err
	})
	return c, err
}

// atWork counts the devices that a job keeps busy: what waits for a device that went away meanwhile does not.
func atWork(ctx context.Context, db *store.DB, j Job, since int64) (n int64, err error) {
	if j.Kind == KindTwin {
		err = db.QueryRow(ctx, `SELECT count(*) FROM command_job_device WHERE job = $1 AND state = 'started'`, j.ID).Scan(&n)
		return n, err
	}
	err = db.QueryRow(ctx, `SELECT count(*) FROM command WHERE job = $1 AND job <> '' AND (state IN ('sent', 'received', 'accepted') OR state = 'queued' AND next > $2)`, j.ID, since).Scan(&n)
	return n, err
}

// join gives a device its part, once.
func join(tx *store.Tx, j Job, device string, at int64) error {
	_, err := tx.Exec(`INSERT INTO command_job_device(job, device, tenant, state, command, version, at, reason) VALUES ($1, $2, $3, 'waiting', '', 0, $4, '') ON CONFLICT (job, device) DO NOTHING`,
		j.ID, device, j.Tenant, at)
	return err
}

const partColumns = `job, device, state, command, version, at, reason`

func scanPart(r *sql.Rows) (p Part, err error) {
	var at int64
	err = r.Scan(&p.Job, &p.Device, &p.State, &p.Command, &p.Version, &at, &p.Reason)
	p.At = store.Time(at)
	return p, err
}

// parts returns a page of a job's devices in the order of their ids; state "" is all of them.
func parts(ctx context.Context, db *store.DB, tenant, job, state, after string, limit int) ([]Part, error) {
	rows, err := db.Query(ctx, `SELECT `+partColumns+` FROM command_job_device WHERE tenant = $1 AND job = $2 AND ($3 = '' OR state = $3) AND device > $4 ORDER BY device LIMIT $5`, tenant, job, state, after, limit)
	return store.Collect(rows, err, scanPart)
}

// setPart moves a device's part from one state to another, and says whether it did.
func setPart(tx *store.Tx, job, device, from, to string, at time.Time, command string, version int64, reason string) (bool, error) {
	n, err := tx.Exec(`UPDATE command_job_device SET state = $4, at = $5, command = CASE WHEN $6 = '' THEN command ELSE $6 END, version = CASE WHEN $7 = 0 THEN version ELSE $7 END, reason = $8
		WHERE job = $1 AND device = $2 AND state = $3`, job, device, from, to, store.Millis(at), command, version, reason)
	return n == 1, err
}

// endPart notes how a device's part ended. A late result overtakes an expiry, as it does for the command.
func endPart(tx *store.Tx, job, device, to string, at time.Time, reason string) error {
	_, err := tx.Exec(`UPDATE command_job_device SET state = $3, at = $4, reason = $5 WHERE job = $1 AND device = $2 AND state NOT IN ('done', 'failed')`, job, device, to, store.Millis(at), reason)
	return err
}

// moveParts moves at most limit devices of a job from one of the states to another and says how many there were.
func moveParts(tx *store.Tx, job string, from []string, to, reason string, at time.Time, before int64, limit int) (int64, error) {
	return tx.Exec(fmt.Sprintf(`UPDATE command_job_device SET state = $2, reason = $3, at = $4 WHERE job = $1 AND device IN (
		SELECT device FROM command_job_device WHERE job = $1 AND state IN ('%s') AND at <= $5 ORDER BY device LIMIT %d)`, strings.Join(from, "', '"), limit),
		job, to, reason, store.Millis(at), before)
}

// queuedOf returns commands of a job that no device has yet.
func queuedOf(ctx context.Context, db *store.DB, job string, limit int) ([]Command, error) {
	rows, err := db.Query(ctx, `SELECT `+columns+` FROM command WHERE job = $1 AND job <> '' AND state = 'queued' LIMIT $2`, job, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (Command, error) { return scan(r.Scan) })
}

// away returns which of the devices, at least one, have a part in a job that waits for their return.
func away(ctx context.Context, db *store.DB, devices []string) ([]awayPart, error) {
	list, args := store.In(nil, devices)
	rows, err := db.Query(ctx, `SELECT job, device, tenant FROM command_job_device WHERE state = 'away' AND device IN `+list, args...)
	return store.Collect(rows, err, func(r *sql.Rows) (p awayPart, err error) { return p, r.Scan(&p.job, &p.device, &p.tenant) })
}

type awayPart struct{ job, device, tenant string }

// ends counts how devices of a job ended, by steps of ms.
func ends(ctx context.Context, db *store.DB, job string, step int64) (map[int64]Counts, error) {
	rows, err := db.Query(ctx, `SELECT at / $2, state, count(*) FROM command_job_device WHERE job = $1 AND state IN ('done', 'failed', 'expired') GROUP BY at / $2, state`, job, step)
	out := map[int64]Counts{}
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var at, n int64
		var state string
		err := r.Scan(&at, &state, &n)
		c := out[at]
		*c.at(state) += n
		out[at] = c
		return struct{}{}, err
	})
	return out, err
}
