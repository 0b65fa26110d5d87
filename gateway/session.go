// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

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
	will    *Will         // nil: there is none, or no longer
	noted   bool          // Sessions has to hear of the end
	began   bool          // it is, or was, the session of its device
	done    chan struct{} // closed when the reader has ended
	slots   chan struct{} // a token per downlink in flight: the Receive Maximum of the device
	largest int           // Maximum Packet Size of the device; 0: any
	terse   bool          // the device wants no reason in words (Request Problem Information 0)
	named   []string      // topics that the device gave aliases to, by alias less one

	clientID string
	saving   sync.Mutex        // one save at a time; guards saved; taken before mu
	saved    [sha256.Size]byte // of the state that was saved last

	mu       sync.Mutex    // guards the fields below; taken after registry.mu
	room     sync.Cond     // unacked fell, or closing
	open     bool          // CONNACK with success was queued
	closing  bool          // nothing more is queued; the connection ends when the output is written
	cause    string        // why it ends
	out      *[]byte       // borrowed while there is output
	held     int           // what out takes from the memory of all
	writing  bool          // flush runs
	dirty    bool          // acknowledgements were queued, and a kick is due
	unacked  int           // QoS 1 publishes received and not yet acknowledged
	expiry   time.Duration // how long the session outlives its connection
	filters  []subscription
	flights  []*flight // downlinks without an answer, in the order in which they left
	lastDown uint16
	aliases  aliases // of downlinks
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
	if err := s.conn.Handshake(); err != nil { // its end, as link.shake met it
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.g.cfg.Limits.Opening)
	defer cancel()
	if err := s.conn.SetReadDeadline(time.Now().Add(s.link.patience)); err != nil {
		return err
	}
	if err := s.g.registry.add(s.link, s.g.cfg.Limits.PerPeer); err != nil { // before CONNECT, so that Cut finds it
		return err
	}
	s.peer = s.link.peer
	src, err := s.link.reader(s.conn)
	if err != nil {
		return err
	}
	s.reader = mqtt.NewReader(src, s.g.cfg.Limits.Connect)
	s.reader.OnGrow = s.hold
	err = s.connect(ctx)
	s.link.identified()
	return err
}

// hold takes memory for a packet that is larger than the first read buffer, and for the copy of its payload; without
// room in time the device hears that a quota is exceeded. It gives back when n is negative.
func (s *session) hold(n int) error {
	if n < 0 {
		s.g.memory.give(int64(-2 * n))
		return nil
	}
	if !s.g.memory.wait(int64(2*n), s.g.cfg.Limits.Partial) {
		return &mqtt.Error{Reason: mqtt.QuotaExceeded, Text: "the door has no room for a packet of this size"}
	}
	return nil
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
		return s.goodbye(p)
	}
	return &mqtt.Error{Reason: mqtt.ProtocolError, Text: p.Type().String() + " has no place here"}
}

