// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// visitor is somebody at the console without scripts.
type visitor struct {
	t *testing.T
	c *console.Console
}

func (h *house) visitor(t *testing.T) visitor {
	c := console.New(console.Config{Clock: h.clock, Log: slog.New(slog.DiscardHandler), Menu: []string{"Enrol", "Claim"}, Holds: tenant.Holds,
		Visitor:      func(context.Context) string { return "x" },
		Authenticate: func(r *http.Request) (context.Context, error) { return tenant.WithActor(r.Context(), owner), nil }})
	h.enroll.Pages(c)
	return visitor{t, c}
}

// sees reads a page and wants texts on it.
func (v visitor) sees(path string, texts ...string) string {
	v.t.Helper()
	w := httptest.NewRecorder()
	v.c.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	return v.wants(path, w, 200, texts)
}

// sends posts a form and wants texts on the page that answers, or in the address that it leads to.
func (v visitor) sends(path string, status int, form url.Values, texts ...string) string {
	v.t.Helper()
	r := httptest.NewRequest("POST", path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	v.c.ServeHTTP(w, r)
	return v.wants(path, w, status, texts)
}

func (v visitor) wants(path string, w *httptest.ResponseRecorder, status int, texts []string) string {
	v.t.Helper()
	body := w.Header().Get("Location") + w.Body.String()
	if w.Code != status {
		v.t.Fatalf("%s: %d %s", path, w.Code, body)
	}
	for _, want := range texts {
		if !strings.Contains(body, want) {
			v.t.Errorf("%s lacks %q: %s", path, want, body)
		}
	}
	return body
}

// TestPagesOfTheLine walks every page below Enrol by its forms alone.
func TestPagesOfTheLine(t *testing.T) {
	h := lite(t)
	v := h.visitor(t)
	product := h.lineProduct()
	batch, st, station := h.demanding("B1", 10, map[string]any{"listed": true})

	v.sees("/enrol/serials", "No serial number is preauthorised", "Lamp")
	v.sends("/enrol/serials/preview", 400, url.Values{"product": {product}, "csv": {"serial\nA/1"}})
	file := "serial,order,label:site\nA1,4711,kiel\nA2,4711,\n"
	v.sends("/enrol/serials/preview", 200, url.Values{"product": {product}, "csv": {file}}, "2 serial numbers", "Take them all", "site=kiel")
	v.sends("/enrol/serials", 303, url.Values{"product": {product}, "csv": {file}}, "/enrol/serials?product=")
	v.sees("/enrol/serials?product="+product+"&search=A1", "A1", "4711", "kiel")
	v.sends("/enrol/serials/revoke", 303, url.Values{"product": {product}, "serial": {"A2"}})

	cred, unit := h.unit(st, "A1")
	if code, body := h.enrol(cred, "simpleenroll", csrFor(t, newKey(t), nil)); code != 202 {
		t.Fatal(body)
	}
	v.sees("/enrol/lobby", "A1", "line", "Approve the chosen", "House 1")
	v.sends("/enrol/lobby", 400, url.Values{"decision": {"approve"}, "solution": {h.solution}})
	v.sends("/enrol/lobby", 400, url.Values{"device": {unit.Device}, "decision": {"deny"}})
	v.sends("/enrol/lobby", 303, url.Values{"device": {unit.Device}, "decision": {"deny"}, "reason": {"not ours"}})
	v.sees("/enrol/lobby?verdict=denied", "A1", "not ours")
	v.sends("/enrol/lobby", 303, url.Values{"device": {unit.Device}, "decision": {"approve"}, "solution": {h.solution}, "labels": {"roof=yes, floor = 3"}})
	v.sees("/enrol/lobby?verdict=approved", "A1")
	v.sees("/enrol/quarantine", "No device is locked out")
	h.must(h.identity.Suspend(t.Context(), ten, unit.Device, "per_a", "clone"))
	v.sees("/enrol/quarantine", "A1", "clone")

	v.sees("/enrol/hooks", "No system of yours is asked")
	secret := v.sends("/enrol/hooks", 200, url.Values{"url": {"https://erp.example/allow"}, "open": {"yes"}}, "whsec_", "devices get in")
	if page := v.sees("/enrol/hooks", "https://erp.example/allow"); strings.Contains(page, regexp.MustCompile(`whsec_[^"]+`).FindString(secret)) {
		t.Error("the secret is shown again")
	}
	v.sends("/enrol/hooks/drop", 303, url.Values{"product": {""}})

	v.sees("/enrol/labels", "Serial numbers and claim codes")
	v.sends("/enrol/labels", 200, url.Values{"codes": {"A1," + unit.Claim + "\n\n" + unit.Claim}, "link": {"https://things.example"}}, "<svg", unit.Claim, "Print this page")
	v.sends("/enrol/labels", 400, url.Values{"codes": {"A1,hello"}})
	if png := v.sends("/enrol/labels/png", 200, url.Values{"code": {unit.Claim}}); !strings.HasPrefix(png, "\x89PNG") {
		t.Errorf("no image: %.20q", png)
	}
	v.sees("/claim?code="+unit.Claim, unit.Claim) // as the QR code on the box leads there

	v.sees("/enrol/batches/"+batch, "1 entry", "preauthorised serial numbers", "Signed manifest")
	v.sees("/enrol/batches/"+batch+"/manifest", `"manifest"`, "A1")
	v.sees("/enrol/stations/"+station, "A1", "Kill it")
	v.sends("/enrol/stations/"+station+"/kill", 303, url.Values{"reason": {"stolen"}}, "/enrol/stations/"+station)
	v.sees("/enrol/stations/"+station, "killed", "stolen")
	part := func() string {
		r := httptest.NewRequest("GET", "/devices/"+unit.Device, nil)
		return string(v.c.Slot("device").Render(r.WithContext(tenant.WithActor(r.Context(), owner)), unit.Device))
	}
	for _, want := range []string{"entry 1 of its manifest", "not signed", "roof=yes", "floor=3", "site=kiel", "4711"} {
		if !strings.Contains(part(), want) {
			t.Errorf("the device's page lacks %q: %s", want, part())
		}
	}
	v.sends("/devices/"+unit.Device+"/labels", 303, url.Values{"labels": {"site=bonn"}})
	if page := part(); !strings.Contains(page, "site=bonn") || strings.Contains(page, "roof") {
		t.Errorf("labels: %s", page)
	}
}

// What was revoked as a whole says so wherever it is listed, and nothing is offered that would be in vain.
func TestPagesSayWhatWasRevoked(t *testing.T) {
	h := lite(t)
	v := h.visitor(t)
	batch, st, station := h.demanding("B1", 10, nil)
	h.unit(st, "A1")
	closing := "/enrol/batches/" + batch + "/close"
	v.sees("/enrol", closing)
	v.sees("/enrol/batches/"+batch, "Lamp", "Revoke all of it")
	h.must(h.db.WriteFirst(t.Context(), func(tx *store.Tx) error {
		return h.identity.Bar(tx, ten, identity.ScopeBatch, batch, "per_a", "leaked")
	}))
	if page := v.sees("/enrol", "revoked", "with its batch"); strings.Contains(page, closing) {
		t.Error("a revoked batch can be closed with a count")
	}
	if page := v.sees("/enrol/batches/"+batch, "revoked", "as a whole"); strings.Contains(page, "Revoke all of it") {
		t.Error("a revoked batch is offered for revocation")
	}
	v.sees("/enrol/stations/"+station, "revoked", "with its batch", "B1")
}

// A batch that was closed with a number cannot say which identity is too many, so its page does not promise that.
func TestPageOfASurplusWithoutAList(t *testing.T) {
	h := lite(t)
	v := h.visitor(t)
	batch, st, _ := h.demanding("B1", 10, nil)
	h.unit(st, "A1")
	v.sends("/enrol/batches/"+batch+"/close", 303, url.Values{"produced": {"0"}})
	if page := v.sees("/enrol/batches/"+batch, "1 identity has", "/fleet?filter=batch:"+batch); strings.Contains(page, "below") {
		t.Error("the page promises a list that it does not have")
	}
}

// Lists of batches and stations come page by page.
func TestPagesTurn(t *testing.T) {
	h := lite(t)
	v := h.visitor(t)
	for range 51 {
		h.newBatch("B"+newKey(t).X.Text(36)[:8], 1)
	}
	page := v.sees("/enrol", "Next page")
	next := regexp.MustCompile(`href="(/enrol\?before=[^"]+)"`).FindStringSubmatch(page)
	if next == nil {
		t.Fatal("no next page")
	}
	if second := v.sees(next[1], "First page"); strings.Contains(second, "Next page") || strings.Count(second, `<th scope="row">`) != 1 {
		t.Errorf("the second page: %s", second)
	}
}
