// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/openthings-platform/openthings/wire/mqtt"
)

// connect reads CONNECT and answers it. Who the device is was settled by its certificate; user name, password and
// client identifier decide nothing.
func (s *session) connect(ctx context.Context) error {
	header, body, err := s.reader.Next()
	if err == nil && mqtt.Type(header>>4) != mqtt.CONNECT { // [MQTT-3.1.0-1]
		err = &mqtt.Error{Reason: mqtt.ProtocolError, Text: "the first packet is no CONNECT"}
	}
	if err != nil {
		return err
	}
	p, err := mqtt.Decode(s.version, header, body)
	var e *mqtt.Error
	if errors.As(err, &e) {
		if e.Reason == mqtt.UnsupportedVersion {
			return s.reject(e) // in the form of 3.1.1, which every client reads
		}
		return err
	}
	c := p.(*mqtt.Connect)
	s.version = c.Version
	if e := s.acceptable(c); e != nil {
		return s.reject(e)
	}
	if err := s.g.again(ctx, s.link); err != nil {
		return s.reject(&mqtt.Error{Reason: mqtt.NotAuthorized, Text: err.Error()})
	}
	ack := s.agree(c)

	old, ok := s.g.registry.begin(s)
	if !ok {
		return io.EOF
	}
	s.began = true
	if old != nil {
		old.close(mqtt.SessionTakenOver, "another connection of the device took over")
		if f := s.g.cfg.TakenOver; f != nil {
			f(old.peer, s.peer)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.queue(ack); err != nil {
		return err
	}
	s.open = true
	s.start()
	return nil
}

// reject answers CONNECT with a failure and returns it.
func (s *session) reject(e *mqtt.Error) error {
	if err := s.send(&mqtt.Connack{Reason: e.Reason}); err != nil {
		return err
	}
	return e
}

// acceptable says what in a well-formed CONNECT the gateway does not offer.
func (s *session) acceptable(c *mqtt.Connect) *mqtt.Error {
	if c.Properties.Has(mqtt.AuthMethod) {
		return &mqtt.Error{Reason: mqtt.BadAuthMethod, Text: "the certificate is the only method"}
	}
	if c.Version == mqtt.V4 && c.ClientID == "" && !c.CleanStart { // 3.1.1 [MQTT-3.1.3-8]
		return &mqtt.Error{Reason: mqtt.ClientIDNotValid, Text: "no client identifier for a kept session"}
	}
	w := c.Will
	if w == nil {
		return nil
	}
	if w.QoS > 1 {
		return &mqtt.Error{Reason: mqtt.QoSNotSupported, Text: "a will of QoS 2"}
	}
	if w.Retain {
		return &mqtt.Error{Reason: mqtt.RetainNotSupported, Text: "a retained will"}
	}
	rec, refusal := s.record(w.Topic, w.Payload)
	if refusal != nil {
		s.g.refused(s.peer, "topic.own", w.Topic)
		return refusal
	}
	s.will = &rec
	return nil
}

// agree takes over what the device announced, and says in the CONNACK what the gateway grants. No session outlives its
// connection: what waits for a device lies in the database.
func (s *session) agree(c *mqtt.Connect) *mqtt.Connack {
	l := s.g.cfg.Limits
	alive := time.Duration(c.KeepAlive) * time.Second
	ack := &mqtt.Connack{}
	window := uint32(l.Downlinks)
	if c.Version == mqtt.V5 {
		window = min(window, c.Properties.Num(mqtt.ReceiveMaximum, 0xFFFF))
		s.largest = int(c.Properties.Num(mqtt.MaximumPacketSize, 0))
		s.terse = c.Properties.Num(mqtt.RequestProblemInfo, 1) == 0
		ack.Properties = mqtt.Properties{
			{ID: mqtt.ReceiveMaximum, Num: uint32(l.Receive)},
			{ID: mqtt.MaximumQoS, Num: 1},
			{ID: mqtt.RetainAvailable, Num: 0},
			{ID: mqtt.MaximumPacketSize, Num: uint32(l.Packet)},
			{ID: mqtt.SubIDAvailable, Num: 0},
			{ID: mqtt.SharedAvailable, Num: 0},
		}
		if c.ClientID == "" {
			ack.Properties = append(ack.Properties, mqtt.Property{ID: mqtt.AssignedClientID, Str: s.peer.Device})
		}
		if c.Properties.Num(mqtt.SessionExpiry, 0) > 0 {
			ack.Properties = append(ack.Properties, mqtt.Property{ID: mqtt.SessionExpiry, Num: 0})
		}
		if alive == 0 || alive > l.KeepAlive {
			alive = l.KeepAlive
			ack.Properties = append(ack.Properties, mqtt.Property{ID: mqtt.ServerKeepAlive, Num: uint32(alive / time.Second)})
		}
	}
	if alive == 0 {
		alive = l.KeepAlive
	}
	s.silence = alive + alive/2
	s.slots = make(chan struct{}, window)
	return ack
}
