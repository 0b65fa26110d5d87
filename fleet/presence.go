// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/store"
)

// Presence says whether a device has a live session.
type Presence struct {
	Online   bool       `json:"online"`
	Since    *time.Time `json:"since,omitempty" doc:"Since when it is online or offline"`
	LastSeen *time.Time `json:"last_seen,omitempty"`
	Reason   string     `json:"reason,omitempty" doc:"Why its last session ended"`
}

func newPresence(online bool, since, seen time.Time, reason string) Presence {
	p := Presence{Online: online, Reason: reason}
	if !since.IsZero() {
		p.Since, p.LastSeen = &since, &seen
	}
	return p
}

// Connection is one connection of a device, as it was.
type Connection struct {
	Node   string     `json:"node" doc:"The process that the device was connected to"`
	From   time.Time  `json:"from"`
	To     *time.Time `json:"to,omitempty" doc:"Absent: it lasts"`
	Reason string     `json:"reason,omitempty" doc:"Why it ended"`
}

// reasonTakenOver is why the connection before ended: the gateway announces the new one only.
const reasonTakenOver = "another connection of the device took over"

// presence is what this process knows of one device. The gateway announces in order, and a device that takes its own
// session over comes twice and goes once.
type presence struct {
	tenant      string
	here        bool
	since, seen time.Time
	reason      string
	generation  int64        // of the session that was announced last
	news        []connection // not written yet, the oldest first
}

// connection is a change that is not written yet.
type connection struct {
	from   time.Time // zero: it is one that was written before
	to     time.Time // zero: it lasts
	reason string
}

// maxNews bounds what a device that comes and goes without end leaves in memory between two writes.
const maxNews = connectionsKept

func (p *presence) begin(at time.Time) {
	if p.here {
		p.end(at, reasonTakenOver)
	}
	if len(p.news) == maxNews {
		p.news = p.news[1:]
	}
	p.news = append(p.news, connection{from: at})
}

func (p *presence) end(at time.Time, reason string) {
	if n := len(p.news); n > 0 && p.news[n-1].to.IsZero() {
		p.news[n-1].to, p.news[n-1].reason = at, reason
		return
	}
	p.news = append(p.news, connection{to: at, reason: reason})
}

func (p presence) online() int64 {
	if p.here {
		return 1
	}
	return 0
}

// Online notes a new session; it is the gateway's hook and does not block.
func (s *Service) Online(peer gateway.Peer) { s.note(peer, true, "") }

// Offline notes the end of a session and why.
func (s *Service) Offline(peer gateway.Peer, reason string) { s.note(peer, false, reason) }

func (s *Service) note(peer gateway.Peer, here bool, reason string) {
	if peer.Device == "" {
		return
	}
	now := s.cfg.Clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.present[peer.Device]
	before := p.online()
	switch {
	case here:
		p.begin(now)
	case p.here:
		p.end(now, reason)
	}
	p.tenant, p.seen, p.reason, p.generation = peer.Tenant, now, reason, peer.Generation
	p.here = here
	if after := p.online(); after != before {
		p.since = now
		s.online[peer.Tenant] += int(after - before)
		s.stirLocked()
	}
	s.present[peer.Device] = p
	s.dirty[peer.Device] = true
	s.poke()
}

// poke wakes Work.
func (s *Service) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// stirLocked tells whoever waits that somebody came or went.
func (s *Service) stirLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// OnlineCount is how many devices of the tenant have a session, those at other nodes as they said last; changed is
// closed at the next change.
func (s *Service) OnlineCount(tenant string) (n int, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.online[tenant] + s.elsewhere[tenant], s.changed
}

// Live says whether the device has a session, and at which node. Node returns this one's name.
func (s *Service) Live(ctx context.Context, tenant, device string) (node string, live bool, err error) {
	s.mu.Lock()
	p, known := s.present[device]
	s.mu.Unlock()
	if known && p.here && p.tenant == tenant {
		return s.holder, true, nil
	}
	return liveAt(ctx, s.cfg.DB, tenant, device)
}

// Node names this process among those that devices connect to.
func (s *Service) Node() string { return s.holder }

// Presence returns what is known of the devices' presence; one that was never seen is absent.
func (s *Service) Presence(ctx context.Context, tenant string, devices []string) (map[string]Presence, error) {
	out, err := presences(ctx, s.cfg.DB, tenant, devices)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range devices { // rows lag behind by a moment
		p, ok := s.present[d]
		if !ok || p.tenant != tenant || !p.here && out[d].Online && out[d].Since.After(p.since) { // it is at another node meanwhile
			continue
		}
		out[d] = newPresence(p.here, p.since, p.seen, p.reason)
	}
	return out, nil
}

// Connections returns the device's last connections, the newest first.
func (s *Service) Connections(ctx context.Context, tenant, device string) ([]Connection, error) {
	return connections(ctx, s.cfg.DB, tenant, device)
}

// flush writes what changed, in steps. Devices that are offline leave the memory once their row is written.
func (s *Service) flush(ctx context.Context) error {
	for {
		part := map[string]presence{}
		s.mu.Lock()
		for d := range s.dirty {
			if len(part) == 500 {
				break
			}
			p := s.present[d]
			part[d] = p
			p.news = nil
			s.present[d] = p
			delete(s.dirty, d)
		}
		s.mu.Unlock()
		if len(part) == 0 {
			return nil
		}
		err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
			for d, p := range part {
				if err := putPresence(tx, s.holder, d, p); err != nil {
					return err
				}
			}
			return nil
		})
		s.mu.Lock()
		for d, p := range part {
			switch now := s.present[d]; {
			case err != nil:
				now.news = append(p.news, now.news...)
				now.news = now.news[max(0, len(now.news)-maxNews):]
				s.present[d], s.dirty[d] = now, true
			case !now.here && !s.dirty[d]:
				delete(s.present, d)
			}
		}
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
}
