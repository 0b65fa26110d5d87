// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
)

const (
	willJob       = "mqtt.will"
	takeoverEvery = 500 * time.Millisecond // how often a node looks for sessions that it has lost
	takeoverKept  = time.Minute            // a node that does not look for so long is gone
	nodeEvery     = 10 * time.Second       // a sign of life of this node, and a look for nodes without one
	nodeTTL       = 30 * time.Second
	nodeLease     = "mqtt.node." // and the node
	crashGrace    = time.Minute  // what devices get to come back to a platform that fell over, before their wills are said
	endedAtOnce   = 500          // sessions of a dead node in one transaction
	beginTries    = 8            // for nodes that begin a session of one device at the same moment
)

// SessionsConfig is what Sessions needs; all but Clock and Log is mandatory.
type SessionsConfig struct {
	DB    *store.DB // the platform handle
	Keys  *seal.Keys
	Clock clock.Clock // default clock.System
	Log   *slog.Logger
	// Append takes a will (gateway.Config.Append). Supersede hears that another node has a session now (gateway.Supersede).
	Append    func(context.Context, []gateway.Record) error
	Supersede func(device string, generation int64, resumed bool)
}

// Sessions keeps the MQTT sessions of devices for all nodes, so that a restart of the platform, or a connection to
// another node, loses no subscription and no downlink. It is what gateway.Sessions asks for.
//
// A connection owns its device's session by its generation, which Begin raises by compare-and-set: of two nodes one is
// told to try again, and whoever has an older generation changes nothing. A device that goes to another node leaves the
// old one a note, which it reads within takeoverEvery, and with each batch of messages before their receipts.
type Sessions struct {
	cfg  SessionsConfig
	node string
}

// NewSessions makes the keeper of sessions and takes over the jobs that say wills.
func NewSessions(cfg SessionsConfig) *Sessions {
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Sessions{cfg: cfg, node: store.NewID("node")}
	cfg.DB.Handle(willJob, s.sayWill)
	return s
}

// Keeper is what the gateway calls.
func (s *Sessions) Keeper() *gateway.Sessions {
	k := &gateway.Sessions{Begin: s.Begin, Save: s.Save, End: s.End}
	if s.cfg.DB.Engine() != store.SQLite { // whose file belongs to one process
		k.Overtaken = s.takeNotes
	}
	return k
}

// sessionRow is a session as it is stored.
type sessionRow struct {
	generation, expiry, willDelay int64
	ended                         int64 // see the migration
	node, client                  string
	state, will                   []byte // sealed
}

// resumes says whether the opening goes on with the session.
func (r sessionRow) resumes(o gateway.Opening, now int64) bool {
	return !o.Clean && r.client == o.ClientID && r.expiry > 0 && (r.ended == 0 || now < r.ended+r.expiry)
}

func readSession(row *sql.Row) (r sessionRow, err error) {
	err = row.Scan(&r.generation, &r.node, &r.client, &r.ended, &r.expiry, &r.state, &r.will, &r.willDelay)
	return r, err
}

const selectSession = `SELECT generation, node, client_id, ended, expiry, state, will, will_delay FROM mqtt_session WHERE device_id = $1 AND tenant = $2`

// errRaced says that another node began a session of the device meanwhile.
var errRaced = errors.New("fleet: another node was faster")

// Begin makes the connection the only one of its device; see gateway.Sessions.
func (s *Sessions) Begin(ctx context.Context, o gateway.Opening) (gateway.Resumed, error) {
	will, delay, err := s.sealWill(ctx, o)
	if err != nil {
		return gateway.Resumed{}, err
	}
	var r gateway.Resumed
	for range beginTries {
		if err = s.cfg.DB.Write(ctx, func(tx *store.Tx) (err error) { r, err = s.begin(tx, o, will, delay); return err }); !errors.Is(err, errRaced) {
			break
		}
	}
	if err != nil || len(r.State) == 0 {
		return r, err
	}
	r.State, err = s.open(ctx, o.Peer, "state", r.State)
	if errors.Is(err, seal.ErrDestroyed) { // nothing is left of what the device had
		r.Present, r.State, err = false, nil, nil
	}
	return r, err
}

