// SPDX-License-Identifier: AGPL-3.0-only

package conform

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/tenant"
)

// TestDoors: programs and people do the same; who lacks the right, or is of another tenant, does nothing.
func TestDoors(t *testing.T) {
	each(t, func(h *house) {
		pages, programs := h.doors()
		engineer, officer, auditor := "per_eng "+string(tenant.FirmwareEngineer), "per_off "+string(tenant.ComplianceOfficer), "per_aud "+string(tenant.Auditor)
		at := "/v1/products/" + h.product
		class := `{"core":"It lights","reason":"That is what it is for","category":"cra.iii.1.12"}`
		for who, want := range map[string]int{auditor: 403, "rival owner": 404, officer + " prd_other": 403, engineer: 200} {
			if code, body := h.ask(programs, who, "PUT", at+"/classification", class); code != want {
				t.Errorf("%s classifies: %d %s", who, code, body)
			}
		}
		say := func(who, method, path, body string, code int, want ...string) {
			t.Helper()
			got, answer := h.ask(programs, who, method, path, body)
			if got != code {
				t.Errorf("%s %s %s: %d, want %d: %s", who, method, path, got, code, answer)
			}
			for _, w := range want {
				if !strings.Contains(answer, w) {
					t.Errorf("%s %s lacks %s: %s", method, path, w, answer)
				}
			}
		}
		say(engineer, "POST", at+"/classification/confirm", `{"version":1}`, 403, "access.conform.sign")
		say(officer, "POST", at+"/classification/confirm", `{"version":1,"note":"yes"}`, 200, `"by":"per_off"`)
		say(officer, "PUT", at+"/conformity-route", `{"module":"A","reason":"r"}`, 403, RuleModule, "cited")
		say(officer, "PUT", at+"/conformity-route", `{"module":"H","reason":"r"}`, 200, `"stands":true`)
		say(auditor, "GET", at+"/conformity-route", "", 200, `"rule":"cra.32.2"`)
		say(auditor, "GET", at+"/classifications?page_size=1", "", 200, `"version":1`)
		say(auditor, "GET", "/v1/product-classes", "", 200, "cra.iv.3")
		say(auditor, "GET", "/v1/law", "", 200, `"id":"cra.14.2.a"`, `"age_days":`, "respond.TestHours")
		say(auditor, "GET", "/v1/law/citations", "", 200, `"items":[]`)
		say(auditor, "GET", at+"/risk-assessment", "", 200, "cra.i.2.8")
		say(engineer, "PUT", at+"/risk-assessment", `{"purpose":"p","use":"u","environment":"e","assets":"a","threats":"t","years":9}`, 200)
		say(engineer, "PUT", at+"/risk-assessment/rows/cra.i.1.1", `{"applies":"no","why":"w"}`, 403, RuleApplies)
		say(engineer, "PUT", at+"/risk-assessment/rows/cra.i.1.2.a", `{"applies":"no"}`, 400)
		say(engineer, "PUT", at+"/risk-assessment/rows/cra.ii.1", `{"applies":"yes","treatment":"t"}`, 404)
		say(officer, "POST", at+"/risk-assessments", `{"note":"n"}`, 403, RuleRows)
		for _, r := range law.Annex("cra.i") {
			say(engineer, "PUT", at+"/risk-assessment/rows/"+r.ID, `{"applies":"yes","treatment":"t"}`, 200)
		}
		say(engineer, "POST", at+"/risk-assessments", `{"note":"n"}`, 403, "access.conform.sign")
		say(officer, "POST", at+"/risk-assessments", `{"note":"n"}`, 201, `"class":"important-1"`)
		say(auditor, "GET", at+"/risk-assessments", "", 200, `"version":1`)
		say(auditor, "GET", at+"/risk-assessments/latest", "", 200, `"law_checked"`)
		say(auditor, "GET", at+"/risk-assessments/7", "", 404)
		say(auditor, "GET", at+"/risk-assessments/x", "", 404)
		release := h.release(1, "a.example/net@v1.0.0")
		say(auditor, "GET", "/v1/component-register?due=true&product="+h.product, "", 200, "pkg:golang/a.example/net", `"state":"never"`)
		say(officer+" prd_other", "GET", "/v1/component-register", "", 403)
		say("rival owner", "GET", "/v1/component-register", "", 200, `"items":[]`)
		say("rival owner", "GET", "/v1/component-register?product="+h.product, "", 404)
		review := `{"name":"pkg:golang/a.example/net","note":"n","support_end":"2027-01-01T00:00:00Z"}`
		say(auditor, "POST", "/v1/component-register", review, 403)
		say("rival owner", "POST", "/v1/component-register", review, 404)
		say(engineer, "POST", "/v1/component-register", review, 201, `"state":"current"`)
		say(auditor, "GET", at+"/component-endings", "", 200, "2027-01-01")
		screen := `{"answers":[{"id":"purpose","yes":false},{"id":"requirements","yes":false},{"id":"vectors","yes":false},{"id":"scenarios","yes":false},{"id":"likelihood","yes":false},{"id":"impact","yes":false}],"substantial":false,"reason":"A fix"}`
		say(engineer, "PUT", "/v1/releases/"+release+"/modification", screen, 403)
		say("rival owner", "PUT", "/v1/releases/"+release+"/modification", screen, 404)
		say(officer, "PUT", "/v1/releases/"+release+"/modification", screen, 200, `"by":"per_off"`)
		say(auditor, "GET", "/v1/releases/"+release+"/modification", "", 200, "A fix")
		say("rival owner", "GET", "/v1/releases/"+release+"/modification", "", 404)
		say(auditor, "GET", "/v1/modification-questions", "", 200, "point 110(a)")
		say(engineer, "PUT", "/v1/conformity-settings", `{"screen":true,"months":6}`, 403)
		say(officer, "PUT", "/v1/conformity-settings", `{"screen":true,"months":25}`, 400)
		say(officer, "PUT", "/v1/conformity-settings", `{"screen":true,"months":6}`, 200)
		say(auditor, "GET", "/v1/conformity-settings", "", 200, `"months":6`)
		say(auditor, "GET", at+"/conformity-readiness", "", 200, `"done":true`)
		for _, path := range []string{"/classification", "/classifications", "/conformity-route", "/risk-assessment", "/risk-assessments", "/risk-assessments/1", "/component-endings", "/conformity-readiness"} {
			say("rival owner", "GET", at+path, "", 404)
			say(officer+" prd_other", "GET", at+path, "", 403)
		}
		for path, want := range map[string]string{
			"/products/" + h.product:                                                 "Conformity",
			"/products/" + h.product + "/conformity":                                 "Routers, modems",
			"/products/" + h.product + "/risk":                                       "22 of 22",
			"/products/" + h.product + "/risk/1":                                     "Sealed",
			"/components?product=" + h.product:                                       "a.example/net",
			"/components/review?name=" + url.QueryEscape("pkg:golang/a.example/net"): "2027-01-01",
			"/releases/" + release + "/modification":                                 "no substantial modification",
			"/law":                                                                   "CRA Art. 14(2)(c)",
		} {
			if code, page := h.ask(pages, auditor, "GET", path, ""); code != 200 || !strings.Contains(page, want) {
				t.Errorf("%s: %d lacks %q: %s", path, code, want, page)
			} else if law.Unfounded(page) {
				t.Errorf("%s claims what no standard gives", path)
			} else if strings.Contains(page, `action="/products/`+h.product+`/risk/`) || strings.Contains(page, `/components/review"><h3`) {
				t.Errorf("%s offers a form to who may not", path)
			}
			if path == "/law" {
				continue
			}
			if code, page := h.ask(pages, "rival owner", "GET", path, ""); code != 404 {
				t.Errorf("another tenant reads %s: %d %s", path, code, page)
			}
		}
	})
}

