// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/wire/coap"
)

// Times of RFC 7252, section 4.8, with the default parameters.
const (
	ackTimeout       = 2 * time.Second
	maxRetransmit    = 4
	exchangeLifetime = 247 * time.Second // how long the ID of a confirmable message is not used again
	nonLifetime      = 145 * time.Second // and of another one
)

// Bounds of one association.
const (
	freeExchanges = 64  // exchanges that cost no more than the association itself
	exchangeCost  = 256 // bytes of memory of each further one
)

// dialogue is the CoAP of one association: the message layer of RFC 7252, section 4.
type dialogue struct {
	g     *Gateway
	link  *link
	conn  net.Conn
	done  chan struct{} // closed when the association has ended
	alone chan struct{} // holds the right to have a confirmable message on the way: NSTART is 1

	mu      sync.Mutex // guards the fields below
	seen    map[uint16]*exchange
	line    []*exchange // in the order in which they came
	working int         // requests without an answer
	bodies  map[string]*assembly
	lastID  uint16
	waiting map[uint16]chan struct{} // confirmable messages of the door without an answer
}

// exchange is a request that is not to be carried out twice.
type exchange struct {
	id    uint16
	until time.Time // its ID may be used again then
	reply []byte    // what a repetition is answered with; nil: there is no answer yet
	con   bool
	acked bool // its peer was told to wait
}

func newDialogue(g *Gateway, l *link, conn net.Conn) *dialogue {
	return &dialogue{
		g: g, link: l, conn: conn, done: make(chan struct{}), alone: make(chan struct{}, 1), lastID: uint16(rand.Uint32()),
		seen: map[uint16]*exchange{}, bodies: map[string]*assembly{}, waiting: map[uint16]chan struct{}{},
	}
}

// end gives back what the association held.
func (d *dialogue) end() {
	close(d.done)
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.line) > 0 {
		d.forgetFirst()
	}
	for key := range d.bodies {
		d.drop(key)
	}
}

// receive takes a datagram. It does not keep b.
func (d *dialogue) receive(b []byte) {
	b = bytes.Clone(b)
	m, err := coap.Decode(b)
	switch {
	case errors.Is(err, coap.ErrVersion):
	case err != nil:
		if len(b) >= 4 && m.Type == coap.Confirmable {
			d.write(coap.Message{Type: coap.Reset, ID: m.ID})
		}
		d.g.refused(d.link.peer, "coap.format", err.Error())
	case m.Type == coap.Acknowledgement || m.Type == coap.Reset:
		d.answered(m.ID)
	case m.Code.IsRequest():
		d.request(m)
	case m.Type == coap.Confirmable: // a ping, or an answer to nothing
		d.write(coap.Message{Type: coap.Reset, ID: m.ID})
	}
}

// request begins to work on a request, unless it is known: then it is answered again, or its peer is told to wait.
func (d *dialogue) request(m coap.Message) {
	option, refused := m.Refused()
	if refused && m.Type == coap.NonConfirmable {
		return // RFC 7252, section 5.4.1
	}
	d.mu.Lock()
	now := d.g.cfg.Clock.Now()
	for len(d.line) > 0 && !now.Before(d.line[0].until) {
		d.forgetFirst()
	}
	if x := d.seen[m.ID]; x != nil && now.Before(x.until) {
		reply := x.reply
		if reply == nil && x.con {
			x.acked = true
			reply = acknowledgement(m.ID)
		}
		d.mu.Unlock()
		d.send(reply)
		return
	}
	if wait, ok := d.admit(); !ok {
		d.mu.Unlock()
		d.write(respond(m, d.newID(), busyAnswer(wait)))
		return
	}
	x := &exchange{id: m.ID, con: m.Type == coap.Confirmable, until: now.Add(nonLifetime)}
	if x.con {
		x.until = now.Add(exchangeLifetime)
	}
	d.seen[m.ID] = x
	d.line = append(d.line, x)
	d.working++
	d.mu.Unlock()
	d.g.answering.RLock()
	go d.work(x, m, option, refused)
}

// admit says whether one more exchange may begin, and otherwise how long to wait. The caller holds mu.
func (d *dialogue) admit() (wait time.Duration, ok bool) {
	switch {
	case d.working >= d.g.cfg.Limits.Receive:
		return time.Second, false
	case len(d.line) >= d.g.cfg.Limits.Exchanges:
		return d.line[0].until.Sub(d.g.cfg.Clock.Now()), false
	case len(d.line) >= freeExchanges && !d.g.memory.try(exchangeCost, 4):
		return comeBack, false
	}
	return 0, true
}

