// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"context"
	"testing"

	"github.com/openthings-platform/openthings/testpeers"
)

// TestWhatWeWriteIsValid has the CycloneDX project's own library judge every real document as we write it, whole and
// reduced, and one that we have broken on purpose.
func TestWhatWeWriteIsValid(t *testing.T) {
	judge := func(version string, documents ...[]byte) []string {
		t.Helper()
		wrong, err := testpeers.JudgeCycloneDX(context.WithoutCancel(t.Context()), version, documents...)
		if err != nil {
			t.Fatalf("the judge must run (it needs node and npm): %v", err)
		}
		return wrong
	}
	for form, version := range map[Output]string{CycloneDX16: "1.6", CycloneDX17: "1.7"} {
		var names []string
		var documents [][]byte
		for name, b := range everyBill(t) {
			for _, r := range []Reduction{{}, {TopLevel: true, WithoutPaths: true, WithoutHashes: true}} {
				doc, err := b.Reduce(r).Write(form)
				if err != nil {
					t.Fatal(err)
				}
				names, documents = append(names, name+" "+r.String()), append(documents, doc)
			}
		}
		for i, wrong := range judge(version, documents...) {
			if wrong != "" {
				t.Errorf("%s as %s: %.1500s", names[i], form, wrong)
			}
		}
	}
	if wrong := judge("1.6", []byte(`{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"type":"gadget","name":"x"}]}`)); wrong[0] == "" {
		t.Error("the judge finds nothing wrong with a type that does not exist")
	}
}

// TestOthersReadOurSPDX has the SPDX project's own library judge every real document as we write it, and count its parts.
func TestOthersReadOurSPDX(t *testing.T) {
	judge := func(version string, documents ...[]byte) []testpeers.SPDXVerdict {
		t.Helper()
		verdicts, err := testpeers.JudgeSPDX(context.WithoutCancel(t.Context()), version, documents...)
		if err != nil {
			t.Fatalf("the judge must run: %v", err)
		}
		return verdicts
	}
	for form, version := range map[Output]string{SPDX23: "2.3", SPDX301: "3.0.1"} {
		var names []string
		var want []int
		var documents [][]byte
		for name, b := range everyBill(t) {
			doc, err := b.Write(form)
			if err != nil {
				t.Fatal(err)
			}
			parts := len(b.Components) + 1 // the root
			if form == SPDX23 {
				parts += len(b.Files)
			}
			names, documents, want = append(names, name), append(documents, doc), append(want, parts)
		}
		for i, v := range judge(version, documents...) {
			if v.Wrong != "" || v.Packages != want[i] {
				t.Errorf("%s as %s: %d packages, want %d; %.1000s", names[i], form, v.Packages, want[i], v.Wrong)
			}
		}
	}
	for version, broken := range map[string]string{
		"2.3":   `{"spdxVersion":"SPDX-2.3","SPDXID":"SPDXRef-DOCUMENT","name":"x","relationships":[{"spdxElementId":"nonsense","relationshipType":"DEPENDS_ON","relatedSpdxElement":"SPDXRef-a"}]}`,
		"3.0.1": `{"@context":"https://spdx.org/rdf/3.0.1/spdx-context.jsonld","@graph":[{"type":"CreationInfo","@id":"_:c","specVersion":"3.0.1","created":"2026-11-01T08:00:00Z"},{"type":"SpdxDocument","spdxId":"urn:x#d","creationInfo":"_:c","rootElement":[]}]}`,
	} {
		if v := judge(version, []byte(broken)); v[0].Wrong == "" {
			t.Errorf("the judge of %s finds nothing wrong with a broken document", version)
		}
	}
}
