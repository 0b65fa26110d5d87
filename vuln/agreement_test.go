// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"archive/zip"
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/realdata"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/testpeers"
	"github.com/openthings-platform/openthings/vuln/record"
)

// said is what a matcher found: "package@version record".
type said map[string]bool

// agree reports what only one of two found, some of it.
func agree(t *testing.T, what, peer string, theirs, ours said) {
	t.Helper()
	only := func(who string, a, b said) {
		var list []string
		for f := range a {
			if !b[f] {
				list = append(list, f)
			}
		}
		if slices.Sort(list); len(list) > 0 {
			t.Errorf("%s: only %s finds %d of %d, such as\n\t%s", what, who, len(list), len(a), strings.Join(list[:min(len(list), 20)], "\n\t"))
		}
	}
	only(peer, theirs, ours)
	only("Check", ours, theirs)
}

// ours is what Check finds, without what was withdrawn.
func ours(t *testing.T, doc []byte) said {
	t.Helper()
	b, err := sbom.Parse(doc)
	if err != nil {
		t.Fatal(err)
	}
	rep, err := Check(b, realFeed(t))
	if err != nil {
		t.Fatal(err)
	}
	out := said{}
	for _, h := range rep.Hits {
		if h.State == record.StateUnknown {
			t.Errorf("%s of %s %s cannot be told: %s", h.Record, h.Component, h.Version, h.Reason)
		}
		if !h.Withdrawn {
			out[fmt.Sprintf("%s@%s %s", h.Component, strings.TrimPrefix(h.Version, "v"), h.Record)] = true
		}
	}
	return out
}

// realRecords are the records of realFeed as they are published.
func realRecords(t *testing.T) []byte {
	t.Helper()
	records, err := os.ReadFile(filepath.Join(realdata.Dir(t), "vuln/osv/Go/all.zip"))
	if err != nil {
		t.Fatal(err)
	}
	return records
}

// scanner is what osv-scanner finds offline in the same document with the same records, as a zip.
func scanner(t *testing.T, doc, records []byte) said {
	t.Helper()
	bin, err := testpeers.OSVScanner(t.Context())
	if err != nil {
		t.Fatalf("the comparison did not run: %v", err)
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "osv-scanner/Go"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"osv-scanner/Go/all.zip": records, "bom.json": doc} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), bin, "--experimental-offline", "--experimental-local-db-path", dir, "--format", "json", "--sbom", filepath.Join(dir, "bom.json"))
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &words
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) { // 1: there are findings
		t.Fatalf("osv-scanner: %v\n%s", err, words.Bytes())
	}
	var doc2 struct {
		Results []struct {
			Packages []struct {
				Package         struct{ Name, Version string }
				Vulnerabilities []struct{ ID string }
			}
		}
	}
	if err := json.Unmarshal(out.Bytes(), &doc2); err != nil {
		t.Fatalf("osv-scanner: %v\n%s\n%s", err, out.Bytes(), words.Bytes())
	}
	found := said{}
	for _, r := range doc2.Results {
		for _, p := range r.Packages {
			for _, v := range p.Vulnerabilities {
				found[fmt.Sprintf("%s@%s %s", p.Package.Name, strings.TrimPrefix(p.Package.Version, "v"), v.ID)] = true
			}
		}
	}
	return found
}

// TestAgreementWithOSVScanner compares the findings in real bills, item by item; see docs/reference/matching.md.
func TestAgreementWithOSVScanner(t *testing.T) {
	t.Parallel()
	for name, least := range map[string]int{"cyclonedx/csaf_checker.syft-1.57.1.6.json": 1, "cyclonedx/proton-bridge-v1.8.0.json": 52} {
		_, doc := realBill(t, name)
		theirs := scanner(t, doc, realRecords(t))
		if len(theirs) < least {
			t.Errorf("%s: osv-scanner finds %d, want at least %d: the comparison proves too little", name, len(theirs), least)
		}
		agree(t, name, "osv-scanner", theirs, ours(t, doc))
	}
}

