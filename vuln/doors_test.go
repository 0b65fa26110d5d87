// SPDX-License-Identifier: AGPL-3.0-only

package vuln

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
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

// doors serves the stage's routes and pages to whoever the header names: "tenant role [product]".
func (h *house) doors() (pages, programs http.Handler) {
	auth := func(r *http.Request) (context.Context, error) {
		who := strings.Fields(r.Header.Get("Test-Actor"))
		g := tenant.Grant{Tenant: who[0], Role: tenant.Role(who[1])}
		if len(who) > 2 {
			g.Product = who[2]
		}
		return tenant.WithActor(r.Context(), tenant.Actor{ID: "per_1", Kind: tenant.KindPerson, Name: "Ann", Tenant: who[0], Grants: []tenant.Grant{g}}), nil
	}
	log := slog.New(slog.NewTextHandler(h.Output(), nil))
	c := console.New(console.Config{Clock: h.clock, Log: log, Menu: []string{"Today", "Vulnerabilities"}, Authenticate: auth, Holds: tenant.Holds,
		Visitor: func(context.Context) string { return "Ann" }})
	h.vuln.Pages(c)
	a := api.New(api.Config{Title: "test", Clock: h.clock, Log: log, Authenticate: auth, Holds: tenant.Holds, Caller: func(context.Context) string { return "ann" }})
	h.vuln.Routes(a)
	return c, a
}

