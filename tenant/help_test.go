// SPDX-License-Identifier: AGPL-3.0-only

package tenant_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

var schema = []store.Migrations{audit.Schema, api.Schema, tenant.Schema}

// house is the room with both doors before it, served over TLS.
type house struct {
	*tenant.Service
	t   *testing.T
	db  *store.DB
	clk *clock.Hand
	api *api.API
	srv *httptest.Server
}

func open(t *testing.T, db *store.DB, clk *clock.Hand) *house {
	t.Helper()
	h := &house{t: t, db: db, clk: clk}
	mux := http.NewServeMux()
	h.srv = httptest.NewTLSServer(mux)
	t.Cleanup(h.srv.Close)
	h.srv.URL = strings.Replace(h.srv.URL, "127.0.0.1", "localhost", 1)
	var err error
	if h.Service, err = tenant.New(tenant.Config{DB: db, Clock: clk, Log: testLogger(t), Origins: []string{h.srv.URL}}); err != nil {
		t.Fatal(err)
	}
	c := console.New(console.Config{Clock: clk, Log: testLogger(t), Menu: []string{"Today", "Access"}, SignIn: tenant.SignInPath,
		Authenticate: h.Authenticate, Holds: tenant.Holds, Visitor: tenant.Visitor})
	h.Pages(c)
	h.api = api.New(api.Config{Title: "Test", DB: db, Clock: clk, Log: testLogger(t), Authenticate: h.Authenticate, Holds: tenant.Holds, Caller: tenant.Caller})
	h.Routes(h.api)
	h.api.Mount(mux)
	mux.Handle("/host/", http.StripPrefix("/host", h.HostHandler()))
	mux.Handle("/", c)
	return h
}

// each runs fn on both engines at a clock that stands still.
func each(t *testing.T, fn func(t *testing.T, h *house)) {
	clk := clock.NewHand(time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC))
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) { fn(t, open(t, db, clk)) }, func(c *store.Config) { c.Clock = clk })
}

// browser keeps cookies; token, if set, is sent instead.
type browser struct {
	h      *house
	client *http.Client
	token  string
}

func (h *house) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		h.t.Fatal(err)
	}
	tr := h.srv.Client().Transport.(*http.Transport).Clone()
	tr.TLSClientConfig.ServerName = "example.com" // the name in httptest's certificate
	h.t.Cleanup(tr.CloseIdleConnections)
	return &browser{h: h, client: &http.Client{Jar: jar, Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

func (h *house) with(token string) *browser {
	b := h.browser()
	b.token = token
	return b
}

func (b *browser) do(method, path string, body []byte) (int, string) {
	b.h.t.Helper()
	r, err := http.NewRequest(method, b.h.srv.URL+path, bytes.NewReader(body))
	if err != nil {
		b.h.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if b.token != "" {
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	res, err := b.client.Do(r)
	if err != nil {
		b.h.t.Fatal(err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil {
		b.h.t.Fatal(err)
	}
	return res.StatusCode, string(out)
}

// post sends v as JSON and returns the status and the answer.
func (b *browser) post(path string, v any) (int, string) {
	b.h.t.Helper()
	return b.send("POST", path, v)
}

// send sends v as JSON with another method.
func (b *browser) send(method, path string, v any) (int, string) {
	b.h.t.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		b.h.t.Fatal(err)
	}
	return b.do(method, path, body)
}

// enter follows a link with a passkey and returns the status of the last answer.
func (b *browser) enter(link, name, organisation string, key *authenticator) (int, string) {
	b.h.t.Helper()
	status, options := b.post(link+"/begin", map[string]string{"name": name, "organisation": organisation})
	if status != 200 {
		return status, options
	}
	return b.do("POST", link+"/finish", key.create(b.h.t, []byte(options)))
}

func (b *browser) signIn(key *authenticator) (int, string) {
	b.h.t.Helper()
	status, options := b.post("/sign-in/begin", nil)
	if status != 200 {
		return status, options
	}
	return b.do("POST", "/sign-in/finish", key.get(b.h.t, []byte(options)))
}

func (b *browser) me() (tenant.Me, int) {
	b.h.t.Helper()
	status, body := b.do("GET", "/v1/me", nil)
	var m tenant.Me
	if status == 200 {
		if err := json.Unmarshal([]byte(body), &m); err != nil {
			b.h.t.Fatal(err)
		}
	}
	return m, status
}

// hostToken makes a token as the administrator of the machine does.
func (h *house) hostToken(tenantName, role string) string {
	h.t.Helper()
	status, body := h.browser().post("/host/token", map[string]any{"tenant": tenantName, "role": role, "create": true})
	var out struct{ Token string }
	if err := json.Unmarshal([]byte(body), &out); err != nil || status != 200 {
		h.t.Fatalf("token: %d %s %v", status, body, err)
	}
	return out.Token
}

// leaves are the kinds of all audit entries, sorted.
func (h *house) leaves() (kinds []string) {
	h.t.Helper()
	rows, err := h.db.Query(h.t.Context(), `SELECT kind FROM audit_entry`)
	if err != nil {
		h.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var k string
		if err := rows.Scan(&k); err != nil {
			h.t.Fatal(err)
		}
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	return kinds
}

// testLogger writes the platform's log into the test's.
func testLogger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(writer{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

type writer struct{ t testing.TB }

func (w writer) Write(b []byte) (int, error) { w.t.Log(string(b)); return len(b), nil }

// handler is the room's doors without a network, for fuzzing.
type handler struct{ http.Handler }

func openHandler(t testing.TB, db *store.DB) handler {
	s, err := tenant.New(tenant.Config{DB: db, Clock: leaping{}, Log: testLogger(t), Origins: []string{"https://localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	c := console.New(console.Config{Clock: clock.System, Log: testLogger(t), SignIn: tenant.SignInPath, Authenticate: s.Authenticate, Holds: tenant.Holds, Visitor: tenant.Visitor})
	s.Pages(c)
	return handler{c}
}

// leaping is a clock that nobody can wait for: so much time passes between two requests that no rate limits them.
type leaping struct{ clock.Clock }

var leaps atomic.Int64

func (leaping) Now() time.Time { return time.Unix(1e9+leaps.Add(1), 0) }

func (h handler) request(method, path string, body []byte, cookies []*http.Cookie) *http.Response {
	r := httptest.NewRequest(method, "https://localhost"+path, bytes.NewReader(body))
	for _, c := range cookies {
		r.AddCookie(c)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}
