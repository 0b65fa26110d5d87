// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/wire/mqtt"
)

// Downlink is a message for a device. What follows Payload reaches MQTT 5 devices only, except that Expires holds for all.
type Downlink struct {
	Device      string
	Topic       string // below the device's root: "cmd/<id>/reboot"
	Payload     []byte
	Type        string    // media type of Payload; "": not said
	Expires     time.Time // it is not sent afterwards, and the device is told how long it counts; zero: always
	Reply       string    // topic below the device's root on which the answer belongs; "": none
	Correlation string    // what the device repeats in its answer
}

func (d Downlink) expired(now time.Time) bool { return !d.Expires.IsZero() && !now.Before(d.Expires) }

// properties says what MQTT 5 has a place for; root is the device's own spelling.
func (d Downlink) properties(root string, now time.Time) (ps mqtt.Properties) {
	if d.Type != "" {
		ps = append(ps, mqtt.Property{ID: mqtt.ContentType, Str: d.Type})
	}
	if !d.Expires.IsZero() {
		left := min(max(d.Expires.Sub(now)+time.Second-1, 0)/time.Second, math.MaxUint32)
		ps = append(ps, mqtt.Property{ID: mqtt.MessageExpiry, Num: uint32(left)})
	}
	if d.Reply != "" {
		ps = append(ps, mqtt.Property{ID: mqtt.ResponseTopic, Str: root + d.Reply})
	}
	if d.Correlation != "" {
		ps = append(ps, mqtt.Property{ID: mqtt.CorrelationData, Str: d.Correlation})
	}
	return ps
}

// flight is a QoS 1 downlink that the device has not acknowledged.
type flight struct {
	id   uint16
	root string // how the device spelled the tree in its subscription
	down Downlink
	got  chan mqtt.Reason // the device's answer

	// guarded by session.mu
	again  bool // it may have been sent on an earlier connection
	sent   bool // it was sent on this one
	waited bool // a Send waits for the answer
	acked  bool // answered while nobody waited
}

func newAnswer() chan mqtt.Reason { return make(chan mqtt.Reason, 1) }

// Send publishes d to its device. It returns nil once the device acknowledged it, or at once if the device asked for
// QoS 0. ErrOffline, ErrNotSubscribed and ErrExpired say that nothing was sent; after any other error the device may
// have received it, and a session that outlives its connection sends it once more when the device is back: sending the
// same message again then waits for that one's answer. A device that refuses it gives an *mqtt.Error.
func (g *Gateway) Send(ctx context.Context, d Downlink) error {
	s := g.registry.session(d.Device)
	if s == nil || !s.greeted() {
		return ErrOffline
	}
	if d.expired(g.cfg.Clock.Now()) {
		return ErrExpired
	}
	if f := s.adopt(d); f != nil {
		return s.await(ctx, f)
	}
	sub, ok := s.listens(d.Topic)
	if !ok {
		return ErrNotSubscribed
	}
	if sub.qos == 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		err := s.queue(s.packet(&flight{root: sub.root, down: d}, 0))
		s.start()
		return err
	}
	select {
	case s.slots <- struct{}{}:
	case <-s.done:
		return ErrOffline
	case <-ctx.Done():
		return ctx.Err()
	}
	f, err := s.launch(ctx, &flight{root: sub.root, down: d, got: newAnswer(), waited: true})
	if err != nil {
		<-s.slots
		return err
	}
	return s.await(ctx, f)
}

// greeted says whether the CONNACK is on its way: nothing may overtake it [MQTT-3.2.0-1].
func (s *session) greeted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// await waits for the device's answer, and for it to be durable: what was answered is not sent again.
func (s *session) await(ctx context.Context, f *flight) error {
	select {
	case r := <-f.got:
		if err := s.save(ctx); err != nil && !errors.Is(err, ErrStale) {
			s.g.cfg.Log.Warn("a device may get a message twice", "device", s.peer.Device, "topic", f.down.Topic, "err", err)
		}
		if r.Failed() {
			return &mqtt.Error{Reason: r, Text: "the device refused " + f.down.Topic}
		}
		return nil
	case <-s.done:
		return fmt.Errorf("%w: it left before it acknowledged %s", ErrLost, f.down.Topic)
	case <-ctx.Done(): // the slot stays taken until the PUBACK
		s.mu.Lock()
		defer s.mu.Unlock()
		f.waited = false
		return ctx.Err()
	}
}

