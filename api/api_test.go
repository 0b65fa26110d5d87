// SPDX-License-Identifier: AGPL-3.0-only

package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
)

var golden = flag.Bool("golden", false, "write the golden files anew")

type who struct{}

// door is an API with a few operations of every shape, served over real HTTP.
type door struct {
	*API
	url string
	log *bytes.Buffer
	clk *clock.Hand
}

func open(t *testing.T, change ...func(*Config)) *door {
	t.Helper()
	d := &door{log: &bytes.Buffer{}, clk: clock.NewHand(time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC))}
	cfg := Config{
		Title: "Test", Version: "1", Clock: d.clk, Log: slog.New(slog.NewTextHandler(d.log, nil)), TokenKey: bytes.Repeat([]byte{7}, 32),
		Authenticate: func(r *http.Request) (context.Context, error) {
			if b := Bearer(r); b != "" {
				return context.WithValue(r.Context(), who{}, b), nil
			}
			return nil, problem.Unauthenticated("This needs you to be signed in.")
		},
		Holds:  func(ctx context.Context, verb string) bool { return ctx.Value(who{}) != "nobody" },
		Caller: func(ctx context.Context) string { return ctx.Value(who{}).(string) },
	}
	for _, c := range change {
		c(&cfg)
	}
	d.API = New(cfg)
	d.operations()
	mux := http.NewServeMux()
	d.Mount(mux)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	d.url = s.URL
	return d
}

type thing struct {
	ID   string `json:"id"`
	Name string `json:"name" minLength:"2" maxLength:"10"`
	Size int    `json:"size,omitempty" minimum:"1"`
}

func (d *door) operations() {
	Handle(d.API, Op{ID: "list-things", Method: "GET", Path: "/v1/things", Verb: "thing.read", Stage: "test"},
		func(ctx context.Context, in *struct{ Paging }) (*List[thing], error) {
			after, err := in.After(d.API)
			if err != nil {
				return nil, err
			}
			var rows []thing
			for i := range 250 {
				if id := fmt.Sprintf("thing_%03d", i); id > after && len(rows) <= in.Size() {
					rows = append(rows, thing{ID: id, Name: "a thing"})
				}
			}
			return More(d.API, in.Paging, rows, func(t thing) string { return t.ID }), nil
		})
	Handle(d.API, Op{ID: "get-thing", Method: "GET", Path: "/v1/things/{id}", Verb: "thing.read", Stage: "test"},
		func(ctx context.Context, in *struct {
			ID string `path:"id"`
		}) (*Out[thing], error) {
			switch in.ID {
			case "broken":
				return nil, errors.New("disk on fire at /dev/sda")
			case "panics":
				panic("a bug")
			case "refused":
				return nil, problem.Forbidden("update.floor", "Version 3 lies below the floor.").Hint("Use version 4.")
			case "thing_1":
				return &Out[thing]{ETag: ETag("7"), Body: thing{ID: in.ID, Name: "one"}}, nil
			}
			return nil, problem.NotFound("There is no thing %s.", in.ID)
		})
	Handle(d.API, Op{ID: "create-thing", Method: "POST", Path: "/v1/things", Verb: "thing.write", Stage: "test", Status: 201},
		func(ctx context.Context, in *struct{ Body thing }) (*Out[thing], error) {
			return &Out[thing]{Location: "/v1/things/" + in.Body.ID, Body: in.Body}, nil
		})
	Handle(d.API, Op{ID: "change-thing", Method: "PUT", Path: "/v1/things/{id}", Verb: "thing.write", Stage: "test"},
		func(ctx context.Context, in *struct {
			ID string `path:"id"`
			IfMatch
			Body thing
		}) (*struct{}, error) {
			return nil, in.Check(ETag("7"))
		})
	Raw(d.API, Op{ID: "upload", Method: "POST", Path: "/v1/things/{id}/blob", Verb: "thing.write", Stage: "test", MaxBody: 64},
		func(w http.ResponseWriter, r *http.Request) error {
			b, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "%s %d", r.PathValue("id"), len(b))
			return nil
		})
	Handle(d.API, Op{ID: "ping", Method: "GET", Path: "/v1/ping", Public: true, Stage: "test"},
		func(ctx context.Context, _ *struct{}) (*Out[string], error) { return One("pong"), nil })
}

type answer struct {
	*http.Response
	body string
}

func (d *door) do(t *testing.T, method, path, body string, header ...string) answer {
	t.Helper()
	r, err := http.NewRequest(method, d.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer tester")
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res, string(b)}
}

var requestIDs = regexp.MustCompile(`req_[A-Z0-9]+`)

