// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of what a peer of the CoAP door can send.
const (
	maxDatagram = 2 << 10  // bytes of a datagram; one that is not cut up by the network has 1,472
	maxPlain    = 64 << 10 // bytes outside of encryption in the life of an association: a handshake with some repetitions
	maxQueued   = 16       // datagrams that an association has not read yet; further ones are lost, as on any network
	cidLength   = 8        // bytes of a connection ID
)

type connID [cidLength]byte

// shore is the socket of the CoAP door. It brings each datagram to its flow: by the connection ID that the device was
// given (RFC 9146), also after its address has changed, otherwise by the address.
type shore struct {
	sock *net.UDPConn
	meet func(*shore, *flow) bool // begins to serve a new flow, without waiting; false: there is no room for it

	mu    sync.Mutex // guards the fields below
	known map[netip.AddrPort]*flow
	young map[netip.AddrPort]*flow // in the handshake; beside a known one of the same address until it has succeeded
	byID  map[connID]*flow
	// strangers are young flows whose peers have not shown that they receive what is sent to them, the oldest first; some
	// are that no longer.
	strangers []*flow
	shut      bool // nobody new is let in, and the socket is closed when the last one has left
}

func newShore(sock *net.UDPConn, meet func(*shore, *flow) bool) *shore {
	return &shore{sock: sock, meet: meet, known: map[netip.AddrPort]*flow{}, young: map[netip.AddrPort]*flow{}, byID: map[connID]*flow{}}
}

