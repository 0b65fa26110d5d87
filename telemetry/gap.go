// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// A device counts its messages (boot and seq), so a hole in what arrived is a message that was lost or is still under
// way. Holes are looked for beside the compaction, not in it: every gapEvery, in the devices that spoke since.
// GapOpened is a topic, emitted on the telemetry handle, and the type of an event of the device: a hole appeared where
// there was none. It has the number of messages that are missing, and the newest holes.
const GapOpened = "telemetry.gap"

const (
	gapEvery   = 30 * time.Second
	gapClosed  = "telemetry.gap-closed" // topic: what was missing arrived, or is too long ago to be told
	holesShown = 20
)

// Hole is a run of messages that did not arrive.
type Hole struct {
	Boot uint64 `json:"boot"`
	From uint64 `json:"from"`
	To   uint64 `json:"to" doc:"Included"`
}

// Gap is a device with holes in its count of messages.
type Gap struct {
	Device  string    `json:"device"`
	Missing int64     `json:"missing" doc:"Messages that did not arrive, over the starts that are remembered"`
	Since   time.Time `json:"since"`
}

// holesIn returns the holes in the union of a device's streams, the newest start first, and how many messages they
// hold. A device that counts per stream shows fewer holes, never false ones.
func holesIn(streams []seen) (holes []Hole, missing uint64) {
	boots := map[uint64]spans{}
	full := map[uint64]bool{}
	for _, s := range streams {
		for _, b := range s {
			union := boots[b.boot]
			for _, r := range b.set {
				union.insert(r)
			}
			boots[b.boot] = union
			full[b.boot] = full[b.boot] || len(b.set) == maxSpans
		}
	}
	for boot, union := range boots {
		end := uint64(0)
		for i, r := range union {
			if r.lo > end+1 && (i > 0 || !full[boot]) { // of a full set the beginning was forgotten, not lost
				holes = append(holes, Hole{boot, end + 1, r.lo - 1})
				missing += r.lo - end - 1
			}
			end = r.hi
		}
	}
	slices.SortFunc(holes, func(a, b Hole) int {
		if a.Boot != b.Boot {
			return compareDown(a.Boot, b.Boot)
		}
		return compareDown(b.From, a.From)
	})
	return holes, missing
}

func compareDown(a, b uint64) int {
	if a > b {
		return -1
	}
	if a < b {
		return 1
	}
	return 0
}

// maxTouched bounds the devices that are looked at together; one that is left out is looked at when it speaks again.
const maxTouched = 100_000

// touch notes the devices of a batch for the next look. The caller holds s.pass.
func (s *Service) touch(b *batch) {
	if s.touched == nil {
		s.touched = map[[2]string]bool{}
	}
	for k := range b.points {
		if len(s.touched) < maxTouched {
			s.touched[[2]string{k.tenant, k.device}] = true
		}
	}
}

