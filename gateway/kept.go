// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Sessions keeps what of an MQTT session outlives its connection, for all nodes. Its functions may be called at the same
// time, also for one device.
type Sessions struct {
	// Begin makes a new connection the only one that may change the device's session: its Generation is higher than any
	// before. Where an older connection lives on another node, that node hears of it (Gateway.Supersede).
	Begin func(context.Context, Opening) (Resumed, error)
	// Save replaces the state of the session, which is the gateway's own affair. It and End change nothing and return
	// ErrStale when p.Generation is no longer the highest.
	Save func(ctx context.Context, p Peer, state []byte) error
	// End notes that the connection has ended.
	End func(ctx context.Context, p Peer, e Ending) error
	// Overtaken is asked while messages are made durable, before their receipts: when it returns, Gateway.Supersede has
	// heard of every session here that had been taken over elsewhere when it was called. An error withholds the receipts.
	// nil: there is no other node.
	Overtaken func(context.Context) error
}

// Opening is a CONNECT that the gateway accepts.
type Opening struct {
	Peer     Peer
	ClientID string
	Clean    bool          // what was kept has to be forgotten
	Expiry   time.Duration // how long the session outlives the connection; 0: it does not
	Will     *Will         // what is said for the device if it leaves without a goodbye
}

// Resumed is what Sessions.Begin found.
type Resumed struct {
	Generation int64
	Present    bool   // the session goes on: it had not expired, has the same client identifier, and Clean is false
	State      []byte // of the session, if Present
}

// Ending is how a connection ended.
type Ending struct {
	State  []byte
	Expiry time.Duration // how long the session is kept from now on; 0: it ends
	// WillAfter is when the will has to be said unless the session is resumed before, from now; negative: never.
	WillAfter time.Duration
}

// Will is a message that the platform takes from a device when its session has ended without a goodbye.
type Will struct {
	Record Record        // At and Expires are set when it is said
	Delay  time.Duration // how long the device may be away before it is said
	Life   time.Duration // how long the message counts once it was said; 0: always
}

// Said is the will's message, said at the given time.
func (w *Will) Said(at time.Time) Record {
	r := w.Record
	r.At = at.UnixMilli()
	if w.Life > 0 {
		r.Expires = at.Add(w.Life).UnixMilli()
	}
	return r
}

// ErrStale is what Sessions answers to a connection that another one took over.
var ErrStale = errors.New("another connection of the device took over")

// keptState is what Sessions keeps of a session, as JSON.
type keptState struct {
	Filters []keptFilter `json:"filters,omitempty"`
	Flights []keptFlight `json:"flights,omitempty"` // in the order in which they left
	Last    uint16       `json:"last,omitempty"`    // packet identifier given last
}

type keptFilter struct {
	Root   string `json:"root"`
	Filter string `json:"filter"`
	QoS    byte   `json:"qos,omitempty"`
	ID     uint32 `json:"id,omitempty"`
}

type keptFlight struct {
	ID       uint16   `json:"id"`
	Root     string   `json:"root"`
	Downlink Downlink `json:"downlink"`
}

// snapshot is the state of the session; nil if nothing is worth keeping. The caller holds s.mu.
func (s *session) snapshot() ([]byte, error) {
	k := keptState{Last: s.lastDown}
	for _, f := range s.filters {
		k.Filters = append(k.Filters, keptFilter{f.root, f.filter, f.qos, f.id})
	}
	for _, f := range s.flights {
		if !f.acked {
			k.Flights = append(k.Flights, keptFlight{f.id, f.root, f.down})
		}
	}
	if k.Filters == nil && k.Flights == nil {
		return nil, nil
	}
	return json.Marshal(k)
}

// restore takes over what was kept. Downlinks that have expired meanwhile are not sent again.
func (s *session) restore(state []byte) error {
	if len(state) == 0 {
		return nil
	}
	var k keptState
	if err := json.Unmarshal(state, &k); err != nil {
		return fmt.Errorf("the state of the session: %w", err)
	}
	s.saved, s.lastDown = sha256.Sum256(state), k.Last
	for _, f := range k.Filters {
		s.filters = append(s.filters, subscription{f.Root, f.Filter, f.QoS, f.ID})
	}
	now := s.g.cfg.Clock.Now()
	for _, f := range k.Flights {
		if !f.Downlink.expired(now) {
			s.flights = append(s.flights, &flight{id: f.ID, root: f.Root, down: f.Downlink, again: true, got: newAnswer()})
		}
	}
	return nil
}

// save makes the state durable, if the session outlives its connection and anything has changed.
func (s *session) save(ctx context.Context) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	keeps := s.expiry > 0
	state, err := s.snapshot()
	s.mu.Unlock()
	if !keeps || err != nil {
		return err
	}
	sum := sha256.Sum256(state)
	if sum == s.saved {
		return nil
	}
	if err := s.g.cfg.Sessions.Save(ctx, s.peer, state); err != nil {
		return err
	}
	s.saved = sum
	return nil
}

// leave settles what the session leaves behind: its will, and what is kept of it.
func (s *session) leave(how parting) {
	will := s.will
	if how.cut {
		will = nil
	}
	if how.over {
		if will != nil && (!how.resumed || will.Delay == 0) {
			_ = s.say(will) // nobody keeps it any more; the collector has told the log
		}
		return
	}
	s.mu.Lock()
	e := Ending{Expiry: s.expiry, WillAfter: -1}
	state, err := s.snapshot()
	s.mu.Unlock()
	e.State = state
	if will != nil {
		if e.WillAfter = min(will.Delay, e.Expiry); e.WillAfter == 0 && s.say(will) == nil {
			e.WillAfter = -1
		}
	}
	if !s.noted {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.g.cfg.Limits.Opening)
	defer cancel()
	if err == nil {
		err = s.g.cfg.Sessions.End(ctx, s.peer, e)
	}
	if err != nil && !errors.Is(err, ErrStale) {
		s.g.cfg.Log.Error("the end of a session was not kept", "device", s.peer.Device, "err", err)
	}
}

// say appends the will and waits for its receipt.
func (s *session) say(w *Will) error {
	done := make(chan error, 1)
	s.g.batch.add(receipt{done: done}, w.Said(s.g.cfg.Clock.Now()))
	return <-done
}