func (h *house) ask(door http.Handler, actor, method, path, contentType string, body string) (int, string) {
	h.Helper()
	r := httptest.NewRequest(method, "https://iot.example"+path, strings.NewReader(body))
	r.Header.Set("Test-Actor", actor)
	r.Header.Set("Referer", "https://iot.example/vulnerabilities/CVE-2023-44487")
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	w := httptest.NewRecorder()
	door.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// inhabited runs fn once per engine in a house whose devices have their own room.
func inhabited(t *testing.T, fn func(h *house)) {
	t.Parallel()
	storetest.EachURL(t, func(t *testing.T, url string) { fn(openInhabited(t, url)) })
}

func openInhabited(t *testing.T, url string) *house {
	hand := clock.NewHand(day0)
	db := storetest.Open(t, url, append([]store.Migrations{seal.Schema, identity.Schema}, houseSchema...), func(c *store.Config) { c.Clock = hand })
	keys, err := seal.Open(filepath.Join(t.TempDir(), "keys"), hand)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := embedded.Open(embedded.Config{Dir: filepath.Join(t.TempDir(), "ca"), Keys: keys, Name: "Test", Clock: hand})
	if err != nil {
		t.Fatal(err)
	}
	devices, err := identity.New(identity.Config{DB: db, Issuer: issuer, Clock: hand})
	if err != nil {
		t.Fatal(err)
	}
	return furnish(t, db, hand, devices)
}

func TestDoors(t *testing.T) {
	inhabited(t, func(h *house) {
		pages, programs := h.doors()
		const officer, customer = "ten_a product-security-officer", "ten_a customer"
		h.release("ten_a", "rel_10", "prd_lamp", "1.0.0", "golang.org/x/net@v0.10.0")
		h.release("ten_a", "rel_20", "prd_meter", "2.0.0", "golang.org/x/net@v0.10.0")
		h.install("ten_a", "prd_lamp", "rel_10", "dev_1", "dev_2")
		h.install("ten_a", "prd_meter", "rel_20", "dev_3")

		_, page := h.ask(pages, officer, "GET", "/vulnerabilities", "", "")
		if !strings.Contains(page, "nothing is known") {
			t.Errorf("before any feed the page says %q", page)
		}
		zip := string(zipped(h.T, xnet("GO-1", "CVE-2023-44487", "0.17.0", ""), kevRapidReset))
		if code, body := h.ask(programs, customer, "POST", "/v1/feeds/demo", "application/zip", zip); code != 403 {
			t.Errorf("a customer imported a feed: %d %s", code, body)
		}
		if code, body := h.ask(programs, officer, "POST", "/v1/feeds/demo", "application/zip", zip[:len(zip)/2]); code != 400 {
			t.Errorf("half a feed: %d %s", code, body)
		}
		code, body := h.ask(programs, officer, "POST", "/v1/feeds/demo", "application/zip", zip)
		if code != 200 || !strings.Contains(body, `"new":1`) || !strings.Contains(body, `"exploited":1`) {
			t.Fatalf("import: %d %s", code, body)
		}

		h.clock.Advance(time.Hour) // what was told before the import is no longer kept
		var list struct{ Items []Summary }
		code, body = h.ask(programs, officer, "GET", "/v1/vulnerabilities?page_size=1", "", "")
		h.must(json.Unmarshal([]byte(body), &list))
		if code != 200 || len(list.Items) != 1 || list.Items[0].Devices != 3 || len(list.Items[0].Products) != 2 || !list.Items[0].Exploited {
			t.Errorf("list: %d %s", code, body)
		}
		// A right on one product shows that product's devices only.
		var got AffectedPage
		code, body = h.ask(programs, officer+" prd_lamp", "GET", "/v1/vulnerabilities/CVE-2023-44487/affected?page_size=1", "", "")
		h.must(json.Unmarshal([]byte(body), &got))
		if code != 200 || got.Devices != 2 || len(got.Releases) != 1 || len(got.List.Items) != 1 || got.List.Next == "" || got.List.Items[0].Version != "1.0.0" {
			t.Errorf("affected: %d %s", code, body)
		}
		code, body = h.ask(programs, officer+" prd_lamp", "GET", "/v1/vulnerabilities/CVE-2023-44487/affected?page_token="+url.QueryEscape(got.List.Next), "", "")
		got = AffectedPage{}
		h.must(json.Unmarshal([]byte(body), &got))
		if code != 200 || len(got.List.Items) != 1 || got.List.Items[0].Device != "dev_2" || got.List.Next != "" {
			t.Errorf("second page: %d %s", code, body)
		}
		code, body = h.ask(programs, officer, "GET", "/v1/vulnerabilities/GO-1/affected?as_of="+day0.Add(-time.Hour).Format(time.RFC3339), "", "")
		h.must(json.Unmarshal([]byte(body), &got))
		if code != 200 || got.Devices != 0 {
			t.Errorf("an hour before: %d %s", code, body)
		}
		if code, body = h.ask(programs, officer, "GET", "/v1/vulnerabilities/GO-1/affected?as_of=yesterday", "", ""); code/100 != 4 {
			t.Errorf("a broken time: %d %s", code, body)
		}
		if code, body = h.ask(programs, "ten_b owner", "GET", "/v1/vulnerabilities/GO-1", "", ""); code != 404 {
			t.Errorf("another tenant reads it: %d %s", code, body)
		}

		// The form refuses without evidence, keeps what was typed, and takes it with evidence.
		form := url.Values{"product": {"prd_lamp"}, "status": {"not_affected"}, "justification": {"component_not_present"}}
		_, page = h.ask(pages, officer, "POST", "/vulnerabilities/CVE-2023-44487/decisions", "application/x-www-form-urlencoded", form.Encode())
		if !strings.Contains(page, "without evidence is refused") {
			t.Errorf("refusal on the page: %s", page)
		}
		if code, body = h.ask(programs, "ten_a auditor", "POST", "/v1/vulnerabilities/GO-1/decisions", "application/json", `{"product":"prd_lamp","status":"affected"}`); code != 403 {
			t.Errorf("an auditor decided: %d %s", code, body)
		}
		if code, body = h.ask(programs, officer+" prd_meter", "POST", "/v1/vulnerabilities/GO-1/decisions", "application/json", `{"product":"prd_lamp","status":"affected"}`); code != 403 {
			t.Errorf("decided for a foreign product: %d %s", code, body)
		}
		form.Set("evidence", "It is not linked.")
		if code, page = h.ask(pages, officer, "POST", "/vulnerabilities/CVE-2023-44487/decisions", "application/x-www-form-urlencoded", form.Encode()); code != 303 {
			t.Errorf("decision: %d %s", code, page)
		}
		code, page = h.ask(pages, officer, "GET", "/vulnerabilities/CVE-2023-44487", "", "")
		for _, want := range []string{"CVE-2023-44487", "not affected", "It is not linked.", "dev_3", "exploited", "1.0.0"} {
			if code != 200 || !strings.Contains(page, want) {
				t.Errorf("the page (%d) lacks %q", code, want)
			}
		}
		// Without scripts there is a drawing and a table.
		if !strings.Contains(page, `<svg class="spark"`) || !strings.Contains(page, "<summary>Values</summary>") {
			t.Error("without scripts nothing shows how it went")
		}
		if strings.Contains(page, "dev_1<") {
			t.Error("a device that was decided to be safe is listed as exposed")
		}
		if code, page = h.ask(pages, officer, "GET", "/vulnerabilities", "", ""); code != 200 || !strings.Contains(page, "prd_meter") {
			t.Errorf("matrix: %d %s", code, page)
		}
		if code, page = h.ask(pages, officer, "GET", "/vulnerabilities/CVE-2023-44487?as_of=2026-10-01T00:00", "", ""); code != 200 || !strings.Contains(page, "No release was known") {
			t.Errorf("as of before: %d", code)
		}
		if code, page = h.ask(pages, officer, "GET", "/", "", ""); code != 200 || !strings.Contains(page, "CVE-2023-44487") {
			t.Errorf("today: %d", code)
		}
	})
}
