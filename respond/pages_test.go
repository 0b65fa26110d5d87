// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/tenant"
)

func (h house) doors(t *testing.T, who context.Context) (pages, programs http.Handler) {
	auth := func(*http.Request) (context.Context, error) { return who, nil }
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	c := console.New(console.Config{Clock: h.hand, Log: log, Menu: []string{"Today", "Cases", "Law"}, Authenticate: auth, Holds: tenant.Holds,
		Visitor: func(context.Context) string { return "Ann" }})
	h.Pages(c)
	a := api.New(api.Config{Title: "test", Clock: h.hand, Log: log, Authenticate: auth, Holds: tenant.Holds, Caller: func(context.Context) string { return "ann" }})
	h.Routes(a)
	return c, a
}

func do(t *testing.T, door http.Handler, method, path, contentType, body string) (int, string, string) {
	t.Helper()
	r := httptest.NewRequest(method, "https://iot.example"+path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", contentType)
	}
	w := httptest.NewRecorder()
	door.ServeHTTP(w, r)
	out, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(out), w.Header().Get("Location")
}

// TestPages walks from a signal to an accepted early warning through the forms alone.
func TestPages(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		pages, _ := h.doors(t, ann)
		get := func(path string, wants ...string) {
			t.Helper()
			code, body, _ := do(t, pages, "GET", path, "", "")
			if code != 200 {
				t.Fatalf("%s: %d\n%s", path, code, body)
			}
			for _, want := range wants {
				if !strings.Contains(body, want) {
					t.Errorf("%s does not say %q:\n%s", path, want, body)
				}
			}
		}
		post := func(door http.Handler, path string, kv ...string) string {
			t.Helper()
			v := url.Values{}
			for i := 0; i < len(kv); i += 2 {
				v.Set(kv[i], kv[i+1])
			}
			code, body, to := do(t, door, "POST", path, "application/x-www-form-urlencoded", v.Encode())
			if code != http.StatusSeeOther {
				t.Fatalf("%s: %d\n%s", path, code, body)
			}
			return to
		}
		get("/cases", "No case is open", "No signal has come in")
		get("/")
		sig := post(pages, "/signals", "product", h.product, "title", "shells <b>", "exploited", "yes")
		get(sig, "Open an assessment", "shells &lt;b&gt;")
		get("/", "Seen exploited: assess it now", `role="alert"`, "No legal clock runs yet")
		post(pages, sig+"/assessment")
		get(sig, "Declare awareness", "Luxembourg")
		s, err := h.Signal(ann, strings.TrimPrefix(sig, "/signals/"))
		if err != nil {
			t.Fatal(err)
		}
		declare := []string{"verdict", "aware", "aev", "yes", "si", "no", "basis", "seen", "title", "Shells", "summary", "Shells were opened.", "field.versions", "1.0", "coordinator", "FR", "member_states", "FR, DE"}
		code, body, _ := do(t, pages, "POST", "/assessments/"+s.Assessment.ID+"/decision", "application/x-www-form-urlencoded", "verdict=aware&aev=yes&si=no&basis=seen&title=x&coordinator=FR&t0=2026-11-21T11:00:00")
		if code != http.StatusBadRequest || !strings.Contains(body, "is not an instant") {
			t.Errorf("an instant without an offset: %d", code)
		}
		cs := post(pages, "/assessments/"+s.Assessment.ID+"/decision", append(declare, "t0", "2026-11-21T12:00+01:00")...)
		get(cs, "Early warning", "23 h left", "12:00 CET", "Sunday 2026-11-22", "undetermined", "CRA Art. 14(2)(a)", "Work by", "T0 set")
		get("/", "Early warning", "Shells")
		get("/cases", "Shells", "Early warning, 23 h left")
		post(pages, cs+"/events", "kind", "submission.attempted", "stage", "early_warning", "at", "2026-11-21T12:00:00Z")
		get(cs, "Confirm a receipt")
		officer, _ := h.doors(t, bob)
		post(officer, cs+"/events", "kind", "submission.accepted", "attempt", "2", "receipt", "SRP-77")
		get(cs, "SRP-77", "met 23 h early", "72-hour notification")
		get(cs+"/pack", "72-hour notification", "Shells", "6 of 255")
	})
}

// TestAPI drives the operations over HTTP.
func TestAPI(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		_, programs := h.doors(t, ann)
		post := func(path, body string, want int) string {
			t.Helper()
			code, out, _ := do(t, programs, "POST", path, "application/json", body)
			if code != want {
				t.Fatalf("%s: %d, want %d\n%s", path, code, want, out)
			}
			return out
		}
		id := func(body, prefix string) string {
			t.Helper()
			_, rest, ok := strings.Cut(body, `"`+prefix+"_")
			end := strings.IndexByte(rest, '"')
			if !ok || end < 0 {
				t.Fatalf("no %s id in %s", prefix, body)
			}
			return prefix + "_" + rest[:end]
		}
		post("/v1/signals", `{"product":"prd_none","title":"x"}`, 404)
		post("/v1/signals", `{"title":"x"}`, 400)
		sig := id(post("/v1/signals", `{"product":"`+h.product+`","title":"x","ref":"CVE-2026-1"}`, 201), "sig")
		as := id(post("/v1/signals/"+sig+"/assessment", "", 201), "asm")
		post("/v1/assessments/"+as+"/decision", `{"verdict":"aware","basis":"seen","aev":true,"si":false,"t0":"2026-11-21T11:00:00","coordinator":"DE"}`, 400)
		post("/v1/assessments/"+as+"/decision", `{"verdict":"aware","basis":"seen","aev":true,"si":false,"t0":"2026-11-21T13:00:00Z","coordinator":"DE"}`, 400)
		cas := id(post("/v1/assessments/"+as+"/decision", `{"verdict":"aware","basis":"seen","aev":true,"si":false,"t0":"2026-11-21T11:00:00Z","coordinator":"DE"}`, 201), "cas")
		post("/v1/cases/"+cas+"/events", `{"kind":"deadline.overdue","stage":"early_warning"}`, 403)
		post("/v1/cases/"+cas+"/events", `{"kind":"nonsense"}`, 400)
		post("/v1/cases/"+cas+"/events", `{"kind":"measure.available","at":"2026-11-21T11:30:00Z","note":"workaround"}`, 201)
		for path, want := range map[string]string{
			"/v1/cases":                  `"next":"early_warning"`,
			"/v1/cases/" + cas:           `"due":"2026-12-05T11:30:00Z"`,
			"/v1/cases/" + cas + "/pack": `"missing":["summary"`,
			"/v1/signals":                `"verdict":"aware"`,
			"/v1/signals/" + sig:         `"basis":"seen"`,
		} {
			if code, body, _ := do(t, programs, "GET", path, "", ""); code != 200 || !strings.Contains(body, want) {
				t.Errorf("%s: %d without %s:\n%s", path, code, want, body)
			}
		}
	})
}
