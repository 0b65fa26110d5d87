// SPDX-License-Identifier: AGPL-3.0-only

package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

var versions = []mqtt.Version{mqtt.V4, mqtt.V5}

// bothVersions runs a test once per protocol version.
func bothVersions(t *testing.T, f func(t *testing.T, v mqtt.Version)) {
	for _, v := range versions {
		t.Run(v.String(), func(t *testing.T) { f(t, v) })
	}
}

// TestPubackIsAReceipt: while Append runs there is no PUBACK; it comes after Append returned nil.
func TestPubackIsAReceipt(t *testing.T) {
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		h := newHouse(t, gateway.Limits{})
		c := h.session(h.device("dev_1"), v)
		hold, entered := make(chan struct{}), make(chan int, 10)
		h.set(hold, entered, nil)
		c.send(qos1(1, "ot/1/me/tele/env", `{"t":20}`))
		if n := <-entered; n != 1 {
			t.Fatalf("the first batch has %d records", n)
		}
		// The batch is being appended. A ping sent now is answered, and no PUBACK came before the answer.
		c.send(qos1(2, "ot/1/me/tele/env", `{"t":21}`), qos1(3, "ot/1/acme/dev_1/event/door", `{}`), &mqtt.Pingreq{})
		if p, ok := c.next().(*mqtt.Pingresp); !ok {
			t.Fatalf("got %+v before the append ended", p)
		}
		hold <- struct{}{}
		c.wantAck(1, mqtt.Success)
		if n := <-entered; n != 2 {
			t.Errorf("the second batch has %d records, want the two that came meanwhile", n)
		}
		close(hold)
		c.wantAck(2, mqtt.Success)
		c.wantAck(3, mqtt.Success)
		var got []string
		for _, r := range h.appended() {
			got = append(got, fmt.Sprintf("%s %s %s %s", r.Tenant, r.Device, r.Topic, r.Body))
		}
		want := []string{`acme dev_1 tele/env {"t":20}`, `acme dev_1 tele/env {"t":21}`, `acme dev_1 event/door {}`}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("appended %q", got)
		}
	})
}

// TestAppendFails: MQTT 5 hears a PUBACK with an error, 3.1.1 loses the connection without one.
func TestM18_ErrorInTheAckPathIsNeverAcked(t *testing.T) {
	for _, f := range []struct {
		err  error
		want mqtt.Reason
	}{
		{errors.New("disk full"), mqtt.UnspecifiedError},
		{fmt.Errorf("inbox: %w", problem.Limited("too much")), mqtt.QuotaExceeded},
	} {
		bothVersions(t, func(t *testing.T, v mqtt.Version) {
			h := newHouse(t, gateway.Limits{})
			c := h.session(h.device("dev_1"), v)
			h.set(nil, nil, f.err)
			c.send(qos1(1, "ot/1/me/tele/env", "1"))
			if v == mqtt.V4 {
				c.ended(0)
				return
			}
			c.wantAck(1, f.want)
			h.set(nil, nil, nil)
			c.send(qos1(2, "ot/1/me/tele/env", "2"))
			c.wantAck(2, mqtt.Success) // it recovers without a restart
		})
	}
}

// TestForeignTopics: a device writes to its own tree only, and there only upwards.
func TestForeignTopics(t *testing.T) {
	h := newHouse(t, gateway.Limits{})
	cert := h.device("dev_1")
	for _, topic := range []string{
		"ot/1/acme/dev_2/tele/env", "ot/1/other/dev_1/tele/env", "ot/1/acme/dev_10/tele/env", "ot/2/me/tele/env", "tele/env", "$SYS/x",
		"ot/1/me/", "ot/1/me/tele", "ot/1/me/tele/", "ot/1/me/tele//x", "ot/1/me/cmd/c1/reboot", "ot/1/me/cmd/ack", "ot/1/me/ota/offer",
		"ot/1/me/state/desired", "ot/1/me/state", "ot/1/me/state/reported/x", "ot/1/me/inv/x", "ot/1/me/err", "ot/1/acme/dev_1", strings.Repeat("x", 300),
	} {
		want := mqtt.NotAuthorized
		if len(topic) > 256 {
			want = mqtt.TopicNameInvalid
		}
		t.Run(topic, func(t *testing.T) {
			c := h.session(cert, mqtt.V5)
			c.send(qos1(1, topic, "x"), qos1(2, "ot/1/me/inv", "{}"))
			c.wantAck(1, want)
			c.wantAck(2, mqtt.Success)
			c.send(&mqtt.Publish{Topic: topic})
			c.ended(want)

			c = h.session(cert, mqtt.V4)
			c.send(qos1(1, topic, "x"))
			c.ended(0)
		})
	}
	for _, r := range h.appended() {
		if r.Topic != "inv" {
			t.Errorf("%s was appended", r.Topic)
		}
	}
	h.await("refused dev_1 topic.own")
}

