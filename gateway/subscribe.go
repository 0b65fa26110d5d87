// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"context"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/wire"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// subscription is a filter below the device's root, in the spelling that the device chose.
type subscription struct {
	root, filter string
	qos          byte
	id           uint32 // Subscription Identifier; 0: none
}

// subscribe answers a SUBSCRIBE. A device hears its own tree and nothing else. What a session that outlives its
// connection subscribed to is durable before the SUBACK.
func (s *session) subscribe(p *mqtt.Subscribe) error {
	ack := &mqtt.Suback{ID: p.ID}
	var refused []string
	s.mu.Lock()
	for _, f := range p.Filters {
		r, why := s.grant(f, p.Properties.Num(mqtt.SubscriptionID, 0))
		if r.Failed() {
			refused = append(refused, f.Topic)
			ack.Properties = mqtt.Properties{{ID: mqtt.ReasonString, Str: why}}
			s.explain(f.Topic, &mqtt.Error{Reason: r, Text: why})
			if s.version == mqtt.V4 {
				r, ack.Properties = mqtt.UnspecifiedError, nil
			}
		}
		ack.Reasons = append(ack.Reasons, r)
	}
	s.mu.Unlock()
	for _, topic := range refused {
		s.g.refused(s.peer, "topic.own", topic)
	}
	if err := s.settle(ack); err != nil {
		return err
	}
	if len(refused) < len(p.Filters) {
		s.g.registry.ready(s)
	}
	return nil
}

// settle makes the subscriptions durable, if they are kept, then answers.
func (s *session) settle(ack mqtt.Packet) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.g.cfg.Limits.Opening)
	defer cancel()
	if err := s.save(ctx); err != nil {
		return err
	}
	return s.send(ack)
}

// grant enters one filter, or says why not. The caller holds s.mu.
func (s *session) grant(f mqtt.Filter, id uint32) (mqtt.Reason, string) {
	if strings.HasPrefix(f.Topic, "$share/") {
		return mqtt.SharedNotSupported, "a device shares its subscriptions with nobody"
	}
	root, rest, ok := below(s.peer, f.Topic)
	if !ok || rest == "" {
		return mqtt.NotAuthorized, "a filter that leaves the device's own tree, " + wire.Root
	}
	if len(f.Topic) > s.g.cfg.Limits.Topic {
		return mqtt.TopicFilterInvalid, "a filter that is too long"
	}
	n := subscription{strings.Clone(root), strings.Clone(rest), min(f.QoS, 1), id}
	if i := slices.IndexFunc(s.filters, func(o subscription) bool { return o.root == n.root && o.filter == n.filter }); i >= 0 {
		s.filters[i] = n
	} else if len(s.filters) >= s.g.cfg.Limits.Filters {
		return mqtt.QuotaExceeded, "more subscriptions than a session may have"
	} else {
		s.filters = append(s.filters, n)
	}
	return mqtt.Reason(n.qos), ""
}

func (s *session) unsubscribe(p *mqtt.Unsubscribe) error {
	ack := &mqtt.Unsuback{ID: p.ID}
	s.mu.Lock()
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
	s.mu.Unlock()
	return s.settle(ack)
}
