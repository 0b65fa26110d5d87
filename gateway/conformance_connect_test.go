// SPDX-License-Identifier: AGPL-3.0-only

package gateway_test

import (
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// will is a CONNECT with a will and a delay in seconds.
func willing(c mqtt.Connect, delay uint32) *mqtt.Connect {
	c.Version, c.Will = mqtt.V5, &mqtt.Will{Topic: "ot/1/me/event/offline", Payload: []byte("{}"), QoS: 1}
	if delay > 0 {
		c.Will.Properties = mqtt.Properties{{ID: mqtt.WillDelay, Num: delay}}
	}
	return &c
}

// spoken waits until the unit's will has been appended.
func (u *unit) spoken(t *testing.T, times int) {
	t.Helper()
	u.await("offline " + u.id)
	u.settled()
	u.wantSaid(t, strings.Split(strings.TrimSuffix(strings.Repeat("event/offline {}|", times), "|"), "|")...)
}

// settled returns when everything that was handed to the door is appended: a message goes through after it.
func (h *house) settled() {
	h.t.Helper()
	c := h.session(h.device("dev_settled"), mqtt.V5)
	c.send(qos1(1, "ot/1/me/tele/x", "1"))
	c.wantAck(1, mqtt.Success)
	c.send(&mqtt.Disconnect{})
	c.next()
}

// Statements about CONNECT and CONNACK.
var opening = []statement{
	{"3.1.0-1", func(t *testing.T, u *unit) {
		r := u.open()
		r.send(&mqtt.Pingreq{})
		r.over()
	}},
	{"3.1.0-2 3.2.0-2", refuses(mqtt.ProtocolError, connectBytes(2, text("c")...))},
	{"3.1.2-1", func(t *testing.T, u *unit) {
		r := u.open()
		r.v = mqtt.V4 // the answer has the form that every client reads
		r.bytes(packet(0x10, cat(text("MQTX"), []byte{5, 2, 0, 60, 0, 0, 0})...)...)
		if ack := expect[*mqtt.Connack](r); ack.Reason != mqtt.UnsupportedVersion {
			t.Errorf("CONNACK %+v", ack)
		}
		r.over()
	}},
	{"3.1.2-2", func(t *testing.T, u *unit) {
		r := u.open()
		r.v = mqtt.V4
		r.bytes(packet(0x10, cat(text("MQTT"), []byte{6, 2, 0, 60, 0, 0, 0})...)...)
		if ack := expect[*mqtt.Connack](r); ack.Reason != mqtt.UnsupportedVersion {
			t.Errorf("CONNACK %+v", ack)
		}
		r.over()
	}},
	{"3.1.2-3", turnsAway(0, connectBytes(3, text("c")...))},
	{"3.1.2-4 3.1.4-4 3.2.2-2", func(t *testing.T, u *unit) {
		r, _ := u.keep()
		r.subscribed(1, "cmd/#")
		u.gone(r)
		r = u.open()
		c := keeps(mqtt.Connect{CleanStart: true})
		if ack := r.opened(c); ack.SessionPresent {
			t.Error("a clean start finds a session")
		}
		if err := <-u.down("cmd/x", ""); err != gateway.ErrNotSubscribed {
			t.Errorf("Send: %v", err)
		}
	}},
	{"3.1.2-5 3.1.2-23 3.2.2-3", func(t *testing.T, u *unit) {
		r, _ := u.keep()
		r.subscribed(1, "cmd/#")
		u.gone(r)
		u.clk.Advance(59 * time.Minute)
		r, ack := u.keep()
		if !ack.SessionPresent {
			t.Error("the session is gone")
		}
		sent := u.down("cmd/x", "p")
		r.ack(expect[*mqtt.Publish](r).ID)
		if err := <-sent; err != nil {
			t.Error(err)
		}
	}},
	{"3.1.2-6", func(t *testing.T, u *unit) {
		if _, ack := u.keep(); ack.SessionPresent {
			t.Error("a device that was never here finds a session")
		}
	}},
	{"3.1.2-7 3.1.2-8 3.1.2-14", func(t *testing.T, u *unit) {
		r := u.open()
		r.opened(willing(mqtt.Connect{CleanStart: true}, 0))
		r.Close()
		u.spoken(t, 1)

		// With a delay it is said when that has passed, also by another process.
		r = u.open()
		r.opened(willing(*keeps(mqtt.Connect{}), 30))
		u.gone(r)
		u.settled()
		u.clk.Advance(29 * time.Second)
		u.due()
		u.wantSaid(t, "event/offline {}")
		u.clk.Advance(time.Second)
		u.due()
		u.wantSaid(t, "event/offline {}", "event/offline {}")

		// Or when the session ends, if that is earlier.
		r = u.open()
		c := willing(mqtt.Connect{ClientID: "k", Properties: mqtt.Properties{{ID: mqtt.SessionExpiry, Num: 5}}}, 3000)
		r.opened(c)
		u.gone(r)
		u.settled()
		u.clk.Advance(5 * time.Second)
		u.due()
		u.wantSaid(t, "event/offline {}", "event/offline {}", "event/offline {}")
	}},
	{"3.1.2-9", turnsAway(0, connectBytes(4+2, text("c")...), connectBytes(4+2, cat(text("c"), []byte{0}, text("ot/1/me/event/x"))...))},
	{"3.1.2-10 3.14.4-3", func(t *testing.T, u *unit) {
		r := u.open()
		r.opened(willing(*keeps(mqtt.Connect{}), 0))
		u.bye(r)
		r = u.open()
		r.opened(willing(*keeps(mqtt.Connect{}), 10))
		u.gone(r)
		u.settled()
		for range 3 {
			u.clk.Advance(time.Minute)
			u.due()
		}
		u.wantSaid(t, "event/offline {}")
	}},
	{"3.1.2-11 3.1.2-13", turnsAway(0, connectBytes(0x08+2, text("c")...), connectBytes(0x20+2, text("c")...))},
	{"3.1.2-12", turnsAway(0, connectBytes(0x18+4+2, cat(text("c"), []byte{0}, text("ot/1/me/event/x"), text("{}"))...))},
	{"3.1.2-16 3.1.2-18", turnsAway(0, connectBytes(2, cat(text("c"), text("user"))...))},
	{"3.1.2-17", turnsAway(0, connectBytes(0x80+2, text("c")...))},
	{"3.1.2-19", turnsAway(0, connectBytes(0x40+2, text("c")...))},
	{"3.1.2-24 3.1.2-25", func(t *testing.T, u *unit) {
		r := u.clean(mqtt.Property{ID: mqtt.MaximumPacketSize, Num: 60})
		r.subscribed(1, "cmd/#")
		if err := <-u.down("cmd/x", strings.Repeat("x", 60)); !isProblem(err, mqtt.PacketTooLarge) {
			t.Errorf("Send: %v", err)
		}
		sent := u.down("cmd/y", strings.Repeat("y", 40)) // the door goes on with what fits
		p := expect[*mqtt.Publish](r)
		r.ack(p.ID)
		if err := <-sent; err != nil || len(p.Payload) != 40 {
			t.Errorf("Send: %v, %d bytes", err, len(p.Payload))
		}
		tiny := u.open() // not even the CONNACK fits
		tiny.send(&mqtt.Connect{Version: mqtt.V5, CleanStart: true, Properties: mqtt.Properties{{ID: mqtt.MaximumPacketSize, Num: 10}}})
		tiny.over()
	}},
	{"3.1.2-28", func(t *testing.T, u *unit) {
		for asked, want := range map[uint32]string{0: "", 1: "ot/1/me/"} {
			r := u.open()
			ack := r.opened(&mqtt.Connect{Version: mqtt.V5, CleanStart: true, Properties: mqtt.Properties{{ID: mqtt.RequestResponseInfo, Num: asked}}})
			if got := ack.Properties.Str(mqtt.ResponseInfo); got != want {
				t.Errorf("asked %d, told %q", asked, got)
			}
		}
	}},
	{"3.1.2-29 3.9.2-1", func(t *testing.T, u *unit) {
		for name, p := range map[string]mqtt.Property{"plain": {}, "terse": {ID: mqtt.RequestProblemInfo, Num: 0}, "tiny": {ID: mqtt.MaximumPacketSize, Num: 50}} {
			var ps []mqtt.Property
			if p.ID != 0 {
				ps = append(ps, p)
			}
			r := u.clean(ps...)
			r.send(qos1(1, "elsewhere", "x"))
			puback := expect[*mqtt.Ack](r)
			r.send(filters(2, "elsewhere/#"))
			suback := expect[*mqtt.Suback](r)
			if puback.Reason != mqtt.NotAuthorized || suback.Reasons[0] != mqtt.NotAuthorized {
				t.Errorf("%s: %+v %+v", name, puback, suback)
			}
			words := puback.Properties.Str(mqtt.ReasonString) != "" && suback.Properties.Str(mqtt.ReasonString) != ""
			if words != (name == "plain") || !words && len(puback.Properties)+len(suback.Properties) > 0 {
				t.Errorf("%s: %+v %+v", name, puback, suback)
			}
		}
	}},
	{"3.1.3-1 3.1.4-5", func(t *testing.T, u *unit) { // identifier, will properties, topic, payload, user name, password
		r := u.open()
		r.bytes(connectBytes(0xC0+4+2, cat(text("c"), []byte{5, 0x18, 0, 0, 0, 0}, text("ot/1/me/event/order"), text("last words"), text("user"), text("secret"))...)...)
		if ack := expect[*mqtt.Connack](r); ack.Reason != mqtt.Success {
			t.Fatalf("CONNACK %+v", ack)
		}
		r.Close()
		u.await("offline " + u.id)
		u.settled()
		u.wantSaid(t, "event/order last words")
	}},
	{"3.1.3-2", func(t *testing.T, u *unit) {
		r, _ := u.keep()
		r.subscribed(1, "cmd/#")
		u.gone(r)
		r = u.open()
		c := keeps(mqtt.Connect{})
		c.ClientID = "another"
		if ack := r.opened(c); ack.SessionPresent {
			t.Error("another client identifier goes on with the session")
		}
	}},
	{"3.1.3-3", turnsAway(0, connectBytes(2))},
	{"3.1.3-4", turnsAway(0, connectBytes(2, text("\xFF")...))},
	{"3.1.3-5", func(t *testing.T, u *unit) {
		for _, id := range []string{"0", "abcdefghijklmnopqrstuvw", "ABCDEFGHIJKLMNOPQRSTUVW", "xyzXYZ0123456789"} {
			u.open().opened(&mqtt.Connect{Version: mqtt.V5, CleanStart: true, ClientID: id})
		}
	}},
	{"3.1.3-6 3.1.3-7 3.2.2-16", func(t *testing.T, u *unit) {
		c := keeps(mqtt.Connect{})
		c.ClientID = ""
		r := u.open()
		first := r.opened(c).Properties.Str(mqtt.AssignedClientID)
		r.subscribed(1, "cmd/#")
		u.gone(r)
		c.ClientID = first
		r = u.open()
		if ack := r.opened(c); first == "" || !ack.SessionPresent || ack.Properties.Has(mqtt.AssignedClientID) {
			t.Errorf("assigned %q; with it: %+v", first, ack)
		}
		c.ClientID = ""
		if ack := u.open().opened(c); ack.SessionPresent || ack.Properties.Str(mqtt.AssignedClientID) == first {
			t.Errorf("an identifier was given twice: %+v", ack)
		}
	}},
	{"3.1.3-8", func(t *testing.T, u *unit) {
		r := u.open()
		r.send(&mqtt.Connect{Version: mqtt.V5, CleanStart: true, ClientID: strings.Repeat("x", 300)})
		if ack := expect[*mqtt.Connack](r); ack.Reason != mqtt.ClientIDNotValid || ack.Properties.Str(mqtt.ReasonString) == "" {
			t.Errorf("CONNACK %+v", ack)
		}
		r.over()
	}},
	{"3.1.3-9", func(t *testing.T, u *unit) {
		r := u.open()
		r.opened(willing(*keeps(mqtt.Connect{}), 30))
		u.gone(r)
		u.clk.Advance(20 * time.Second)
		r = u.open()
		r.opened(willing(*keeps(mqtt.Connect{}), 30))
		u.clk.Advance(time.Hour)
		u.due()
		u.gone(r)
		u.settled()
		u.wantSaid(t)
	}},
	{"3.1.3-11", turnsAway(0, connectBytes(4+2, cat(text("c"), []byte{0}, text("\xFF"), text("x"))...))},
	{"3.1.3-12", turnsAway(0, connectBytes(0x80+2, cat(text("c"), text("\xFF"))...))},
	{"3.1.4-1 3.14.0-1", turnsAway(0, packet(0x10, text("MQTT")...), packet(0x10, cat(text("MQTT"), []byte{5, 2, 0, 60, 3, 0x11, 0, 0}, text("c"))...))},
	{"3.1.4-2 3.2.2-6 3.2.2-7 3.2.2-8", func(t *testing.T, u *unit) {
		r := u.open()
		r.send(&mqtt.Connect{Version: mqtt.V5, Will: &mqtt.Will{Topic: "ot/1/acme/another/event/x"}})
		if ack := expect[*mqtt.Connack](r); ack.Reason != mqtt.NotAuthorized || ack.SessionPresent {
			t.Errorf("CONNACK %+v", ack)
		}
		r.over()
	}},
	{"3.1.4-3", func(t *testing.T, u *unit) {
		r := u.clean()
		u.clean()
		r.ended(mqtt.SessionTakenOver)
	}},
	{"3.1.4-6", func(t *testing.T, u *unit) {
		r := u.open()
		r.send(&mqtt.Connect{Version: mqtt.V5, CleanStart: true, Properties: mqtt.Properties{{ID: mqtt.AuthMethod, Str: "x"}}}, qos1(1, "ot/1/me/tele/x", "1"))
		expect[*mqtt.Connack](r)
		r.over()
		u.settled()
		u.wantSaid(t)
	}},
	{"3.2.0-1", func(t *testing.T, u *unit) { // also before what waits for the device
		r, _ := u.keep()
		r.subscribed(1, "cmd/#")
		u.down("cmd/x", "p")
		expect[*mqtt.Publish](r)
		u.gone(r)
		r, _ = u.keep()
		if p := expect[*mqtt.Publish](r); !p.Dup {
			t.Errorf("got %+v", p)
		}
	}},
	{"3.2.2-1", func(t *testing.T, u *unit) {
		r := u.open()
		r.send(&mqtt.Connect{Version: mqtt.V5, CleanStart: true})
		if header, body, err := r.r.Next(); err != nil || header != 0x20 || body[0] != 0 {
			t.Errorf("%X % X %v", header, body, err)
		}
	}},
	{"3.2.2-9", func(t *testing.T, u *unit) {
		r := u.open()
		ack := r.opened(&mqtt.Connect{Version: mqtt.V5, CleanStart: true})
		if ack.Properties.Num(mqtt.MaximumQoS, 2) != 1 || ack.Properties.Num(mqtt.RetainAvailable, 1) != 0 {
			t.Errorf("CONNACK %+v", ack)
		}
	}},
	{"3.2.2-12 3.2.2-13", func(t *testing.T, u *unit) {
		for why, w := range map[mqtt.Reason]mqtt.Will{
			mqtt.QoSNotSupported:    {Topic: "ot/1/me/event/x", QoS: 2},
			mqtt.RetainNotSupported: {Topic: "ot/1/me/event/x", Retain: true},
		} {
			r := u.open()
			r.send(&mqtt.Connect{Version: mqtt.V5, CleanStart: true, Will: &w})
			if ack := expect[*mqtt.Connack](r); ack.Reason != why {
				t.Errorf("CONNACK %+v, want %s", ack, why)
			}
			r.over()
		}
	}},
	{"3.2.2-19", func(t *testing.T, u *unit) {
		r := u.open()
		r.send(&mqtt.Connect{Version: mqtt.V5, CleanStart: true, ClientID: strings.Repeat("x", 300), Properties: mqtt.Properties{{ID: mqtt.MaximumPacketSize, Num: 20}}})
		if ack := expect[*mqtt.Connack](r); ack.Reason != mqtt.ClientIDNotValid || len(ack.Properties) > 0 {
			t.Errorf("CONNACK %+v", ack)
		}
		r.over()
	}},
	{"4.12.0-1 4.12.0-4", func(t *testing.T, u *unit) {
		r := u.open()
		r.send(&mqtt.Connect{Version: mqtt.V5, CleanStart: true, Properties: mqtt.Properties{{ID: mqtt.AuthMethod, Str: "SCRAM-SHA-1"}}})
		if ack := expect[*mqtt.Connack](r); ack.Reason != mqtt.BadAuthMethod || ack.Properties.Has(mqtt.AuthMethod) {
			t.Errorf("CONNACK %+v", ack)
		}
		r.over()
	}},
	{"4.12.0-6", func(t *testing.T, u *unit) {
		r := u.open()
		if ack := r.opened(&mqtt.Connect{Version: mqtt.V5, CleanStart: true}); ack.Properties.Has(mqtt.AuthMethod) {
			t.Errorf("CONNACK %+v", ack)
		}
		r.silent()
	}},
}

// Statements about DISCONNECT and the end of sessions.
var closing = []statement{
	{"3.14.2-1", refuses(mqtt.MalformedPacket, []byte{0xE0, 1, 0x77}, []byte{0xE0, 1, 0x01})},
	{"3.14.2-3", func(t *testing.T, u *unit) {
		r := u.clean(mqtt.Property{ID: mqtt.MaximumPacketSize, Num: 50})
		r.send(&mqtt.Publish{Topic: "elsewhere"})
		if d := expect[*mqtt.Disconnect](r); d.Reason != mqtt.NotAuthorized || len(d.Properties) > 0 {
			t.Errorf("got %+v", d)
		}
		r.over()
	}},
	{"3.14.4-1", func(t *testing.T, u *unit) {
		r := u.clean()
		r.send(&mqtt.Disconnect{}, qos1(1, "ot/1/me/tele/x", "late"))
		r.over()
		u.settled()
		u.wantSaid(t)
	}},
	{"4.1.0-1", func(t *testing.T, u *unit) { // longer than the session would outlive its connection
		r, _ := u.keep()
		r.subscribed(1, "cmd/#")
		u.clk.Advance(48 * time.Hour)
		sent := u.down("cmd/x", "")
		r.ack(expect[*mqtt.Publish](r).ID)
		if err := <-sent; err != nil {
			t.Error(err)
		}
	}},
	{"4.1.0-2", func(t *testing.T, u *unit) {
		r, _ := u.keep()
		r.subscribed(1, "cmd/#")
		u.bye(r)
		u.settled()
		u.clk.Advance(time.Hour)
		if _, ack := u.keep(); ack.SessionPresent {
			t.Error("a session outlived its expiry")
		}
	}},
}
