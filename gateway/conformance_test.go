// SPDX-License-Identifier: AGPL-3.0-only

package gateway_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// unit is one device at the door, with sessions in rows: what the check of a statement works with.
type unit struct {
	*kept
	id   string
	cert tls.Certificate
}

// statement is the check of one or more normative statements of MQTT 5.0, by their numbers without "MQTT-".
type statement struct {
	ids   string
	check func(t *testing.T, u *unit)
}

// TestConformance checks the door against the statements, one after the other, each with a device of its own on a real TLS
// socket. docs/reference/mqtt.md lists all statements and says which of them are checked here.
func TestConformance(t *testing.T) {
	k := newKept(t, storetest.SQLiteURL(t), gateway.Limits{Packet: 4096})
	outer := k.t
	for i, s := range allStatements() {
		for _, id := range strings.Fields(s.ids) {
			t.Run("MQTT-"+id, func(t *testing.T) {
				k.t = t
				defer func() { k.t = outer }()
				device := fmt.Sprintf("dev_%d_%s", i, strings.ReplaceAll(id, ".", "_"))
				s.check(t, &unit{k, device, k.device(device)})
			})
		}
	}
}

func allStatements() []statement {
	var all []statement
	for _, part := range [][]statement{encoding, opening, closing, publishing, downlinks, subscribing} {
		all = append(all, part...)
	}
	return all
}

// open is a fresh MQTT 5 connection, before CONNECT.
func (u *unit) open() *raw { return u.raw(u.cert, mqtt.V5) }

// clean is an MQTT 5 session that ends with its connection.
func (u *unit) clean(ps ...mqtt.Property) *raw {
	r := u.open()
	r.opened(&mqtt.Connect{Version: mqtt.V5, CleanStart: true, ClientID: "c", KeepAlive: 60, Properties: ps})
	return r
}

// keep is an MQTT 5 session that outlives its connection; it is resumed if it was there.
func (u *unit) keep(ps ...mqtt.Property) (*raw, *mqtt.Connack) {
	r := u.open()
	return r, r.opened(keeps(mqtt.Connect{Properties: ps}))
}

// gone closes the socket without a word and waits until the door has noticed.
func (u *unit) gone(r *raw) {
	r.t.Helper()
	r.Close()
	u.await("offline " + u.id)
}

// bye says goodbye and waits until the door has settled it.
func (u *unit) bye(r *raw, ps ...mqtt.Property) {
	r.t.Helper()
	r.send(&mqtt.Disconnect{Properties: ps})
	r.over()
	u.await("offline " + u.id)
}

// down sends to the unit beside the test.
func (u *unit) down(topic, payload string) <-chan error {
	return u.sending(gateway.Downlink{Device: u.id, Topic: topic, Payload: []byte(payload)})
}

// said lists what was appended for the unit, as "topic payload".
func (u *unit) said() (out []string) {
	for _, r := range u.appended() {
		if r.Device == u.id {
			out = append(out, r.Topic+" "+string(r.Body))
		}
	}
	return out
}

// wantSaid asserts what was appended for the unit.
func (u *unit) wantSaid(t *testing.T, want ...string) {
	t.Helper()
	if got := u.said(); strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("appended %q, want %q", got, want)
	}
}

// over asserts that the connection ends without another word.
func (r *raw) over() {
	r.t.Helper()
	if p := r.next(); p != nil {
		r.t.Errorf("got %T %+v, want the end", p, p)
	}
}

// bytes writes what no encoder of ours would.
func (r *raw) bytes(b ...byte) {
	r.t.Helper()
	if _, err := r.Write(b); err != nil {
		r.t.Fatal(err)
	}
}

// packet frames a body.
func packet(first byte, body ...byte) []byte {
	return append([]byte{first, byte(len(body))}, body...)
}

// text is a string with its length.
func text(s string) []byte { return append([]byte{byte(len(s) >> 8), byte(len(s))}, s...) }

