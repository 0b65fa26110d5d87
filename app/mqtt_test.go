// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"crypto/tls"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// TestM13_DeniedTopicIsInTheLog: what a device was refused is a leaf about it.
func TestM13_DeniedTopicIsInTheLog(t *testing.T) {
	w := newWorld(t, "")
	m := w.newMaker("Acme")
	u := m.make()
	c, err := w.mqtt(u.ldevid)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		var why *mqtt.Error
		if err := c.Publish(t.Context(), "ot/1/"+m.tenant+"/dev_other/tele/x", []byte("{}")); !errors.As(err, &why) || why.Reason != mqtt.NotAuthorized {
			t.Errorf("Publish: %v", err)
		}
	}
	w.stop()
	w.start()
	leaves, err := w.h.audit.List(t.Context(), m.tenant, audit.Filter{Kind: "access.refused"}, 100)
	if err != nil || len(leaves) == 0 || len(leaves) > 2 {
		t.Fatalf("%d leaves, %v, want the first refusal and the total of the others", len(leaves), err)
	}
	for _, l := range leaves {
		if l.Subject != u.id {
			t.Errorf("a refusal about %s", l.Subject)
		}
	}
}

// TestSessionSurvivesARestart: a device finds its subscriptions again after the platform was stopped and started.
func TestSessionSurvivesARestart(t *testing.T) {
	w := newWorld(t, "")
	u := w.newMaker("Acme").make()
	if w.resumes(u) {
		t.Error("a device that was never here finds a session")
	}
	w.stop()
	w.start()
	if !w.resumes(u) {
		t.Error("the session is gone")
	}
}

// resumes opens an MQTT session that is kept, subscribes, and says whether it was there already.
func (w *world) resumes(u *unit) bool {
	w.t.Helper()
	ask, end := w.opens(u)
	defer end()
	ack, ok := ask(&mqtt.Connect{Version: mqtt.V5, ClientID: "k", KeepAlive: 60, Properties: mqtt.Properties{{ID: mqtt.SessionExpiry, Num: 3600}}}).(*mqtt.Connack)
	if !ok || ack.Reason != mqtt.Success {
		w.t.Fatalf("CONNACK %+v", ack)
	}
	if s, ok := ask(&mqtt.Subscribe{ID: 1, Filters: []mqtt.Filter{{Topic: "ot/1/me/cmd/#", QoS: 1}}}).(*mqtt.Suback); !ok || s.Reasons[0] != mqtt.GrantedQoS1 {
		w.t.Fatalf("SUBACK %+v", s)
	}
	return ack.SessionPresent
}

// opens is a connection of the unit on which packets are asked and answered; end ends it without a goodbye.
func (w *world) opens(u *unit) (ask func(mqtt.Packet) mqtt.Packet, end func()) {
	w.t.Helper()
	conn, err := tls.Dial("tcp", w.info.MQTT, &tls.Config{RootCAs: w.roots, Certificates: []tls.Certificate{u.ldevid}})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		w.t.Fatal(err)
	}
	r := mqtt.NewReader(conn, 1<<16)
	return func(p mqtt.Packet) mqtt.Packet {
		b, err := mqtt.Append(nil, mqtt.V5, p)
		if err == nil {
			_, err = conn.Write(b)
		}
		if err != nil {
			w.t.Fatal(err)
		}
		h, body, err := r.Next()
		if err != nil {
			w.t.Fatal(err)
		}
		answer, err := mqtt.Decode(mqtt.V5, h, body)
		if err != nil {
			w.t.Fatal(err)
		}
		return answer
	}, func() { conn.Close() }
}

// TestWillAndPresence: presence says at once that a device left, and why; its will is a message of its own, said when its
// delay is over, and not at all if the device is back before.
func TestWillAndPresence(t *testing.T) {
	w := newWorld(t, "")
	m := w.newMaker("Acme")
	u := m.make()
	leave := func(payload string, delay uint32) {
		t.Helper()
		ask, end := w.opens(u)
		ack, ok := ask(&mqtt.Connect{Version: mqtt.V5, ClientID: "k", KeepAlive: 60, Properties: mqtt.Properties{{ID: mqtt.SessionExpiry, Num: 3600}},
			Will: &mqtt.Will{Topic: "ot/1/me/event/offline", QoS: 1, Payload: []byte(payload), Properties: mqtt.Properties{{ID: mqtt.WillDelay, Num: delay}}}}).(*mqtt.Connack)
		if !ok || ack.Reason != mqtt.Success {
			t.Fatalf("CONNACK %+v", ack)
		}
		w.reads(m.owner, "/v1/devices/"+u.id, func(b []byte) bool { return strings.Contains(string(b), `"online":true`) })
		end()
		w.reads(m.owner, "/v1/devices/"+u.id, func(b []byte) bool {
			return strings.Contains(string(b), `"online":false`) && strings.Contains(string(b), `"reason":"connection lost"`)
		})
	}
	leave(`{"detail":"after an hour"}`, 3600)
	leave(`{"detail":"at once"}`, 0)
	w.reads(m.owner, "/v1/devices/"+u.id+"/events", func(b []byte) bool {
		if strings.Contains(string(b), "after an hour") {
			t.Fatalf("the will of a device that was back was said: %s", b)
		}
		return strings.Contains(string(b), "at once")
	})
}
