// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/store"
)

//go:embed migrations/*.sql
var migrationsFS embed.FS

// Schema belongs to the telemetry handle.
var Schema = store.Migrations{Stage: "telemetry", FS: migrationsFS}

// errMoved says that another process has compacted the same rows meanwhile, or that the database may be another one.
var errMoved = errors.New("telemetry: the rows were compacted by another process, or the database was connected anew")

// streamKey is what chunks and latest rows are about.
type streamKey struct{ tenant, device, stream string }

// grouped calls fn with all rows in groups of few sizes: a statement writes many rows in one round trip, and there are
// few texts to prepare.
func grouped[T any](rows []T, fn func([]T) error) error {
	for _, size := range []int{32, 8, 1} {
		for len(rows) >= size {
			if err := fn(rows[:size]); err != nil {
				return err
			}
			rows = rows[size:]
		}
	}
	return nil
}

// lists holds what values wrote: the sizes of grouped times few numbers of columns.
var lists sync.Map

// values writes "($1, $2), ($3, $4)".
func values(rows, columns int) string {
	size := [2]int{rows, columns}
	if text, ok := lists.Load(size); ok {
		return text.(string)
	}
	var b strings.Builder
	for i := range rows * columns {
		switch {
		case i == 0:
			b.WriteByte('(')
		case i%columns == 0:
			b.WriteString("), (")
		default:
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "$%d", i+1)
	}
	b.WriteByte(')')
	lists.Store(size, b.String())
	return b.String()
}

// all fails with errMoved unless a statement affected n rows.
func all(n int) func(affected int64, err error) error {
	return func(affected int64, err error) error {
		if err == nil && affected != int64(n) {
			return errMoved
		}
		return err
	}
}

type inboxRow struct {
	id    string
	n     int64
	keyID string
	body  []byte
}

func insertInbox(tx *store.Tx, r inboxRow, at time.Time) error {
	_, err := tx.Exec(`INSERT INTO telemetry_inbox(id, at, n, key_id, body, error) VALUES ($1, $2, $3, $4, $5, '')`,
		r.id, store.Millis(at), r.n, r.keyID, r.body)
	return err
}

// readInbox returns the oldest readable rows with at most as many records as given, or one row; left says that there are more.
func readInbox(ctx context.Context, db *store.DB, records int64) (out []inboxRow, left bool, err error) {
	const most = 1024 // rows; PostgreSQL sends what a query finds, whether it is read or not
	rows, err := db.Query(ctx, `SELECT id, n, key_id, body FROM telemetry_inbox WHERE error = '' ORDER BY id LIMIT $1`, most)
	if err != nil {
		return nil, false, err
	}
	defer rows.Close()
	for rows.Next() {
		row, err := scanInbox(rows)
		if err != nil {
			return nil, false, err
		}
		if records -= row.n; records < 0 && len(out) > 0 {
			return out, true, nil
		}
		out = append(out, row)
	}
	return out, len(out) == most, rows.Err()
}

func scanInbox(r *sql.Rows) (row inboxRow, err error) {
	return row, r.Scan(&row.id, &row.n, &row.keyID, &row.body)
}

// viewInbox returns every readable row.
func viewInbox(tx *store.Tx) ([]inboxRow, error) {
	rows, err := tx.Query(`SELECT id, n, key_id, body FROM telemetry_inbox WHERE error = '' ORDER BY id`)
	return store.Collect(rows, err, scanInbox)
}

// hasInbox says whether any readable row up to and including the id remains; "" asks for any at all.
func hasInbox(ctx context.Context, db *store.DB, upTo string) (bool, error) {
	var n int64
	err := db.QueryRow(ctx, `SELECT count(*) FROM (SELECT 1 FROM telemetry_inbox WHERE error = '' AND ($1 = '' OR id <= $1) LIMIT 1) q`, upTo).Scan(&n)
	return n > 0, err
}

func newestInbox(ctx context.Context, db *store.DB) (id string, err error) {
	err = db.QueryRow(ctx, `SELECT coalesce(max(id), '') FROM telemetry_inbox WHERE error = ''`).Scan(&id)
	return id, err
}

