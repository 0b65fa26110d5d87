// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/tenant"
)

// TestKeptAnswersAge: an answer is used for twenty times as long as it took, at least a second, and not a moment longer.
func TestKeptAnswersAge(t *testing.T) {
	for _, c := range []struct{ took, holds time.Duration }{{0, time.Second}, {10 * time.Millisecond, time.Second}, {3 * time.Second, time.Minute}} {
		hand := clock.NewHand(day0)
		k := kept[int]{took: func(time.Time) time.Duration { return c.took }}
		n := 0
		ask := func(key string) (int, time.Time) {
			t.Helper()
			v, at, err := k.get(hand.Now, key, func() (int, error) { n++; return n, nil })
			if err != nil {
				t.Fatal(err)
			}
			return v, at
		}
		ask("a")
		hand.Advance(c.holds - time.Millisecond)
		if v, at := ask("a"); v != 1 || !at.Equal(day0) {
			t.Errorf("took %s: %d of %s, want the first answer and its instant", c.took, v, at)
		}
		if v, _ := ask("b"); v != 2 {
			t.Errorf("took %s: another key was told %d", c.took, v)
		}
		hand.Advance(time.Millisecond)
		if v, at := ask("a"); v != 3 || !at.Equal(day0.Add(c.holds)) {
			t.Errorf("took %s: after %s still %d of %s", c.took, c.holds, v, at)
		}
		k.forget("a")
		if v, _ := ask("a"); v != 4 {
			t.Errorf("took %s: forgotten, and told %d", c.took, v)
		}
	}
}

// TestKeptAnswersAreWorkedOutOnce: who asks while it is worked out waits for that; a failure is not kept.
func TestKeptAnswersAreWorkedOutOnce(t *testing.T) {
	var k kept[int]
	now := clock.NewHand(day0).Now
	if _, _, err := k.get(now, "a", func() (int, error) { return 1, errors.New("broken") }); err == nil {
		t.Error("a failure was told as an answer")
	}
	n := 0
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			if v, _, err := k.get(now, "a", func() (int, error) { n++; return n, nil }); v != 1 || err != nil {
				t.Errorf("told %d, %v", v, err)
			}
		})
	}
	all.Wait()
	for i := range 3 * keptMost {
		if _, _, err := k.get(now, fmt.Sprint(i), func() (int, error) { return i, nil }); err != nil {
			t.Fatal(err)
		}
	}
	if len(k.by) > keptMost {
		t.Errorf("%d answers are kept, at most %d may be", len(k.by), keptMost)
	}
}

