// SPDX-License-Identifier: Apache-2.0

package mqtt

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/clock"
)

// ErrClosed is what a Client's calls return after Close; after any other end they return its cause.
var ErrClosed = errors.New("mqtt: the client is closed")

// ClientConfig is how a Client behaves. The zero value is usable.
type ClientConfig struct {
	ClientID  string        // empty: the server assigns one
	KeepAlive time.Duration // between two signs of life, in whole seconds; 0 is one minute
	Window    int           // QoS 1 publishes in flight at most; 0 is 16. The server's Receive Maximum may lower it
	Limit     int           // bytes of a packet from the server; 0 is 256 KiB
	Timeout   time.Duration // for one write, and for the answer to CONNECT; 0 is 30 s

	// Keep is how long the server keeps the session when the connection has ended, in whole seconds, and goes on with it for
	// a client of the same identifier; 0: not at all. A Client itself keeps nothing: who asks for it has what was not
	// acknowledged elsewhere, and publishes it again.
	Keep time.Duration
	Will *Will // what the server says for the client when the connection ends without Close; nil: nothing

	// Handler gets the messages of subscriptions, one at a time and in order. A QoS 1 message is acknowledged when it
	// returns. It may call the Client.
	Handler func(topic string, payload []byte)

	Clock clock.Clock // nil: clock.System
}

// Client is one MQTT 5 session over a connection that it was given. Its methods are safe for concurrent use.
type Client struct {
	cfg    ClientConfig
	conn   net.Conn
	window chan struct{} // a token per publish in flight
	down   chan *Publish // received and not yet handled: the Receive Maximum that was announced, and as many of QoS 0
	done   chan struct{} // closed at the end; err is set before

	wmu sync.Mutex // serialises writes, guards out; taken after none
	out []byte

	mu      sync.Mutex // guards the fields below
	err     error
	next    uint16
	waiting map[uint16]func(Packet, error) // by packet identifier; called once
}

// downlinks is the Receive Maximum that a Client announces.
const downlinks = 16

// NewClient opens a session on conn, which it owns from now on, also when it fails. A refusal by the server is an *Error.
func NewClient(ctx context.Context, conn net.Conn, cfg ClientConfig) (*Client, error) {
	cfg.KeepAlive = cmp.Or(cfg.KeepAlive, time.Minute)
	cfg.Window = cmp.Or(cfg.Window, 16)
	cfg.Limit = cmp.Or(cfg.Limit, 256<<10)
	cfg.Timeout = cmp.Or(cfg.Timeout, 30*time.Second)
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	c := &Client{
		cfg: cfg, conn: conn, down: make(chan *Publish, 2*downlinks), done: make(chan struct{}),
		waiting: map[uint16]func(Packet, error){},
	}
	r := NewReader(conn, cfg.Limit)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	ack, err := c.open(r)
	if !stop() && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	c.window = make(chan struct{}, min(cfg.Window, int(ack.Properties.Num(ReceiveMaximum, 0xFFFF))))
	if s := ack.Properties.Num(ServerKeepAlive, 0); s > 0 {
		c.cfg.KeepAlive = time.Duration(s) * time.Second
	}
	go c.read(r)
	go c.handle()
	go c.ping()
	return c, nil
}