// TestProblems compares every kind of refusal, byte by byte, with testdata/problems.
func TestProblems(t *testing.T) {
	d := open(t)
	for _, c := range []struct {
		name, method, path, body string
		header                   []string
		status                   int
	}{
		{"invalid-fields", "POST", "/v1/things", `{"id":"x","name":"y","size":0,"colour":"red"}`, nil, 400},
		{"invalid-json", "POST", "/v1/things", `{"id":`, nil, 400},
		{"no-body", "POST", "/v1/things", ``, nil, 400},
		{"page-size", "GET", "/v1/things?page_size=5000", ``, nil, 400},
		{"page-token", "GET", "/v1/things?page_token=AAAA", ``, nil, 400},
		{"unauthenticated", "GET", "/v1/things", ``, []string{"Authorization", ""}, 401},
		{"verb", "GET", "/v1/things", ``, []string{"Authorization", "Bearer nobody"}, 403},
		{"rule", "GET", "/v1/things/refused", ``, nil, 403},
		{"cross-origin", "POST", "/v1/things", `{"id":"x","name":"name"}`, []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"not-found", "GET", "/v1/things/thing_9", ``, nil, 404},
		{"no-operation", "GET", "/v1/nothing", ``, nil, 404},
		{"precondition", "PUT", "/v1/things/thing_1", `{"id":"x","name":"name"}`, []string{"If-Match", `"6"`}, 412},
		{"too-large", "POST", "/v1/things/a/blob", strings.Repeat("x", 65), nil, 413},
		{"too-large-json", "POST", "/v1/things", `{"id":"` + strings.Repeat("x", DefaultMaxBody) + `"}`, nil, 413},
		{"internal", "GET", "/v1/things/broken", ``, nil, 500},
		{"panic", "GET", "/v1/things/panics", ``, nil, 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := d.do(t, c.method, c.path, c.body, c.header...)
			if a.StatusCode != c.status || a.Header.Get("Content-Type") != "application/problem+json" {
				t.Fatalf("%s %s: status %d, type %q, want %d: %s", c.method, c.path, a.StatusCode, a.Header.Get("Content-Type"), c.status, a.body)
			}
			var b bytes.Buffer
			if err := json.Indent(&b, []byte(requestIDs.ReplaceAllString(a.body, "req_0")), "", "  "); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", "problems", c.name+".json")
			if *golden {
				os.MkdirAll(filepath.Dir(file), 0o755)
				os.WriteFile(file, b.Bytes(), 0o644)
			}
			want, err := os.ReadFile(file)
			if err != nil || b.String() != string(want) {
				t.Fatalf("problem differs from %s (%v); refresh with -golden\n%s", file, err, b.String())
			}
		})
	}
	if !strings.Contains(d.log.String(), "disk on fire") || strings.Contains(d.log.String(), "lies below") {
		t.Errorf("the log must hold what failed inside, and only that:\n%s", d.log)
	}
}

func TestSuccess(t *testing.T) {
	d := open(t)
	if a := d.do(t, "POST", "/v1/things", `{"id":"x","name":"name"}`); a.StatusCode != 201 || a.Header.Get("Location") != "/v1/things/x" || strings.Contains(a.body, "$schema") {
		t.Errorf("create: %d %s", a.StatusCode, a.body)
	}
	if a := d.do(t, "POST", "/v1/things/a/blob", "12345"); a.body != "a 5" {
		t.Errorf("raw: %d %q", a.StatusCode, a.body)
	}
	if a := d.do(t, "PUT", "/v1/things/thing_1", `{"id":"x","name":"name"}`, "If-Match", `"7"`); a.StatusCode != 204 {
		t.Errorf("change: %d %s", a.StatusCode, a.body)
	}
	if a := d.do(t, "GET", "/v1/ping", "", "Authorization", ""); a.body != "\"pong\"\n" {
		t.Errorf("public: %d %q", a.StatusCode, a.body)
	}
	a := d.do(t, "GET", "/v1/ping", "")
	for h, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"} {
		if got := a.Header.Get(h); got != want {
			t.Errorf("%s: %q, want %q", h, got, want)
		}
	}
}

func TestETag(t *testing.T) {
	d := open(t)
	first := d.do(t, "GET", "/v1/things/thing_1", "")
	if first.Header.Get("ETag") != `"7"` {
		t.Fatalf("ETag %q", first.Header.Get("ETag"))
	}
	for _, known := range []string{`"7"`, `"5", "7"`, `W/"7"`, `*`} {
		if a := d.do(t, "GET", "/v1/things/thing_1", "", "If-None-Match", known); a.StatusCode != 304 || a.body != "" {
			t.Errorf("If-None-Match %s: %d %q, want 304", known, a.StatusCode, a.body)
		}
	}
	if a := d.do(t, "GET", "/v1/things/thing_1", "", "If-None-Match", `"6"`); a.StatusCode != 200 || a.body != first.body {
		t.Errorf("changed: %d", a.StatusCode)
	}
}

