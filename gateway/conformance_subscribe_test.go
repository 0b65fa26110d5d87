// SPDX-License-Identifier: AGPL-3.0-only

package gateway_test

import (
	"slices"
	"testing"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// filters is a SUBSCRIBE of QoS 1.
func filters(id uint16, topics ...string) *mqtt.Subscribe {
	s := &mqtt.Subscribe{ID: id}
	for _, t := range topics {
		s.Filters = append(s.Filters, mqtt.Filter{Topic: t, QoS: 1})
	}
	return s
}

// Statements about subscriptions.
var subscribing = []statement{
	{"3.2.2-10 3.8.4-7", func(t *testing.T, u *unit) {
		r := u.clean()
		r.send(&mqtt.Subscribe{ID: 1, Filters: []mqtt.Filter{{Topic: "ot/1/me/a", QoS: 0}, {Topic: "ot/1/me/b", QoS: 1}, {Topic: "ot/1/me/c", QoS: 2}}})
		if got := expect[*mqtt.Suback](r).Reasons; !slices.Equal(got, []mqtt.Reason{0, 1, 1}) {
			t.Errorf("SUBACK %v", got)
		}
	}},
	{"3.8.3-1", refuses(mqtt.MalformedPacket, packet(0x82, cat([]byte{0, 1, 0}, text("\xFF"), []byte{0})...))},
	{"3.8.3-2", refuses(mqtt.ProtocolError, packet(0x82, 0, 1, 0))},
	{"3.8.3-4", refuses(mqtt.ProtocolError, packet(0x82, cat([]byte{0, 1, 0}, text("$share/g/ot/1/me/cmd"), []byte{4})...))},
	{"3.8.3-5", refuses(mqtt.MalformedPacket, packet(0x82, cat([]byte{0, 1, 0}, text("a"), []byte{0x40})...), packet(0x82, cat([]byte{0, 1, 0}, text("a"), []byte{0x30})...))},
	{"3.8.4-3", func(t *testing.T, u *unit) {
		r := u.clean()
		r.subscribed(1, "cmd/#")
		r.subscribed(0, "cmd/#")
		if err := <-u.down("cmd/x", ""); err != nil {
			t.Fatal(err)
		}
		if p := expect[*mqtt.Publish](r); p.QoS != 0 {
			t.Errorf("got %+v", p)
		}
		r.silent()
	}},
	{"3.8.4-5 3.8.4-6 3.9.3-1 3.9.3-2", func(t *testing.T, u *unit) {
		r := u.clean()
		r.send(filters(1, "ot/1/me/a", "ot/1/acme/other/#", "ot/1/me/b/+", "$share/g/ot/1/me/c", "#"))
		want := []mqtt.Reason{mqtt.GrantedQoS1, mqtt.NotAuthorized, mqtt.GrantedQoS1, mqtt.SharedNotSupported, mqtt.NotAuthorized}
		if got := expect[*mqtt.Suback](r).Reasons; !slices.Equal(got, want) {
			t.Errorf("SUBACK %v", got)
		}
	}},
	{"3.10.3-1", refuses(mqtt.MalformedPacket, packet(0xA2, cat([]byte{0, 1, 0}, text("\xFF"))...))},
	{"3.10.3-2", refuses(mqtt.ProtocolError, packet(0xA2, 0, 1, 0))},
	{"3.10.4-1 3.10.4-2 3.10.4-6 3.11.3-1 3.11.3-2", func(t *testing.T, u *unit) {
		r := u.clean()
		r.subscribed(1, "cmd/#", "ota/offer")
		r.send(&mqtt.Unsubscribe{ID: 9, Topics: []string{"ot/1/me/cmd/+", "ot/1/me/ota/offer", "ot/1/me/cmd/"}})
		want := []mqtt.Reason{mqtt.NoSubscriptionExisted, mqtt.Success, mqtt.NoSubscriptionExisted}
		if got := expect[*mqtt.Unsuback](r); got.ID != 9 || !slices.Equal(got.Reasons, want) {
			t.Errorf("UNSUBACK %+v", got)
		}
		if err := <-u.down("ota/offer", ""); err != gateway.ErrNotSubscribed {
			t.Errorf("Send: %v", err)
		}
		u.down("cmd/x", "")
		expect[*mqtt.Publish](r)
	}},
	{"3.10.4-3", func(t *testing.T, u *unit) {
		r, _ := u.keep()
		r.subscribed(1, "cmd/#")
		sent := u.down("cmd/x", "p")
		expect[*mqtt.Publish](r)
		r.send(&mqtt.Unsubscribe{ID: 9, Topics: []string{"ot/1/me/cmd/#"}})
		expect[*mqtt.Unsuback](r)
		u.gone(r)
		if err := <-sent; err == nil {
			t.Error("nobody acknowledged it")
		}
		r, _ = u.keep()
		if p := expect[*mqtt.Publish](r); !p.Dup || string(p.Payload) != "p" {
			t.Errorf("got %+v", p)
		}
	}},
	{"4.7.1-1", refuses(mqtt.TopicFilterInvalid, packet(0x82, cat([]byte{0, 1, 0}, text("ot/1/me/#/x"), []byte{0})...), packet(0x82, cat([]byte{0, 1, 0}, text("ot/1/me/x#"), []byte{0})...))},
	{"4.7.1-2", refuses(mqtt.TopicFilterInvalid, packet(0x82, cat([]byte{0, 1, 0}, text("ot/1/me/x+"), []byte{0})...))},
	{"4.7.2-1", func(t *testing.T, u *unit) {
		r := u.clean()
		r.send(filters(1, "#", "+/x", "$SYS/#"))
		for _, reason := range expect[*mqtt.Suback](r).Reasons {
			if reason != mqtt.NotAuthorized {
				t.Errorf("SUBACK %s", reason)
			}
		}
	}},
	{"4.7.3-1", refuses(mqtt.TopicFilterInvalid, packet(0x82, 0, 1, 0, 0, 0, 0))},
	{"4.8.2-1 4.8.2-2", refuses(mqtt.TopicFilterInvalid,
		packet(0x82, cat([]byte{0, 1, 0}, text("$share//x"), []byte{0})...), packet(0x82, cat([]byte{0, 1, 0}, text("$share/g"), []byte{0})...),
		packet(0x82, cat([]byte{0, 1, 0}, text("$share/a+/x"), []byte{0})...))},
}
