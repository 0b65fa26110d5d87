// SPDX-License-Identifier: AGPL-3.0-only

package tenant_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/tenant"
)

// TestActing: who is known by an id only may do what it may do now, and nothing when its access has ended.
func TestActing(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ada, _ := setup(t, h)
		me, _ := ada.me()
		thing := tenant.Thing{Tenant: me.Tenant.ID}
		may := func(id string) bool {
			t.Helper()
			a, err := h.Acting(t.Context(), thing.Tenant, id)
			if err != nil || a.ID != id || a.Tenant != thing.Tenant {
				t.Fatalf("%s is %+v, %v", id, a, err)
			}
			return tenant.Can(a, tenant.CommandSend, thing)
		}
		_, body := ada.post("/v1/people", map[string]any{"name": "Grace", "role": "fleet-operator"})
		var inv tenant.Invitation
		if err := json.Unmarshal([]byte(body), &inv); err != nil {
			t.Fatal(err)
		}
		browser := h.browser()
		if status, body := browser.enter(strings.TrimPrefix(inv.Link, h.srv.URL), "Grace Hopper", "", newAuthenticator(t, h.srv.URL)); status != 200 {
			t.Fatalf("join: %d %s", status, body)
		}
		grace, _ := browser.me()
		token := func() string {
			status, body := ada.post("/v1/tokens", map[string]any{"name": "night job", "role": "fleet-operator", "expires": h.clk.Now().Add(time.Hour)})
			var made struct{ ID string }
			if err := json.Unmarshal([]byte(body), &made); err != nil || status != 201 {
				t.Fatalf("create: %d %s", status, body)
			}
			return made.ID
		}
		revoked, ends := token(), token()
		if !may(me.ID) || !may(grace.ID) || !may(revoked) || !may(ends) {
			t.Error("somebody with a role may not act by it")
		}
		if may("per_none") || may("tok_none") || may("dev_x") || may("") {
			t.Error("nobody may act")
		}
		if a, err := h.Acting(t.Context(), "ten_other", grace.ID); err != nil || len(a.Grants) != 0 {
			t.Errorf("in another tenant: %+v, %v", a, err)
		}
		b, _ := json.Marshal(map[string]any{"grants": []map[string]string{{"role": "auditor"}}})
		if status, _ := ada.do("PUT", "/v1/people/"+grace.ID+"/grants", b); status != 204 || may(grace.ID) {
			t.Errorf("a role that was taken still counts (%d)", status)
		}
		b, _ = json.Marshal(map[string]any{"grants": []map[string]string{{"role": "fleet-operator"}}})
		if status, _ := ada.do("PUT", "/v1/people/"+grace.ID+"/grants", b); status != 204 || !may(grace.ID) {
			t.Errorf("a role that was given does not count (%d)", status)
		}
		if status, _ := ada.post("/v1/people/"+grace.ID+"/remove", nil); status != 204 || may(grace.ID) {
			t.Errorf("a removed person may act (%d)", status)
		}
		if status, _ := ada.post("/v1/tokens/"+revoked+"/revoke", nil); status != 204 || may(revoked) {
			t.Errorf("a revoked token may act (%d)", status)
		}
		if h.clk.Advance(time.Hour); may(ends) {
			t.Error("a token that has ended may act")
		}
	})
}
