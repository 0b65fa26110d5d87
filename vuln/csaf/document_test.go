// SPDX-License-Identifier: AGPL-3.0-only

package csaf

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openthings-platform/openthings/testpeers"
)

var issued = time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)

// product is one version of the lamp as a branch.
func version(name, id string) Branch {
	return Branch{Category: BranchProductVersion, Name: name, Product: &Product{Name: "Acme Street lamp " + name, ProductID: id, Helper: &Helpers{
		Hashes:       []FileHashes{{FileHashes: []FileHash{{"sha256", strings.Repeat("ab", 32)}}, Filename: "lamp-" + name + ".img"}},
		ModelNumbers: []string{"lamp"}, PURL: "pkg:generic/acme/lamp@" + name}}}
}

// sample is a document that uses every member that is written, without a fault.
func sample(category string) *Document {
	score, err := Score3("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H")
	if err != nil {
		panic(err)
	}
	weakness, err := Weakness("CWE-787")
	if err != nil {
		panic(err)
	}
	return &Document{
		Document: Meta{
			Acknowledgments:   []Acknowledgment{{Names: []string{"Ann"}, Organization: "Finders", Summary: "reported it", URLs: []string{"https://finders.example"}}},
			AggregateSeverity: &Severity{Text: "Critical"},
			Category:          category,
			CSAFVersion:       Version,
			Distribution:      &Distribution{TLP: &TLP{Label: TLPWhite, URL: "https://www.first.org/tlp/v1/"}},
			Lang:              "en",
			Notes:             []Note{{Category: NoteSummary, Text: "A buffer in the radio can be written past its end.", Title: "Summary"}},
			Publisher:         Publisher{Category: PublisherVendor, ContactDetails: "psirt@acme.example", Name: "Acme", Namespace: "https://acme.example"},
			References:        []Reference{{Category: ReferenceSelf, Summary: "This advisory", URL: "https://acme.example/csaf/white/2026/acme-2026-0001.json"}},
			Title:             "Overflow in the radio of the street lamp",
			Tracking: Tracking{
				CurrentReleaseDate: issued.Add(time.Hour), ID: "ACME-2026-0001", InitialReleaseDate: issued,
				Generator:       &Generator{Date: new(issued.Add(time.Hour)), Engine: Engine{Name: "OpenThings", Version: "1"}},
				RevisionHistory: []Revision{{Date: issued, Number: "1", Summary: "First"}, {Date: issued.Add(time.Hour), Number: "2", Summary: "Fixed release"}},
				Status:          Final, Version: "2",
			},
		},
		ProductTree: &ProductTree{
			Branches: []Branch{{Category: BranchVendor, Name: "Acme", Branches: []Branch{{Category: BranchProductName, Name: "Street lamp", Branches: []Branch{
				version("1.0.0", "P1"), version("1.1.0", "P2"), version("1.2.0", "P3"), version("0.9.0", "P4"), version("0.8.0", "P5")}}}}},
		},
		Vulnerabilities: []Vulnerability{{
			CVE: "CVE-2026-1234", CWE: weakness, DiscoveryDate: new(issued.Add(-time.Hour)), IDs: []ID{{"OSV", "GHSA-aaaa-bbbb-cccc"}},
			Flags:         []Flag{{Label: VulnerableCodeNotPresent, ProductIDs: []string{"P4"}}},
			Involvements:  []Involvement{{Date: new(issued), Party: "vendor", Status: "completed", Summary: "fixed"}},
			Notes:         []Note{{Category: NoteDescription, Text: "CVE-2026-1234 is an overflow."}},
			ProductStatus: &ProductStatus{Fixed: []string{"P3"}, KnownAffected: []string{"P2", "P1"}, KnownNotAffected: []string{"P4"}, UnderInvestigation: []string{"P5"}},
			References:    []Reference{{Category: ReferenceExternal, Summary: "Upstream", URL: "https://upstream.example/1"}},
			ReleaseDate:   new(issued),
			Remediations: []Remediation{{Category: VendorFix, Date: new(issued), Details: "Update to 1.2.0.", ProductIDs: []string{"P2", "P1"}, RestartRequired: &Restart{Category: "system"}, URL: "https://acme.example/lamp"},
				{Category: NoneAvailable, Details: "We are looking into it.", ProductIDs: []string{"P5"}}},
			Scores:  []Score{{CVSS3: score, Products: []string{"P1", "P2"}}},
			Threats: []Threat{{Category: ExploitStatus, Details: "No exploitation is known.", ProductIDs: []string{"P1", "P2"}}},
			Title:   "Overflow",
		}},
	}
}

