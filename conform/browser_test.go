// SPDX-License-Identifier: AGPL-3.0-only

package conform

import (
	"fmt"
	"net/url"
	"testing"

	"github.com/openthings-platform/openthings/console/browsertest"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/vuln"
)

// TestBrowser walks the pages in a real browser: each is accessible and quiet, in its empty state and in use, and on a
// small screen; a class and a row are recorded by hand.
func TestBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a browser")
	}
	h := openHouse(t, storetest.SQLiteURL(t))
	l, origin := browsertest.Listen(t)
	pages, _ := h.doors()
	browsertest.Serve(t, l, pages)
	b := browsertest.Open(t, origin)
	look := func(path, shot string) {
		t.Helper()
		b.Go(path)
		b.Accessible()
		b.Shots(shot)
	}
	at := "/products/" + h.product
	look(at+"/conformity", "conformity-empty")
	look(at+"/risk", "risk-empty")
	look("/components", "components-empty")

	b.Go(at + "/conformity")
	b.Type("#f-core", "Lights a street and tells when a lamp has failed")
	b.Type("#f-reason", "None of the categories names it")
	b.Click(`form[action$="/classification"] button.primary`)
	b.Until(`document.querySelector(".said") !== null`)
	b.Go(at + "/risk#cra.i.1.2.l")
	b.Click(`[id="cra.i.1.2.l"] summary`)
	b.Type(`[id="f-t-cra.i.1.2.l"]`, "Events are recorded and chained")
	b.Click(`[id="cra.i.1.2.l"] form button`)
	b.Until(`document.querySelector(".said") !== null`)
	if got := b.Text(".said"); got == "" {
		t.Error("nothing was said")
	}

	h.whole()
	_, err := h.Decide(t.Context(), "ten_a", h.product, "cra.i.1.2.i", "per_bob", Decision{Applies: "no", Why: "The lamp uses no service of others and offers none."})
	h.must(err)
	_, err = h.Classify(t.Context(), "ten_a", h.product, "per_bob", Classification{Core: "Routes between the lamps and the Internet", Category: "cra.iii.1.12", Integrates: []string{"cra.iii.1.11"}, Reason: "It is sold as a router"})
	h.must(err)
	_, err = h.ChooseRoute(t.Context(), "ten_a", h.product, "per_bob", Choice{Module: ModuleBC, Reason: "No standard is cited yet"})
	h.must(err)
	one := h.release(1, "a.example/net@v1.0.0", "b.example/radio@v0.1.0")
	_, err = h.Review(t.Context(), "ten_a", "pkg:golang/a.example/net", "per_ann", Component{SupportEnd: day0.AddDate(2, 0, 0), Contact: "security@a.example", Note: "Releases monthly"})
	h.must(err)
	h.seal("First look, nothing open")
	_, err = h.update.Publish(t.Context(), "ten_a", one, "per_bob")
	h.must(err)
	two := h.release(2, "a.example/net@v1.1.0", "b.example/radio@v0.1.0", "c.example/camera@v1.0.0")
	_, err = h.Sign(t.Context(), "ten_a", h.product, two, "per_bob", Screen{Answers: answers("purpose", "vectors"), Reason: "It films now", Substantial: true})
	h.must(err)
	h.emit("vuln.exploited", "vul_1", vuln.Exploited{Group: "CVE-2026-1", ID: "vul_1", Product: h.product, Version: "1.1.0"})

	for i, size := range [][2]int64{{1280, 900}, {390, 844}} {
		b.Size(size[0], size[1])
		for path, shot := range map[string]string{at: "product", at + "/conformity": "conformity", at + "/risk": "risk", at + "/risk/1": "assessment", "/components?product=" + h.product: "components",
			"/components/review?name=" + url.QueryEscape("pkg:golang/a.example/net"): "component", "/releases/" + two + "/modification": "modification", "/law": "law", "/": "today"} {
			look(path, fmt.Sprintf("%s-%d", shot, i))
			if law.Unfounded(b.Text("body")) {
				t.Errorf("%s claims what no standard gives", path)
			}
		}
	}
	b.QuietLog()
}
