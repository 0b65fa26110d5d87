// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

const (
	leaseTTL   = 10 * time.Second
	mergeEvery = 30 * time.Second
	mergeLeast = 16 // small chunks of one stream before they are merged

	// One compacting transaction writes about 1,000 rows: two per stream and one per event or other record. No further
	// inbox row joins a batch beyond enoughRows; one may bring 2*rowRecords more. With few streams many rows join, and
	// chunks get long. So many records are worth a pass before Linger is over.
	enoughRows    = 1000
	enoughRecords = 20_000
	keysKept      = time.Minute
)

// Work compacts the inbox, hands other records to their handlers and merges small chunks, until ctx ends. On
// PostgreSQL one process at a time does so.
func (s *Service) Work(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { s.dispatchAll(ctx) })
	if err := s.planRetention(ctx); err != nil && ctx.Err() == nil {
		s.cfg.Log.ErrorContext(ctx, "retention is not planned; the next start tries again", slog.Any("error", err))
	}
	merged := s.cfg.Clock.Now()
	looked := merged
	for ctx.Err() == nil {
		more, err := s.step(ctx)
		if err == nil && s.cfg.Clock.Now().Sub(merged) >= mergeEvery {
			merged = s.cfg.Clock.Now()
			err = s.tidy(ctx)
		}
		if err == nil && s.cfg.Clock.Now().Sub(looked) >= gapEvery {
			looked = s.cfg.Clock.Now()
			_, err = s.turn(ctx, s.lookForGaps)
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, errMoved) {
			s.cfg.Log.ErrorContext(ctx, "telemetry is not compacted", slog.Any("error", err))
			more = false
		}
		if !more {
			s.rest(ctx, s.wake)
		}
	}
	wg.Wait()
	s.pass.Lock()
	defer s.pass.Unlock()
	if s.lease.Name == "" {
		return nil
	}
	err := s.cfg.DB.ReleaseLease(context.WithoutCancel(ctx), s.lease)
	if errors.Is(err, store.ErrClosed) {
		return nil
	}
	return err
}

// rest waits until something wakes it, or for Linger.
func (s *Service) rest(ctx context.Context, wake <-chan struct{}) {
	t := s.cfg.Clock.NewTimer(s.cfg.Linger)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-wake:
	case <-t.C:
	}
}

// step compacts once if there is anything and the lease is ours; more says that the inbox holds more than one pass takes.
// What arrived meanwhile rests until it is worth a pass: each costs two rows for every stream in it, however little it said.
func (s *Service) step(ctx context.Context) (more bool, err error) {
	if more, err = hasInbox(ctx, s.cfg.DB, ""); err != nil || !more {
		return false, err
	}
	ours, err := s.turn(ctx, func(ctx context.Context) (err error) { more, err = s.compact(ctx); return err })
	return ours && more, err
}

// turn runs fn under the lease; false says that another process has it.
func (s *Service) turn(ctx context.Context, fn func(context.Context) error) (bool, error) {
	s.pass.Lock()
	defer s.pass.Unlock()
	if ok, err := s.lead(ctx); err != nil || !ok {
		return false, err
	}
	err := fn(ctx)
	if errors.Is(err, store.ErrFenced) {
		s.lease = store.Lease{}
		return false, nil
	}
	return true, err
}

// lead takes the lease unless it is ours already. The caller holds s.pass.
func (s *Service) lead(ctx context.Context) (bool, error) {
	if s.lease.Name != "" {
		return true, nil
	}
	l, ok, err := s.cfg.DB.TakeLease(ctx, "telemetry.compact", s.holder, leaseTTL)
	if err == nil && ok {
		s.lease = l
	}
	return ok, err
}

// batch is what one pass makes of some inbox rows.
type batch struct {
	gen      uint64 // of the database when it was begun
	rows     []inboxRow
	points   map[streamKey][]point     // in order of arrival
	refused  map[[2]string]refusal     // by tenant and device
	happened map[[2]string][]happening // the same, in order of arrival; repeats included
	known    map[streamKey]streamState // what the latest rows are once this is written
	noted    int                       // how many happened
	chunks   []chunkRow
	latest   []latestRow
	events   []eventRow
	pending  []pendingRow

	drops      drops // values that a catalogue refused
	dropped    []droppedRow
	undeclared []undeclaredRow
}

func (s *Service) newBatch() *batch {
	return &batch{gen: s.cfg.DB.Generation(), points: map[streamKey][]point{}, refused: map[[2]string]refusal{}, happened: map[[2]string][]happening{}, known: map[streamKey]streamState{}, drops: drops{}}
}

