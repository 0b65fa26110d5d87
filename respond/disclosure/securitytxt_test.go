// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

func TestSecurityTxtServed(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		get := func(host string) *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodGet, "https://"+host+"/.well-known/security.txt", nil)
			h.SecurityTxt(w, r)
			return w
		}
		if w := get("iot.example:8443"); w.Code != http.StatusNotFound {
			t.Errorf("%d without a contact", w.Code)
		}
		ct := Contact{Contacts: []string{"mailto:psirt@example.com", "https://example.com/report"}, Policy: "https://example.com/cvd", PreferredLocales: []string{"en", "de"}}
		if err := h.SetContact(ann, ct); err != nil {
			t.Fatal(err)
		}
		w := get("iot.example:8443")
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Fatalf("%d %v", w.Code, w.Header())
		}
		fields := map[string]string{}
		for line := range strings.Lines(w.Body.String()) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			fields[name] = value
		}
		expires := at(t, fields["Expires"])
		if !expires.After(h.hand.Now().AddDate(0, 5, 0)) || !expires.Before(h.hand.Now().AddDate(1, 0, 0)) {
			t.Errorf("expires %s", expires)
		}
		if fields["Canonical"] != "https://iot.example:8443/.well-known/security.txt" || fields["Preferred-Languages"] != "en, de" || fields["Policy"] != ct.Policy || !strings.HasPrefix(w.Body.String(), "Contact: mailto:psirt@example.com\n") {
			t.Error(w.Body)
		}
		// A second tenant with a host of its own takes nothing away; one without makes it open who answers elsewhere.
		other := tenant.WithActor(t.Context(), tenant.Actor{ID: "per_mal", Kind: tenant.KindPerson, Tenant: "ten_other", Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: "ten_other"}}})
		ct.Hosts = []string{"other.example"}
		if err := h.SetContact(other, ct); err != nil {
			t.Fatal(err)
		}
		if w := get("other.example"); w.Code != http.StatusOK || get("iot.example").Code != http.StatusOK {
			t.Error("the host does not decide")
		}
		if err := h.SetContact(ann, ct); !problem.Is(err, problem.KindConflict) {
			t.Errorf("two tenants answer for one host: %v", err)
		}
		ct.Hosts = nil
		if err := h.SetContact(other, ct); err != nil {
			t.Fatal(err)
		}
		if get("other.example").Code != http.StatusNotFound {
			t.Error("one of two tenants without a host answers for all")
		}
	})
}

func TestContactRefused(t *testing.T) {
	for name, c := range map[string]Contact{
		"none":      {},
		"plain":     {Contacts: []string{"psirt@example.com"}},
		"http":      {Contacts: []string{"http://example.com"}},
		"injection": {Contacts: []string{"mailto:a@example.com\nContact: mailto:mallory@example.net"}},
		"space":     {Contacts: []string{"mailto:a@example.com b"}},
		"policy":    {Contacts: []string{"mailto:a@example.com"}, Policy: "javascript:alert(1)"},
		"language":  {Contacts: []string{"mailto:a@example.com"}, PreferredLocales: []string{"en\nX: y"}},
		"host":      {Contacts: []string{"mailto:a@example.com"}, Hosts: []string{"a/b"}},
	} {
		if err := c.Check(); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzSecurityTxt: whatever passes Check makes a file with one field a line.
func FuzzSecurityTxt(f *testing.F) {
	f.Add("mailto:a@example.com", "https://example.com/cvd", "en")
	f.Add("https://example.com/?a=b#c", "", "de-AT")
	f.Add("tel:+49-30-1", "https://example.com/%0aContact", "")
	f.Fuzz(func(t *testing.T, contact, policy, lang string) {
		c := Contact{Contacts: []string{contact}, Policy: policy}
		want := 3
		if policy != "" {
			want++
		}
		if lang != "" {
			c.PreferredLocales = []string{lang}
			want++
		}
		if c.Check() != nil {
			return
		}
		text := c.Text("iot.example", time.Unix(1.7e9, 0))
		if n := strings.Count(text, "\n"); n != want || strings.ContainsAny(text, "\r\x00") {
			t.Fatalf("%d lines, want %d: %q", n, want, text)
		}
	})
}
