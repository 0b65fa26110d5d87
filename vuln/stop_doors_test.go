// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/tenant"
)

// TestStopsAtTheDoors: who may decide on the product stops and lifts, with a form as well as over the API; nobody else.
func TestStopsAtTheDoors(t *testing.T) {
	eachFactory(t, func(f *factory) {
		pages, programs := f.doors()
		officer, engineer := "ten_a "+string(tenant.ProductSecurityOfficer), "ten_a "+string(tenant.FirmwareEngineer)
		f.published(f.make(1, badNet), 1, "A")
		policy := "/v1/products/" + f.product + "/stop-policy"
		for who, want := range map[string]int{engineer: 403, officer + " prd_other": 403, "ten_b owner": 404, officer + " " + f.product: 200} {
			if code, body := f.ask(programs, who, "PUT", policy, "application/json", `{"policy":"ask"}`); code != want {
				t.Errorf("%s sets the policy: %d %s", who, code, body)
			}
		}
		f.exploited()
		_, page := f.ask(pages, officer, "GET", "/vulnerabilities/CVE-2023-44487", "", "")
		if !strings.Contains(page, "Stop making them") || !strings.Contains(page, "units with 1.1.0 are still made") {
			t.Errorf("the page asks nothing: %s", page)
		}
		if _, page := f.ask(pages, engineer, "GET", "/vulnerabilities/CVE-2023-44487", "", ""); strings.Contains(page, "Stop making them") {
			t.Error("a button for who may not")
		}
		form := url.Values{"from": {"vulnerability"}, "product": {f.product}, "vulnerability": {"CVE-2023-44487"}, "reason": {"It is known to be exploited."}}
		post := func(who, path string) int {
			code, _ := f.ask(pages, who, "POST", path, "application/x-www-form-urlencoded", form.Encode())
			return code
		}
		if code := post(engineer, "/stops"); code != 403 {
			t.Errorf("stopped by an engineer: %d", code)
		}
		f.wantStops("refused")
		if code := post(officer, "/stops"); code != 303 {
			t.Errorf("stop: %d", code)
		}
		f.wantStops("stopped", "CVE-2023-44487 1.1.0")
		_, page = f.ask(pages, officer, "GET", "/vulnerabilities/CVE-2023-44487", "", "")
		if !strings.Contains(page, "Resume") || strings.Contains(page, "Stop making them") {
			t.Errorf("the page after the stop: %s", page)
		}
		var list struct{ Items []Stop }
		code, body := f.ask(programs, officer, "GET", "/v1/stops", "", "")
		f.must(json.Unmarshal([]byte(body), &list))
		if code != 200 || len(list.Items) != 1 {
			t.Fatalf("list: %d %s", code, body)
		}
		id := list.Items[0].ID
		for who, want := range map[string]int{engineer: 403, officer + " prd_other": 404, "ten_b owner": 404} {
			if code, body := f.ask(programs, who, "POST", "/v1/stops/"+id+"/lift", "application/json", `{"reason":"x"}`); code != want {
				t.Errorf("%s lifts it: %d %s", who, code, body)
			}
		}
		for who, want := range map[string]string{officer + " prd_other": `"items":[]`, "ten_b owner": `"items":[]`, engineer: id} {
			if _, body := f.ask(programs, who, "GET", "/v1/stops", "", ""); !strings.Contains(body, want) {
				t.Errorf("%s sees %s", who, body)
			}
		}
		if code := post(officer, "/stops/"+id+"/lift"); code != 303 {
			t.Errorf("lift: %d", code)
		}
		f.wantStops("lifted")
		safe := "/v1/products/" + f.product + "/safe-versions"
		if code, body := f.ask(programs, officer, "GET", safe, "", ""); code != 200 || !strings.Contains(body, `"security_version":2`) {
			t.Errorf("safe versions: %d %s", code, body)
		}
		if code, body := f.ask(programs, officer+" prd_other", "GET", safe, "", ""); code != 403 {
			t.Errorf("safe versions of another product: %d %s", code, body)
		}
	})
}
