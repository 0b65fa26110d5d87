// SPDX-License-Identifier: AGPL-3.0-only

package gateway_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/wire/coap"
)

// TestCoAPAnswerIsAReceipt: 2.04 comes after Append returned. A device that repeats its message meanwhile is told that it
// came, which is no receipt; that follows in a message of its own, until the device has it.
func TestCoAPAnswerIsAReceipt(t *testing.T) {
	hand := clock.NewHand(time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC))
	h := newHouseWith(t, func(c *gateway.Config) { c.Clock = hand })
	c := h.mote(h.device("dev_1"))
	hold, entered := make(chan struct{}), make(chan int, 1)
	release := sync.OnceFunc(func() { close(hold) })
	t.Cleanup(release)
	h.set(hold, entered, nil)
	c.send(post(7, "tele/env", `{"t":1}`))
	<-entered
	c.send(coap.Message{ID: 1}) // a ping: what comes first would be an answer that came too early
	c.wants(coap.Reset, 1, coap.Empty)
	c.send(post(7, "tele/env", `{"t":1}`))
	c.wants(coap.Acknowledgement, 7, coap.Empty)
	if n := len(h.appended()); n > 0 {
		t.Fatalf("%d records", n)
	}
	release()
	answer := c.next()
	if answer.Type != coap.Confirmable || answer.Code != coap.Changed || string(answer.Token) != "\x07\xab" || len(h.appended()) != 1 {
		t.Errorf("answer %+v, %d records", answer, len(h.appended()))
	}
	wait := 3 * time.Second
	for range 2 { // the answer is lost: it is sent again, each time later
		hand.WaitTimers(2) // that of the answer beside that of the sweep
		hand.Advance(wait)
		c.wants(coap.Confirmable, answer.ID, coap.Changed)
		wait *= 2
	}
	c.send(coap.Message{Type: coap.Acknowledgement, ID: answer.ID})
	c.send(post(7, "tele/env", `{"t":1}`))
	c.wants(coap.Acknowledgement, 7, coap.Empty)
	if n := len(h.appended()); n != 1 {
		t.Errorf("%d records", n)
	}
}

// TestCoAPLostAnswer: a device that did not hear the receipt repeats its message, and the platform keeps it once. When the
// ID may be used again, it is a message of its own.
func TestCoAPLostAnswer(t *testing.T) {
	hand := clock.NewHand(time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC))
	h := newHouseWith(t, func(c *gateway.Config) { c.Clock = hand })
	c := h.mote(h.device("dev_1"))
	for range 3 {
		c.send(post(9, "tele/env", `{"t":1}`))
		c.wants(coap.Acknowledgement, 9, coap.Changed)
	}
	if n := len(h.appended()); n != 1 {
		t.Errorf("%d records of one message that came three times", n)
	}
	hand.Advance(247 * time.Second)
	c.send(post(9, "tele/env", `{"t":2}`))
	c.wants(coap.Acknowledgement, 9, coap.Changed)

	non := post(10, "tele/env", `{"t":3}`)
	non.Type = coap.NonConfirmable
	for range 2 {
		c.send(non)
		if got := c.next(); got.Type != coap.NonConfirmable || got.Code != coap.Changed {
			t.Errorf("NON was answered by %+v", got)
		}
	}
	hand.Advance(145 * time.Second)
	c.send(non)
	c.next()
	if n := len(h.appended()); n != 4 {
		t.Errorf("%d records, want 4", n)
	}
}