func cat(parts ...[]byte) (out []byte) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// refuses is a check that the door answers a packet of an open session by DISCONNECT with a reason, and closes.
func refuses(why mqtt.Reason, packets ...[]byte) func(*testing.T, *unit) {
	return func(t *testing.T, u *unit) {
		for _, p := range packets {
			r := u.clean()
			r.bytes(p...)
			d := expect[*mqtt.Disconnect](r)
			if d.Reason != why {
				t.Errorf("% X is answered by %s, want %s", p, d.Reason, why)
			}
			if d.Properties.Has(mqtt.SessionExpiry) { // [MQTT-3.14.2-2]
				t.Error("the door tells a device how long its session lasts in DISCONNECT")
			}
			r.over()
		}
	}
}

// connectBytes is a CONNECT of MQTT 5 with these flags and payload, keep-alive 60 and no properties.
func connectBytes(flags byte, payload ...byte) []byte {
	return packet(0x10, cat(text("MQTT"), []byte{5, flags, 0, 60, 0}, payload)...)
}

// turnsAway is a check that the door closes on a CONNECT, without a word or with a CONNACK that carries why.
func turnsAway(why mqtt.Reason, packets ...[]byte) func(*testing.T, *unit) {
	return func(t *testing.T, u *unit) {
		for _, p := range packets {
			r := u.open()
			r.bytes(p...)
			if why != 0 {
				if ack := expect[*mqtt.Connack](r); ack.Reason != why || ack.SessionPresent {
					t.Errorf("% X is answered by %+v, want %s", p, ack, why)
				}
			}
			r.over()
		}
	}
}

