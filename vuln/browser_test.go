// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/console/browsertest"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/vuln/vex"
)

const (
	rapidReset = `{"id":"GO-2023-2153","aliases":["CVE-2023-44487","GHSA-4374-p667-p6c8"],"summary":"HTTP/2 rapid reset can cause excessive work in net/http","details":"A malicious HTTP/2 client which rapidly creates requests and immediately resets them can cause excessive server resource consumption.\n\nWhile the total number of requests is bounded by the server, resetting an in-progress request allows the attacker to create a new request while the existing one is still executing.","references":[{"type":"WEB","url":"https://go.dev/issue/63417"}],"severity":[{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H"}],"affected":[{"package":{"ecosystem":"Go","name":"golang.org/x/net"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"0.17.0"}]}]}]}`
	fault      = `{"id":"GO-2026-%04[1]d","aliases":["CVE-2026-%04[1]d"],"summary":%[2]q,"severity":[{"type":"CVSS_V3","score":%[3]q}],"affected":[{"package":{"ecosystem":"Go","name":%[4]q},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"}%[5]s]}]}]}`
	openvex    = `{"@context":"https://openvex.dev/ns/v0.2.0","@id":"https://net.example/vex-7","author":"The x/net authors","timestamp":"2026-11-08T10:00:00Z","version":1,"statements":[{"vulnerability":{"name":"CVE-2023-44487"},"products":[{"@id":"pkg:golang/golang.org/x/net@v0.10.0"}],"status":"not_affected","justification":"vulnerable_code_not_in_execute_path","impact_statement":"Only servers are concerned; this build of the module has the client alone."}]}`
)

