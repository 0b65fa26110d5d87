// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// page opens a page, or posts a form, as somebody.
func (w *world) page(who, method, path string, form url.Values) (int, string) {
	w.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(form.Encode()))
	if method == "POST" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r.Header.Set("X-Test-Actor", who)
	rec := httptest.NewRecorder()
	w.console.ServeHTTP(rec, r)
	return rec.Code, rec.Body.String()
}

// The pages read and work without scripts: declare from the list, remove, set what becomes of the rest, share and end.
func TestDataPages(t *testing.T) {
	w := newWorld(t)
	see := func(who, path string, want ...string) {
		t.Helper()
		code, body := w.page(who, "GET", path, nil)
		if code != 200 {
			t.Fatalf("%s as %s: %d %s", path, who, code, body)
		}
		for _, text := range want {
			if !strings.Contains(body, text) {
				t.Errorf("%s as %s lacks %q in\n%s", path, who, text, body)
			}
		}
	}
	do := func(path string, form url.Values) {
		t.Helper()
		if code, body := w.page("owner", "POST", path, form); code != 303 {
			t.Fatalf("%s: %d %s", path, code, body)
		}
	}
	w.measured()
	own := "/data/products/" + w.product
	see("owner", "/data", "Fridge", "none: everything is taken", "730 days")
	see("owner", own, "This product has no catalogue: everything that its devices send is taken")
	do(own+"/fields", url.Values{"stream": {"env"}, "name": {"hum"}, "purpose": {"shows the humidity"}, "unit": {"%RH"}, "min": {"0"}, "max": {"100"}, "retention_days": {"30"}, "personal": {"1"}})
	see("owner", own, "Version 1", "shows the humidity", "30 days", "from 0", "to 100", "kept for 730 days") // one click loses nothing
	do(own+"/undeclared", url.Values{"undeclared": {"drop"}})
	see("owner", own, "Version 2", "dropped and counted")
	w.append(says(w.devices[0].ID, 7, `"temp":5,"hum":40`))
	w.compactAll()
	if part := string(w.console.Slot("device").Render(httptest.NewRequest("GET", "/devices/x", nil).WithContext(w.acting("owner")), w.devices[0].ID)); !strings.Contains(part, RuleUndeclared) || !strings.Contains(part, "messages 3 to 6 of start 1") {
		t.Errorf("the device's part says nothing of what was dropped and what is missing: %s", part)
	}
	see("owner", "/data/undeclared", "env /</span> temp", `name="purpose"`, "Fridge")
	see("owner", own, "env /</span> temp")
	do(own+"/fields", url.Values{"stream": {"env"}, "name": {"temp"}, "purpose": {"keeps food"}})
	see("owner", "/data/undeclared", "Devices send nothing that is not declared")
	do(own+"/remove", url.Values{"field": {"env/hum"}})
	see("owner", own, "Version 4", "keeps food")
	do(own+"/undeclared", url.Values{"undeclared": {"keep"}})
	see("owner", own, "Version 5")
	do("/data/retention", url.Values{"days": {"90"}})
	see("owner", "/data", "90 days", "version 5", "kept")
	if code, _ := w.page("owner", "POST", own+"/fields", url.Values{"stream": {"env"}, "name": {"x"}, "purpose": {" "}}); code != 400 {
		t.Errorf("a field without a purpose: %d", code)
	}
	see("owner", "/data/export", "Download", "No message is missing")
	if code, body := w.page("shop", "GET", "/data/export/file?format=csv", nil); code != 200 || strings.Count(body, "\n") != 6 || strings.Contains(body, w.devices[2].ID) {
		t.Errorf("the user's file: %d %s", code, body)
	}
	for _, path := range []string{"/data", own, "/data/undeclared"} {
		if code, _ := w.page("shop", "GET", path, nil); code != 403 {
			t.Errorf("%s as the user of a solution: %d", path, code)
		}
		if code, _ := w.page("stranger", "GET", path, nil); path == own && code != 404 {
			t.Errorf("%s as a stranger: %d", path, code)
		}
	}
	see("shop", "/data/export", "Download")
	see("shop", "/data/shares", "Nothing is shared", "Shop")
	code, body := w.page("shop", "POST", "/data/shares", url.Values{"solution": {w.homes[0]}, "recipient": {"Repair Ltd"}, "purpose": {"repair"}, "expires": {"2026-12-31"}, "not_gatekeeper": {"1"}})
	if code != 200 || !strings.Contains(body, "ot_") {
		t.Errorf("sharing: %d %s", code, body)
	}
	see("shop", "/data/shares", "Repair Ltd", "End the share with Repair Ltd")
	r := httptest.NewRequest("GET", "/products/"+w.product, nil)
	r.Header.Set("X-Test-Actor", "owner")
	ctx := w.acting("owner")
	if part := string(w.console.Slot("product").Render(r.WithContext(ctx), w.product)); !strings.Contains(part, "Version 5 names 1 field") {
		t.Errorf("the product's part: %s", part)
	}
}
