// SPDX-License-Identifier: AGPL-3.0-only

package law_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/tenant"
)

// tree is what the coverage may name: tests and pages in the source, controls, commands in the reference.
type tree struct {
	tests, controls, pages map[string]bool
	commands               string
}

var (
	testFunc = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	pagePath = regexp.MustCompile(`console\.Page\{\s*Path:\s*"([^"]+)"`)
)

// walk calls fn with each file of the repository that is source, by its path from the root.
func walk(t *testing.T, fn func(path string, text []byte)) {
	t.Helper()
	root := ".."
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); rel != "." && (strings.HasPrefix(name, ".") || name == "node_modules" || name == "bin" || name == "testdata" && filepath.Dir(rel) != ".") {
				return fs.SkipDir
			}
			return nil
		}
		switch filepath.Ext(path) {
		case ".go", ".html", ".md", ".txt", ".txtar", ".json", ".toml", ".css", ".js", ".sql":
		default:
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fn(filepath.ToSlash(rel), text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func readTree(t *testing.T) tree {
	w := tree{tests: map[string]bool{}, controls: map[string]bool{}, pages: map[string]bool{}}
	walk(t, func(path string, text []byte) {
		dir := filepath.ToSlash(filepath.Dir(path))
		switch {
		case strings.HasSuffix(path, "_test.go"):
			for _, m := range testFunc.FindAllSubmatch(text, -1) {
				w.tests[dir+"."+string(m[1])] = true
			}
		case strings.HasSuffix(path, ".go"):
			for _, m := range pagePath.FindAllSubmatch(text, -1) {
				w.pages[string(m[1])] = true
			}
		case dir == "controls" && strings.HasSuffix(path, ".txt"):
			w.controls[strings.TrimSuffix(filepath.Base(path), ".txt")] = true
		case path == "docs/reference/cli.md":
			w.commands = string(text)
		}
	})
	return w
}

// faults says what is wrong with a coverage: a row that nothing stands behind, a name of nothing, a row or name twice.
func faults(rows []law.Rule, cover []law.Covered, w tree) (out []string) {
	fault := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	seen := map[string]bool{}
	for _, c := range cover {
		if seen[c.Row] {
			fault("%s stands twice", c.Row)
		}
		seen[c.Row] = true
		if !slices.ContainsFunc(rows, func(r law.Rule) bool { return r.ID == c.Row }) {
			fault("%s is no row", c.Row)
		}
		for kind, names := range map[string][]string{"test": c.Tests, "control": c.Controls} {
			for i, name := range names {
				if slices.Contains(names[:i], name) {
					fault("%s names the %s %s twice", c.Row, kind, name)
				}
				if !(map[string]map[string]bool{"test": w.tests, "control": w.controls}[kind][name]) {
					fault("%s names the %s %s, which does not exist", c.Row, kind, name)
				}
			}
		}
		if len(c.Tests)+len(c.Controls) == 0 && c.Step == nil {
			fault("%s is an orphan: no check and no person", c.Row)
		}
		if s := c.Step; s != nil {
			if !slices.ContainsFunc(tenant.Roles, func(r struct {
				Role  tenant.Role
				Text  string
				Verbs []tenant.Verb
			}) bool {
				return string(r.Role) == s.Role
			}) {
				fault("%s names the role %q, which nobody has", c.Row, s.Role)
			}
			if s.Does == "" || s.Page == "" && s.Command == "" {
				fault("%s has a step that is done nowhere", c.Row)
			}
			if s.Page != "" && !w.pages[s.Page] {
				fault("%s names the page %s, which does not exist", c.Row, s.Page)
			}
			if s.Command != "" && !strings.Contains(w.commands, "openthings "+s.Command) {
				fault("%s names the command %q, which the reference does not know", c.Row, s.Command)
			}
		}
	}
	for _, r := range rows {
		if !seen[r.ID] {
			fault("%s (%s) is an orphan: nothing stands behind it", r.ID, r.Ref)
		}
	}
	return out
}

func coveredRows() (rows []law.Rule) {
	for _, id := range []string{"cra.i", "cra.ii", "cra.v", "cra.vii", "cra.13", "cra.14"} {
		rows = append(rows, law.Annex(id)...)
	}
	return rows
}

// TestCoverage: a real check or a named person stands behind each row of Annexes I, II, V and VII and of Articles 13
// and 14.
func TestCoverage(t *testing.T) {
	for _, f := range faults(coveredRows(), law.Coverage(), readTree(t)) {
		t.Error(f)
	}
	if n := len(coveredRows()); n != 93 {
		t.Errorf("%d rows, want 22 + 14 + 8 + 8 + 25 + 16", n)
	}
}

// The checker is checked: each kind of fault is found.
func TestCoverageRefuses(t *testing.T) {
	w := tree{tests: map[string]bool{"law.TestCoverage": true}, controls: map[string]bool{"law-claim": true}, pages: map[string]bool{"/law": true}, commands: "openthings evidence export"}
	rows := []law.Rule{{ID: "cra.1", Ref: "one"}, {ID: "cra.2", Ref: "two"}}
	step := &law.Step{Role: "owner", Does: "d", Page: "/law", Command: "evidence export"}
	good := []law.Covered{{Row: "cra.1", Tests: []string{"law.TestCoverage"}, Controls: []string{"law-claim"}}, {Row: "cra.2", Step: step}}
	if got := faults(rows, good, w); got != nil {
		t.Fatalf("a sound coverage: %q", got)
	}
	with := func(c law.Covered) []law.Covered { return []law.Covered{good[0], c} }
	for want, cover := range map[string][]law.Covered{
		"cra.2 (two) is an orphan":       good[:1],
		"cra.2 is an orphan":             with(law.Covered{Row: "cra.2"}),
		"cra.1 stands twice":             append(slices.Clone(good), good[0]),
		"cra.3 is no row":                append(slices.Clone(good), law.Covered{Row: "cra.3", Step: step}),
		"the test law.TestNone, which":   with(law.Covered{Row: "cra.2", Tests: []string{"law.TestNone"}}),
		"test law.TestCoverage twice":    with(law.Covered{Row: "cra.2", Tests: []string{"law.TestCoverage", "law.TestCoverage"}}),
		"the control none, which":        with(law.Covered{Row: "cra.2", Controls: []string{"none"}}),
		"the role \"king\"":              with(law.Covered{Row: "cra.2", Step: &law.Step{Role: "king", Does: "d", Page: "/law"}}),
		"done nowhere":                   with(law.Covered{Row: "cra.2", Step: &law.Step{Role: "owner", Does: "d"}}),
		"the page /nowhere, which":       with(law.Covered{Row: "cra.2", Step: &law.Step{Role: "owner", Does: "d", Page: "/nowhere"}}),
		"the command \"conjure\", which": with(law.Covered{Row: "cra.2", Step: &law.Step{Role: "owner", Does: "d", Command: "conjure"}}),
		"is done nowhere":                with(law.Covered{Row: "cra.2", Step: &law.Step{Role: "owner", Page: "/law"}}),
	} {
		if got := faults(rows, cover, w); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%s: %q", want, got)
		}
	}
}

// claimed spells the claim without standing in this file as one.
var claimed = "presump" + "tion of conformity"

// TestNothingClaimsWhatNoStandardGives: while no harmonised standard is cited, no page, document, message or story of
// the product says what Article 27(1) gives to one.
func TestNothingClaimsWhatNoStandardGives(t *testing.T) {
	files := 0
	walk(t, func(path string, text []byte) {
		if strings.HasSuffix(path, "_test.go") || path == "law/claim.go" || strings.HasPrefix(path, "controls/law-claim") {
			return
		}
		files++
		if law.Unfounded(string(text)) {
			t.Errorf("%s claims it", path)
		}
	})
	if files < 500 {
		t.Errorf("only %d files were read", files)
	}
	for _, text := range []string{claimed, "the " + strings.ToUpper(claimed), "presump" + "tion\n  of conformity", "is presumed to be in conformity", "conformity is therefore presumed", "Konformitäts" + "vermutung", "présomption de conformité"} {
		if !law.Unfounded(text) {
			t.Errorf("%q is not found", text)
		}
	}
	for _, text := range []string{"declaration of conformity", "It is presumed. Conformity is another matter.", "conformity assessment"} {
		if law.Unfounded(text) {
			t.Errorf("%q is taken for a claim", text)
		}
	}
}
