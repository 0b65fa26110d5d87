// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openthings-platform/openthings/realdata"
)

func real(t *testing.T, name string) Bill {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join(realdata.Dir(t), "sbom", name))
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(name, ".gz") {
		z, err := gzip.NewReader(bytes.NewReader(doc))
		if err != nil {
			t.Fatal(err)
		}
		if doc, err = io.ReadAll(z); err != nil {
			t.Fatal(err)
		}
	}
	b, err := Parse(doc)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

// packages are the parts that can be matched, as they are matched.
func packages(b Bill) []string {
	var list []string
	for _, c := range b.Components {
		if c.Ecosystem != "" && c.Matchable() {
			list = append(list, c.Ecosystem+" "+Fold(c.Ecosystem, c.Package)+" "+c.PackageVersion+" ("+c.Name+")")
		}
	}
	slices.Sort(list)
	return list
}

func TestSameThingInFiveSpellings(t *testing.T) {
	first := real(t, "cyclonedx/csaf_checker.syft-1.57.1.6.json")
	if n := len(packages(first)); n != 22 {
		t.Fatalf("%d packages, want 22: %q", n, packages(first))
	}
	for _, name := range []string{
		"cyclonedx/csaf_checker.syft-1.57.1.6.xml", "spdx/csaf_checker.syft-1.57.spdx-2.3.json",
		"spdx/csaf_checker.syft-1.57.spdx-2.3.tag", "spdx/csaf_checker.syft-1.57.spdx-3.0.json",
	} {
		b := real(t, name)
		if d := cmp.Diff(packages(first), packages(b)); d != "" {
			t.Errorf("%s differs:\n%s", name, d)
		}
		if b.Name != "csaf_checker" || !b.Names("sha256:c863dfc31018338a6374a5a69d014cb727d1263f3a634cea77177dd234a15327") {
			t.Errorf("%s: describes %q, digests %q", name, b.Name, b.Digests)
		}
		if len(b.Components) != 22 {
			t.Errorf("%s: %d components, the file itself must not be one", name, len(b.Components))
		}
		if len(b.Relations) == 0 || len(b.Creators) == 0 || b.Created.IsZero() {
			t.Errorf("%s: relations %d, creators %q, created %v", name, len(b.Relations), b.Creators, b.Created)
		}
	}
}

func TestPairsAgree(t *testing.T) {
	for _, pair := range []struct {
		a, b string
		n    int
	}{
		{"cyclonedx/gateway-ui.npm-11.1.5.json", "spdx/gateway-ui.npm-11.spdx-2.3.json", 116},
		{"cyclonedx/debian12.syft-1.57.1.6.json.gz", "spdx/debian12.syft-1.57.spdx-3.0.json.gz", 885},
		{"cyclonedx/laravel-7.12.0.1.4.json", "cyclonedx/laravel-7.12.0.1.4.xml", 62},
	} {
		a, b := packages(real(t, pair.a)), packages(real(t, pair.b))
		if len(a) != pair.n {
			t.Errorf("%s: %d packages, want %d", pair.a, len(a), pair.n)
		}
		if d := cmp.Diff(a, b); d != "" {
			t.Errorf("%s and %s differ:\n%s", pair.a, pair.b, d)
		}
	}
}

func TestDebianEpochsAndSources(t *testing.T) {
	b := real(t, "cyclonedx/debian12.syft-1.57.1.6.json.gz")
	epochs, sources := 0, 0
	for _, c := range b.Components {
		if c.Ecosystem == "" {
			continue
		}
		if c.Ecosystem != "Debian:12" {
			t.Fatalf("%s: ecosystem %q", c.PURL, c.Ecosystem)
		}
		if strings.Contains(c.PURL, "%3A") && strings.Contains(c.PackageVersion, ":") {
			epochs++
		}
		if strings.Contains(c.PackageVersion, "%") {
			t.Fatalf("%s: version %q is not decoded", c.PURL, c.PackageVersion)
		}
		if strings.Contains(c.PURL, "upstream=") {
			sources++
		}
	}
	if epochs == 0 || sources != 731 {
		t.Fatalf("%d epochs, %d source packages; want some and 731", epochs, sources)
	}
}

func TestHardwareIsNotMatchable(t *testing.T) {
	b := real(t, "cyclonedx/hbom-pcie-sata.json")
	if q := b.Quality(); len(b.Components) != 6 || q.Grade != GradeNotMatchable || q.Matchable != 0 {
		t.Fatalf("%d components, quality %+v; six devices that cannot be matched are not clean", len(b.Components), q)
	}
}

func TestVEXIsNoBill(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join(realdata.Dir(t), "sbom/cyclonedx/vex/cisa-case-1-vex-affected.json"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(doc); err == nil || !strings.Contains(err.Error(), "VEX") {
		t.Fatalf("a VEX document was taken for a bill: %v", err)
	}
	if q := real(t, "cyclonedx/proton-bridge-v1.8.0.json").Quality(); q.Total != 201 || q.Matchable != 201 || q.Grade != GradeUsable {
		t.Fatalf("proton-bridge: %+v", q)
	}
}