func TestPagingReachesEverythingOnce(t *testing.T) {
	d := open(t)
	seen, path := map[string]bool{}, "/v1/things?page_size=70"
	for pages := 0; ; pages++ {
		var p Page[thing]
		if err := json.Unmarshal([]byte(d.do(t, "GET", path, "").body), &p); err != nil {
			t.Fatal(err)
		}
		for _, x := range p.Items {
			if seen[x.ID] {
				t.Fatalf("%s came twice", x.ID)
			}
			seen[x.ID] = true
		}
		if p.Next == "" {
			if pages != 3 {
				t.Errorf("%d pages", pages+1)
			}
			break
		}
		path = "/v1/things?page_size=70&page_token=" + p.Next
	}
	if len(seen) != 250 {
		t.Errorf("%d items, want 250", len(seen))
	}
}

func TestPageTokenIsAuthenticated(t *testing.T) {
	d := open(t)
	token := d.Token("thing_100")
	if k, err := d.Key(token); err != nil || k != "thing_100" {
		t.Fatalf("%q, %v", k, err)
	}
	for i := range token {
		b := []byte(token)
		b[i] ^= 1
		if _, err := d.Key(string(b)); err == nil && string(b) != token {
			t.Errorf("a token with character %d changed was accepted", i)
		}
	}
	other := New(Config{Clock: d.clk})
	if _, err := other.Key(token); err == nil {
		t.Error("a token of another key was accepted")
	}
}

func TestOperationsDeclareWhoMay(t *testing.T) {
	d := open(t)
	h := func(context.Context, *struct{}) (*struct{}, error) { return nil, nil }
	for _, op := range []Op{
		{ID: "a", Method: "GET", Path: "/v1/a"},
		{ID: "a", Method: "GET", Path: "/v1/a", Verb: "x.read", Public: true},
		{ID: "a", Method: "GET", Path: "/a", Public: true},
		{Method: "GET", Path: "/v1/a", Public: true},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v was registered", op)
				}
			}()
			Handle(d.API, op, h)
		}()
	}
	var doc struct {
		OpenAPI string                                `json:"openapi"`
		Paths   map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal([]byte(d.do(t, "GET", "/openapi.json", "").body), &doc); err != nil || doc.OpenAPI != "3.1.0" {
		t.Fatalf("openapi %q: %v", doc.OpenAPI, err)
	}
	for _, op := range d.Operations() {
		var o struct {
			ID     string           `json:"operationId"`
			Verb   string           `json:"x-verb"`
			Public bool             `json:"x-public"`
			Sec    []map[string]any `json:"security"`
		}
		if err := json.Unmarshal(doc.Paths[op.Path][strings.ToLower(op.Method)], &o); err != nil || o.ID != op.ID {
			t.Errorf("%s %s is not in the document: %v", op.Method, op.Path, err)
		}
		if (o.Verb == "") != o.Public || (len(o.Sec) == 0) != o.Public {
			t.Errorf("%s declares verb %q, public %v, security %v", op.ID, o.Verb, o.Public, o.Sec)
		}
		if a := d.do(t, op.Method, strings.NewReplacer("{id}", "x").Replace(op.Path), "", "Authorization", ""); !op.Public && a.StatusCode != 401 {
			t.Errorf("%s answered %d to a stranger", op.ID, a.StatusCode)
		}
	}
}

func TestRates(t *testing.T) {
	d := open(t, func(c *Config) { c.Limits = Limits{PerSecond: 2, Burst: 60} })
	last := answer{}
	for range 61 {
		last = d.do(t, "GET", "/v1/ping", "")
	}
	if last.StatusCode != 429 || last.Header.Get("Retry-After") != "1" || !strings.Contains(last.body, "/problems/rate-limited") {
		t.Fatalf("%d, Retry-After %q: %s", last.StatusCode, last.Header.Get("Retry-After"), last.body)
	}
	d.clk.Advance(time.Second)
	if a := d.do(t, "GET", "/v1/ping", ""); a.StatusCode != 200 {
		t.Errorf("after a second: %d", a.StatusCode)
	}
	d.clk.Advance(time.Hour)
	guesses := 0
	for d.do(t, "GET", "/v1/things", "", "Authorization", "").StatusCode == 401 {
		guesses++
	}
	if guesses > 10 {
		t.Errorf("%d guesses at once", guesses)
	}
	for range 20 {
		if a := d.do(t, "GET", "/v1/things", ""); a.StatusCode != 200 {
			t.Fatalf("who guesses locks out a neighbour: %d %s", a.StatusCode, a.body)
		}
	}
}

func TestProblemPages(t *testing.T) {
	d := open(t)
	for kind, k := range problem.Kinds {
		if a := d.do(t, "GET", "/problems/"+string(kind), ""); a.StatusCode != 200 || !strings.Contains(a.body, k.Title) {
			t.Errorf("%s: %d", kind, a.StatusCode)
		}
	}
}

func FuzzKey(f *testing.F) {
	a := New(Config{Clock: clock.System, TokenKey: bytes.Repeat([]byte{1}, 32)})
	f.Add("")
	f.Add(a.Token("dev_1"))
	f.Add("AAAAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, token string) {
		if key, err := a.Key(token); err == nil && a.Token(key) != token {
			t.Errorf("token %q gives key %q, which was not made here", token, key)
		}
	})
}