// TestRefusalInWords: a PUBACK that refuses says why, unless the device wants no words or takes no such packet.
func TestRefusalInWords(t *testing.T) {
	h := newHouse(t, gateway.Limits{})
	cert := h.device("dev_1")
	for name, row := range map[string]struct {
		props mqtt.Properties
		words bool
	}{
		"plain":       {nil, true},
		"asked for":   {mqtt.Properties{{ID: mqtt.RequestProblemInfo, Num: 1}}, true},
		"terse":       {mqtt.Properties{{ID: mqtt.RequestProblemInfo, Num: 0}}, false},
		"tiny packet": {mqtt.Properties{{ID: mqtt.MaximumPacketSize, Num: 64}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := h.raw(cert, mqtt.V5)
			c.send(&mqtt.Connect{Version: mqtt.V5, CleanStart: true, ClientID: "x", Properties: row.props})
			if ack, ok := c.next().(*mqtt.Connack); !ok || ack.Reason != mqtt.Success {
				t.Fatalf("CONNACK %+v", ack)
			}
			c.send(qos1(1, "ot/1/me/state/desired", `{"on":true}`))
			ack, ok := c.next().(*mqtt.Ack)
			if !ok || ack.Reason != mqtt.NotAuthorized {
				t.Fatalf("got %+v", ack)
			}
			if words := ack.Properties.Str(mqtt.ReasonString); strings.Contains(words, "no part of the platform keeps") != row.words {
				t.Errorf("the reason reads %q", words)
			}
		})
	}
}

// TestAcksKeepTheirOrder: a refusal does not overtake the receipts before it [MQTT-4.6.0-2].
func TestAcksKeepTheirOrder(t *testing.T) {
	h := newHouse(t, gateway.Limits{})
	c := h.session(h.device("dev_1"), mqtt.V5)
	hold, entered := make(chan struct{}), make(chan int, 10)
	h.set(hold, entered, nil)
	c.send(qos1(1, "ot/1/me/inv", "{}"))
	<-entered
	c.send(qos1(2, "elsewhere", "{}"), qos1(3, "ot/1/me/inv", "{}"))
	close(hold)
	c.wantAck(1, mqtt.Success)
	c.wantAck(2, mqtt.NotAuthorized)
	c.wantAck(3, mqtt.Success)
}

