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
