// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product/eox"
	"github.com/openthings-platform/openthings/tenant"
)

// world asks the public pages as a stranger.
func (h *shop) world() func(path string, headers ...string) *httptest.ResponseRecorder {
	c := console.New(console.Config{Clock: clock.System, Log: slog.New(slog.DiscardHandler), Menu: []string{"Products"}, Holds: tenant.Holds, Visitor: func(context.Context) string { return "" },
		Authenticate: func(*http.Request) (context.Context, error) { return nil, errors.New("a stranger") }})
	h.Pages(c)
	return func(path string, headers ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", path, nil)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		return w
	}
}

// Strangers read what was published, and nothing else: no draft, no id of people, no product that is not published.
func TestPublicPage(t *testing.T) {
	eachShop(t, func(t *testing.T, h *shop) {
		get := h.world()
		page := "/p/" + h.product.ID
		for _, path := range []string{page, page + "/openeox.json", page + "/changes.json", "/p/prd_nobody", "/p/" + h.rev.ID} {
			if w := get(path); w.Code != 404 || strings.Contains(w.Body.String(), "Lamp") {
				t.Errorf("%s while nothing is published: %d", path, w.Code)
			}
		}
		h.publish(sold("2031-12"))
		draft := sold("2035-06")
		draft.SecuritySupport = "not for the world yet"
		if _, err := h.Prepare(t.Context(), "ten_a", h.first().ID, draft, ann.ID); err != nil {
			t.Fatal(err)
		}
		w := get(page)
		body := w.Body.String()
		for _, want := range []string{"Security updates until the end of December 2031", "Lamp Works", "15 January 2026"} {
			if !strings.Contains(body, want) {
				t.Errorf("the page lacks %q", want)
			}
		}
		for _, secret := range []string{"June 2035", "2035-06", "not for the world", ann.ID, "ten_a", "Ann Maker"} {
			if strings.Contains(body, secret) {
				t.Errorf("the page tells %q", secret)
			}
		}
		if csp := w.Header().Get("Content-Security-Policy"); w.Code != 200 || !strings.Contains(csp, "default-src 'none'") || strings.Contains(body, "<script") {
			t.Errorf("%d %s", w.Code, csp)
		}
		for lang, want := range map[string]string{"de-AT,de;q=0.9": "bis Ende Dezember 2031", "fr, en;q=0.5": "until the end of December 2031", "": "until the end of"} {
			if body := get(page, "Accept-Language", lang).Body.String(); !strings.Contains(body, want) {
				t.Errorf("for %q the page lacks %q", lang, want)
			}
		}
		if body := get(page+"?lang=de", "Accept-Language", "en").Body.String(); !strings.Contains(body, `<html lang="de">`) {
			t.Error("the language that was chosen is not taken")
		}
		feed := page + "/changes.json"
		tag := get(feed).Header().Get("ETag")
		if w := get(feed, "If-None-Match", tag); tag == "" || w.Code != 304 || w.Body.Len() > 0 {
			t.Errorf("the feed with its tag %s: %d", tag, w.Code)
		}
		h.publish(sold("2032-12"))
		if w := get(feed, "If-None-Match", tag); w.Code != 200 {
			t.Errorf("after an extension, with the old tag: %d", w.Code)
		}
		h.hand.Set(sold("2032-12").End().Add(time.Millisecond))
		if body := get(page).Body.String(); !strings.Contains(body, "Security updates have ended: December 2032") || !strings.Contains(body, "at a growing risk") {
			t.Error("after the end the page does not say so")
		}
	})
}

// What machines read is valid OpenEoX Core about the published end, and the feed of changes keeps every version, signed.
func TestPublicStatements(t *testing.T) {
	eachShop(t, func(t *testing.T, h *shop) {
		get := h.world()
		d := sold("2031-12")
		d.SalesEnd = "2026-12-31"
		h.publish(d)
		h.hand.Advance(time.Hour)
		d.SupportEnd = "2033-12"
		h.publish(d)
		var out struct{ Statements []Statement }
		if err := json.Unmarshal(get("/p/"+h.product.ID+"/openeox.json").Body.Bytes(), &out); err != nil || len(out.Statements) != 1 {
			t.Fatalf("%+v %v", out, err)
		}
		s := out.Statements[0]
		core, err := eox.Parse(s.Core)
		if err != nil || len(eox.Validate(s.Core)) > 0 {
			t.Fatalf("%s: %v %v", s.Core, err, eox.Validate(s.Core))
		}
		if end, ok := core.EndOfSecuritySupport.Time(); !ok || !end.Equal(d.End()) || core.EndOfLife != eox.TBA {
			t.Errorf("%s", s.Core)
		}
		if s.PURL != "pkg:generic/lamp@A" || s.Maker != "Lamp Works" || s.Cohort.First != d.FirstPlaced {
			t.Errorf("%+v", s)
		}
		var feed struct{ Changes []Change }
		if err := json.Unmarshal(get("/p/"+h.product.ID+"/changes.json").Body.Bytes(), &feed); err != nil || len(feed.Changes) != 2 || feed.Changes[0].Version != 2 {
			t.Fatalf("%+v %v", feed, err)
		}
		for _, c := range feed.Changes {
			if _, err := h.cfg.Verify([]byte(c.Note)); err != nil || len(eox.Validate(c.Statement.Core)) > 0 {
				t.Errorf("version %d: %v", c.Version, err)
			}
		}
	})
}

