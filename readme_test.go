// SPDX-License-Identifier: AGPL-3.0-only

package openthings

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	namedTest    = regexp.MustCompile("`([a-z/]+)\\.(Test\\w+)`")
	namedControl = regexp.MustCompile("`(controls/[a-z0-9-]+\\.txt)`")
	localLink    = regexp.MustCompile(`\]\(([^)#:]+)\)`)
)

// Every test and control that README names exists, each promise has both, and its controls are about its tests.
func TestReadmeKeepsItsPromises(t *testing.T) {
	readme := read(t, "README.md")
	promises := 0
	for line := range strings.Lines(readme) {
		tests, controls := namedTest.FindAllStringSubmatch(line, -1), namedControl.FindAllStringSubmatch(line, -1)
		for _, m := range tests {
			if !hasTest(t, m[1], m[2]) {
				t.Errorf("README names %s.%s, which does not exist", m[1], m[2])
			}
		}
		for _, m := range controls {
			b, err := os.ReadFile(m[1])
			if err != nil {
				t.Errorf("README names %s: %v", m[1], err)
				continue
			}
			if !controlIsAbout(string(b), tests) {
				t.Errorf("%s turns none of the tests of its row red", m[1])
			}
		}
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| promise ") {
			continue
		}
		promises++
		if len(tests) == 0 || len(controls) == 0 {
			t.Errorf("this promise lacks a test or a control: %s", line)
		}
	}
	if promises < 7 {
		t.Errorf("README makes %d promises", promises)
	}
	for _, m := range localLink.FindAllStringSubmatch(readme, -1) {
		if _, err := os.Stat(m[1]); err != nil {
			t.Errorf("README links to %s: %v", m[1], err)
		}
	}
}

// controlIsAbout says whether the control's test line names one of the tests.
func controlIsAbout(control string, tests [][]string) bool {
	for line := range strings.Lines(control) {
		args, ok := strings.CutPrefix(line, "test: ")
		if !ok {
			continue
		}
		for _, m := range tests {
			if strings.HasPrefix(args, "./"+m[1]+" ") && regexp.MustCompile(`\b`+m[2]+`\b`).MatchString(args) {
				return true
			}
		}
	}
	return false
}

func hasTest(t *testing.T, room, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(room, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.Contains(read(t, f), "\nfunc "+name+"(t *testing.T)") {
			return true
		}
	}
	return false
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
