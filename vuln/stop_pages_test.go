// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/tenant"
)

// Whoever looks at what is exploited can stop it there, also where nobody is asked; and is asked only about what is still
// made, once for all that is exploited in it.
func TestStopIsOfferedForWhatIsStillMade(t *testing.T) {
	eachFactory(t, func(f *factory) {
		pages, _ := f.doors()
		officer := "ten_a " + string(tenant.ProductSecurityOfficer)
		f.published(f.make(1, badNet), 1, "A")
		_, err := f.feed("ten_a", xnet("GO-1", "CVE-2023-44487", "0.17.0", ""), xnet("GO-2", "CVE-2026-7", "0.17.0", ""), xnet("GO-3", "CVE-2026-8", "0.17.0", ""),
			`{"catalogVersion":"1","count":2,"vulnerabilities":[{"cveID":"CVE-2023-44487","dateAdded":"2023-10-10"},{"cveID":"CVE-2026-7","dateAdded":"2026-10-10"}]}`)
		f.must(err)
		for ident, offered := range map[string]bool{"CVE-2023-44487": true, "CVE-2026-7": true, "CVE-2026-8": false} {
			if _, page := f.ask(pages, officer, "GET", "/vulnerabilities/"+ident, "", ""); strings.Contains(page, "Stop making them") != offered {
				t.Errorf("without a policy the page of %s offers to stop: %v, want %v", ident, !offered, offered)
			}
		}
		all := func(string) bool { return true }
		asked := func() (out []string) {
			list, err := f.vuln.AskedStops(f.Context(), "ten_a", all)
			f.must(err)
			for _, a := range together(list) {
				out = append(out, fmt.Sprint(a.Vulnerability, a.Also, a.Versions))
			}
			return out
		}
		if got := asked(); len(got) > 0 {
			t.Errorf("without a policy people are asked about %v", got)
		}
		f.policy(StopAsk)
		if want := []string{"CVE-2023-44487[CVE-2026-7] [1.1.0]"}; !slices.Equal(asked(), want) {
			t.Errorf("asked %v, want %v", asked(), want)
		}
		_, err = f.vuln.StopUnits(f.Context(), "ten_a", "per_1", Stopping{Product: f.product, Vulnerability: "CVE-2023-44487", Reason: "being exploited"})
		f.must(err)
		if got := asked(); len(got) > 0 {
			t.Errorf("they are not made any more, and people are asked about %v", got)
		}
		f.lift()
		if want := []string{"CVE-2026-7[] [1.1.0]"}; !slices.Equal(asked(), want) {
			t.Errorf("made again, they ask %v, want %v", asked(), want)
		}
	})
}

// Pages join what is alike, list few of many, and say why a decision does not hold.
func TestPagesSayWhatMatters(t *testing.T) {
	safe := func(hw string, n int64) SafeVersion {
		return SafeVersion{HW: hw, Safe: Floor{SecurityVersion: n, Because: []string{"x"}}}
	}
	var got []string
	for _, x := range alike([]SafeVersion{safe("A", 3), safe("B", 3), safe("C", 4)}) {
		got = append(got, fmt.Sprint(x.HW, ": ", x.Safe.SecurityVersion))
	}
	if want := "A, B: 3; C: 4"; strings.Join(got, "; ") != want {
		t.Errorf("%q, want %q", strings.Join(got, "; "), want)
	}
	c := compared{Found: make([]OpenFinding, comparedShown+5)}
	if len(c.First()) != comparedShown || len(c.Rest()) != 5 {
		t.Errorf("%d first, %d behind", len(c.First()), len(c.Rest()))
	}
	p := detailPage{Names: map[string]string{"prd_a": "Lamp", "prd_b": "Pump"}, Exposure: Exposure{Releases: []ReleaseExposure{{Product: "prd_a"}, {Product: "prd_b"}}}}
	p.answer([]Proposal{{Product: "prd_a", Why: EvidenceChanged}, {Product: "prd_b", From: "vendor"}})
	if want := "The decision for Lamp does not hold for all of it: the release was built from other sources.; Nobody has decided yet for Pump."; strings.Join(p.Rest, "; ") != want {
		t.Errorf("%q, want %q", strings.Join(p.Rest, "; "), want)
	}
}