// TestWrittenDocumentsPassBothJudges: two programs that share no code with each other, nor with us, find nothing.
func TestWrittenDocumentsPassBothJudges(t *testing.T) {
	judges := start(t)
	for _, category := range []string{SecurityAdvisory, VEX} {
		b, err := Write(sample(category))
		if err != nil {
			t.Fatal(err)
		}
		found, err := judges.Judge(t.Context(), Filename("ACME-2026-0001"), b)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			t.Errorf("%s: %s: %s", category, f.Test, f.Says)
		}
	}
}

func start(t *testing.T) *testpeers.CSAF {
	t.Helper()
	judges, err := testpeers.StartCSAF(context.WithoutCancel(t.Context())) // it is stopped, not killed
	if err != nil {
		t.Fatalf("the judges of CSAF did not start: %v", err)
	}
	t.Cleanup(func() {
		if err := judges.Stop(); err != nil {
			t.Error(err)
		}
	})
	return judges
}

// faults break one rule each; the test is the one that must name it, here and at csaf-validator-lib.
var faults = []struct {
	test string
	harm func(d *Document)
}{
	{"6.1.1", func(d *Document) { d.Vulnerabilities[0].ProductStatus.Fixed = []string{"P9"} }},
	{"6.1.2", func(d *Document) {
		d.ProductTree.FullProductNames = []Product{{Name: "x", ProductID: "P1", Helper: &Helpers{PURL: "pkg:generic/x@1"}}}
	}},
	{"6.1.3", func(d *Document) {
		d.ProductTree.Relationships = []Relationship{{Category: InstalledOn, Product: Product{Name: "x", ProductID: "R"}, ProductReference: "R", RelatesTo: "P1"}}
	}},
	{"6.1.4", func(d *Document) { d.Vulnerabilities[0].Remediations[0].GroupIDs = []string{"G9"} }},
	{"6.1.5", func(d *Document) {
		g := ProductGroup{GroupID: "G", ProductIDs: []string{"P1", "P2"}}
		d.ProductTree.ProductGroups = []ProductGroup{g, g}
	}},
	{"6.1.6", func(d *Document) { d.Vulnerabilities[0].ProductStatus.Fixed = []string{"P1"} }},
	{"6.1.7", func(d *Document) {
		d.Vulnerabilities[0].Scores = append(d.Vulnerabilities[0].Scores, d.Vulnerabilities[0].Scores[0])
	}},
	{"6.1.9", func(d *Document) {
		d.Vulnerabilities[0].Scores[0].CVSS3.BaseScore, d.Vulnerabilities[0].Scores[0].CVSS3.BaseSeverity = 9.9, "CRITICAL"
	}},
	{"6.1.11", func(d *Document) { d.Vulnerabilities[0].CWE = &CWE{"CWE-787", "Overflow"} }},
	{"6.1.12", func(d *Document) { d.Document.Lang = "zz" }},
	{"6.1.13", func(d *Document) {
		d.ProductTree.Branches[0].Branches[0].Branches[0].Product.Helper.PURL = "pkg:generic"
	}},
	{"6.1.14", func(d *Document) {
		h := d.Document.Tracking.RevisionHistory
		h[0].Number, h[1].Number = h[1].Number, h[0].Number
	}},
	{"6.1.15", func(d *Document) { d.Document.Publisher.Category = PublisherTranslator }},
	{"6.1.16", func(d *Document) { d.Document.Tracking.Version = "3" }},
	{"6.1.17", func(d *Document) { setVersions(d, "0.1.0", "0.2.0") }},
	{"6.1.18", func(d *Document) { setVersions(d, "0", "1") }},
	{"6.1.19", func(d *Document) { setVersions(d, "1.0.0-rc", "1.0.0") }},
	{"6.1.20", func(d *Document) {
		setVersions(d, "1.0.0", "1.1.0")
		d.Document.Tracking.Version = "1.1.0-rc"
	}},
	{"6.1.21", func(d *Document) { setVersions(d, "1", "3") }},
	{"6.1.22", func(d *Document) { setVersions(d, "1", "1") }},
	{"6.1.23", func(d *Document) { d.Vulnerabilities = append(d.Vulnerabilities, d.Vulnerabilities[0]) }},
	{"6.1.24", func(d *Document) {
		v := &d.Vulnerabilities[0]
		v.Involvements = append(v.Involvements, Involvement{Date: v.Involvements[0].Date, Party: "vendor", Status: "open"})
	}},
	{"6.1.25", func(d *Document) {
		h := &d.ProductTree.Branches[0].Branches[0].Branches[0].Product.Helper.Hashes[0]
		h.FileHashes = append(h.FileHashes, FileHash{"sha256", strings.Repeat("cd", 32)})
	}},
	{"6.1.26", func(d *Document) { d.Document.Category = "Security-Advisory" }},
	{"6.1.27.4", func(d *Document) {
		d.ProductTree = nil
	}},
	{"6.1.27.5", func(d *Document) { d.Vulnerabilities[0].Notes = nil }},
	{"6.1.27.6", func(d *Document) { d.Vulnerabilities[0].ProductStatus = nil }},
	{"6.1.27.7", func(d *Document) {
		d.Document.Category = VEX
		d.Vulnerabilities[0].ProductStatus = &ProductStatus{FirstFixed: []string{"P3"}}
	}},
	{"6.1.27.8", func(d *Document) {
		d.Document.Category = VEX
		d.Vulnerabilities[0].CVE, d.Vulnerabilities[0].IDs = "", nil
	}},
	{"6.1.27.9", func(d *Document) {
		d.Document.Category = VEX
		d.Vulnerabilities[0].Flags = nil
	}},
	{"6.1.27.10", func(d *Document) {
		d.Document.Category = VEX
		d.Vulnerabilities[0].Remediations = nil
	}},
	{"6.1.27.11", func(d *Document) { d.Vulnerabilities = nil }},
	{"6.1.28", func(d *Document) { d.Document.SourceLang = "en" }},
	{"6.1.29", func(d *Document) { d.Vulnerabilities[0].Remediations[0].ProductIDs = nil }},
	{"6.1.30", func(d *Document) { setVersions(d, "1.0.0", "2") }},
	{"6.1.31", func(d *Document) { d.ProductTree.Branches[0].Branches[0].Branches[0].Name = "before 1.1.0" }},
	{"6.1.32", func(d *Document) { d.Vulnerabilities[0].Flags[0].ProductIDs = nil }},
	{"6.1.33", func(d *Document) {
		v := &d.Vulnerabilities[0]
		v.Flags = append(v.Flags, Flag{Label: ComponentNotPresent, ProductIDs: []string{"P4"}})
	}},
	{"schema", func(d *Document) { d.Document.Title = "" }},
	{"schema", func(d *Document) { d.Document.Publisher.Namespace = "acme" }},
	{"schema", func(d *Document) { d.Document.Tracking.RevisionHistory = nil }},
	{"schema", func(d *Document) { d.Document.Tracking.Status = "done" }},
	{"schema", func(d *Document) { d.Vulnerabilities[0].CVE = "CVE-1" }},
	{"schema", func(d *Document) { d.Vulnerabilities[0].Threats[0].Category = "danger" }},
	{"schema", func(d *Document) { d.Vulnerabilities[0].ProductStatus = &ProductStatus{} }},
	{"schema", func(d *Document) { d.ProductTree.Branches[0].Branches[0].Branches[0].Product = nil }},
	{"schema", func(d *Document) {
		d.ProductTree.Branches[0].Branches[0].Branches[0].Product.Helper.CPE = "cpe:2.3:lamp"
	}},
	{"schema", func(d *Document) { d.Vulnerabilities[0].Scores[0].CVSS3.VectorString = "CVSS:3.1/AV:Z" }},
}

