// SPDX-License-Identifier: AGPL-3.0-only

package vex

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/realdata"
)

var formats = []Format{OpenVEX, CycloneDX, CSAF}

// refs draws things as our exports name them: by package URL, CPE, digest or id.
func refs(prefix string) *rapid.Generator[Ref] {
	return rapid.Custom(func(t *rapid.T) Ref {
		n := rapid.IntRange(0, 3).Draw(t, "n")
		r := Ref{PURL: GenericPURL(fmt.Sprintf("%s Ä/%d", prefix, n), "1.0+b")}
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 1:
			r.ID, r.Digest = ReleaseRef("rel_"+prefix), "sha256:"+strings.Repeat(fmt.Sprint(n), 64)
		case 2:
			r = Ref{CPE: fmt.Sprintf("cpe:2.3:a:maker:%s:1.%d:*:*:*:*:*:*:*", prefix, n)}
		case 3:
			r = Ref{Digest: "sha256:" + strings.Repeat("ab", 31) + fmt.Sprintf("c%d", n)}
		case 4:
			r.CPE = fmt.Sprintf("cpe:/a:maker:%s:1.%d", prefix, n)
		}
		return r
	})
}

func documents() *rapid.Generator[Document] {
	text := rapid.SampledFrom([]string{"", "one line", "two\nlines, and <markup> & \"quotes\"", "Größe – 大"})
	return rapid.Custom(func(t *rapid.T) Document {
		at := time.UnixMilli(1_790_000_000_000).UTC()
		d := Document{ID: "urn:uuid:00000000-0000-4000-8000-000000000001", Version: "1", Author: "Lamp Works", At: at, Namespace: "https://lamp.example"}
		said := map[string]bool{}
		for range rapid.IntRange(1, 8).Draw(t, "statements") {
			n := rapid.IntRange(0, 3).Draw(t, "vulnerability")
			s := Statement{Idents: [][]string{{"CVE-2026-0001", "GHSA-x", "OSV-1"}, {"CVE-2026-0002"}, {"CVE-2026-3"}, {"GO-2026-1", "PRIVATE-7"}}[n],
				Summary: []string{"", "what it is", "", "two\nlines"}[n], Detail: text.Draw(t, "detail"), Action: text.Draw(t, "action"),
				At:     at.Add(-time.Duration(rapid.IntRange(0, 5).Draw(t, "age")) * 1500 * time.Millisecond),
				Status: rapid.SampledFrom([]Status{UnderInvestigation, Affected, NotAffected, Fixed}).Draw(t, "status")}
			if s.Status == NotAffected {
				s.Justification = rapid.SampledFrom(append([]Justification{""}, Justifications...)).Draw(t, "justification")
				if s.Justification == "" && s.Detail == "" {
					s.Detail = "because"
				}
			}
			for range rapid.IntRange(1, 3).Draw(t, "products") {
				p := Product{Ref: refs("product").Draw(t, "product")}
				for _, c := range append(rapid.SliceOfN(refs("part"), 0, 3).Draw(t, "parts"), Ref{}) {
					key := fmt.Sprint(n, p.Ref, c)
					whole := c.empty() && len(p.Components) == 0
					if said[key] || c.empty() && !whole {
						continue
					}
					said[key] = true
					if whole {
						s.Products = append(s.Products, p)
					} else {
						p.Components = append(p.Components, c)
					}
				}
				if len(p.Components) > 0 {
					s.Products = append(s.Products, p)
				}
			}
			if len(s.Products) > 0 {
				d.Statements = append(d.Statements, s)
			}
		}
		if len(d.Statements) == 0 {
			t.Skip("every product had its statement")
		}
		return d
	})
}

// TestRoundTrip writes drawn statements in each format and reads the same ones back.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := documents().Draw(t, "document")
		want := Normal(d.Statements)
		for _, f := range formats {
			b, err := Write(d, f)
			if err != nil {
				t.Fatalf("%s: %v", f, err)
			}
			got, err := Parse(b)
			if err != nil {
				t.Fatalf("%s: %v\n%s", f, err, b)
			}
			if diff := cmp.Diff(want, got.Statements); diff != "" {
				t.Fatalf("%s: (-written +read)\n%s\n%s", f, diff, b)
			}
			if got.ID != d.ID || got.Version != d.Version || got.Author != d.Author || !got.At.Equal(d.At) || got.Format != f || len(got.Unread) > 0 {
				t.Fatalf("%s: the document came back as %+v", f, got)
			}
			again, err := Write(d, f)
			if err != nil || string(again) != string(b) {
				t.Fatalf("%s: written twice, not the same bytes (%v)", f, err)
			}
		}
	})
}

