// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

// On SQLite two handles: the devices' keys lie in one file, what they said in the other.
func TestDoors(t *testing.T) {
	clk := clock.NewHand(t0)
	at := func(c *store.Config) { c.Clock = clk }
	platform := storetest.Open(t, storetest.SQLiteURL(t), []store.Migrations{seal.Schema, audit.Schema, identity.Schema, CatalogueSchema}, at)
	db := storetest.Open(t, storetest.SQLiteURL(t), schema, at)
	keys, err := seal.Open(filepath.Join(t.TempDir(), "keys"), clk)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := embedded.Open(embedded.Config{Dir: filepath.Join(t.TempDir(), "ca"), Keys: keys, Name: "Test", Clock: clk})
	if err != nil {
		t.Fatal(err)
	}
	ids, err := identity.New(identity.Config{DB: platform, Issuer: issuer, Clock: clk})
	if err != nil {
		t.Fatal(err)
	}
	var mine, other identity.Device
	if err := platform.Write(t.Context(), func(tx *store.Tx) (err error) {
		if mine, err = ids.Register(tx, identity.Device{Tenant: "ten", Product: "prd", Serial: "SN-1"}, "per_x"); err != nil {
			return err
		}
		other, err = ids.Register(tx, identity.Device{Tenant: "ten", Product: "prd", Serial: "SN-2"}, "per_x")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	s := New(Config{DB: db, Platform: platform, Keys: keys, Identity: ids, Clock: clk})
	roles := map[string]tenant.Role{"operator": tenant.FleetOperator, "auditor": tenant.Auditor}
	authenticate := func(r *http.Request) (context.Context, error) {
		name := r.Header.Get("X-Test-Actor")
		who := tenant.Actor{ID: "per_" + name, Kind: tenant.KindPerson, Tenant: "ten", Grants: []tenant.Grant{{Role: roles[name], Tenant: "ten"}}}
		if name == "stranger" {
			who = tenant.Actor{ID: "per_s", Tenant: "ten2", Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: "ten2"}}}
		}
		return tenant.WithActor(r.Context(), who), nil
	}
	log := slog.New(slog.DiscardHandler)
	a := api.New(api.Config{Title: "Test", Clock: clk, Log: log, Authenticate: authenticate, Holds: tenant.Holds, Caller: func(context.Context) string { return "test" }})
	s.Routes(a)
	c := console.New(console.Config{Clock: clk, Log: log, SignIn: "/signin", Authenticate: authenticate, Holds: tenant.Holds})
	s.Pages(c)
	get := func(who, path string) (int, string) {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("X-Test-Actor", who)
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	part := func(device string) string {
		r := httptest.NewRequest("GET", "/devices/"+device, nil)
		r.Header.Set("X-Test-Actor", "operator")
		ctx, _ := authenticate(r)
		return string(c.Slot("device").Render(r.WithContext(ctx), device))
	}

	if code, body := get("operator", "/v1/devices/"+mine.ID+"/telemetry"); code != 200 || !strings.Contains(body, `"series":[]`) {
		t.Errorf("a silent device: %d %s", code, body)
	}
	if page := part(mine.ID); !strings.Contains(page, "not measured anything yet") {
		t.Errorf("the part of a silent device: %s", page)
	}
	m := message(mine.ID, t0.Add(-time.Minute), 1, 21.5)
	bad := message(mine.ID, t0, 2, 0)
	bad.Body = []byte("{")
	if err := s.Append(t.Context(), []gateway.Record{m, message(mine.ID, t0.Add(-2*time.Minute), 3, 20), bad, message(other.ID, t0.Add(-time.Minute), 1, 99)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.step(t.Context()); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/telemetry": `"series":[{"stream":"env","field":"temp","points":[{"time":"2026-11-21T11:58:00Z","min":20,"max":20,"mean":20,"last":20,"count":1},` +
			`{"time":"2026-11-21T11:59:00Z","min":21.5,"max":21.5,"mean":21.5,"last":21.5,"count":1}]}]`,
		"/telemetry?fields=hum":                    `"series":[]`,
		"/telemetry?fields=env/temp,hum&max=1":     `"min":20,"max":21.5,"mean":20.75,"last":21.5,"count":2`,
		"/telemetry?step=5m&aggregates=mean,count": `"step_ms":300000,"series":[{"stream":"env","field":"temp","points":[{"time":"2026-11-21T11:59:00Z","mean":20.75,"count":2}]}]`,
		"/telemetry?from=2026-11-21T11:58:30Z":     `"points":[{"time":"2026-11-21T11:59:00Z"`,
		"/telemetry?to=2026-11-21T11:58:30Z":       `"count":1}]`,
		"/telemetry/latest":                        `"time":"2026-11-21T11:59:00Z","boot":1,"seq":1,"values":{"temp":21.5}`,
	} {
		if code, body := get("operator", "/v1/devices/"+mine.ID+path); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d lacks %s in %s", path, code, want, body)
		}
	}
	page := part(mine.ID)
	for _, want := range []string{`class="spark"`, `<path class="line" d="M`, "/telemetry?field=env%2Ftemp", "Latest values", "21.5", "1 payload could not be read and was dropped", "1 message since"} {
		if !strings.Contains(page, want) {
			t.Errorf("the part lacks %q in %s", want, page)
		}
	}
	charts := func(who, query string) (int, string) {
		r := httptest.NewRequest("GET", "/devices/"+mine.ID+"/telemetry"+query, nil)
		r.Header.Set("X-Test-Actor", who)
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	for query, wants := range map[string][]string{
		"": {`"names":["temp"]`, `"low":[20,21.5]`, `<path class="band" d="M`, `aria-current="true">1h</a>`, "data-refresh", "one point per 15s"},
		"?field=env%2Ftemp&from=2026-11-21T11:58:30&to=2026-11-21T12:00": {`"data":[[1795262340],[21.5]]`, "field=env%2Ftemp&amp;range=24h", `data-key="ArrowLeft">Earlier`},
		"?field=env%2Fhum":                           {"Nothing was measured in this time."},
		"?from=2026-11-21T11:00&to=2026-11-21T11:30": {"Nothing was measured in this time.", `data-key="ArrowRight">Later`},
	} {
		code, page := charts("operator", query)
		for _, want := range wants {
			if code != 200 || !strings.Contains(page, want) {
				t.Errorf("the page of charts %s: %d, lacks %q in %s", query, code, want, page)
			}
		}
	}
	for query, want := range map[string]int{"?range=7": 400, "?from=yesterday": 400, "?from=2026-11-21T12:00&to=2026-11-21T11:00": 400, "?range=" + strings.Repeat("x", 1000): 400} {
		if code, _ := charts("operator", query); code != want {
			t.Errorf("the page of charts %.40s: %d, want %d", query, code, want)
		}
	}
	if code, page := charts("stranger", ""); code != 404 {
		t.Errorf("a stranger sees charts: %d %s", code, page)
	}
	for _, c := range []struct {
		who, path string
		want      int
	}{
		{"auditor", "/telemetry", 403}, // reads everything but telemetry
		{"auditor", "/telemetry/latest", 403},
		{"stranger", "/telemetry", 404},
		{"stranger", "/telemetry/latest", 404},
		{"operator", "/telemetry?max=10001", 400},
		{"operator", "/telemetry?from=2026-11-21T12:00:00Z&to=2026-11-21T12:00:00Z", 400},
		{"operator", "/telemetry?from=yesterday", 400},
		{"operator", "/telemetry?step=often", 400},
		{"operator", "/telemetry?step=0s", 400},
		{"operator", "/telemetry?step=100ms", 400}, // 36,000 points
		{"operator", "/telemetry?aggregates=median", 400},
	} {
		if code, body := get(c.who, "/v1/devices/"+mine.ID+c.path); code != c.want {
			t.Errorf("%s %s: %d, want %d: %s", c.who, c.path, code, c.want, body)
		}
	}
	if page := part(mine.ID); strings.Contains(page, "Events") {
		t.Errorf("a part for events, of which there are none: %s", page)
	}
	if err := s.Append(t.Context(), []gateway.Record{event(mine.ID, "boot", `{}`), event(mine.ID, "tamper", `{"detail":"<lid>","data":{"n":1}}`)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.step(t.Context()); err != nil {
		t.Fatal(err)
	}
	code, body := get("operator", "/v1/devices/"+mine.ID+"/events?page_size=1")
	_, token, more := strings.Cut(body, `"next_page_token":"`)
	token, _, _ = strings.Cut(token, `"`)
	if code != 200 || !more || !strings.Contains(body, `"type":"tamper","at":"2026-11-21T12:00:00Z","received":"2026-11-21T12:00:00Z","detail":"`) {
		t.Errorf("the first page: %d %s", code, body)
	}
	code, body = get("operator", "/v1/devices/"+mine.ID+"/events?page_size=1&page_token="+token)
	if code != 200 || !strings.Contains(body, `"type":"boot"`) || strings.Contains(body, "next_page_token") {
		t.Errorf("the second page: %d %s", code, body)
	}
	for who, want := range map[string]int{"auditor": 403, "stranger": 404} {
		if code, body := get(who, "/v1/devices/"+mine.ID+"/events"); code != want {
			t.Errorf("%s reads events: %d, want %d: %s", who, code, want, body)
		}
	}
	page = part(mine.ID)
	for _, want := range []string{"Events", "tamper", "&lt;lid&gt;", "{&#34;n&#34;:1}"} {
		if !strings.Contains(page, want) {
			t.Errorf("the part lacks %q in %s", want, page)
		}
	}
	if err := s.EraseDevice(t.Context(), "ten", mine.ID); err != nil {
		t.Fatal(err)
	}
	if code, _ := get("operator", "/v1/devices/"+mine.ID+"/telemetry"); code != 404 {
		t.Errorf("after the erasure: %d", code)
	}
	if code, _ := get("operator", "/v1/devices/"+mine.ID+"/events"); code != 404 {
		t.Errorf("events after the erasure: %d", code)
	}
	if page := part(mine.ID); !strings.Contains(page, "was erased") || strings.Contains(page, "tamper") {
		t.Errorf("the part after the erasure: %s", page)
	}
}
