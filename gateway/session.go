// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/wire/mqtt"
)

// session is one MQTT connection from CONNECT on. Its goroutine reads; whoever has something to say queues it.
type session struct {
	g       *Gateway
	link    *link
	conn    *tls.Conn
	reader  *mqtt.Reader
	peer    Peer
	version mqtt.Version
	silence time.Duration // longest wait for a packet: one and a half keep-alives
	armed   time.Time     // when the read deadline was set; zero: it must be set anew
	will    *Record
	began   bool          // it is, or was, the session of its device
	done    chan struct{} // closed when the reader has ended
	slots   chan struct{} // a token per downlink in flight: the Receive Maximum of the device
	largest int           // Maximum Packet Size of the device; 0: any
	terse   bool          // the device wants no reason in words (Request Problem Information 0)

	mu       sync.Mutex // guards the fields below; taken after registry.mu
	room     sync.Cond  // unacked fell, or closing
	open     bool       // CONNACK with success was queued
	closing  bool       // nothing more is queued; the connection ends when the output is written
	cause    string     // why it ends
	out      *[]byte    // borrowed while there is output
	writing  bool       // flush runs
	dirty    bool       // acknowledgements were queued, and a kick is due
	unacked  int        // QoS 1 publishes received and not yet acknowledged
	filters  []subscription
	downs    map[uint16]chan mqtt.Reason // downlinks in flight
	lastDown uint16
}

// subscription is a filter below the device's root, in the spelling that the device chose.
type subscription struct {
	root, filter string
	qos          byte
}

// errBye is a DISCONNECT of the client.
var errBye = errors.New("disconnected by the device")

// serve runs one accepted connection of the MQTT door. Whatever happens in it ends this connection only.
func (g *Gateway) serve(l *link, conn *tls.Conn) {
	s := &session{g: g, link: l, conn: conn, version: mqtt.V4, done: make(chan struct{})}
	s.room.L = &s.mu
	s.last(s.run())
}

func (s *session) run() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
			s.g.cfg.Log.Error("a connection panicked", "device", s.peer.Device, "panic", p, "stack", string(debug.Stack()))
			s.g.refused(s.peer, "mqtt.panic", fmt.Sprint(p))
		}
	}()
	if err := s.handshake(); err != nil {
		return err
	}
	return s.loop()
}

func (s *session) handshake() error {
	if err := s.conn.SetReadDeadline(time.Now().Add(s.g.cfg.Limits.Opening)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.g.cfg.Limits.Opening)
	defer cancel()
	if err := s.conn.HandshakeContext(ctx); err != nil {
		return err
	}
	if err := s.g.registry.add(s.link, s.g.cfg.Limits.PerPeer); err != nil { // before CONNECT, so that Cut finds it
		return err
	}
	s.peer = s.link.peer
	s.reader = mqtt.NewReader(s.conn, s.g.cfg.Limits.Connect)
	err := s.connect(ctx)
	s.link.identified()
	return err
}

// loop reads packets until the connection ends.
func (s *session) loop() error {
	s.reader.Limit = s.g.cfg.Limits.Packet
	s.reader.OnPartial = func() {
		s.armed = time.Time{}
		_ = s.conn.SetReadDeadline(time.Now().Add(min(s.silence, s.g.cfg.Limits.Partial))) // fails when closed; the read says so
	}
	for {
		if now := time.Now(); now.Sub(s.armed) > s.silence/12 {
			if err := s.conn.SetReadDeadline(now.Add(s.silence + s.silence/12)); err != nil {
				return err
			}
			s.armed = now
		}
		header, body, err := s.reader.Next()
		if err != nil {
			return err
		}
		p, err := mqtt.Decode(s.version, header, body)
		if err != nil {
			return err
		}
		if err := s.receive(p); err != nil {
			return err
		}
	}
}