func TestSubscriptions(t *testing.T) {
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		h := newHouse(t, gateway.Limits{Filters: 6})
		c := h.session(h.device("dev_1"), v)
		s := &mqtt.Subscribe{ID: 9}
		var want []mqtt.Reason
		for _, f := range []struct {
			filter string
			qos    byte
			want   mqtt.Reason
		}{
			{"ot/1/me/cmd/#", 1, mqtt.GrantedQoS1}, {"ot/1/me/ota/offer", 2, mqtt.GrantedQoS1}, {"ot/1/acme/dev_1/+/+/x", 0, mqtt.Success},
			{"#", 1, mqtt.NotAuthorized}, {"ot/#", 1, mqtt.NotAuthorized}, {"ot/1/+/dev_1/#", 1, mqtt.NotAuthorized}, {"ot/1/acme/+/cmd/#", 1, mqtt.NotAuthorized},
			{"ot/1/acme/dev_2/#", 1, mqtt.NotAuthorized}, {"ot/1/other/dev_1/#", 1, mqtt.NotAuthorized}, {"$share/g/ot/1/me/cmd/#", 1, mqtt.SharedNotSupported},
			{"$SYS/#", 1, mqtt.NotAuthorized}, {"ot/1/me/" + strings.Repeat("x", 300), 1, mqtt.TopicFilterInvalid},
			{"ot/1/me/cmd/#", 1, mqtt.GrantedQoS1}, {"ot/1/me/1", 1, mqtt.GrantedQoS1}, {"ot/1/me/2", 1, mqtt.GrantedQoS1}, {"ot/1/me/3", 1, mqtt.GrantedQoS1},
			{"ot/1/me/4", 1, mqtt.QuotaExceeded},
		} {
			s.Filters = append(s.Filters, mqtt.Filter{Topic: f.filter, QoS: f.qos})
			if v == mqtt.V4 && f.want.Failed() {
				f.want = mqtt.UnspecifiedError
			}
			want = append(want, f.want)
		}
		c.send(s)
		if got, ok := c.next().(*mqtt.Suback); !ok || got.ID != 9 || fmt.Sprint(got.Reasons) != fmt.Sprint(want) {
			t.Errorf("SUBACK %v\nwant   %v", got, want)
		}
		h.await("ready dev_1")
		c.send(&mqtt.Unsubscribe{ID: 10, Topics: []string{"ot/1/me/1", "ot/1/me/none"}})
		got, ok := c.next().(*mqtt.Unsuback)
		if !ok || got.ID != 10 || v == mqtt.V5 && fmt.Sprint(got.Reasons) != fmt.Sprint([]mqtt.Reason{mqtt.Success, mqtt.NoSubscriptionExisted}) {
			t.Errorf("UNSUBACK %+v", got)
		}
	})
}

func TestSend(t *testing.T) {
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		h := newHouse(t, gateway.Limits{})
		ctx := t.Context()
		if err := h.g.Send(ctx, gateway.Downlink{Device: "dev_1", Topic: "cmd/c1/reboot"}); !errors.Is(err, gateway.ErrOffline) {
			t.Errorf("before CONNECT: %v", err)
		}
		c := h.session(h.device("dev_1"), v)
		h.await("online dev_1")
		if err := h.g.Send(ctx, gateway.Downlink{Device: "dev_1", Topic: "cmd/c1/reboot"}); !errors.Is(err, gateway.ErrNotSubscribed) {
			t.Errorf("before SUBSCRIBE: %v", err)
		}
		c.send(&mqtt.Subscribe{ID: 1, Filters: []mqtt.Filter{{Topic: "ot/1/acme/dev_1/cmd/+/reboot", QoS: 1}}})
		c.next()
		sent := make(chan error, 1)
		go func() {
			sent <- h.g.Send(ctx, gateway.Downlink{Device: "dev_1", Topic: "cmd/c1/reboot", Payload: []byte("{}")})
		}()
		p, ok := c.next().(*mqtt.Publish)
		if !ok || p.Topic != "ot/1/acme/dev_1/cmd/c1/reboot" || p.QoS != 1 || string(p.Payload) != "{}" {
			t.Fatalf("the device got %+v", p)
		}
		select {
		case err := <-sent:
			t.Fatalf("Send returned %v before the PUBACK", err)
		default:
		}
		c.send(&mqtt.Ack{Kind: mqtt.PUBACK, ID: p.ID})
		if err := <-sent; err != nil {
			t.Errorf("Send: %v", err)
		}
		go func() { sent <- h.g.Send(ctx, gateway.Downlink{Device: "dev_1", Topic: "cmd/c2/reboot"}) }()
		c.next()
		c.Close()
		if err := <-sent; !errors.Is(err, gateway.ErrLost) {
			t.Errorf("Send to a device that left: %v", err)
		}
		h.await("offline dev_1")
		if h.g.Live("dev_1") || h.g.Count() != 0 {
			t.Error("the session is still there")
		}
	})
}

