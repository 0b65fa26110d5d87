// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/wire/mqtt"
)

// subscribe answers a SUBSCRIBE. A device hears its own tree and nothing else.
func (s *session) subscribe(p *mqtt.Subscribe) error {
	if p.Properties.Has(mqtt.SubscriptionID) {
		return &mqtt.Error{Reason: mqtt.SubIDsNotSupported, Text: "a subscription identifier"}
	}
	ack := &mqtt.Suback{ID: p.ID}
	var refused []string
	s.mu.Lock()
	for _, f := range p.Filters {
		r := s.grant(f)
		if r.Failed() {
			refused = append(refused, f.Topic)
			if s.version == mqtt.V4 {
				r = mqtt.UnspecifiedError
			}
		}
		ack.Reasons = append(ack.Reasons, r)
	}
	err := s.queue(ack)
	s.start()
	s.mu.Unlock()
	for _, topic := range refused {
		s.g.refused(s.peer, "topic.own", topic)
	}
	if err == nil && len(refused) < len(p.Filters) {
		s.g.registry.ready(s)
	}
	return err
}

// grant enters one filter. The caller holds s.mu.
func (s *session) grant(f mqtt.Filter) mqtt.Reason {
	if strings.HasPrefix(f.Topic, "$share/") {
		return mqtt.SharedNotSupported
	}
	root, rest, ok := below(s.peer, f.Topic)
	if !ok || rest == "" {
		return mqtt.NotAuthorized
	}
	if len(f.Topic) > s.g.cfg.Limits.Topic {
		return mqtt.TopicFilterInvalid
	}
	n := subscription{strings.Clone(root), strings.Clone(rest), min(f.QoS, 1)}
	if i := slices.IndexFunc(s.filters, func(o subscription) bool { return o.root == n.root && o.filter == n.filter }); i >= 0 {
		s.filters[i] = n
	} else if len(s.filters) >= s.g.cfg.Limits.Filters {
		return mqtt.QuotaExceeded
	} else {
		s.filters = append(s.filters, n)
	}
	return mqtt.Reason(n.qos)
}

func (s *session) unsubscribe(p *mqtt.Unsubscribe) error {
	ack := &mqtt.Unsuback{ID: p.ID}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range p.Topics {
		root, rest, _ := below(s.peer, t)
		had := len(s.filters)
		s.filters = slices.DeleteFunc(s.filters, func(o subscription) bool { return o.root == root && o.filter == rest })
		if s.version == mqtt.V5 {
			r := mqtt.Success
			if len(s.filters) == had {
				r = mqtt.NoSubscriptionExisted
			}
			ack.Reasons = append(ack.Reasons, r)
		}
	}
	err := s.queue(ack)
	s.start()
	return err
}

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

// properties says what MQTT 5 has a place for; root is the device's own spelling.
func (d Downlink) properties(root string, now time.Time) (ps mqtt.Properties) {
	if d.Type != "" {
		ps = append(ps, mqtt.Property{ID: mqtt.ContentType, Str: d.Type})
	}
	if !d.Expires.IsZero() {
		left := min((d.Expires.Sub(now)+time.Second-1)/time.Second, math.MaxUint32)
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

// Send publishes d to its device. It returns nil once the device acknowledged it, or at once if the device asked for
// QoS 0. ErrOffline, ErrNotSubscribed and ErrExpired say that nothing was sent; after any other error the device may
// have received it. A device that refuses it gives an *mqtt.Error.
func (g *Gateway) Send(ctx context.Context, d Downlink) error {
	s := g.registry.session(d.Device)
	if s == nil {
		return ErrOffline
	}
	sub, ok := s.listens(d.Topic)
	if !ok {
		return ErrNotSubscribed
	}
	now := g.cfg.Clock.Now()
	if !d.Expires.IsZero() && !now.Before(d.Expires) {
		return ErrExpired
	}
	p := &mqtt.Publish{Topic: sub.root + d.Topic, QoS: sub.qos, Payload: d.Payload}
	if s.version == mqtt.V5 {
		p.Properties = d.properties(sub.root, now)
	}
	if s.largest > 0 && len(p.Topic)+len(d.Payload)+16 > s.largest { // 16: header, lengths, identifier
		return fmt.Errorf("a message of %d bytes: the device takes packets of %d", len(d.Payload), s.largest)
	}
	if sub.qos == 0 {
		return s.send(p)
	}
	select {
	case s.slots <- struct{}{}:
	case <-s.done:
		return ErrOffline
	case <-ctx.Done():
		return ctx.Err()
	}
	got, err := s.deliver(p)
	if err != nil {
		<-s.slots
		return err
	}
	select {
	case r := <-got:
		if r.Failed() {
			return &mqtt.Error{Reason: r, Text: "the device refused " + d.Topic}
		}
		return nil
	case <-s.done:
		return fmt.Errorf("%w: it left before it acknowledged %s", ErrLost, d.Topic)
	case <-ctx.Done():
		return ctx.Err() // the slot stays taken until the PUBACK
	}
}

// listens finds the subscription for a topic, the one with the higher QoS if there are several.
func (s *session) listens(topic string) (best subscription, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.filters {
		if mqtt.Match(f.filter, topic) && (!ok || f.qos > best.qos) {
			best, ok = f, true
		}
	}
	return best, ok
}

// deliver queues p under a free identifier and returns where its PUBACK arrives.
func (s *session) deliver(p *mqtt.Publish) (<-chan mqtt.Reason, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.lastDown++; s.lastDown == 0 || s.downs[s.lastDown] != nil; s.lastDown++ {
	}
	p.ID = s.lastDown
	if err := s.queue(p); err != nil {
		return nil, err
	}
	s.start()
	if s.downs == nil {
		s.downs = map[uint16]chan mqtt.Reason{}
	}
	got := make(chan mqtt.Reason, 1)
	s.downs[p.ID] = got
	return got, nil
}

// delivered takes the PUBACK of a downlink.
func (s *session) delivered(p *mqtt.Ack) error {
	s.mu.Lock()
	got := s.downs[p.ID]
	delete(s.downs, p.ID)
	s.mu.Unlock()
	if got == nil {
		return &mqtt.Error{Reason: mqtt.ProtocolError, Text: "a PUBACK for nothing"}
	}
	got <- p.Reason
	<-s.slots
	return nil
}
