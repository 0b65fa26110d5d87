// SPDX-License-Identifier: AGPL-3.0-only

package gateway_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/testpeers"
	"github.com/openthings-platform/openthings/wire"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// foreign is a device whose client is not ours, at a door with sessions in rows.
type foreign struct {
	*unit
	t      *testing.T
	name   string
	v      mqtt.Version
	client *testpeers.MQTT
	early  []event // messages that the client told before the CONNACK which came before them
}

type (
	order = testpeers.MQTTOrder
	event = testpeers.MQTTEvent
)

// eachClient runs the walk with Eclipse Paho's clients and MQTT.js, in both versions. Debian's are in TestMosquitto.
func eachClient(t *testing.T, walk func(t *testing.T, f *foreign)) {
	for _, name := range []string{"paho", "mqtt.js"} {
		for _, v := range []mqtt.Version{mqtt.V5, mqtt.V4} {
			t.Run(fmt.Sprintf("%s %d", name, v), func(t *testing.T) {
				k := newKept(t, storetest.SQLiteURL(t), gateway.Limits{Packet: 4096})
				walk(t, newForeign(t, &unit{k, "dev_1", k.device("dev_1")}, name, v))
			})
		}
	}
}

func newForeign(t *testing.T, u *unit, name string, v mqtt.Version) *foreign {
	t.Helper()
	cert, key := u.pem(u.cert)
	client, err := testpeers.StartMQTT(t.Context(), name, int(v), u.mqtt, testpeers.MQTTFiles{CA: u.caFile, Cert: cert, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Stop() })
	return &foreign{unit: u, t: t, name: name, v: v, client: client}
}

func (f *foreign) do(o order) {
	f.t.Helper()
	if err := f.client.Do(o); err != nil {
		f.t.Fatal(err)
	}
}

// next is what the server says next. What a client says of itself beside (that an order of its own failed since the
// connection ended) is skipped.
func (f *foreign) next() event {
	f.t.Helper()
	if len(f.early) > 0 {
		e := f.early[0]
		f.early = f.early[1:]
		return e
	}
	timeout := time.After(patience)
	for {
		select {
		case e, ok := <-f.client.Events:
			if !ok {
				f.t.Fatal("the client has ended")
			}
			if e.Is != "lost" && e.Is != "error" {
				return e
			}
			f.t.Logf("the client says %s: %s", e.Is, e.Words)
		case <-timeout:
			f.t.Fatal("the client said nothing")
		}
	}
}

// want is the next word of the server, which has to be of that kind.
func (f *foreign) want(is string) event {
	f.t.Helper()
	e := f.next()
	if e.Is != is {
		f.t.Fatalf("got %+v, want %s", e, is)
	}
	return e
}

// connect sends CONNECT and returns the CONNACK; how an older connection ended is skipped.
func (f *foreign) connect(o order) event {
	f.t.Helper()
	o.Do = "connect"
	if o.KeepAlive == 0 {
		o.KeepAlive = 60
	}
	f.do(o)
	var early []event
	for {
		switch e := f.next(); {
		case e.Is == "connack":
			f.early = early
			return e
		case e.Is == "message" && f.name == "paho":
			early = append(early, e)
		case e.Is != "end":
			f.t.Fatalf("got %+v, want connack", e)
		}
	}
}

// online is a connection that was accepted.
func (f *foreign) online(o order) event {
	f.t.Helper()
	e := f.connect(o)
	if e.Code != 0 {
		f.t.Fatalf("%+v was answered by %+v", o, e)
	}
	return e
}

func (f *foreign) subscribe(qos int, filters ...string) {
	f.t.Helper()
	for i := range filters {
		filters[i] = "ot/1/me/" + filters[i]
	}
	f.do(order{Do: "subscribe", QoS: qos, Topics: filters})
	for _, c := range f.want("suback").Codes {
		if c != qos {
			f.t.Fatalf("SUBACK 0x%02X", c)
		}
	}
}

// publish sends QoS 1 to a topic of its own and returns the PUBACK.
func (f *foreign) publish(topic, payload string) event {
	f.t.Helper()
	f.do(order{Do: "publish", QoS: 1, Topic: "ot/1/me/" + topic, Payload: payload})
	return f.want("puback")
}

