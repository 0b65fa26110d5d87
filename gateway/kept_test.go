// SPDX-License-Identifier: AGPL-3.0-only

package gateway_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// kept is a house whose sessions lie in rows, as those of a platform do.
type kept struct {
	*house
	clk      *clock.Hand
	db       *store.DB
	sessions *fleet.Sessions
	keys     string
}

var born = time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)

var sessionSchema = []store.Migrations{seal.Schema, fleet.Schema}

// newKept opens a node on the database; others are nodes that know its devices already, with whom it shares the keys.
func newKept(t *testing.T, url string, limits gateway.Limits, others ...*kept) *kept {
	k := &kept{clk: clock.NewHand(born), keys: filepath.Join(t.TempDir(), "keys")}
	for _, o := range others {
		k.clk, k.keys = o.clk, o.keys
	}
	k.db = storetest.Open(t, url, sessionSchema, func(c *store.Config) { c.Clock = k.clk })
	keys, err := seal.Open(k.keys, k.clk)
	if err != nil {
		t.Fatal(err)
	}
	k.sessions = fleet.NewSessions(fleet.SessionsConfig{
		DB: k.db, Keys: keys, Clock: k.clk,
		Append:    func(ctx context.Context, rs []gateway.Record) error { return k.append(ctx, rs) },
		Supersede: func(device string, generation int64, resumed bool) { k.g.Supersede(device, generation, resumed) },
	})
	k.house = newHouseWith(t, func(c *gateway.Config) {
		c.Sessions, c.Clock, c.Limits = k.sessions.Keeper(), k.clk, limits
		for _, o := range others {
			c.Admit = o.admit
		}
	})
	return k
}

// due runs what the clock has made due.
func (k *kept) due() {
	k.t.Helper()
	if _, err := k.db.RunDue(k.t.Context()); err != nil {
		k.t.Fatal(err)
	}
}

// left waits until the node has settled what the device's connection left behind.
func (k *kept) left(device string) { k.await("offline " + device) }

// keeps is a CONNECT of a session that lasts for an hour, under the client identifier "k".
func keeps(c mqtt.Connect) *mqtt.Connect {
	if c.Version == 0 {
		c.Version = mqtt.V5
	}
	c.ClientID = "k"
	if c.Version == mqtt.V5 {
		c.Properties = append(c.Properties, mqtt.Property{ID: mqtt.SessionExpiry, Num: 3600})
	}
	return &c
}

// opened is raw after a CONNECT that was accepted.
func (r *raw) opened(c *mqtt.Connect) *mqtt.Connack {
	r.t.Helper()
	r.send(c)
	ack := expect[*mqtt.Connack](r)
	if ack.Reason != mqtt.Success {
		r.t.Fatalf("CONNECT was answered by %+v", ack)
	}
	return ack
}

// expect is the next packet, which has to be of that type.
func expect[T mqtt.Packet](r *raw) T {
	r.t.Helper()
	got := r.next()
	p, ok := got.(T)
	if !ok {
		r.t.Fatalf("got %T %+v, want %T", got, got, p)
	}
	return p
}

// subscribed subscribes to filters below the device's root.
func (r *raw) subscribed(qos byte, filters ...string) {
	r.t.Helper()
	s := &mqtt.Subscribe{ID: 77}
	for _, f := range filters {
		s.Filters = append(s.Filters, mqtt.Filter{Topic: "ot/1/me/" + f, QoS: qos})
	}
	r.send(s)
	for _, reason := range expect[*mqtt.Suback](r).Reasons {
		if reason.Failed() {
			r.t.Fatalf("SUBACK %s", reason)
		}
	}
}

// silent asserts that nothing was sent before the answer to a ping.
func (r *raw) silent() {
	r.t.Helper()
	r.send(&mqtt.Pingreq{})
	expect[*mqtt.Pingresp](r)
}

func (r *raw) ack(id uint16) {
	r.t.Helper()
	r.send(&mqtt.Ack{Kind: mqtt.PUBACK, ID: id})
}

// sending sends to the device beside the test.
func (h *house) sending(d gateway.Downlink) <-chan error {
	got := make(chan error, 1)
	go func() { got <- h.g.Send(context.Background(), d) }()
	return got
}