// TestSendKeepsTheWindow: no more downlinks in flight than the device allowed.
func TestSendKeepsTheWindow(t *testing.T) {
	h := newHouse(t, gateway.Limits{})
	c := h.raw(h.device("dev_1"), mqtt.V5)
	c.send(&mqtt.Connect{Version: mqtt.V5, Properties: mqtt.Properties{{ID: mqtt.ReceiveMaximum, Num: 1}, {ID: mqtt.MaximumPacketSize, Num: 100}}},
		&mqtt.Subscribe{ID: 1, Filters: []mqtt.Filter{{Topic: "ot/1/me/#", QoS: 1}}})
	c.next()
	c.next()
	if err := h.g.Send(t.Context(), gateway.Downlink{Device: "dev_1", Topic: "cmd/c0/x", Payload: make([]byte, 100)}); err == nil {
		t.Error("a packet beyond the device's maximum was sent")
	}
	sent := make(chan error, 2)
	for i := range 2 {
		go func() {
			sent <- h.g.Send(t.Context(), gateway.Downlink{Device: "dev_1", Topic: fmt.Sprintf("cmd/c%d/x", i)})
		}()
	}
	first := c.next().(*mqtt.Publish)
	c.send(&mqtt.Pingreq{})
	if _, ok := c.next().(*mqtt.Pingresp); !ok {
		t.Fatal("a second downlink left before the first was acknowledged")
	}
	c.send(&mqtt.Ack{Kind: mqtt.PUBACK, ID: first.ID})
	second := c.next().(*mqtt.Publish)
	c.send(&mqtt.Ack{Kind: mqtt.PUBACK, ID: second.ID, Reason: mqtt.NotAuthorized})
	var refusal *mqtt.Error
	if err := errors.Join(<-sent, <-sent); !errors.As(err, &refusal) || refusal.Reason != mqtt.NotAuthorized {
		t.Errorf("Send: %v", err)
	}
}

func TestTakeover(t *testing.T) {
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		h := newHouse(t, gateway.Limits{})
		first := h.session(h.device("dev_1"), v)
		h.await("online dev_1")
		second := h.session(h.device("dev_1"), v) // a renewed certificate of the same device
		first.ended(mqtt.SessionTakenOver)
		second.send(&mqtt.Pingreq{})
		second.next()
		if !h.g.Live("dev_1") || h.g.Count() != 1 {
			t.Error("the device has no session")
		}
		h.await("online dev_1")
		second.send(&mqtt.Disconnect{})
		if e := h.await("offline dev_1"); !strings.Contains(e, "disconnected by the device") {
			t.Errorf("event %q: the old session must not take the device offline", e)
		}
	})
}

func TestConnect(t *testing.T) {
	h := newHouse(t, gateway.Limits{Receive: 7, Packet: 5000, KeepAlive: time.Minute})
	cert := h.device("dev_1")
	connack := func(t *testing.T, c *mqtt.Connect) *mqtt.Connack {
		t.Helper()
		r := h.raw(cert, c.Version)
		r.send(c)
		a, ok := r.next().(*mqtt.Connack)
		if !ok {
			t.Fatal("no CONNACK")
		}
		return a
	}
	will := func(w mqtt.Will) *mqtt.Will { return &w }
	for name, c := range map[string]struct {
		p    mqtt.Connect
		want mqtt.Reason
	}{
		"will of QoS 2":                  {mqtt.Connect{Version: 5, Will: will(mqtt.Will{Topic: "ot/1/me/event/gone", QoS: 2})}, mqtt.QoSNotSupported},
		"retained will":                  {mqtt.Connect{Version: 5, Will: will(mqtt.Will{Topic: "ot/1/me/event/gone", Retain: true})}, mqtt.RetainNotSupported},
		"will elsewhere":                 {mqtt.Connect{Version: 5, Will: will(mqtt.Will{Topic: "ot/1/acme/dev_2/event/gone"})}, mqtt.NotAuthorized},
		"will elsewhere 3.1.1":           {mqtt.Connect{Version: 4, CleanStart: true, Will: will(mqtt.Will{Topic: "x"})}, mqtt.NotAuthorized},
		"authentication method":          {mqtt.Connect{Version: 5, Properties: mqtt.Properties{{ID: mqtt.AuthMethod, Str: "x"}}}, mqtt.BadAuthMethod},
		"kept session without id, 3.1.1": {mqtt.Connect{Version: 4}, mqtt.ClientIDNotValid},
		"kept session, 3.1.1":            {mqtt.Connect{Version: 4, ClientID: "any"}, mqtt.Success},
		"user name and password":         {mqtt.Connect{Version: 4, CleanStart: true, HasUser: true, User: "admin", HasPassword: true, Password: []byte("x")}, mqtt.Success},
	} {
		t.Run(name, func(t *testing.T) {
			if a := connack(t, &c.p); a.Reason != c.want || a.SessionPresent {
				t.Errorf("CONNACK %+v, want %s", a, c.want)
			}
		})
	}
	ps := connack(t, &mqtt.Connect{Version: 5, KeepAlive: 600, Properties: mqtt.Properties{{ID: mqtt.SessionExpiry, Num: 60}}}).Properties
	for id, want := range map[mqtt.PropID]uint32{mqtt.ReceiveMaximum: 7, mqtt.MaximumQoS: 1, mqtt.RetainAvailable: 0, mqtt.MaximumPacketSize: 5000,
		mqtt.SharedAvailable: 0, mqtt.TopicAliasMaximum: 16, mqtt.ServerKeepAlive: 60, mqtt.SessionExpiry: 0} {
		if got := ps.Num(id, 99999); got != want {
			t.Errorf("property 0x%02X of CONNACK is %d, want %d", byte(id), got, want)
		}
	}
	if got := ps.Str(mqtt.AssignedClientID); !strings.HasPrefix(got, "dev_1-") {
		t.Errorf("assigned client identifier %q", got)
	}
}

