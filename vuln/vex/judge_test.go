// SPDX-License-Identifier: AGPL-3.0-only

package vex

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/testpeers"
)

// everything is a document with every status, every justification, all ways to name a thing, one product and several.
func everything(products int) Document {
	at := time.Date(2026, 11, 22, 9, 0, 0, 250_000_000, time.UTC)
	d := Document{ID: "urn:uuid:7d9b4f7e-6a0c-8c6e-9a51-3f1f0a8c1d2e", Version: "2", Author: "Lamp Works", Namespace: "https://lamp.example", Title: "Vulnerabilities of Lamp", At: at,
		Revisions: []Revision{{at.Add(-time.Hour), "First issue."}, {at, "What was decided has changed."}}}
	parts := []Ref{{PURL: "pkg:golang/golang.org/x/net@v0.10.0"}, {PURL: "pkg:generic/busybox@1.36.1", CPE: "cpe:2.3:a:busybox:busybox:1.36.1:*:*:*:*:*:*:*"},
		{CPE: "cpe:2.3:o:linux:linux_kernel:6.1.55:*:*:*:*:*:*:*"}, {Digest: "sha256:" + strings.Repeat("0f", 32)}}
	add := func(s Statement) {
		n := len(d.Statements)
		s.Idents, s.At, s.Summary = []string{"CVE-2026-100" + string(rune('0'+n)), "GHSA-" + strings.Repeat(string(rune('a'+n)), 4)}, at.Add(-time.Minute), "A fault of some kind."
		for i := range products {
			version := "1." + string(rune('0'+i))
			s.Products = append(s.Products, Product{Ref{ID: ReleaseRef("rel_" + version), PURL: GenericPURL("Street lamp", version), Digest: "sha256:" + strings.Repeat("a"+string(rune('0'+i)), 32)},
				[]Ref{parts[n%len(parts)]}})
		}
		d.Statements = append(d.Statements, s)
	}
	for _, j := range Justifications {
		add(Statement{Status: NotAffected, Justification: j, Detail: "See review 114."})
	}
	add(Statement{Status: Affected, Action: "Update to 2.0.", Detail: "It can be reached."})
	add(Statement{Status: Affected})
	add(Statement{Status: Fixed, Detail: "Patch 7."})
	add(Statement{Status: UnderInvestigation})
	return d
}

// beyond are what the judges would like to see besides and a statement does not know: an address at which the document is
// published, scores, and the kind of weakness. Advisories have them.
var beyond = []string{"optionalTest_6_2_11", "optionalTest_6_2_3", "informativeTest_6_3_4"}

// TestIndependentJudges has what we write judged by the CycloneDX project's own library, and by two CSAF validators.
func TestIndependentJudges(t *testing.T) {
	ctx := context.WithoutCancel(t.Context()) // the judges are stopped, not killed
	var boms [][]byte
	csafs, err := testpeers.StartCSAF(ctx)
	if err != nil {
		t.Fatalf("the judges of CSAF did not start: %v", err)
	}
	t.Cleanup(func() {
		if err := csafs.Stop(); err != nil {
			t.Error(err)
		}
	})
	for _, products := range []int{1, 3} {
		d := everything(products)
		boms = append(boms, must(Write(d, CycloneDX)))
		found, err := csafs.Judge(ctx, "urn_uuid_7d9b4f7e-6a0c-8c6e-9a51-3f1f0a8c1d2e.json", must(Write(d, CSAF)))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			if !slices.Contains(beyond, f.Test) {
				t.Errorf("CSAF, %d products: %+v", products, f)
			}
		}
	}
	wrong, err := testpeers.JudgeCycloneDX(ctx, "1.6", boms...)
	if err != nil {
		t.Fatal(err)
	}
	if wrong = slices.DeleteFunc(wrong, func(s string) bool { return s == "" }); len(wrong) > 0 {
		t.Errorf("CycloneDX: %s", wrong)
	}
}
