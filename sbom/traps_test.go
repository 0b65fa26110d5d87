// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/problem"
)

// TestTrapsOfRealDocuments are what generators really write and what fools a simple reader.
func TestTrapsOfRealDocuments(t *testing.T) {
	one := func(t *testing.T, component string) Component {
		t.Helper()
		b, err := Parse([]byte(`{"bomFormat":"CycloneDX","specVersion":"1.6","components":[` + component + `]}`))
		if err != nil {
			t.Fatal(err)
		}
		return b.Components[0]
	}
	is := func(t *testing.T, c Component, want string) {
		t.Helper()
		if got := fmt.Sprint(c.Identities); got != want {
			t.Errorf("%s is %s, want %s", c.Name, got, want)
		}
	}
	t.Run("the version of Go's standard library stands in the purl", func(t *testing.T) {
		is(t, one(t, `{"type":"library","name":"stdlib","version":"go1.26.8","purl":"pkg:golang/stdlib@1.26.8"}`), "[{Go stdlib 1.26.8 }]")
	})
	t.Run("Go names are compared without case and shown with it", func(t *testing.T) {
		c := one(t, `{"type":"library","name":"github.com/BurntSushi/toml","version":"v1.6.0","purl":"pkg:golang/github.com/burntsushi/toml@v1.6.0"}`)
		if is(t, c, "[{Go github.com/burntsushi/toml 1.6.0 }]"); c.Name != "github.com/BurntSushi/toml" || c.Package != c.Name {
			t.Errorf("shown as %q, %q", c.Name, c.Package)
		}
	})
	t.Run("Debian's epoch is decoded", func(t *testing.T) {
		is(t, one(t, `{"type":"library","name":"login","version":"1:4.13","purl":"pkg:deb/debian/login@1%3A4.13?distro=debian-12&upstream=shadow"}`), "[{Debian:12 shadow 1:4.13 }]")
	})
	t.Run("Debian's source package may have a version of its own", func(t *testing.T) {
		is(t, one(t, `{"type":"library","name":"libgcc-s1","version":"12.2.0-14","purl":"pkg:deb/debian/libgcc-s1@12.2.0-14?distro=debian-12&upstream=gcc-12%4012.2.0-9"}`), "[{Debian:12 gcc-12 12.2.0-9 }]")
	})
	t.Run("a distribution's package has no upstream names, whatever CPE names are guessed beside it", func(t *testing.T) {
		is(t, one(t, `{"type":"library","name":"curl","version":"7.88","cpe":"cpe:2.3:a:haxx:curl:7.88:*:*:*:*:*:*:*","purl":"pkg:deb/debian/curl@7.88?distro=debian-12"}`), "[{Debian:12 curl 7.88 }]")
		is(t, one(t, `{"type":"library","name":"curl","version":"7.88","cpe":"cpe:2.3:a:haxx:curl:7.88:*:*:*:*:*:*:*","purl":"pkg:deb/debian/curl@7.88"}`), "[]")
		is(t, one(t, `{"type":"library","name":"lodash","version":"4.0","cpe":"cpe:2.3:a:lodash:lodash:4.0:*:*:*:*:*:*:*","purl":"pkg:npm/lodash@4.0"}`), "[{npm lodash 4.0 }]")
	})
	t.Run("a distribution named as a whole is no part", func(t *testing.T) {
		is(t, one(t, `{"type":"operating-system","name":"debian","version":"12","cpe":"cpe:2.3:o:debian:debian_linux:12:*:*:*:*:*:*:*"}`), "[]")
		is(t, one(t, `{"type":"operating-system","name":"zephyr","version":"3.6.0"}`), "[{product zephyr 3.6.0 }]")
	})
	t.Run("a file with a digest for a version is no package", func(t *testing.T) {
		b, err := Parse([]byte(`{"bomFormat":"CycloneDX","specVersion":"1.6","metadata":{"component":{"type":"file","name":"lampd","version":"` + image + `"}},"components":[{"type":"library","name":"a"}]}`))
		if err != nil || b.Root != nil || !b.Names(image) || len(b.Files) != 1 {
			t.Errorf("%+v, %v", b, err)
		}
	})
	t.Run("the product itself is not matched by its bare name", func(t *testing.T) {
		b, err := Parse([]byte(`{"bomFormat":"CycloneDX","specVersion":"1.6","metadata":{"component":{"type":"firmware","name":"curl","version":"8.0"}},"components":[{"type":"library","name":"a"}]}`))
		if err != nil || b.Root.Matchable() {
			t.Errorf("%+v, %v", b.Root, err)
		}
	})
	t.Run("hardware cannot be matched and is not clean", func(t *testing.T) {
		b, err := Parse([]byte(`{"bomFormat":"CycloneDX","specVersion":"1.5","components":[{"type":"device","name":"PCIe SATA"},{"type":"device","name":"relay","version":"2"}]}`))
		if q := b.Quality(); err != nil || q.Grade != GradeNotMatchable || q.NotMatchable() != 2 {
			t.Errorf("%+v, %v", q, err)
		}
	})
	t.Run("tools without a version and documents without a date are graded", func(t *testing.T) {
		b, err := Parse([]byte(`{"bomFormat":"CycloneDX","specVersion":"1.6","metadata":{"timestamp":"yesterday","tools":{"components":[{"type":"application","name":"syft","version":"[not provided]"}]}},"components":[{"type":"library","name":"a"}]}`))
		if err != nil || !b.Created.IsZero() || len(b.Creators) != 1 {
			t.Errorf("%+v, %v", b, err)
		}
	})
	t.Run("a licence identifier that does not exist is words", func(t *testing.T) {
		c := one(t, `{"type":"library","name":"bzip2","version":"1","licenses":[{"license":{"id":"bzip2-1.0.4"}}]}`)
		if c.spdxLicensed() || c.Licence() != "bzip2-1.0.4" {
			t.Errorf("%+v", c.Licences)
		}
	})
	t.Run("SPDX says NOASSERTION where it says nothing", func(t *testing.T) {
		b, err := Parse([]byte("SPDXVersion: SPDX-2.3\nPackageName: a\nSPDXID: SPDXRef-a\nPackageVersion: 1\nPackageSupplier: NOASSERTION\nPackageDownloadLocation: NONE\nPackageLicenseConcluded: NOASSERTION\n"))
		if c := b.Components[0]; err != nil || c.Supplier != (Supplier{}) || c.Licences != nil || c.VCS != nil || c.Links != nil {
			t.Errorf("%+v, %v", c, err)
		}
	})
	t.Run("Yocto's revision is not upstream's version", func(t *testing.T) {
		is(t, one(t, `{"type":"library","name":"busybox","version":"1.36.1-r0","purl":"pkg:yocto/core/busybox@1.36.1-r0"}`), "[{product busybox 1.36.1 }]")
		is(t, one(t, `{"type":"library","name":"u-boot","version":"2024.01+gitAUTOINC+abc-r3"}`), "[{product u-boot 2024.01 }]")
	})
	t.Run("a tag and a commit are told apart", func(t *testing.T) {
		is(t, one(t, `{"type":"library","name":"mbedtls","version":"v3.5.2","purl":"pkg:github/Mbed-TLS/mbedtls@v3.5.2"}`), "[{product mbedtls 3.5.2 mbed-tls}]")
		is(t, one(t, `{"type":"library","name":"lib","purl":"pkg:github/a/lib@0123456789ABCDEF0123456789abcdef01234567"}`), "[{git github.com/a/lib 0123456789abcdef0123456789abcdef01234567 }]")
	})
}