func setVersions(d *Document, first, second string) {
	h := d.Document.Tracking.RevisionHistory
	h[0].Number, h[1].Number = first, second
	d.Document.Tracking.Version = second
}

// TestEveryFaultIsFoundHereAndByTheJudge breaks one rule after the other. Check must name it, Write must refuse it, and
// csaf-validator-lib must name the same test: so our reading of the rules is theirs, and a judge that finds nothing in
// what we publish would have found something.
func TestEveryFaultIsFoundHereAndByTheJudge(t *testing.T) {
	judges := start(t)
	for i, f := range faults {
		d := sample(SecurityAdvisory)
		f.harm(d)
		if failed := Check(d); !slices.ContainsFunc(failed, func(x Failure) bool {
			return x.Test == f.test || f.test == "schema" && x.Test == "6.1.8"
		}) {
			t.Errorf("%s: Check found %v", f.test, failed)
		}
		if _, err := Write(d); err == nil {
			t.Errorf("%s: it was written", f.test)
		}
		b, err := Encode(d)
		if err != nil {
			t.Fatal(err)
		}
		found, err := judges.Judge(t.Context(), Filename("ACME-2026-0001"), b)
		if err != nil {
			t.Fatal(err)
		}
		want := "mandatoryTest_" + strings.ReplaceAll(f.test, ".", "_")
		if f.test == "schema" {
			want = "csaf_2_0_strict"
		}
		if !slices.ContainsFunc(found, func(x testpeers.CSAFFinding) bool { return x.Test == want }) {
			t.Errorf("fault %d, %s: csaf-validator-lib found %v", i, f.test, found)
		}
		if !slices.ContainsFunc(found, func(x testpeers.CSAFFinding) bool { return x.Test == "csaf_validator" }) {
			t.Errorf("fault %d, %s: csaf_validator found nothing", i, f.test)
		}
	}
}

