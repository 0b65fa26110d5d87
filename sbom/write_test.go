// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// everyBill are the real documents and our own fixtures.
func everyBill(t *testing.T) map[string]Bill {
	t.Helper()
	out := map[string]Bill{}
	for _, name := range []string{"cyclonedx/cern-lhc-vdm-editor.json", "cyclonedx/csaf_checker.syft-1.57.1.6.json", "cyclonedx/csaf_checker.syft-1.57.1.6.xml",
		"cyclonedx/debian12.syft-1.57.1.6.json.gz", "cyclonedx/dropwizard-1.3.15.json", "cyclonedx/gateway-ui.npm-11.1.5.json", "cyclonedx/hbom-pcie-sata.json",
		"cyclonedx/laravel-7.12.0.1.2.xml", "cyclonedx/laravel-7.12.0.1.4.json", "cyclonedx/laravel-7.12.0.1.4.xml", "cyclonedx/proton-bridge-v1.8.0.json",
		"spdx/csaf_checker.syft-1.57.spdx-2.3.json", "spdx/csaf_checker.syft-1.57.spdx-2.3.tag", "spdx/csaf_checker.syft-1.57.spdx-3.0.json",
		"spdx/debian12.syft-1.57.spdx-3.0.json.gz", "spdx/gateway-ui.npm-11.spdx-2.3.json"} {
		out[name] = real(t, name)
	}
	for _, name := range []string{"buildroot.cdx.json", "good.cdx.json", "yocto.spdx3.json", "zephyr.spdx"} {
		out[name] = fixture(t, name)
	}
	return out
}

// contents is what a copy must not lose: one line for each part, sorted, and what depends on what.
func contents(b Bill) (parts, relations []string) {
	name := map[string]string{}
	if b.Root != nil {
		name[b.Root.Ref] = "the root"
	}
	for _, c := range b.Components {
		called := c.Name
		if c.Group != "" && c.PURL == "" {
			called = c.Group + "/" + c.Name
		}
		cpes, hashes := slices.Sorted(slices.Values(c.cpes())), goodHashes(c.Hashes)
		slices.SortFunc(hashes, func(a, b Hash) int { return strings.Compare(a.Algorithm, b.Algorithm) })
		line := fmt.Sprintf("%s %s %s cpe %v by %s hashes %v is %v", called, c.Version, c.PURL, cpes, c.Supplier.Name, hashes, c.Identities)
		// Words beside other licences stand in an SPDX expression by reference.
		if len(c.Licences) == 1 && !strings.Contains(c.Licence(), "LicenseRef-") || len(c.Licences) > 1 && !slices.ContainsFunc(c.Licences, func(l Licence) bool { return l.Name != "" }) {
			line += " under " + c.Licence()
		}
		parts = append(parts, line)
		name[c.Ref] = called + " " + c.Version
	}
	for _, r := range b.Relations {
		if from, to := name[r.From], name[r.To]; r.Kind == DependsOn && r.From != r.To && from != "" && to != "" {
			relations = append(relations, from+" needs "+to)
		}
	}
	slices.Sort(parts)
	slices.Sort(relations)
	return parts, slices.Compact(relations)
}

// TestRoundTripLosesNoComponent writes every real document in every form and reads it back.
func TestRoundTripLosesNoComponent(t *testing.T) {
	for name, b := range everyBill(t) {
		parts, relations := contents(b)
		for _, form := range Outputs {
			doc, err := b.Write(form)
			if err != nil {
				t.Errorf("%s as %s: %v", name, form, err)
				continue
			}
			if again, err := b.Write(form); err != nil || !bytes.Equal(doc, again) {
				t.Errorf("%s as %s: written twice it differs, %v", name, form, err)
			}
			got, err := Parse(doc)
			if err != nil {
				t.Errorf("%s as %s cannot be read back: %v", name, form, err)
				continue
			}
			gotParts, gotRelations := contents(got)
			if d := cmp.Diff(parts, gotParts); d != "" {
				t.Errorf("%s as %s: parts differ:\n%s", name, form, d[:min(len(d), 2000)])
			}
			if d := cmp.Diff(relations, gotRelations); d != "" {
				t.Errorf("%s as %s: relations differ:\n%s", name, form, d[:min(len(d), 2000)])
			}
			if len(got.Files) != len(b.Files) || !got.Created.Equal(b.Created.Truncate(time.Second)) || b.Root != nil && got.Root.Name != b.Root.Name {
				t.Errorf("%s as %s: %d of %d files, created %v of %v", name, form, len(got.Files), len(b.Files), got.Created, b.Created)
			}
			for _, d := range b.Digests {
				if !got.Names(d) {
					t.Errorf("%s as %s: it no longer names %s", name, form, d)
				}
			}
		}
	}
}

func TestReducedCopyTellsNoMoreAndSaysSo(t *testing.T) {
	b := fixture(t, "buildroot.cdx.json")
	b.Components = append(b.Components, Component{Ref: "secret", Name: "secret-sauce", Version: "1", PURL: "pkg:generic/sauce@1?download_url=https://internal.example&arch=arm",
		Supplier: Supplier{Name: "Quiet Ltd"}, Hashes: []Hash{{"SHA-256", strings.Repeat("d", 64)}}, BSI: BSIFacts{Filename: "/opt/sauce"}, VCS: []string{"https://internal.example/sauce"}})
	b.Relations = append(b.Relations, Relation{"lampd", DependsOn, "deep"}, Relation{"buildroot", DependsOn, "secret"})
	b.Components = append(b.Components, Component{Ref: "deep", Name: "deep-down", Version: "1"})
	for name, c := range map[string]struct {
		r         Reduction
		gone      []string
		kept      []string
		statement string
	}{
		"top level": {Reduction{TopLevel: true}, []string{"deep-down"}, []string{"secret-sauce", "libcurl", "lampd"}, "below the top level"},
		"suppliers": {Reduction{WithoutSuppliers: []string{"quiet ltd"}}, []string{"secret-sauce", "Quiet Ltd", "sauce"}, []string{"deep-down"}, "some suppliers"},
		"paths":     {Reduction{WithoutPaths: true}, []string{"internal.example", "/opt/sauce", "git.lamp.example"}, []string{"secret-sauce", "arch=arm"}, "file names"},
		"hashes":    {Reduction{WithoutHashes: true}, []string{strings.Repeat("d", 64)}, []string{"secret-sauce", strings.Repeat("a", 64)}, "digests"},
	} {
		small := b.Reduce(c.r)
		for _, form := range Outputs {
			doc, err := small.Write(form)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range c.gone {
				if bytes.Contains(doc, []byte(s)) {
					t.Errorf("%s as %s still tells %q", name, form, s)
				}
			}
			for _, s := range append(c.kept, reducedCopy) {
				if !bytes.Contains(doc, []byte(s)) {
					t.Errorf("%s as %s lacks %q", name, form, s)
				}
			}
			got, err := Parse(doc)
			if err != nil || !strings.Contains(got.Reduced, c.statement) || got.Complete != "incomplete" {
				t.Errorf("%s as %s: says %q, complete %q, %v", name, form, got.Reduced, got.Complete, err)
			}
		}
	}
	if whole := b.Reduce(Reduction{}); whole.Reduced != "" || len(whole.Components) != len(b.Components) {
		t.Errorf("nothing was asked to be left out: %+v", whole)
	}
}
