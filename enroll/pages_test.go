// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

// TestPages walks from an empty Enrol page to a claimed unit by forms alone.
func TestPages(t *testing.T) {
	hand := clock.NewHand(time.Now())
	h := newHouse(t, storetest.Open(t, storetest.SQLiteURL(t), schema, func(c *store.Config) { c.Clock = hand }), hand)
	c := console.New(console.Config{Clock: hand, Log: slog.New(slog.DiscardHandler), Menu: []string{"Enrol", "Claim"}, Holds: tenant.Holds,
		Visitor:      func(context.Context) string { return "x" },
		Authenticate: func(r *http.Request) (context.Context, error) { return tenant.WithActor(r.Context(), owner), nil }})
	h.enroll.Pages(c)
	h.identity.Pages(c)
	get := func(path string) string {
		w := httptest.NewRecorder()
		c.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != 200 {
			t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		}
		return w.Body.String()
	}
	post := func(path string, form url.Values) (int, string) {
		r := httptest.NewRequest("POST", path, strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		return w.Code, w.Header().Get("Location") + w.Body.String()
	}
	wants := func(page string, texts ...string) {
		t.Helper()
		for _, want := range texts {
			if !strings.Contains(page, want) {
				t.Errorf("the page lacks %q: %s", want, page)
			}
		}
	}
	wants(get("/enrol"), "No batch is open yet", "Lamp A")
	if code, out := post("/enrol/batches", url.Values{"revision": {h.revision}, "name": {"B1"}, "size": {"many"}}); code != 400 {
		t.Errorf("a size in words: %d %s", code, out)
	}
	if code, out := post("/enrol/batches", url.Values{"revision": {h.revision}, "name": {"B1"}, "size": {"2"}}); code != 303 {
		t.Fatalf("batch: %d %s", code, out)
	}
	page := get("/enrol")
	batch := regexp.MustCompile(`bat_\w+`).FindString(page)
	key := newKey(t)
	code, out := post("/enrol/stations", url.Values{"batch": {batch}, "station": {"line 4"}, "csr": {csrPEM(t, key)}})
	if code != 200 {
		t.Fatalf("station: %d %s", code, out)
	}
	pem := regexp.MustCompile(`(?s)-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----`).FindString(strings.ReplaceAll(out, "&#43;", "+"))
	st := h.credential(key, pem)
	_, unit := h.unit(st, "L1")
	_, second := h.unit(st, "L2")
	wants(get("/claim"), "House 1")
	if code, out := post("/claims", url.Values{"code": {unit.Claim}, "solution": {h.solution}}); code != 303 || !strings.HasPrefix(out, "/devices/"+unit.Device) {
		t.Errorf("claim: %d %s", code, out)
	}
	station := regexp.MustCompile(`sta_\w+`).FindString(get("/enrol"))
	if code, out := post("/enrol/stations/"+station+"/kill", url.Values{"reason": {"stolen"}}); code != 303 {
		t.Errorf("kill: %d %s", code, out)
	}
	if code, out := post("/enrol/batches/"+batch+"/close", url.Values{"produced": {"1"}}); code != 303 {
		t.Errorf("close: %d %s", code, out)
	}
	wants(get("/enrol"), "stolen", "1 identity too many")

	// The device page's part.
	r := httptest.NewRequest("GET", "/devices/"+second.Device, nil)
	part := func() string {
		return string(c.Slot("device").Render(r.WithContext(tenant.WithActor(r.Context(), owner)), second.Device))
	}
	wants(part(), "L2", "provisioned", "IDevID", "no end", "Suspend")
	if code, out := post("/devices/"+second.Device+"/suspend", url.Values{"reason": {" "}}); code != 400 {
		t.Errorf("suspended without a reason: %d %s", code, out)
	}
	if code, out := post("/devices/"+second.Device+"/suspend", url.Values{"reason": {"odd"}}); code != 303 {
		t.Errorf("suspend: %d %s", code, out)
	}
	wants(part(), "suspended", "odd", "Resume")
	if code, out := post("/devices/"+second.Device+"/resume", url.Values{"reason": {"fine"}}); code != 303 {
		t.Errorf("resume: %d %s", code, out)
	}
	wants(part(), "provisioned")
}
