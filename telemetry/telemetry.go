// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"cmp"
	"context"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
)

// prefix of the topics that carry measurements.
const prefix = "tele/"

// Config is what the stage needs.
type Config struct {
	DB       *store.DB // the telemetry handle: inbox, chunks, latest, hourly keys
	Platform *store.DB // the platform handle: the devices' keys
	Keys     *seal.Keys
	Identity *identity.Service // the devices that routes and pages ask about
	Clock    clock.Clock       // default clock.System
	Log      *slog.Logger
	// Linger is how long measurements may rest in the inbox, so that they are compacted together; default 2 s. Other
	// records leave at once.
	Linger time.Duration
	// PerDevice is the most records of one device in one Append; default 4096. Beyond it the batch is refused.
	PerDevice int
}

// Service is the stage. Its methods are safe for concurrent use.
type Service struct {
	cfg    Config
	codec  codec
	holder string        // of the compaction lease
	wake   chan struct{} // capacity 1: the inbox holds what should not linger
	due    chan struct{} // capacity 1: records wait for their handlers

	routes map[string]Handler // by prefix; complete before Append and Work

	pass      sync.Mutex                // one compaction, merge or erasure at a time; guards the fields below
	lease     store.Lease               // zero: not held
	keys      map[[2]string]cipher.AEAD // by tenant and device, to write with; never kept long and never read with
	keysSince time.Time

	mu   sync.Mutex // guards the fields below
	hour hourKey
}

// hourKey is the inbox key of the present hour.
type hourKey struct {
	hour int64
	id   string
	aead cipher.AEAD
}

// New makes the stage. Register every Route before the first Append.
func New(cfg Config) *Service {
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Linger = cmp.Or(cfg.Linger, 2*time.Second)
	cfg.PerDevice = cmp.Or(cfg.PerDevice, 4096)
	s := &Service{cfg: cfg, codec: newCodec(), routes: map[string]Handler{},
		wake: make(chan struct{}, 1), due: make(chan struct{}, 1)}
	s.holder = "sqlite" // one process owns the file: after a crash its successor goes on at once
	if cfg.DB.Engine() != store.SQLite {
		s.holder = store.NewID("node")
	}
	return s
}

// Append makes records durable, in one inbox row (one per 300 records); nil is the permission to acknowledge all of
// them. A batch is refused as a whole when it holds more than Config.PerDevice records of one device (kind rate-limited),
// or a record of a class that nobody takes (kind invalid): what is acknowledged must not be dropped later. The gateway's
// own table of topics lets no such record through; a batch refused for it shows that a stage was not wired.
func (s *Service) Append(ctx context.Context, records []gateway.Record) error {
	if len(records) == 0 {
		return nil
	}
	per := map[string]int{}
	urgent := false
	for _, r := range records {
		if per[r.Device]++; per[r.Device] > s.cfg.PerDevice {
			return problem.Limited("Device %s sends more than %d messages at once.", r.Device, s.cfg.PerDevice).Hint("Send smaller batches.")
		}
		if strings.HasPrefix(r.Topic, prefix) {
			continue
		}
		urgent = true
		if !s.Takes(r.Topic) {
			return problem.Invalid("No stage takes messages on %q.", cut(r.Topic))
		}
	}
	now := s.cfg.Clock.Now()
	keyID, key, err := s.hourKey(ctx, now)
	if err != nil {
		return err
	}
	var rows []inboxRow
	for part := range slices.Chunk(records, rowRecords) {
		row := inboxRow{id: store.NewID("inb"), n: int64(len(part)), keyID: keyID}
		row.body = key.Seal(nil, nil, s.codec.encodeRecords(part), []byte(row.id))
		rows = append(rows, row)
	}
	if err := s.keep(ctx, rows, now); err != nil {
		return fmt.Errorf("telemetry: append: %w", err)
	}
	if urgent {
		signal(s.wake)
	}
	return nil
}

