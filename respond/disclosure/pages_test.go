// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"bytes"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
)

// answer is what a door said.
type answer struct {
	*httptest.ResponseRecorder
	body, to string
}

func (h *house) ask(door http.Handler, method, path, kind string, body io.Reader) answer {
	h.t.Helper()
	r := httptest.NewRequest(method, here+path, body)
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	w := httptest.NewRecorder()
	door.ServeHTTP(w, r)
	return answer{w, w.Body.String(), w.Header().Get("Location")}
}

// form posts fields, with files as name and content.
func (h *house) form(door http.Handler, path string, fields map[string]string, files ...string) answer {
	h.t.Helper()
	if len(files) == 0 {
		v := url.Values{}
		for k, x := range fields {
			v.Set(k, x)
		}
		return h.ask(door, "POST", path, "application/x-www-form-urlencoded", strings.NewReader(v.Encode()))
	}
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	for k, x := range fields {
		h.must(m.WriteField(k, x))
	}
	for i := 0; i < len(files); i += 2 {
		w, err := m.CreateFormFile("file", files[i])
		h.must(err)
		_, err = io.WriteString(w, files[i+1])
		h.must(err)
	}
	h.must(m.Close())
	return h.ask(door, "POST", path, m.FormDataContentType(), &b)
}

// page gets a page that has to say all of wants.
func (h *house) page(door http.Handler, path string, wants ...string) string {
	h.t.Helper()
	got := h.ask(door, "GET", path, "", nil)
	if got.Code != http.StatusOK {
		h.t.Fatalf("%s: %d\n%s", path, got.Code, got.body)
	}
	for _, want := range wants {
		if !strings.Contains(got.body, want) {
			h.t.Errorf("%s does not say %q:\n%s", path, want, got.body)
		}
	}
	return got.body
}

