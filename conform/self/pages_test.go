// SPDX-License-Identifier: AGPL-3.0-only

package self

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/console/browsertest"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

// pages are the room's pages with somebody in front of them; nobody, when ctx is nil.
func pages(clk clock.Clock, found Found, ctx context.Context) *console.Console {
	c := console.New(console.Config{Clock: clk, Log: slog.New(slog.DiscardHandler), Menu: []string{"Law"}, SignIn: "/sign-in",
		Authenticate: func(r *http.Request) (context.Context, error) {
			if ctx == nil {
				return r.Context(), problem.Unauthenticated("This needs you to be signed in.")
			}
			return ctx, nil
		},
		Holds: tenant.Holds, Visitor: tenant.Visitor})
	New(Config{Clock: clk, Found: func(context.Context, string, Program) (Found, error) { return found, nil }}).Pages(c)
	return c
}

// site asks for a page.
func site(hand *clock.Hand, found Found, ctx context.Context) func(path string, header ...string) *httptest.ResponseRecorder {
	c := pages(hand, found, ctx)
	return func(path string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", path, nil)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		return w
	}
}

// Every document is public at its fixed address, the index names each with its digest, and what a reader has is not sent
// again. A robot is told to wait.
func TestDocumentsArePublic(t *testing.T) {
	hand := clock.NewHand(now)
	get := site(hand, Found{}, nil)
	var index struct {
		Documents []struct{ Path, SHA256 string }
	}
	if w := get(everything); w.Code != 200 || json.Unmarshal(w.Body.Bytes(), &index) != nil {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if len(index.Documents) != 8 {
		t.Errorf("the index names %d documents", len(index.Documents))
	}
	for _, d := range index.Documents {
		w := get(d.Path)
		sum := sha256.Sum256(w.Body.Bytes())
		if w.Code != 200 || hex.EncodeToString(sum[:]) != d.SHA256 || !slices.Contains(paths, d.Path) {
			t.Errorf("%s: %d, digest %x, the index says %s", d.Path, w.Code, sum, d.SHA256)
		}
		if again := get(d.Path, "If-None-Match", w.Header().Get("ETag")); again.Code != http.StatusNotModified {
			t.Errorf("%s again: %d", d.Path, again.Code)
		}
	}
	if w := get("/self/vex.json"); w.Code != 404 || !strings.Contains(w.Body.String(), "decided on no vulnerability") {
		t.Errorf("no statements: %d %s", w.Code, w.Body)
	}
	page := get("/self")
	for _, want := range []string{"What is open", "CRA Annex I Part II(8)", "Important, class I", "/self/sbom.json"} {
		if !strings.Contains(page.Body.String(), want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if strings.Contains(page.Body.String(), "What your feeds find") {
		t.Error("a stranger is told what the feeds find")
	}
	if w := get("/law/platform"); w.Code != http.StatusSeeOther {
		t.Errorf("a stranger at the page of those who signed in: %d", w.Code)
	}
	limited := 0
	for range int(limits.Burst) + 1 {
		if get("/self/policy").Code == http.StatusTooManyRequests {
			limited++
		}
	}
	if limited == 0 {
		t.Error("nobody is ever told to wait")
	}
	hand.Advance(time.Hour)
	if w := get("/self/policy"); w.Code != 200 {
		t.Errorf("an hour later: %d", w.Code)
	}
}

// Who signed in sees what the feeds find; silence is never said to be none.
func TestFindingsAreShownToInsiders(t *testing.T) {
	ann := tenant.WithActor(context.Background(), tenant.Actor{ID: "per_ann", Kind: tenant.KindPerson, Tenant: "ten_a", Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: "ten_a"}}})
	for _, c := range []struct {
		found Found
		want  string
	}{
		{Found{}, "No feed of vulnerability records was imported"},
		{Found{Feeds: 1, Newest: now}, "watched in the first tenant"},
		{Found{Feeds: 2, Newest: now, Release: "rel_1", Open: []string{"CVE-2027-1"}, Decided: 3}, "1 finding open and 3 decided to be harmless, in 2 feeds"},
	} {
		body := site(clock.NewHand(now), c.found, ann)("/law/platform").Body.String()
		if !strings.Contains(body, c.want) {
			t.Errorf("%+v: %s", c.found, body)
		}
	}
}

// TestSelfInABrowser: the public page and the one of those who signed in are accessible and quiet, on a small screen too.
func TestSelfInABrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a browser")
	}
	ann := tenant.WithActor(context.Background(), tenant.Actor{ID: "per_ann", Kind: tenant.KindPerson, Tenant: "ten_a", Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: "ten_a"}}})
	l, origin := browsertest.Listen(t)
	browsertest.Serve(t, l, pages(clock.System, Found{Feeds: 2, Newest: now, Release: "rel_1", Open: []string{"CVE-2027-1"}, Decided: 3}, ann))
	b := browsertest.Open(t, origin)
	for i, width := range []int64{1280, 390} {
		b.Size(width, 844)
		for _, path := range []string{"/self", "/law/platform"} {
			b.Go(path)
			b.Accessible()
			b.Shots(fmt.Sprintf("self%s-%d", strings.ReplaceAll(path, "/", "-"), i))
		}
	}
	b.QuietLog()
}
