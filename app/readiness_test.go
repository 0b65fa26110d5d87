// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"encoding/json"
	"testing"

	"github.com/openthings-platform/openthings/respond"
)

// What is missing before the first 24 hours begin is asked of every room, and nothing of it needs a connected device.
func TestReadyToReport(t *testing.T) {
	w := newWorldWith(t, func(*Config) {})
	owner := w.token("Acme", "owner").Token
	ask := func() (done map[string]bool) {
		t.Helper()
		a, err := w.do(w.client(nil), "GET", w.info.URL+"/v1/reporting-readiness", owner, "", nil)
		var r respond.Readiness
		if err != nil || a.status != 200 || json.Unmarshal(a.body, &r) != nil {
			t.Fatalf("%d %s %v", a.status, a.body, err)
		}
		done = map[string]bool{}
		for _, i := range r.Items {
			done[i.Text] = i.Done
		}
		if r.Of != len(done) {
			t.Errorf("%d of %d items", len(done), r.Of)
		}
		return done
	}
	put := func(path, body string) {
		t.Helper()
		if a, err := w.do(w.client(nil), "PUT", w.info.URL+path, owner, "application/json", []byte(body)); err != nil || a.status >= 300 {
			t.Fatalf("%s: %d %s %v", path, a.status, a.body, err)
		}
	}
	const available, contact, support = "The Member States in which each product is available are declared", "Finders are told where to report", "The end of support of each product is published"
	before := ask()
	if len(before) != 8 || before[available] || before[contact] || before[support] {
		t.Errorf("an empty tenant: %v", before)
	}
	var p struct{ ID string }
	w.post(owner, "/v1/products", map[string]any{"name": "Lamp", "model": "lamp"}, &p)
	put("/v1/products/"+p.ID+"/availability", `{"member_states": ["DE"]}`)
	put("/v1/disclosure", `{"contacts": ["mailto:security@acme.example"]}`)
	if after := ask(); !after[available] || !after[contact] || after[support] {
		t.Errorf("after: %v", after)
	}
	w.post(owner, "/v1/products", map[string]any{"name": "Bell", "model": "bell"}, nil)
	if after := ask(); after[available] {
		t.Error("a second product without availability is overlooked")
	}
}
