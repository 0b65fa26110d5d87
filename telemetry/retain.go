// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"crypto/cipher"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
)

// What a device sent is kept for as long as its product's catalogue says, field by field, and where the catalogue does not
// say, for as long as the tenant says. A job walks all devices once a day and deletes what is older.
const (
	retainJob   = "telemetry.retain"
	retainEvery = 24 * time.Hour
	retainPage  = 200            // devices of one run of the job
	retainRows  = 500            // chunks of one transaction
	retainOpen  = 64             // chunks opened together
	retainSlack = 24 * time.Hour // a chunk that begins this much too early is cut, not only dropped when all of it is too old
)

// retainFrom is where the job goes on.
type retainFrom struct {
	After string `json:"after"`
}

// planRetention makes sure that the job runs within a day.
func (s *Service) planRetention(ctx context.Context) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		return s.cfg.DB.Enqueue(tx, retainJob, "all", s.cfg.Clock.Now().Add(retainEvery), retainFrom{})
	})
}

// expired counts what was deleted of a product.
type expired struct {
	devices  int
	messages int64
	values   int64
}

// retain is one run of the job: some devices, then the next.
func (s *Service) retain(ctx context.Context, j store.Job) error {
	var from retainFrom
	if err := j.Decode(&from); err != nil {
		return err
	}
	rows, err := s.cfg.DB.Query(ctx, `SELECT DISTINCT tenant, device FROM telemetry_latest WHERE device > $1 ORDER BY device LIMIT $2`, from.After, retainPage)
	devices, err := store.Collect(rows, err, func(r *sql.Rows) (k [2]string, err error) { return k, r.Scan(&k[0], &k[1]) })
	if err != nil {
		return err
	}
	gone := map[[2]string]expired{} // by tenant and product
	for _, k := range devices {
		e, err := s.retainDevice(ctx, k[0], k[1])
		if err != nil && ctx.Err() != nil {
			return err
		}
		if err != nil { // one device's damage must not stop the others; the next day tries again
			s.cfg.Log.ErrorContext(ctx, "what is too old cannot be deleted", slog.String("device", k[1]), slog.Any("error", err))
			continue
		}
		if e.messages > 0 || e.values > 0 {
			product, err := s.productOf(ctx, k[0], k[1])
			if err != nil {
				return err
			}
			p := [2]string{k[0], product}
			gone[p] = expired{gone[p].devices + 1, gone[p].messages + e.messages, gone[p].values + e.values}
		}
	}
	if err := s.certify(ctx, gone); err != nil {
		return err
	}
	next, at := retainFrom{}, s.cfg.Clock.Now().Add(retainEvery)
	if len(devices) == retainPage {
		next, at = retainFrom{devices[len(devices)-1][1]}, s.cfg.Clock.Now()
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.cfg.DB.Enqueue(tx, retainJob, "all", at, next) })
}

