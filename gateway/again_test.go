// SPDX-License-Identifier: AGPL-3.0-only

package gateway_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// keptWith is newKept with a configuration that the test changes.
func keptWith(t *testing.T, change func(*gateway.Config)) *unit {
	k := newKept(t, storetest.SQLiteURL(t), gateway.Limits{})
	first := k.house
	k.house = newHouseWith(t, func(c *gateway.Config) {
		c.Sessions, c.Clock, c.Admit = k.sessions.Keeper(), k.clk, first.admit
		change(c)
	})
	return &unit{k, "dev_1", first.device("dev_1")}
}

// TestOneDownlinkIsSentOnce: a downlink that is being made durable leaves when it is, and once, also when the device
// answers another one meanwhile.
func TestOneDownlinkIsSentOnce(t *testing.T) {
	saves := make(chan chan struct{}) // each save of a session, until it is let go
	slow := make(chan struct{})       // closed: saves are told to the test
	u := keptWith(t, func(c *gateway.Config) {
		keeper := *c.Sessions
		c.Sessions = &keeper
		save := keeper.Save
		keeper.Save = func(ctx context.Context, p gateway.Peer, state []byte) error {
			select {
			case <-slow:
				proceed := make(chan struct{})
				saves <- proceed
				<-proceed
			default:
			}
			return save(ctx, p, state)
		}
	})
	r, _ := u.keep()
	r.subscribed(1, "cmd/#")
	one := u.down("cmd/1", "")
	first := expect[*mqtt.Publish](r)
	close(slow)
	two := u.down("cmd/2", "")
	save := <-saves
	r.ack(first.ID)
	r.silent() // the second is not durable yet
	close(save)
	go func() { // the saves that follow the answers
		for save := range saves {
			close(save)
		}
	}()
	defer close(saves)
	second := expect[*mqtt.Publish](r)
	if second.Topic != "ot/1/me/cmd/2" || second.Dup {
		t.Errorf("got %+v", second)
	}
	r.ack(second.ID)
	r.silent()
	if err := errors.Join(<-one, <-two); err != nil {
		t.Errorf("Send: %v", err)
	}
	u.gone(r)
}

// TestNothingOvertakesConnack: from the moment that a session is the device's own until its CONNACK nothing is sent to it.
func TestNothingOvertakesConnack(t *testing.T) {
	var u *unit
	early := make(chan error, 1)
	u = keptWith(t, func(c *gateway.Config) {
		c.TakenOver = func(_, now gateway.Peer) {
			early <- u.g.Send(context.Background(), gateway.Downlink{Device: now.Device, Topic: "cmd/early"})
		}
	})
	r, _ := u.keep()
	r.subscribed(0, "cmd/#")
	again, ack := u.keep() // takes over
	if err := <-early; !errors.Is(err, gateway.ErrOffline) || !ack.SessionPresent {
		t.Errorf("Send before CONNACK: %v; %+v", err, ack)
	}
	again.silent()
}

// TestResumedWithLessRoom: what waits for a device that takes smaller packets than before is dropped; the device is not
// locked out, and what fits arrives [MQTT-3.1.2-25].
func TestResumedWithLessRoom(t *testing.T) {
	u := keptWith(t, func(*gateway.Config) {})
	r, _ := u.keep()
	r.subscribed(1, "cmd/#")
	for _, payload := range []string{"a", strings.Repeat("x", 200), "b"} {
		u.down("cmd/x", payload)
		expect[*mqtt.Publish](r)
	}
	u.gone(r)
	r, _ = u.keep(mqtt.Property{ID: mqtt.MaximumPacketSize, Num: 100}, mqtt.Property{ID: mqtt.ReceiveMaximum, Num: 1})
	for _, want := range []string{"a", "b"} {
		p := expect[*mqtt.Publish](r)
		if string(p.Payload) != want {
			t.Errorf("got %+v, want %s", p, want)
		}
		r.ack(p.ID)
	}
	r.silent()
	sent := u.down("cmd/y", "") // the window has its place again
	r.ack(expect[*mqtt.Publish](r).ID)
	if err := <-sent; err != nil {
		t.Errorf("Send: %v", err)
	}
	if err := <-u.down("cmd/x", strings.Repeat("x", 200)); !isProblem(err, mqtt.PacketTooLarge) {
		t.Errorf("who sends it again hears: %v", err)
	}
}
