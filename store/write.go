// SPDX-License-Identifier: AGPL-3.0-only

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Tx is one caller's part of a transaction. It must not outlive the function it was handed to.
// Close rows before the next statement (Collect does).
type Tx struct {
	db    *DB
	ctx   context.Context
	run   runner
	stmts map[string]*sql.Stmt // prepared ones: the writer's, or those of this View, where nil stands for asked once
	view  bool
	after []func()
}

type runner interface {
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// maxStmts bounds the prepared statements kept; the code base has a few hundred texts, lists of ids make more.
const maxStmts = 1000

// prepared returns the statement for query: on SQLite preparing each time doubles the cost of a write; pgx keeps its own
// cache. A View prepares what it asks for the second time.
func (tx *Tx) prepared(query string) *sql.Stmt {
	if tx.db.engine != SQLite {
		return nil
	}
	s, asked := tx.stmts[query]
	if s != nil {
		return s
	}
	if len(tx.stmts) >= maxStmts {
		return nil
	}
	if tx.view && !asked {
		tx.stmts[query] = nil
		return nil
	}
	s, err := tx.run.PrepareContext(tx.ctx, ordinal(query))
	if err != nil {
		return nil // the plain path reports it
	}
	tx.stmts[query] = s
	return s
}

// text is how the engine gets a query that is not prepared.
func (tx *Tx) text(query string) string {
	if tx.db.engine == SQLite {
		return ordinal(query)
	}
	return query
}

// Exec runs a statement and returns how many rows it affected.
func (tx *Tx) Exec(query string, args ...any) (int64, error) {
	args = tx.db.sending(query, args)
	var res sql.Result
	var err error
	if s := tx.prepared(query); s != nil {
		res, err = s.ExecContext(tx.ctx, args...)
	} else {
		res, err = tx.run.ExecContext(tx.ctx, tx.text(query), args...)
	}
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// Query reads inside the transaction, its own writes included.
func (tx *Tx) Query(query string, args ...any) (*sql.Rows, error) {
	args = tx.db.sending(query, args)
	if s := tx.prepared(query); s != nil {
		return s.QueryContext(tx.ctx, args...)
	}
	return tx.run.QueryContext(tx.ctx, tx.text(query), args...)
}

// QueryRow reads at most one row inside the transaction.
func (tx *Tx) QueryRow(query string, args ...any) *sql.Row {
	args = tx.db.sending(query, args)
	if s := tx.prepared(query); s != nil {
		return s.QueryRowContext(tx.ctx, args...)
	}
	return tx.run.QueryRowContext(tx.ctx, tx.text(query), args...)
}

// After runs f once the transaction is durable, before Write returns; not at all if it is rolled back.
func (tx *Tx) After(f func()) { tx.after = append(tx.after, f) }

// Engine says which engine runs the transaction.
func (tx *Tx) Engine() Engine { return tx.db.engine }

// Generation is that of the connection which the transaction runs on; see DB.Generation.
func (tx *Tx) Generation() uint64 { return tx.db.generation.Load() }

// DB is the handle the transaction belongs to.
func (tx *Tx) DB() *DB { return tx.db }

// A call is one Write waiting for, or taking part in, a group commit.
type call struct {
	ctx   context.Context // its caller's, looked at until fn starts
	fn    func(*Tx) error
	state atomic.Int32 // queued -> running, or queued -> abandoned, by its caller or for it
	err   error        // set before done is closed
	after []func()     // likewise
	done  chan struct{}
}

const (
	queued int32 = iota
	running
	abandoned
)

// Write runs fn in a transaction shared with other callers and returns once it is durable. fn's error rolls back fn's
// writes alone. ctx is looked at until fn starts, never after.
//
// fn may run several times, each time after everything of the run before was rolled back: when the shared transaction broke
// and its callers are found out one by one, and on PostgreSQL when another node was in the way (a deadlock, a serialization
// failure), maxRuns times at most. So fn has no effect but through tx: what it leaves in variables of its caller it sets anew
// in each run and never adds to, what must follow the commit it hands to tx.After, and only the run that is kept has its
// After called. It returns the error of a statement, wrapped with %w if at all: one that it swallows fails the write, and is
// not recognised. It does no slow work, since everybody waits for it, and never calls Write itself: there is one writer.
func (db *DB) Write(ctx context.Context, fn func(tx *Tx) error) error {
	return db.submit(ctx, db.normal, fn)
}

// WriteFirst is Write ahead of everything else that waits: revocations.
func (db *DB) WriteFirst(ctx context.Context, fn func(tx *Tx) error) error {
	return db.submit(ctx, db.first, fn)
}

// WriteBulk is Write behind everything else: imports, in steps of at most 1,000 rows.
func (db *DB) WriteBulk(ctx context.Context, fn func(tx *Tx) error) error {
	return db.submit(ctx, db.bulk, fn)
}

func (db *DB) submit(ctx context.Context, queue chan<- *call, fn func(*Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := &call{ctx: ctx, fn: fn, done: make(chan struct{})}
	select {
	case queue <- c:
	case <-ctx.Done():
		return ctx.Err()
	case <-db.closing:
		return ErrClosed
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if c.state.CompareAndSwap(queued, abandoned) {
			return ctx.Err()
		}
		<-c.done // it runs: its outcome is what counts
	case <-db.closed:
		select {
		case <-c.done:
		default:
			return ErrClosed
		}
	}
	for _, f := range c.after {
		f()
	}
	return c.err
}

// writer is the one goroutine that writes. A batch begins when the one before has ended, so latency is one commit at
// low load and throughput grows with load.
func (db *DB) writer(w *batchWriter) {
	defer close(db.closed)
	defer w.drop()
	for {
		batch, ok := db.gather()
		if !ok {
			return
		}
		w.commit(batch)
	}
}

// gather waits for a call and takes what else is there, in the order of service. Bulk joins only when alone, and one
// at a time.
func (db *DB) gather() ([]*call, bool) {
	var batch []*call
	take := func(c *call) {
		switch {
		case c.ctx.Err() != nil && c.state.CompareAndSwap(queued, abandoned): // its caller gave up, and has not woken yet
			c.err = c.ctx.Err()
			close(c.done)
		case c.state.CompareAndSwap(queued, running):
			batch = append(batch, c)
		}
	}
	for len(batch) == 0 {
		select { // first and normal are preferred to bulk
		case c := <-db.first:
			take(c)
			continue
		case c := <-db.normal:
			take(c)
			continue
		default:
		}
		select {
		case c := <-db.first:
			take(c)
		case c := <-db.normal:
			take(c)
		case c := <-db.bulk:
			take(c)
			if len(batch) > 0 {
				return batch, true
			}
		case <-db.closing:
			select {
			case c := <-db.first:
				take(c)
			case c := <-db.normal:
				take(c)
			case c := <-db.bulk:
				take(c)
			default:
				return nil, false
			}
		}
	}
	for len(batch) < db.maxBatch {
		select {
		case c := <-db.first:
			take(c)
			continue
		default:
		}
		select {
		case c := <-db.normal:
			take(c)
			continue
		default:
		}
		break
	}
	return batch, true
}

// subjournal keeps what a savepoint may have to undo in memory; SQLite's default is a file, with a system call for each
// page that a caller is the first to touch. It is at most the pages of one batch.
const subjournal = "PRAGMA temp_store = MEMORY"

// batchWriter holds the writing connection and its prepared statements; both are dropped on any doubt.
type batchWriter struct {
	db    *DB
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
}

func (w *batchWriter) drop() {
	if w.conn == nil {
		return
	}
	for _, s := range w.stmts {
		s.Close()
	}
	w.conn.Close()
	w.conn, w.stmts = nil, nil
}

// connect makes the writing connection if there is none.
func (w *batchWriter) connect(ctx context.Context) error {
	if w.conn != nil {
		return nil
	}
	conn, err := w.db.write.Conn(ctx)
	if err != nil {
		return err
	}
	if w.db.engine == SQLite {
		_, err = conn.ExecContext(ctx, subjournal)
	} else {
		err = checkSession(ctx, conn)
	}
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	w.conn, w.stmts = conn, map[string]*sql.Stmt{}
	w.db.generation.Add(1)
	return nil
}

// A call runs in a transaction of its own maxRuns times at most. Before each run after the first it waits for giveWay longer:
// the server ends one of a deadlock after deadlock_timeout (1 s) and wakes the other one, which must get the row before this
// one takes it again.
const (
	maxRuns = 5
	giveWay = 20 * time.Millisecond
)

// commit runs a batch and tells every caller how it ended.
func (w *batchWriter) commit(batch []*call) {
	if len(batch) == 1 {
		w.alone(batch[0])
		return
	}
	err := w.try(batch)
	var f *fatalError
	if errors.As(err, &f) && !f.unknown {
		// The shared transaction broke before COMMIT, so nothing of it exists. Find out who broke it: one by one.
		w.db.log.Warn("shared transaction broke, replaying its callers one by one", slog.Int("callers", len(batch)), slog.Any("error", err))
		for _, c := range batch {
			w.alone(c)
		}
		return
	}
	var again []*call
	for _, c := range batch {
		if err == nil && collided(c.err) {
			again = append(again, c) // rolled back to its savepoint; the others need not wait for it
			continue
		}
		c.settle(err)
	}
	for _, c := range again {
		w.yield(1, c.err)
		w.alone(c)
	}
}

// alone runs a call in a transaction of its own, again when another node was in its way: alone it holds its own locks only.
func (w *batchWriter) alone(c *call) {
	for n := 1; ; n++ {
		c.after = nil
		err := w.try([]*call{c})
		why := err
		if err == nil {
			why = c.err
		}
		if n == maxRuns || !collided(why) {
			c.settle(err)
			return
		}
		w.yield(n, why)
	}
}

// yield lets the other node go on, after so many runs that it was in the way of.
func (w *batchWriter) yield(runs int, why error) {
	w.db.log.Warn("another node was in the way of a write, which runs again", slog.Int("runs", runs), slog.Any("error", why))
	<-time.NewTimer(time.Duration(runs) * giveWay).C // the machine's time, as the server's is: nobody turns it
}

// collided says that the server rolled a transaction (or the caller's part of it) back for what another one did at the same
// time: it may succeed when it is run again.
func collided(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "40P01" || pg.Code == "40001") // deadlock_detected, serialization_failure
}

// settle tells the caller how it ended; err is that of the whole transaction.
func (c *call) settle(err error) {
	if err != nil {
		c.err, c.after = err, nil
	}
	close(c.done)
}

// fatalError ends a whole batch. unknown says that COMMIT was sent and its outcome is not known.
type fatalError struct {
	err     error
	unknown bool
}

func (f *fatalError) Error() string {
	if f.unknown {
		return "store: the outcome of the commit is unknown: " + f.err.Error()
	}
	return "store: " + f.err.Error()
}
func (f *fatalError) Unwrap() error { return f.err }

// try runs the batch in one transaction. A returned error concerns all; a caller's own error is in its call.
func (w *batchWriter) try(batch []*call) error {
	ctx := context.Background()
	fail := func(err error, unknown bool) error {
		w.drop()
		return &fatalError{err: err, unknown: unknown}
	}
	if err := w.connect(ctx); err != nil {
		return fail(err, false)
	}
	begin := "BEGIN IMMEDIATE"
	if w.db.engine == Postgres {
		begin = "BEGIN"
	}
	exec := func(q string) error {
		_, err := (&Tx{db: w.db, ctx: ctx, run: w.conn, stmts: w.stmts}).Exec(q)
		return err
	}
	if err := exec(begin); err != nil {
		return fail(err, false)
	}
	good := 0
	for _, c := range batch {
		if len(batch) > 1 {
			if err := exec("SAVEPOINT one"); err != nil {
				return fail(err, false)
			}
		}
		tx := &Tx{db: w.db, ctx: ctx, run: w.conn, stmts: w.stmts}
		c.err = protect(c.fn, tx)
		if len(batch) == 1 {
			if c.err != nil {
				if err := exec("ROLLBACK"); err != nil {
					w.drop()
				}
				return nil
			}
		} else {
			if c.err == nil {
				// On PostgreSQL a statement error that fn swallowed has poisoned the savepoint: RELEASE says so.
				if err := exec("RELEASE SAVEPOINT one"); err != nil {
					c.err = fmt.Errorf("store: a failed statement was ignored by its caller: %w", err)
				}
			}
			if c.err != nil {
				if err := exec("ROLLBACK TO SAVEPOINT one"); err != nil {
					return fail(err, false)
				}
				if err := exec("RELEASE SAVEPOINT one"); err != nil {
					return fail(err, false)
				}
				continue
			}
		}
		c.after = tx.after
		good++
	}
	if good == 0 {
		if err := exec("ROLLBACK"); err != nil {
			w.drop()
		}
		return nil
	}
	if err := w.finish(exec); err != nil {
		return fail(err, !collided(err)) // the server says itself that it rolled back
	}
	return nil
}

// finish commits. PostgreSQL answers COMMIT of a failed transaction with ROLLBACK and no error, hence the status check.
// It warns, and answers COMMIT, when somebody cancels the wait for a standby (pg_cancel_backend): then the rows are on one
// disk only, which is not what COMMIT promises.
func (w *batchWriter) finish(exec func(string) error) error {
	if w.db.engine == SQLite {
		return exec("COMMIT")
	}
	return w.conn.Raw(func(driverConn any) error {
		w.db.warned.Store(nil)
		tag, err := pgExec(driverConn, "COMMIT")
		if err == nil && tag != "COMMIT" {
			err = fmt.Errorf("the server answered COMMIT with %s: a failed statement was ignored", tag)
		}
		if warning := w.db.warned.Load(); err == nil && warning != nil {
			err = fmt.Errorf("the server warned at COMMIT: %s", *warning)
		}
		return err
	})
}

func protect(fn func(*Tx) error, tx *Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("store: panic in a write: %v\n%s", p, debug.Stack())
		}
	}()
	return fn(tx)
}
