// SPDX-License-Identifier: AGPL-3.0-only

package gateway_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/wire"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// TestM12_RevokedDevicePublishesResumesAndConnectsNoMore: the live session is cut, nothing that follows on it is taken,
// the kept session opens to nobody, and no will speaks for the device.
func TestM12_RevokedDevicePublishesResumesAndConnectsNoMore(t *testing.T) {
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		k := newKept(t, storetest.SQLiteURL(t), gateway.Limits{})
		cert := k.device("dev_1")
		c := k.raw(cert, v)
		connect := keeps(mqtt.Connect{Version: v, Will: &mqtt.Will{Topic: "ot/1/me/event/offline", Payload: []byte("{}")}})
		c.opened(connect)
		c.subscribed(1, "cmd/#")
		k.revoke(cert)
		if n := k.g.Cut("dev_1", "revoked"); n != 1 {
			t.Errorf("%d connections were cut", n)
		}
		_, _ = c.Write([]byte{0x30, 21, 0, 14, 'o', 't', '/', '1', '/', 'm', 'e', '/', 't', 'e', 'l', 'e', '/', 'x', 0, '1', '2', '3', '4'}) // the socket may be closed already
		c.ended(mqtt.AdministrativeAction)
		k.left("dev_1")
		if conn, err := k.dial(&cert); err == nil { // TLS 1.3: the client hears of the refusal when it reads
			again := &raw{t, conn, mqtt.NewReader(conn, 1<<20), v}
			if b, err := mqtt.Append(nil, v, connect); err == nil {
				_, _ = again.Write(b)
			}
			again.over()
		}
		k.clk.Advance(time.Hour)
		k.due()
		if rs := k.appended(); len(rs) > 0 {
			t.Errorf("appended %+v", rs)
		}
	})
}

// TestM13_DeniedTopicIsNeverAcknowledged: MQTT 5 hears 0x87 with the reason in words; 3.1.1 loses its connection, after
// a word on err for whoever listens there. Either way the refusal is reported.
func TestM13_DeniedTopicIsNeverAcknowledged(t *testing.T) {
	for _, topic := range []string{"ot/1/acme/dev_2/tele/env", "ot/1/me/cmd/c1/reboot", "elsewhere"} {
		t.Run(topic, func(t *testing.T) {
			h := newHouse(t, gateway.Limits{})
			c := h.session(h.device("dev_1"), mqtt.V5)
			c.send(qos1(1, topic, "x"))
			if ack := expect[*mqtt.Ack](c); ack.Reason != mqtt.NotAuthorized || ack.Properties.Str(mqtt.ReasonString) == "" {
				t.Errorf("got %+v", ack)
			}
			c.silent() // and the connection stays
			h.await("refused dev_1 topic.own")

			for name, listens := range map[string]bool{"on err": true, "deaf": false} {
				v4 := h.session(h.device("dev_1"), mqtt.V4)
				if listens {
					v4.subscribed(0, "err")
				}
				v4.send(qos1(1, topic, "x"))
				if listens {
					p := expect[*mqtt.Publish](v4)
					var r wire.Refusal
					if err := json.Unmarshal(p.Payload, &r); err != nil || p.Topic != "ot/1/me/err" || p.QoS != 0 || r.Topic != topic || r.Code != 0x87 || r.Reason == "" {
						t.Errorf("%s: got %+v %s", name, p, p.Payload)
					}
				}
				v4.over()
				h.await("refused dev_1 topic.own")
			}
			if rs := h.appended(); len(rs) > 0 {
				t.Errorf("appended %+v", rs)
			}
		})
	}
}

// TestM14_NoWayIntoAnotherTree: neither topics nor filters nor wills nor answers reach beyond the device's own tree,
// whoever's it is.
func TestM14_NoWayIntoAnotherTree(t *testing.T) {
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		h := newHouse(t, gateway.Limits{})
		cert := h.device("dev_1")
		h.cert(gateway.Peer{Kind: gateway.LDevID, Tenant: "other", Device: "dev_9"})
		foreign := []string{"ot/1/other/dev_9/tele/env", "ot/1/other/dev_1/tele/env", "ot/1/acme/dev_2/tele/env", "ot/1/acme/dev_1/../dev_2/tele/x", "ot/1/acme/dev_1x/tele/x", "OT/1/me/tele/x", "/ot/1/me/tele/x"}
		for _, topic := range foreign {
			c := h.session(cert, v)
			c.send(qos1(1, topic, "x"))
			if v == mqtt.V5 {
				c.wantAck(1, mqtt.NotAuthorized)
			} else {
				c.over()
			}
			w := h.raw(cert, v)
			w.send(&mqtt.Connect{Version: v, CleanStart: true, Will: &mqtt.Will{Topic: topic}})
			if ack := expect[*mqtt.Connack](w); ack.Reason != mqtt.NotAuthorized {
				t.Errorf("a will on %s: %+v", topic, ack)
			}
			w.over()
		}
		c := h.session(cert, v)
		var s mqtt.Subscribe
		for _, f := range append(foreign, "#", "+/#", "ot/#", "ot/1/+/+/#", "ot/1/other/#", "ot/1/acme/+/cmd/#", "ot/1/+/dev_1/cmd/#", "ot/+/me/#", "ot/1/me", "ot/1/me/", "$share/g/ot/1/me/#", "$SYS/#") {
			s.Filters = append(s.Filters, mqtt.Filter{Topic: f, QoS: 1})
		}
		s.ID = 1
		if v == mqtt.V5 {
			h2 := newHouse(t, gateway.Limits{Filters: 1000})
			c = h2.session(h2.device("dev_1"), v)
		}
		c.send(&s)
		for i, r := range expect[*mqtt.Suback](c).Reasons {
			// A filter such as acme/dev_1/../dev_2 lies in the device's own tree, whatever it looks like.
			own := strings.HasPrefix(s.Filters[i].Topic, "ot/1/acme/dev_1/")
			if r.Failed() == own {
				t.Errorf("%s: %s", s.Filters[i].Topic, r)
			}
		}
		if rs := h.appended(); len(rs) > 0 {
			t.Errorf("appended %+v", rs)
		}
	})
}

