// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestEnginePages: what goes on beside the reports is recorded through forms and shown; limits are set, a looser one is
// refused by its rule; who has not seen the last entry is told.
func TestEnginePages(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		pages, programs := h.doors(t, ann)
		post := func(path string, want int, kv ...string) string {
			t.Helper()
			v := url.Values{}
			for i := 0; i < len(kv); i += 2 {
				v.Set(kv[i], kv[i+1])
			}
			code, body, _ := do(t, pages, "POST", path, "application/x-www-form-urlencoded", v.Encode())
			if code != want {
				t.Fatalf("%s %v: %d, want %d\n%s", path, kv, code, want, body)
			}
			return body
		}
		shows := func(path string, wants ...string) {
			t.Helper()
			_, body, _ := do(t, pages, "GET", path, "", "")
			for _, want := range wants {
				if !strings.Contains(body, want) {
					t.Errorf("%s does not say %q:\n%s", path, want, body)
				}
			}
		}
		id := h.declared(t)
		events, now := "/cases/"+id+"/events", h.hand.Now().Format(time.RFC3339)
		shows("/cases/"+id, "Signal received", "Known to the source since", "Beside the reports", "no outage on record", "Another CSIRT is the coordinator")
		post(events, 303, "kind", "mitigation.expected", "at", now, "note", "hotfix", "seen", "1")
		post(events, 303, "kind", "upstream.reported", "at", now, "note", "mail to the maintainer", "component", "libfoo", "seen", "2")
		post(events, 303, "kind", "publication.held", "at", now, "due", "2026-12-01T12:00Z", "note", "no fix yet", "seen", "3")
		post(events, 303, "kind", "platform.outage", "at", now, "note", "HTTP 503", "seen", "4")
		shows("/cases/"+id, "measure expected, filed", "assume that others know", "libfoo: told", "no fix yet", "out since", "The reporting platform answers again", "Publication is released")
		if body := post(events, http.StatusConflict, "kind", "upstream.reported", "at", now, "note", "again", "component", "libfoo", "seen", "3"); !strings.Contains(body, "per_ann recorded platform.outage") {
			t.Errorf("nobody is told who was faster:\n%s", body)
		}
		limits := []string{"assessment_hours", "4", "early_warning_hours", "6", "notification_hours", "48", "final_days", "7", "users_hours", "12"}
		post("/cases/targets", 303, limits...)
		shows("/cases/targets", `value="48"`, "At most 72: CRA Art. 14(2)(b)")
		limits[5] = "96"
		if body := post("/cases/targets", http.StatusForbidden, limits...); !strings.Contains(body, "cra.14.2.b") {
			t.Errorf("the rule is not named:\n%s", body)
		}
		if code, body, _ := do(t, programs, "GET", "/v1/case-targets", "", ""); code != 200 || !strings.Contains(body, `"notification_hours":48`) {
			t.Errorf("%d %s", code, body)
		}
		if code, body, _ := do(t, programs, "PUT", "/v1/case-targets", "application/json", `{"assessment_hours":0,"early_warning_hours":30,"notification_hours":0,"final_days":0,"users_hours":0}`); code != 403 || !strings.Contains(body, "cra.14.2.a") {
			t.Errorf("%d %s", code, body)
		}
		if code, body, _ := do(t, programs, "GET", "/v1/cases/"+id, "", ""); code != 200 || !strings.Contains(body, `"spread":"mitigation-expected"`) {
			t.Errorf("%d %s", code, body)
		}
	})
}
