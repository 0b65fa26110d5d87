// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

var (
	schema = []store.Migrations{audit.Schema, Schema}
	day0   = time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
)

func TestSupportPeriod(t *testing.T) {
	for _, c := range []struct {
		name   string
		placed time.Time
		end    time.Time
		reason string
		rule   string
	}{
		{"five years to the day", day0, day0.AddDate(5, 0, 0), "", ""},
		{"one day short", day0, day0.AddDate(5, 0, -1), "", RuleSupport},
		{"one day short with a reason", day0, day0.AddDate(5, 0, -1), "expected in use for four years", ""},
		{"a blank reason is none", day0, day0.AddDate(4, 0, 0), " \n", RuleSupport},
		{"absent", day0, time.Time{}, "", RuleSupport},
		{"absent with a reason", day0, time.Time{}, "because", RuleSupport},
		{"before placing", day0, day0.AddDate(0, 0, -1), "because", RuleSupport},
		{"leap day", time.Date(2028, 2, 29, 0, 0, 0, 0, time.UTC), time.Date(2033, 3, 1, 0, 0, 0, 0, time.UTC), "", ""},
	} {
		err := Revision{Name: "A", Placed: c.placed, SupportEnd: c.end, Reason: c.reason}.check()
		if c.rule == "" && err != nil || c.rule != "" && (!problem.Is(err, problem.KindForbidden) || problem.Of(err).Rule != c.rule) {
			t.Errorf("%s: %v, want rule %q", c.name, err, c.rule)
		}
	}
}