// TestCoAPMessageSays: what a device says beside the body reaches the record, and everything that the door does not take
// is refused with the code that the RFCs give it, the rule first.
func TestCoAPMessageSays(t *testing.T) {
	h := newHouse(t, gateway.Limits{Packet: 4096})
	c := h.mote(h.device("dev_1"))
	c.send(post(1, "tele/env", "\x81\xa1\x00\x61a", option(coap.ContentFormat, coap.SenMLCBOR), func(m *coap.Message) {
		m.SetQuery("boot=5")
		m.SetQuery("seq=18446744073709551615")
	}))
	c.wants(coap.Acknowledgement, 1, coap.Changed)
	if r := h.appended()[0]; r.Type != "application/senml+cbor" || r.Boot != 5 || r.Seq != 1<<64-1 || r.Topic != "tele/env" || r.Device != "dev_1" || r.Tenant != "acme" {
		t.Errorf("record %+v", r)
	}
	full := post(2, "x", "1")
	full.Options = nil
	full.SetPath("ot/1/acme/dev_1/event/door")
	c.send(full)
	c.wants(coap.Acknowledgement, 2, coap.Changed)

	id := uint16(100)
	for name, bad := range map[string]struct {
		m    coap.Message
		code coap.Code
		says string
	}{
		"no uplink":        {post(0, "cmd/c1/reboot", "1"), coap.Forbidden, "topic.own"},
		"another device":   {coap.Message{Code: coap.POST, Options: path("ot/1/acme/dev_2/tele/env")}, coap.Forbidden, "topic.own"},
		"a wildcard":       {post(0, "tele/#", "1"), coap.Forbidden, "topic.own"},
		"no payload":       {post(0, "tele/env", ""), coap.BadRequest, "message.form"},
		"GET of an uplink": {coap.Message{Code: coap.GET, Options: path("ot/1/me/tele/env")}, coap.MethodNotAllowed, "coap.method"},
		"nothing there":    {coap.Message{Code: coap.GET, Options: path("secret")}, coap.NotFound, "coap.path"},
		"an empty segment": {coap.Message{Code: coap.GET, Options: path("ot//1")}, coap.BadRequest, "coap.path"},
		"unknown format":   {post(0, "tele/env", "1", option(coap.ContentFormat, 11542)), coap.UnsupportedFormat, "11542"},
		"unknown argument": {post(0, "tele/env", "1", func(m *coap.Message) { m.SetQuery("sqe=1") }), coap.BadRequest, "sqe"},
		"unknown critical": {post(0, "tele/env", "1", option(9, 1)), coap.BadOption, "option 9"},
		"a proxy": {post(0, "tele/env", "1", func(m *coap.Message) {
			m.Options = append(m.Options, coap.Option{Number: coap.ProxyScheme, Value: []byte("http")})
		}), coap.ProxyingForbidden, "proxy"},
		"Accept of the list": {coap.Message{Code: coap.GET, Options: append(path(".well-known/core"), coap.Option{Number: coap.Accept, Value: []byte{50}})}, coap.NotAcceptable, "40"},
		"said to be large":   {post(0, "tele/env", "1", option(coap.Size1, 5000)), coap.TooLarge, "4096"},
	} {
		id++
		bad.m.ID = id
		c.send(bad.m)
		if got := c.wants(coap.Acknowledgement, id, bad.code); !strings.Contains(string(got.Payload), bad.says) {
			t.Errorf("%s: %q", name, got.Payload)
		}
	}
	silent := post(90, "tele/env", "1", option(9, 1))
	silent.Type = coap.NonConfirmable
	c.send(silent) // not even refused: RFC 7252, section 5.4.1
	c.send(coap.Message{ID: 91})
	c.wants(coap.Reset, 91, coap.Empty)
	if n := len(h.appended()); n != 2 {
		t.Errorf("%d records", n)
	}
}

func path(p string) []coap.Option {
	var m coap.Message
	m.SetPath(p)
	return m.Options
}

