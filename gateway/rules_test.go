// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/wire/mqtt"
)

func TestRefusalsDoNotFlood(t *testing.T) {
	r := refusals{told: map[refusal]*tally{}}
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	told := 0
	for range 1000 {
		if _, ok := r.tell("dev_1", "topic.own", now); ok {
			told++
		}
	}
	if told != 1 {
		t.Errorf("%d of 1000 refusals were told", told)
	}
	if _, ok := r.tell("dev_2", "topic.own", now); !ok {
		t.Error("another device's first refusal was not told")
	}
	if more, ok := r.tell("dev_1", "topic.own", now.Add(time.Hour)); !ok || !strings.Contains(more, "999 more") {
		t.Errorf("after an hour: %q, %t", more, ok)
	}
	for i := range 3 * maxRefusals {
		r.tell(strings.Repeat("x", i), "door.mqtt", now)
	}
	if len(r.told) > maxRefusals+1 {
		t.Errorf("%d subjects are remembered", len(r.told))
	}
}

// FuzzTopic: what a device may write to is one of the documented topics, in its own tree.
func FuzzTopic(f *testing.F) {
	for _, s := range []string{"ot/1/me/tele/env", "ot/1/acme/dev_1/cmd/c1/res", "ot/1/acme/dev_2/inv", "ot/1/me/cmd//ack", "ot/1/me/", "ot/1/me/ota/x/status", "ot/1/me/state/reported", "ot/1/me/state/desired"} {
		f.Add(s)
	}
	p := Peer{Kind: LDevID, Tenant: "acme", Device: "dev_1"}
	f.Fuzz(func(t *testing.T, topic string) {
		root, rest, ok := below(p, topic)
		if !ok {
			if strings.HasPrefix(topic, "ot/1/me/") || strings.HasPrefix(topic, "ot/1/acme/dev_1/") {
				t.Errorf("%q is the device's own and was refused", topic)
			}
			return
		}
		if root+rest != topic || root != "ot/1/me/" && root != "ot/1/acme/dev_1/" {
			t.Errorf("%q was cut into %q and %q", topic, root, rest)
		}
		if !mayPublish(rest) || mqtt.CheckTopic(rest) != nil {
			return
		}
		for _, filter := range []string{"tele/+/#", "event/+/#", "inv", "cmd/+/ack", "cmd/+/res", "ota/+/status", "state/reported", "notice"} {
			if mqtt.Match(filter, rest) && !strings.Contains("/"+rest+"/", "//") && slices.ContainsFunc(Uplinks(), func(p string) bool { return strings.HasPrefix(rest, p) }) {
				return
			}
		}
		t.Errorf("a device may write to %q", rest)
	})
}

// FuzzMessages: whatever a device posts, what is accepted are its own records on topics it may write.
func FuzzMessages(f *testing.F) {
	f.Add([]byte(`[{"topic":"tele/env","payload":{"t":1}},{"topic":"inv","payload":null}]`))
	f.Add([]byte(`[{"topic":"cmd/c/reboot","payload":1}]`))
	f.Add([]byte(`[{},[],{"topic":"tele/\u0000"}]`))
	f.Add([]byte(`{"topic":`))
	g, err := New(Config{
		Admit:  func(context.Context, *x509.Certificate) (Peer, error) { return Peer{}, nil },
		Append: func(context.Context, []Record) error { return nil },
		TLS:    &tls.Config{},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequest("POST", "/d/1/messages", bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		records, err := g.readMessages(r, Peer{Kind: LDevID, Tenant: "acme", Device: "dev_1"})
		if err != nil && len(records) > 0 {
			t.Error("records beside an error")
		}
		for _, rec := range records {
			if rec.Tenant != "acme" || rec.Device != "dev_1" || !mayPublish(rec.Topic) || len(rec.Body) == 0 {
				t.Errorf("accepted %+v", rec)
			}
		}
	})
}