func (c *Client) open(r *Reader) (*Connack, error) {
	hello := &Connect{
		Version: V5, CleanStart: c.cfg.Keep == 0, ClientID: c.cfg.ClientID, KeepAlive: uint16(min(c.cfg.KeepAlive/time.Second, 0xFFFF)), Will: c.cfg.Will,
		Properties: Properties{{ID: ReceiveMaximum, Num: downlinks}, {ID: MaximumPacketSize, Num: uint32(c.cfg.Limit)}},
	}
	if c.cfg.Keep > 0 {
		hello.Properties = append(hello.Properties, Property{ID: SessionExpiry, Num: uint32(c.cfg.Keep / time.Second)})
	}
	err := c.write(hello)
	if err != nil {
		return nil, err
	}
	if err := c.conn.SetReadDeadline(time.Now().Add(c.cfg.Timeout)); err != nil {
		return nil, err
	}
	p, err := next(r)
	if err != nil {
		return nil, fmt.Errorf("mqtt: no answer to CONNECT: %w", err)
	}
	ack, ok := p.(*Connack)
	if !ok {
		return nil, violation("%s instead of CONNACK", p.Type())
	}
	if ack.Reason.Failed() {
		return nil, ended(ack.Reason, "CONNECT refused "+ack.Properties.Str(ReasonString), ack.Properties)
	}
	return ack, nil
}

// ended is what a server said when it did not want the session, with where to go instead if it said that too.
func ended(why Reason, text string, ps Properties) error {
	err := &Error{why, text}
	if to := ps.Str(ServerReference); to != "" && (why == UseAnotherServer || why == ServerMoved) {
		return &Redirect{Err: err, Server: to}
	}
	return err
}

func next(r *Reader) (Packet, error) {
	h, body, err := r.Next()
	if err != nil {
		return nil, err
	}
	return Decode(V5, h, body)
}

// Done is closed when the session has ended; Err says why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err is nil while the session lives, then its end: ErrClosed, an *Error that the server sent, or a network error.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close says goodbye and ends the session. Publishes without a PUBACK fail with ErrClosed.
func (c *Client) Close() error {
	err := c.write(&Disconnect{})
	c.end(ErrClosed)
	return err
}

