// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"time"

	"github.com/openthings-platform/openthings/store"
)

//go:embed migrations/*.sql
var migrationsFS embed.FS

// Schema belongs to the telemetry handle.
var Schema = store.Migrations{Stage: "telemetry", FS: migrationsFS}

// errMoved says that another process has compacted the same rows meanwhile.
var errMoved = errors.New("telemetry: rows were compacted by another process")

// streamKey is what chunks and latest rows are about.
type streamKey struct{ tenant, device, stream string }

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

// readInbox returns whole rows, the oldest first, until they hold limit records; at least one if there is any.
func readInbox(ctx context.Context, db *store.DB, limit int64) ([]inboxRow, error) {
	rows, err := db.Query(ctx, `SELECT id, n, key_id, body FROM telemetry_inbox WHERE error = '' ORDER BY id LIMIT 256`)
	all, err := store.Collect(rows, err, scanInbox)
	for i, r := range all {
		if limit -= r.n; limit < 0 && i > 0 {
			return all[:i], err
		}
	}
	return all, err
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

// deleteInbox fails with errMoved unless the row is still there.
func deleteInbox(tx *store.Tx, id string) error {
	return one(tx.Exec(`DELETE FROM telemetry_inbox WHERE id = $1`, id))
}

func one(n int64, err error) error {
	if err == nil && n != 1 {
		return errMoved
	}
	return err
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

func insertChunk(tx *store.Tx, c chunkRow) error {
	_, err := tx.Exec(`INSERT INTO telemetry_chunk(tenant, device, stream, t0, t1, id, n, body) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		c.tenant, c.device, c.stream, c.t0, c.t1, c.id, c.n, c.body)
	return err
}

func deleteChunk(tx *store.Tx, c chunkRow) error {
	return one(tx.Exec(`DELETE FROM telemetry_chunk WHERE device = $1 AND t0 = $2 AND id = $3`, c.device, c.t0, c.id))
}

func scanChunk(r *sql.Rows) (c chunkRow, err error) {
	return c, r.Scan(&c.tenant, &c.device, &c.stream, &c.t0, &c.t1, &c.id, &c.n, &c.body)
}

// viewChunks returns the device's chunks that touch [from, to).
func viewChunks(tx *store.Tx, tenant, device string, from, to int64) ([]chunkRow, error) {
	rows, err := tx.Query(`SELECT tenant, device, stream, t0, t1, id, n, body FROM telemetry_chunk
		WHERE tenant = $1 AND device = $2 AND t0 < $4 AND t1 >= $3`, tenant, device, from, to)
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

// readLatest returns the row of a stream, or one with rev 0.
func readLatest(ctx context.Context, db *store.DB, k streamKey) (latestRow, error) {
	l, err := scanLatest(db.QueryRow(ctx, `SELECT `+latestColumns+` FROM telemetry_latest WHERE tenant = $1 AND device = $2 AND stream = $3`,
		k.tenant, k.device, k.stream).Scan)
	if errors.Is(err, store.ErrNoRows) {
		return latestRow{streamKey: k}, nil
	}
	return l, err
}

func viewLatest(tx *store.Tx, tenant, device string) ([]latestRow, error) {
	rows, err := tx.Query(`SELECT `+latestColumns+` FROM telemetry_latest WHERE tenant = $1 AND device = $2 ORDER BY stream`, tenant, device)
	return store.Collect(rows, err, func(r *sql.Rows) (latestRow, error) { return scanLatest(r.Scan) })
}

// putLatest writes the row if nobody changed it since it was read.
func putLatest(tx *store.Tx, l latestRow) error {
	return one(tx.Exec(`INSERT INTO telemetry_latest(tenant, device, stream, t, boot, seq, seen, body, rev) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9 + 1)
		ON CONFLICT (device, stream) DO UPDATE SET t = excluded.t, boot = excluded.boot, seq = excluded.seq, seen = excluded.seen,
			body = excluded.body, rev = excluded.rev WHERE telemetry_latest.rev = $9 AND telemetry_latest.tenant = excluded.tenant`,
		l.tenant, l.device, l.stream, l.t, int64(l.boot), int64(l.seq), l.seen, l.body, l.rev))
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

// pendingRow is a record of another class on its way to its handler.
type pendingRow struct {
	id, device string
	at, runAt  int64
	attempts   int64
	keyID      string
	body       []byte
}

func insertPending(tx *store.Tx, p pendingRow) error {
	_, err := tx.Exec(`INSERT INTO telemetry_pending(id, device, at, run_at, attempts, key_id, body, error) VALUES ($1, $2, $3, $4, $5, $6, $7, '')`,
		p.id, p.device, p.at, p.runAt, p.attempts, p.keyID, p.body)
	return err
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

// deleteDevice removes at most 500 chunks of a device, and everything else of it once none is left; done says so.
func deleteDevice(tx *store.Tx, tenant, device string) (done bool, err error) {
	n, err := tx.Exec(`DELETE FROM telemetry_chunk WHERE tenant = $1 AND device = $2 AND id IN
		(SELECT id FROM telemetry_chunk WHERE tenant = $1 AND device = $2 LIMIT 500)`, tenant, device)
	if err != nil || n > 0 {
		return false, err
	}
	for _, q := range []string{
		`DELETE FROM telemetry_latest WHERE tenant = $1 AND device = $2`,
		`DELETE FROM telemetry_refused WHERE tenant = $1 AND device = $2`,
	} {
		if _, err := tx.Exec(q, tenant, device); err != nil {
			return false, err
		}
	}
	_, err = tx.Exec(`DELETE FROM telemetry_pending WHERE device = $1`, device)
	return true, err
}