// compact moves the oldest inbox rows to where their records belong, in one transaction; left says that there were more
// than one pass takes. The caller holds s.pass.
func (s *Service) compact(ctx context.Context) (left bool, err error) {
	b := s.newBatch()
	s.waiting.Store(0)
	rows, left, err := readInbox(ctx, s.cfg.DB, enoughRecords)
	if err != nil || len(rows) == 0 {
		return left, err
	}
	for _, row := range rows {
		if 2*len(b.points)+b.noted+len(b.pending) > enoughRows {
			left = true
			break
		}
		records, damaged, err := s.open(ctx, row)
		if damaged {
			s.cfg.Log.ErrorContext(ctx, "inbox row is damaged and was set aside", slog.String("row", row.id), slog.Any("error", err))
			if err := setAside(ctx, s.cfg.DB, row.id, err); err != nil {
				return left, err
			}
			continue
		}
		if err != nil {
			return left, err
		}
		b.rows = append(b.rows, row)
		for i, r := range records {
			id := fmt.Sprintf("%s.%03d", row.id, i)
			if err := s.watch(ctx, b, id, r); err != nil {
				return left, err
			}
			switch {
			case strings.HasPrefix(r.Topic, prefix):
				if err := s.sort(ctx, b, r); err != nil {
					return left, err
				}
				continue
			case strings.HasPrefix(r.Topic, eventPrefix) && !strings.HasPrefix(r.Topic, wire.SecurityPrefix):
				b.note("evt_"+strings.TrimPrefix(id, "inb_"), r)
				continue
			}
			p, err := s.pend(ctx, id, r)
			if err != nil {
				return left, err
			}
			b.pending = append(b.pending, p)
		}
	}
	if err := s.pack(ctx, b); err != nil {
		return left, err
	}
	err = s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error { return s.put(tx, b) })
	if err == nil {
		s.known = b.known
		s.touch(b)
	}
	if err == nil && len(b.pending) > 0 {
		signal(s.due)
	}
	return left, err
}

// sort puts a measurement into its streams, or counts it as refused.
func (s *Service) sort(ctx context.Context, b *batch, r gateway.Record) error {
	points, err := s.understand(ctx, r)
	if problem.Is(err, problem.KindInvalid) {
		b.refuse(r.Tenant, r.Device, r.At, problem.Of(err).Text)
		return nil
	}
	for _, p := range points {
		k := streamKey{r.Tenant, r.Device, p.stream}
		b.points[k] = append(b.points[k], p.point)
	}
	return err
}

func (b *batch) refuse(tenant, device string, at int64, reason string) {
	k := [2]string{tenant, device}
	b.refused[k] = refusal{b.refused[k].n + 1, at, reason}
}

// pack drops repeats and seals chunks, latest rows and events.
func (s *Service) pack(ctx context.Context, b *batch) error {
	if now := s.cfg.Clock.Now(); now.Sub(s.keysSince) > keysKept || s.keysGen != b.gen || s.keys == nil {
		s.keys, s.keysSince, s.keysGen = map[[2]string]cipher.AEAD{}, now, b.gen
	}
	known := s.known
	s.known = nil // until what is made of it here is written
	var unknown []streamKey
	for k := range b.points {
		if _, ok := known[k]; !ok {
			unknown = append(unknown, k)
		}
	}
	rows, err := readLatest(ctx, s.cfg.DB, unknown)
	if err != nil {
		return err
	}
	for k, points := range b.points {
		key, err := s.writeKey(ctx, k.tenant, k.device)
		if errors.Is(err, seal.ErrDestroyed) {
			s.cfg.Log.WarnContext(ctx, "telemetry of an erased device was dropped", slog.String("device", k.device), slog.Int("messages", len(points)))
			continue
		}
		if err != nil {
			return err
		}
		st, ok := known[k]
		if !ok {
			row := rows[k]
			row.streamKey = k
			if st, err = recall(key, row); err != nil { // one device's damage must not stop the others
				s.cfg.Log.ErrorContext(ctx, "latest row is damaged and was begun anew", slog.String("device", k.device), slog.String("stream", k.stream), slog.Any("error", err))
				st = streamState{rev: row.rev, last: &lastState{}}
			}
		}
		kept := false
		fresh := slices.DeleteFunc(slices.Clone(points), func(p point) bool {
			kept = st.set.takes(p, kept)
			return !kept
		})
		if len(fresh) == 0 {
			continue
		}
		if fresh, err = s.admit(ctx, b, k, fresh); err != nil {
			return err
		}
		slices.SortStableFunc(fresh, byTime)
		t := tableOf(fresh)
		st.last.add(fresh, t)
		row := latestRow{streamKey: k, seen: st.set.encode(), rev: st.rev}
		sealLatest(key, &row, st.last)
		st.rev++
		b.known[k] = st
		b.latest = append(b.latest, row)
		b.chunks = append(b.chunks, s.seal(key, k, t)...)
	}
	if err := s.packDropped(ctx, b); err != nil {
		return err
	}
	return s.packEvents(ctx, b)
}