// keep writes inbox rows in one commit.
func (s *Service) keep(ctx context.Context, rows []inboxRow, at time.Time) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		for _, row := range rows {
			if err := insertInbox(tx, row, at); err != nil {
				return err
			}
		}
		return nil
	})
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// hourKey returns the key that seals inbox rows at the time given.
func (s *Service) hourKey(ctx context.Context, now time.Time) (string, cipher.AEAD, error) {
	hour := store.Millis(now.Truncate(time.Hour))
	s.mu.Lock()
	h := s.hour
	s.mu.Unlock()
	if h.aead != nil && h.hour == hour {
		return h.id, h.aead, nil
	}
	id, a, err := s.cfg.Keys.Hour(ctx, s.cfg.DB, now)
	if err != nil {
		return "", nil, err
	}
	s.mu.Lock()
	s.hour = hourKey{hour, id, a}
	s.mu.Unlock()
	return id, a, nil
}

// open reads an inbox row. damaged says that no retry will help.
func (s *Service) open(ctx context.Context, row inboxRow) (records []gateway.Record, damaged bool, err error) {
	key, err := s.cfg.Keys.HourByID(ctx, s.cfg.DB, row.keyID)
	if err != nil {
		return nil, errors.Is(err, seal.ErrDestroyed), err
	}
	body, err := key.Open(nil, nil, row.body, []byte(row.id))
	if err != nil {
		return nil, true, err
	}
	records, err = s.codec.decodeRecords(body)
	return records, err != nil, err
}

// subject returns the device's key and makes it if the device has none yet. seal.ErrDestroyed: the device is erased.
func (s *Service) subject(ctx context.Context, tenant, device string) (cipher.AEAD, error) {
	a, err := s.cfg.Keys.Subject(ctx, s.cfg.Platform, tenant, device)
	if !problem.Is(err, problem.KindNotFound) {
		return a, err
	}
	if err := s.cfg.Platform.Write(ctx, func(tx *store.Tx) error { return s.cfg.Keys.NewSubject(tx, tenant, device) }); err != nil {
		return nil, err
	}
	return s.cfg.Keys.Subject(ctx, s.cfg.Platform, tenant, device)
}

// what a chunk or a latest row is bound to, besides its key.
func (k streamKey) bind(what, id string) []byte {
	return []byte(what + "\x00" + k.tenant + "\x00" + k.device + "\x00" + k.stream + "\x00" + id)
}

// snapshot is everything known of one device at one moment.
type snapshot struct {
	chunks  []chunkRow
	latest  []latestRow
	refused refusal
	inbox   []streamPoint // parsed, in order of arrival; repeats included
}

type streamPoint struct {
	stream string
	point
}

// read takes chunks (of the time given) and inbox from one snapshot, since the compactor moves points from one to the other.
func (s *Service) read(ctx context.Context, tenant, device string, from, to int64) (snapshot, error) {
	var snap snapshot
	var rows []inboxRow
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		if rows, err = viewInbox(tx); err != nil {
			return err
		}
		if snap.latest, err = viewLatest(tx, tenant, device); err != nil {
			return err
		}
		if snap.refused, err = viewRefused(tx, tenant, device); err != nil {
			return err
		}
		if from < to {
			snap.chunks, err = viewChunks(tx, tenant, device, from, to)
		}
		return err
	})
	if err != nil {
		return snap, fmt.Errorf("telemetry: read: %w", err)
	}
	for _, row := range rows {
		records, damaged, err := s.open(ctx, row)
		if damaged {
			continue // the compactor reports it
		}
		if err != nil {
			return snap, err
		}
		for _, r := range records {
			if r.Tenant != tenant || r.Device != device || !strings.HasPrefix(r.Topic, prefix) {
				continue
			}
			if stream, p, err := parseRecord(r); err == nil {
				snap.inbox = append(snap.inbox, streamPoint{stream, p})
			}
		}
	}
	return snap, nil
}

func parseRecord(r gateway.Record) (string, point, error) {
	stream, err := streamOf(r.Topic)
	if err != nil {
		return "", point{}, err
	}
	p, err := parsePayload(r.Body, r.At)
	return stream, p, err
}