// TestKeptListsCrossNoWall: what was worked out for one visitor is kept, and shows another only what that one may see: no
// other tenant, no other product, on no page and in no number.
func TestKeptListsCrossNoWall(t *testing.T) {
	inhabited(t, func(h *house) {
		h.vuln.lists.took = func(time.Time) time.Duration { return time.Hour }
		h.vuln.told.took = h.vuln.lists.took
		for _, tenant := range []string{"ten_a", "ten_b"} {
			h.release(tenant, "rel_lamp"+tenant, "prd_lamp"+tenant, "1.0.0", "golang.org/x/net@v0.10.0")
			h.release(tenant, "rel_meter"+tenant, "prd_meter"+tenant, "2.0.0", "golang.org/x/net@v0.10.0", "golang.org/x/text@v0.3.0")
			h.install(tenant, "prd_lamp"+tenant, "rel_lamp"+tenant, "dev_1"+tenant, "dev_2"+tenant)
			h.install(tenant, "prd_meter"+tenant, "rel_meter"+tenant, "dev_3"+tenant)
			_, err := h.feed(tenant, xnet("GO-1", "CVE-2023-44487", "0.17.0", ""),
				strings.ReplaceAll(xnet("GO-2", "CVE-2026-0002", "0.3.8", ""), "golang.org/x/net", "golang.org/x/text"), kevRapidReset)
			h.must(err)
		}
		pages, programs := h.doors()
		all := "/vulnerabilities /vulnerabilities/CVE-2023-44487 /"
		for range 2 { // the second time from what is kept
			for _, c := range []struct{ who, not string }{
				{"ten_a owner", "ten_b"},
				{"ten_a product-security-officer prd_lampten_a", "ten_b meter CVE-2026-0002"},
				{"ten_b owner", "ten_a"},
				{"ten_b product-security-officer prd_meterten_b", "ten_a prd_lamp"},
			} {
				for _, path := range strings.Fields(all) {
					code, page := h.ask(pages, c.who, "GET", path, "", "")
					if code != 200 {
						t.Errorf("%s asks for %s: %d", c.who, path, code)
					}
					for _, word := range strings.Fields(c.not) {
						if strings.Contains(page, word) {
							t.Errorf("%s is shown %q on %s", c.who, word, path)
						}
					}
				}
				if _, body := h.ask(programs, c.who, "GET", "/v1/vulnerabilities", "", ""); strings.Contains(body, strings.Fields(c.not)[0]) {
					t.Errorf("%s is told of %s: %s", c.who, c.not, body)
				}
			}
		}
		// The numbers are of what is seen: two lamps, not three devices.
		_, page := h.ask(pages, "ten_a product-security-officer prd_lampten_a", "GET", "/vulnerabilities", "", "")
		for _, want := range []string{`id="vuln-devices">2<`, `id="vuln-devices-exploited">2<`, `id="vuln-undecided" aria-live="polite">1<`} {
			if !strings.Contains(page, want) {
				t.Errorf("the page lacks %s", want)
			}
		}
		// A decision is seen at once, though everything is kept for a day.
		form := url.Values{"product": {"prd_lampten_a"}, "status": {"not_affected"}, "justification": {"component_not_present"}, "evidence": {"It is not linked."}, "seen": {""}}
		if code, body := h.ask(pages, "ten_a owner", "POST", "/vulnerabilities/CVE-2023-44487/decisions", "application/x-www-form-urlencoded", form.Encode()); code != 303 {
			t.Fatalf("decision: %d %s", code, body)
		}
		if _, page = h.ask(pages, "ten_a owner", "GET", "/vulnerabilities", "", ""); !strings.Contains(page, `id="vuln-devices">1<`) {
			t.Error("the decision is not in the numbers")
		}
		// Somebody who saw nothing of it decides: nothing is decided, and the other decision is named.
		form.Set("status", "affected")
		if _, page = h.ask(pages, "ten_a owner", "POST", "/vulnerabilities/CVE-2023-44487/decisions", "application/x-www-form-urlencoded", form.Encode()); !strings.Contains(page, "Somebody decided meanwhile") {
			t.Error("a decision that was not seen was decided past")
		}
		// Later the page says how old its numbers are.
		h.clock.Advance(time.Hour)
		if _, page = h.ask(pages, "ten_a owner", "GET", "/vulnerabilities", "", ""); !strings.Contains(page, "counted") {
			t.Error("the page does not say that it is an hour old")
		}
		h.install("ten_a", "prd_meterten_a", "rel_meterten_a", "dev_4ten_a")
		h.clock.Advance(20 * time.Hour)
		if _, page = h.ask(pages, "ten_a owner", "GET", "/vulnerabilities", "", ""); !strings.Contains(page, `id="vuln-devices">2<`) {
			t.Error("the numbers are older than they may be")
		}
	})
}

// TestMatrixIsNarrowedAndPaged walks filters and pages over 230 vulnerabilities.
func TestMatrixIsNarrowedAndPaged(t *testing.T) {
	inhabited(t, func(h *house) {
		pages, _ := h.doors()
		h.release("ten_a", "rel_1", "prd_lamp", "1.0.0", "golang.org/x/net@v0.10.0")
		h.release("ten_a", "rel_2", "prd_meter", "2.0.0", "golang.org/x/net@v0.10.0")
		h.install("ten_a", "prd_lamp", "rel_1", "dev_1")
		var records []string
		for i := range 230 {
			records = append(records, xnet(fmt.Sprintf("GO-%03d", i), fmt.Sprintf("CVE-2026-0%03d", i), "0.17.0", ""))
		}
		records[7] = strings.Replace(records[7], `,{"fixed":"0.17.0"}`, "", 1)
		records[8] = strings.Replace(records[8], "a fault", "a <b>rare</b> slip", 1)
		_, err := h.feed("ten_a", append(records, strings.Replace(kevRapidReset, "CVE-2023-44487", "CVE-2026-0200", 1))...)
		h.must(err)
		_, err = h.vuln.Decide(h.Context(), "ten_a", "per_1", "CVE-2026-0003", Deciding{Product: "prd_lamp", Status: DecidedAffected})
		h.must(err)
		count := func(query string) (rows int, page string) {
			w := httptest.NewRecorder()
			r := httptest.NewRequest("GET", "https://iot.example/vulnerabilities?"+query, nil)
			r.Header.Set("Test-Actor", "ten_a owner")
			pages.ServeHTTP(w, r)
			if w.Code != http.StatusOK {
				t.Errorf("%s: %d", query, w.Code)
			}
			return strings.Count(w.Body.String(), `<th scope="row">`), w.Body.String()
		}
		for query, want := range map[string]int{"": 100, "from=100": 100, "from=200": 30, "from=9999": 30, "from=-5": 100, "from=x": 100, "exploited=yes": 1, "undecided=yes&from=200": 30,
			"undecided=yes&product=prd_lamp&from=200": 29, "product=prd_lamp&text=CVE-2026-0003": 1, "undecided=yes&product=prd_lamp&text=CVE-2026-0003": 0,
			"text=RARE": 1, "text=nothing": 0, "exposed=yes&product=prd_meter": 0, "fix=yes&from=200": 29, "product=prd_else": 0} {
			if rows, _ := count(query); rows != want {
				t.Errorf("%q: %d rows, want %d", query, rows, want)
			}
		}
		_, first := count("")
		if at := strings.Index(first, "CVE-2026-0200"); at < 0 || at > strings.Index(first, "CVE-2026-0000") {
			t.Error("what is exploited is not the first")
		}
		if !strings.Contains(first, `href="/vulnerabilities?from=100" rel="next"`) || !strings.Contains(first, "1 to 100 of 230") {
			t.Error("the first page does not lead to the next")
		}
		if _, page := count("text=rare"); strings.Contains(page, "<b>rare") || !strings.Contains(page, "&lt;b&gt;rare") {
			t.Error("a record's words are not escaped")
		}
	})
}