func read(t *testing.T, file string) Document {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Parse(b)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return d
}

func equal(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got)\n%s", what, diff)
	}
}

func TestOpenVEXOfOthers(t *testing.T) {
	d := read(t, "testdata/vendor.openvex.json")
	at := time.Date(2026, 3, 2, 8, 30, 0, 500_000_000, time.UTC)
	equal(t, "statements", []Statement{
		{Idents: []string{"CVE-2026-1111", "GHSA-aaaa-bbbb-cccc"}, Summary: "A heap overflow in the record layer.", Status: NotAffected,
			Justification: CodeNotInPath, Detail: "The record layer of the product is another one.", At: at,
			Products: []Product{{Ref{PURL: "pkg:generic/tls@1.2.3", CPE: "cpe:2.3:a:example:tls:1.2.3:*:*:*:*:*:*:*", Digest: "sha256:" + strings.Repeat("a", 64)},
				[]Ref{{PURL: "pkg:generic/tls-record"}}}}},
		{Idents: []string{"CVE-2026-2222"}, Status: Affected, At: time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC), Products: []Product{{Ref: Ref{PURL: "pkg:generic/tls"}}}},
		{Idents: []string{"CVE-2026-3333"}, Status: NotAffected, Detail: "The fault came with 1.3.", At: at,
			Products: []Product{{Ref: Ref{PURL: "pkg:deb/debian/tls@1.2.3?distro=debian-12"}}}},
	}, d.Statements)
	equal(t, "left out", []string{"Digests of md5 are not read, only those of sha-256."}, d.Unread)
	equal(t, "digest", 71, len(d.Digest))
}

func TestCSAFOfOthers(t *testing.T) {
	d := read(t, "testdata/distribution.csaf.json")
	system := Ref{CPE: "cpe:/o:example:linux:9", Name: "Example Linux 9"}
	base := Statement{Idents: []string{"CVE-2026-1111", "GHSA-aaaa-bbbb-cccc"}, Summary: "A heap overflow in the record layer.", Detail: "Important"}
	affected, fixed := base, base
	affected.Status, affected.Action = Affected, "Install the update.\n\nhttps://linux.example/EL-2026-7"
	affected.At, affected.Products = time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC), []Product{{system, []Ref{{PURL: "pkg:rpm/example/tls@1.2.3-4"}}}}
	fixed.Status = Fixed
	fixed.At, fixed.Products = time.Date(2026, 3, 5, 0, 0, 0, 0, time.UTC), []Product{{system, []Ref{{PURL: "pkg:rpm/example/tls@1.2.3-5"}}}}
	equal(t, "statements", []Statement{affected, fixed}, d.Statements)
	equal(t, "document", "Example Linux EL-2026-7 1.1.0", d.Author+" "+d.ID+" "+d.Version)
}