// deleteInbox fails with errMoved unless the rows are still there.
func deleteInbox(tx *store.Tx, rows []inboxRow) error {
	return grouped(rows, func(rows []inboxRow) error {
		args := make([]any, len(rows))
		for i, r := range rows {
			args[i] = r.id
		}
		return all(len(rows))(tx.Exec(`DELETE FROM telemetry_inbox WHERE id IN `+values(1, len(rows)), args...))
	})
}

func setAside(ctx context.Context, db *store.DB, id string, why error) error {
	return db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE telemetry_inbox SET error = $2 WHERE id = $1`, id, why.Error())
		return err
	})
}

// oldestSealed is the time of the oldest row that needs its hourly key; ok is false when there is none. A row that was
// set aside does not keep its key: it holds data of devices that may be erased meanwhile.
func oldestSealed(ctx context.Context, db *store.DB) (at time.Time, ok bool, err error) {
	var ms sql.NullInt64
	err = db.QueryRow(ctx, `SELECT min(at) FROM (SELECT min(at) AS at FROM telemetry_inbox WHERE error = '' UNION ALL SELECT min(at) AS at FROM telemetry_pending) q`).Scan(&ms)
	return store.Time(ms.Int64), ms.Valid, err
}

type chunkRow struct {
	streamKey
	id     string
	t0, t1 int64
	n      int64
	body   []byte
}

func insertChunks(tx *store.Tx, chunks []chunkRow) error {
	return grouped(chunks, func(chunks []chunkRow) error {
		var args []any
		for _, c := range chunks {
			args = append(args, c.tenant, c.device, c.stream, c.t0, c.t1, c.id, c.n, c.body)
		}
		_, err := tx.Exec(`INSERT INTO telemetry_chunk(tenant, device, stream, t0, t1, id, n, body) VALUES `+values(len(chunks), 8), args...)
		return err
	})
}

// deleteChunks fails with errMoved unless the chunks are still there.
func deleteChunks(tx *store.Tx, chunks []chunkRow) error {
	return grouped(chunks, func(chunks []chunkRow) error {
		var args []any
		for _, c := range chunks {
			args = append(args, c.device, c.id)
		}
		return all(len(chunks))(tx.Exec(`DELETE FROM telemetry_chunk WHERE (device, id) IN (VALUES `+values(len(chunks), 2)+`)`, args...))
	})
}

func scanChunk(r *sql.Rows) (c chunkRow, err error) {
	return c, r.Scan(&c.tenant, &c.device, &c.stream, &c.t0, &c.t1, &c.id, &c.n, &c.body)
}

// viewChunks returns the device's chunks that touch [from, to), of all streams or of the one given.
func viewChunks(tx *store.Tx, tenant, device, stream string, from, to int64) ([]chunkRow, error) {
	rows, err := tx.Query(`SELECT tenant, device, stream, t0, t1, id, n, body FROM telemetry_chunk
		WHERE tenant = $1 AND device = $2 AND t0 < $4 AND t1 >= $3 AND ($5 = '' OR stream = $5)`, tenant, device, from, to, stream)
	return store.Collect(rows, err, scanChunk)
}

// crowded returns streams with many small chunks.
func crowded(ctx context.Context, db *store.DB, least, limit int) ([]streamKey, error) {
	rows, err := db.Query(ctx, `SELECT tenant, device, stream FROM telemetry_chunk WHERE n < 256
		GROUP BY tenant, device, stream HAVING count(*) >= $1 LIMIT $2`, least, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (k streamKey, err error) {
		return k, r.Scan(&k.tenant, &k.device, &k.stream)
	})
}

// smallChunks returns the small chunks of a stream, the oldest first.
func smallChunks(ctx context.Context, db *store.DB, k streamKey) ([]chunkRow, error) {
	rows, err := db.Query(ctx, `SELECT tenant, device, stream, t0, t1, id, n, body FROM telemetry_chunk
		WHERE tenant = $1 AND device = $2 AND stream = $3 AND n < 256 ORDER BY t0, id LIMIT 256`, k.tenant, k.device, k.stream)
	return store.Collect(rows, err, scanChunk)
}

type latestRow struct {
	streamKey
	t         int64
	boot, seq uint64
	seen      []byte
	body      []byte // sealed
	rev       int64  // 0: not stored yet
}

const latestColumns = `tenant, device, stream, t, boot, seq, seen, body, rev`

func scanLatest(scan func(...any) error) (l latestRow, err error) {
	var boot, seq int64
	err = scan(&l.tenant, &l.device, &l.stream, &l.t, &boot, &seq, &l.seen, &l.body, &l.rev)
	l.boot, l.seq = uint64(boot), uint64(seq)
	return l, err
}

// readLatest returns the rows of streams; one that has none yet is absent.
func readLatest(ctx context.Context, db *store.DB, keys []streamKey) (map[streamKey]latestRow, error) {
	out := map[streamKey]latestRow{}
	err := grouped(keys, func(keys []streamKey) error {
		var args []any
		for _, k := range keys {
			args = append(args, k.tenant, k.device, k.stream)
		}
		rows, err := db.Query(ctx, `SELECT `+latestColumns+` FROM telemetry_latest WHERE (tenant, device, stream) IN (VALUES `+values(len(keys), 3)+`)`, args...)
		found, err := store.Collect(rows, err, func(r *sql.Rows) (latestRow, error) { return scanLatest(r.Scan) })
		for _, l := range found {
			out[l.streamKey] = l
		}
		return err
	})
	return out, err
}

func viewLatest(tx *store.Tx, tenant, device string) ([]latestRow, error) {
	rows, err := tx.Query(`SELECT `+latestColumns+` FROM telemetry_latest WHERE tenant = $1 AND device = $2 ORDER BY stream`, tenant, device)
	return store.Collect(rows, err, func(r *sql.Rows) (latestRow, error) { return scanLatest(r.Scan) })
}

// putLatest writes rows that nobody changed since they were read, or fails with errMoved.
func putLatest(tx *store.Tx, latest []latestRow) error {
	return grouped(latest, func(latest []latestRow) error {
		var args []any
		for _, l := range latest {
			args = append(args, l.tenant, l.device, l.stream, l.t, int64(l.boot), int64(l.seq), l.seen, l.body, l.rev+1)
		}
		return all(len(latest))(tx.Exec(`INSERT INTO telemetry_latest(`+latestColumns+`) VALUES `+values(len(latest), 9)+`
			ON CONFLICT (device, stream) DO UPDATE SET t = excluded.t, boot = excluded.boot, seq = excluded.seq, seen = excluded.seen,
				body = excluded.body, rev = excluded.rev WHERE telemetry_latest.rev = excluded.rev - 1 AND telemetry_latest.tenant = excluded.tenant`, args...))
	})
}

type refusal struct {
	n      int64
	at     int64
	reason string
}

func countRefused(tx *store.Tx, tenant, device string, r refusal) error {
	_, err := tx.Exec(`INSERT INTO telemetry_refused(tenant, device, n, at, reason) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (device) DO UPDATE SET n = telemetry_refused.n + excluded.n, at = excluded.at, reason = excluded.reason`,
		tenant, device, r.n, r.at, r.reason)
	return err
}

func viewRefused(tx *store.Tx, tenant, device string) (r refusal, err error) {
	err = tx.QueryRow(`SELECT n, at, reason FROM telemetry_refused WHERE tenant = $1 AND device = $2`, tenant, device).Scan(&r.n, &r.at, &r.reason)
	if errors.Is(err, store.ErrNoRows) {
		return refusal{}, nil
	}
	return r, err
}

type eventRow struct {
	tenant, device, id string
	at, received       int64
	kind               string
	body               []byte // sealed
}

// bind is what the body is bound to, besides its key.
func (e eventRow) bind() []byte { return streamKey{e.tenant, e.device, e.kind}.bind("event", e.id) }

const eventColumns = `tenant, device, id, at, received, type, body`

func scanEvent(r *sql.Rows) (e eventRow, err error) {
	return e, r.Scan(&e.tenant, &e.device, &e.id, &e.at, &e.received, &e.kind, &e.body)
}

func insertEvents(tx *store.Tx, events []eventRow) error {
	return grouped(events, func(events []eventRow) error {
		var args []any
		for _, e := range events {
			args = append(args, e.tenant, e.device, e.id, e.at, e.received, e.kind, e.body)
		}
		_, err := tx.Exec(`INSERT INTO telemetry_event(`+eventColumns+`) VALUES `+values(len(events), 7), args...)
		return err
	})
}

// readEventsAt returns the device's newest events of a time.
func readEventsAt(ctx context.Context, db *store.DB, tenant, device string, at int64) ([]eventRow, error) {
	rows, err := db.Query(ctx, `SELECT `+eventColumns+` FROM telemetry_event WHERE tenant = $1 AND device = $2 AND at = $3
		ORDER BY id DESC LIMIT $4`, tenant, device, at, maxSameMs)
	return store.Collect(rows, err, scanEvent)
}

// listEvents returns n of the device's events, the newest first, after the one given.
func listEvents(ctx context.Context, db *store.DB, tenant, device, after string, n int) ([]eventRow, error) {
	rows, err := db.Query(ctx, `SELECT `+eventColumns+` FROM telemetry_event WHERE tenant = $1 AND device = $2 AND ($3 = '' OR id < $3)
		ORDER BY id DESC LIMIT $4`, tenant, device, after, n)
	return store.Collect(rows, err, scanEvent)
}

// pendingRow is a record of another class on its way to its handler.
type pendingRow struct {
	id, device string
	at, runAt  int64
	attempts   int64
	keyID      string
	body       []byte
}

func insertPending(tx *store.Tx, pending []pendingRow) error {
	return grouped(pending, func(pending []pendingRow) error {
		var args []any
		for _, p := range pending {
			args = append(args, p.id, p.device, p.at, p.runAt, p.attempts, p.keyID, p.body, "")
		}
		_, err := tx.Exec(`INSERT INTO telemetry_pending(id, device, at, run_at, attempts, key_id, body, error) VALUES `+values(len(pending), 8), args...)
		return err
	})
}

// duePending returns rows to hand over now, in the order in which they were received.
func duePending(ctx context.Context, db *store.DB, now int64) ([]pendingRow, error) {
	rows, err := db.Query(ctx, `SELECT id, device, at, run_at, attempts, key_id, body FROM telemetry_pending WHERE run_at <= $1 ORDER BY id LIMIT 256`, now)
	return store.Collect(rows, err, func(r *sql.Rows) (p pendingRow, err error) {
		return p, r.Scan(&p.id, &p.device, &p.at, &p.runAt, &p.attempts, &p.keyID, &p.body)
	})
}

func deletePending(tx *store.Tx, id string) error {
	_, err := tx.Exec(`DELETE FROM telemetry_pending WHERE id = $1`, id)
	return err
}

func postponePending(tx *store.Tx, id string, attempts, runAt int64, why string) error {
	_, err := tx.Exec(`UPDATE telemetry_pending SET attempts = $2, run_at = $3, error = $4 WHERE id = $1`, id, attempts, runAt, why)
	return err
}

// deleteDevice removes at most 500 chunks or events of a device, and everything else of it once none is left; done says so.
func deleteDevice(tx *store.Tx, tenant, device string) (done bool, err error) {
	for _, q := range []string{
		`DELETE FROM telemetry_chunk WHERE tenant = $1 AND device = $2 AND id IN
			(SELECT id FROM telemetry_chunk WHERE tenant = $1 AND device = $2 LIMIT 500)`,
		`DELETE FROM telemetry_event WHERE tenant = $1 AND device = $2 AND id IN
			(SELECT id FROM telemetry_event WHERE tenant = $1 AND device = $2 LIMIT 500)`,
		`DELETE FROM telemetry_security WHERE tenant = $1 AND device = $2 AND id IN
			(SELECT id FROM telemetry_security WHERE tenant = $1 AND device = $2 LIMIT 500)`,
	} {
		if n, err := tx.Exec(q, tenant, device); err != nil || n > 0 {
			return false, err
		}
	}
	for _, q := range []string{
		`DELETE FROM telemetry_latest WHERE tenant = $1 AND device = $2`,
		`DELETE FROM telemetry_refused WHERE tenant = $1 AND device = $2`,
		`DELETE FROM telemetry_dropped WHERE tenant = $1 AND device = $2`,
		`DELETE FROM telemetry_gap WHERE tenant = $1 AND device = $2`,
		`DELETE FROM telemetry_chain WHERE tenant = $1 AND device = $2`,
		`DELETE FROM telemetry_chain_break WHERE tenant = $1 AND device = $2`,
		`DELETE FROM telemetry_retained WHERE tenant = $1 AND device = $2`,
	} {
		if _, err := tx.Exec(q, tenant, device); err != nil {
			return false, err
		}
	}
	_, err = tx.Exec(`DELETE FROM telemetry_pending WHERE device = $1`, device)
	return true, err
}