// goodbye takes a DISCONNECT of the device, which may also say how long the session is kept.
func (s *session) goodbye(p *mqtt.Disconnect) error {
	if p.Properties.Has(mqtt.ServerReference) {
		return &mqtt.Error{Reason: mqtt.ProtocolError, Text: "a server reference from a device"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.Properties.Has(mqtt.SessionExpiry) {
		asked := seconds(p.Properties.Num(mqtt.SessionExpiry, 0))
		if s.expiry == 0 && asked > 0 && s.g.cfg.Sessions != nil { // MQTT 5.0, 3.14.2.2.2
			return &mqtt.Error{Reason: mqtt.ProtocolError, Text: "a session that was to end with its connection"}
		}
		if s.g.cfg.Sessions != nil {
			s.expiry = min(asked, s.g.cfg.Limits.Session)
		}
	}
	if p.Reason == mqtt.Success {
		s.will = nil // [MQTT-3.14.4-3]
	}
	return errBye
}

// publish takes a message of the device. Its PUBACK leaves with the batch that made it durable.
func (s *session) publish(p *mqtt.Publish) error {
	switch {
	case p.Retain:
		return &mqtt.Error{Reason: mqtt.RetainNotSupported, Text: "a retained message"}
	case p.QoS == 2:
		return &mqtt.Error{Reason: mqtt.QoSNotSupported, Text: "a message of QoS 2"}
	case p.Properties.Has(mqtt.SubscriptionID): // [MQTT-3.3.4-6]
		return &mqtt.Error{Reason: mqtt.ProtocolError, Text: "a subscription identifier in a message of a device"}
	}
	topic, err := s.unalias(p)
	if err != nil {
		return err
	}
	var rec Record
	refusal := s.afford(p)
	switch {
	case refusal == nil:
		rec, refusal = s.record(topic, p.Properties, p.Payload)
	case p.QoS == 0:
		s.g.batch.dropped.Add(1)
		return nil
	}
	if refusal != nil && refusal.Reason != mqtt.QuotaExceeded {
		s.g.refused(s.peer, rule(refusal), topic)
		if s.version == mqtt.V4 || p.QoS == 0 { // no PUBACK can say it
			s.mu.Lock()
			s.explain(topic, refusal)
			s.mu.Unlock()
			return refusal
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

// rule names what a message was refused by, for the log of refusals.
func rule(refusal *mqtt.Error) string {
	if refusal.Reason == mqtt.NotAuthorized || refusal.Reason == mqtt.TopicNameInvalid {
		return "topic.own"
	}
	return "message.form"
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

// record makes the record of a message, if the device may write to its topic and the message is what it says.
func (s *session) record(topic string, ps mqtt.Properties, payload []byte) (Record, *mqtt.Error) {
	if len(topic) > s.g.cfg.Limits.Topic {
		return Record{}, &mqtt.Error{Reason: mqtt.TopicNameInvalid, Text: fmt.Sprintf("a topic of %d bytes", len(topic))}
	}
	_, rest, ok := below(s.peer, topic)
	if !ok || !mayPublish(rest) {
		return Record{}, &mqtt.Error{Reason: mqtt.NotAuthorized, Text: "a topic that is not this device's to write, or that no part of the platform keeps"}
	}
	now := s.g.cfg.Clock.Now()
	rec := Record{Tenant: s.peer.Tenant, Device: s.peer.Device, Topic: rest, At: now.UnixMilli()}
	for _, p := range ps {
		switch p.ID {
		case mqtt.PayloadFormat:
			if p.Num == 1 && !utf8.Valid(payload) {
				return Record{}, &mqtt.Error{Reason: mqtt.PayloadFormatInvalid, Text: "the payload is called UTF-8 and is not"}
			}
		case mqtt.ContentType:
			kind, _, _ := strings.Cut(p.Str, ";")
			rec.Type = strings.ToLower(strings.TrimSpace(kind))
		case mqtt.MessageExpiry:
			rec.Expires = now.Add(seconds(p.Num)).UnixMilli()
		case mqtt.UserProperty:
			if e := rec.count(p.Str, p.Val); e != nil {
				return Record{}, e
			}
		}
	}
	rec.Body = bytes.Clone(payload)
	return rec, nil
}

// count takes the user properties boot and seq, the device's own count of its starts and messages.
func (r *Record) count(name, value string) *mqtt.Error {
	var n *uint64
	switch name {
	case "boot":
		n = &r.Boot
	case "seq":
		n = &r.Seq
	default:
		return nil
	}
	v, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return &mqtt.Error{Reason: mqtt.ImplementationError, Text: "the user property " + name + " is no number"}
	}
	*n = v
	return nil
}

// unalias finds the topic of a message whose device may have given it an alias before, on this connection.
func (s *session) unalias(p *mqtt.Publish) (string, error) {
	n := int(p.Properties.Num(mqtt.TopicAlias, 0))
	switch {
	case n == 0:
		return p.Topic, nil
	case n > s.g.cfg.Limits.Aliases:
		return "", &mqtt.Error{Reason: mqtt.TopicAliasInvalid, Text: fmt.Sprintf("topic alias %d, the most is %d", n, s.g.cfg.Limits.Aliases)}
	case p.Topic == "":
		if n > len(s.named) || s.named[n-1] == "" {
			return "", &mqtt.Error{Reason: mqtt.ProtocolError, Text: fmt.Sprintf("topic alias %d stands for nothing", n)}
		}
		return s.named[n-1], nil
	case len(p.Topic) > s.g.cfg.Limits.Topic: // refused below; not worth keeping
		return p.Topic, nil
	}
	if s.named == nil {
		s.named = make([]string, s.g.cfg.Limits.Aliases)
	}
	s.named[n-1] = p.Topic
	return p.Topic, nil
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
	case errors.Is(err, ErrStale):
		why, reason = mqtt.SessionTakenOver, err.Error()
	case errors.As(err, &refusal):
		why, reason = refusal.Reason, refusal.Reason.String()+": "+refusal.Text
		s.g.refused(s.peer, "mqtt.protocol", reason)
	case errors.Is(err, os.ErrDeadlineExceeded):
		why, reason = mqtt.KeepAliveTimeout, "silent for too long"
	}
	s.mu.Lock()
	s.finish(why, reason, nil)
	reason = s.cause // an earlier one, such as a cut, stays
	s.mu.Unlock()
	if s.began {
		how := s.g.registry.end(s)
		s.leave(how)
		if how.last {
			s.g.registry.left(s, reason)
		}
	}
}
