// SPDX-License-Identifier: AGPL-3.0-only

package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/bits"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/openthings-platform/openthings/clock"
)

// ErrNoRows is what QueryRow(…).Scan returns when nothing matches.
var ErrNoRows = sql.ErrNoRows

// ErrClosed is returned by writes after Close.
var ErrClosed = errors.New("store: closed")

// Engine names what keeps the rows.
type Engine string

// The engines.
const (
	SQLite   Engine = "sqlite"
	Postgres Engine = "postgres"
)

// Migrations are the numbered SQL files (migrations/NNNN_name.sql) of one stage.
type Migrations struct {
	Stage string
	FS    fs.FS
}

// Config says what to open.
type Config struct {
	// URL is sqlite:///absolute/path.db or postgres://…; a PostgreSQL server beyond loopback must be reached with
	// sslmode=verify-full. With several hosts (postgres://user@a:5432,b:5432/db) the one that takes writes is used, and
	// the next one after a failover.
	URL string
	// Schema is applied at Open, stage by stage in this order.
	Schema []Migrations
	Clock  clock.Clock  // default clock.System
	Log    *slog.Logger // default discards
	// MaxBatch is how many callers share one commit at most. The default is 256; above it a revocation waits too long.
	MaxBatch int
	// Watch is told every statement before it is sent; storetest.Plans looks at how the engine goes about them.
	Watch func(query string, args []any)
}

// DB is one handle: one SQLite file or one PostgreSQL database, with its own writer.
type DB struct {
	engine Engine
	path   string // of the SQLite file
	read   *sql.DB
	write  *sql.DB
	clock  clock.Clock
	log    *slog.Logger
	watch  func(query string, args []any)

	first, normal, bulk chan *call
	maxBatch            int
	closing             chan struct{}
	closed              chan struct{} // closed when the writer has ended
	closeOnce           sync.Once

	reads reads
	jobs  jobs

	warned     atomic.Pointer[string] // the last warning of PostgreSQL on the writing connection
	generation atomic.Uint64
}

// Open opens the database at cfg.URL, applies missing migrations and starts the writer.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxBatch <= 0 {
		cfg.MaxBatch = 256
	}
	db := &DB{
		clock: cfg.Clock, log: cfg.Log, watch: cfg.Watch, maxBatch: cfg.MaxBatch,
		first: make(chan *call, 64), normal: make(chan *call, 1024), bulk: make(chan *call, 16),
		closing: make(chan struct{}), closed: make(chan struct{}),
	}
	db.jobs.init()
	var err error
	switch {
	case strings.HasPrefix(cfg.URL, "sqlite://"):
		err = db.openSQLite(strings.TrimPrefix(cfg.URL, "sqlite://"))
	case strings.HasPrefix(cfg.URL, "postgres://"), strings.HasPrefix(cfg.URL, "postgresql://"):
		err = db.openPostgres(ctx, cfg.URL)
	default:
		err = errors.New("store: the database URL begins with neither sqlite:// nor postgres://") // it may hold a password
	}
	if err != nil {
		return nil, err
	}
	if err := db.migrate(ctx, append([]Migrations{Schema}, cfg.Schema...)); err != nil {
		return nil, errors.Join(err, db.read.Close(), db.write.Close())
	}
	w := &batchWriter{db: db}
	if err := w.connect(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("store: %w", err), db.read.Close(), db.write.Close())
	}
	go db.writer(w)
	return db, nil
}

func (db *DB) openSQLite(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("store: the SQLite path %q is not absolute", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	// The file is made here so that it is never readable by others, not even for a moment.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	db.engine, db.path = SQLite, path
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)"
	if db.write, err = sql.Open("sqlite", dsn); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	db.write.SetMaxOpenConns(1)
	if db.read, err = sql.Open("sqlite", dsn+"&_pragma=query_only(1)"); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	db.read.SetMaxOpenConns(8)
	db.read.SetMaxIdleConns(8)
	return nil
}

// Engine says which engine keeps the rows.
func (db *DB) Engine() Engine { return db.engine }

