// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/blob"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

func TestDoors(t *testing.T) {
	storetest.Each(t, []store.Migrations{audit.Schema, Schema}, func(t *testing.T, db *store.DB) {
		blobs, err := blob.NewDir(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		s := New(Config{DB: db, Blobs: blobs, ProductOf: func(_ context.Context, tenant, release string) (string, error) {
			if tenant != "ten_a" || release != "rel_1" {
				return "", problem.NotFound("There is no such release.")
			}
			return "prd_lamp", nil
		}})
		b, err := Parse([]byte(first))
		if err != nil {
			t.Fatal(err)
		}
		doc, err := s.Keep(t.Context(), []byte(first))
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Write(t.Context(), func(tx *store.Tx) error { return s.Attach(tx, "ten_a", "rel_1", b, doc, "per_1") }); err != nil {
			t.Fatal(err)
		}

		auth := func(r *http.Request) (context.Context, error) {
			who := strings.Fields(r.Header.Get("Test-Actor"))
			g := tenant.Grant{Tenant: who[0], Role: tenant.Role(who[1])}
			if len(who) > 2 {
				g.Product = who[2]
			}
			return tenant.WithActor(r.Context(), tenant.Actor{ID: "per_1", Tenant: who[0], Grants: []tenant.Grant{g}}), nil
		}
		a := api.New(api.Config{Title: "test", Clock: clock.System, Log: slog.New(slog.DiscardHandler), Authenticate: auth, Holds: tenant.Holds,
			Caller: func(context.Context) string { return "ann" }})
		s.Routes(a)
		get := func(actor, path string) (int, http.Header, string) {
			r := httptest.NewRequest("GET", "https://iot.example"+path, nil)
			r.Header.Set("Test-Actor", actor)
			w := httptest.NewRecorder()
			a.ServeHTTP(w, r)
			return w.Code, w.Header(), w.Body.String()
		}
		for actor, want := range map[string]int{"ten_a auditor": 200, "ten_a auditor prd_lamp": 200, "ten_a auditor prd_meter": 403, "ten_a customer": 403, "ten_b owner": 404} {
			for _, path := range []string{"/v1/releases/rel_1/sbom", "/v1/releases/rel_1/components", "/v1/releases/rel_1/sbom/record", "/v1/releases/rel_1/sbom/export",
				"/v1/releases/rel_1/sbom/compare?with=rel_1", "/v1/releases/rel_1/evidence"} {
				if code, _, body := get(actor, path); code != want {
					t.Errorf("%s as %s: %d, want %d: %s", path, actor, code, want, body)
				}
			}
		}
		_, h, body := get("ten_a auditor", "/v1/releases/rel_1/sbom")
		if body != first || h.Get("Content-Type") != "application/octet-stream" || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("the original came back as %v, %q", h, body)
		}
		_, h, body = get("ten_a auditor", "/v1/releases/rel_1/sbom/export?format=spdx-3.0.1&without_hashes=true")
		if copied, err := Parse([]byte(body)); err != nil || len(copied.Components) != 4 || copied.Reduced == "" || h.Get("Content-Type") != "application/spdx+json" {
			t.Errorf("the copy came as %v, %+v, %v", h, copied, err)
		}
		if code, _, body := get("ten_a auditor", "/v1/releases/rel_1/sbom/export?format=docx"); code != 400 {
			t.Errorf("a form that nobody knows: %d %s", code, body)
		}
		if code, _, _ := get("ten_a auditor", "/v1/releases/rel_1/sbom/compare?with=rel_2"); code != 404 {
			t.Errorf("compared with what nobody may see: %d", code)
		}
		put := func(actor, kind, doc string) int {
			r := httptest.NewRequest("PUT", "https://iot.example/v1/releases/rel_1/evidence/"+kind, strings.NewReader(doc))
			r.Header.Set("Test-Actor", actor)
			w := httptest.NewRecorder()
			a.ServeHTTP(w, r)
			return w.Code
		}
		for _, c := range []struct {
			actor, kind, doc string
			want             int
		}{
			{"ten_a auditor", "compiled-files", "init/main.c\n", 403},
			{"ten_a firmware-engineer prd_meter", "compiled-files", "init/main.c\n", 403},
			{"ten_b owner", "compiled-files", "init/main.c\n", 404},
			{"ten_a firmware-engineer", "compiled-files", "fs/open.c\n", 400},
			{"ten_a firmware-engineer", "photo", "init/main.c\n", 400},
			{"ten_a firmware-engineer", "compiled-files", "init/main.c\n", 200},
		} {
			if code := put(c.actor, c.kind, c.doc); code != c.want {
				t.Errorf("%s shows %s %q: %d, want %d", c.actor, c.kind, c.doc, code, c.want)
			}
		}
		if _, _, body := get("ten_a auditor", "/v1/releases/rel_1/evidence/compiled-files"); body != "init/main.c\n" {
			t.Errorf("evidence came back as %q", body)
		}
		for kind, want := range map[string]int64{"sbom.attached": 1, "sbom.exported": 3, "sbom.evidence": 1} {
			var leaves int64
			if err := db.QueryRow(t.Context(), `SELECT count(*) FROM audit_entry WHERE kind = $1 AND subject = 'rel_1' AND tenant = 'ten_a'`, kind).Scan(&leaves); err != nil || leaves != want {
				t.Errorf("%d leaves %s, %v; want %d", leaves, kind, err, want)
			}
		}
		var page struct {
			Items []Part
			Next  string `json:"next_page_token"`
		}
		_, _, body = get("ten_a auditor", "/v1/releases/rel_1/components?page_size=2")
		if err := json.Unmarshal([]byte(body), &page); err != nil || len(page.Items) != 2 || page.Next == "" {
			t.Errorf("components %s, %v", body, err)
		}

		c := console.New(console.Config{Clock: clock.System, Log: slog.New(slog.DiscardHandler), Authenticate: auth, Holds: tenant.Holds,
			Visitor: func(context.Context) string { return "Ann" }})
		s.Pages(c)
		r := httptest.NewRequest("GET", "https://iot.example/", nil)
		r.Header.Set("Test-Actor", "ten_a auditor")
		ctx, err := auth(r)
		if err != nil {
			t.Fatal(err)
		}
		html := string(c.Slot("release").Render(r.WithContext(ctx), "rel_1"))
		for _, want := range []string{"Not matchable", "CycloneDX 1.6", ListBSI, "nothing known is not the same as clean", doc.SHA512} {
			if !strings.Contains(html, want) {
				t.Errorf("the release's page lacks %q: %s", want, html)
			}
		}
		show := func(path string, wants ...string) {
			t.Helper()
			r := httptest.NewRequest("GET", "https://iot.example"+path, nil)
			r.Header.Set("Test-Actor", "ten_a auditor")
			w := httptest.NewRecorder()
			c.ServeHTTP(w, r)
			for _, want := range wants {
				if w.Code != 200 || !strings.Contains(w.Body.String(), want) {
					t.Errorf("%s: %d lacks %q: %s", path, w.Code, want, w.Body)
				}
			}
		}
		show("/releases/rel_1/sbom", "relay", "not matchable", "Creator of the SBOM", "facts are given", doc.SHA512, "4 parts")
		show("/releases/rel_1/sbom?space=not+matchable", "1 part of 4", "relay", "take back")
		show("/releases/rel_1/sbom?q=TOML+golang", "2 parts of 4")
		show("/releases/compare?from=rel_1&to=rel_1", "Both releases list the same parts")
	})
}