// certify writes what was deleted into the log: that data ended is a fact, what they said is not in it.
func (s *Service) certify(ctx context.Context, gone map[[2]string]expired) error {
	if len(gone) == 0 {
		return nil
	}
	return s.cfg.Platform.Write(ctx, func(tx *store.Tx) error {
		for p, e := range gone {
			err := audit.Append(tx, audit.Entry{Tenant: p[0], Actor: "system", Kind: "data.expired", Subject: p[1],
				Data: map[string]any{"devices": e.devices, "messages": e.messages, "values": e.values, "rule": RuleRetention}})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// retainDevice deletes what is too old of one device.
func (s *Service) retainDevice(ctx context.Context, tenant, device string) (e expired, err error) {
	r, err := s.rulesOf(ctx, tenant, device)
	if r == nil || err != nil {
		return e, err
	}
	key, err := s.subject(ctx, tenant, device)
	if errors.Is(err, seal.ErrDestroyed) {
		return e, nil // EraseDevice removes it all
	}
	if err != nil {
		return e, err
	}
	rows, err := s.cfg.DB.Query(ctx, `SELECT DISTINCT stream FROM telemetry_latest WHERE tenant = $1 AND device = $2`, tenant, device)
	streams, err := store.Collect(rows, err, func(r *sql.Rows) (name string, err error) { return name, r.Scan(&name) })
	if err != nil {
		return e, err
	}
	now := store.Millis(s.cfg.Clock.Now())
	for _, stream := range streams {
		k := streamKey{tenant, device, stream}
		for _, step := range []func(context.Context, cipher.AEAD, streamKey, *rules, int64, *expired) error{s.retainWhole, s.retainPart, s.retainLatest} {
			for tries := 0; ; tries++ { // the compactor may have moved what was read
				if err := step(ctx, key, k, r, now, &e); !errors.Is(err, errMoved) || tries == 3 {
					if err != nil {
						return e, err
					}
					break
				}
			}
		}
	}
	return e, nil
}

// spanOf returns the longest and the shortest time (ms) that a field of the stream is kept. A chunk may hold undeclared
// fields of earlier days, so the default counts too.
func (r *rules) spanOf(stream string) (longest, shortest int64) {
	longest, shortest = r.fallback, r.fallback
	for _, f := range r.streams[stream] {
		longest, shortest = max(longest, f.keepFor), min(shortest, f.keepFor)
	}
	return longest, shortest
}

// kept is how long (ms) a field is kept.
func (r *rules) kept(stream, field string) int64 {
	if f := r.streams[stream][field]; f != nil {
		return f.keepFor
	}
	return r.fallback
}

// retainWhole deletes the chunks of which every field is too old.
func (s *Service) retainWhole(ctx context.Context, _ cipher.AEAD, k streamKey, r *rules, now int64, e *expired) error {
	longest, _ := r.spanOf(k.stream)
	for {
		rows, err := s.cfg.DB.Query(ctx, `SELECT tenant, device, stream, t0, t1, id, n, body FROM telemetry_chunk
			WHERE tenant = $1 AND device = $2 AND stream = $3 AND t0 < $4 AND t1 < $4 ORDER BY t0, id LIMIT $5`, k.tenant, k.device, k.stream, now-longest, retainRows)
		chunks, err := store.Collect(rows, err, scanChunk)
		if err != nil || len(chunks) == 0 {
			return err
		}
		if err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error { return deleteChunks(tx, chunks) }); err != nil {
			return err
		}
		for _, c := range chunks {
			e.messages += c.n
		}
	}
}

// retainPart cuts out of the other chunks the values that are too old. Those that were looked through under the same rules
// are left alone.
func (s *Service) retainPart(ctx context.Context, key cipher.AEAD, k streamKey, r *rules, now int64, e *expired) error {
	longest, shortest := r.spanOf(k.stream)
	under := fmt.Sprintf("%d/%d", r.version, r.fallback)
	var upto int64
	var had string
	err := s.cfg.DB.QueryRow(ctx, `SELECT upto, rules FROM telemetry_retained WHERE tenant = $1 AND device = $2 AND stream = $3`, k.tenant, k.device, k.stream).Scan(&upto, &had)
	if err != nil && !errors.Is(err, store.ErrNoRows) {
		return err
	}
	if had != under {
		upto = math.MinInt64
	}
	before := now - shortest
	for after := ""; ; {
		// A chunk of one rule is cut when it begins a day too early; one of several, as soon as one field's time is over.
		begin := before
		if longest == shortest {
			begin -= retainSlack.Milliseconds()
		}
		rows, err := s.cfg.DB.Query(ctx, `SELECT tenant, device, stream, t0, t1, id, n, body FROM telemetry_chunk
			WHERE tenant = $1 AND device = $2 AND stream = $3 AND t0 < $4 AND t1 >= $5 AND id > $6 ORDER BY id LIMIT $7`, k.tenant, k.device, k.stream, begin, upto, after, retainOpen)
		chunks, err := store.Collect(rows, err, scanChunk)
		if err != nil {
			return err
		}
		var old, fresh []chunkRow
		for _, c := range chunks {
			after = c.id
			t, err := s.openTable(key, c, nil)
			if err != nil {
				return err
			}
			values := t.expire(func(field string) int64 { return now - r.kept(k.stream, field) })
			if values == 0 {
				continue
			}
			old = append(old, c)
			e.values += values
			if t = t.dense(); t.len() > 0 { // under the id that it had: a reader that goes on by ids does not see it again
				n := chunkRow{streamKey: k, id: c.id, t0: t.at[0], t1: t.at[t.len()-1], n: int64(t.len())}
				n.body = key.Seal(nil, nil, s.codec.encodeTable(t), n.bind("chunk", n.id))
				fresh = append(fresh, n)
			}
		}
		if len(old) > 0 {
			err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
				if err := deleteChunks(tx, old); err != nil {
					return err
				}
				return insertChunks(tx, fresh)
			})
			if err != nil {
				return err
			}
		}
		if len(chunks) < retainOpen {
			break
		}
	}
	if longest == shortest {
		return nil // nothing is looked through twice: what is too old goes as a whole
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO telemetry_retained(tenant, device, stream, upto, rules) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (device, stream) DO UPDATE SET upto = excluded.upto, rules = excluded.rules WHERE telemetry_retained.tenant = excluded.tenant`,
			k.tenant, k.device, k.stream, before, under)
		return err
	})
}

// retainLatest takes the last values that are too old out of the latest row.
func (s *Service) retainLatest(ctx context.Context, key cipher.AEAD, k streamKey, r *rules, now int64, _ *expired) error {
	rows, err := readLatest(ctx, s.cfg.DB, []streamKey{k})
	row, ok := rows[k]
	if err != nil || !ok {
		return err
	}
	last, err := openLatest(key, row)
	if err != nil {
		return err
	}
	had := len(last.values)
	for name, v := range last.values {
		if v.T < now-r.kept(k.stream, name) {
			delete(last.values, name)
		}
	}
	if len(last.values) == had {
		return nil
	}
	s.pass.Lock()
	defer s.pass.Unlock()
	s.known = nil // the compactor reads the row anew
	sealLatest(key, &row, last)
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return putLatest(tx, []latestRow{row}) })
}

// expire takes the values before the time (ms) that their field is kept from out of the table, and counts them.
func (t *table) expire(from func(field string) int64) (n int64) {
	for j, name := range t.names {
		oldest := from(name)
		for i, at := range t.at {
			if at < oldest && !math.IsNaN(t.columns[j][i]) {
				t.columns[j][i] = math.NaN()
				n++
			}
		}
	}
	return n
}

// dense leaves out rows and columns without a value.
func (t table) dense() table {
	var rows []int
	for i := range t.at {
		if slices.ContainsFunc(t.columns, func(c []float64) bool { return !math.IsNaN(c[i]) }) {
			rows = append(rows, i)
		}
	}
	out := table{at: make([]int64, len(rows)), names: t.names, columns: make([][]float64, len(t.columns))}
	for n, i := range rows {
		out.at[n] = t.at[i]
	}
	for j, c := range t.columns {
		out.columns[j] = make([]float64, len(rows))
		for n, i := range rows {
			out.columns[j][n] = c[i]
		}
	}
	return out.cut(0, len(rows))
}