// drop ends the connection without a word, and waits until the door has settled it.
func (f *foreign) drop() {
	f.t.Helper()
	f.do(order{Do: "drop"})
	f.await("offline " + f.id)
}

// bye says goodbye.
func (f *foreign) bye(o order) {
	f.t.Helper()
	o.Do = "disconnect"
	f.do(o)
	f.await("offline " + f.id)
}

// kept is a session that outlives its connection.
func keptOrder(o order) order {
	o.ID, o.Expiry = "k", 600
	return o
}

// TestForeignClients is the walk through what a device needs, with clients that thousands of makers use.
func TestForeignClients(t *testing.T) {
	eachClient(t, func(t *testing.T, f *foreign) {
		five := f.v == mqtt.V5
		t.Run("opening and receipts", func(t *testing.T) {
			e := f.online(order{Clean: true, ID: "c", Info: true})
			if e.Present || five && (e.Props["qos"] != "1" || e.Props["receive"] != "64" || e.Props["aliases"] != "16" || e.Props["info"] != "ot/1/me/") {
				t.Errorf("CONNACK %+v", e)
			}
			for i := range 3 {
				if ack := f.publish("tele/x", fmt.Sprint(i)); ack.Code != 0 {
					t.Errorf("PUBACK %+v", ack)
				}
			}
			f.wantSaid(t, "tele/x 0", "tele/x 1", "tele/x 2")
			f.do(order{Do: "publish", Topic: "ot/1/me/tele/x", Payload: "3"}) // QoS 0: what follows it comes after it
			f.publish("tele/x", "4")
			f.wantSaid(t, "tele/x 0", "tele/x 1", "tele/x 2", "tele/x 3", "tele/x 4")
			f.bye(order{})
		})
		t.Run("a session that is kept", func(t *testing.T) {
			if f.online(keptOrder(order{Hold: true})).Present {
				t.Error("a session was there before")
			}
			f.subscribe(1, "cmd/#")
			lost := f.down("cmd/c1/reboot", "now")
			if m := f.want("message"); m.Topic != "ot/1/me/cmd/c1/reboot" || m.Payload != "now" || m.QoS != 1 || m.Dup {
				t.Errorf("got %+v", m)
			}
			f.drop() // before it has acknowledged
			if err := <-lost; err == nil {
				t.Error("nobody acknowledged it")
			}
			if !f.online(keptOrder(order{})).Present {
				t.Error("the session is gone")
			}
			if m := f.want("message"); m.Payload != "now" || f.name != "paho" && !m.Dup { // Paho's does not say whether it is a repetition
				t.Errorf("got %+v", m)
			}
			if err := <-f.down("cmd/c2/blink", ""); err != nil { // and its subscription
				t.Errorf("Send: %v", err)
			}
			f.want("message")
			f.drop()
			f.online(keptOrder(order{}))
			if ack := f.publish("tele/x", "5"); ack.Code != 0 { // nothing comes before it: all was acknowledged
				t.Errorf("PUBACK %+v", ack)
			}
			f.drop()
			f.clk.Advance(8 * 24 * time.Hour)
			if f.online(keptOrder(order{})).Present {
				t.Error("the session outlived its expiry")
			}
			f.bye(order{})
			if f.online(keptOrder(order{Clean: true})).Present {
				t.Error("a clean start finds a session")
			}
			f.bye(order{})
		})
		t.Run("request and response", func(t *testing.T) {
			f.online(order{Clean: true, ID: "c"})
			f.subscribe(1, "cmd/#")
			sent := f.sending(gateway.Downlink{Device: f.id, Topic: "cmd/c7/open", Payload: []byte("{}"), Type: "application/json",
				Reply: "cmd/c7/res", Correlation: "c7", Expires: f.clk.Now().Add(time.Minute)})
			m := f.want("message")
			if err := <-sent; err != nil {
				t.Error(err)
			}
			answer := "ot/1/me/cmd/c7/res"
			if five {
				answer = m.Props["response"]
				if p := m.Props; p["correlation"] != "c7" || p["type"] != "application/json" || p["expiry"] != "60" || answer != "ot/1/me/cmd/c7/res" {
					t.Errorf("got %+v", m)
				}
			}
			if ack := f.publish(strings.TrimPrefix(answer, "ot/1/me/"), `{"ok":true}`); ack.Code != 0 {
				t.Errorf("PUBACK %+v", ack)
			}
			if said := f.said(); said[len(said)-1] != `cmd/c7/res {"ok":true}` {
				t.Errorf("appended %q", said)
			}
			f.bye(order{})
		})
		t.Run("will", func(t *testing.T) {
			will := &testpeers.MQTTWill{Topic: "ot/1/me/event/offline", Payload: "{}", QoS: 1}
			times := func(n int) {
				t.Helper()
				f.settled()
				if got := len(slices.DeleteFunc(f.said(), func(s string) bool { return s != "event/offline {}" })); got != n {
					t.Errorf("the will was said %d times, want %d", got, n)
				}
			}
			f.online(order{Clean: true, ID: "c", Will: will})
			f.bye(order{})
			times(0)
			f.online(order{Clean: true, ID: "c", Will: will})
			f.drop()
			times(1)
			if !five {
				return
			}
			f.online(order{Clean: true, ID: "c", Will: will})
			f.bye(order{Code: 4}) // Disconnect with Will Message
			times(2)
			will.Delay = 30
			f.online(keptOrder(order{Will: will}))
			f.drop()
			f.clk.Advance(20 * time.Second)
			f.due()
			f.online(keptOrder(order{Will: will})) // back before the delay is over
			f.clk.Advance(time.Minute)
			f.due()
			times(2)
			f.drop()
			times(2)
			f.clk.Advance(30 * time.Second)
			f.due()
			times(3)
		})
		t.Run("takeover", func(t *testing.T) {
			f.online(order{Clean: true, ID: "c"})
			twin := newForeign(t, f.unit, f.name, f.v)
			twin.online(order{Clean: true, ID: "c"})
			if e := f.want("end"); five && e.Code != int(mqtt.SessionTakenOver) {
				t.Errorf("got %+v", e)
			}
			if ack := twin.publish("tele/x", "6"); ack.Code != 0 {
				t.Errorf("PUBACK %+v", ack)
			}
			twin.bye(order{})
		})
	})
}

