// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"math"
	"time"

	"github.com/openthings-platform/openthings/wire"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// connect reads CONNECT and answers it. Who the device is was settled by its certificate; user name, password and
// client identifier decide nothing, except that another client identifier does not go on with a kept session.
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
			return s.reject(e, nil) // in the form of 3.1.1, which every client reads
		}
		return err
	}
	c := p.(*mqtt.Connect)
	s.version = c.Version
	s.largest = int(c.Properties.Num(mqtt.MaximumPacketSize, 0))
	if to := s.g.elsewhere.Load(); to != nil {
		why, ps := to.words()
		return s.reject(&mqtt.Error{Reason: why, Text: "this door is being emptied"}, ps)
	}
	if e := s.acceptable(c); e != nil {
		return s.reject(e, nil)
	}
	if err := s.g.again(ctx, s.link); err != nil {
		return s.reject(&mqtt.Error{Reason: mqtt.NotAuthorized, Text: err.Error()}, nil)
	}
	ack := s.agree(c)
	if ack.SessionPresent, err = s.resume(ctx, c); err != nil {
		s.g.cfg.Log.Error("a session could not begin", "device", s.peer.Device, "err", err)
		return s.reject(&mqtt.Error{Reason: mqtt.ServerUnavailable, Text: "the session could not be kept; come back later"}, nil)
	}
	old, ok := s.g.registry.begin(s, ack.SessionPresent)
	if !ok {
		return io.EOF
	}
	s.began = true
	if old != nil {
		old.close(mqtt.SessionTakenOver, ErrStale.Error())
		if f := s.g.cfg.TakenOver; f != nil {
			f(old.peer, s.peer)
		}
	}
	if err := s.greet(ack); err != nil {
		return err
	}
	if len(s.filters) > 0 { // only this goroutine changes them
		s.g.registry.ready(s)
	}
	return nil
}

// greet sends the CONNACK, and after it what an earlier connection left without an answer.
func (s *session) greet(ack *mqtt.Connack) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.queue(ack); err != nil {
		return err
	}
	s.open = true
	err := s.resend(false)
	s.start()
	return err
}

// reject answers CONNECT with a failure, in words where there is room, and returns it.
func (s *session) reject(e *mqtt.Error, ps mqtt.Properties) error {
	if s.version == mqtt.V5 {
		ps = append(ps, mqtt.Property{ID: mqtt.ReasonString, Str: e.Text})
	}
	if err := s.send(&mqtt.Connack{Reason: e.Reason, Properties: ps}); err != nil {
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
	if len(c.ClientID) > s.g.cfg.Limits.Topic {
		return &mqtt.Error{Reason: mqtt.ClientIDNotValid, Text: "a client identifier that is too long"}
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
	rec, refusal := s.record(w.Topic, w.Properties, w.Payload)
	if refusal != nil {
		s.g.refused(s.peer, "topic.own", w.Topic)
		return refusal
	}
	rec.Expires = 0
	s.will = &Will{Record: rec, Delay: seconds(w.Properties.Num(mqtt.WillDelay, 0)), Life: seconds(w.Properties.Num(mqtt.MessageExpiry, 0))}
	return nil
}

func seconds(n uint32) time.Duration { return time.Duration(n) * time.Second }

// agree takes over what the device announced, and says in the CONNACK what the gateway grants.
func (s *session) agree(c *mqtt.Connect) *mqtt.Connack {
	l := s.g.cfg.Limits
	alive := seconds(uint32(c.KeepAlive))
	ack := &mqtt.Connack{}
	window := uint32(l.Downlinks)
	s.clientID = c.ClientID
	if s.clientID == "" { // never that of a session which may go on [MQTT-3.2.2-16]
		s.clientID = s.peer.Device + "-" + rand.Text()[:8]
	}
	s.expiry = s.lasts(c)
	if c.Version == mqtt.V5 {
		window = min(window, c.Properties.Num(mqtt.ReceiveMaximum, math.MaxUint16))
		s.terse = c.Properties.Num(mqtt.RequestProblemInfo, 1) == 0
		s.aliases.most = int(min(c.Properties.Num(mqtt.TopicAliasMaximum, 0), uint32(l.Aliases)))
		ack.Properties = mqtt.Properties{
			{ID: mqtt.ReceiveMaximum, Num: uint32(l.Receive)},
			{ID: mqtt.MaximumQoS, Num: 1},
			{ID: mqtt.RetainAvailable, Num: 0},
			{ID: mqtt.MaximumPacketSize, Num: uint32(l.Packet)},
			{ID: mqtt.TopicAliasMaximum, Num: uint32(l.Aliases)},
			{ID: mqtt.SharedAvailable, Num: 0},
		}
		if c.ClientID == "" {
			ack.Properties = append(ack.Properties, mqtt.Property{ID: mqtt.AssignedClientID, Str: s.clientID})
		}
		if asked, granted := c.Properties.Num(mqtt.SessionExpiry, 0), uint32(s.expiry/time.Second); asked != granted {
			ack.Properties = append(ack.Properties, mqtt.Property{ID: mqtt.SessionExpiry, Num: granted})
		}
		if c.Properties.Num(mqtt.RequestResponseInfo, 0) == 1 {
			ack.Properties = append(ack.Properties, mqtt.Property{ID: mqtt.ResponseInfo, Str: wire.Root})
		}
		if alive == 0 || alive > l.KeepAlive {
			alive = l.KeepAlive
			ack.Properties = append(ack.Properties, mqtt.Property{ID: mqtt.ServerKeepAlive, Num: uint32(alive / time.Second)})
		}
	}
	alive = cmp.Or(alive, l.KeepAlive)
	s.silence = alive + alive/2
	s.slots = make(chan struct{}, window)
	return ack
}

// lasts is how long the session outlives its connection: what the device asked for, up to the limit. A 3.1.1 device asks
// for ever or not at all.
func (s *session) lasts(c *mqtt.Connect) time.Duration {
	most := s.g.cfg.Limits.Session
	switch {
	case s.g.cfg.Sessions == nil:
		return 0
	case c.Version == mqtt.V5:
		return min(seconds(c.Properties.Num(mqtt.SessionExpiry, 0)), most)
	case c.CleanStart:
		return 0
	}
	return most
}

// resume makes this connection the device's own, and says whether it goes on with a kept session. What an older
// connection on this node knows is kept first, so that nothing acknowledged is sent again.
func (s *session) resume(ctx context.Context, c *mqtt.Connect) (present bool, err error) {
	keep := s.g.cfg.Sessions
	if keep == nil {
		s.peer.Generation = s.g.begun.Add(1)
		return false, nil
	}
	if old := s.g.registry.session(s.peer.Device); old != nil && !c.CleanStart {
		if err := old.save(ctx); err != nil && !errors.Is(err, ErrStale) {
			return false, err
		}
	}
	s.noted = s.expiry > 0 || s.will != nil
	r, err := keep.Begin(ctx, Opening{Peer: s.peer, ClientID: s.clientID, Clean: c.CleanStart, Expiry: s.expiry, Will: s.will})
	if err != nil {
		return false, err
	}
	s.peer.Generation = r.Generation
	if !r.Present {
		return false, nil
	}
	return true, s.restore(r.State)
}