func TestWill(t *testing.T) {
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		h := newHouse(t, gateway.Limits{})
		cert := h.device("dev_1")
		entered := make(chan int, 1)
		h.set(nil, entered, nil)
		open := func() *raw {
			c := h.raw(cert, v)
			c.send(&mqtt.Connect{Version: v, CleanStart: true, Will: &mqtt.Will{Topic: "ot/1/me/event/gone", Payload: []byte("{}"), QoS: 1}})
			c.next()
			return c
		}
		c := open()
		c.send(&mqtt.Disconnect{})
		c.next()
		c = open()
		c.Close()
		<-entered
		if rs := h.appended(); len(rs) > 1 || len(rs) == 1 && rs[0].Topic != "event/gone" {
			t.Errorf("appended %+v, want the will of the lost session only", rs)
		}
	})
}

// TestProtocolErrors: what breaks the protocol ends its own connection, with its reason in MQTT 5.
func TestProtocolErrors(t *testing.T) {
	h := newHouse(t, gateway.Limits{Packet: 1000, Receive: 4})
	bystander := h.session(h.device("dev_9"), mqtt.V5)
	cert := h.device("dev_1")
	big, _ := mqtt.Append(nil, mqtt.V5, &mqtt.Publish{Topic: "ot/1/me/inv", Payload: make([]byte, 2000)})
	for name, c := range map[string]struct {
		bytes []byte
		want  mqtt.Reason
	}{
		"subscribe of mochi 501":  {[]byte{0x82, 6, 0, 1, 0, 0, 1, 'a'}, mqtt.MalformedPacket},
		"1 GiB in six bytes":      {[]byte{0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x03}, mqtt.MalformedPacket},
		"256 MiB in five bytes":   {[]byte{0x30, 0xFF, 0xFF, 0xFF, 0x7F}, mqtt.PacketTooLarge},
		"a packet beyond limit":   {big, mqtt.PacketTooLarge},
		"reserved type":           {[]byte{0, 0}, mqtt.MalformedPacket},
		"QoS 3":                   {[]byte{0x36, 5, 0, 1, 't', 0, 1}, mqtt.MalformedPacket},
		"topic not UTF-8":         {[]byte{0x30, 4, 0, 1, 0xFF, 0}, mqtt.MalformedPacket},
		"a second CONNECT":        {[]byte{0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 60, 0, 0, 0}, mqtt.ProtocolError},
		"QoS 2":                   {[]byte{0x34, 6, 0, 1, 't', 0, 1, 0}, mqtt.QoSNotSupported},
		"retain":                  {[]byte{0x33, 6, 0, 1, 't', 0, 1, 0}, mqtt.RetainNotSupported},
		"topic alias":             {[]byte{0x30, 7, 0, 1, 't', 3, 0x23, 0, 17}, mqtt.TopicAliasInvalid},
		"PUBREL":                  {[]byte{0x62, 2, 0, 1}, mqtt.ProtocolError},
		"PUBACK for nothing":      {[]byte{0x40, 2, 0, 1}, mqtt.ProtocolError},
		"SUBACK":                  {[]byte{0x90, 4, 0, 1, 0, 0}, mqtt.ProtocolError},
		"AUTH":                    {[]byte{0xF0, 0}, mqtt.ProtocolError},
		"subscription identifier": {[]byte{0x30, 6, 0, 1, 't', 2, 0x0B, 1}, mqtt.ProtocolError},
	} {
		t.Run(name, func(t *testing.T) {
			bothVersions(t, func(t *testing.T, v mqtt.Version) {
				r := h.session(cert, v)
				if _, err := r.Write(c.bytes); err != nil {
					t.Fatal(err)
				}
				r.ended(c.want)
			})
		})
	}
	t.Run("more in flight than allowed", func(t *testing.T) {
		hold := make(chan struct{})
		h.set(hold, nil, nil)
		r := h.session(cert, mqtt.V5)
		for id := range uint16(6) {
			r.send(qos1(id+1, "ot/1/me/inv", "{}"))
		}
		r.ended(mqtt.ReceiveMaxExceeded)
		r = h.session(cert, mqtt.V4) // a 3.1.1 device waits instead
		for id := range uint16(6) {
			r.send(qos1(id+1, "ot/1/me/inv", "{}"))
		}
		close(hold)
		for id := range uint16(6) {
			r.wantAck(id+1, mqtt.Success)
		}
	})
	bystander.send(&mqtt.Pingreq{})
	if _, ok := bystander.next().(*mqtt.Pingresp); !ok {
		t.Error("another connection was harmed")
	}
}