// next takes the next datagram. One that is too long is not heard.
func (s *shore) next(b *[maxDatagram + 1]byte) error {
	n, from, err := s.sock.ReadFromUDPAddrPort(b[:])
	if err == nil && n <= maxDatagram {
		s.bring(b[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
	}
	return err
}

// bring gives a datagram to whom it belongs. A ClientHello begins a new flow, also from an address that has one: the
// device may have started anew (RFC 6347, section 4.2.8), or another one got the address.
func (s *shore) bring(b []byte, from netip.AddrPort) {
	r, ok := inspect(b)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.id != nil {
		if f := s.byID[connID(r.id)]; f != nil {
			f.take(b, from, 0)
		}
		return
	}
	young := s.young[from]
	if r.hello && young == nil && !s.shut {
		if young = newFlow(s, from); !s.meet(s, young) {
			return
		}
		s.young[from] = young
		if len(s.strangers) > 2*len(s.young)+maxQueued {
			s.strangers = slices.DeleteFunc(s.strangers, func(f *flow) bool { return s.young[f.from] != f })
		}
		s.strangers = append(s.strangers, young)
	}
	if young != nil {
		young.take(b, from, r.plain)
	}
	if f := s.known[from]; f != nil && (young == nil || r.plain == 0) {
		f.take(b, from, r.plain)
	}
}

// stranger takes the oldest flow out whose peer has not answered the door's first message. The caller holds mu.
func (s *shore) stranger() *flow {
	for len(s.strangers) > 0 {
		f := s.strangers[0]
		s.strangers = s.strangers[1:]
		if !f.greeted.Load() && s.young[f.from] == f {
			return f
		}
	}
	return nil
}

// flows lists who is there and has proven who it is.
func (s *shore) flows() []*flow {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*flow
	for _, f := range s.known {
		out = append(out, f)
	}
	for _, f := range s.byID {
		if s.known[f.from] != f && s.young[f.from] != f {
			out = append(out, f)
		}
	}
	return out
}

// settle ends the youth of a flow: its peer has proven who it is. Whoever had the address before is gone, unless it has a
// connection ID and may be somewhere else.
func (s *shore) settle(f *flow) (gone *flow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.young[f.from] != f {
		return nil // closed meanwhile
	}
	delete(s.young, f.from)
	before := s.known[f.from]
	s.known[f.from] = f
	if before != nil && before.named {
		return nil
	}
	return before
}

// name gives a flow the connection ID by which it is found from now on.
func (s *shore) name(f *flow) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !f.named {
		rand.Read(f.id[:])
		f.named = true
		s.byID[f.id] = f
	}
	return f.id[:]
}

func (s *shore) forget(f *flow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.leave()
	if s.young[f.from] == f {
		delete(s.young, f.from)
	}
	if s.known[f.from] == f {
		delete(s.known, f.from)
	}
	if f.named {
		delete(s.byID, f.id)
	}
}

// Close lets nobody in any more. The socket stays open for those who are there.
func (s *shore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shut = true
	s.leave()
	return nil
}

// leave closes the socket behind the last one. The caller holds mu.
func (s *shore) leave() {
	if s.shut && len(s.young)+len(s.known)+len(s.byID) == 0 {
		s.sock.Close()
	}
}

// records is what a datagram consists of, as far as it can be seen from outside.
type records struct {
	id    []byte // the connection ID of its first record
	hello bool   // its first record is a ClientHello
	plain int    // bytes outside of encryption
}

// The types of records and handshake messages that a client sends (RFC 5246, RFC 9146).
const (
	recordHeader = 13
	changeCipher = 20
	alert        = 21
	handshake    = 22
	application  = 23
	withID       = 25

	clientHello       = 1
	serverHello       = 2
	certificate       = 11
	certificateVerify = 15
	clientKeyExchange = 16
)

// inspect walks over the records of a datagram. Whatever a client of DTLS 1.2 has no reason to send does not get as far
// as the parsers of DTLS: false.
func inspect(b []byte) (r records, ok bool) {
	for first := true; first || len(b) > 0; first = false {
		if len(b) < recordHeader || b[1] != 0xFE || b[2] != 0xFD && b[2] != 0xFF {
			return r, false
		}
		head := recordHeader
		if b[0] == withID {
			if head += cidLength; len(b) < head {
				return r, false
			}
			if first {
				r.id = b[11 : 11+cidLength]
			}
		}
		n := head + int(binary.BigEndian.Uint16(b[head-2:]))
		if n == head || len(b) < n {
			return r, false
		}
		if epoch := binary.BigEndian.Uint16(b[3:]); epoch == 0 {
			if !plainRecord(b[0], b[recordHeader:n]) {
				return r, false
			}
			r.plain += n
			r.hello = r.hello || first && b[0] == handshake && b[recordHeader] == clientHello
		} else if b[0] < changeCipher || b[0] > application && b[0] != withID {
			return r, false
		}
		b = b[n:]
	}
	return r, true
}

// plainRecord says whether a client may send such a record outside of encryption.
func plainRecord(kind byte, content []byte) bool {
	switch kind {
	case changeCipher, alert:
		return true
	case handshake:
		switch content[0] {
		case clientHello, certificate, certificateVerify, clientKeyExchange:
			return true
		}
	}
	return false
}

// flow is the datagrams of one association, as the net.PacketConn under its DTLS.
type flow struct {
	shore *shore
	from  netip.AddrPort // where its handshake came from
	in    chan datagram
	done  chan struct{}
	once  sync.Once
	gate  gate
	link  *link // set by whoever serves it, before its first datagram

	greeted atomic.Bool // the peer has repeated its hello with the cookie that was sent to it

	// guarded by shore.mu
	id    connID
	named bool
	plain int // bytes outside of encryption so far

	mu      sync.Mutex    // guards expired
	expired chan struct{} // closed: the deadline of reads has passed
}

type datagram struct {
	b    []byte
	from netip.AddrPort
}

func newFlow(s *shore, from netip.AddrPort) *flow {
	return &flow{shore: s, from: from, in: make(chan datagram, maxQueued), done: make(chan struct{}), expired: make(chan struct{})}
}

// hear notes that the peer was heard, heard says when.
func (f *flow) hear(now time.Time) { f.link.heard.Store(now.UnixNano()) }
func (f *flow) heard() time.Time   { return time.Unix(0, f.link.heard.Load()) }

// take queues a copy of a datagram, or loses it. The caller holds shore.mu.
func (f *flow) take(b []byte, from netip.AddrPort, plain int) {
	if f.plain += plain; f.plain > maxPlain && plain > 0 {
		return
	}
	select {
	case f.in <- datagram{bytes.Clone(b), from}:
	default:
	}
}

// ReadFrom waits for the next datagram. Between two of them others compute.
func (f *flow) ReadFrom(b []byte) (int, net.Addr, error) {
	f.gate.rest()
	f.mu.Lock()
	expired := f.expired
	f.mu.Unlock()
	select {
	case <-f.done:
		return 0, nil, net.ErrClosed
	case <-expired:
		return 0, nil, os.ErrDeadlineExceeded
	case d := <-f.in:
		f.gate.work()
		return copy(b, d.b), net.UDPAddrFromAddrPort(d.from), nil
	}
}

// WriteTo sends a datagram to where the peer was heard last.
func (f *flow) WriteTo(b []byte, to net.Addr) (int, error) {
	select {
	case <-f.done:
		return 0, net.ErrClosed
	default:
	}
	if len(b) > recordHeader && b[0] == handshake && b[recordHeader] == serverHello {
		f.greeted.Store(true)
	}
	return f.shore.sock.WriteTo(b, to)
}

// Close forgets the flow; its socket is that of all.
func (f *flow) Close() error {
	f.once.Do(func() {
		close(f.done)
		f.shore.forget(f)
	})
	return nil
}

// LocalAddr is the address of the door.
func (f *flow) LocalAddr() net.Addr { return f.shore.sock.LocalAddr() }

// SetReadDeadline ends reads at once when t has passed, and lets them wait again when t is zero. These are the two uses
// that DTLS has for it, which keeps its own time.
func (f *flow) SetReadDeadline(t time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.expired:
		if t.IsZero() {
			f.expired = make(chan struct{})
		}
	default:
		if !t.IsZero() {
			close(f.expired)
		}
	}
	return nil
}

// SetWriteDeadline has no effect: a datagram does not wait for its peer.
func (f *flow) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline is SetReadDeadline.
func (f *flow) SetDeadline(t time.Time) error { return f.SetReadDeadline(t) }

// gate is the governor's permission to compute, while there is a handshake.
type gate struct {
	governor *governor

	mu      sync.Mutex // guards the fields below
	shaking bool
	working bool
	begun   bool
}

// work waits for the permission, if there is a handshake and it has none.
func (g *gate) work() {
	g.mu.Lock()
	need, begun := g.shaking && !g.working, g.begun
	g.mu.Unlock()
	if !need {
		return
	}
	g.governor.work(begun)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.working, g.begun = true, true
	if !g.shaking { // it ended meanwhile
		g.restLocked()
	}
}

// rest gives the permission back.
func (g *gate) rest() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.restLocked()
}

func (g *gate) restLocked() {
	if g.working {
		g.working = false
		g.governor.rest()
	}
}

// open begins the handshake, close ends it.
func (g *gate) open(v *governor) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.governor, g.shaking = v, true
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shaking = false
	g.restLocked()
}
