// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"regexp"
	"slices"

	"github.com/google/osv-scalibr/semantic"

	"github.com/openthings-platform/openthings/sbom"
)

// State is the outcome of comparing a version with a record.
type State string

// The outcomes.
const (
	StateAffected State = "affected"
	StateUnknown  State = "unknown" // it could not be compared; Reason says why
	StateClean    State = "not-affected"
)

// Verdict is an outcome with what a person needs to act on it.
type Verdict struct {
	State  State
	Fixed  string // the lowest fixed version above the one compared; empty if the record knows none
	Reason string // why it is unknown
}

// A Matcher compares versions with what one record says about one package; range ends are parsed once.
type Matcher struct {
	listed []string
	lines  []line
	broken string // why some part cannot be compared, or ""
}

type line struct {
	semver bool // SEMVER ranges compare by SemVer 2.0 whatever the ecosystem
	ends   []end
	limits []semantic.Version
}

type end struct {
	kind    byte // 'i' introduced, 'f' fixed, 'l' last affected
	text    string
	version semantic.Version // nil for introduced "0": before everything
}

// semverLike is what SemVer ranges are compared with: the comparator itself would order any text.
var semverLike = regexp.MustCompile(`^v?[0-9]+(\.[0-9]+)*([-+][0-9A-Za-z.+-]*)?$`)

func parseVersion(text, ecosystem string, semver bool) (semantic.Version, bool) {
	if semver || ecosystem == "Go" || ecosystem == "npm" || ecosystem == "crates.io" {
		if !semverLike.MatchString(text) {
			return nil, false
		}
		if semver {
			return semantic.ParseSemverVersion(text), true
		}
	}
	v, err := semantic.Parse(text, ecosystem)
	return v, err == nil
}

// Compile prepares the entries of one record about one package.
func Compile(ecosystem string, entries []Affected) []Matcher {
	out := make([]Matcher, 0, len(entries))
	for _, a := range entries {
		m := Matcher{listed: a.Versions}
		for _, r := range a.Ranges {
			switch r.Type {
			case "SEMVER", "ECOSYSTEM":
				l, why := compileLine(ecosystem, r)
				if why != "" {
					m.broken = why
					continue
				}
				m.lines = append(m.lines, l)
			case "GIT":
				if len(a.Ranges) == 1 && len(a.Versions) == 0 {
					m.broken = "the record names commits only"
				}
			default:
				m.broken = "the record has a range of the unknown type " + r.Type
			}
		}
		out = append(out, m)
	}
	return out
}

func compileLine(ecosystem string, r Range) (line, string) {
	l := line{semver: r.Type == "SEMVER"}
	for _, e := range r.Events {
		x := end{}
		switch {
		case e.Introduced != "":
			x = end{kind: 'i', text: e.Introduced}
		case e.Fixed != "":
			x = end{kind: 'f', text: e.Fixed}
		case e.LastAffected != "":
			x = end{kind: 'l', text: e.LastAffected}
		default:
			x = end{text: e.Limit}
			if x.text == "*" {
				continue
			}
		}
		if x.kind != 'i' || x.text != "0" {
			v, ok := parseVersion(x.text, ecosystem, l.semver)
			if !ok {
				return l, "the record's version " + x.text + " cannot be compared in " + ecosystem
			}
			x.version = v
		}
		if x.kind == 0 {
			l.limits = append(l.limits, x.version)
		} else {
			l.ends = append(l.ends, x)
		}
	}
	var failed error
	slices.SortStableFunc(l.ends, func(a, b end) int {
		switch {
		case a.version == nil && b.version == nil:
			return 0
		case a.version == nil:
			return -1
		case b.version == nil:
			return 1
		}
		c, err := a.version.Compare(b.version)
		if err != nil {
			failed = err
		}
		return c
	})
	if failed != nil {
		return l, "the record's range cannot be put in order"
	}
	return l, ""
}

// Evaluate compares one version. The listed versions speak first, then each range; any entry that hits is a hit, and
// what cannot be compared is unknown unless another entry hits.
func Evaluate(ecosystem, version string, entries []Matcher) Verdict {
	out := Verdict{State: StateClean}
	for _, m := range entries {
		switch v := m.evaluate(ecosystem, version); v.State {
		case StateAffected:
			return v
		case StateUnknown:
			out = v
		}
	}
	return out
}

func (m Matcher) evaluate(ecosystem, version string) Verdict {
	hit := slices.Contains(m.listed, version)
	var unknown, fixed string
	for _, l := range m.lines {
		v, ok := parseVersion(version, ecosystem, l.semver)
		if !ok {
			unknown = "the version " + version + " cannot be compared in " + ecosystem
			continue
		}
		on, next, err := l.evaluate(v)
		if err != nil {
			unknown = "the version " + version + " cannot be compared: " + err.Error()
			continue
		}
		if on {
			hit = true
			fixed = next
		}
	}
	switch {
	case hit:
		return Verdict{State: StateAffected, Fixed: fixed}
	case unknown != "":
		return Verdict{State: StateUnknown, Reason: unknown}
	case m.broken != "":
		return Verdict{State: StateUnknown, Reason: m.broken}
	}
	return Verdict{State: StateClean}
}

// evaluate walks the line as the OSV schema defines it: introduced switches on, fixed off, last_affected off just after.
func (l line) evaluate(v semantic.Version) (on bool, next string, err error) {
	before := len(l.limits) == 0
	for _, limit := range l.limits {
		c, err := v.Compare(limit)
		if err != nil {
			return false, "", err
		}
		before = before || c < 0
	}
	for _, e := range l.ends {
		c := 1
		if e.version != nil {
			if c, err = v.Compare(e.version); err != nil {
				return false, "", err
			}
		}
		switch {
		case e.kind == 'i' && c >= 0:
			on = true
		case e.kind == 'f' && c >= 0:
			on = false
		case e.kind == 'l' && c > 0:
			on = false
		case e.kind == 'f' && next == "":
			next = e.text
		}
	}
	return on && before, next, nil
}

// Package is a package as the index knows it.
type Package struct{ Ecosystem, Name string }

// PackageOf folds the name as its ecosystem compares names.
func PackageOf(ecosystem, name string) Package { return Package{ecosystem, sbom.Fold(ecosystem, name)} }

// ByPackage joins what the record says about each package.
func (r *Record) ByPackage() map[Package][]Affected {
	out := map[Package][]Affected{}
	for _, a := range r.Affected {
		if a.Package.Ecosystem != "" && a.Package.Name != "" {
			p := PackageOf(a.Package.Ecosystem, a.Package.Name)
			out[p] = append(out[p], a)
		}
	}
	return out
}