// street furnishes the house: products with releases and devices, records of all kinds, decisions, and an update on its way.
func (h *house) street() {
	names := map[string]string{"prd_a": "Street lamp", "prd_b": "Meter", "prd_c": "Gateway", "prd_d": "Pump", "prd_e": "Valve", "prd_f": "Siren", "prd_g": "Door lock", "prd_h": "Camera"}
	h.vuln.cfg.ProductName = func(_ context.Context, _, id string) string { return names[id] }
	const tenant = "ten_a"
	devices := map[string][]string{}
	for i, product := range []string{"prd_a", "prd_b", "prd_c", "prd_d", "prd_e", "prd_f", "prd_g", "prd_h"} {
		release := "rel_" + product[4:] + "1"
		h.release(tenant, release, product, fmt.Sprintf("%d.0.0", i+1), "golang.org/x/net@v0.10.0", "golang.org/x/text@v0.3.0", "golang.org/x/crypto@v0.1.0")
		for n := range []int{120, 45, 8, 3, 1, 0, 12, 30}[i] {
			devices[product] = append(devices[product], fmt.Sprintf("dev_%s%03d", product[4:], n))
		}
		h.must(h.db.Write(h.Context(), func(tx *store.Tx) error {
			for n, d := range devices[product] {
				if _, err := tx.Exec(`INSERT INTO device (id, tenant, product, revision, batch, serial, solution, state, reason, resume, firmware, created, updated)
					VALUES ($1, $2, $3, $4, $5, $6, $7, 'commissioned', '', '', '', 0, 0)`, d, tenant, product, "rev_"+string("BC"[n%2]), fmt.Sprintf("bat_%d", n/40), strings.ToUpper(d),
					[]string{"sol_harbour", "sol_oldtown", "sol_airport"}[n%7%3]); err != nil {
					return err
				}
				if c := []string{"DE", "AT", "FR", ""}[n%9%4]; c != "" {
					if _, err := tx.Exec(`INSERT INTO label (tenant, device_id, name, value) VALUES ($1, $2, 'country', $3)`, tenant, d, c); err != nil {
						return err
					}
				}
			}
			return nil
		}))
		h.install(tenant, product, release, devices[product]...)
	}
	h.clock.Advance(48 * time.Hour)
	feed := []string{rapidReset}
	for i, f := range []struct{ words, score, module, fixed string }{
		{"Infinite loop in the parsing of language tags", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H", "golang.org/x/text", `,{"fixed":"0.3.8"}`},
		{"Panic on a malformed certificate of an SSH client, which ends the whole process and every session that it holds", "CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:U/C:N/I:N/A:H", "golang.org/x/crypto", `,{"fixed":"0.31.0"}`},
		{"Unsafe defaults of a package that nobody maintains", "CVSS:3.1/AV:L/AC:L/PR:L/UI:R/S:U/C:L/I:N/A:N", "golang.org/x/crypto", ``},
		{"Header smuggling through a proxy", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", "golang.org/x/net", `,{"fixed":"0.33.0"}`},
	} {
		feed = append(feed, fmt.Sprintf(fault, i+1, f.words, f.score, f.module, f.fixed))
	}
	_, err := h.feed(tenant, feed...)
	h.must(err)
	h.clock.Advance(30 * time.Hour)
	for name, text := range map[string]string{"kev": kevRapidReset, "epss": "#model_version:v2025.03.14,score_date:2026-11-04T00:00:00+0000\ncve,epss,percentile\nCVE-2023-44487,0.94432,0.99967\nCVE-2026-0001,0.00042,0.11\nCVE-2026-0004,0.0312,0.87\n"} {
		_, err := h.vuln.Upload(h.Context(), tenant, "per_1", name, strings.NewReader(text), int64(len(text)))
		h.must(err)
		h.run()
	}
	h.clock.Advance(20 * time.Hour)
	h.release(tenant, "rel_a2", "prd_a", "1.1.0", "golang.org/x/net@v0.17.0", "golang.org/x/text@v0.3.8", "golang.org/x/crypto@v0.1.0")
	doc, err := vex.Parse([]byte(openvex))
	h.must(err)
	_, err = h.vuln.TakeVEX(h.Context(), tenant, "per_1", vex.Vendor, doc)
	h.must(err)
	for i, share := range []int{6, 20, 40, 30, 14, 4} {
		h.clock.Advance(time.Duration(20+i*6) * time.Hour)
		h.install(tenant, "prd_a", "rel_a2", devices["prd_a"][:share]...)
		devices["prd_a"] = devices["prd_a"][share:]
	}
	for _, d := range []struct {
		ident string
		in    Deciding
	}{
		{"CVE-2023-44487", Deciding{Product: "prd_b", Status: DecidedAffected, Evidence: "The maintenance page is an HTTP/2 server.", Action: "Keep the meter behind its gateway until 2.1.0."}},
		{"CVE-2023-44487", Deciding{Product: "prd_c", Status: NotAffected, Justification: Justifications[2], Evidence: "No HTTP/2 server is started; see review 114."}},
		{"CVE-2026-0003", Deciding{Product: "prd_a", Status: UnderInvestigation, Expires: h.clock.Now().Add(9 * time.Hour)}},
		{"CVE-2026-0001", Deciding{Product: "prd_d", Release: "rel_d1", Status: Fixed, Evidence: "Patch 7 of our fork."}},
	} {
		_, err := h.vuln.Decide(h.Context(), tenant, "per_1", d.ident, d.in)
		h.must(err)
		h.clock.Advance(4 * time.Hour)
	}
	h.clock.Advance(10 * time.Hour)
	h.run()
}

// TestVulnerabilitiesInABrowser looks at every page in light and dark and on a telephone, decides by the form, takes a
// proposal over, and reads a page without scripts.
func TestVulnerabilitiesInABrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a browser")
	}
	h := openInhabited(t, storetest.SQLiteURL(t))
	h.street()
	pages, _ := h.doors()
	l, origin := browsertest.Listen(t)
	browsertest.Serve(t, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Test-Actor", "ten_a owner")
		pages.ServeHTTP(w, r)
	}))
	b := browsertest.Open(t, origin)
	look := func(name, path, want string) {
		t.Helper()
		b.Go(path)
		if text := b.Text("main"); !strings.Contains(text, want) {
			t.Errorf("%s does not say %q:\n%s", path, want, text)
		}
		b.Accessible()
		for _, width := range []int64{390, 1280} {
			b.Size(width, 860)
			if browsertest.Value[bool](b, `document.documentElement.scrollWidth > innerWidth`) {
				t.Errorf("%s is wider than %d pixels", path, width)
			}
			b.Shots(fmt.Sprintf("vuln-%s-%d", name, width))
		}
	}
	look("matrix", "/vulnerabilities", "Known as exploited")
	look("narrowed", "/vulnerabilities?undecided=yes&product=prd_a", "the most urgent first")
	look("one", "/vulnerabilities/CVE-2023-44487", "Exploited, and ")
	b.Until(`document.querySelector("figure .u-wrap canvas")`)
	look("past", "/vulnerabilities/CVE-2023-44487?as_of=2026-11-03T12:00", "exposed then")
	look("today", "/", "97 devices exposed")

	// The proposal is filled in and decided by keyboard alone.
	b.Go("/vulnerabilities/CVE-2023-44487")
	b.Click(`#offered a[href*="for=prd_a"]`)
	b.Until(`document.querySelector("#decide .taken") && document.querySelector("input[name=status]:checked").value === "not_affected"`)
	look("taken", browsertest.Value[string](b, `location.pathname + location.search`), "Nothing is decided until you send it")
	browsertest.Value[bool](b, `document.querySelector("#decide form button").focus() ?? true`)
	b.Press("\r")
	b.Until(`document.querySelector(".said")?.innerText.includes("Decided for 1 component")`)
	if text := b.Text("#decide"); !strings.Contains(text, "Last decided for Street lamp: ") || !strings.Contains(text, "not affected") {
		t.Errorf("after the decision: %s", text)
	}
	b.QuietLog()
}