func (s *Sessions) begin(tx *store.Tx, o gateway.Opening, will []byte, delay int64) (gateway.Resumed, error) {
	now, p, open := store.Millis(s.cfg.Clock.Now()), o.Peer, int64(0)
	if o.Expiry == 0 && o.Will == nil {
		open = -1
	}
	was, err := readSession(tx.QueryRow(selectSession, p.Device, p.Tenant))
	if errors.Is(err, store.ErrNoRows) {
		n, err := tx.Exec(`INSERT INTO mqtt_session(device_id, tenant, generation, node, client_id, ended, expiry, state, will, will_delay)
			VALUES ($1, $2, 1, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (device_id) DO NOTHING`,
			p.Device, p.Tenant, s.node, o.ClientID, open, o.Expiry.Milliseconds(), []byte{}, will, delay)
		if err == nil && n == 0 {
			err = errRaced
		}
		return gateway.Resumed{Generation: 1}, err
	}
	if err != nil {
		return gateway.Resumed{}, err
	}
	r := gateway.Resumed{Generation: was.generation + 1, Present: was.resumes(o, now)}
	state := []byte{}
	if r.Present {
		r.State, state = was.state, append(state, was.state...)
	}
	n, err := tx.Exec(`UPDATE mqtt_session SET generation = $1, node = $2, client_id = $3, ended = $4, expiry = $5, state = $6, will = $7, will_delay = $8
		WHERE device_id = $9 AND tenant = $10 AND generation = $11`,
		r.Generation, s.node, o.ClientID, open, o.Expiry.Milliseconds(), state, will, delay, p.Device, p.Tenant, was.generation)
	switch {
	case err != nil:
		return r, err
	case n == 0:
		return r, errRaced
	case was.ended <= 0 && was.node != s.node: // the other node says its will, if need be
		return r, leaveNote(tx, was.node, p.Device, r, now)
	case was.ended > 0 && len(was.will) > 0 && !r.Present: // the session of this will has ended now
		return r, s.cfg.DB.Enqueue(tx, willJob, fmt.Sprintf("%s/%d", p.Device, was.generation), s.cfg.Clock.Now(), willData{p.Tenant, p.Device, was.generation, now, was.will})
	}
	return r, nil
}

func leaveNote(tx *store.Tx, node, device string, r gateway.Resumed, now int64) error {
	resumed := int64(0)
	if r.Present {
		resumed = 1
	}
	_, err := tx.Exec(`INSERT INTO mqtt_takeover(node, device_id, generation, resumed, at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (node, device_id) DO UPDATE SET generation = excluded.generation, resumed = excluded.resumed, at = excluded.at`, node, device, r.Generation, resumed, now)
	return err
}

// Save keeps the state of the session, unless another connection took over.
func (s *Sessions) Save(ctx context.Context, p gateway.Peer, state []byte) error {
	sealed, err := s.seal(ctx, p, "state", state)
	if err != nil {
		return err
	}
	return s.write(ctx, p, func(tx *store.Tx) (int64, error) {
		return tx.Exec(`UPDATE mqtt_session SET state = $1 WHERE device_id = $2 AND tenant = $3 AND generation = $4`, sealed, p.Device, p.Tenant, p.Generation)
	})
}

// End notes that the connection has ended, and when its will is due.
func (s *Sessions) End(ctx context.Context, p gateway.Peer, e gateway.Ending) error {
	if e.Expiry == 0 {
		e.State = nil
	}
	sealed, err := s.seal(ctx, p, "state", e.State)
	if err != nil {
		return err
	}
	now := s.cfg.Clock.Now()
	keepWill := int64(0)
	if e.WillAfter >= 0 {
		keepWill = 1
	}
	return s.write(ctx, p, func(tx *store.Tx) (int64, error) {
		n, err := tx.Exec(`UPDATE mqtt_session SET ended = $1, expiry = $2, state = $3, will = CASE WHEN $4 = 1 THEN will ELSE $5 END
			WHERE device_id = $6 AND tenant = $7 AND generation = $8`,
			store.Millis(now), e.Expiry.Milliseconds(), sealed, keepWill, []byte{}, p.Device, p.Tenant, p.Generation)
		if err == nil && n == 1 && keepWill == 1 {
			err = s.willAt(tx, p.Tenant, p.Device, p.Generation, now.Add(e.WillAfter))
		}
		return n, err
	})
}

