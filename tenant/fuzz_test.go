// SPDX-License-Identifier: AGPL-3.0-only

package tenant_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

// FuzzAuthenticate sends any Authorization header and any cookie: a stranger is a stranger, and nothing fails inside.
func FuzzAuthenticate(f *testing.F) {
	db := storetest.Open(f, storetest.SQLiteURL(f), []store.Migrations{tenant.Schema})
	s, err := tenant.New(tenant.Config{DB: db, Clock: clock.NewHand(time.Unix(1e9, 0)), Log: testLogger(f), Origins: []string{"https://localhost"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("Bearer ot_01m806kyg1pm7r9zst3ceeksd8_kqmfg6tmymuqowtkwtf557a3axy5q6vwavhs3kvdqewsaaekr5yq", "")
	f.Add("bearer ot__", "x")
	f.Add("Basic YTpi", "AAAA")
	f.Add("BeArer ot_\x82_", "0") // not UTF-8
	f.Add("", "' OR 1=1 --")
	f.Fuzz(func(t *testing.T, header, cookie string) {
		r := httptest.NewRequest("GET", "/", nil)
		if header != "" {
			r.Header.Set("Authorization", header)
		}
		r.AddCookie(&http.Cookie{Name: "__Host-session", Value: cookie})
		if _, err := s.Authenticate(r); !problem.Is(err, problem.KindUnauthenticated) {
			t.Errorf("%q, %q: %v", header, cookie, err)
		}
	})
}

// FuzzPasskeyAnswer sends any answer to a sign-in that has begun: it is refused, and nothing fails inside.
func FuzzPasskeyAnswer(f *testing.F) {
	db := storetest.Open(f, storetest.SQLiteURL(f), schema)
	h := openHandler(f, db)
	key := newAuthenticator(f, "https://localhost")
	key.handle = make([]byte, 64)
	f.Add(key.get(f, []byte(`{"publicKey":{"challenge":"AAAA","rpId":"localhost"}}`)))
	f.Add([]byte(`{"id":"AA","rawId":"AA","type":"public-key","response":{}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		begun := h.request("POST", "/sign-in/begin", nil, nil)
		got := h.request("POST", "/sign-in/finish", answer, begun.Cookies())
		if got.StatusCode < 400 || got.StatusCode > 499 {
			t.Errorf("%d for %q", got.StatusCode, answer)
		}
	})
}