// TestForeignClientsOfFive: what only MQTT 5.0 has.
func TestForeignClientsOfFive(t *testing.T) {
	eachClient(t, func(t *testing.T, f *foreign) {
		if f.v != mqtt.V5 {
			return
		}
		t.Run("topic aliases", func(t *testing.T) {
			f.online(order{Clean: true, ID: "c", Aliases: 2})
			f.subscribe(1, "cmd/#")
			for i, want := range []string{"ot/1/me/cmd/x", ""} { // of the second packet, as it came
				sent := f.down("cmd/x", fmt.Sprint(i))
				if m := f.want("message"); m.Props["alias"] != "1" || m.Topic != want || m.Payload != fmt.Sprint(i) {
					t.Errorf("got %+v, want the topic %q", m, want)
				}
				if err := <-sent; err != nil {
					t.Errorf("Send: %v", err)
				}
			}
			before := len(f.said())
			for i, topic := range []string{"ot/1/me/tele/long/name", ""} {
				f.do(order{Do: "publish", QoS: 1, Topic: topic, Alias: 16, Payload: fmt.Sprint(i)})
				if ack := f.want("puback"); ack.Code != 0 {
					t.Errorf("PUBACK %+v", ack)
				}
			}
			if got := f.said()[before:]; !slices.Equal(got, []string{"tele/long/name 0", "tele/long/name 1"}) {
				t.Errorf("appended %q", got)
			}
			f.bye(order{})
		})
		t.Run("receive maximum", func(t *testing.T) {
			if f.name == "mqtt.js" {
				return // it reads nothing while it holds a message
			}
			f.online(order{Clean: true, ID: "c", Receive: 2, Hold: true})
			f.subscribe(1, "cmd/#")
			for i := range 3 {
				f.down(fmt.Sprintf("cmd/%d", i), "")
			}
			f.want("message")
			f.want("message")
			f.publish("tele/x", "1") // its PUBACK comes, the third message does not
			f.do(order{Do: "ack"})
			f.want("message")
			f.bye(order{})
		})
		t.Run("expiry", func(t *testing.T) {
			f.online(order{ID: "short", Expiry: 5})
			f.drop()
			f.clk.Advance(4 * time.Second)
			if !f.online(order{ID: "short", Expiry: 5}).Present {
				t.Error("the session is gone before its time")
			}
			f.bye(order{Expiry: 60}) // it may be made longer at the end
			f.clk.Advance(59 * time.Second)
			if !f.online(order{ID: "short", Expiry: 5}).Present {
				t.Error("the session did not last as long as DISCONNECT asked")
			}
			f.drop()
			f.clk.Advance(5 * time.Second)
			if f.online(order{ID: "short", Expiry: 5}).Present {
				t.Error("the session outlived its expiry")
			}
			if e := f.connect(order{ID: "other", Expiry: 30 * 24 * 3600}); e.Props["expiry"] != fmt.Sprint(7*24*3600) {
				t.Errorf("asked for 30 days, granted %q seconds", e.Props["expiry"])
			}
			f.bye(order{})
			if f.name == "mqtt.js" {
				return // it always has a client identifier of its own
			}
			if e := f.online(order{Clean: true}); !strings.HasPrefix(e.Props["id"], f.id+"-") {
				t.Errorf("assigned client identifier %q", e.Props["id"])
			}
			f.bye(order{})
		})
		t.Run("maximum packet size", func(t *testing.T) {
			f.online(order{Clean: true, ID: "c", Size: 100})
			f.subscribe(1, "cmd/#")
			if err := <-f.down("cmd/x", strings.Repeat("x", 100)); !isProblem(err, mqtt.PacketTooLarge) {
				t.Errorf("Send: %v", err)
			}
			if err := <-f.down("cmd/y", strings.Repeat("y", 50)); err != nil {
				t.Errorf("Send: %v", err)
			}
			if m := f.want("message"); m.Topic != "ot/1/me/cmd/y" {
				t.Errorf("got %+v", m)
			}
			f.bye(order{})
		})
		t.Run("emptied", func(t *testing.T) {
			f.online(keptOrder(order{}))
			if _, err := f.g.SendElsewhere(t.Context(), &gateway.Elsewhere{Server: "node2:8883"}, 0); err != nil {
				t.Error(err)
			}
			if e := f.want("end"); e.Code != int(mqtt.UseAnotherServer) || e.Props["server"] != "node2:8883" {
				t.Errorf("got %+v", e)
			}
			if e := f.connect(keptOrder(order{})); e.Code != int(mqtt.UseAnotherServer) || e.Props["server"] != "node2:8883" {
				t.Errorf("got %+v", e)
			}
		})
	})
}

