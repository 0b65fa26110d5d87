// SPDX-License-Identifier: AGPL-3.0-only

package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// Job is one piece of work that survives restarts.
type Job struct {
	ID, Kind, Key string
	Attempts      int64 // 1 at the first run
	data          string
}

// Decode reads what was enqueued with the job.
func (j Job) Decode(v any) error { return json.Unmarshal([]byte(j.data), v) }

// Event is something that a stage announced.
type Event struct {
	ID, Topic, Tenant, Subject string
	At                         int64 // ms since 1970 UTC
	Data                       json.RawMessage
}

// Decode reads the event's data.
func (e Event) Decode(v any) error { return json.Unmarshal(e.Data, v) }

const (
	jobLease   = time.Minute      // a job whose runner died is taken again after this
	jobRetry   = time.Second      // doubles with each attempt
	jobRetryAt = 10 * time.Minute // at most
	jobPoll    = time.Second      // how often another process's jobs are looked for
	jobWorkers = 4
)

type jobs struct {
	mu        sync.Mutex // guards the fields below
	handlers  map[string]func(context.Context, Job) error
	listeners map[string][]string // topic -> job kinds
	wake      chan struct{}       // capacity 1: something is due
}

func (j *jobs) init() {
	j.handlers = map[string]func(context.Context, Job) error{}
	j.listeners = map[string][]string{}
	j.wake = make(chan struct{}, 1)
}

// Handle says who runs jobs of a kind. Call it before RunJobs. Running the same job twice must be harmless.
func (db *DB) Handle(kind string, fn func(context.Context, Job) error) {
	db.jobs.mu.Lock()
	defer db.jobs.mu.Unlock()
	if db.jobs.handlers[kind] != nil {
		panic("store: two handlers for jobs of kind " + kind)
	}
	db.jobs.handlers[kind] = fn
}

// Enqueue adds a job in the caller's transaction. There is at most one open job per kind and key: enqueuing it again
// moves it forward if that is earlier; if it is running it runs once more afterwards, not before runAt. So a job may
// enqueue itself for later. An empty key makes it a job of its own.
func (db *DB) Enqueue(tx *Tx, kind, key string, runAt time.Time, data any) error {
	b, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("store: job %s: %w", kind, err)
	}
	id := NewID("job")
	if key == "" {
		key = id
	}
	_, err = tx.Exec(`INSERT INTO job(id, kind, key, run_at, attempts, lease_until, again, data, error) VALUES ($1, $2, $3, $4, 0, 0, 0, $5, '')
		ON CONFLICT (kind, key) DO UPDATE SET data = excluded.data,
			again = CASE WHEN job.lease_until = 0 OR job.again > 0 AND job.again < excluded.run_at THEN job.again ELSE excluded.run_at END,
			run_at = CASE WHEN job.lease_until = 0 AND excluded.run_at < job.run_at THEN excluded.run_at ELSE job.run_at END`,
		id, kind, key, max(1, Millis(runAt)), string(b)) // in the column again, 0 is nothing, else the time of the next run
	if err != nil {
		return fmt.Errorf("store: job %s: %w", kind, err)
	}
	tx.After(db.wakeJobs)
	return nil
}

// Cancel removes a job that has not run, if there is one.
func (db *DB) Cancel(tx *Tx, kind, key string) error {
	_, err := tx.Exec(`DELETE FROM job WHERE kind = $1 AND key = $2`, kind, key)
	return err
}

func (db *DB) wakeJobs() {
	select {
	case db.jobs.wake <- struct{}{}:
	default:
	}
}

// On delivers events of a topic to a listener, at least once and in no promised order. Call it before RunJobs.
func (db *DB) On(topic, listener string, fn func(context.Context, Event) error) {
	kind := "event:" + topic + ":" + listener
	db.Handle(kind, func(ctx context.Context, j Job) error {
		var e Event
		if err := j.Decode(&e); err != nil {
			return err
		}
		return fn(ctx, e)
	})
	db.jobs.mu.Lock()
	defer db.jobs.mu.Unlock()
	db.jobs.listeners[topic] = append(db.jobs.listeners[topic], kind)
}

// Emit announces that something happened, in the transaction in which it happens. Topics are noun.verb.
func (db *DB) Emit(tx *Tx, topic, tenant, subject string, data any) error {
	db.jobs.mu.Lock()
	kinds := db.jobs.listeners[topic]
	db.jobs.mu.Unlock()
	if len(kinds) == 0 {
		return nil
	}
	b, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("store: event %s: %w", topic, err)
	}
	now := db.clock.Now()
	e := Event{ID: NewID("evt"), Topic: topic, Tenant: tenant, Subject: subject, At: Millis(now), Data: b}
	for _, kind := range kinds {
		if err := db.Enqueue(tx, kind, e.ID, now, e); err != nil {
			return err
		}
	}
	return nil
}

