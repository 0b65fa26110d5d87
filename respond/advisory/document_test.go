// SPDX-License-Identifier: AGPL-3.0-only

package advisory

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/testpeers"
	"github.com/openthings-platform/openthings/vuln"
	"github.com/openthings-platform/openthings/vuln/csaf"
)

// TestEveryKindOfAdvisoryPassesBothJudges: whatever facts and words come together, the document has no fault. Without a
// score or a weakness the judges may say that these are missing, and nothing else.
func TestEveryKindOfAdvisoryPassesBothJudges(t *testing.T) {
	j := judges(t)
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	pub := Publisher{tenant: maker}.filled("Acme (Ltd)", "https://maker.example")
	kinds := [][]vuln.Status{{vuln.DecidedAffected}, {vuln.Fixed}, {vuln.UnderInvestigation}, {vuln.DecidedAffected, vuln.Fixed}, {vuln.NotAffected, vuln.UnderInvestigation},
		{vuln.NotAffected, vuln.DecidedAffected, vuln.UnderInvestigation, vuln.Fixed}, {vuln.DecidedAffected, vuln.DecidedAffected, vuln.NotAffected}}
	names := [][]string{{cve}, {cve, "GHSA-aaaa-bbbb-cccc", "GO-2026-1"}, {"GHSA-aaaa-bbbb-cccc", "CVE-2025-1", "CVE-2025-22222", cve}, {"OSV-2026-9"}}
	n := 0
	for i, kind := range kinds {
		for k := range 4 {
			f := facts{product: product.Product{Name: "Street “lamp” <1>", Model: "lamp"}}
			f.vuln.Name, f.vuln.Names, f.vuln.Links = names[(i+k)%4][0], names[(i+k)%4], []string{"https://upstream.example/1", "gopher://x", "https://upstream.example/1", "not an address"}
			f.vuln.Exploited = k%2 == 0
			for v, status := range kind {
				id := fmt.Sprintf("rel_%d", v)
				r := Release{ID: id, Version: fmt.Sprintf("1.%d.0 beta+%d", v, v), Image: "sha256:" + strings.Repeat("0a", 32), Published: now.Add(time.Duration(v) * time.Hour), Withdrawn: k == 3}
				f.released = append(f.released, r)
				st := ReleaseStatus{Release: id, Version: r.Version, Status: status, Components: []string{"radio 1.0"}}
				if status == vuln.NotAffected {
					st.Justification = vuln.Justifications[(v+k)%len(vuln.Justifications)]
				}
				f.statuses = append(f.statuses, st)
			}
			a := Advisory{Tracking: "ACME-2026-0001", Text: Text{Title: "Overflow & more", Summary: "Line one.\n\nLine two with \u2028 and “quotes”.", TLP: circles[k], Lang: []string{"en", "de", "fr", "el"}[k]}}
			if k > 0 {
				a.CVSS, a.CWE, a.Action = "CVSS:3.1/AV:L/AC:H/PR:L/UI:R/S:C/C:L/I:L/A:N", "CWE-1188", "Do this."
			}
			if k > 1 {
				a.Revision, a.Initial = 2, now.Add(-48*time.Hour)
				a.Revisions = []Revision{{Number: 1, At: a.Initial, Summary: "First"}, {Number: 2, At: now.Add(-time.Hour), Summary: "Second"}}
				a.Acknowledgments = []Thanks{{Organization: "Finders"}, {Names: []string{"Ann", "Bob"}}}
			}
			doc, err := f.document(a, pub, now, "New")
			if err != nil {
				t.Errorf("%v %d: %v", kind, k, err)
				continue
			}
			b, err := csaf.Write(doc)
			if err != nil {
				t.Errorf("%v %d: %v", kind, k, err)
				continue
			}
			found, err := j.Judge(t.Context(), csaf.Filename(a.Tracking), b)
			if err != nil {
				t.Fatal(err)
			}
			n++
			found = slices.DeleteFunc(found, func(x testpeers.CSAFFinding) bool {
				return k == 0 && (x.Test == "optionalTest_6_2_3" || x.Test == "informativeTest_6_3_4") || f.names()[0] == "OSV-2026-9" && x.Test == "informativeTest_6_3_3"
			})
			for _, x := range found {
				t.Errorf("%v %d: %s: %s", kind, k, x.Test, x.Says)
			}
		}
	}
	if n != 28 {
		t.Errorf("only %d documents were judged", n)
	}
}
