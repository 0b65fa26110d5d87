// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"cmp"
	"context"
	"crypto"
	"crypto/cipher"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

// prefix of the topics that carry measurements.
const prefix = "tele/"

// Config is what the stage needs.
type Config struct {
	DB       *store.DB // the telemetry handle: inbox, chunks, latest, hourly keys
	Platform *store.DB // the platform handle: the devices' keys
	Keys     *seal.Keys
	Identity *identity.Service // the devices that routes and pages ask about; without it no catalogue is applied
	Product  *product.Service  // the products whose catalogues are read and set
	Tenants  *tenant.Service   // makes the tokens of shares
	// Select returns devices by a filter of the fleet, within the reach of whoever asks (fleet.Service.Select).
	Select func(ctx context.Context, tenant, filter, after string, limit int) ([]identity.Device, error)
	// BirthKey is the key that checkpoints of a device's security events are signed with; nil: as Identity has it.
	BirthKey func(ctx context.Context, tenant, device string) (crypto.PublicKey, error)
	Clock    clock.Clock // default clock.System
	Log      *slog.Logger
	// Linger is how long measurements may rest in the inbox, so that they are compacted together; default 2 s. Other
	// records leave at once.
	Linger time.Duration
	// Reserve is how many bytes of the disk stay free: below it Append refuses (rule disk.reserve). 0: none.
	Reserve int64
}

// Service is the stage. Its methods are safe for concurrent use.
type Service struct {
	cfg    Config
	codec  codec
	holder string        // of the compaction lease
	wake   chan struct{} // capacity 1: the inbox holds what should not linger, or enough
	due    chan struct{} // capacity 1: records wait for their handlers

	waiting atomic.Int64 // records that this process appended since the last pass began

	routes  map[string]Handler // by prefix; complete before Append and Work
	watched func(tenant, device, topic string) bool

	pass      sync.Mutex                // one compaction, merge or erasure at a time; guards the fields below
	lease     store.Lease               // zero: not held
	keys      map[[2]string]cipher.AEAD // by tenant and device, to write with; never kept long and never read with
	keysSince time.Time
	keysGen   uint64                    // of the database when they were read
	known     map[streamKey]streamState // of the streams in the last pass: busy ones come again in the next
	touched   map[[2]string]bool        // devices that spoke since the last look for gaps
	looked    bool                      // this process has looked for gaps before

	mu   sync.Mutex // guards the fields below
	hour hourKey

	judges   judges
	arrivals arrivals
}

// hourKey is the inbox key of the present hour.
type hourKey struct {
	hour int64
	id   string
	aead cipher.AEAD
	gen  uint64 // of the database when it was read
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
	s := &Service{cfg: cfg, codec: newCodec(), routes: map[string]Handler{},
		wake: make(chan struct{}, 1), due: make(chan struct{}, 1)}
	cfg.DB.Handle(retainJob, s.retain)
	s.routes[wire.SecurityPrefix] = s.keepSecurity
	s.holder = "sqlite" // one process owns the file: after a crash its successor goes on at once
	if cfg.DB.Engine() != store.SQLite {
		s.holder = store.NewID("node")
	}
	return s
}

// Append makes records durable, in one inbox row (one per 300 records); nil is the permission to acknowledge all of
// them. A batch is refused as a whole when the disk has no room for it (kind rate-limited, rule disk.reserve), or for a
// record of a class that nobody takes (kind invalid): what is acknowledged must not be dropped later. The gateway's
// own table of topics lets no such record through; a batch refused for it shows that a stage was not wired.
func (s *Service) Append(ctx context.Context, records []gateway.Record) error {
	if len(records) == 0 {
		return nil
	}
	if err := s.room(); err != nil {
		return err
	}
	urgent := false
	for _, r := range records {
		if strings.HasPrefix(r.Topic, prefix) {
			continue
		}
		urgent = true
		if !s.Takes(r.Topic) {
			return problem.Invalid("No stage takes messages on %q.", cut(r.Topic))
		}
	}
	if err := s.keep(ctx, records, s.cfg.Clock.Now()); err != nil {
		return fmt.Errorf("telemetry: append: %w", full(err))
	}
	s.arrivals.tell(records)
	if s.waiting.Add(int64(len(records))) >= enoughRecords || urgent {
		signal(s.wake)
	}
	return nil
}

// keep writes records in one commit. They are sealed anew if the database may have become another one meanwhile: after a
// failover a key that was at hand may be one that the standby never heard of, and what it seals could never be read.
func (s *Service) keep(ctx context.Context, records []gateway.Record, at time.Time) error {
	for {
		gen := s.cfg.DB.Generation()
		keyID, key, err := s.hourKey(ctx, at)
		if err != nil {
			return err
		}
		var rows []inboxRow
		for part := range slices.Chunk(records, rowRecords) {
			row := inboxRow{id: store.NewID("inb"), n: int64(len(part)), keyID: keyID}
			row.body = key.Seal(nil, nil, s.codec.encodeRecords(part), []byte(row.id))
			rows = append(rows, row)
		}
		err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			if tx.Generation() != gen {
				return errMoved
			}
			for _, row := range rows {
				if err := insertInbox(tx, row, at); err != nil {
					return err
				}
			}
			return nil
		})
		if !errors.Is(err, errMoved) {
			return err
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// hourKey returns the key that seals inbox rows at the time given.
func (s *Service) hourKey(ctx context.Context, now time.Time) (string, cipher.AEAD, error) {
	hour, gen := store.Millis(now.Truncate(time.Hour)), s.cfg.DB.Generation()
	s.mu.Lock()
	h := s.hour
	s.mu.Unlock()
	if h.aead != nil && h.hour == hour && h.gen == gen {
		return h.id, h.aead, nil
	}
	id, a, err := s.cfg.Keys.Hour(ctx, s.cfg.DB, now)
	if err != nil {
		return "", nil, err
	}
	s.mu.Lock()
	s.hour = hourKey{hour, id, a, gen}
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
		_, err = s.compact(ctx)
		if errors.Is(err, store.ErrFenced) {
			s.lease = store.Lease{} // another process compacts; going on without the lease is safe, see errMoved
		} else if err != nil && !errors.Is(err, errMoved) {
			return err
		}
	}
	delete(s.keys, [2]string{tenant, device})
	s.known = nil
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