// TestEveryVersionIsRead writes one document in every version of every format.
func TestEveryVersionIsRead(t *testing.T) {
	docs := map[string]string{}
	for _, v := range []string{"1.2", "1.3", "1.4", "1.5", "1.6", "1.7"} {
		docs["CycloneDX "+v+" JSON"] = `{"bomFormat":"CycloneDX","specVersion":"` + v + `","version":1,"components":[{"type":"library","name":"a","version":"1","purl":"pkg:npm/a@1"}]}`
		docs["CycloneDX "+v+" XML"] = `<?xml version="1.0"?><bom xmlns="http://cyclonedx.org/schema/bom/` + v + `" version="1"><components><component type="library"><name>a</name><version>1</version><purl>pkg:npm/a@1</purl></component></components></bom>`
	}
	for _, v := range []string{"2.2", "2.3"} {
		docs["SPDX "+v+" JSON"] = `{"spdxVersion":"SPDX-` + v + `","SPDXID":"SPDXRef-DOCUMENT","packages":[{"name":"a","SPDXID":"SPDXRef-a","versionInfo":"1","externalRefs":[{"referenceType":"purl","referenceLocator":"pkg:npm/a@1"}]}]}`
		docs["SPDX "+v+" tag"] = "SPDXVersion: SPDX-" + v + "\nPackageName: a\nSPDXID: SPDXRef-a\nPackageVersion: 1\nExternalRef: PACKAGE-MANAGER purl pkg:npm/a@1\n"
	}
	for _, v := range []string{"3.0.0", "3.0.1"} {
		docs["SPDX "+v] = `{"@context":"https://spdx.org/rdf/3.0.1/spdx-context.jsonld","@graph":[{"type":"CreationInfo","specVersion":"` + v + `"},{"type":"software_Package","spdxId":"a","name":"a","software_packageVersion":"1","software_packageUrl":"pkg:npm/a@1"}]}`
	}
	for name, doc := range docs {
		b, err := Parse([]byte(doc))
		if err != nil || len(b.Components) != 1 || fmt.Sprint(b.Components[0].Identities) != "[{npm a 1 }]" || !strings.Contains(name, string(b.Format)+" "+b.SpecVersion) {
			t.Errorf("%s: %+v, %v", name, b, err)
		}
	}
}

// FuzzWrite holds for whatever can be read: it can be written in every form, and read again with as many parts.
func FuzzWrite(f *testing.F) {
	for _, name := range []string{"buildroot.cdx.json", "good.cdx.json", "yocto.spdx3.json", "zephyr.spdx"} {
		doc, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(doc)
	}
	f.Add([]byte(`{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"bom-ref":"a","type":"library","name":"a","components":[{"bom-ref":"a","type":"file","name":"b"}]}],"dependencies":[{"ref":"a","dependsOn":["a","a"]}]}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		b, err := Parse(doc)
		if err != nil {
			if problem.Of(err).Kind == problem.KindInternal {
				t.Fatalf("not a clear refusal: %v", err)
			}
			return
		}
		for _, form := range Outputs {
			out, err := b.Write(form)
			if err != nil {
				t.Fatalf("%s: %v", form, err)
			}
			if !json.Valid(out) {
				t.Fatalf("%s: not JSON", form)
			}
			again, err := Parse(out)
			if err != nil {
				t.Fatalf("%s cannot be read back: %v\n%s", form, err, out)
			}
			if len(again.Components) != len(b.Components) || len(again.Files) != len(b.Files) {
				t.Fatalf("%s: %d of %d parts, %d of %d files", form, len(again.Components), len(b.Components), len(again.Files), len(b.Files))
			}
		}
		if small := b.Reduce(Reduction{TopLevel: true, WithoutPaths: true, WithoutHashes: true}); len(small.Components) > len(b.Components) {
			t.Fatal("a reduced copy has more parts")
		}
	})
}
