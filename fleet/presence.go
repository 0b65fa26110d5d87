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

// presence is what this process knows of one device. The gateway announces in order, and a device that takes its own
// session over comes twice and goes once.
type presence struct {
	tenant      string
	here        bool
	since, seen time.Time
	reason      string
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
	p.tenant, p.seen, p.reason = peer.Tenant, now, reason
	p.here = here
	if after := p.online(); after != before {
		p.since = now
		s.online[peer.Tenant] += int(after - before)
		close(s.changed)
		s.changed = make(chan struct{})
	}
	s.present[peer.Device] = p
	s.dirty[peer.Device] = true
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// OnlineCount is how many devices of the tenant have a session with this process; changed is closed at the next change.
func (s *Service) OnlineCount(tenant string) (n int, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.online[tenant], s.changed
}

// Presence returns what is known of the devices' presence; one that was never seen is absent.
func (s *Service) Presence(ctx context.Context, tenant string, devices []string) (map[string]Presence, error) {
	out, err := presences(ctx, s.cfg.DB, tenant, devices)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range devices { // rows lag behind by a moment
		if p, ok := s.present[d]; ok && p.tenant == tenant {
			out[d] = newPresence(p.here, p.since, p.seen, p.reason)
		}
	}
	return out, nil
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
			part[d] = s.present[d]
			delete(s.dirty, d)
		}
		s.mu.Unlock()
		if len(part) == 0 {
			return nil
		}
		err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
			for d, p := range part {
				if err := putPresence(tx, d, p); err != nil {
					return err
				}
			}
			return nil
		})
		s.mu.Lock()
		for d, p := range part {
			if err != nil {
				s.dirty[d] = true
			} else if !p.here && s.present[d] == p {
				delete(s.present, d)
			}
		}
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
}
