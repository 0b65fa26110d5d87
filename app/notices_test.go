// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/telemetry"
	"github.com/openthings-platform/openthings/vuln"
)

// TestToldOutside: each event in the table reaches whoever listens, in words and with names instead of ids; what is no
// matter for people outside reaches nobody.
func TestToldOutside(t *testing.T) {
	w := newWorldWith(t, func(c *Config) { c.PrivateHooks = true })
	m := w.newMaker("Lumen")
	u := m.make()
	heard := make(chan string, 20)
	on := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var b struct {
			Type string
			Data struct{ Title, Link string }
		}
		if err := json.NewDecoder(r.Body).Decode(&b); err != nil {
			t.Error(err)
		}
		heard <- b.Type + " | " + b.Data.Title + " | " + strings.TrimPrefix(b.Data.Link, w.info.URL)
	}))
	defer on.Close()
	w.post(m.owner, "/v1/notifications/endpoints", map[string]any{"name": "all", "kind": "webhook", "address": on.URL, "topics": []string{"*"}}, nil)
	type happening struct {
		topic, subject string
		data           any
		want           string // empty: nobody hears of it
	}
	events := []happening{
		{"deployment.ended", "dpl_1", map[string]any{"state": "completed"}, ""},
		{"deployment.ended", "dpl_2", map[string]any{"state": "aborted", "reason": "3 devices failed"}, "deployment.ended | A deployment was aborted: 3 devices failed | /deployments/dpl_2"},
		{"vuln.exploited", "vul_1", vuln.Exploited{Group: "CVE-2026-1", ID: "vul_1", Product: m.product, Version: "1.2"}, "vuln.exploited | CVE-2026-1 is known to be exploited and in "},
		{"case.deadline", "cas_1", respond.Escalation{Stage: respond.EarlyWarning, Level: respond.DeadlineOverdue}, "case.deadline | cas_1: " + respond.EarlyWarning.Name() + " is overdue | /cases/cas_1"},
		{"clone.detected", "cln_1", map[string]any{"what": "key"}, "clone.detected | Two devices show the same key | /enrol/quarantine"},
		{telemetry.ChainBroken, u.id, telemetry.ChainBreak{Kind: "gap", From: 3, To: 5}, telemetry.ChainBroken + " | The chain of security events of device " + u.serial + " is broken: gap at 3 to 5 | /devices/" + u.id},
	}
	covered := map[string]bool{}
	for _, e := range events {
		covered[e.topic] = true
		if err := w.h.db.Write(t.Context(), func(tx *store.Tx) error { return w.h.db.Emit(tx, e.topic, m.tenant, e.subject, e.data) }); err != nil {
			t.Fatal(err)
		}
		if e.want == "" {
			continue // what follows is the first that is heard
		}
		select {
		case got := <-heard:
			if !strings.HasPrefix(got, e.want) || strings.Contains(got, "prd_") {
				t.Errorf("told %q, want %q", got, e.want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("nobody heard of %s", e.topic)
		}
	}
	for _, row := range told {
		if !covered[row.topic] {
			t.Errorf("no event of this test is told as %s", row.topic)
		}
	}
}