// TestM11_TakeoverHereAndOnAnotherNode: the old side of a takeover is told 0x8E, wherever it lives, and a connection with
// an older generation changes nothing of the session any more.
func TestM11_TakeoverHereAndOnAnotherNode(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		bothVersions(t, func(t *testing.T, v mqtt.Version) {
			t.Run("same node", func(t *testing.T) {
				a := newKept(t, url, gateway.Limits{})
				cert := a.device("dev_s" + v.String())
				first := a.raw(cert, v)
				first.opened(keeps(mqtt.Connect{Version: v}))
				first.subscribed(1, "cmd/#")
				second := a.raw(cert, v)
				if ack := second.opened(keeps(mqtt.Connect{Version: v})); !ack.SessionPresent {
					t.Error("the session was not resumed")
				}
				first.ended(mqtt.SessionTakenOver)
				second.silent()
				if !a.g.Live("dev_s" + v.String()) {
					t.Error("the device has no session")
				}
			})
		})
	})
	t.Run("another node", func(t *testing.T) {
		bothVersions(t, func(t *testing.T, v mqtt.Version) {
			url := storetest.PostgresURL(t)
			a := newKept(t, url, gateway.Limits{})
			b := newKept(t, url, gateway.Limits{}, a)
			var ended [2]chan error
			ctx, stop := context.WithCancel(t.Context())
			for i, n := range []*kept{a, b} {
				ended[i] = make(chan error, 1)
				go func() { ended[i] <- n.sessions.Work(ctx) }()
			}
			defer func() {
				stop()
				for _, e := range ended {
					if err := <-e; err != nil {
						t.Error(err)
					}
				}
			}()
			cert := a.device("dev_1")
			first := a.raw(cert, v)
			first.opened(keeps(mqtt.Connect{Version: v}))
			first.subscribed(1, "cmd/#")
			second := b.raw(cert, v)
			if ack := second.opened(keeps(mqtt.Connect{Version: v})); !ack.SessionPresent {
				t.Error("the session did not come to the other node")
			}
			// The old node has not heard of it yet: what its connection changes must not count.
			first.send(&mqtt.Unsubscribe{ID: 5, Topics: []string{"ot/1/me/cmd/#"}})
			first.ended(mqtt.SessionTakenOver)
			sent := b.sending(gateway.Downlink{Device: "dev_1", Topic: "cmd/c1/ping"})
			second.ack(expect[*mqtt.Publish](second).ID)
			if err := <-sent; err != nil {
				t.Errorf("Send through the new node: %v", err)
			}

			// Nor does an idle connection stay: its node looks every half second.
			third := a.raw(cert, v)
			third.opened(keeps(mqtt.Connect{Version: v}))
			a.clk.WaitTimers(4) // those of both nodes beside their sweeps
			a.clk.Advance(time.Second)
			second.ended(mqtt.SessionTakenOver)
			third.silent()
		})
	})
}

// TestNoReceiptForAnOvertakenConnection: what an old connection publishes once the device has its session on another
// node gets no receipt, also before its node looks for sessions that it has lost.
func TestNoReceiptForAnOvertakenConnection(t *testing.T) {
	url := storetest.PostgresURL(t)
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		a := newKept(t, url, gateway.Limits{})
		b := newKept(t, url, gateway.Limits{}, a)
		cert := a.device("dev_" + v.String())
		first := a.raw(cert, v)
		first.opened(&mqtt.Connect{Version: v, CleanStart: true})
		first.send(qos1(1, "ot/1/me/tele/x", "before"))
		first.wantAck(1, mqtt.Success)
		second := b.raw(cert, v)
		second.opened(&mqtt.Connect{Version: v, CleanStart: true})
		first.send(qos1(2, "ot/1/me/tele/x", "after"))
		first.ended(mqtt.SessionTakenOver)
		second.send(qos1(1, "ot/1/me/tele/x", "after"))
		second.wantAck(1, mqtt.Success)
	})
}

// TestSessionSurvivesTheNode: subscriptions and a downlink without an answer outlive the process; the downlink comes
// again with its identifier and the mark of a repetition, and is sent once only to whoever sends it anew.
func TestSessionSurvivesTheNode(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		bothVersions(t, func(t *testing.T, v mqtt.Version) {
			id := "dev_" + v.String()
			a := newKept(t, url, gateway.Limits{})
			cert := a.device(id)
			c := a.raw(cert, v)
			c.opened(keeps(mqtt.Connect{Version: v}))
			c.subscribed(1, "cmd/#")
			sent := make([]<-chan error, 2)
			for i, name := range []string{"one", "two"} {
				sent[i] = a.sending(gateway.Downlink{Device: id, Topic: "cmd/" + name, Payload: []byte(name)})
				if p := expect[*mqtt.Publish](c); p.Dup || p.ID != uint16(i+1) {
					t.Fatalf("got %+v", p)
				}
			}
			// The process is gone without a word: its rows are all there is.
			b := newKept(t, url, gateway.Limits{}, a)
			c2 := b.raw(cert, v)
			if ack := c2.opened(keeps(mqtt.Connect{Version: v})); !ack.SessionPresent {
				t.Fatal("the session is gone")
			}
			for i, name := range []string{"one", "two"} {
				p := expect[*mqtt.Publish](c2)
				if !p.Dup || p.ID != uint16(i+1) || string(p.Payload) != name || p.Topic != "ot/1/me/cmd/"+name {
					t.Errorf("got %+v, want %s again", p, name)
				}
			}
			again := b.sending(gateway.Downlink{Device: id, Topic: "cmd/one", Payload: []byte("one")})
			c2.ack(1)
			if err := <-again; err != nil {
				t.Errorf("Send of what is in flight: %v", err)
			}
			c2.ack(2)
			c2.silent()
			if err := b.g.Send(t.Context(), gateway.Downlink{Device: id, Topic: "cmd/two", Payload: []byte("two")}); err != nil {
				t.Errorf("Send of what was acknowledged already: %v", err)
			}
			c2.silent()
			c.Close()
			for _, s := range sent {
				if err := <-s; err == nil {
					t.Error("the node that is gone says that its message was acknowledged")
				}
			}
		})
	})
}