// One address cannot keep the platform busy with its public pages.
func TestPublicPageIsLimited(t *testing.T) {
	eachShop(t, func(t *testing.T, h *shop) {
		get := h.world()
		h.publish(sold("2031-12"))
		last := 0
		for range publicBurst + 1 {
			w := get("/p/" + h.product.ID + "/openeox.json")
			last = w.Code
			if last == 429 && w.Header().Get("Retry-After") == "" {
				t.Error("nobody says when to come again")
			}
		}
		if last != 429 {
			t.Errorf("after %d requests at once: %d", publicBurst+1, last)
		}
		if w := get("/p/" + h.product.ID); w.Code != 429 {
			t.Errorf("the page itself: %d", w.Code)
		}
		h.hand.Advance(time.Second)
		if w := get("/p/" + h.product.ID); w.Code != 200 {
			t.Errorf("a second later: %d", w.Code)
		}
	})
}

// All 14 items of Annex II stand on the page, or nothing is published; each is filled by a record, a person, or a reason.
func TestInformation(t *testing.T) {
	eachShop(t, func(t *testing.T, h *shop) {
		ctx := t.Context()
		rows := law.Annex(annexII)
		if len(rows) != 14 {
			t.Fatalf("%d items", len(rows))
		}
		for _, lang := range Languages {
			for _, row := range rows {
				if publicWords[lang][row.ID] == "" {
					t.Errorf("%s has no word for %s", lang, row.ID)
				}
			}
			if len(publicWords[lang]) != len(publicWords[Languages[0]]) {
				t.Errorf("%s has %d words, %s %d", lang, len(publicWords[lang]), Languages[0], len(publicWords[Languages[0]]))
			}
		}
		before, err := h.Readiness(ctx, "ten_a", h.product.ID)
		if err != nil || before.Done >= before.Of {
			t.Fatalf("%+v %v", before, err)
		}
		h.publish(sold("2031-12"))
		for name, i := range map[string]Item{
			"not applicable without a reason":     {ID: annexII + ".13", Absent: true},
			"what always applies, not applicable": {ID: annexII + ".2", Absent: true, Text: "x"},
			"too long":                            {ID: annexII + ".2", Text: strings.Repeat("x", 16001)},
		} {
			if err := h.SetItem(ctx, "ten_a", h.product.ID, "en", i, ann.ID); !problem.Is(err, problem.KindInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for n, row := range rows {
			if row.ID == itemName || row.ID == itemSupport {
				continue // the records say it
			}
			if _, err := h.PublishPage(ctx, "ten_a", h.product.ID, ann.ID); !problem.Is(err, problem.KindForbidden) || problem.Of(err).Rule != RuleInformation {
				t.Errorf("published without item %s: %v", row.ID, err)
			}
			i := Item{ID: row.ID, Text: "text of " + row.ID + " <b>\nhttps://lamps.example/x", Absent: n == 12}
			if err := h.SetItem(ctx, "ten_a", h.product.ID, "en", i, ann.ID); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := h.PublishPage(ctx, "ten_a", h.product.ID, ann.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := h.SetAvailability(ctx, "ten_a", h.product.ID, []string{"DE"}, ann.ID); err != nil {
			t.Fatal(err)
		}
		if r, err := h.Readiness(ctx, "ten_a", h.product.ID); err != nil || r.Done != r.Of || r.Of != before.Of {
			t.Errorf("%+v %v", r, err)
		}
		body := h.world()("/p/" + h.product.ID).Body.String()
		for _, row := range rows {
			if row.ID != itemName && row.ID != itemSupport && !strings.Contains(body, "text of "+row.ID+" &lt;b&gt;") {
				t.Errorf("the page lacks %s", row.ID)
			}
		}
		for _, want := range []string{`<a href="https://lamps.example/x">`, "Does not apply: text of cra.ii.13", "<code>lamp</code>", "8(f)"} {
			if !strings.Contains(body, want) {
				t.Errorf("the page lacks %s", want)
			}
		}
		if err := h.SetItem(ctx, "ten_b", h.product.ID, "en", Item{ID: annexII + ".2", Text: "x"}, "per_x"); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("another tenant writes: %v", err)
		}
	})
}
