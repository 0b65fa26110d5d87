// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"regexp"
	"slices"

	"github.com/google/osv-scalibr/semantic"

	"github.com/openthings-platform/openthings/sbom"
)

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
	if ecosystem == sbom.SpaceKernel {
		return asVersion(parseUpstream(text, false))
	}
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

func asVersion(u upstream, ok bool) (semantic.Version, bool) { return u, ok }

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
