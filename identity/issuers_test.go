// SPDX-License-Identifier: AGPL-3.0-only

package identity_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/tenant"
)

// issuers serves the API and the pages of a register. The header Test-Role says who asks, always of tenant ten_a.
func issuers(s *identity.Service) (programs, pages http.Handler) {
	auth := func(r *http.Request) (context.Context, error) {
		return tenant.WithActor(r.Context(), tenant.Actor{ID: "per_a", Kind: tenant.KindPerson, Name: "Ann", Tenant: "ten_a",
			Grants: []tenant.Grant{{Tenant: "ten_a", Role: tenant.Role(r.Header.Get("Test-Role"))}}}), nil
	}
	log := slog.New(slog.DiscardHandler)
	a := api.New(api.Config{Title: "test", Clock: clock.System, Log: log, Authenticate: auth, Holds: tenant.Holds, TokenKey: make([]byte, 32), Caller: func(context.Context) string { return "per_a" }})
	s.Routes(a)
	mux := http.NewServeMux()
	a.Mount(mux)
	c := console.New(console.Config{Clock: clock.System, Log: log, Menu: []string{"Today", "Issuers"}, Authenticate: auth, Holds: tenant.Holds, Visitor: func(context.Context) string { return "Ann" }})
	s.Pages(c)
	return mux, c
}

func ask(door http.Handler, role tenant.Role, path string) (int, string) {
	r := httptest.NewRequest("GET", "https://iot.example"+path, nil)
	r.Header.Set("Test-Role", string(role))
	w := httptest.NewRecorder()
	door.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// Who may read of issuers sees authorities, bundles and who lags behind, page by page; who may not sees nothing.
func TestIssuersAreShown(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		programs, pages := issuers(w.Service)
		ahead, _, _ := w.commissioned("S1")
		var behind []string
		for _, serial := range []string{"S2", "S3", "S4"} {
			d, _, _ := w.commissioned(serial)
			behind = append(behind, d.ID)
		}
		after := w.ceremony(w.held(), 2, identity.AlgP384)
		w.next(identity.Server, identity.AlgP256, after)
		for _, id := range append(behind[:1:1], ahead.ID) {
			if err := w.AckBundle(t.Context(), "ten_a", id, map[bool]int64{true: 2, false: 1}[id == ahead.ID]); err != nil {
				t.Fatal(err)
			}
		}
		for _, path := range []string{"/v1/authorities", "/v1/trust-bundles", "/v1/trust-bundles/2/lagging"} {
			if code, body := ask(programs, tenant.Customer, path); code != 403 || strings.Contains(body, "root-1") {
				t.Errorf("a customer reads %s: %d %s", path, code, body)
			}
		}
		if code, _ := ask(pages, tenant.Customer, "/issuers"); code != 403 {
			t.Errorf("a customer reads the page: %d", code)
		}
		code, body := ask(programs, tenant.Auditor, "/v1/authorities")
		for _, want := range []string{`"id":"root-2"`, `"protection":"away"`, `"protection":"sealed"`, `"status":"standby"`, `"algorithm":"ecdsa-p384"`} {
			if code != 200 || !strings.Contains(body, want) {
				t.Errorf("authorities: %d, no %s", code, want)
			}
		}
		for _, secret := range []string{"PRIVATE", `"key":`} {
			if strings.Contains(body, secret) {
				t.Errorf("authorities say %s", secret)
			}
		}
		code, body = ask(programs, tenant.Auditor, "/v1/trust-bundles?page_size=1")
		var page api.Page[identity.BundleProgress]
		if err := json.Unmarshal([]byte(body), &page); code != 200 || err != nil || len(page.Items) != 1 || page.Next == "" || page.Items[0].Version != 2 ||
			page.Items[0].Progress.Acknowledged != 1 || page.Items[0].Progress.Behind != 1 || page.Items[0].Progress.Unknown != 2 || len(page.Items[0].Bridges) != 4 {
			t.Fatalf("%d %s", code, body)
		}
		if code, body = ask(programs, tenant.Auditor, "/v1/trust-bundles?page_size=1&page_token="+page.Next); code != 200 || !strings.Contains(body, `"version":1`) {
			t.Errorf("%d %s", code, body)
		}
		for path, want := range map[string]int{"/v1/trust-bundles?page_token=made-up": 400, "/v1/trust-bundles/3/lagging": 404, "/v1/trust-bundles/0/lagging": 422} {
			if code, body := ask(programs, tenant.Auditor, path); code != want && !(want == 422 && code == 400) {
				t.Errorf("%s: %d %s", path, code, body)
			}
		}
		var seen []string
		for next, n := "", 0; n == 0 || next != ""; n++ {
			code, body := ask(programs, tenant.Auditor, "/v1/trust-bundles/2/lagging?page_size=2&page_token="+next)
			var p api.Page[identity.Ack]
			if err := json.Unmarshal([]byte(body), &p); code != 200 || err != nil {
				t.Fatalf("%d %s", code, body)
			}
			for _, a := range p.Items {
				seen = append(seen, a.Device)
			}
			next = p.Next
		}
		if strings.Join(seen, " ") != strings.Join(behind, " ") {
			t.Errorf("lagging %v, want %v", seen, behind)
		}
		code, body = ask(pages, tenant.Owner, "/issuers")
		for _, want := range []string{"root-2", "server-2", "The key of root-1 lies on this machine", "server-2 waits: 25.0 of 99 per cent", "/devices/" + behind[0]} {
			if code != 200 || !strings.Contains(body, want) {
				t.Errorf("the page: %d, no %q", code, want)
			}
		}
	})
}