// Clock is the clock the handle was opened with.
func (db *DB) Clock() clock.Clock { return db.clock }

// Close ends the writer after the writes already accepted and closes the connections.
func (db *DB) Close() error {
	db.closeOnce.Do(func() { close(db.closing) })
	<-db.closed
	return errors.Join(db.read.Close(), db.write.Close())
}

// Generation is a number that grows when the writing connection is made anew. While it stays, what was read before a
// write is there when the write commits; after it has grown, the database may be a standby that took over and never heard
// of rows that were read. Who keeps something at hand that later writes depend on compares it in Write (Tx.Generation).
func (db *DB) Generation() uint64 { return db.generation.Load() }

// Ping checks that both reading and writing work.
func (db *DB) Ping(ctx context.Context) error {
	if err := db.read.PingContext(ctx); err != nil {
		return err
	}
	return db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`UPDATE lease SET until = until WHERE name = 'ping'`)
		return err
	})
}

// Query reads outside any transaction. Close the rows, or use Collect.
func (db *DB) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	args = db.sending(query, args)
	if s := db.prepared(ctx, query); s != nil {
		return s.QueryContext(ctx, args...)
	}
	return db.read.QueryContext(ctx, query, args...)
}

// QueryRow reads at most one row outside any transaction.
func (db *DB) QueryRow(ctx context.Context, query string, args ...any) *sql.Row {
	args = db.sending(query, args)
	if s := db.prepared(ctx, query); s != nil {
		return s.QueryRowContext(ctx, args...)
	}
	return db.read.QueryRowContext(ctx, query, args...)
}

// sending tells of a statement that is about to be sent, and returns its arguments as they are sent.
func (db *DB) sending(query string, args []any) []any {
	if db.watch != nil {
		db.watch(query, args)
	}
	return checked(args)
}

// View runs fn on one snapshot. Writing through its Tx fails.
func (db *DB) View(ctx context.Context, fn func(tx *Tx) error) error {
	opts := &sql.TxOptions{ReadOnly: true}
	if db.engine == Postgres {
		opts.Isolation = sql.LevelRepeatableRead
	}
	t, err := db.read.BeginTx(ctx, opts)
	if err != nil {
		return fmt.Errorf("store: view: %w", err)
	}
	defer t.Rollback() //nolint:errcheck // nothing was written
	return fn(&Tx{db: db, ctx: ctx, run: t, stmts: map[string]*sql.Stmt{}, view: true})
}

// Collect drains rows through scan and closes them; it takes the results of Query directly.
func Collect[T any](rows *sql.Rows, err error, scan func(*sql.Rows) (T, error)) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// IsUnique reports whether err is the violation of a unique index or primary key.
func IsUnique(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code == "23505"
	}
	var lite *sqlite.Error
	if errors.As(err, &lite) {
		return lite.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || lite.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
	}
	return false
}

// Millis is how a time is stored: milliseconds since 1970 UTC; the zero time is 0.
func Millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// Time reads Millis back, in UTC; 0 is the zero time.
func Time(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

const idAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"

// lastID makes the ids of one process sort in the order in which they were made, also within a millisecond and when
// the machine's clock is put back.
var lastID struct {
	sync.Mutex
	hi, lo uint64
}

// NewID makes an id such as dev_01k…: 48 bits of time in milliseconds, then 80 random ones; within one process a later
// id is always the greater one.
func NewID(prefix string) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(time.Now().UnixMilli())<<16)
	rand.Read(b[6:])
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	lastID.Lock()
	if hi < lastID.hi || hi == lastID.hi && lo <= lastID.lo {
		var carry uint64
		lo, carry = bits.Add64(lastID.lo, 1+lo>>32, 0) // a random step, so that ids do not count anything
		hi = lastID.hi + carry
	}
	lastID.hi, lastID.lo = hi, lo
	lastID.Unlock()
	var s [26]byte
	for i := 25; i >= 0; i-- {
		s[i] = idAlphabet[lo&31]
		lo = lo>>5 | hi<<59
		hi >>= 5
	}
	return prefix + "_" + string(s[:])
}
