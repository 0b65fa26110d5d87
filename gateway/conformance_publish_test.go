// SPDX-License-Identifier: AGPL-3.0-only

package gateway_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// with is a PUBLISH of QoS 1 on tele/x with properties.
func with(id uint16, payload string, ps ...mqtt.Property) *mqtt.Publish {
	p := qos1(id, "ot/1/me/tele/x", payload)
	p.Properties = ps
	return p
}

// Statements about what a device publishes.
var publishing = []statement{
	{"3.3.1-2", refuses(mqtt.MalformedPacket, packet(0x38, cat(text("t"), []byte{0})...))},
	{"3.3.1-4", refuses(mqtt.MalformedPacket, packet(0x36, cat(text("t"), []byte{0, 1, 0})...))},
	{"3.3.1-8 3.8.3-3", func(t *testing.T, u *unit) { // nothing is retained, and a device never hears itself
		r := u.clean()
		r.send(qos1(1, "ot/1/me/tele/x", "1"))
		r.wantAck(1, mqtt.Success)
		r.send(&mqtt.Subscribe{ID: 2, Filters: []mqtt.Filter{{Topic: "ot/1/me/#", QoS: 1}, {Topic: "ot/1/me/tele/#", QoS: 1, NoLocal: true}}})
		expect[*mqtt.Suback](r)
		r.send(qos1(3, "ot/1/me/tele/x", "2"))
		r.wantAck(3, mqtt.Success)
		r.silent()
	}},
	{"3.3.2-2 4.7.0-1", refuses(mqtt.TopicNameInvalid, packet(0x30, cat(text("ot/1/me/tele/+"), []byte{0})...), packet(0x30, cat(text("ot/1/me/tele/#"), []byte{0})...))},
	{"3.3.2-5", func(t *testing.T, u *unit) {
		if err := u.g.Send(t.Context(), gateway.Downlink{Device: u.id, Topic: "cmd/x"}); err != gateway.ErrOffline {
			t.Errorf("Send: %v", err)
		}
		r, _ := u.keep()
		r.subscribed(1, "cmd/#")
		if err := u.g.Send(t.Context(), gateway.Downlink{Device: u.id, Topic: "cmd/x", Expires: u.clk.Now()}); err != gateway.ErrExpired {
			t.Errorf("Send: %v", err)
		}
		u.sending(gateway.Downlink{Device: u.id, Topic: "cmd/x", Expires: u.clk.Now().Add(time.Minute)})
		expect[*mqtt.Publish](r)
		u.gone(r)
		u.clk.Advance(time.Minute)
		r, _ = u.keep()
		r.silent()

		// A message of the device that is older than it may be when the disk has time for it is not kept.
		hold, entered := make(chan struct{}), make(chan int, 10)
		u.set(hold, entered, nil)
		defer u.set(nil, nil, nil)
		r.send(with(1, "first"))
		<-entered
		r.send(with(2, "stale", mqtt.Property{ID: mqtt.MessageExpiry, Num: 5}), with(3, "fresh", mqtt.Property{ID: mqtt.MessageExpiry, Num: 60}))
		r.silent()
		u.clk.Advance(10 * time.Second)
		close(hold)
		for id := range uint16(3) {
			r.wantAck(id+1, mqtt.Success)
		}
		u.wantSaid(t, "tele/x first", "tele/x fresh")
	}},
	{"3.3.2-7", func(t *testing.T, u *unit) {
		r, _ := u.keep()
		r.send(with(1, "1", mqtt.Property{ID: mqtt.TopicAlias, Num: 3}))
		r.wantAck(1, mqtt.Success)
		u.gone(r)
		r, _ = u.keep()
		r.send(&mqtt.Publish{QoS: 1, ID: 2, Properties: mqtt.Properties{{ID: mqtt.TopicAlias, Num: 3}}})
		r.ended(mqtt.ProtocolError)
	}},
	{"3.3.2-8", refuses(mqtt.ProtocolError, packet(0x30, cat(text("t"), []byte{3, 0x23, 0, 0})...))},
	{"3.3.2-9", refuses(mqtt.TopicAliasInvalid, packet(0x30, cat(text("t"), []byte{3, 0x23, 0, 17})...))},
	{"3.3.2-12", func(t *testing.T, u *unit) {
		r := u.open()
		ack := r.opened(&mqtt.Connect{Version: mqtt.V5, CleanStart: true})
		most := ack.Properties.Num(mqtt.TopicAliasMaximum, 0)
		var want []string
		for alias := range most {
			topic := fmt.Sprintf("tele/s%d", alias)
			p := qos1(uint16(alias+1), "ot/1/me/"+topic, "1")
			p.Properties = mqtt.Properties{{ID: mqtt.TopicAlias, Num: alias + 1}}
			r.send(p)
			r.wantAck(p.ID, mqtt.Success)
			want = append(want, topic+" 1")
		}
		for alias := range most {
			r.send(&mqtt.Publish{QoS: 1, ID: uint16(alias + 1), Payload: []byte("2"), Properties: mqtt.Properties{{ID: mqtt.TopicAlias, Num: alias + 1}}})
			r.wantAck(uint16(alias+1), mqtt.Success)
			want = append(want, fmt.Sprintf("tele/s%d 2", alias))
		}
		if most == 0 {
			t.Error("the door takes no topic alias")
		}
		u.wantSaid(t, want...)
	}},
	{"3.3.2-13", refuses(mqtt.MalformedPacket, packet(0x30, cat(text("t"), []byte{4, 0x08}, text("\xFF"))...))},
	{"3.3.2-14", refuses(mqtt.TopicNameInvalid, packet(0x30, cat(text("t"), []byte{6, 0x08}, text("a/#"))...))},
	{"3.3.2-19", refuses(mqtt.MalformedPacket, packet(0x30, cat(text("t"), []byte{4, 0x03}, text("\xFF"))...))},
	{"3.3.4-6", refuses(mqtt.ProtocolError, packet(0x30, cat(text("ot/1/me/tele/x"), []byte{2, 0x0B, 1})...))},
	{"3.3.4-7", func(t *testing.T, u *unit) {
		hold := make(chan struct{})
		u.set(hold, nil, nil)
		defer u.set(nil, nil, nil)
		r := u.clean()
		for id := range uint16(66) { // the door announced 64
			r.send(qos1(id+1, "ot/1/me/inv", "{}"))
		}
		r.ended(mqtt.ReceiveMaxExceeded)
		close(hold)
		u.settled()
	}},
	{"3.4.2-1", func(t *testing.T, u *unit) {
		r := u.clean()
		for id, c := range []struct {
			p    *mqtt.Publish
			want mqtt.Reason
		}{
			{with(1, "1"), mqtt.Success}, {qos1(2, "elsewhere", "1"), mqtt.NotAuthorized},
			{with(3, "\xFF", mqtt.Property{ID: mqtt.PayloadFormat, Num: 1}), mqtt.PayloadFormatInvalid},
			{with(4, "ü", mqtt.Property{ID: mqtt.PayloadFormat, Num: 1}), mqtt.Success},
			{with(5, "\xFF", mqtt.Property{ID: mqtt.PayloadFormat, Num: 0}), mqtt.Success},
			{with(6, "1", mqtt.Property{ID: mqtt.UserProperty, Str: "seq", Val: "many"}), mqtt.ImplementationError},
		} {
			r.send(c.p)
			ack := expect[*mqtt.Ack](r)
			if ack.Reason != c.want || ack.ID != uint16(id+1) || c.want.Failed() != (ack.Properties.Str(mqtt.ReasonString) != "") {
				t.Errorf("%d: got %+v, want %s", id+1, ack, c.want)
			}
		}
	}},
	{"4.3.2-5", func(t *testing.T, u *unit) {
		r := u.clean()
		for _, payload := range []string{"1", "2"} {
			p := with(7, payload)
			p.Dup = payload == "2"
			r.send(p)
			r.wantAck(7, mqtt.Success)
		}
		u.wantSaid(t, "tele/x 1", "tele/x 2")
	}},
	{"4.7.3-4", func(t *testing.T, u *unit) { // é as one code point and as two are two topics
		r := u.clean()
		r.subscribed(1, "cmd/\u00e9")
		if err := <-u.down("cmd/e\u0301", ""); err != gateway.ErrNotSubscribed {
			t.Errorf("Send: %v", err)
		}
		r.send(qos1(1, "ot/1/me/tele/e\u0301", "1"))
		r.wantAck(1, mqtt.Success)
		u.wantSaid(t, "tele/e\u0301 1")
	}},
}