// TestCoAPBlocks: a body comes in blocks and is one message; one that lacks a block, is too large or says something else
// than it is, is none.
func TestCoAPBlocks(t *testing.T) {
	h := newHouse(t, gateway.Limits{Packet: 4096})
	c := h.mote(h.device("dev_1"))
	part := func(id uint16, num uint32, more bool, payload string) coap.Message {
		return post(id, "tele/env", payload, block(coap.Block1, coap.Block{Num: num, More: more, Size: 1024}))
	}
	kb := strings.Repeat("x", 1024)
	for n := range uint32(3) {
		c.send(part(uint16(n), n, true, kb))
		if n == 1 { // its answer is lost
			c.next()
			c.send(part(uint16(n), n, true, kb))
		}
		answer := c.wants(coap.Acknowledgement, uint16(n), coap.Continue)
		if b, ok, _ := answer.Block(coap.Block1); !ok || b.Num != n || !b.More {
			t.Errorf("block %+v", b)
		}
	}
	c.send(part(3, 3, false, "end"))
	c.wants(coap.Acknowledgement, 3, coap.Changed)
	if rs := h.appended(); len(rs) != 1 || string(rs[0].Body) != kb+kb+kb+"end" {
		t.Fatalf("%d records", len(rs))
	}
	c.send(part(10, 1, true, kb))
	c.wants(coap.Acknowledgement, 10, coap.Incomplete)
	c.send(part(11, 0, true, kb))
	c.wants(coap.Acknowledgement, 11, coap.Continue)
	c.send(part(12, 2, false, "end"))
	c.wants(coap.Acknowledgement, 12, coap.Incomplete)
	c.send(part(13, 0, true, "short"))
	c.wants(coap.Acknowledgement, 13, coap.BadRequest)
	for n := range uint32(4) {
		c.send(part(20+uint16(n), n, true, kb))
		c.wants(coap.Acknowledgement, 20+uint16(n), coap.Continue)
	}
	c.send(part(24, 4, false, "1"))
	refusal := c.wants(coap.Acknowledgement, 24, coap.TooLarge)
	if most, _ := refusal.Uint(coap.Size1); most != 4096 {
		t.Errorf("Size1 %d", most)
	}
	if n := len(h.appended()); n != 1 {
		t.Errorf("%d records", n)
	}

	// The list of what there is, in blocks of the device's choice.
	var list []byte
	for n := uint32(0); ; n++ {
		c.send(coap.Message{Code: coap.GET, ID: 200 + uint16(n), Options: append(path(".well-known/core"), blockOption(coap.Block{Num: n, Size: 64}))})
		got := c.wants(coap.Acknowledgement, 200+uint16(n), coap.Content)
		list = append(list, got.Payload...)
		if b, _, _ := got.Block(coap.Block2); !b.More {
			break
		}
	}
	if s := string(list); !strings.HasPrefix(s, "</ot/1/me/tele>;") || !strings.Contains(s, "</ot/1/me/inv>") {
		t.Errorf("%q", s)
	}
}

func blockOption(b coap.Block) coap.Option {
	var m coap.Message
	m.SetBlock(coap.Block2, b)
	return m.Options[0]
}

// TestCoAPSaysWhenToComeBack: what is refused for now says for how long, and not what failed inside.
func TestCoAPSaysWhenToComeBack(t *testing.T) {
	h := newHouseWith(t, func(c *gateway.Config) {
		c.Clock = clock.NewHand(time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC))
		c.Limits = gateway.Limits{Device: gateway.Quota{Messages: 1, Burst: 2 * time.Second}, Exchanges: 6}
	})
	c := h.mote(h.device("dev_1"))
	for id := range uint16(2) {
		c.send(post(id, "tele/env", "1"))
		c.wants(coap.Acknowledgement, id, coap.Changed)
	}
	c.send(post(2, "tele/env", "1"))
	later := func(m coap.Message, says string) {
		t.Helper()
		if wait, ok := m.Uint(coap.MaxAge); !ok || wait == 0 || !strings.Contains(string(m.Payload), says) {
			t.Errorf("%q, Max-Age %d", m.Payload, wait)
		}
	}
	later(c.wants(coap.Acknowledgement, 2, coap.TooMany), gateway.RuleDeviceQuota)
	h.set(nil, nil, errors.New("disk full"))
	other := h.mote(h.device("dev_2"))
	other.send(post(1, "tele/env", "1"))
	broken := other.wants(coap.Acknowledgement, 1, coap.Unavailable)
	later(broken, "unavailable")
	if strings.Contains(string(broken.Payload), "disk") {
		t.Errorf("the device hears %q", broken.Payload)
	}
	for id := uint16(3); id < 6; id++ {
		c.send(post(id, "tele/env", "1"))
		c.wants(coap.Acknowledgement, id, coap.TooMany)
	}
	c.send(post(6, "tele/env", "1")) // more than the door can remember
	later(c.wants(coap.Acknowledgement, 6, coap.Unavailable), "door.busy")
}