// TestM17_LimitsOfTheProtocol: QoS 2, session expiry, receive maximum, topic aliases and will delay, beyond what single
// statements ask (TestConformance).
func TestM17_LimitsOfTheProtocol(t *testing.T) {
	k := newKept(t, storetest.SQLiteURL(t), gateway.Limits{Session: 2 * time.Hour, KeepAlive: time.Minute})
	cert := k.device("dev_1")
	t.Run("session expiry is capped and answered", func(t *testing.T) {
		for asked, granted := range map[uint32]uint32{0: 0, 60: 60, 7200: 7200, 7201: 7200, 0xFFFFFFFF: 7200} {
			c := k.raw(cert, mqtt.V5)
			ack := c.opened(&mqtt.Connect{Version: mqtt.V5, CleanStart: true, Properties: mqtt.Properties{{ID: mqtt.SessionExpiry, Num: asked}}})
			if got := ack.Properties.Num(mqtt.SessionExpiry, asked); got != granted {
				t.Errorf("asked for %d, granted %d, want %d", asked, got, granted)
			}
		}
	})
	t.Run("expiry changes in DISCONNECT", func(t *testing.T) {
		for _, row := range []struct {
			connect, disconnect uint32
			away                time.Duration
			present             bool
		}{{60, 3600, 59 * time.Minute, true}, {3600, 60, 2 * time.Minute, false}, {3600, 0, 0, false}, {3600, 0xFFFFFFFF, 119 * time.Minute, true}, {60, 0xFFFFFFFF, 2 * time.Hour, false}} {
			c := k.raw(cert, mqtt.V5)
			connect := &mqtt.Connect{Version: mqtt.V5, ClientID: "k", CleanStart: true, Properties: mqtt.Properties{{ID: mqtt.SessionExpiry, Num: row.connect}}}
			c.opened(connect)
			c.send(&mqtt.Disconnect{Properties: mqtt.Properties{{ID: mqtt.SessionExpiry, Num: row.disconnect}}})
			c.over()
			k.left("dev_1")
			k.clk.Advance(row.away)
			connect.CleanStart = false
			c = k.raw(cert, mqtt.V5)
			if ack := c.opened(connect); ack.SessionPresent != row.present {
				t.Errorf("%+v: present %v", row, ack.SessionPresent)
			}
			c.Close()
			k.left("dev_1")
		}
		c := k.session(cert, mqtt.V5) // a session that was to end with its connection
		c.send(&mqtt.Disconnect{Properties: mqtt.Properties{{ID: mqtt.SessionExpiry, Num: 10}}})
		c.ended(mqtt.ProtocolError)
		k.left("dev_1")
	})
	t.Run("a will that is said is a message like others", func(t *testing.T) {
		c := k.raw(cert, mqtt.V5)
		c.opened(&mqtt.Connect{Version: mqtt.V5, CleanStart: true, Will: &mqtt.Will{Topic: "ot/1/acme/dev_1/event/offline", Payload: []byte("{}"), Properties: mqtt.Properties{
			{ID: mqtt.ContentType, Str: "Application/JSON; charset=utf-8"}, {ID: mqtt.UserProperty, Str: "boot", Val: "7"}, {ID: mqtt.UserProperty, Str: "seq", Val: "9"}, {ID: mqtt.MessageExpiry, Num: 60}}}})
		c.send(&mqtt.Disconnect{Reason: mqtt.DisconnectWithWill})
		c.over()
		k.left("dev_1")
		rs := k.appended()
		if len(rs) != 1 || rs[0].Topic != "event/offline" || rs[0].Type != "application/json" || rs[0].Boot != 7 || rs[0].Seq != 9 || rs[0].At != k.clk.Now().UnixMilli() || rs[0].Expires == 0 {
			t.Errorf("appended %+v", rs)
		}
	})
	t.Run("a node that fell over", func(t *testing.T) { // its wills are said once its devices had a minute to come back
		url := storetest.SQLiteURL(t)
		a := newKept(t, url, gateway.Limits{})
		stays, returns := a.device("dev_stays"), a.device("dev_returns")
		for _, cert := range []*raw{a.raw(stays, mqtt.V5), a.raw(returns, mqtt.V5)} {
			cert.opened(willing(*keeps(mqtt.Connect{}), 0))
		}
		b := newKept(t, url, gateway.Limits{}, a)
		ended := make(chan error)
		b.clk.Advance(time.Second)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go func() { ended <- b.sessions.Work(ctx) }()
		for open := -1; open != 0; { // until it has found what the other left
			if err := b.db.QueryRow(ctx, `SELECT count(*) FROM mqtt_session WHERE ended = 0`).Scan(&open); err != nil {
				t.Fatal(err)
			}
		}
		b.raw(returns, mqtt.V5).opened(keeps(mqtt.Connect{}))
		b.clk.Advance(time.Minute)
		b.due()
		if rs := b.appended(); len(rs) != 1 || rs[0].Device != "dev_stays" {
			t.Errorf("appended %+v", rs)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Run("QoS 2", func(t *testing.T) {
		c := k.session(cert, mqtt.V5)
		c.send(&mqtt.Publish{QoS: 2, ID: 1, Topic: "ot/1/me/tele/x"})
		c.ended(mqtt.QoSNotSupported)
	})
}
