// SPDX-License-Identifier: AGPL-3.0-only

// Command versions compares versions by other people's code: it reads lines of an ecosystem and two versions, divided by
// tabs, and answers each with -1, 0, 1, or "none" where one of them is no version there. It is a module of its own, so
// that nothing of this code enters ours.
package main

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"strings"

	gem "github.com/aquasecurity/go-gem-version"
	npm "github.com/aquasecurity/go-npm-version/pkg"
	pep440 "github.com/aquasecurity/go-pep440-version"
	apk "github.com/knqyf263/go-apk-version"
	deb "github.com/knqyf263/go-deb-version"
	rpm "github.com/knqyf263/go-rpm-version"
	mvn "github.com/masahiro331/go-mvn-version"
)

func main() {
	out := bufio.NewWriter(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		f := strings.Split(lines.Text(), "\t")
		if len(f) != 3 {
			fmt.Fprintln(os.Stderr, "three words a line, please:", lines.Text())
			os.Exit(2)
		}
		if n, err := compare(f[0], f[1], f[2]); err != nil {
			fmt.Fprintln(out, "none")
		} else {
			fmt.Fprintln(out, cmp.Compare(n, 0))
		}
	}
	if err := cmp.Or(lines.Err(), out.Flush()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func compare(ecosystem, a, b string) (int, error) {
	switch ecosystem {
	case "Debian":
		return both(deb.NewVersion, func(x, y deb.Version) int { return x.Compare(y) }, a, b)
	case "Alpine":
		return both(apk.NewVersion, func(x, y apk.Version) int { return x.Compare(y) }, a, b)
	case "Red Hat":
		x := rpm.NewVersion(a)
		return x.Compare(rpm.NewVersion(b)), nil
	case "PyPI":
		return both(pep440.Parse, func(x, y pep440.Version) int { return x.Compare(y) }, a, b)
	case "npm":
		return both(npm.NewVersion, func(x, y npm.Version) int { return x.Compare(y) }, a, b)
	case "RubyGems":
		return both(gem.NewVersion, func(x, y gem.Version) int { return x.Compare(y) }, a, b)
	case "Maven":
		return both(mvn.NewVersion, func(x, y mvn.Version) int { return x.Compare(y) }, a, b)
	}
	return 0, fmt.Errorf("no ecosystem %q", ecosystem)
}

func both[V any](parse func(string) (V, error), compare func(x, y V) int, a, b string) (int, error) {
	x, err := parse(a)
	if err != nil {
		return 0, err
	}
	y, err := parse(b)
	if err != nil {
		return 0, err
	}
	return compare(x, y), nil
}