// Series returns the device's series in [q.From, q.To), in at most q.Max buckets each, sorted by stream and field.
// A device whose data was erased has none: kind not-found.
func (s *Service) Series(ctx context.Context, tenant, device string, q Query) ([]Series, error) {
	q.Max = cmp.Or(q.Max, DefaultPoints)
	switch {
	case q.Max < 0 || q.Max > MaxPoints:
		return nil, problem.Invalid("max must be 1 to %d", MaxPoints).At("query.max")
	case !q.From.Before(q.To):
		return nil, problem.Invalid("from must be before to").At("query.from")
	}
	snap, err := s.read(ctx, tenant, device, q.From.UnixMilli(), q.To.UnixMilli())
	if err != nil {
		return nil, err
	}
	key, err := s.readKey(ctx, tenant, device)
	if err != nil || key == nil {
		return nil, err
	}
	g := gather{}
	for _, c := range snap.chunks {
		points, err := s.openChunk(key, c)
		if err != nil {
			return nil, err
		}
		for _, p := range points {
			g.add(q, c.stream, p)
		}
	}
	sets, err := seenOf(snap.latest)
	if err != nil {
		return nil, err
	}
	for _, p := range snap.inbox {
		set := sets[p.stream]
		if set.add(p.boot, p.seq) {
			g.add(q, p.stream, p.point)
		}
		sets[p.stream] = set
	}
	return g.series(q), nil
}

// readKey returns the device's key, nil when it has not said anything yet, or a not-found problem when it was erased.
func (s *Service) readKey(ctx context.Context, tenant, device string) (cipher.AEAD, error) {
	key, err := s.subject(ctx, tenant, device)
	if errors.Is(err, seal.ErrDestroyed) {
		return nil, problem.NotFound("The data of this device was erased.").Because(err)
	}
	return key, err
}

func (s *Service) openChunk(key cipher.AEAD, c chunkRow) ([]point, error) {
	body, err := key.Open(nil, nil, c.body, c.bind("chunk", c.id))
	if err != nil {
		return nil, fmt.Errorf("telemetry: chunk %s of %s: %w", c.id, c.device, err)
	}
	points, err := s.codec.decodeChunk(body)
	if err != nil {
		return nil, fmt.Errorf("telemetry: chunk %s of %s: %w", c.id, c.device, err)
	}
	return points, nil
}

func seenOf(latest []latestRow) (map[string]seen, error) {
	sets := map[string]seen{}
	for _, l := range latest {
		set, err := decodeSeen(l.seen)
		if err != nil {
			return nil, err
		}
		sets[l.stream] = set
	}
	return sets, nil
}

// Latest is what a device said last.
type Latest struct {
	Streams []LatestStream `json:"streams"`
	// Missing counts messages of the device's newest boot that never arrived, or not yet.
	Missing uint64 `json:"missing" doc:"Messages since the last start that did not arrive, by the device's own count"`
	// Refused counts payloads that were received and dropped because they could not be read.
	Refused   int64      `json:"refused" doc:"Payloads dropped because they could not be read"`
	RefusedAt *time.Time `json:"refused_at,omitempty"`
	Reason    string     `json:"refused_reason,omitempty" doc:"Why the last one was dropped"`
}

// LatestStream is the last message of one stream.
type LatestStream struct {
	Stream string             `json:"stream"`
	Time   time.Time          `json:"time"`
	Boot   uint64             `json:"boot,omitempty"`
	Seq    uint64             `json:"seq,omitempty"`
	Values map[string]float64 `json:"values" doc:"Each value as it was said last"`
}

// Latest returns the last values of each stream, and how much of what the device sent was lost or could not be read.
func (s *Service) Latest(ctx context.Context, tenant, device string) (Latest, error) {
	snap, err := s.read(ctx, tenant, device, 0, 0)
	if err != nil {
		return Latest{}, err
	}
	key, err := s.readKey(ctx, tenant, device)
	if err != nil {
		return Latest{}, err
	}
	out := Latest{Streams: []LatestStream{}, Refused: snap.refused.n, Reason: snap.refused.reason}
	if snap.refused.n > 0 {
		at := store.Time(snap.refused.at)
		out.RefusedAt = &at
	}
	sets, err := seenOf(snap.latest)
	if err != nil {
		return Latest{}, err
	}
	states := map[string]*lastState{}
	for _, l := range snap.latest {
		if states[l.stream], err = openLatest(key, l); err != nil {
			return Latest{}, err
		}
	}
	for _, p := range snap.inbox {
		set := sets[p.stream]
		fresh := set.add(p.boot, p.seq)
		sets[p.stream] = set
		if !fresh {
			continue
		}
		if states[p.stream] == nil {
			states[p.stream] = &lastState{}
		}
		states[p.stream].add(p.point)
	}
	for stream, l := range states {
		v := LatestStream{Stream: stream, Time: time.UnixMilli(l.t).UTC(), Boot: l.boot, Seq: l.seq, Values: map[string]float64{}}
		for name, x := range l.values {
			v.Values[name] = x.V
		}
		out.Streams = append(out.Streams, v)
	}
	slices.SortFunc(out.Streams, func(a, b LatestStream) int { return strings.Compare(a.Stream, b.Stream) })
	var all []seen
	for _, set := range sets {
		all = append(all, set)
	}
	out.Missing = missing(all)
	return out, nil
}

