// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"crypto/tls"
	"errors"
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
	conn, err := tls.Dial("tcp", w.info.MQTT, &tls.Config{RootCAs: w.roots, Certificates: []tls.Certificate{u.ldevid}})
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
	r := mqtt.NewReader(conn, 1<<16)
	ask := func(p mqtt.Packet) mqtt.Packet {
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
	}
	ack, ok := ask(&mqtt.Connect{Version: mqtt.V5, ClientID: "k", KeepAlive: 60, Properties: mqtt.Properties{{ID: mqtt.SessionExpiry, Num: 3600}}}).(*mqtt.Connack)
	if !ok || ack.Reason != mqtt.Success {
		w.t.Fatalf("CONNACK %+v", ack)
	}
	if s, ok := ask(&mqtt.Subscribe{ID: 1, Filters: []mqtt.Filter{{Topic: "ot/1/me/cmd/#", QoS: 1}}}).(*mqtt.Suback); !ok || s.Reasons[0] != mqtt.GrantedQoS1 {
		w.t.Fatalf("SUBACK %+v", s)
	}
	return ack.SessionPresent
}