// RunJobs runs due jobs until ctx ends: woken by Enqueue, and by the clock for those of other processes.
func (db *DB) RunJobs(ctx context.Context) error {
	for {
		t := db.clock.NewTimer(jobPoll) // before looking: what becomes due meanwhile is looked for again
		n, err := db.RunDue(ctx)
		if err != nil && ctx.Err() == nil {
			db.log.ErrorContext(ctx, "jobs cannot be read", slog.Any("error", err))
		}
		if n == 0 {
			select {
			case <-ctx.Done():
			case <-db.jobs.wake:
			case <-t.C:
			}
		}
		t.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// RunDue runs the jobs that are due now, and what they enqueue for now, and returns how many ran. Tests call it in
// place of RunJobs.
func (db *DB) RunDue(ctx context.Context) (int, error) {
	total := 0
	for ctx.Err() == nil {
		batch, err := db.claim(ctx)
		if err != nil || len(batch) == 0 {
			return total, err
		}
		total += len(batch)
		var wg sync.WaitGroup
		for _, j := range batch {
			wg.Go(func() { db.runJob(ctx, j) })
		}
		wg.Wait()
	}
	return total, ctx.Err()
}

// claim takes due jobs of the kinds handled here and leases them.
func (db *DB) claim(ctx context.Context) ([]Job, error) {
	db.jobs.mu.Lock()
	args := []any{Millis(db.clock.Now()), Millis(db.clock.Now().Add(jobLease)), jobWorkers}
	var in []string
	for kind := range db.jobs.handlers {
		args = append(args, kind)
		in = append(in, fmt.Sprintf("$%d", len(args)))
	}
	db.jobs.mu.Unlock()
	if len(in) == 0 {
		return nil, nil
	}
	skip := ""
	if db.engine == Postgres {
		skip = " FOR UPDATE SKIP LOCKED"
	}
	// Reading first keeps an idle platform from writing once a second.
	var due int64
	if err := db.QueryRow(ctx, `SELECT count(*) FROM (SELECT 1 FROM job WHERE run_at <= $1 AND lease_until < $1 LIMIT 1) q`, args[0]).Scan(&due); err != nil || due == 0 {
		return nil, err
	}
	var out []Job
	err := db.Write(ctx, func(tx *Tx) error {
		var err error
		rows, err := tx.Query(`UPDATE job SET lease_until = $2, attempts = attempts + 1, again = CASE WHEN again > $1 THEN again ELSE 0 END WHERE id IN (
			SELECT id FROM job WHERE run_at <= $1 AND lease_until < $1 AND kind IN (`+strings.Join(in, ", ")+`) ORDER BY run_at LIMIT $3`+skip+`)
			RETURNING id, kind, key, attempts, data`, args...)
		out, err = Collect(rows, err, func(r *sql.Rows) (j Job, err error) {
			return j, r.Scan(&j.ID, &j.Kind, &j.Key, &j.Attempts, &j.data)
		})
		return err
	})
	return out, err
}

func (db *DB) runJob(ctx context.Context, j Job) {
	db.jobs.mu.Lock()
	fn := db.jobs.handlers[j.Kind]
	db.jobs.mu.Unlock()
	err := func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		return fn(ctx, j)
	}()
	if err != nil && ctx.Err() != nil {
		return // interrupted: the lease runs out and it is run again
	}
	now := db.clock.Now()
	end := func(tx *Tx) error {
		if err == nil {
			n, e := tx.Exec(`DELETE FROM job WHERE id = $1 AND again = 0`, j.ID)
			if e != nil || n == 1 {
				return e
			}
			_, e = tx.Exec(`UPDATE job SET lease_until = 0, attempts = 0, again = 0, run_at = again WHERE id = $1`, j.ID)
			tx.After(db.wakeJobs)
			return e
		}
		wait := min(jobRetry<<min(j.Attempts-1, 20), jobRetryAt)
		_, e := tx.Exec(`UPDATE job SET lease_until = 0, run_at = $2, error = $3 WHERE id = $1`, j.ID, Millis(now.Add(wait)), err.Error())
		return e
	}
	if err != nil {
		db.log.WarnContext(ctx, "job failed and will be tried again", slog.String("kind", j.Kind), slog.String("key", j.Key), slog.Int64("attempt", j.Attempts), slog.Any("error", err))
	}
	if werr := db.Write(context.WithoutCancel(ctx), end); werr != nil && !errors.Is(werr, ErrClosed) {
		db.log.ErrorContext(ctx, "job cannot be closed", slog.String("kind", j.Kind), slog.Any("error", werr))
	}
}