// TestCycloneDXWords holds the table of docs/reference/vex.md: each state and justification, what it becomes and what is kept beside it.
func TestCycloneDXWords(t *testing.T) {
	for _, c := range []struct {
		state, justification string
		want                 Status
		because              Justification
		foreign              Foreign
	}{
		{"in_triage", "", UnderInvestigation, "", Foreign{}},
		{"exploitable", "", Affected, "", Foreign{}},
		{"resolved", "", Fixed, "", Foreign{}},
		{"resolved_with_pedigree", "", Fixed, "", Foreign{State: "resolved_with_pedigree"}},
		{"false_positive", "", NotAffected, "", Foreign{State: "false_positive"}},
		{"not_affected", "", NotAffected, "", Foreign{}},
		{"not_affected", "code_not_present", NotAffected, CodeNotPresent, Foreign{}},
		{"not_affected", "code_not_reachable", NotAffected, CodeNotInPath, Foreign{}},
		{"not_affected", "requires_configuration", NotAffected, "", Foreign{Justification: "requires_configuration"}},
		{"not_affected", "requires_dependency", NotAffected, "", Foreign{Justification: "requires_dependency"}},
		{"not_affected", "requires_environment", NotAffected, "", Foreign{Justification: "requires_environment"}},
		{"not_affected", "protected_by_compiler", NotAffected, "", Foreign{Justification: "protected_by_compiler"}},
		{"not_affected", "protected_at_runtime", NotAffected, "", Foreign{Justification: "protected_at_runtime"}},
		{"not_affected", "protected_at_perimeter", NotAffected, "", Foreign{Justification: "protected_at_perimeter"}},
		{"not_affected", "protected_by_mitigating_control", NotAffected, "", Foreign{Justification: "protected_by_mitigating_control"}},
	} {
		name := c.state + "/" + c.justification
		doc := fmt.Sprintf(`{"bomFormat":"CycloneDX","specVersion":"1.4","version":1,"metadata":{"timestamp":"2026-01-01T00:00:00Z"},"vulnerabilities":[
			{"id":"CVE-2026-1","analysis":{"state":%q,"justification":%q,"detail":"d"},"affects":[{"ref":"pkg:npm/a@1"}]}]}`, c.state, c.justification)
		d, err := Parse([]byte(doc))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		s := d.Statements[0]
		equal(t, name, Statement{Idents: []string{"CVE-2026-1"}, Status: c.want, Justification: c.because, Detail: "d", Foreign: c.foreign,
			At: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Products: []Product{{Ref: Ref{PURL: "pkg:npm/a@1"}}}}, s)
		// Foreign words survive their own format.
		d.ID, d.Author = "urn:uuid:00000000-0000-4000-8000-000000000001", "a"
		b, err := Write(d, CycloneDX)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		again, err := Parse(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		equal(t, name+" again", d.Statements, again.Statements)
	}
	for _, j := range Justifications {
		if w := weaker[j]; w == "" && j != NotControllable {
			t.Errorf("%s has no word in CycloneDX", j)
		} else if back := equals[w]; back != "" && back != j && j != ComponentNotPresent {
			t.Errorf("%s is written as %s, which means %s", j, w, back)
		}
	}
}

// TestRealCycloneDX reads the seven documents of the data set: four states of one CISA case, a case with eight
// vulnerabilities, and a bill with its VEX.
func TestRealCycloneDX(t *testing.T) {
	dir := filepath.Join(realdata.Dir(t), "sbom/cyclonedx/vex")
	at := time.Date(2022, 3, 3, 0, 0, 0, 0, time.UTC)
	for state, want := range map[string]struct {
		name, version string
		status        Status
		because       Justification
	}{
		"affected": {"DEF", "1.0", Affected, ""}, "fixed": {"DEF", "1.1", Fixed, ""},
		"not_affected": {"ABC", "4.2", NotAffected, CodeNotPresent}, "under_investigation": {"GHI", "17.4", UnderInvestigation, ""},
	} {
		d := read(t, filepath.Join(dir, "cisa-case-1-vex-"+state+".json"))
		if len(d.Statements) != 1 {
			t.Fatalf("%s: %d statements", state, len(d.Statements))
		}
		s := d.Statements[0]
		if s.Detail == "" {
			t.Errorf("%s: no detail", state)
		}
		equal(t, state, Statement{Idents: []string{"CVE-2021-44228"}, Status: want.status, Justification: want.because, Detail: s.Detail, At: at,
			Foreign: s.Foreign, Products: []Product{{Ref: Ref{ID: "product-" + want.name, Name: want.name, Version: want.version}}}}, s)
	}
	d := read(t, filepath.Join(dir, "vex.json"))
	equal(t, "the link into another bill", []Product{{Ref{ID: "urn:cdx:3e671687-395b-41f5-a30f-a58921a69b79/1"},
		[]Ref{{PURL: "pkg:maven/com.fasterxml.jackson.core/jackson-databind@2.10.0?type=jar"}}}}, d.Statements[0].Products)
	equal(t, "names", []string{"CVE-2020-25649", "SNYK-JAVA-COMFASTERXMLJACKSONCORE-1048302"}, d.Statements[0].Idents)

	d = read(t, filepath.Join(dir, "cisa-case-8-vex.json"))
	var versions int
	for _, s := range d.Statements {
		for _, p := range s.Products {
			if p.Version == "" && p.Range == "" {
				t.Errorf("%s names %s without a version", s.Idents[0], p.ID)
			}
			versions++
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, "cisa-case-8-vex.json"))
	if err != nil {
		t.Fatal(err)
	}
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(strings.NewReader(string(raw)), cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	listed := 0
	for _, v := range *bom.Vulnerabilities {
		for _, a := range *v.Affects {
			listed += len(*a.Range)
		}
	}
	equal(t, "versions of case 8", listed, versions)

	if _, err := Parse(must(os.ReadFile(filepath.Join(dir, "bom.json")))); !problem.Is(err, problem.KindInvalid) {
		t.Errorf("a bill without an analysis was read as VEX: %v", err)
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// TestVersionsOfTheirOwn: where a listed version contradicts the analysis, what is less comfortable is read.
func TestVersionsOfTheirOwn(t *testing.T) {
	for _, c := range []struct {
		state, version string
		want           Status
		noted          bool
	}{
		{"exploitable", "affected", Affected, false}, {"exploitable", "unaffected", NotAffected, true}, {"exploitable", "unknown", Affected, false},
		{"not_affected", "affected", Affected, true}, {"not_affected", "unaffected", NotAffected, false}, {"not_affected", "unknown", UnderInvestigation, true},
		{"not_affected", "", NotAffected, false}, {"resolved", "", Fixed, false}, {"resolved", "unaffected", Fixed, false},
	} {
		status := ""
		if c.version != "" {
			status = `,"status":"` + c.version + `"`
		}
		d, err := Parse(fmt.Appendf(nil, `{"bomFormat":"CycloneDX","specVersion":"1.5","version":1,"vulnerabilities":[
			{"id":"CVE-2026-1","analysis":{"state":%q,"lastUpdated":"2026-01-01T00:00:00Z"},"affects":[{"ref":"x","versions":[{"version":"2"%s}]}]}]}`, c.state, status))
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Statements[0].Status; got != c.want || len(d.Unread) > 0 != c.noted {
			t.Errorf("%s with version %s: %s, noted %q", c.state, c.version, got, d.Unread)
		}
	}
}

func TestRefused(t *testing.T) {
	open := func(members string) string {
		return `{"@context":"https://openvex.dev/ns/v0.2.0","@id":"x","author":"a","timestamp":"2026-01-01T00:00:00Z","version":1,"statements":[{` + members + `}]}`
	}
	for name, c := range map[string]struct {
		doc  string
		kind problem.Kind
	}{
		"empty":                {"", problem.KindInvalid},
		"no VEX":               {`{"a":1}`, problem.KindInvalid},
		"a bill":               {`{"bomFormat":"CycloneDX","specVersion":"1.6","version":1,"components":[]}`, problem.KindInvalid},
		"CycloneDX 1.3":        {`{"bomFormat":"CycloneDX","specVersion":"1.3","version":1,"vulnerabilities":[{"id":"a","analysis":{"state":"resolved"}}]}`, problem.KindInvalid},
		"another state":        {`{"bomFormat":"CycloneDX","specVersion":"1.6","version":1,"vulnerabilities":[{"id":"a","analysis":{"state":"fine"},"affects":[{"ref":"x"}]}]}`, problem.KindInvalid},
		"OpenVEX 0.0":          {`{"@context":"https://openvex.dev/ns","@id":"x","timestamp":"2026-01-01T00:00:00Z","statements":[]}`, problem.KindInvalid},
		"CSAF 2.1":             {`{"document":{"csaf_version":"2.1"}}`, problem.KindInvalid},
		"no vulnerability":     {open(`"vulnerability":{"name":" "},"products":[{"@id":"pkg:npm/a"}],"status":"fixed"`), problem.KindInvalid},
		"no product":           {open(`"vulnerability":{"name":"CVE-1"},"status":"fixed"`), problem.KindInvalid},
		"a product of no name": {open(`"vulnerability":{"name":"CVE-1"},"products":[{}],"status":"fixed"`), problem.KindInvalid},
		"another status":       {open(`"vulnerability":{"name":"CVE-1"},"products":[{"@id":"pkg:npm/a"}],"status":"fine"`), problem.KindInvalid},
		"another reason":       {open(`"vulnerability":{"name":"CVE-1"},"products":[{"@id":"pkg:npm/a"}],"status":"not_affected","justification":"trust_me"`), problem.KindInvalid},
		"a long name":          {open(`"vulnerability":{"name":"` + strings.Repeat("x", maxName+1) + `"},"products":[{"@id":"pkg:npm/a"}],"status":"fixed"`), problem.KindTooLarge},
		"a long text":          {open(`"vulnerability":{"name":"CVE-1"},"products":[{"@id":"pkg:npm/a"}],"status":"fixed","status_notes":"` + strings.Repeat("x", maxText+1) + `"`), problem.KindTooLarge},
		"control characters":   {open(`"vulnerability":{"name":"CVE\u0000-1"},"products":[{"@id":"pkg:npm/a"}],"status":"fixed"`), problem.KindInvalid},
		"many bytes":           {strings.Repeat(" ", MaxBytes+1), problem.KindTooLarge},
		"many groups": {`{"document":{"csaf_version":"2.0"},"product_tree":{"product_groups":[{"group_id":"g","product_ids":["` + strings.Repeat(`a","`, 3000) +
			`a"]}]},"vulnerabilities":[{"cve":"CVE-1","product_status":{"fixed":["a"]},"threats":[{"category":"impact","details":"d","group_ids":["` + strings.Repeat(`g","`, 3000) + `g"]}]}]}`, problem.KindTooLarge},
	} {
		if _, err := Parse([]byte(c.doc)); !problem.Is(err, c.kind) {
			t.Errorf("%s: %v, want %s", name, err, c.kind)
		}
	}
}

func TestNotWritten(t *testing.T) {
	good := func() Document {
		return Document{ID: "urn:x:1", Version: "1", Author: "a", At: time.Unix(1, 0), Namespace: "https://a.example", Statements: []Statement{
			{Idents: []string{"CVE-2026-0001"}, Status: NotAffected, Justification: CodeNotPresent, At: time.Unix(1, 0), Products: []Product{{Ref: Ref{PURL: "pkg:npm/a@1"}}}}}}
	}
	for name, spoil := range map[string]func(*Document){
		"no author":                func(d *Document) { d.Author = "" },
		"a version of words":       func(d *Document) { d.Version = "one" },
		"no statement":             func(d *Document) { d.Statements = nil },
		"no reason":                func(d *Document) { d.Statements[0].Justification = "" },
		"a reason for being fixed": func(d *Document) { d.Statements[0].Status = Fixed },
		"two things about one part": func(d *Document) {
			s := d.Statements[0]
			s.Status, s.Justification = Fixed, ""
			d.Statements = append(d.Statements, s)
		},
	} {
		for _, f := range formats {
			d := good()
			if _, err := Write(d, f); err != nil {
				t.Fatalf("%s: %v", f, err)
			}
			spoil(&d)
			if _, err := Write(d, f); err == nil {
				t.Errorf("%s: %s was written", f, name)
			}
		}
	}
	ranged := good()
	ranged.Statements[0].Products[0].Range = "vers:npm/>=1"
	if _, err := Write(ranged, OpenVEX); err == nil {
		t.Error("OpenVEX was written with a range")
	}
	if _, err := Write(good(), "spdx"); err == nil {
		t.Error("an unknown format was written")
	}
	if slices.Contains([]int{Own.Rank(), Vendor.Rank(), Distribution.Rank()}, Origin("x").Rank()) {
		t.Error("an unknown origin has a rank")
	}
}

func FuzzParse(f *testing.F) {
	for _, file := range []string{"vendor.openvex.json", "distribution.csaf.json"} {
		f.Add(must(os.ReadFile(filepath.Join("testdata", file))))
	}
	d := Document{ID: "urn:uuid:00000000-0000-4000-8000-000000000001", Version: "1", Author: "a", At: time.Unix(1, 0), Namespace: "https://a.example", Statements: []Statement{
		{Idents: []string{"CVE-2026-0001", "GHSA-1"}, Status: NotAffected, Justification: InlineMitigations, At: time.Unix(1, 0),
			Products: []Product{{Ref{ID: ReleaseRef("rel_1"), PURL: "pkg:generic/lamp@1"}, []Ref{{PURL: "pkg:npm/a@1"}}}, {Ref: Ref{Digest: "sha256:" + strings.Repeat("0", 64)}}}}}}
	for _, format := range formats {
		f.Add(must(Write(d, format)))
	}
	f.Add([]byte(`<bom xmlns="http://cyclonedx.org/schema/bom/1.4"><vulnerabilities><vulnerability><id>CVE-1</id><analysis><state>resolved</state></analysis><affects><target><ref>urn:cdx:x/1#pkg:npm/a</ref></target></affects></vulnerability></vulnerabilities></bom>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Parse(b)
		if err != nil {
			var p *problem.Error
			if !errors.As(err, &p) {
				t.Fatalf("an error for operators: %v", err)
			}
			return
		}
		if diff := cmp.Diff(Normal(d.Statements), d.Statements); diff != "" {
			t.Fatalf("not in normal form: %s", diff)
		}
		if err := d.bound(); err != nil {
			t.Fatalf("out of bounds: %v", err)
		}
		// What was read can be written, or is refused with a sentence; and CycloneDX, which knows most, keeps everything.
		d.ID, d.Version, d.Author, d.At, d.Namespace = "urn:uuid:00000000-0000-4000-8000-000000000001", "1", "a", time.Unix(1, 0), "https://a.example"
		for _, format := range formats {
			w, err := Write(d, format)
			if err != nil {
				continue
			}
			if _, err := Parse(w); err != nil {
				t.Fatalf("%s: written and not readable: %v\n%s", format, err, w)
			}
		}
	})
}