// TestEqualDocumentsGiveEqualBytes: neither the order of products nor a reading in between changes what is signed.
func TestEqualDocumentsGiveEqualBytes(t *testing.T) {
	a, err := Write(sample(SecurityAdvisory))
	if err != nil {
		t.Fatal(err)
	}
	d := sample(SecurityAdvisory)
	s := d.Vulnerabilities[0].ProductStatus
	slices.Reverse(s.KnownAffected)
	s.Fixed = append(s.Fixed, s.Fixed...)
	slices.Reverse(d.Vulnerabilities[0].Remediations[0].ProductIDs)
	if b, err := Write(d); err != nil || !bytes.Equal(a, b) {
		t.Errorf("another order gave other bytes: %v\n%s", err, cmp.Diff(string(a), string(b)))
	}
	read, err := Parse(a)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := Write(read); err != nil || !bytes.Equal(a, b) {
		t.Errorf("reading and writing gave other bytes: %v\n%s", err, cmp.Diff(string(a), string(b)))
	}
}

func TestProducts(t *testing.T) {
	d := sample(SecurityAdvisory)
	got := map[string]string{}
	d.ProductTree.Products(func(p Product, path Path) {
		got[p.ProductID] = path.Name(BranchVendor) + "/" + path.Name(BranchProductName) + "/" + path.Name(BranchProductVersion)
	})
	if got["P2"] != "Acme/Street lamp/1.1.0" || len(got) != 5 {
		t.Errorf("%v", got)
	}
	d.ProductTree.ProductGroups = []ProductGroup{{GroupID: "G", ProductIDs: []string{"P2", "P1"}}}
	if got := d.ProductTree.Expand([]string{"P3", "P1"}, []string{"G"}); !slices.Equal(got, []string{"P1", "P2", "P3"}) {
		t.Errorf("%v", got)
	}
	if f := Filename("ACME 2026:0001+a"); f != "acme_2026_0001+a.json" {
		t.Error(f)
	}
}

func TestParseRefuses(t *testing.T) {
	deep := strings.Repeat(`{"category":"vendor","name":"x","branches":[`, maxDepth+1)
	for name, doc := range map[string]string{
		"nothing":     ``,
		"no document": `{}`,
		"another one": `{"document":{"csaf_version":"2.1"}}`,
		"half":        `{"document":{"csaf_version":"2.0"`,
		"deep":        `{"document":{"csaf_version":"2.0"},"product_tree":{"branches":[` + deep + strings.Repeat(`]}`, maxDepth+1) + `]}}`,
		"large":       `{"document":{"csaf_version":"2.0","title":"` + strings.Repeat("x", MaxSize) + `"}}`,
	} {
		if _, err := Parse([]byte(doc)); err == nil {
			t.Errorf("%s was read", name)
		}
	}
}

// FuzzParse: whatever comes, it is read or refused; what is read can be judged and written, and reads the same again.
func FuzzParse(f *testing.F) {
	for _, category := range []string{SecurityAdvisory, VEX, "csaf_base"} {
		b, err := Encode(sample(category))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, fault := range faults {
		d := sample(SecurityAdvisory)
		fault.harm(d)
		b, err := Encode(d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"document":{"csaf_version":"2.0","tracking":{"revision_history":[{}]}},"product_tree":{"branches":[{}]},"vulnerabilities":[{"scores":[{}]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Parse(b)
		if err != nil {
			return
		}
		Check(d)
		first, err := Encode(d)
		if err != nil {
			return // a year that JSON cannot write
		}
		again, err := Parse(first)
		if err != nil {
			t.Fatalf("what was written is not read: %v\n%s", err, first)
		}
		if second, err := Encode(again); err != nil || !bytes.Equal(first, second) {
			t.Errorf("written again it differs: %v\n%s", err, cmp.Diff(string(first), string(second)))
		}
	})
}
