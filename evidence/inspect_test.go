// SPDX-License-Identifier: AGPL-3.0-only

package evidence_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/conform"
	"github.com/openthings-platform/openthings/evidence"
	"github.com/openthings-platform/openthings/evidence/verify"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/tenant"
)

// TestAnHourWithAnAuditor: each of the fifteen questions has a page, a file, or the plain word that it has none; what is late is
// shown with its reason, and each file about a product verifies.
func TestAnHourWithAnAuditor(t *testing.T) {
	d := oneDesk(t)
	id := d.declared(30*time.Hour, false)
	d.submit(id, respond.EarlyWarning, "the person on call slept")
	sig, err := d.cases.AddSignal(ann, respond.Signal{Product: d.product, Title: "a scanner's guess", Ref: "CVE-2026-2", Exploited: "no"})
	d.must(err)
	as, err := d.cases.Assess(ann, sig.ID, "")
	d.must(err)
	_, _, err = d.cases.Decide(ann, as.ID, respond.Declaration{Verdict: respond.Negative, Basis: "the code is not reachable, see test 12", Reason: respond.NotReachable})
	d.must(err)
	_, err = d.conform.Decide(ann, "ten_a", d.product, law.Annex("cra.i")[0].ID, "per_ann", conform.Decision{Applies: "yes", Treatment: "As designed", Evidence: []string{"/x"}})
	d.must(err)
	d.report("words", "finder@example.org")
	pages, programs := d.doors(actor(tenant.Auditor, "ten_a"))
	see := func(path string, want ...string) {
		t.Helper()
		code, body := do(t, pages, "GET", path, nil)
		if code != 200 {
			t.Fatalf("%s: %d %s", path, code, body)
		}
		for _, w := range want {
			if !strings.Contains(body, w) {
				t.Errorf("%s does not show %q: %s", path, w, body)
			}
		}
	}
	if len(evidence.Answers) != 15 {
		t.Fatalf("%d questions", len(evidence.Answers))
	}
	see("/inspect", "The fifteen questions: Sensor", "Make the file", "No sealed file yet")
	see("/evidence", "Export of the log", "the whole house")
	at := func(n int) string { return fmt.Sprintf("/inspect/%d?product=%s", n, d.product) }
	see(at(4), "three units with a shell", "decided: aware")
	see(at(5), "late", "the person on call slept", "cra.14.2.a", "undetermined", "SRP-1")
	see(at(6), "not reachable, see test 12")
	see(at(7), "Users told")
	see(at(10), "No support period is declared.")
	see(at(11), "by mail")
	see(at(12), "No release has a bill of materials.")
	see(at(15), "As designed", "No release was screened.")
	for _, path := range []string{at(1), at(16), "/inspect/x", "/inspect/5?product=prd_9", "/inspect/5"} {
		if code, _ := do(t, pages, "GET", path, nil); code != 404 && code != 400 {
			t.Errorf("%s: %d", path, code)
		}
	}
	for i, a := range evidence.Answers {
		if a.Number != i+1 || a.Screen == "" && a.Gap == "" || a.File == "" && a.Gap == "" || (a.File == "product") != (a.Sections != nil) {
			t.Errorf("%+v", a)
		}
		if a.File != "product" {
			continue
		}
		code, body := do(t, pages, "POST", "/evidence/export", url.Values{"device": {d.product}, "answer": {fmt.Sprint(a.Number)}})
		if code != 200 {
			t.Fatalf("file of question %d: %d %s", a.Number, code, body)
		}
		if r, err := verify.Bundle(strings.NewReader(body), d.log.VerifierKey(), time.Now()); err != nil || r.Subject != d.product || !strings.Contains(body, a.Question[:20]) {
			t.Errorf("file of question %d: %v", a.Number, err)
		}
	}
	code, body := do(t, pages, "POST", "/evidence/log", url.Values{"from": {"2026-01-01"}, "to": {time.Now().UTC().Format(time.DateOnly)}, "product": {d.product}})
	if r, err := verify.Bundle(strings.NewReader(body), d.log.VerifierKey(), time.Now()); code != 200 || err != nil || r.Entries == 0 {
		t.Errorf("the log from the page: %d %v", code, err)
	}
	for path, want := range map[string]int{"/v1/audit/export": 200, "/v1/audit/export?from=soon": 400, "/v1/audit/export?from=2027-01-02&to=2027-01-01": 400, "/v1/audit/export?product=prd_9": 404,
		"/v1/cases/" + id + "/evidence": 200, "/v1/cases/cas_9/evidence": 404, "/v1/products/" + d.product + "/evidence?answer=3": 400, "/v1/products/prd_9/evidence": 404, "/v1/evidence/answers": 200} {
		if got, body := do(t, programs, "GET", path, nil); got != want {
			t.Errorf("%s: %d, want %d: %s", path, got, want, body)
		}
	}
	engineer, _ := d.doors(actor(tenant.FirmwareEngineer, "ten_a")) // reads evidence, exports nothing
	if code, body := do(t, engineer, "GET", "/inspect", nil); code != 200 || strings.Contains(body, "Make the file<") {
		t.Errorf("as a firmware engineer: %d", code)
	}
	rival, _ := d.doors(actor(tenant.Owner, "ten_b"))
	if code, _ := do(t, rival, "GET", at(5), nil); code != 404 {
		t.Errorf("as another tenant: %d", code)
	}
}
