// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/openthings-platform/openthings/wire"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// aliases shortens the topics of downlinks for a device that allows it. The oldest alias gives way.
type aliases struct {
	most   int      // that the device takes
	next   int      // which one gives way
	topics []string // by alias less one
}

// aliased gives a PUBLISH its alias. topic is not empty if the alias is new: note it once the packet is in the output.
// The caller holds s.mu.
func (s *session) aliased(p mqtt.Packet) (pub *mqtt.Publish, topic string) {
	a := &s.aliases
	pub, ok := p.(*mqtt.Publish)
	if !ok || a.most == 0 {
		return nil, ""
	}
	n := slices.Index(a.topics, pub.Topic)
	if n < 0 {
		n, topic = a.next, pub.Topic
	} else {
		pub.Topic = ""
	}
	pub.Properties = append(pub.Properties, mqtt.Property{ID: mqtt.TopicAlias, Num: uint32(n + 1)})
	return pub, topic
}

func (a *aliases) note(p *mqtt.Publish, topic string) {
	if n := int(p.Properties.Num(mqtt.TopicAlias, 0)); n > len(a.topics) {
		a.topics = append(a.topics, topic)
	} else {
		a.topics[n-1] = topic
	}
	a.next = (a.next + 1) % a.most
}

// fit appends p to dst as the device wants it: without words where it wants none, and never larger than it takes.
// Words give way first [MQTT-3.1.2-24, -29].
func (s *session) fit(dst []byte, p mqtt.Packet) ([]byte, error) {
	if s.terse {
		switch p.(type) {
		case *mqtt.Ack, *mqtt.Suback, *mqtt.Unsuback:
			wordless(p)
		}
	}
	for {
		b, err := mqtt.Append(dst, s.version, p)
		if err != nil || s.largest == 0 || len(b)-len(dst) <= s.largest {
			return b, err
		}
		if !wordless(p) {
			return dst, &mqtt.Error{Reason: mqtt.PacketTooLarge, Text: fmt.Sprintf("a %s of %d bytes, the device takes %d", p.Type(), len(b)-len(dst), s.largest)}
		}
	}
}

// wordless takes the reason in words out of a packet and says whether there was one.
func wordless(p mqtt.Packet) bool {
	var ps *mqtt.Properties
	switch p := p.(type) {
	case *mqtt.Connack:
		ps = &p.Properties
	case *mqtt.Ack:
		ps = &p.Properties
	case *mqtt.Suback:
		ps = &p.Properties
	case *mqtt.Unsuback:
		ps = &p.Properties
	case *mqtt.Disconnect:
		ps = &p.Properties
	default:
		return false
	}
	had := len(*ps)
	*ps = slices.DeleteFunc(*ps, func(p mqtt.Property) bool { return p.ID == mqtt.ReasonString })
	return len(*ps) < had
}

// explain tells a 3.1.1 device on err why something was refused, if it listens there. The caller holds s.mu.
func (s *session) explain(topic string, refusal *mqtt.Error) {
	if s.version != mqtt.V4 {
		return
	}
	sub, ok := s.matching(wire.TopicErr)
	if !ok {
		return
	}
	b, err := json.Marshal(wire.Refusal{Topic: topic, Code: byte(refusal.Reason), Reason: refusal.Text})
	if err == nil {
		_ = s.queue(&mqtt.Publish{Topic: sub.root + wire.TopicErr, Payload: b}) // a session that ends hears nothing more
	}
}