// lastState is a stream's latest row in the clear: each value carries its own time, since messages may name different
// values and may be late.
type lastState struct {
	t         int64
	boot, seq uint64
	values    map[string]lastValue
}

type lastValue struct {
	T int64   `json:"t"`
	V float64 `json:"v"`
}

// add takes what is newer. Of two at the same time the greater stays, so that the order of arrival never shows.
func (l *lastState) add(p point) {
	if l.values == nil {
		l.values = map[string]lastValue{}
	}
	if p.t > l.t || p.t == l.t && cmp.Or(cmp.Compare(p.boot, l.boot), cmp.Compare(p.seq, l.seq)) > 0 {
		l.t, l.boot, l.seq = p.t, p.boot, p.seq
	}
	for _, v := range p.values {
		old, ok := l.values[v.name]
		if !ok && len(l.values) >= chunkColumns {
			continue // a device that invents names without end keeps its first ones
		}
		if !ok || p.t > old.T || p.t == old.T && v.v > old.V {
			l.values[v.name] = lastValue{p.t, v.v}
		}
	}
}

func openLatest(key cipher.AEAD, l latestRow) (*lastState, error) {
	body, err := key.Open(nil, nil, l.body, l.bind("latest", ""))
	if err != nil {
		return nil, fmt.Errorf("telemetry: latest of %s: %w", l.device, err)
	}
	s := &lastState{t: l.t, boot: l.boot, seq: l.seq}
	if err := json.Unmarshal(body, &s.values); err != nil {
		return nil, fmt.Errorf("telemetry: latest of %s: %w", l.device, err)
	}
	return s, nil
}

func sealLatest(key cipher.AEAD, l *latestRow, s *lastState) {
	body, err := json.Marshal(s.values)
	if err != nil {
		panic(err) // finite numbers under plain names: cannot fail
	}
	l.t, l.boot, l.seq = s.t, s.boot, s.seq
	l.body = key.Seal(nil, nil, body, l.bind("latest", ""))
}

// EraseDevice makes everything the device ever said unreadable, now and in backups (see package seal for when), and
// deletes it: it compacts what the inbox still holds, destroys the device's key, then removes the rows. What arrives
// afterwards is dropped. Doing it twice changes nothing.
func (s *Service) EraseDevice(ctx context.Context, tenant, device string) error {
	last, err := newestInbox(ctx, s.cfg.DB)
	if err != nil {
		return fmt.Errorf("telemetry: erase: %w", err)
	}
	s.pass.Lock()
	defer s.pass.Unlock()
	for {
		more, err := hasInbox(ctx, s.cfg.DB, last)
		if err != nil {
			return fmt.Errorf("telemetry: erase: %w", err)
		}
		if !more || last == "" {
			break
		}
		err = s.compact(ctx)
		if errors.Is(err, store.ErrFenced) {
			s.lease = store.Lease{} // another process compacts; going on without the lease is safe, see errMoved
		} else if err != nil && !errors.Is(err, errMoved) {
			return err
		}
	}
	delete(s.keys, [2]string{tenant, device})
	err = s.cfg.Platform.Write(ctx, func(tx *store.Tx) error { return s.cfg.Keys.DestroySubject(tx, tenant, device) })
	if err != nil {
		return fmt.Errorf("telemetry: erase: %w", err)
	}
	for done := false; !done; {
		err := s.cfg.DB.Write(ctx, func(tx *store.Tx) (err error) {
			done, err = deleteDevice(tx, tenant, device)
			return err
		})
		if err != nil {
			return fmt.Errorf("telemetry: erase: %w", err)
		}
	}
	return nil
}
