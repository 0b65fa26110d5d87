// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every control fits the code as it is now and names a test that exists; whether the test turns red is for make controls.
func TestControlsFit(t *testing.T) {
	files, err := filepath.Glob("*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d controls, %v", len(files), err)
	}
	tests := map[string][]string{} // by package
	for _, f := range files {
		c, err := parse(f)
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := c.fits(".."); err != nil {
			t.Errorf("%s: %v", f, err)
		}
		name, pkg := "", ""
		for i, arg := range c.test {
			if arg == "-run" && i+1 < len(c.test) {
				name = strings.Trim(strings.Split(c.test[i+1], "/")[0], "^$")
			}
			if strings.HasPrefix(arg, ".") {
				pkg = arg
			}
		}
		if tests[pkg] == nil {
			tests[pkg] = testsOf(t, filepath.Join("..", pkg))
		}
		if !slices.ContainsFunc(tests[pkg], regexp.MustCompile("^"+name).MatchString) {
			t.Errorf("%s: there is no test %s in %s", f, name, pkg)
		}
	}
}

var testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w*)\(`)

func testsOf(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		for _, m := range testFunc.FindAllStringSubmatch(read(t, f), -1) {
			names = append(names, m[1])
		}
	}
	return names
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