// writeKey is subject with the keys of the last minute at hand. The caller holds s.pass.
func (s *Service) writeKey(ctx context.Context, tenant, device string) (cipher.AEAD, error) {
	k := [2]string{tenant, device}
	if key := s.keys[k]; key != nil {
		return key, nil
	}
	key, err := s.subject(ctx, tenant, device)
	if err == nil {
		s.keys[k] = key
	}
	return key, err
}

// streamState is a latest row in the clear: what has arrived and the last values, at a revision.
type streamState struct {
	rev  int64
	set  seen
	last *lastState
}

// recall opens a latest row.
func recall(key cipher.AEAD, row latestRow) (st streamState, err error) {
	if row.rev == 0 {
		return streamState{last: &lastState{}}, nil
	}
	st.rev = row.rev
	if st.set, err = decodeSeen(row.seen); err == nil {
		st.last, err = openLatest(key, row)
	}
	return st, err
}

// seal packs a table into chunks within the limits of the decoder.
func (s *Service) seal(key cipher.AEAD, k streamKey, t table) []chunkRow {
	var out []chunkRow
	for from := 0; from < t.len(); {
		to := min(from+chunkPoints, t.len())
		part := t.cut(from, to)
		for len(part.names) > chunkColumns { // a device that invents names
			to = from + (to-from)/2
			part = t.cut(from, to)
		}
		c := chunkRow{streamKey: k, id: store.NewID("chk"), t0: part.at[0], t1: part.at[part.len()-1], n: int64(part.len())}
		c.body = key.Seal(nil, nil, s.codec.encodeTable(part), c.bind("chunk", c.id))
		out = append(out, c)
		from = to
	}
	return out
}

// put writes a batch and takes its rows out of the inbox, or does neither. After a failover the batch is made anew: a key
// that it is sealed with may be one that the standby never heard of.
func (s *Service) put(tx *store.Tx, b *batch) error {
	if tx.Generation() != b.gen {
		return errMoved
	}
	if s.lease.Name != "" {
		if err := tx.Fence(s.lease, leaseTTL); err != nil {
			return err
		}
	}
	if err := insertChunks(tx, b.chunks); err != nil {
		return err
	}
	if err := putLatest(tx, b.latest); err != nil {
		return err
	}
	if err := insertEvents(tx, b.events); err != nil {
		return err
	}
	if err := insertPending(tx, b.pending); err != nil {
		return err
	}
	if err := putDropped(tx, b); err != nil {
		return err
	}
	for k, r := range b.refused {
		if err := countRefused(tx, k[0], k[1], r); err != nil {
			return err
		}
	}
	return deleteInbox(tx, b.rows)
}

// tidy merges small chunks and destroys hourly keys that seal nothing any more.
func (s *Service) tidy(ctx context.Context) error {
	streams, err := crowded(ctx, s.cfg.DB, mergeLeast, 500)
	if err != nil {
		return err
	}
	for _, k := range streams {
		_, err := s.turn(ctx, func(ctx context.Context) error { return s.merge(ctx, k) })
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && !errors.Is(err, errMoved) {
			s.cfg.Log.ErrorContext(ctx, "chunks cannot be merged", slog.String("device", k.device), slog.String("stream", k.stream), slog.Any("error", err))
		}
	}
	// An Append may have taken its key up to a commit ago: the hour before the present one is always kept.
	before := s.cfg.Clock.Now().Add(-time.Hour)
	if at, ok, err := oldestSealed(ctx, s.cfg.DB); err != nil {
		return err
	} else if ok && at.Before(before) {
		before = at
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.cfg.Keys.DestroyHours(tx, before.Truncate(time.Hour)) })
}

// merge replaces a stream's small chunks by larger ones, in one transaction.
func (s *Service) merge(ctx context.Context, k streamKey) error {
	key, err := s.subject(ctx, k.tenant, k.device)
	if errors.Is(err, seal.ErrDestroyed) {
		return nil // EraseDevice removes them
	}
	if err != nil {
		return err
	}
	small, err := smallChunks(ctx, s.cfg.DB, k)
	if err != nil {
		return err
	}
	tables := make([]table, len(small))
	for i, c := range small {
		if tables[i], err = s.openTable(key, c, nil); err != nil {
			return err
		}
	}
	merged := s.seal(key, k, joined(tables))
	return s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
		if s.lease.Name != "" {
			if err := tx.Fence(s.lease, leaseTTL); err != nil {
				return err
			}
		}
		if err := deleteChunks(tx, small); err != nil {
			return err
		}
		return insertChunks(tx, merged)
	})
}
