// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"fmt"
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

// full refuses when the peer has as many connections as it may.
func (r *registry) full(id string, limit int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fullLocked(id, limit)
}

func (r *registry) fullLocked(id string, limit int) error {
	if len(r.links[id]) >= limit {
		return fmt.Errorf("%s has %d connections already", id, limit)
	}
	return nil
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

// begin makes s the session of its device and returns the one it takes over. false: its connection was cut meanwhile.
func (r *registry) begin(s *session) (old *session, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.link.barred {
		return nil, false
	}
	old = r.sessions[s.peer.Device]
	r.sessions[s.peer.Device] = s
	s.link.session = s
	if f := s.g.cfg.Online; f != nil {
		r.said.say(func() { f(s.peer) })
	}
	return old, true
}

// end takes s out, unless another session took over, and says whether s was cut.
func (r *registry) end(s *session, reason string) (cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sessions[s.peer.Device] == s {
		delete(r.sessions, s.peer.Device)
		if f := s.g.cfg.Offline; f != nil {
			r.said.say(func() { f(s.peer, reason) })
		}
	}
	return s.link.barred
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

// all lists who has a connection.
func (r *registry) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []string
	for id := range r.links {
		ids = append(ids, id)
	}
	return ids
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