func (s *session) receive(p mqtt.Packet) error {
	switch p := p.(type) {
	case *mqtt.Publish:
		return s.publish(p)
	case *mqtt.Ack:
		if p.Kind == mqtt.PUBACK {
			return s.delivered(p)
		}
	case *mqtt.Subscribe:
		return s.subscribe(p)
	case *mqtt.Unsubscribe:
		return s.unsubscribe(p)
	case *mqtt.Pingreq:
		return s.send(&mqtt.Pingresp{})
	case *mqtt.Disconnect:
		if p.Reason == mqtt.Success {
			s.will = nil // [MQTT-3.14.4-3]
		}
		return errBye
	}
	return &mqtt.Error{Reason: mqtt.ProtocolError, Text: p.Type().String() + " has no place here"}
}

// publish takes a message of the device. Its PUBACK leaves with the batch that made it durable.
func (s *session) publish(p *mqtt.Publish) error {
	switch {
	case p.Retain:
		return &mqtt.Error{Reason: mqtt.RetainNotSupported, Text: "a retained message"}
	case p.QoS == 2:
		return &mqtt.Error{Reason: mqtt.QoSNotSupported, Text: "a message of QoS 2"}
	case p.Properties.Has(mqtt.TopicAlias):
		return &mqtt.Error{Reason: mqtt.TopicAliasInvalid, Text: "a topic alias"}
	}
	rec, refusal := s.record(p.Topic, p.Payload)
	if refusal != nil {
		s.g.refused(s.peer, "topic.own", p.Topic)
		if s.version == mqtt.V4 || p.QoS == 0 {
			return refusal // no PUBACK can say it
		}
	}
	if err := s.take(p.QoS); err != nil {
		return err
	}
	if p.QoS == 0 {
		s.g.batch.offer(rec)
		return nil
	}
	if refusal != nil {
		s.g.batch.add(receipt{session: s, id: p.ID, refusal: refusal})
		return nil
	}
	s.g.batch.add(receipt{session: s, id: p.ID}, rec)
	return nil
}

// take refuses publishes of a session that is being closed, and counts those that will be acknowledged. A device that
// announced its window has to keep it; a 3.1.1 device, which cannot be told, waits.
func (s *session) take(qos byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for qos > 0 && s.unacked >= s.g.cfg.Limits.Receive && !s.closing {
		if s.version == mqtt.V5 {
			return &mqtt.Error{Reason: mqtt.ReceiveMaxExceeded, Text: "more publishes in flight than allowed"}
		}
		s.room.Wait()
	}
	if s.closing {
		return io.EOF
	}
	s.unacked += int(qos)
	return nil
}

// record makes the record of a message, if the device may write to its topic.
func (s *session) record(topic string, payload []byte) (Record, *mqtt.Error) {
	if len(topic) > s.g.cfg.Limits.Topic {
		return Record{}, &mqtt.Error{Reason: mqtt.TopicNameInvalid, Text: fmt.Sprintf("a topic of %d bytes", len(topic))}
	}
	_, rest, ok := below(s.peer, topic)
	if !ok || !mayPublish(rest) {
		return Record{}, &mqtt.Error{Reason: mqtt.NotAuthorized, Text: "a topic that is not this device's to write, or that no part of the platform keeps"}
	}
	return Record{Tenant: s.peer.Tenant, Device: s.peer.Device, Topic: rest, At: s.g.cfg.Clock.Now().UnixMilli(), Body: bytes.Clone(payload)}, nil
}

// last closes the session with the reason that err deserves.
func (s *session) last(err error) {
	close(s.done)
	if s.reader != nil {
		s.reader.Release()
	}
	why, reason := mqtt.UnspecifiedError, "connection lost"
	var refusal *mqtt.Error
	switch {
	case errors.Is(err, errBye):
		why, reason = mqtt.Success, err.Error()
	case errors.As(err, &refusal):
		why, reason = refusal.Reason, refusal.Error()
		s.g.refused(s.peer, "mqtt.protocol", reason)
	case errors.Is(err, os.ErrDeadlineExceeded):
		why, reason = mqtt.KeepAliveTimeout, "silent for too long"
	}
	s.mu.Lock()
	s.finish(why, reason)
	reason = s.cause // an earlier one, such as a cut, stays
	s.mu.Unlock()
	if !s.began {
		return
	}
	if cut := s.g.registry.end(s, reason); s.will != nil && !cut {
		s.g.batch.add(receipt{done: make(chan error, 1)}, *s.will)
	}
}