// refusal is what a client does that the door refuses: 5.0 hears the reason in an event of that kind; 3.1.1 hears a return
// code in CONNACK and SUBACK, and otherwise, if the device may speak of it at all, a word on err before the end.
type refusal struct {
	what    string
	o       order
	is      string
	code    mqtt.Reason // of 5.0
	code4   int         // of 3.1.1, in CONNACK and SUBACK
	only    mqtt.Version
	quiet   bool   // 3.1.1 hears nothing but the end
	not     string // the client that does not even try
	prepare func(*foreign)
}

var refusals = []refusal{
	{what: "a client identifier of 300 bytes", o: order{Do: "connect", Clean: true, ID: strings.Repeat("x", 300)}, is: "connack", code: mqtt.ClientIDNotValid, code4: 2},
	{what: "a will elsewhere", o: order{Do: "connect", Clean: true, ID: "c", Will: &testpeers.MQTTWill{Topic: "ot/1/acme/dev_2/event/x"}}, is: "connack", code: mqtt.NotAuthorized, code4: 5},
	{what: "a will of QoS 2", o: order{Do: "connect", Clean: true, ID: "c", Will: &testpeers.MQTTWill{Topic: "ot/1/me/event/x", QoS: 2}}, is: "connack", code: mqtt.QoSNotSupported, code4: 3},
	{what: "a retained will", o: order{Do: "connect", Clean: true, ID: "c", Will: &testpeers.MQTTWill{Topic: "ot/1/me/event/x", Retain: true}}, is: "connack", code: mqtt.RetainNotSupported, code4: 3},
	{what: "an authentication method", o: order{Do: "connect", Clean: true, ID: "c", Auth: "SCRAM-SHA-1"}, is: "connack", code: mqtt.BadAuthMethod, only: mqtt.V5},
	{what: "another device's topic", o: order{Do: "publish", QoS: 1, Topic: "ot/1/acme/dev_2/tele/x", Payload: "1"}, is: "puback", code: mqtt.NotAuthorized},
	{what: "a downward topic", o: order{Do: "publish", QoS: 1, Topic: "ot/1/me/cmd/c1/reboot", Payload: "1"}, is: "puback", code: mqtt.NotAuthorized},
	{what: "a payload that is no text", o: order{Do: "publish", QoS: 1, Topic: "ot/1/me/tele/x", Raw: []byte{0xFF}, Text: true}, is: "puback", code: mqtt.PayloadFormatInvalid, only: mqtt.V5},
	{what: "a count that is no number", o: order{Do: "publish", QoS: 1, Topic: "ot/1/me/tele/x", Payload: "1", User: map[string]string{"seq": "many"}}, is: "puback", code: mqtt.ImplementationError, only: mqtt.V5},
	{what: "more than its quota", o: order{Do: "publish", QoS: 1, Topic: "ot/1/me/tele/x", Payload: "1"}, is: "puback", code: mqtt.QuotaExceeded,
		prepare: func(f *foreign) { f.set(nil, nil, problem.Limited("too much")) }},
	{what: "a disk that is full", o: order{Do: "publish", QoS: 1, Topic: "ot/1/me/tele/x", Payload: "1"}, is: "puback", code: mqtt.UnspecifiedError,
		prepare: func(f *foreign) { f.set(nil, nil, errors.New("disk full")) }},
	{what: "another device's topic, QoS 0", o: order{Do: "publish", Topic: "ot/1/acme/dev_2/tele/x", Payload: "1"}, is: "end", code: mqtt.NotAuthorized},
	{what: "QoS 2", o: order{Do: "publish", QoS: 2, Topic: "ot/1/me/tele/x", Payload: "1"}, is: "end", code: mqtt.QoSNotSupported, quiet: true},
	{what: "a retained message", o: order{Do: "publish", QoS: 1, Retain: true, Topic: "ot/1/me/tele/x", Payload: "1"}, is: "end", code: mqtt.RetainNotSupported, quiet: true},
	{what: "an alias beyond the maximum", o: order{Do: "publish", QoS: 1, Alias: 17, Topic: "ot/1/me/tele/x", Payload: "1"}, is: "end", code: mqtt.TopicAliasInvalid, only: mqtt.V5, not: "mqtt.js"},
	{what: "a packet beyond the maximum", o: order{Do: "publish", QoS: 1, Topic: "ot/1/me/tele/x", Payload: strings.Repeat("x", 5000)}, is: "end", code: mqtt.PacketTooLarge, quiet: true},
	{what: "another device's tree", o: order{Do: "subscribe", QoS: 1, Topics: []string{"ot/1/acme/dev_2/#"}}, is: "suback", code: mqtt.NotAuthorized, code4: 0x80},
	{what: "everything", o: order{Do: "subscribe", QoS: 1, Topics: []string{"#"}}, is: "suback", code: mqtt.NotAuthorized, code4: 0x80},
	{what: "a long filter", o: order{Do: "subscribe", QoS: 1, Topics: []string{"ot/1/me/" + strings.Repeat("x", 300)}}, is: "suback", code: mqtt.TopicFilterInvalid, code4: 0x80},
	{what: "a subscription that is none", o: order{Do: "unsubscribe", Topics: []string{"ot/1/me/none"}}, is: "unsuback", code: mqtt.NoSubscriptionExisted, only: mqtt.V5},
}