// forgetFirst forgets the oldest exchange. The caller holds mu.
func (d *dialogue) forgetFirst() {
	x := d.line[0]
	d.line = d.line[1:]
	if d.seen[x.id] == x {
		delete(d.seen, x.id)
	}
	if len(d.line) >= freeExchanges {
		d.g.memory.give(exchangeCost)
	}
}

// work answers a request. A panic in it is the end of this request only.
func (d *dialogue) work(x *exchange, m coap.Message, option coap.Option, refused bool) {
	var a coap.Message
	func() {
		defer func() {
			if p := recover(); p != nil {
				d.g.cfg.Log.Error("a request panicked", "device", d.link.peer.Device, "panic", p, "stack", string(debug.Stack()))
				a = coap.Message{Code: coap.InternalError}
			}
		}()
		if refused {
			a = optionAnswer(option)
		} else {
			a = d.answer(&m)
		}
	}()
	d.mu.Lock()
	id, separate := d.newIDLocked(), x.acked
	r := respond(m, id, a)
	if separate {
		r.Type, r.ID = coap.Confirmable, id
	}
	b, err := coap.Append(nil, r)
	if err != nil { // an answer of this door that is none
		d.g.cfg.Log.Error("an answer cannot be written", "err", err)
	}
	switch {
	case separate:
		x.reply = acknowledgement(x.id)
	case m.Code == coap.GET: // it changes nothing: rather done twice than kept
		x.until = time.Time{}
	default:
		x.reply = b
	}
	d.mu.Unlock()
	if !separate {
		d.send(b)
	}
	d.g.answering.RUnlock()
	if separate {
		d.confirm(id, b)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.working--
}

// acknowledgement is an empty one: what it answers came, and is answered later.
func acknowledgement(id uint16) []byte {
	return []byte{1<<6 | byte(coap.Acknowledgement)<<4, byte(coap.Empty), byte(id >> 8), byte(id)}
}

// respond makes a the answer to m: in the acknowledgement of a confirmable request, otherwise in a message of its own.
func respond(m coap.Message, id uint16, a coap.Message) coap.Message {
	a.Type, a.ID, a.Token = coap.NonConfirmable, id, m.Token
	if m.Type == coap.Confirmable {
		a.Type, a.ID = coap.Acknowledgement, m.ID
	}
	return a
}

func (d *dialogue) newID() uint16 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.newIDLocked()
}

func (d *dialogue) newIDLocked() uint16 {
	d.lastID++
	return d.lastID
}

// confirm sends a confirmable message until it is answered, as often as RFC 7252, section 4.2 says.
func (d *dialogue) confirm(id uint16, b []byte) {
	select {
	case d.alone <- struct{}{}:
		defer func() { <-d.alone }()
	case <-d.done:
		return
	}
	answer := make(chan struct{})
	d.mu.Lock()
	d.waiting[id] = answer
	d.mu.Unlock()
	defer d.answered(id)
	patience := ackTimeout + rand.N(ackTimeout/2)
	for range 1 + maxRetransmit {
		d.send(b)
		timer := d.g.cfg.Clock.NewTimer(patience)
		select {
		case <-answer:
			timer.Stop()
			return
		case <-d.done:
			timer.Stop()
			return
		case <-timer.C:
			patience *= 2
		}
	}
}

// answered takes an acknowledgement or a reset of a message of the door.
func (d *dialogue) answered(id uint16) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if answer := d.waiting[id]; answer != nil {
		close(answer)
		delete(d.waiting, id)
	}
}

func (d *dialogue) write(m coap.Message) {
	b, err := coap.Append(nil, m)
	if err != nil {
		d.g.cfg.Log.Error("an answer cannot be written", "err", err)
		return
	}
	d.send(b)
}

// send sends a datagram. One that is lost on the way, or at the end of the association, is the network's business.
func (d *dialogue) send(b []byte) {
	if len(b) > 0 {
		_, _ = d.conn.Write(b)
	}
}

// diagnose is an answer that says in words why not (RFC 7252, section 5.5.2), the rule first.
func diagnose(code coap.Code, rule, format string, args ...any) coap.Message {
	return coap.Message{Code: code, Payload: []byte(rule + ": " + fmt.Sprintf(format, args...))}
}

// busyAnswer refuses for now.
func busyAnswer(wait time.Duration) coap.Message {
	a := diagnose(coap.Unavailable, "door.busy", "the door has no room for a further request now")
	a.Set(coap.MaxAge, uint32(wait/time.Second)+1)
	return a
}

func optionAnswer(o coap.Option) coap.Message {
	return diagnose(coap.BadOption, "coap.option", "option %d is critical and not understood here, has a wrong value, or is there twice", o.Number)
}