// Publish sends a QoS 1 message and returns once it was acknowledged. A refusal is an *Error with the server's reason.
func (c *Client) Publish(ctx context.Context, topic string, payload []byte) error {
	got := make(chan error, 1)
	if err := c.Go(ctx, topic, payload, func(err error) { got <- err }); err != nil {
		return err
	}
	select {
	case err := <-got:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Go sends a QoS 1 message and returns without waiting for its PUBACK, as soon as the window has room. done is called
// exactly once if Go returned nil: with nil for the acknowledgement, or the reason there is none. It must not block.
func (c *Client) Go(ctx context.Context, topic string, payload []byte, done func(error)) error {
	select {
	case c.window <- struct{}{}:
	case <-c.done:
		return c.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
	p := &Publish{QoS: 1, Topic: topic, Payload: payload}
	err := c.request(func(id uint16) Packet { p.ID = id; return p }, func(answer Packet, err error) {
		<-c.window
		if err == nil {
			err = refusal(answer, PUBACK, topic)
		}
		done(err)
	})
	if err != nil {
		<-c.window
	}
	return err
}

// PublishQoS0 sends a message without any receipt.
func (c *Client) PublishQoS0(topic string, payload []byte) error {
	return c.write(&Publish{Topic: topic, Payload: payload})
}

// Subscribe asks for the messages of filters with QoS 1, and returns an *Error if the server refused any of them.
func (c *Client) Subscribe(ctx context.Context, filters ...string) error {
	s := &Subscribe{}
	for _, f := range filters {
		s.Filters = append(s.Filters, Filter{Topic: f, QoS: 1})
	}
	got := make(chan error, 1)
	err := c.request(func(id uint16) Packet { s.ID = id; return s }, func(answer Packet, err error) {
		if err == nil {
			err = refusal(answer, SUBACK, fmt.Sprint(filters))
		}
		got <- err
	})
	if err != nil {
		return err
	}
	select {
	case err := <-got:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// refusal is the error in an answer, or nil.
func refusal(answer Packet, want Type, about string) error {
	if answer.Type() != want {
		return violation("%s instead of %s", answer.Type(), want)
	}
	var rs []Reason
	switch a := answer.(type) {
	case *Ack:
		rs = []Reason{a.Reason}
		if words := a.Properties.Str(ReasonString); words != "" {
			about += ": " + words
		}
	case *Suback:
		rs = a.Reasons
	}
	for _, r := range rs {
		if r.Failed() {
			return &Error{r, about}
		}
	}
	return nil
}

// request gives a packet a free identifier, notes who waits for the answer, and sends it. On an error answered is not
// called.
func (c *Client) request(packet func(id uint16) Packet, answered func(Packet, error)) error {
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return c.err
	}
	for c.next++; c.next == 0 || c.waiting[c.next] != nil; c.next++ {
	}
	id := c.next
	c.waiting[id] = answered
	c.mu.Unlock()

	err := c.write(packet(id))
	if err != nil && c.answered(id) == nil {
		return nil // the session ended meanwhile, and answered was called with the cause
	}
	return err
}

// answered takes who waits for id off the list.
func (c *Client) answered(id uint16) func(Packet, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.waiting[id]
	delete(c.waiting, id)
	return f
}

func (c *Client) write(p Packet) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	b, err := Append(c.out[:0], V5, p)
	if err != nil {
		return err
	}
	if c.out = b; cap(b) > chunk {
		c.out = nil
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.cfg.Timeout)); err != nil {
		return err
	}
	if _, err = c.conn.Write(b); err != nil {
		c.conn.Close() // half a packet may be out: nothing can follow it
	}
	return err
}

// read is the session's receiving half; it ends with the connection.
func (c *Client) read(r *Reader) {
	for {
		// Pings go out once per keep-alive, and each is answered: longer silence is a dead connection.
		err := c.conn.SetReadDeadline(time.Now().Add(c.cfg.KeepAlive + c.cfg.Timeout))
		if err == nil {
			var p Packet
			if p, err = next(r); err == nil {
				err = c.receive(p)
			}
		}
		if err != nil {
			c.end(err)
			return
		}
	}
}

func (c *Client) receive(p Packet) error {
	switch p := p.(type) {
	case *Publish:
		if p.QoS == 0 && len(c.down) >= downlinks {
			return nil // a handler that is too slow for messages without receipt misses some
		}
		p.Payload = bytes.Clone(p.Payload)
		select {
		case c.down <- p:
		default:
			return &Error{ReceiveMaxExceeded, "more messages in flight than were asked for"}
		}
	case *Ack:
		if p.Kind != PUBACK {
			return violation("%s is not for QoS 1", p.Kind)
		}
		return c.answer(p.ID, p)
	case *Suback:
		return c.answer(p.ID, p)
	case *Pingresp:
	case *Disconnect:
		return ended(p.Reason, "the server ended the session", p.Properties)
	default:
		return violation("%s is not for a client", p.Type())
	}
	return nil
}

func (c *Client) answer(id uint16, p Packet) error {
	f := c.answered(id)
	if f == nil {
		return violation("%s for identifier %d, which is not in use", p.Type(), id)
	}
	f(p, nil)
	return nil
}

func (c *Client) handle() {
	for {
		select {
		case p := <-c.down:
			if c.cfg.Handler != nil {
				c.cfg.Handler(p.Topic, p.Payload)
			}
			if p.QoS == 1 {
				if err := c.write(&Ack{Kind: PUBACK, ID: p.ID}); err != nil {
					c.end(err)
					return
				}
			}
		case <-c.done:
			return
		}
	}
}

func (c *Client) ping() {
	for {
		t := c.cfg.Clock.NewTimer(c.cfg.KeepAlive)
		select {
		case <-t.C:
			if err := c.write(&Pingreq{}); err != nil {
				c.end(err)
				return
			}
		case <-c.done:
			t.Stop()
			return
		}
	}
}

// end closes the session once, with err as its cause.
func (c *Client) end(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	waiting := c.waiting
	c.waiting = nil
	c.mu.Unlock()

	close(c.done)
	c.conn.Close()
	for _, f := range waiting {
		f(nil, err)
	}
}
