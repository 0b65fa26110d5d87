// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"cmp"
	"context"
	"crypto/cipher"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
)

// What is remembered of values that a catalogue refused is bounded: a device that invents names without end is counted
// under one name in the end.
const (
	maxDropped    = 64  // counters of one device
	maxUndeclared = 256 // names of one product
	anyName       = "*" // what stands for the names that found no room
)

// Dropped counts the values of one field of a device that a rule refused.
type Dropped struct {
	Stream string    `json:"stream"`
	Field  string    `json:"field"`
	Rule   string    `json:"rule" enum:"catalogue.undeclared,catalogue.type,catalogue.range,catalogue.unit,catalogue.retention"`
	Count  int64     `json:"count"`
	Last   time.Time `json:"last" doc:"When the last one was received"`
}

// dropKey is what is counted, of one device.
type dropKey struct{ stream, field, rule string }

type dropCount struct {
	n  int64
	at int64 // ms
}

// drops are the counters of a batch by tenant and device.
type drops map[[2]string]map[dropKey]dropCount

// of returns what counts the dropped values of a stream, received at the time given (ms).
func (d drops) of(k streamKey, now int64) func(field, rule string) {
	return func(field, rule string) {
		device := [2]string{k.tenant, k.device}
		if d[device] == nil {
			d[device] = map[dropKey]dropCount{}
		}
		tally(d[device], dropKey{k.stream, field, rule}, dropCount{1, now})
	}
}

// tally adds c to the counter, or to that of any name when there is no room for another.
func tally(m map[dropKey]dropCount, k dropKey, c dropCount) {
	if _, known := m[k]; !known && len(m) >= maxDropped {
		k.stream, k.field = anyName, anyName
	}
	m[k] = dropCount{m[k].n + c.n, max(m[k].at, c.at)}
}

// droppedRow is what is kept per device.
type droppedRow struct {
	tenant, device string
	n              int64
	body           []byte // sealed
	rev            int64
}

func (r droppedRow) bind() []byte { return streamKey{r.tenant, r.device, ""}.bind("dropped", "") }

func scanDropped(r scanner) (d droppedRow, err error) {
	return d, r.Scan(&d.tenant, &d.device, &d.n, &d.body, &d.rev)
}

const droppedColumns = `tenant, device, n, body, rev`

// counters opens a row.
func (r droppedRow) counters(key cipher.AEAD) ([]Dropped, error) {
	if r.rev == 0 {
		return nil, nil
	}
	body, err := key.Open(nil, nil, r.body, r.bind())
	if err != nil {
		return nil, fmt.Errorf("telemetry: dropped values of %s: %w", r.device, err)
	}
	var out []Dropped
	if err := json.Unmarshal(body, &out); err != nil {
		return nil, fmt.Errorf("telemetry: dropped values of %s: %w", r.device, err)
	}
	return out, nil
}

// count adds the counters of a batch to those that the row had.
func (r *droppedRow) count(key cipher.AEAD, had []Dropped, fresh map[dropKey]dropCount) {
	all := map[dropKey]dropCount{}
	for _, d := range had {
		all[dropKey{d.Stream, d.Field, d.Rule}] = dropCount{d.Count, store.Millis(d.Last)}
	}
	for k, c := range fresh {
		tally(all, k, c)
		r.n += c.n
	}
	body, err := json.Marshal(listDropped(all))
	if err != nil {
		panic(err) // names and numbers: cannot fail
	}
	r.body = key.Seal(nil, nil, body, r.bind())
}

func listDropped(m map[dropKey]dropCount) []Dropped {
	out := make([]Dropped, 0, len(m))
	for k, c := range m {
		out = append(out, Dropped{k.stream, k.field, k.rule, c.n, store.Time(c.at)})
	}
	slices.SortFunc(out, func(a, b Dropped) int {
		return cmp.Or(strings.Compare(a.Stream, b.Stream), strings.Compare(a.Field, b.Field), strings.Compare(a.Rule, b.Rule))
	})
	return out
}

// undeclaredRow is a name that a product's catalogue does not know.
type undeclaredRow struct {
	tenant, product, stream, field string
	n, at                          int64
}