// TestForeignClientsHearWhy: each client hears each refusal with its reason, and nothing that was refused is kept.
func TestForeignClientsHearWhy(t *testing.T) {
	eachClient(t, func(t *testing.T, f *foreign) {
		for _, c := range refusals {
			if c.only != 0 && c.only != f.v || c.not == f.name {
				continue
			}
			t.Run(c.what, func(t *testing.T) {
				if c.o.Do == "connect" {
					want := int(c.code)
					if f.v == mqtt.V4 {
						want = c.code4
					}
					if e := f.connect(c.o); e.Code != want || e.Present || f.v == mqtt.V5 && e.Words == "" {
						t.Errorf("got %+v, want 0x%02X and words", e, want)
					}
					return
				}
				f.online(order{Clean: true, ID: "c"})
				f.subscribe(0, "err")
				if c.prepare != nil {
					c.prepare(f)
					defer f.set(nil, nil, nil)
				}
				f.do(c.o)
				if f.v == mqtt.V5 || c.code4 != 0 {
					if f.hears(c); c.is != "end" {
						f.bye(order{})
					}
					return
				}
				if c.quiet {
					f.want("end")
					return
				}
				var said wire.Refusal
				m := f.want("message")
				if err := json.Unmarshal([]byte(m.Payload), &said); err != nil || m.Topic != "ot/1/me/err" || said.Code != byte(c.code) || said.Reason == "" {
					t.Errorf("got %+v: %+v, want 0x%02X", m, said, int(c.code))
				}
				f.want("end")
			})
		}
		if said := f.said(); len(said) > 0 {
			t.Errorf("appended %q", said)
		}
	})
}