// adopt finds the same message in flight without anybody who waits for it: one that an earlier connection sent.
func (s *session) adopt(d Downlink) *flight {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.flights {
		if !f.waited && f.down.Topic == d.Topic && bytes.Equal(f.down.Payload, d.Payload) {
			if f.waited = true; f.acked {
				s.flights = slices.Delete(s.flights, i, i+1)
			}
			return f
		}
	}
	return nil
}

// launch gives f a free identifier, makes it durable if the session outlives its connection, and sends it.
func (s *session) launch(ctx context.Context, f *flight) (*flight, error) {
	s.mu.Lock()
	for s.lastDown++; s.lastDown == 0 || s.flight(s.lastDown) != nil; s.lastDown++ {
	}
	f.id = s.lastDown
	s.flights = append(s.flights, f)
	keeps := s.expiry > 0
	s.mu.Unlock()
	var err error
	if keeps {
		err = s.save(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		f.sent = true
		err = s.queue(s.packet(f, 1))
		s.start()
	}
	if err != nil {
		s.flights = slices.DeleteFunc(s.flights, func(o *flight) bool { return o == f })
		return nil, err
	}
	return f, nil
}

// flight is the one with that identifier. The caller holds s.mu.
func (s *session) flight(id uint16) *flight {
	for _, f := range s.flights {
		if f.id == id && !f.acked {
			return f
		}
	}
	return nil
}

// packet makes the PUBLISH of f. The caller holds s.mu.
func (s *session) packet(f *flight, qos byte) *mqtt.Publish {
	p := &mqtt.Publish{Topic: f.root + f.down.Topic, QoS: qos, ID: f.id, Dup: f.again && qos > 0, Payload: f.down.Payload}
	if s.version == mqtt.V5 {
		p.Properties = f.down.properties(f.root, s.g.cfg.Clock.Now())
		for _, sub := range s.filters {
			if sub.id > 0 && sub.root == f.root && mqtt.Match(sub.filter, f.down.Topic) {
				p.Properties = append(p.Properties, mqtt.Property{ID: mqtt.SubscriptionID, Num: sub.id})
			}
		}
	}
	return p
}

// resend sends what earlier connections sent without an answer, in the order of then, before anything new, and as much
// as the device allows at once. What begins on this connection is launch's alone. A slot that the caller hands over is
// passed on, or freed. The caller holds s.mu.
func (s *session) resend(slot bool) error {
	for _, f := range s.flights {
		if !f.again || f.sent || f.acked {
			continue
		}
		if !slot {
			select {
			case s.slots <- struct{}{}:
			default:
				return nil // delivered goes on
			}
		}
		var e *mqtt.Error
		err := s.queue(s.packet(f, 1))
		if slot = errors.As(err, &e) && e.Reason == mqtt.PacketTooLarge; slot { // for this connection [MQTT-3.1.2-25]
			f.acked = true
			f.got <- e.Reason
			continue
		}
		if err != nil {
			return err
		}
		f.sent = true
	}
	if slot {
		<-s.slots
	}
	return nil
}

// listens finds the subscription for a topic, the one with the highest QoS if there are several.
func (s *session) listens(topic string) (best subscription, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.matching(topic)
}

// matching is listens for a caller that holds s.mu.
func (s *session) matching(topic string) (best subscription, ok bool) {
	for _, f := range s.filters {
		if mqtt.Match(f.filter, topic) && (!ok || f.qos > best.qos) {
			best, ok = f, true
		}
	}
	return best, ok
}

// delivered takes the PUBACK of a downlink.
func (s *session) delivered(p *mqtt.Ack) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.flights, func(f *flight) bool { return f.id == p.ID && f.sent && !f.acked })
	if i < 0 {
		return &mqtt.Error{Reason: mqtt.ProtocolError, Text: "a PUBACK for nothing"}
	}
	f := s.flights[i]
	f.got <- p.Reason
	if f.waited || !f.again {
		s.flights = slices.Delete(s.flights, i, i+1)
	} else {
		f.acked = true // whoever sent it on the connection before may ask
	}
	err := s.resend(true)
	s.start()
	return err
}