// lookForGaps compares the count of each device that spoke with what arrived, and announces what changed. The first
// look of a process includes the devices whose gap was open. The caller holds s.pass.
func (s *Service) lookForGaps(ctx context.Context) error {
	if !s.looked {
		rows, err := s.cfg.DB.Query(ctx, `SELECT tenant, device FROM telemetry_gap WHERE ended = 0 LIMIT $1`, maxTouched)
		open, err := store.Collect(rows, err, func(r *sql.Rows) (k [2]string, err error) { return k, r.Scan(&k[0], &k[1]) })
		if err != nil {
			return err
		}
		if s.touched == nil {
			s.touched = map[[2]string]bool{}
		}
		for _, k := range open {
			s.touched[k] = true
		}
	}
	devices := make([][2]string, 0, len(s.touched))
	for k := range s.touched {
		devices = append(devices, k)
	}
	err := grouped(devices, func(devices [][2]string) error {
		sets, err := readSeen(ctx, s.cfg.DB, devices)
		if err != nil {
			return err
		}
		gaps, err := readGaps(ctx, s.cfg.DB, devices)
		if err != nil {
			return err
		}
		for _, k := range devices {
			if err := s.noteGap(ctx, gaps[k], k, sets[k]); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		s.touched, s.looked = nil, true
	}
	return err
}

// gapRow is the state of a device's gap. rev 0: it never had one.
type gapRow struct {
	missing, since, ended, rev int64
}

// noteGap writes what changed of a device's gap, and announces one that opened or closed.
func (s *Service) noteGap(ctx context.Context, was gapRow, k [2]string, streams []seen) error {
	holes, missing := holesIn(streams)
	open := was.rev > 0 && was.ended == 0
	if missing == 0 && !open || open && int64(missing) == was.missing {
		return nil
	}
	now := s.cfg.Clock.Now()
	row, topic := gapRow{missing: int64(missing), since: was.since, rev: was.rev + 1}, ""
	switch {
	case !open:
		row.since, topic = store.Millis(now), GapOpened
	case missing == 0:
		row.missing, row.ended, topic = was.missing, store.Millis(now), gapClosed
	}
	said := map[string]any{"missing": missing, "holes": holes[:min(len(holes), holesShown)]}
	var event []eventRow
	if topic == GapOpened {
		key, err := s.subject(ctx, k[0], k[1])
		if errors.Is(err, seal.ErrDestroyed) {
			return nil
		}
		if err != nil {
			return err
		}
		body, err := json.Marshal(wire.Event{TS: store.Millis(now), Detail: fmt.Sprintf("%d messages did not arrive, by the device's own count", missing), Data: said})
		if err != nil {
			return err
		}
		e := eventRow{tenant: k[0], device: k[1], id: store.NewID("evt"), at: store.Millis(now), received: store.Millis(now), kind: GapOpened}
		e.body = key.Seal(nil, nil, body, e.bind())
		event = []eventRow{e}
		s.cfg.Log.InfoContext(ctx, "messages of a device are missing", slog.String("device", k[1]), slog.Uint64("missing", missing))
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		err := all(1)(tx.Exec(`INSERT INTO telemetry_gap(tenant, device, missing, since, ended, rev) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (device) DO UPDATE SET missing = excluded.missing, since = excluded.since, ended = excluded.ended, rev = excluded.rev
				WHERE telemetry_gap.rev = excluded.rev - 1 AND telemetry_gap.tenant = excluded.tenant`,
			k[0], k[1], row.missing, row.since, row.ended, row.rev))
		if err != nil || topic == "" {
			return err
		}
		if err := insertEvents(tx, event); err != nil {
			return err
		}
		return s.cfg.DB.Emit(tx, topic, k[0], k[1], said)
	})
}

// readSeen returns what arrived of each device, per stream.
func readSeen(ctx context.Context, db *store.DB, devices [][2]string) (map[[2]string][]seen, error) {
	var args []any
	for _, d := range devices {
		args = append(args, d[0], d[1])
	}
	rows, err := db.Query(ctx, `SELECT tenant, device, seen FROM telemetry_latest WHERE (tenant, device) IN (VALUES `+values(len(devices), 2)+`)`, args...)
	out := map[[2]string][]seen{}
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var k [2]string
		var b []byte
		if err := r.Scan(&k[0], &k[1], &b); err != nil {
			return struct{}{}, err
		}
		set, err := decodeSeen(b)
		if err == nil { // a damaged set is begun anew when the stream speaks again
			out[k] = append(out[k], set)
		}
		return struct{}{}, nil
	})
	return out, err
}

func readGaps(ctx context.Context, db *store.DB, devices [][2]string) (map[[2]string]gapRow, error) {
	var args []any
	for _, d := range devices {
		args = append(args, d[0], d[1])
	}
	rows, err := db.Query(ctx, `SELECT tenant, device, missing, since, ended, rev FROM telemetry_gap WHERE (tenant, device) IN (VALUES `+values(len(devices), 2)+`)`, args...)
	out := map[[2]string]gapRow{}
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var k [2]string
		var g gapRow
		err := r.Scan(&k[0], &k[1], &g.missing, &g.since, &g.ended, &g.rev)
		out[k] = g
		return struct{}{}, err
	})
	return out, err
}

// OpenGaps returns devices of the tenant with an open gap, by id, after the one given.
func (s *Service) OpenGaps(ctx context.Context, tenant, after string, limit int) ([]Gap, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT device, missing, since FROM telemetry_gap WHERE tenant = $1 AND ended = 0 AND device > $2 ORDER BY device LIMIT $3`,
		tenant, after, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (g Gap, err error) {
		var since int64
		err = r.Scan(&g.Device, &g.Missing, &since)
		g.Since = store.Time(since)
		return g, err
	})
}