func TestSilence(t *testing.T) {
	h := newHouse(t, gateway.Limits{Partial: 300 * time.Millisecond})
	cert := h.device("dev_1")
	t.Run("keep alive", func(t *testing.T) {
		c := h.raw(cert, mqtt.V5)
		start := time.Now()
		c.send(&mqtt.Connect{Version: 5, KeepAlive: 1})
		c.next()
		c.ended(mqtt.KeepAliveTimeout)
		if d := time.Since(start); d < 1500*time.Millisecond {
			t.Errorf("the end came after %v", d)
		}
	})
	t.Run("no CONNECT", func(t *testing.T) {
		h := newHouse(t, gateway.Limits{Opening: 300 * time.Millisecond}) // of its own: others need more time to say who they are
		c := h.raw(h.device("dev_1"), mqtt.V4)
		c.ended(0)
	})
	t.Run("half a packet", func(t *testing.T) {
		c := h.session(cert, mqtt.V5)
		for _, b := range []byte{0x30, 100, 0} {
			if _, err := c.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
		c.ended(mqtt.KeepAliveTimeout)
	})
}

func TestDrain(t *testing.T) {
	h := newHouse(t, gateway.Limits{})
	c := h.session(h.device("dev_1"), mqtt.V5)
	hold, entered := make(chan struct{}), make(chan int, 10)
	h.set(hold, entered, nil)
	c.send(qos1(1, "ot/1/me/inv", "{}"))
	<-entered
	drained := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		drained <- h.g.Drain(ctx)
	}()
	close(hold)
	c.wantAck(1, mqtt.Success) // what was received is acknowledged before the goodbye
	c.ended(mqtt.ServerShuttingDown)
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if conn, err := h.dial(nil); err == nil {
		conn.Close()
		t.Error("the door is still open")
	}
}

// TestQoS0IsBounded: without receipts a flood is dropped and counted, and does not grow.
func TestQoS0IsBounded(t *testing.T) {
	h := newHouse(t, gateway.Limits{QoS0: 10})
	c := h.session(h.device("dev_1"), mqtt.V4)
	hold, entered := make(chan struct{}), make(chan int, 10)
	h.set(hold, entered, nil)
	c.send(qos1(1, "ot/1/me/inv", "{}"))
	<-entered
	for range 100 {
		c.send(&mqtt.Publish{Topic: "ot/1/me/tele/env", Payload: []byte("1")})
	}
	c.send(&mqtt.Pingreq{})
	c.next()
	close(hold)
	c.wantAck(1, mqtt.Success)
	if n := <-entered; n != 10 {
		t.Errorf("%d records without receipt in one batch, want 10", n)
	}
	if n := h.g.Dropped(); n != 90 {
		t.Errorf("%d dropped, want 90", n)
	}
}