// TestForms: what people post does what programs do, and comes back with what was typed when it is refused.
func TestForms(t *testing.T) {
	each(t, func(h *house) {
		pages, _ := h.doors()
		officer := "per_off " + string(tenant.ComplianceOfficer)
		post := func(path string, form url.Values) int {
			t.Helper()
			code, _ := h.ask(pages, officer, "POST", path, form.Encode())
			return code
		}
		at := "/products/" + h.product
		if code := post(at+"/classification", url.Values{"core": {"It lights"}, "category": {""}, "reason": {"None fits"}, "integrates": {"cra.iii.1.11", "cra.iii.1.10"}}); code != 303 {
			t.Fatalf("classification: %d", code)
		}
		c, err := h.Classified(t.Context(), "ten_a", h.product)
		h.must(err)
		if c.Class != law.Default || len(c.Integrates) != 2 || c.By != "per_off" {
			t.Errorf("%+v", c)
		}
		if code := post(at+"/classification/confirm", url.Values{"version": {"1"}}); code != 403 {
			t.Errorf("confirmed by its author: %d", code)
		}
		if code := post(at+"/conformity-route", url.Values{"module": {"A"}, "route_reason": {"r"}, "standards": {"\n EN 1 \n"}}); code != 303 {
			t.Errorf("route: %d", code)
		}
		if code := post(at+"/risk/context", url.Values{"purpose": {"p"}, "use": {"u"}, "environment": {"e"}, "assets": {"a"}, "threats": {"t"}, "years": {"10"}}); code != 303 {
			t.Errorf("context: %d", code)
		}
		if code := post(at+"/risk/rows/cra.i.1.2.l", url.Values{"applies": {"no"}, "why": {" "}}); code != 400 {
			t.Errorf("a row without justification: %d", code)
		}
		for _, r := range law.Annex("cra.i") {
			if code := post(at+"/risk/rows/"+r.ID, url.Values{"applies": {"yes"}, "treatment": {"So"}, "evidence": {"/law\n\nhttps://lab.example/1"}}); code != 303 {
				t.Errorf("%s: %d", r.ID, code)
			}
		}
		if code := post(at+"/risk/seal", url.Values{"note": {"All looked at"}}); code != 303 {
			t.Errorf("seal: %d", code)
		}
		a, err := h.Assessment(t.Context(), "ten_a", h.product, 0)
		h.must(err)
		if len(a.Rows[0].Evidence) != 2 {
			t.Errorf("evidence: %q", a.Rows[0].Evidence)
		}
		h.release(1, "a.example/net@v1.0.0")
		name := "pkg:golang/a.example/net"
		if code := post("/components/review", url.Values{"name": {name}, "support_end": {"2027-06-30"}, "note": {"n"}}); code != 303 {
			t.Errorf("review: %d", code)
		}
		if code := post("/components/settings", url.Values{"months": {"3"}, "screen": {"1"}}); code != 303 {
			t.Errorf("settings: %d", code)
		}
		form := url.Values{"reason": {"It films"}, "substantial": {""}}
		for _, q := range Questions {
			form.Set(q.ID, "no")
		}
		if code := post("/releases/rel_01/modification", form); code != 400 {
			t.Errorf("a screen without a conclusion: %d", code)
		}
		form.Set("substantial", "yes")
		form.Set("purpose", "yes")
		form.Set("why_purpose", "It films")
		if code := post("/releases/rel_01/modification", form); code != 303 {
			t.Errorf("screen: %d", code)
		}
		r := httptest.NewRequest("GET", "/releases/rel_01", nil)
		ctx := tenant.WithActor(r.Context(), tenant.Actor{ID: "per_off", Kind: tenant.KindPerson, Tenant: "ten_a", Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: "ten_a"}}})
		if part := string(pages.Slot("release").Render(r.WithContext(ctx), "rel_01")); !strings.Contains(part, "not published before") {
			t.Errorf("the release's page: %s", part)
		}
		_, today := h.ask(pages, officer, "GET", "/", "")
		if !strings.Contains(today, "signed as a substantial modification") {
			t.Errorf("Today: %s", today)
		}
	})
}
