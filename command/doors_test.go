// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

func TestDoors(t *testing.T) {
	clk := clock.NewHand(t0)
	db := storetest.Open(t, storetest.SQLiteURL(t), []store.Migrations{seal.Schema, audit.Schema, identity.Schema, Schema}, func(c *store.Config) { c.Clock = clk })
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	keys, err := seal.Open(filepath.Join(t.TempDir(), "keys"), clk)
	must(err)
	issuer, err := embedded.Open(embedded.Config{Dir: filepath.Join(t.TempDir(), "ca"), Keys: keys, Name: "Test", Clock: clk})
	must(err)
	ids, err := identity.New(identity.Config{DB: db, Issuer: issuer, Clock: clk})
	must(err)
	var mine, fresh identity.Device
	must(db.Write(t.Context(), func(tx *store.Tx) (err error) {
		if fresh, err = ids.Register(tx, identity.Device{Tenant: "ten", Product: "prd", Serial: "SN-2"}, "per_x"); err != nil {
			return err
		}
		if mine, err = ids.Register(tx, identity.Device{Tenant: "ten", Product: "prd", Serial: "SN-1"}, "per_x"); err != nil {
			return err
		}
		for _, st := range []identity.State{identity.Provisioned, identity.Pending, identity.Commissioned} {
			if err := ids.SetState(tx, "ten", mine.ID, st, "per_x", "test"); err != nil {
				return err
			}
		}
		return nil
	}))
	s := New(Config{DB: db, Identity: ids, Keys: keys, Clock: clk, Live: func(string) bool { return false }})
	roles := map[string]tenant.Role{"operator": tenant.FleetOperator, "auditor": tenant.Auditor, "customer": tenant.Customer}
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
	do := func(who, method, path, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Header.Set("X-Test-Actor", who)
		w := httptest.NewRecorder()
		if strings.HasPrefix(path, "/v1/") {
			r.Header.Set("Content-Type", "application/json")
			a.ServeHTTP(w, r)
		} else {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			c.ServeHTTP(w, r)
		}
		return w
	}
	path := "/v1/devices/" + mine.ID + "/commands"
	w := do("operator", "POST", path, `{"name":"reboot","args":{"delay":5}}`)
	var cmd Command
	must(json.Unmarshal(w.Body.Bytes(), &cmd))
	if w.Code != 201 || cmd.State != Queued || string(cmd.Args) != `{"delay":5}` || cmd.Actor != "per_operator" || w.Header().Get("Location") != "/v1/commands/"+cmd.ID {
		t.Errorf("send: %d %s", w.Code, w.Body)
	}
	if w := do("auditor", "GET", "/v1/commands/"+cmd.ID, ""); w.Code != 200 || !strings.Contains(w.Body.String(), `"state":"queued"`) {
		t.Errorf("read: %d %s", w.Code, w.Body)
	}
	if w := do("auditor", "GET", path, ""); w.Code != 200 || !strings.Contains(w.Body.String(), cmd.ID) {
		t.Errorf("list: %d %s", w.Code, w.Body)
	}
	notice, err := json.Marshal(map[string]any{"name": wire.CommandNotice, "args": someNotice("n1")})
	must(err)
	for _, q := range []struct {
		who, method, path, body string
		want                    int
	}{
		{"customer", "POST", path, `{"name":"blink"}`, 201},
		{"customer", "POST", path, string(notice), 403}, // it would speak for the maker
		{"operator", "POST", path, string(notice), 201},
		{"operator", "POST", path, `{"name":"notice"}`, 400},
		{"auditor", "GET", "/v1/devices/" + mine.ID + "/notices", "", 200},
		{"stranger", "GET", "/v1/devices/" + mine.ID + "/notices", "", 404},
		{"auditor", "POST", path, `{"name":"reboot"}`, 403},
		{"stranger", "POST", path, `{"name":"reboot"}`, 404},
		{"stranger", "GET", path, "", 404},
		{"stranger", "GET", "/v1/commands/" + cmd.ID, "", 404},
		{"operator", "GET", "/v1/commands/cmd_none", "", 404},
		{"operator", "POST", path, `{"name":"wipe"}`, 403},
		{"operator", "POST", path, `{"name":"Bad/Name"}`, 400},
		{"operator", "POST", path, `{"name":"x","args":[1]}`, 400},
		{"operator", "POST", path, `{"name":"x","not_after":"2020-01-01T00:00:00Z"}`, 400},
		{"operator", "POST", "/v1/devices/" + fresh.ID + "/commands", `{"name":"x"}`, 409},
	} {
		if w := do(q.who, q.method, q.path, q.body); w.Code != q.want {
			t.Errorf("%s %s %s %s: %d, want %d: %s", q.who, q.method, q.path, q.body, w.Code, q.want, w.Body)
		}
	}
	form := "/devices/" + mine.ID + "/commands"
	if w := do("operator", "POST", form, url.Values{"name": {"blink"}}.Encode()); w.Code != 303 || w.Header().Get("Location") != "/devices/"+mine.ID {
		t.Errorf("form: %d %s", w.Code, w.Body)
	}
	if w := do("operator", "POST", form, url.Values{"name": {"blink"}, "args": {"not JSON"}}.Encode()); w.Code != 400 {
		t.Errorf("a form with bad arguments: %d", w.Code)
	}
	if w := do("auditor", "POST", form, url.Values{"name": {"blink"}}.Encode()); w.Code != 403 {
		t.Errorf("a form of an auditor: %d", w.Code)
	}
	for who, may := range map[string]bool{"operator": true, "auditor": false} {
		r := httptest.NewRequest("GET", "/devices/"+mine.ID, nil)
		r.Header.Set("X-Test-Actor", who)
		ctx, _ := authenticate(r)
		part := string(c.Slot("device").Render(r.WithContext(ctx), mine.ID))
		if !strings.Contains(part, "blink") || !strings.Contains(part, "reboot") || strings.Contains(part, "<form") != may {
			t.Errorf("the part for %s: %s", who, part)
		}
	}
}
