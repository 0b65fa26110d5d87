// SPDX-License-Identifier: AGPL-3.0-only

package gateway_test

import (
	"testing"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// sentTo asserts that the session ends with a reason and a reference.
func (r *raw) sentTo(why mqtt.Reason, server string) {
	r.t.Helper()
	if d := expect[*mqtt.Disconnect](r); d.Reason != why || d.Properties.Str(mqtt.ServerReference) != server {
		r.t.Errorf("got %+v, want %s to %s", d, why, server)
	}
	r.over()
}

// TestSendElsewhere: devices with a session and those that come are told where to go; their sessions wait for them there,
// and no will is said.
func TestSendElsewhere(t *testing.T) {
	url := storetest.PostgresURL(t)
	k := newKept(t, url, gateway.Limits{})
	node2 := newKept(t, url, gateway.Limits{}, k)
	cert, old := k.device("dev_5"), k.device("dev_3")
	c := k.raw(cert, mqtt.V5)
	c.opened(willing(*keeps(mqtt.Connect{}), 0))
	c.subscribed(1, "cmd/#")
	v4 := k.session(old, mqtt.V4)

	told, err := k.g.SendElsewhere(t.Context(), &gateway.Elsewhere{Server: "node2:8883"}, 0)
	if err != nil || told != 2 {
		t.Errorf("%d devices were told, %v", told, err)
	}
	c.sentTo(mqtt.UseAnotherServer, "node2:8883")
	v4.over()
	k.left("dev_")
	k.left("dev_")
	c = k.raw(cert, mqtt.V5)
	c.send(keeps(mqtt.Connect{}))
	if ack := expect[*mqtt.Connack](c); ack.Reason != mqtt.UseAnotherServer || ack.Properties.Str(mqtt.ServerReference) != "node2:8883" {
		t.Errorf("CONNACK %+v", ack)
	}
	c.over()
	c = node2.raw(cert, mqtt.V5)
	if ack := c.opened(keeps(mqtt.Connect{})); !ack.SessionPresent {
		t.Error("the session did not follow its device")
	}
	if rs := k.appended(); len(rs) > 0 {
		t.Errorf("appended %+v", rs)
	}

	if _, err := k.g.SendElsewhere(t.Context(), nil, 0); err != nil {
		t.Error(err)
	}
	c = k.session(cert, mqtt.V5)
	if _, err := k.g.SendElsewhere(t.Context(), &gateway.Elsewhere{Server: "new.example:8883", Moved: true}, 0); err != nil {
		t.Error(err)
	}
	c.sentTo(mqtt.ServerMoved, "new.example:8883")
}

// TestSendElsewherePaced: as many devices a second as was said.
func TestSendElsewherePaced(t *testing.T) {
	k := newKept(t, storetest.SQLiteURL(t), gateway.Limits{})
	for _, id := range []string{"dev_1", "dev_2", "dev_3"} {
		k.session(k.device(id), mqtt.V5)
	}
	done := make(chan int)
	go func() {
		told, err := k.g.SendElsewhere(t.Context(), &gateway.Elsewhere{Server: "node2:8883"}, 2)
		if err != nil {
			t.Error(err)
		}
		done <- told
	}()
	k.left("dev_")
	k.left("dev_")
	if n := k.g.Count(); n != 1 {
		t.Errorf("%d sessions after the first second, want 1", n)
	}
	k.clk.WaitTimers(2) // that of the pace beside that of the sweep
	k.clk.Advance(1e9)
	if told := <-done; told != 3 {
		t.Errorf("%d devices were told", told)
	}
	k.left("dev_")
}

// TestDrainTo: when the platform stops, devices hear where to go instead.
func TestDrainTo(t *testing.T) {
	h := newHouse(t, gateway.Limits{})
	c := h.session(h.device("dev_1"), mqtt.V5)
	if err := h.g.DrainTo(t.Context(), &gateway.Elsewhere{Server: "node2:8883"}); err != nil {
		t.Error(err)
	}
	c.sentTo(mqtt.UseAnotherServer, "node2:8883")
}