// TestAgreementAtEveryBoundary compares versions on, just below and just above each end of each range of the real
// records in both matchers: each package stands in one of some bills, and osv-scanner, which looks through all records for
// each version, gets those about the packages of a bill with it.
func TestAgreementAtEveryBoundary(t *testing.T) {
	t.Parallel()
	const bills = 16
	parts := map[string]map[string]bool{}
	placeOf := map[string]int{} // by package
	records := [bills]map[string]string{}
	err := realFeed(t).Each(func(string, string) bool { return true }, func(r record.Record, body []byte) error {
		for _, a := range r.Affected {
			n, ok := placeOf[a.Package.Name]
			if !ok {
				n = len(placeOf) % bills
				placeOf[a.Package.Name] = n
			}
			if records[n] == nil {
				records[n] = map[string]string{}
			}
			records[n][r.ID] = string(body)
			for _, rg := range a.Ranges {
				for _, e := range rg.Events {
					end := e.Introduced + e.Fixed + e.LastAffected + e.Limit
					if end == "0" {
						end = "0.0.0"
					}
					if parts[a.Package.Name] == nil {
						parts[a.Package.Name] = map[string]bool{}
					}
					for _, v := range around(end) {
						parts[a.Package.Name][v] = true
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	components := [bills][]map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		versions := slices.Sorted(maps.Keys(parts[name]))
		for i := 0; i < len(versions); i += 1 + len(versions)/eachPackage { // the standard library alone has thousands
			total++
			n := placeOf[name]
			components[n] = append(components[n], map[string]string{"type": "library", "name": name, "version": "v" + versions[i],
				"purl": "pkg:golang/" + name + "@v" + strings.ReplaceAll(versions[i], "+", "%2B")})
		}
	}
	bill := func(components []map[string]string) []byte {
		doc, err := json.Marshal(map[string]any{"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": components})
		if err != nil {
			t.Fatal(err)
		}
		return doc
	}
	theirs := said{}
	for n := range bills {
		maps.Copy(theirs, scanner(t, bill(components[n]), zipped(t, slices.Collect(maps.Values(records[n]))...)))
	}
	t.Logf("%d component versions, %d findings of osv-scanner", total, len(theirs))
	if total < 5000 || len(theirs) < 5000 {
		t.Error("the comparison proves too little")
	}
	found := ours(t, bill(slices.Concat(components[:]...)))
	capitals := 0
	for f := range found { // docs/reference/matching.md: the package's name in the record has capitals, the purl may not
		if name, _, _ := strings.Cut(f, "@"); name != strings.ToLower(name) && !theirs[f] {
			delete(found, f)
			capitals++
		}
	}
	if capitals == 0 {
		t.Error("osv-scanner knows capitals now: the reference says otherwise")
	}
	agree(t, "every boundary", "osv-scanner", theirs, found)
}

// eachPackage bounds the versions of one package that are compared.
const eachPackage = 10

// around is a version with its nearest neighbours of other shape: a pre-release below it, a patch and a build above.
func around(v string) []string {
	core, _, pre := strings.Cut(v, "-")
	if pre {
		return []string{v, v + ".0", core}
	}
	return []string{v, v + "-0", v + "-rc.1", v + "+incompatible", core + "1"}
}

// TestAgreementWithGovulncheck compares the modules inside real Go programs: this test, and the demo's firmware.
func TestAgreementWithGovulncheck(t *testing.T) {
	t.Parallel()
	bin, err := testpeers.Govulncheck(t.Context())
	if err != nil {
		t.Fatalf("the comparison did not run: %v", err)
	}
	db := goDatabase(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, program := range []string{self, "../demo/assets/lamp-1.0.0", "../demo/assets/lamp-1.1.0"} {
		theirs := said{}
		out, err := exec.CommandContext(t.Context(), bin, "-db", "file://"+db, "-mode", "binary", "-scan", "module", "-format", "json", program).Output()
		if err != nil {
			t.Fatalf("govulncheck %s: %v\n%s", program, err, out)
		}
		for d := json.NewDecoder(bytes.NewReader(out)); ; {
			var line struct {
				Finding *struct {
					OSV   string
					Trace []struct{ Module, Version string }
				}
			}
			if err := d.Decode(&line); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if f := line.Finding; f != nil {
				theirs[fmt.Sprintf("%s@%s %s", f.Trace[0].Module, strings.TrimPrefix(f.Trace[0].Version, "v"), f.OSV)] = true
			}
		}
		total += len(theirs)
		agree(t, filepath.Base(program), "govulncheck", theirs, ours(t, billOf(t, program)))
	}
	if total < 5 {
		t.Errorf("govulncheck finds %d in all: the comparison proves too little", total)
	}
}

// billOf makes the bill of a Go program as "openthings sbom make" does.
func billOf(t *testing.T, program string) []byte {
	t.Helper()
	bi, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := sbom.FromBuildInfo(bi, "sha256:"+strings.Repeat("a", 64), "program", "1")
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// goDatabase lays the real records as the Go vulnerability database serves them (https://go.dev/doc/security/vuln/database).
func goDatabase(t *testing.T) string {
	t.Helper()
	z, err := zip.OpenReader(filepath.Join(realdata.Dir(t), "vuln/osv/Go/all.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	dir := t.TempDir()
	write := func(name string, b []byte) {
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o700), os.WriteFile(filepath.Join(dir, name), b, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	type vuln struct {
		ID       string    `json:"id"`
		Modified time.Time `json:"modified"`
	}
	type module struct {
		Path  string `json:"path"`
		Vulns []vuln `json:"vulns"`
	}
	modules := map[string]*module{}
	vulns := []vuln{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		rec, err := record.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		write("ID/"+rec.ID+".json", b)
		vulns = append(vulns, vuln{ID: rec.ID})
		for _, a := range rec.Affected {
			m := modules[a.Package.Name]
			if m == nil {
				m = &module{Path: a.Package.Name}
				modules[m.Path] = m
			}
			if !slices.Contains(m.Vulns, vuln{ID: rec.ID}) {
				m.Vulns = append(m.Vulns, vuln{ID: rec.ID})
			}
		}
	}
	for name, v := range map[string]any{"index/db.json": map[string]any{"modified": time.Time{}}, "index/vulns.json": vulns, "index/modules.json": slices.Collect(maps.Values(modules))} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		write(name, b)
	}
	return dir
}