// Statements about the encoding of packets.
var encoding = []statement{
	{"1.5.4-1 3.3.2-1", refuses(mqtt.MalformedPacket,
		packet(0x30, cat(text("\xED\xA0\x80"), []byte{0})...), packet(0x30, cat(text("\xFF"), []byte{0})...))},
	{"1.5.4-2 4.7.3-2", refuses(mqtt.MalformedPacket,
		packet(0x30, cat(text("a\x00b"), []byte{0})...), packet(0x82, cat([]byte{0, 1, 0}, text("a\x00"), []byte{0})...))},
	{"1.5.4-3", func(t *testing.T, u *unit) {
		r := u.clean()
		r.send(qos1(1, "ot/1/me/tele/\uFEFFx", "1"))
		r.wantAck(1, mqtt.Success)
		u.wantSaid(t, "tele/\uFEFFx 1")
	}},
	{"1.5.5-1", refuses(mqtt.MalformedPacket, []byte{0xC0, 0x80, 0x00}, packet(0x30, cat(text("t"), []byte{0x80, 0})...))},
	{"1.5.7-1", refuses(mqtt.MalformedPacket,
		packet(0x30, cat(text("t"), []byte{8, 0x26}, text("k"), text("\xFF\xFE"))...), packet(0x30, cat(text("t"), []byte{7, 0x26}, text("\xFF"), text("v"))...))},
	{"2.1.3-1", refuses(mqtt.MalformedPacket, []byte{0xC1, 0}, []byte{0xE8, 0}, []byte{0x42, 2, 0, 1})},
	{"2.2.1-2", func(t *testing.T, u *unit) {
		r := u.clean()
		r.subscribed(0, "cmd/#")
		if err := <-u.down("cmd/x", "p"); err != nil {
			t.Fatal(err)
		}
		header, body, err := r.r.Next()
		want := cat(text("ot/1/me/cmd/x"), []byte{0}, []byte("p"))
		if err != nil || header != 0x30 || string(body) != string(want) {
			t.Errorf("%X % X %v, want % X", header, body, err, want)
		}
	}},
	{"2.2.1-3", refuses(mqtt.ProtocolError,
		packet(0x32, cat(text("t"), []byte{0, 0, 0})...), packet(0x82, cat([]byte{0, 0, 0}, text("a"), []byte{0})...), packet(0xA2, cat([]byte{0, 0, 0}, text("a"))...))},
	{"2.2.1-4 4.3.2-1 4.3.2-2", func(t *testing.T, u *unit) {
		r := u.clean()
		r.subscribed(1, "cmd/#")
		seen := map[uint16]bool{0: true}
		for i := range 10 {
			u.down(fmt.Sprintf("cmd/%d", i), "")
			if p := expect[*mqtt.Publish](r); seen[p.ID] || p.Dup || p.QoS != 1 {
				t.Errorf("got %+v", p)
			} else {
				seen[p.ID] = true
			}
		}
	}},
	{"2.2.1-5 3.3.4-1 4.3.2-4", func(t *testing.T, u *unit) {
		r := u.clean()
		r.send(qos1(0xBEEF, "ot/1/me/tele/x", "1"), &mqtt.Publish{Topic: "ot/1/me/tele/y", Payload: []byte("2")})
		r.wantAck(0xBEEF, mqtt.Success)
		r.silent()
	}},
	{"2.2.1-6 2.2.2-1 3.8.4-1 3.8.4-2 3.10.4-4 3.10.4-5", func(t *testing.T, u *unit) {
		r := u.clean()
		r.send(&mqtt.Subscribe{ID: 0xABCD, Filters: []mqtt.Filter{{Topic: "ot/1/me/cmd/#"}}}, &mqtt.Unsubscribe{ID: 0xABCE, Topics: []string{"ot/1/me/none"}})
		for _, want := range [][]byte{{0xAB, 0xCD, 0, 0}, {0xAB, 0xCE, 0, 0x11}} {
			if _, body, err := r.r.Next(); err != nil || string(body) != string(want) {
				t.Errorf("% X %v, want % X", body, err, want)
			}
		}
	}},
	{"4.2.0-1", func(t *testing.T, u *unit) { // a packet may come in any pieces
		r := u.open()
		var b []byte
		for _, p := range []mqtt.Packet{&mqtt.Connect{Version: mqtt.V5, CleanStart: true}, qos1(1, "ot/1/me/tele/x", "1")} {
			var err error
			if b, err = mqtt.Append(b, mqtt.V5, p); err != nil {
				t.Fatal(err)
			}
		}
		for _, one := range b {
			r.bytes(one)
		}
		expect[*mqtt.Connack](r)
		r.wantAck(1, mqtt.Success)
	}},
	{"3.6.1-1", refuses(mqtt.MalformedPacket, []byte{0x60, 2, 0, 1}, []byte{0x64, 2, 0, 1})},
	{"3.8.1-1", refuses(mqtt.MalformedPacket, packet(0x80, cat([]byte{0, 1, 0}, text("a"), []byte{0})...))},
	{"3.10.1-1", refuses(mqtt.MalformedPacket, packet(0xA0, cat([]byte{0, 1, 0}, text("a"))...))},
	{"3.14.1-1", refuses(mqtt.MalformedPacket, []byte{0xE1, 0}, []byte{0xE2, 0})},
	{"3.15.1-1", refuses(mqtt.MalformedPacket, []byte{0xF1, 0})},
	{"4.12.1-1 4.12.1-2", refuses(mqtt.ProtocolError, []byte{0xF0, 0}, packet(0xF0, cat([]byte{0x19, 4, 0x15}, text("x"))...))},
	{"3.12.4-1", func(t *testing.T, u *unit) { u.clean().silent() }},
	{"4.13.1-1 4.13.2-1 3.14.4-2 3.14.2-2", refuses(mqtt.ProtocolError, []byte{0x20, 3, 0, 0, 0}, []byte{0x40, 2, 0, 9})},
}

// isProblem says whether err is a refusal with that reason.
func isProblem(err error, why mqtt.Reason) bool {
	var e *mqtt.Error
	return errors.As(err, &e) && e.Reason == why
}