func TestNames(t *testing.T) {
	for model, ok := range map[string]bool{"lamp": true, "a": true, "lamp-2": true, "": false, "Lamp": false, "-a": false, "a-": false, "a b": false, strings.Repeat("a", 65): false} {
		if err := (Product{Name: "x", Model: model}).check(); (err == nil) != ok {
			t.Errorf("model %q: %v", model, err)
		}
	}
	for name, ok := range map[string]bool{"Lamp": true, "": false, " Lamp": false, "L\xff": false, strings.Repeat("é", 120): true, strings.Repeat("é", 121): false} {
		if err := (Product{Name: name, Model: "m"}).check(); (err == nil) != ok {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

// as signs every request in as a role of tenant ten_a, unless the header Tenant names another.
func as(role tenant.Role) func(*http.Request) (context.Context, error) {
	return func(r *http.Request) (context.Context, error) {
		t := "ten_a"
		if h := r.Header.Get("Tenant"); h != "" {
			t = h
		}
		return tenant.WithActor(r.Context(), tenant.Actor{ID: "per_x", Tenant: t, Grants: []tenant.Grant{{Role: role, Tenant: t}}}), nil
	}
}

func TestAPI(t *testing.T) {
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		s := New(Config{DB: db, Clock: clock.NewHand(day0)})
		door := func(role tenant.Role) http.Handler {
			a := api.New(api.Config{Clock: clock.System, Log: slog.New(slog.DiscardHandler), Authenticate: as(role), Holds: tenant.Holds,
				Caller: func(context.Context) string { return "x" }})
			s.Routes(a)
			return a
		}
		do := func(role tenant.Role, method, path, body, as string) (int, map[string]any) {
			r := httptest.NewRequest(method, path, strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Tenant", as)
			w := httptest.NewRecorder()
			door(role).ServeHTTP(w, r)
			var m map[string]any
			if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil {
				t.Fatalf("%s %s: %s", method, path, w.Body)
			}
			return w.Code, m
		}
		code, p := do(tenant.Owner, "POST", "/v1/products", `{"name":"Lamp","model":"lamp"}`, "")
		if code != 201 {
			t.Fatalf("create: %d %v", code, p)
		}
		id := p["id"].(string)
		if code, m := do(tenant.Owner, "POST", "/v1/products", `{"name":"Lamp","model":"lamp"}`, ""); code != 409 {
			t.Errorf("the same model again: %d %v", code, m)
		}
		if code, m := do(tenant.Owner, "POST", "/v1/products", `{"name":"Lamp","model":"lamp"}`, "ten_b"); code != 201 {
			t.Errorf("the same model in another tenant: %d %v", code, m)
		}
		if code, m := do(tenant.Auditor, "POST", "/v1/products", `{"name":"X","model":"x"}`, ""); code != 403 {
			t.Errorf("an auditor creates: %d %v", code, m)
		}
		revs := "/v1/products/" + id + "/revisions"
		if code, m := do(tenant.Owner, "POST", revs, `{"name":"A"}`, ""); code != 403 || m["rule"] != RuleSupport {
			t.Errorf("no support end: %d %v", code, m)
		}
		if code, m := do(tenant.Owner, "POST", revs, `{"name":"A","support_end":"2029-01-01T00:00:00Z"}`, ""); code != 403 || m["rule"] != RuleSupport {
			t.Errorf("too short: %d %v", code, m)
		}
		if code, m := do(tenant.Owner, "POST", revs, `{"name":"A","support_end":"2032-01-01T00:00:00Z"}`, ""); code != 201 || m["placed"] != "2026-11-21T00:00:00Z" {
			t.Errorf("revision: %d %v", code, m)
		}
		if code, m := do(tenant.Owner, "POST", revs, `{"name":"B","support_end":"2032-01-01T00:00:00Z"}`, "ten_b"); code != 404 {
			t.Errorf("a revision of another tenant's product: %d %v", code, m)
		}
		if code, m := do(tenant.Auditor, "GET", "/v1/products/"+id, "", ""); code != 200 || len(m["revisions"].([]any)) != 1 {
			t.Errorf("read: %d %v", code, m)
		}
		if code, m := do(tenant.Owner, "GET", "/v1/products/"+id, "", "ten_b"); code != 404 {
			t.Errorf("another tenant reads: %d %v", code, m)
		}
		var leaves int
		if err := db.QueryRow(t.Context(), `SELECT count(*) FROM audit_entry WHERE kind IN ('product.created', 'revision.created')`).Scan(&leaves); err != nil || leaves != 3 {
			t.Errorf("%d leaves of the audit log, want 3 (%v)", leaves, err)
		}
	})
}

func TestPages(t *testing.T) {
	db := storetest.Open(t, storetest.SQLiteURL(t), schema)
	s := New(Config{DB: db, Clock: clock.NewHand(day0)})
	c := console.New(console.Config{Clock: clock.System, Log: slog.New(slog.DiscardHandler), Menu: []string{"Products"}, Authenticate: as(tenant.Owner),
		Holds: tenant.Holds, Visitor: func(context.Context) string { return "x" }})
	s.Pages(c)
	post := func(path, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Referer", "http://example.com/products")
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		return w
	}
	w := post("/products", "name=Lamp+%3Cb%3E&model=lamp")
	path := w.Header().Get("Location")
	if w.Code != 303 || !strings.HasPrefix(path, "/products/prd_") {
		t.Fatalf("%d %s %s", w.Code, path, w.Body)
	}
	if w := post(path+"/revisions", "name=A&support_end=2027-01-01"); !strings.Contains(w.Body.String(), RuleSupport) {
		t.Errorf("a short support period is not refused with its rule: %d %s", w.Code, w.Body)
	}
	if w := post(path+"/revisions", "name=A&support_end=2032-01-01"); w.Code != 303 {
		t.Errorf("revision: %d %s", w.Code, w.Body)
	}
	r := httptest.NewRecorder()
	c.ServeHTTP(r, httptest.NewRequest("GET", path, nil))
	for _, want := range []string{"Lamp &lt;b&gt;", "2032-01-01", "<code>lamp</code>"} {
		if !strings.Contains(r.Body.String(), want) {
			t.Errorf("the page lacks %s: %s", want, r.Body)
		}
	}
}

// TestAPublicTextClaimsNothingUnfounded: neither the name of a product nor a text of its support period claims what only a
// cited standard gives.
func TestAPublicTextClaimsNothingUnfounded(t *testing.T) {
	const claim = "Sensor with presumption of conformity"
	if err := (Product{Name: claim, Model: "s1"}).check(); problem.Of(err).Rule != law.RuleClaim {
		t.Errorf("a name: %v", err)
	}
	if err := checkReason(claim); problem.Of(err).Rule != law.RuleClaim {
		t.Errorf("a reason: %v", err)
	}
	d := Declaration{SupportEnd: "2036-12", FirstPlaced: "2027-01-01", Zone: "Europe/Berlin", Justification: claim}
	if err := d.check(); problem.Of(err).Rule != law.RuleClaim {
		t.Errorf("a justification: %v", err)
	}
}
