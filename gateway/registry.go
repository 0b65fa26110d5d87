// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"

	"github.com/openthings-platform/openthings/wire/mqtt"
)

// registry knows every connection of a peer that was admitted and has proven its key, and each device's MQTT session.
type registry struct {
	said announcer

	mu       sync.Mutex          // guards the fields below; taken before session.mu
	links    map[string][]*link  // by Peer.id()
	sessions map[string]*session // by device
}

// add enters a connection whose handshake is over, once, so that Cut finds it from now on. It refuses more than limit
// for one peer, and a connection that is closed already.
func (r *registry) add(l *link, limit int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l.listed {
		return nil
	}
	if l.gone {
		return net.ErrClosed
	}
	id := l.peer.id()
	if err := r.fullLocked(id, limit); err != nil {
		return err
	}
	l.listed = true
	r.links[id] = append(r.links[id], l)
	return nil
}

// errFull is what a peer hears that has as many connections as it may.
var errFull = errors.New("too many connections")

// full refuses when the peer has as many connections as it may.
func (r *registry) full(id string, limit int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fullLocked(id, limit)
}

func (r *registry) fullLocked(id string, limit int) error {
	if len(r.links[id]) >= limit {
		return fmt.Errorf("%w: %s has %d", errFull, id, limit)
	}
	return nil
}

// silent finds the connection of a peer at the CoAP door that was silent longest; nil: it has none there.
func (r *registry) silent(id string) (found *link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.links[id] {
		if l.door == doorCoAP && (found == nil || l.heard.Load() < found.heard.Load()) {
			found = l
		}
	}
	return found
}

// remove takes a closed connection out.
func (r *registry) remove(l *link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.gone = true
	if !l.listed {
		return
	}
	l.listed = false
	id := l.peer.id()
	ls := r.links[id]
	if i := slices.Index(ls, l); i >= 0 {
		ls = slices.Delete(ls, i, i+1)
	}
	if len(ls) == 0 {
		delete(r.links, id)
	} else {
		r.links[id] = ls
	}
}

// begin makes s the session of its device and returns the one it takes over; resumed says that it goes on with what that
// one left. false: its connection was cut meanwhile, or a younger one was faster.
func (r *registry) begin(s *session, resumed bool) (old *session, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old = r.sessions[s.peer.Device]
	if s.link.barred || old != nil && old.peer.Generation > s.peer.Generation {
		return nil, false
	}
	if old != nil {
		old.link.over, old.link.resumed = true, resumed
	}
	r.sessions[s.peer.Device] = s
	s.link.session = s
	if f := s.g.cfg.Online; f != nil {
		r.said.say(func() { f(s.peer) })
	}
	return old, true
}

// parting is how a session came to its end.
type parting struct {
	cut     bool // by the platform, for a reason of its own
	over    bool // another connection took over
	resumed bool // and goes on with what this one left
	last    bool // no other connection of the device was on this node
}

// end takes s out, unless another session took over.
func (r *registry) end(s *session) parting {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := parting{cut: s.link.barred, over: s.link.over, resumed: s.link.resumed}
	if r.sessions[s.peer.Device] == s {
		delete(r.sessions, s.peer.Device)
		p.last = true
	}
	return p
}

// left announces that the device is offline, once what s leaves behind is settled, unless it is back.
func (r *registry) left(s *session, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := s.g.cfg.Offline; f != nil && r.sessions[s.peer.Device] == nil {
		r.said.say(func() { f(s.peer, reason) })
	}
}

// supersede notes that a session of the device has begun elsewhere, and returns the one here that it ends.
func (r *registry) supersede(device string, generation int64, resumed bool) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sessions[device]
	if s == nil || s.peer.Generation >= generation {
		return nil
	}
	s.link.over, s.link.resumed = true, resumed
	return s
}

// bar ends a connection's right to a session and a will.
func (r *registry) bar(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.link.barred = true
}

// ready announces that s listens.
func (r *registry) ready(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := s.g.cfg.Ready; f != nil && r.sessions[s.peer.Device] == s {
		r.said.say(func() { f(s.peer) })
	}
}

func (r *registry) session(device string) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sessions[device]
}

func (r *registry) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.sessions)
}

// cut bars the connections of a peer from becoming sessions and closes them.
func (r *registry) cut(id string, why mqtt.Reason, reason string) int {
	r.mu.Lock()
	ls := slices.Clone(r.links[id])
	for _, l := range ls {
		l.barred = true
	}
	r.mu.Unlock()
	return endAll(ls, why, reason)
}

// endAll closes connections that were barred, and says how many there were.
func endAll(ls []*link, why mqtt.Reason, reason string) int {
	for _, l := range ls {
		l.end(why, reason)
	}
	return len(ls)
}

// cutGroup is cut for everybody of a group.
func (r *registry) cutGroup(group string, why mqtt.Reason, reason string) int {
	r.mu.Lock()
	var found []*link
	for _, ls := range r.links {
		for _, l := range ls {
			if slices.Contains(l.peer.Groups, group) {
				l.barred = true
				found = append(found, l)
			}
		}
	}
	r.mu.Unlock()
	return endAll(found, why, reason)
}

// peers lists who is at the other end of each connection.
func (r *registry) peers() (out []Peer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ls := range r.links {
		for _, l := range ls {
			out = append(out, l.peer)
		}
	}
	return out
}

// all lists the sessions.
func (r *registry) all() []*session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Values(r.sessions))
}

// ids lists who has a connection.
func (r *registry) ids() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.links))
}

// announcer runs calls one at a time in the order they were said, without making the speaker wait.
type announcer struct {
	mu      sync.Mutex // guards the fields below
	queue   []func()
	running bool
}

func (a *announcer) say(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.queue = append(a.queue, f)
	if !a.running {
		a.running = true
		go a.run()
	}
}

func (a *announcer) run() {
	for {
		a.mu.Lock()
		queue := a.queue
		a.queue = nil
		if len(queue) == 0 {
			a.running = false
			a.mu.Unlock()
			return
		}
		a.mu.Unlock()
		for _, f := range queue {
			f()
		}
	}
}