// Statements about what the platform sends to a device.
var downlinks = []statement{
	{"3.1.2-26 3.3.2-11", func(t *testing.T, u *unit) {
		r := u.clean(mqtt.Property{ID: mqtt.TopicAliasMaximum, Num: 2})
		r.subscribed(1, "cmd/#")
		var named [3]string
		for _, topic := range []string{"a", "b", "a", "c", "a", "c"} {
			sent := u.down("cmd/"+topic, topic)
			p := expect[*mqtt.Publish](r)
			alias := p.Properties.Num(mqtt.TopicAlias, 0)
			if alias < 1 || alias > 2 {
				t.Fatalf("alias %d", alias)
			}
			if p.Topic != "" {
				named[alias] = p.Topic
			}
			if named[alias] != "ot/1/me/cmd/"+string(p.Payload) {
				t.Errorf("alias %d is %q, the message belongs on %s", alias, named[alias], p.Payload)
			}
			r.ack(p.ID)
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
		}
	}},
	{"3.1.2-27", func(t *testing.T, u *unit) {
		r := u.clean()
		r.subscribed(1, "cmd/#")
		for range 2 {
			u.down("cmd/x", "")
			if p := expect[*mqtt.Publish](r); p.Properties.Has(mqtt.TopicAlias) || p.Topic == "" {
				t.Errorf("got %+v", p)
			}
		}
	}},
	{"3.3.1-1 3.3.1-3 4.3.2-3 4.4.0-1", func(t *testing.T, u *unit) {
		r, _ := u.keep()
		r.subscribed(1, "cmd/#")
		u.down("cmd/x", "p")
		first := expect[*mqtt.Publish](r)
		r.silent() // it is not sent again while the connection lasts
		u.gone(r)
		r, _ = u.keep()
		again := expect[*mqtt.Publish](r)
		if first.Dup || !again.Dup || first.ID != again.ID || again.Topic != first.Topic || string(again.Payload) != "p" {
			t.Errorf("got %+v, then %+v", first, again)
		}
		r.ack(again.ID)
		r.silent()
		u.gone(r)
		r, _ = u.keep()
		r.silent()
	}},
	{"3.3.1-12 3.3.1-13 3.3.1-11", func(t *testing.T, u *unit) {
		r := u.clean()
		r.send(&mqtt.Subscribe{ID: 1, Filters: []mqtt.Filter{{Topic: "ot/1/me/cmd/#", QoS: 1, RetainHandling: 2}, {Topic: "ot/1/me/ota/#", QoS: 1, RetainAsPublished: true}}})
		expect[*mqtt.Suback](r)
		r.silent()
		for _, topic := range []string{"cmd/x", "ota/offer"} {
			u.down(topic, "")
			if p := expect[*mqtt.Publish](r); p.Retain {
				t.Errorf("got %+v", p)
			}
		}
	}},
	{"3.3.2-3", func(t *testing.T, u *unit) {
		for _, filter := range []string{"cmd/x", "cmd/+", "+/x", "#", "cmd/#"} {
			r := u.clean()
			r.subscribed(1, filter)
			u.down("cmd/x", "")
			if p := expect[*mqtt.Publish](r); !mqtt.Match("ot/1/me/"+filter, p.Topic) {
				t.Errorf("%s does not match %s", filter, p.Topic)
			}
			if filter == "#" {
				continue
			}
			if err := <-u.down("other/x/y", ""); err != gateway.ErrNotSubscribed {
				t.Errorf("%s: %v", filter, err)
			}
		}
	}},
	{"3.3.2-6", func(t *testing.T, u *unit) {
		r, _ := u.keep()
		r.subscribed(1, "cmd/#")
		u.sending(gateway.Downlink{Device: u.id, Topic: "cmd/x", Expires: u.clk.Now().Add(100 * time.Second)})
		if p := expect[*mqtt.Publish](r); p.Properties.Num(mqtt.MessageExpiry, 0) != 100 {
			t.Errorf("got %+v", p)
		}
		u.gone(r)
		u.clk.Advance(40 * time.Second)
		r, _ = u.keep()
		if p := expect[*mqtt.Publish](r); p.Properties.Num(mqtt.MessageExpiry, 0) != 60 {
			t.Errorf("got %+v", p)
		}
	}},
	{"3.3.2-15 3.3.2-16 3.3.2-20", func(t *testing.T, u *unit) {
		r := u.clean()
		r.subscribed(1, "cmd/#")
		u.sending(gateway.Downlink{Device: u.id, Topic: "cmd/c7/reboot", Reply: "cmd/c7/res", Correlation: "c7\x00\xFF", Type: "application/json"})
		p := expect[*mqtt.Publish](r).Properties
		if p.Str(mqtt.ResponseTopic) != "ot/1/me/cmd/c7/res" || p.Str(mqtt.CorrelationData) != "c7\x00\xFF" || p.Str(mqtt.ContentType) != "application/json" {
			t.Errorf("got %+v", p)
		}
	}},
	{"3.3.4-2 3.3.4-3 3.3.4-4 3.8.4-8", func(t *testing.T, u *unit) {
		r := u.clean()
		for id, f := range []mqtt.Filter{{Topic: "ot/1/me/cmd/#", QoS: 0}, {Topic: "ot/1/me/cmd/+", QoS: 2}, {Topic: "ot/1/me/ota/#", QoS: 1}, {Topic: "ot/1/me/+/x"}} {
			s := &mqtt.Subscribe{ID: uint16(id + 1), Filters: []mqtt.Filter{f}}
			if id < 3 {
				s.Properties = mqtt.Properties{{ID: mqtt.SubscriptionID, Num: uint32(100 + id)}}
			}
			r.send(s)
			expect[*mqtt.Suback](r)
		}
		u.down("cmd/x", "")
		p := expect[*mqtt.Publish](r)
		var ids []uint32
		for _, prop := range p.Properties {
			if prop.ID == mqtt.SubscriptionID {
				ids = append(ids, prop.Num)
			}
		}
		if p.QoS != 1 || !slices.Equal(ids, []uint32{100, 101}) {
			t.Errorf("QoS %d, subscriptions %v", p.QoS, ids)
		}
		r.silent() // one copy
	}},
	{"4.3.1-1", func(t *testing.T, u *unit) {
		r := u.clean()
		r.subscribed(0, "cmd/#")
		if err := <-u.down("cmd/x", ""); err != nil {
			t.Fatal(err)
		}
		if p := expect[*mqtt.Publish](r); p.QoS != 0 || p.Dup {
			t.Errorf("got %+v", p)
		}
	}},
	{"4.4.0-2", func(t *testing.T, u *unit) {
		r, _ := u.keep()
		r.subscribed(1, "cmd/#")
		sent := u.down("cmd/x", "")
		r.send(&mqtt.Ack{Kind: mqtt.PUBACK, ID: expect[*mqtt.Publish](r).ID, Reason: mqtt.ImplementationError})
		if err := <-sent; !isProblem(err, mqtt.ImplementationError) {
			t.Errorf("Send: %v", err)
		}
		u.gone(r)
		r, _ = u.keep()
		r.silent()
	}},
	{"4.6.0-1 4.6.0-5 4.6.0-6", func(t *testing.T, u *unit) {
		r, _ := u.keep()
		r.subscribed(1, "cmd/#")
		for i := range 5 {
			u.down("cmd/x", fmt.Sprint(i))
			if p := expect[*mqtt.Publish](r); string(p.Payload) != fmt.Sprint(i) {
				t.Fatalf("got %+v", p)
			}
		}
		u.gone(r)
		r, _ = u.keep(mqtt.Property{ID: mqtt.ReceiveMaximum, Num: 2}) // also through a narrow window, and before anything new
		u.down("cmd/x", "5")
		for i := range 6 {
			p := expect[*mqtt.Publish](r)
			if string(p.Payload) != fmt.Sprint(i) {
				t.Errorf("got %+v, want %d", p, i)
			}
			r.ack(p.ID)
		}
		r.silent()
	}},
}
