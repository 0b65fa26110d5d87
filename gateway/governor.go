// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"net"
	"net/netip"
	"sync"
)

// governor keeps a storm of new connections from harming those that are there. Only so many handshakes compute at the
// same time, the rest of the processors belongs to established sessions; while a handshake waits for its peer or for the
// register it gives its place to another. Those that wait stand in a line whose length is bounded, in all and per
// source; beyond it a connection is closed before TLS costs anything.
type governor struct {
	limits Limits

	mu      sync.Mutex // guards the fields below
	open    int        // connections of both doors
	half    map[*link]struct{}
	doors   map[string]int       // half-open connections by door
	sources map[netip.Prefix]int // half-open connections by source
	working int                  // handshakes that compute
	lines   [2][]chan struct{}   // who waits to compute: those whose handshake has cost something go first
	refused map[string]int64     // connections turned away, by why
}

func newGovernor(l Limits) *governor {
	return &governor{limits: l, half: map[*link]struct{}{}, doors: map[string]int{}, sources: map[netip.Prefix]int{}, refused: map[string]int64{}}
}

// Why a connection was turned away.
const (
	refusedDoor   = "door"        // too many half-open connections
	refusedSource = "source"      // too many half-open connections of one source
	refusedAll    = "connections" // too many connections
)

// source is whom a connection is counted with: an IPv4 address, or the network of an IPv6 address, of which one
// subscriber has 2^64.
func source(a net.Addr) netip.Prefix {
	at, ok := a.(interface{ AddrPort() netip.AddrPort }) // of TCP and UDP
	if !ok {
		return netip.Prefix{}
	}
	ip := at.AddrPort().Addr().Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits) // the zero address has the zero prefix
	return p
}

// enter counts a new connection as half-open, or says why it is turned away.
func (v *governor) enter(l *link) (why string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.open >= v.limits.Connections:
		why = refusedAll
	case v.doors[l.entry] >= v.limits.Pending:
		why = refusedDoor
	case v.sources[l.source] >= v.limits.PerSource:
		why = refusedSource
	}
	if why != "" {
		v.refused[why]++
		return why
	}
	v.open++
	v.half[l] = struct{}{}
	v.doors[l.entry]++
	v.sources[l.source]++
	return ""
}

// known ends the time in which a connection counts as half-open.
func (v *governor) known(l *link) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.knownLocked(l)
}

func (v *governor) knownLocked(l *link) {
	if _, ok := v.half[l]; !ok {
		return
	}
	delete(v.half, l)
	v.doors[l.entry]--
	if v.sources[l.source]--; v.sources[l.source] == 0 {
		delete(v.sources, l.source)
	}
}

// gone forgets a connection that was let in. It is called once.
func (v *governor) gone(l *link) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.knownLocked(l)
	v.open--
}

// unknown lists the half-open connections.
func (v *governor) unknown() (out []*link) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for l := range v.half {
		out = append(out, l)
	}
	return out
}

// work waits for the right to compute; begun says that this handshake computed before.
func (v *governor) work(begun bool) {
	v.mu.Lock()
	if v.working < v.limits.Handshakes {
		v.working++
		v.mu.Unlock()
		return
	}
	line := &v.lines[1]
	if begun {
		line = &v.lines[0]
	}
	turn := make(chan struct{})
	*line = append(*line, turn)
	v.mu.Unlock()
	<-turn
}

// rest gives the right to compute to the next in line.
func (v *governor) rest() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i, line := range v.lines {
		if len(line) > 0 {
			v.lines[i] = line[1:]
			close(line[0])
			return
		}
	}
	v.working--
}

// Load is how much the doors have to do, for whoever watches them. What is counted is counted since the start.
type Load struct {
	Sessions    int              `json:"sessions"`    // MQTT sessions
	Connections int              `json:"connections"` // of all doors
	HalfOpen    int              `json:"half_open"`   // of them: that have not said who they are
	Working     int              `json:"working"`     // handshakes that compute
	Waiting     int              `json:"waiting"`     // handshakes that wait to compute
	Refused     map[string]int64 `json:"refused"`     // connections turned away before TLS: by "door", "source", "connections"
	Held        int64            `json:"held_bytes"`  // bytes of packets, bodies and output that count against Limits.Memory
	Starved     int64            `json:"starved"`     // packets, bodies and outputs that found no room there
	Dropped     int64            `json:"dropped"`     // QoS 0 messages that found no room
}

// Load says how the doors are doing.
func (g *Gateway) Load() Load {
	v := g.governor
	v.mu.Lock()
	defer v.mu.Unlock()
	l := Load{
		Sessions: g.Count(), Connections: v.open, HalfOpen: len(v.half), Working: v.working, Waiting: len(v.lines[0]) + len(v.lines[1]),
		Refused: map[string]int64{refusedDoor: v.refused[refusedDoor], refusedSource: v.refused[refusedSource], refusedAll: v.refused[refusedAll]},
		Dropped: g.Dropped(),
	}
	l.Held, l.Starved = g.memory.numbers()
	return l
}