// packDropped makes the rows of what the batch dropped.
func (s *Service) packDropped(ctx context.Context, b *batch) error {
	if len(b.drops) == 0 {
		return nil
	}
	rows, err := readDropped(ctx, s.cfg.DB, slices.Collect(maps.Keys(b.drops)))
	if err != nil {
		return err
	}
	names := map[[2]string]map[[2]string]dropCount{} // by tenant and product, then stream and field
	for k, fresh := range b.drops {
		key, err := s.writeKey(ctx, k[0], k[1])
		if errors.Is(err, seal.ErrDestroyed) {
			continue
		}
		if err != nil {
			return err
		}
		row := rows[k]
		row.tenant, row.device = k[0], k[1]
		had, err := row.counters(key)
		if err != nil { // one device's damage must not stop the others
			s.cfg.Log.ErrorContext(ctx, "row of dropped values is damaged and was begun anew", slog.String("device", k[1]), slog.Any("error", err))
		}
		row.count(key, had, fresh)
		b.dropped = append(b.dropped, row)
		product, err := s.productOf(ctx, k[0], k[1])
		if err != nil {
			return err
		}
		for d, c := range fresh {
			if d.rule != RuleUndeclared || d.stream == anyName {
				continue
			}
			p := [2]string{k[0], product}
			if names[p] == nil {
				names[p] = map[[2]string]dropCount{}
			}
			was := names[p][[2]string{d.stream, d.field}]
			names[p][[2]string{d.stream, d.field}] = dropCount{was.n + c.n, max(was.at, c.at)}
		}
	}
	for p, found := range names {
		known, err := s.undeclared(ctx, p[0], p[1])
		if err != nil {
			return err
		}
		room := maxUndeclared - len(known)
		for name, c := range found {
			if !slices.ContainsFunc(known, func(u undeclaredRow) bool { return u.stream == name[0] && u.field == name[1] }) {
				if room--; room < 0 {
					continue
				}
			}
			b.undeclared = append(b.undeclared, undeclaredRow{p[0], p[1], name[0], name[1], c.n, c.at})
		}
	}
	return nil
}

// putDropped writes what packDropped made, or fails with errMoved.
func putDropped(tx *store.Tx, b *batch) error {
	err := grouped(b.dropped, func(rows []droppedRow) error {
		var args []any
		for _, d := range rows {
			args = append(args, d.tenant, d.device, d.n, d.body, d.rev+1)
		}
		return all(len(rows))(tx.Exec(`INSERT INTO telemetry_dropped(`+droppedColumns+`) VALUES `+values(len(rows), 5)+`
			ON CONFLICT (device) DO UPDATE SET n = excluded.n, body = excluded.body, rev = excluded.rev
				WHERE telemetry_dropped.rev = excluded.rev - 1 AND telemetry_dropped.tenant = excluded.tenant`, args...))
	})
	if err != nil {
		return err
	}
	return grouped(b.undeclared, func(rows []undeclaredRow) error {
		var args []any
		for _, u := range rows {
			args = append(args, u.tenant, u.product, u.stream, u.field, u.n, u.at)
		}
		_, err := tx.Exec(`INSERT INTO telemetry_undeclared(tenant, product, stream, field, n, at) VALUES `+values(len(rows), 6)+`
			ON CONFLICT (tenant, product, stream, field) DO UPDATE SET n = telemetry_undeclared.n + excluded.n, at = excluded.at`, args...)
		return err
	})
}

// readDropped returns the rows of devices; one that has none yet is absent.
func readDropped(ctx context.Context, db *store.DB, devices [][2]string) (map[[2]string]droppedRow, error) {
	out := map[[2]string]droppedRow{}
	err := grouped(devices, func(devices [][2]string) error {
		var args []any
		for _, d := range devices {
			args = append(args, d[0], d[1])
		}
		rows, err := db.Query(ctx, `SELECT `+droppedColumns+` FROM telemetry_dropped WHERE (tenant, device) IN (VALUES `+values(len(devices), 2)+`)`, args...)
		found, err := store.Collect(rows, err, func(r *sql.Rows) (droppedRow, error) { return scanDropped(r) })
		for _, d := range found {
			out[[2]string{d.tenant, d.device}] = d
		}
		return err
	})
	return out, err
}

// undeclared returns the names that the product's devices sent and its catalogue did not know, the latest first.
func (s *Service) undeclared(ctx context.Context, tenant, product string) ([]undeclaredRow, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT tenant, product, stream, field, n, at FROM telemetry_undeclared
		WHERE tenant = $1 AND product = $2 ORDER BY at DESC, stream, field LIMIT $3`, tenant, product, maxUndeclared)
	return store.Collect(rows, err, func(r *sql.Rows) (u undeclaredRow, err error) {
		return u, r.Scan(&u.tenant, &u.product, &u.stream, &u.field, &u.n, &u.at)
	})
}

// forgetDeclared takes the names that the catalogue has come to know from those that it does not.
func (s *Service) forgetDeclared(ctx context.Context, tenant string, v CatalogueVersion) error {
	return grouped(v.Fields, func(fields []Field) error {
		return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			args := []any{tenant, v.Product}
			marks := make([]string, len(fields))
			for i, f := range fields {
				args = append(args, f.Stream, f.Name)
				marks[i] = fmt.Sprintf("($%d, $%d)", len(args)-1, len(args))
			}
			_, err := tx.Exec(`DELETE FROM telemetry_undeclared WHERE tenant = $1 AND product = $2 AND (stream, field) IN (VALUES `+strings.Join(marks, ", ")+`)`, args...)
			return err
		})
	})
}

// droppedOf returns what was dropped of a device.
func (s *Service) droppedOf(ctx context.Context, key cipher.AEAD, tenant, device string) ([]Dropped, error) {
	rows, err := readDropped(ctx, s.cfg.DB, [][2]string{{tenant, device}})
	if err != nil {
		return nil, err
	}
	return rows[[2]string{tenant, device}].counters(key)
}