// TestPartsOfOtherPages looks at what stands on the pages of releases and devices, and on the comparison of two releases.
func TestPartsOfOtherPages(t *testing.T) {
	inhabited(t, func(h *house) {
		pages, _ := h.doors()
		h.release("ten_a", "rel_1", "prd_lamp", "1.0.0", "golang.org/x/net@v0.10.0", "golang.org/x/text@v0.3.0")
		h.release("ten_a", "rel_2", "prd_lamp", "1.1.0", "golang.org/x/net@v0.17.0", "golang.org/x/text@v0.3.0", "golang.org/x/crypto@v0.1.0")
		h.install("ten_a", "prd_lamp", "rel_1", "dev_1")
		of := func(id, module string) string {
			return strings.ReplaceAll(xnet("GO-"+id, "CVE-2026-"+id, "0.17.0", ""), "golang.org/x/net", module)
		}
		_, err := h.feed("ten_a", of("0001", "golang.org/x/net"), of("0002", "golang.org/x/text"), of("0003", "golang.org/x/crypto"), of("0004", "golang.org/x/text"),
			strings.Replace(kevRapidReset, "CVE-2023-44487", "CVE-2026-0004", 1))
		h.must(err)
		_, err = h.vuln.Decide(h.Context(), "ten_a", "per_1", "CVE-2026-0001", Deciding{Product: "prd_lamp", Status: NotAffected, Justification: Justifications[0], Evidence: "not linked"})
		h.must(err)
		part := func(slot, key string, products ...string) string {
			g := tenant.Grant{Tenant: "ten_a", Role: tenant.Owner}
			if len(products) > 0 {
				g = tenant.Grant{Tenant: "ten_a", Role: tenant.ProductSecurityOfficer, Product: products[0]}
			}
			ctx := tenant.WithActor(h.Context(), tenant.Actor{ID: "per_1", Tenant: "ten_a", Grants: []tenant.Grant{g}})
			return string(pages.(*console.Console).Slot(slot).Render(httptest.NewRequest("GET", "/", nil).WithContext(ctx), key))
		}
		inOrder := func(what, text string, words ...string) {
			t.Helper()
			at := 0
			for _, w := range words {
				n := strings.Index(text[at:], w)
				if n < 0 {
					t.Errorf("%s lacks %q, or it stands too early:\n%s", what, w, text)
					return
				}
				at += n
			}
		}
		for slot, key := range map[string]string{"release": "rel_1", "device": "dev_1"} {
			inOrder(slot, part(slot, key), "CVE-2026-0004</a>", "undecided", "CVE-2026-0002</a>", "CVE-2026-0001</a>", "not affected")
			if text := part(slot, key, "prd_else"); text != "" {
				t.Errorf("%s shows another product: %s", slot, text)
			}
		}
		inOrder("the comparison", part("sbom-compare", "rel_1 rel_2"), "Brought", "CVE-2026-0003", "Kept", "CVE-2026-0004", "CVE-2026-0002", "Gone", "CVE-2026-0001")
		if text := part("sbom-compare", "rel_1 rel_2", "prd_else"); text != "" {
			t.Errorf("the comparison shows another product: %s", text)
		}
	})
}