// TestAStrangerReportsAndComesBack: policy, form, number, status link and addition, with no account, no script and no
// cookie; then the desk.
func TestAStrangerReportsAndComesBack(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		strangers, _ := h.doors(nil)
		at := "/security/" + maker
		for _, p := range []string{"", "/report", "/thanks", "/figures"} {
			if body := h.page(strangers, at+p, "Acme Ltd", `lang="en"`, "Deutsch"); strings.Contains(body, "<script") || strings.Contains(body, " style=") {
				t.Errorf("%s has a script or an inline style", p)
			}
			h.page(strangers, at+p+"?lang=de", `lang="de"`, "English")
		}
		h.page(strangers, at, "within 2 working days", "within 7 days", "every 14 days", "90 days after", "does not bind the CSIRT", "no legal action")
		if got := h.ask(strangers, "GET", "/security/ten_nobody/report", "", nil); got.Code != http.StatusNotFound {
			t.Errorf("a tenant that does not exist: %d", got.Code)
		}
		got := h.form(strangers, at+"/report", map[string]string{"subject": "Overflow <b>", "text": "It overflows <script>alert(1)</script>", "product": h.product, "exploited": "no", "credit": "Eve"},
			"<img src=x>.html", "<script>alert(2)</script>")
		if got.Code != http.StatusSeeOther || !strings.HasPrefix(got.to, at+"/status/") {
			t.Fatalf("%d %s\n%s", got.Code, got.to, got.body)
		}
		body := h.page(strangers, got.to, "rpt_", "received", "Your report came in", "2026-11-25 00:00 UTC")
		if strings.Contains(body, "overflows") || strings.Contains(body, "Eve") {
			t.Error("the status link shows what the finder wrote")
		}
		if h.ask(strangers, "GET", got.to+"x", "", nil).Code != http.StatusNotFound {
			t.Error("a wrong link leads somewhere")
		}
		if h.ask(strangers, "GET", strings.Replace(got.to, maker, "ten_other", 1), "", nil).Code != http.StatusNotFound {
			t.Error("the link leads into another tenant")
		}
		if to := h.form(strangers, got.to+"?lang=de", map[string]string{"text": "And it crashes."}); to.Code != http.StatusSeeOther || to.to != got.to+"?lang=de" {
			t.Errorf("%d %s\n%s", to.Code, to.to, to.body)
		}
		h.page(strangers, got.to+"?lang=de", "Sie ergänzten etwas")
		if bad := h.form(strangers, at+"/report", map[string]string{"subject": "nothing"}); bad.Code != http.StatusBadRequest {
			t.Errorf("nothing was written: %d", bad.Code)
		}

		desk, _ := h.doors(ann)
		h.page(desk, "/disclosure", "Overflow &lt;b&gt;", "acknowledge", "3 d", "Sensor")
		h.page(desk, "/", "Overflow &lt;b&gt;</a>: acknowledge")
		rs, err := h.Reports(ann, true, "", 10)
		h.must(err)
		here := "/disclosure/reports/" + rs[0].ID
		if body := h.page(desk, here, "Open the report", "The report came", "The finder added something", "Download"); strings.Contains(body, "It overflows") {
			t.Error("the page shows what the finder wrote without anybody opening it")
		}
		opened := h.form(desk, here+"/open", nil)
		for _, want := range []string{"It overflows &lt;script&gt;", "And it crashes.", "Eve", "&lt;img src=x&gt;.html", "is on record"} {
			if opened.Code != http.StatusOK || !strings.Contains(opened.body, want) {
				t.Errorf("opened without %q: %d\n%s", want, opened.Code, opened.body)
			}
		}
		file := h.form(desk, here+"/attachments/"+h.seen(ann, rs[0].ID).Attachments[0].ID, nil)
		if file.Code != http.StatusOK || file.body != "<script>alert(2)</script>" || file.Header().Get("Content-Type") != "application/octet-stream" ||
			file.Header().Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(file.Header().Get("Content-Disposition"), "attachment; filename=\"att_") {
			t.Errorf("%d %v", file.Code, file.Header())
		}
		for _, step := range []map[string]string{
			{"kind": "report.acknowledged", "note": "Thank you."}, {"kind": "report.triaged", "verdict": "valid", "note": "We could repeat it."}, {"kind": "report.confirmed", "note": "Yes."},
			{"kind": "embargo.set", "due": "2026-12-21T12:00Z", "people": "per_bob", "note": "Acme, CERT"}, {"kind": "embargo.ended", "note": "All are ready."},
			{"kind": "fix.available", "at": "2026-11-21T12:00Z", "note": "1.3"},
			{"kind": "report.published", "advisory": "adv_1", "note": "It is public."}, {"kind": "report.closed", "note": "Done."},
		} {
			if got := h.form(desk, here+"/events", step); got.Code != http.StatusSeeOther {
				t.Fatalf("%v: %d\n%s", step, got.Code, got.body)
			}
			h.page(desk, here)
		}
		h.page(strangers, got.to, "closed", "It is public.", "https://iot.example:8443/csaf/x.json")
		h.page(strangers, at+"/thanks", "Eve", "/csaf/x.json")
		h.page(strangers, at+"/figures?year=2026", "<dd>1</dd>", "0 h")
		if got := h.ask(strangers, "GET", at+"/figures.json", "", nil); got.Code != http.StatusOK || !strings.Contains(got.body, `"reports":1,"open":0`) || strings.Contains(got.body, "Eve") {
			t.Errorf("%d %s", got.Code, got.body)
		}
		h.page(desk, "/disclosure/policy", "Publish version 1")
		policy := map[string]string{"acknowledge": "1", "triage": "5", "status": "10", "disclosure": "60", "zone": "Europe/Berlin", "languages": "en, de", "bounty.en": "We pay 100 EUR."}
		if got := h.form(desk, "/disclosure/policy", policy); got.Code != http.StatusSeeOther {
			t.Fatalf("%d %s", got.Code, got.body)
		}
		h.page(strangers, at, "within 1 working day (Europe/Berlin)", "We pay 100 EUR.", "Policy version 1, in force since")
		policy["acknowledge"] = "3"
		if got := h.form(desk, "/disclosure/policy", policy); got.Code != http.StatusBadRequest {
			t.Errorf("more time than the default was promised: %d", got.Code)
		}
		if got := h.form(desk, "/disclosure/contact", map[string]string{"contacts": "mailto:psirt@acme.example"}); got.Code != http.StatusSeeOther {
			t.Errorf("%d %s", got.Code, got.body)
		}
		h.page(desk, "/disclosure/contact", "mailto:psirt@acme.example", "No file was signed for another site")
		if got := h.form(desk, "/disclosure/securitytxt", map[string]string{"host": "www.acme.example"}); got.Code != http.StatusSeeOther {
			t.Errorf("%d %s", got.Code, got.body)
		}
		h.page(desk, "/disclosure/contact", "www.acme.example", "6 months left")
		if got := h.ask(desk, "GET", "/disclosure/securitytxt/www.acme.example", "", nil); got.Code != 200 || got.Header().Get("Content-Disposition") != `attachment; filename="security.txt"` ||
			!strings.Contains(got.body, "Canonical: https://www.acme.example/.well-known/security.txt") {
			t.Errorf("%d %v\n%s", got.Code, got.Header(), got.body)
		}
		if got := h.ask(desk, "GET", "/disclosure/securitytxt/other.example", "", nil); got.Code != http.StatusNotFound {
			t.Errorf("a file that nobody made: %d", got.Code)
		}
		if got := h.form(desk, "/disclosure/reports", map[string]string{"channel": "mail", "at": "2026-11-20T12:00Z", "text": "by mail", "exploited": "unknown"}); got.Code != http.StatusSeeOther || !strings.HasPrefix(got.to, "/disclosure/reports/rpt_") {
			t.Errorf("%d %s", got.Code, got.body)
		}
	})
}

// TestTheDeskClaimsNothingUnfounded: what only a cited standard gives stands neither in a policy nor in an answer.
func TestTheDeskClaimsNothingUnfounded(t *testing.T) {
	h := one(t)
	const claim = "Our products are presumed to be in conformity."
	p := DefaultPolicy()
	p.Scope = map[string]string{"en": claim}
	if _, err := h.SetPolicy(ann, p); problem.Of(err).Rule != law.RuleClaim {
		t.Errorf("the policy: %v", err)
	}
	got := h.sent(Intake{Product: h.product})
	if _, err := h.Append(ann, got.ID, ReportAck, claim, Data{}); problem.Of(err).Rule != law.RuleClaim {
		t.Errorf("an answer: %v", err)
	}
	desk, _ := h.doors(ann)
	if got := h.form(desk, "/disclosure/reports/"+got.ID+"/events", map[string]string{"kind": string(ReportAck), "note": claim}); got.Code != http.StatusForbidden || !strings.Contains(got.body, law.RuleClaim) {
		t.Errorf("the page: %d\n%s", got.Code, got.body)
	}
}
