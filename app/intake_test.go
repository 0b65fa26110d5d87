// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/telemetry"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// The disk is at its reserve: what devices say is refused by the rule's name over both doors, and nothing is acknowledged;
// enrolment, revocation and the log go on, and Today and /readyz say what is the matter.
func TestM03_PlatformAtItsReserve(t *testing.T) {
	w := newWorldWith(t, func(c *Config) { c.Reserve = 1 << 40 })
	w.expectErrors = true
	m := w.newMaker("Acme")
	u := m.make()
	c, err := w.mqtt(u.ldevid)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var refused *mqtt.Error
	err = c.Publish(t.Context(), "ot/1/me/tele/env", []byte(`{"values":{"a":1}}`))
	if !errors.As(err, &refused) || refused.Reason != mqtt.QuotaExceeded || !strings.Contains(err.Error(), telemetry.RuleReserve) {
		t.Errorf("MQTT: %v", err)
	}
	a, err := w.do(w.client(&u.ldevid), "POST", w.info.Devices+"/d/1/messages", "", "application/json", []byte(`[{"topic":"tele/env","payload":{"values":{"a":1}}}]`))
	if err != nil || a.status != http.StatusTooManyRequests || !strings.Contains(string(a.body), telemetry.RuleReserve) {
		t.Errorf("HTTPS: %d %s %v", a.status, a.body, err)
	}
	a, err = w.do(w.client(nil), "GET", w.info.URL+"/v1/devices/"+u.id+"/telemetry", m.owner, "", nil)
	if err != nil || strings.Contains(string(a.body), `"count"`) {
		t.Errorf("a refused value is read: %s %v", a.body, err)
	}
	w.post(m.owner, "/v1/devices/"+u.id+"/revoke", map[string]any{"reason": "lost"}, nil)
	w.ends(c, "revoked at the reserve")
	a, err = w.do(w.client(nil), "GET", w.info.URL+"/v1/audit/entries?page_size=50", m.owner, "", nil)
	if err != nil || !strings.Contains(string(a.body), "revoked") {
		t.Errorf("the log does not tell of the revocation: %d %s %v", a.status, a.body, err)
	}
	a, err = w.do(http.DefaultClient, "GET", w.info.Health+"/readyz", "", "", nil)
	if err != nil || a.status != 200 || !strings.Contains(string(a.body), telemetry.RuleReserve) {
		t.Errorf("/readyz: %d %s %v", a.status, a.body, err)
	}
	a, err = w.do(w.client(nil), "GET", w.info.URL+"/", m.owner, "", nil)
	if err != nil || a.status != 200 || !strings.Contains(string(a.body), "Telemetry is refused; the rest is kept for revocations and the log") {
		t.Errorf("Today: %d %.300s %v", a.status, a.body, err)
	}
}

// The quotas that the platform is started with reach the door.
func TestQuotasReachTheDoor(t *testing.T) {
	w := newWorldWith(t, func(c *Config) { c.Tenant = gateway.Quota{Messages: 1, Burst: 1} })
	m := w.newMaker("Acme")
	c, err := w.mqtt(m.make().ldevid)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 60 {
		err = c.Publish(t.Context(), "ot/1/me/tele/env", []byte(`{"values":{"a":1}}`))
		if err != nil {
			break
		}
	}
	var refused *mqtt.Error
	if !errors.As(err, &refused) || refused.Reason != mqtt.QuotaExceeded || !strings.Contains(err.Error(), gateway.RuleTenantQuota) {
		t.Errorf("sixty messages in a row: %v", err)
	}
}
