// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/tenant"
)

// TestAdmissionPage shows a CA that waits for its proof, a token, and a clone with its evidence.
func TestAdmissionPage(t *testing.T) {
	h := lite(t)
	m := newMaker(h, "Maker <b>")
	_, err := h.enroll.AddTrustedCA(context.Background(), enroll.TrustedCA{Tenant: ten, Name: "Maker <b>", Quota: 7, Policy: enroll.CAPolicy{Mapping: h.mapping()}}, certPEM(m.cert), owner.ID)
	h.must(err)
	h.token(3, nil)
	st, _ := h.station("B1", 10, 10)
	one, _ := h.unit(st, "L-1")
	h.line(st, lineRequest(t, "L-2", one.key))
	c := console.New(console.Config{Clock: h.clock, Log: slog.New(slog.DiscardHandler), Menu: []string{"Enrol"}, Holds: tenant.Holds, Visitor: func(context.Context) string { return "x" },
		Authenticate: func(r *http.Request) (context.Context, error) { return tenant.WithActor(r.Context(), owner), nil }})
	h.enroll.Pages(c)
	w := httptest.NewRecorder()
	c.ServeHTTP(w, httptest.NewRequest("GET", "/enrol/admission", nil))
	page := w.Body.String()
	w = httptest.NewRecorder()
	c.ServeHTTP(w, httptest.NewRequest("GET", "/enrol/quarantine", nil))
	page += w.Body.String()
	for _, want := range []string{"Maker &lt;b&gt;", "unproven", "lot 7", "Two units have one key", "asked for at the line station", "is genuine"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
}
