// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// runbook FILE [HEADING]... executes the sh blocks of docs/runbooks/FILE, or those below the headings, in one bash that
// stands in the current folder. A block marked "again" is repeated for at most a minute.
func runbook(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: runbook FILE [HEADING]...")
	}
	page, err := os.ReadFile(filepath.Join(ts.Getenv("REPO"), "docs", "runbooks", args[0]))
	ts.Check(err)
	script := "set -eu -o pipefail\nagain() { end=$((SECONDS + 60)); until \"$@\"; do [ $SECONDS -lt $end ] || exit 1; sleep 0.2; done; }\n"
	for _, s := range sections(string(page)) {
		if len(args) > 1 && !slices.Contains(args[1:], s.heading) {
			continue
		}
		blocks, err := shellBlocks(s.text)
		ts.Check(err)
		for i, b := range blocks {
			if !b.again {
				script += b.text
				continue
			}
			script += fmt.Sprintf("block%d() { %s; }\nagain block%d\n", i, strings.Join(strings.Split(strings.TrimSpace(b.text), "\n"), " && "), i)
		}
	}
	ts.Check(os.WriteFile(ts.MkAbs("runbook.sh"), []byte(script), 0o600))
	ts.Check(ts.Exec("bash", "runbook.sh"))
}

// section is what stands below a heading of the second level.
type section struct{ heading, text string }

func sections(page string) (out []section) {
	for i, part := range strings.Split("\n"+page, "\n## ") {
		heading, text, _ := strings.Cut(part, "\n")
		if i == 0 {
			heading = ""
		}
		out = append(out, section{heading, "\n" + text})
	}
	return out
}

// Every runbook is executed by a story, with each of its headings that has commands.
func TestRunbooksAreExecuted(t *testing.T) {
	repo := repository(t)
	pages, err := filepath.Glob(filepath.Join(repo, "docs", "runbooks", "*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	stories, err := filepath.Glob(filepath.Join(repo, "testdata", "script", "*.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range stories {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "runbook "); ok {
				lines = append(lines, rest+" ")
			}
		}
	}
	for _, p := range pages {
		page, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(p)
		for _, s := range sections(string(page)) {
			blocks, err := shellBlocks(s.text)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if len(blocks) > 0 && !slices.ContainsFunc(lines, func(l string) bool {
				return l == name+" " || strings.HasPrefix(l, name+" ") && (strings.Contains(l, "'"+s.heading+"'") || strings.Contains(l, " "+s.heading+" "))
			}) {
				t.Errorf("no story executes %q of docs/runbooks/%s", s.heading, name)
			}
		}
	}
}