// hears asserts that the refusal arrives as its packet.
func (f *foreign) hears(c refusal) {
	f.t.Helper()
	want := int(c.code)
	if f.v == mqtt.V4 {
		want = c.code4
	}
	e := f.next()
	if f.v == mqtt.V4 { // it is told why beside the SUBACK, in any order
		other := f.next()
		if e.Is == "message" {
			e, other = other, e
		}
		if other.Topic != "ot/1/me/err" {
			f.t.Errorf("%s: got %+v", c.what, other)
		}
	}
	got := e.Code
	if len(e.Codes) == 1 {
		got = e.Codes[0]
	}
	if e.Is != c.is || got != want {
		f.t.Errorf("%s: got %+v, want %s 0x%02X", c.what, e, c.is, want)
	}
	if f.v == mqtt.V5 && want >= 0x80 && e.Words == "" {
		f.t.Errorf("%s: 0x%02X comes without words", c.what, want)
	}
}

// TestForeignClientsAreCut: a client that the platform ends hears why: silence, too much at once, shared subscriptions
// (which Paho's asks for no more once it was told that there are none), and the end of trust.
func TestForeignClientsAreCut(t *testing.T) {
	eachClient(t, func(t *testing.T, f *foreign) {
		five := f.v == mqtt.V5
		ended := func(t *testing.T, why mqtt.Reason) {
			t.Helper()
			if e := f.want("end"); five && e.Code != int(why) {
				t.Errorf("got %+v, want %s", e, why)
			}
		}
		if five && f.name == "paho" {
			t.Run("silence", func(t *testing.T) {
				f.online(order{Clean: true, ID: "c", KeepAlive: 1, Mute: true})
				ended(t, mqtt.KeepAliveTimeout)
			})
		}
		if five && f.name == "mqtt.js" {
			t.Run("too much at once", func(t *testing.T) {
				hold := make(chan struct{})
				f.set(hold, nil, nil)
				defer f.set(nil, nil, nil)
				f.online(order{Clean: true, ID: "c"})
				for range 66 {
					f.do(order{Do: "publish", QoS: 1, Topic: "ot/1/me/tele/x", Payload: "1"})
				}
				ended(t, mqtt.ReceiveMaxExceeded)
				close(hold)
			})
			t.Run("a shared subscription", func(t *testing.T) {
				f.online(order{Clean: true, ID: "c"})
				f.do(order{Do: "subscribe", QoS: 1, Topics: []string{"$share/g/ot/1/me/cmd/#"}})
				if e := f.want("suback"); !slices.Equal(e.Codes, []int{int(mqtt.SharedNotSupported)}) {
					t.Errorf("got %+v", e)
				}
				f.bye(order{})
			})
		}
		t.Run("the end of trust", func(t *testing.T) {
			f.online(order{Clean: true, ID: "c"})
			f.revoke(f.cert)
			if n := f.g.Cut(f.id, "revoked"); n != 1 {
				t.Errorf("%d connections were cut", n)
			}
			ended(t, mqtt.AdministrativeAction)
			f.await("offline " + f.id)
			f.do(order{Do: "connect", Clean: true, ID: "c", KeepAlive: 60})
			f.await("asked about " + f.id)
			if e := <-f.client.Events; !slices.Contains([]string{"error", "lost", "end"}, e.Is) {
				t.Errorf("got %+v", e)
			}
		})
	})
}
