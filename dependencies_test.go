// SPDX-License-Identifier: AGPL-3.0-only

package openthings

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
)

// most is how many direct requirements the shipped programs may have.
const most = 30

// Every direct requirement that a shipped program links stands in docs/dependencies.md with its licence and reason, and
// nothing else does.
func TestDependencies(t *testing.T) {
	mod, err := modfile.Parse("go.mod", []byte(read(t, "go.mod")), nil)
	if err != nil {
		t.Fatal(err)
	}
	var shipped []string
	linked := links(t, "./cmd/...", "pkcs11")
	for _, r := range mod.Require {
		if !r.Indirect && slices.Contains(linked, r.Mod.Path) {
			shipped = append(shipped, r.Mod.Path)
		}
	}
	if len(shipped) > most {
		t.Errorf("the programs have %d direct requirements, at most %d are wanted", len(shipped), most)
	}
	page := read(t, "docs/dependencies.md")
	modules, browser, ok := strings.Cut(page, "\nIn the browser")
	if !ok {
		t.Fatal("docs/dependencies.md does not speak of the browser")
	}
	rows := tableRows(modules)
	for _, path := range shipped {
		if rows[path] == "" {
			t.Errorf("docs/dependencies.md does not say why %s is needed, or under which licence", path)
		}
	}
	for path := range rows {
		if !slices.Contains(shipped, path) {
			t.Errorf("docs/dependencies.md names %s, which is no direct requirement of a shipped program", path)
		}
	}
	var npm struct{ Dependencies map[string]string }
	if err := json.Unmarshal([]byte(read(t, "package.json")), &npm); err != nil {
		t.Fatal(err)
	}
	rows = tableRows(browser)
	for name := range npm.Dependencies {
		if rows[name] == "" {
			t.Errorf("docs/dependencies.md does not say why %s is needed in the browser", name)
		}
	}
	if len(rows) != len(npm.Dependencies) {
		t.Errorf("docs/dependencies.md names %d browser packages, package.json %d", len(rows), len(npm.Dependencies))
	}

	// What a maker links into a device or hands to an auditor stays small.
	if got := links(t, "./cmd/openthings-agent", ""); !slices.Equal(got, []string{"github.com/foxboron/go-tpm-keyfiles", "github.com/google/go-tpm", "golang.org/x/crypto", "golang.org/x/sys"}) {
		t.Errorf("the agent links %v", got)
	}
	if got := links(t, "./cmd/openthings-verify", ""); !slices.Equal(got, []string{"golang.org/x/mod"}) {
		t.Errorf("the verifier links %v", got)
	}
}

// links are the modules that the programs link beside this one, when they are built with the tags.
func links(t *testing.T, programs, tags string) []string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-tags", tags, "-f", "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}", programs)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	paths := strings.Fields(string(out))
	slices.Sort(paths)
	return slices.Compact(paths)
}

var tableRow = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([A-Z0-9][A-Za-z0-9.-]+) \\| (\\S.*\\S) \\|$")

// tableRows are the rows of the Markdown tables on a page that are whole: name, licence and reason.
func tableRows(page string) map[string]string {
	rows := map[string]string{}
	for _, m := range tableRow.FindAllStringSubmatch(page, -1) {
		rows[m[1]] = m[3]
	}
	return rows
}
