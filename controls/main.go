// SPDX-License-Identifier: AGPL-3.0-only

// Command controls checks the checkers: for each controls/*.txt it removes one check that a promise rests on, in a
// copy of the tree, and expects the named test to turn red.
//
// A control has header lines "why:", "file:" and "test:" (arguments of go test), then "--- old" and "--- new" with the
// code before and after. The old text must occur exactly once.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

type control struct {
	name, why, file string
	test            []string
	old, new        string
}

func main() {
	only := flag.String("only", "", "run the controls whose name contains this, or one of these, with commas between")
	from := flag.String("from", "", "begin with this name, after an interruption")
	say := flag.Bool("say", false, "print what the test said, to judge whether it is red for the right reason")
	flag.Parse()
	if err := run(strings.Split(*only, ","), *from, *say); err != nil {
		fmt.Fprintln(os.Stderr, "controls:", err)
		os.Exit(1)
	}
}

func run(only []string, from string, say bool) error {
	files, err := filepath.Glob("controls/*.txt")
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no controls/*.txt here: run it from the top of the tree (%v)", err)
	}
	copyDir, err := os.MkdirTemp("", "openthings-controls-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(copyDir)
	if out, err := exec.Command("cp", "-a", ".", copyDir).CombinedOutput(); err != nil {
		return fmt.Errorf("copy: %v %s", err, out)
	}
	bad := 0
	for i, f := range files {
		c, err := parse(f)
		if err != nil {
			return err
		}
		if c.name < from || !slices.ContainsFunc(only, func(part string) bool { return strings.Contains(c.name, part) }) {
			continue
		}
		start := time.Now()
		verdict, said, err := c.check(copyDir)
		if err != nil {
			verdict = "STALE"
			fmt.Printf("%s: %v\n", f, err)
		}
		if verdict != "red" {
			bad++
		}
		fmt.Printf("%2d/%d %-32s %-10s %4.0fs  %s\n", i+1, len(files), c.name, verdict, time.Since(start).Seconds(), c.why)
		if say {
			fmt.Printf("%s\n", said)
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d controls did not turn their test red: those tests prove nothing", bad)
	}
	return nil
}

func parse(path string) (control, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return control{}, err
	}
	c := control{name: strings.TrimSuffix(filepath.Base(path), ".txt")}
	head, body, ok := strings.Cut(string(b), "--- old\n")
	var ok2 bool
	c.old, c.new, ok2 = strings.Cut(body, "--- new\n")
	for line := range strings.Lines(head) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch k {
		case "why":
			c.why = v
		case "file":
			c.file = v
		case "test":
			c.test = strings.Fields(v)
		}
	}
	if !ok || !ok2 || c.why == "" || c.file == "" || len(c.test) == 0 {
		return control{}, fmt.Errorf("%s: needs why:, file:, test:, --- old and --- new", path)
	}
	c.old, c.new = strings.TrimSuffix(c.old, "\n"), strings.TrimSuffix(c.new, "\n")
	return c, nil
}

// fits returns the file that the control changes, if the control still fits it.
func (c control) fits(dir string) ([]byte, error) {
	orig, err := os.ReadFile(filepath.Join(dir, c.file))
	if err != nil {
		return nil, err
	}
	if n := bytes.Count(orig, []byte(c.old)); n != 1 {
		return nil, fmt.Errorf("the old text occurs %d times in %s, want once", n, c.file)
	}
	return orig, nil
}

// check applies the control to the copy, runs its test and puts the file back. A change that does not compile is no
// proof, and neither is a test that only never ends; both are told apart. The second result is what the test said.
func (c control) check(dir string) (string, []byte, error) {
	path := filepath.Join(dir, c.file)
	orig, err := c.fits(dir)
	if err != nil {
		return "", nil, err
	}
	defer os.WriteFile(path, orig, 0o644) //nolint:errcheck // a copy that is thrown away
	if err := os.WriteFile(path, bytes.Replace(orig, []byte(c.old), []byte(c.new), 1), 0o644); err != nil {
		return "", nil, err
	}
	pkg := c.test[slices.IndexFunc(c.test, func(s string) bool { return strings.HasPrefix(s, ".") })]
	vet := in(dir, "test", "-run", "^$", pkg)
	if out, err := vet.CombinedOutput(); err != nil {
		return "", nil, fmt.Errorf("the change does not compile: %s", out)
	}
	cmd := in(dir, append([]string{"test", "-count=1", "-timeout", "90s"}, c.test...)...)
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil && bytes.Contains(out, []byte("no tests to run")):
		return "NO TEST", out, nil
	case err == nil:
		return "GREEN", out, nil
	case bytes.Contains(out, []byte("panic: test timed out")):
		return "TIMED OUT", out, nil
	case !bytes.Contains(out, []byte("--- FAIL")) && !bytes.Contains(out, []byte("panic:")):
		return "BROKEN", out, nil
	}
	return "red", out, nil
}

// in is go in the copy, with builds that do not depend on where it lies: the cache of one run serves the next.
func in(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -trimpath"))
	return cmd
}