// write runs an update of the session that p's connection still has to own.
func (s *Sessions) write(ctx context.Context, p gateway.Peer, update func(*store.Tx) (int64, error)) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		n, err := update(tx)
		if err == nil && n == 0 {
			err = gateway.ErrStale
		}
		return err
	})
}

// willData names a will: the one in the row of that generation, or, after its session has ended, Sealed.
type willData struct {
	Tenant, Device string
	Generation     int64
	Due            int64
	Sealed         []byte
}

func (s *Sessions) willAt(tx *store.Tx, tenant, device string, generation int64, due time.Time) error {
	return s.cfg.DB.Enqueue(tx, willJob, device, due, willData{Tenant: tenant, Device: device, Generation: generation, Due: store.Millis(due)})
}

// sayWill hands a will over as a message of its device, unless its session was resumed.
func (s *Sessions) sayWill(ctx context.Context, j store.Job) error {
	var d willData
	if err := j.Decode(&d); err != nil {
		return err
	}
	now := s.cfg.Clock.Now()
	if store.Millis(now) < d.Due { // the job was moved forward for a will that did not come to be said
		return s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.willAt(tx, d.Tenant, d.Device, d.Generation, store.Time(d.Due)) })
	}
	sealed := d.Sealed
	if sealed == nil {
		r, err := readSession(s.cfg.DB.QueryRow(ctx, selectSession, d.Device, d.Tenant))
		if errors.Is(err, store.ErrNoRows) || err == nil && (r.generation != d.Generation || r.ended <= 0) {
			return nil
		}
		if err != nil {
			return err
		}
		sealed = r.will
	}
	p := gateway.Peer{Tenant: d.Tenant, Device: d.Device, Generation: d.Generation}
	b, err := s.open(ctx, p, "will", sealed)
	if errors.Is(err, seal.ErrDestroyed) || err == nil && len(b) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	var w gateway.Will
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	if err := s.cfg.Append(ctx, []gateway.Record{w.Said(now)}); err != nil {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE mqtt_session SET will = $1 WHERE device_id = $2 AND tenant = $3 AND generation = $4`, []byte{}, d.Device, d.Tenant, d.Generation)
		return err
	})
}

func (s *Sessions) sealWill(ctx context.Context, o gateway.Opening) (sealed []byte, delay int64, err error) {
	if o.Will == nil {
		return []byte{}, 0, nil
	}
	b, err := json.Marshal(o.Will)
	if err != nil {
		return nil, 0, err
	}
	sealed, err = s.seal(ctx, o.Peer, "will", b)
	return sealed, o.Will.Delay.Milliseconds(), err
}

func bindSession(what string, p gateway.Peer) []byte {
	return fmt.Appendf(nil, "mqtt.%s\x00%s\x00%s", what, p.Tenant, p.Device)
}

// key returns the device's own key, which is made if there is none.
func (s *Sessions) key(ctx context.Context, p gateway.Peer) (cipher.AEAD, error) {
	key, err := s.cfg.Keys.Subject(ctx, s.cfg.DB, p.Tenant, p.Device)
	if !problem.Is(err, problem.KindNotFound) {
		return key, err
	}
	if err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.cfg.Keys.NewSubject(tx, p.Tenant, p.Device) }); err != nil {
		return nil, err
	}
	return s.cfg.Keys.Subject(ctx, s.cfg.DB, p.Tenant, p.Device)
}

// seal makes b unreadable once the device is erased. Nothing stays nothing.
func (s *Sessions) seal(ctx context.Context, p gateway.Peer, what string, b []byte) ([]byte, error) {
	if len(b) == 0 {
		return []byte{}, nil
	}
	key, err := s.key(ctx, p)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, key.NonceSize(), key.NonceSize()+len(b)+key.Overhead())
	rand.Read(nonce)
	return key.Seal(nonce, nonce, b, bindSession(what, p)), nil
}

func (s *Sessions) open(ctx context.Context, p gateway.Peer, what string, sealed []byte) ([]byte, error) {
	if len(sealed) == 0 {
		return nil, nil
	}
	key, err := s.key(ctx, p)
	if err != nil {
		return nil, err
	}
	if len(sealed) < key.NonceSize() {
		return nil, fmt.Errorf("fleet: the %s of a session is too short", what)
	}
	return key.Open(nil, sealed[:key.NonceSize()], sealed[key.NonceSize():], bindSession(what, p))
}
