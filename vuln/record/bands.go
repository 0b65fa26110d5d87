// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"cmp"
	"slices"
	"strings"

	"github.com/google/osv-scalibr/semantic"
)

// A band is a range of versions with a status, its ends parsed.
type band struct {
	order      order
	low, high  semantic.Version // nil: without end
	above      bool             // low itself is outside
	within     bool             // high itself is inside
	status     string
	changes    []change // by version
	from       string   // low as it was written
	fix        string   // high as it was written, where that version is the first outside
	single     bool     // one version, no range
	confidence string   // ConfidenceProse, or "" for the rule's own
}

type change struct {
	at           semantic.Version
	text, status string
}

// order is a scheme of versions: an ecosystem's name, or one of those that have no ecosystem.
type order string

const (
	plainOrder  order = "plain"
	semverOrder order = "semver"
)

func (o order) parse(text string) (semantic.Version, bool) {
	switch o {
	case plainOrder, semverOrder:
		return asVersion(parseUpstream(text, o == semverOrder))
	}
	return parseVersion(text, string(o), false)
}

// reading is a version of a component, parsed once in each order that a record asks for.
type reading struct {
	text  string
	known []parsedIn
}

type parsedIn struct {
	order order
	v     semantic.Version
	ok    bool
}

func (r *reading) in(o order) (semantic.Version, bool) {
	for _, k := range r.known {
		if k.order == o {
			return k.v, k.ok
		}
	}
	v, ok := o.parse(r.text)
	r.known = append(r.known, parsedIn{o, v, ok})
	return v, ok
}

// orderOf is the order that a versionType names. Most name none that is defined ("custom", "release bundle",
// "original_commit_for_fix"), and then the numbers are compared as projects in C number themselves.
func orderOf(versionType string) order {
	switch strings.ToLower(versionType) {
	case "semver", "npm":
		return semverOrder
	case "rpm":
		return "Red Hat"
	case "dpkg", "deb":
		return "Debian"
	case "apk":
		return "Alpine"
	case "maven":
		return "Maven"
	case "python", "pypi":
		return "PyPI"
	case "gem", "rubygems":
		return "RubyGems"
	case "nuget":
		return "NuGet"
	case "composer":
		return "Packagist"
	}
	return plainOrder
}

// Words that stand where a version could and are none.
var (
	anyVersion = []string{"*", "all", "all versions"}
	noVersion  = []string{"", "-", "n/a", "na", "unspecified", "unknown", "current", "latest", "none", "not applicable", "see references"}
)

// compileVersion makes bands of one entry of a version list, or says why it cannot. Commits are not its business.
func compileVersion(v cveVersion, alone bool) ([]band, string) {
	o := orderOf(v.Type)
	b := band{order: o, status: v.Status}
	lower := strings.ToLower(v.Version)
	switch {
	case v.LessThan == "" && v.LessOrEqual == "":
		switch {
		case slices.Contains(noVersion, lower):
			return nil, "the record gives no version that can be compared"
		case slices.Contains(anyVersion, lower):
			return []band{b}, ""
		}
		if bands, ok := proseBands(v.Version, v.Status, alone); ok {
			return bands, ""
		}
		if series, ok := seriesOf(v.Version); ok {
			b.low, b.high, b.within, b.single = series.canonical(), append(slices.Clone(series), word{kind: wordEndless}), true, true
			return []band{b}, ""
		}
		at, ok := o.parse(v.Version)
		if !ok {
			return nil, "the record's version \"" + short(v.Version) + "\" cannot be compared"
		}
		b.low, b.high, b.within, b.single, b.from = at, at, true, true, v.Version
		return []band{b}, ""
	case v.Version == v.LessThan && v.LessThan != "*":
		return nil, "the record's range from " + short(v.Version) + " to below " + short(v.LessThan) + " is empty"
	}
	if lower != "0" && !slices.Contains(anyVersion, lower) && !slices.Contains(noVersion, lower) {
		var ok bool
		if b.low, ok = lowerEnd(o, v.Version); !ok {
			return nil, "the record's version \"" + short(v.Version) + "\" cannot be compared"
		}
		b.from = v.Version
	}
	end := v.LessThan
	if b.within = end == ""; b.within {
		end = v.LessOrEqual
	}
	if end != "*" {
		var endless, ok bool
		if b.high, endless, ok = upperEnd(o, end); !ok {
			return nil, "the record's version \"" + short(end) + "\" cannot be compared"
		}
		if !b.within && !endless {
			b.fix = end
		}
	}
	for _, c := range v.Changes {
		at, ok := o.parse(c.At)
		if !ok {
			return nil, "the record's version \"" + short(c.At) + "\" cannot be compared"
		}
		b.changes = append(b.changes, change{at, c.At, c.Status})
	}
	slices.SortStableFunc(b.changes, func(x, y change) int { c, _ := x.at.Compare(y.at); return c })
	if b.low != nil && b.high != nil {
		switch c, err := b.low.Compare(b.high); {
		case err != nil:
			return nil, "the record's range from " + short(v.Version) + " to " + short(end) + " cannot be put in order"
		case c > 0: // CVE-2024-26794: what lies between them is nowhere certain
			b.low, b.high, b.above, b.within, b.status, b.fix, b.changes = b.high, b.low, false, true, "unknown", "", nil
		}
	}
	return []band{b}, ""
}

// lowerEnd reads the start of a range; "3.x" and "3x" begin where 3 does.
func lowerEnd(o order, text string) (semantic.Version, bool) {
	if series, ok := seriesOf(text); ok {
		return series.canonical(), true
	}
	return o.parse(text)
}

// upperEnd reads the end of a range. A star stands for a number above all others, whatever the type of the versions says
// about stars; so does the x of "3.4.x".
func upperEnd(o order, text string) (v semantic.Version, endless, ok bool) {
	if series, isSeries := seriesOf(text); isSeries {
		return append(slices.Clone(series), word{kind: wordEndless}), true, true
	}
	v, ok = o.parse(text)
	return v, false, ok
}

// seriesOf reads "5.10.*", "5.10.x" and "2x" as 5.10, 5.10 and 2.
func seriesOf(text string) (upstream, bool) {
	for _, end := range []string{".*", ".x", ".X", "x", "X"} {
		if head, ok := strings.CutSuffix(text, end); ok {
			if u, ok := words(head, false); ok && !u.pre() {
				return u, true
			}
			return nil, false
		}
	}
	return nil, false
}

// holds tells whether the version lies in the band and what status it has there. A version that the band's order cannot
// read is not compared.
func (b *band) holds(version *reading) (status string, in, compared bool) {
	if b.low == nil && b.high == nil && len(b.changes) == 0 { // all there are
		return b.status, true, true
	}
	v, ok := version.in(b.order)
	if !ok {
		return "", false, false
	}
	if b.low != nil {
		c, err := v.Compare(b.low)
		if err != nil {
			return "", false, false
		}
		if c < 0 || c == 0 && b.above {
			return "", false, true
		}
	}
	if b.high != nil {
		c, err := v.Compare(b.high)
		if err != nil {
			return "", false, false
		}
		if c > 0 || c == 0 && !b.within {
			return "", false, true
		}
	}
	status = b.status
	for _, c := range b.changes {
		if n, err := v.Compare(c.at); err == nil && n >= 0 {
			status = c.status
		}
	}
	return status, true, true
}

// versions is what one entry of a record says about the versions of one name.
type versions struct {
	bands   []band
	commits []cveVersion // ranges of commits
	byDflt  string
	silent  bool   // nothing was said of the versions that are not listed
	broken  string // why some entry cannot be compared, or ""
}

func compileVersions(list []cveVersion, dflt string, cna bool) versions {
	out := versions{byDflt: dflt, silent: dflt == "" || dflt == "unknown" && !cna}
	for _, v := range list {
		if namesCommits(v) {
			out.commits = append(out.commits, v)
			continue
		}
		bands, why := compileVersion(v, len(list) == 1)
		out.bands = append(out.bands, bands...)
		out.broken = cmp.Or(out.broken, why)
	}
	return out
}

// namesCommits tells a range of commits from one of versions: "git" is written for both.
func namesCommits(v cveVersion) bool {
	ends := []string{v.Version, v.LessThan, v.LessOrEqual}
	for _, c := range v.Changes {
		ends = append(ends, c.At)
	}
	return slices.ContainsFunc(ends, func(s string) bool {
		return isCommit(s) || strings.EqualFold(v.Type, "git") && len(s) >= 7 && strings.Trim(s, "0123456789") == ""
	})
}

// said is what an entry says about a version; nothing, if it names commits only.
type said struct {
	Verdict
	nothing bool
}

// judge follows the letter of the format: the first entry that matches decides, then the default. It departs from it
// where nothing was said of what is not listed: beside a range that could be compared, what lies outside is not affected.
func (s *versions) judge(r *reading) said {
	version := r.text
	if len(s.bands) == 0 && s.broken == "" && len(s.commits) > 0 {
		return said{Verdict{State: StateUnknown, Reason: "the record names commits only"}, true}
	}
	status, confidence, ranged, fixed := "", "", false, ""
	unread := false
	for i := range s.bands {
		b := &s.bands[i]
		is, in, compared := b.holds(r)
		unread = unread || !compared
		ranged = ranged || compared && !b.single && b.status == "affected"
		if confidence == "" && b.confidence != "" {
			confidence = b.confidence
		}
		if in && status == "" {
			status, fixed = is, b.fix
		}
	}
	switch {
	case status != "":
	case unread:
		return said{Verdict: Verdict{State: StateUnknown, Reason: "the version " + short(version) + " cannot be compared with those of the record"}}
	case s.broken != "":
		return said{Verdict: Verdict{State: StateUnknown, Reason: s.broken}}
	case s.silent && ranged:
		status = "unaffected"
	case s.silent && s.byDflt == "" && len(s.bands) == 0:
		return said{Verdict: Verdict{State: StateUnknown, Reason: "the record gives no version that can be compared"}}
	case s.silent:
		return said{Verdict: Verdict{State: StateUnknown, Reason: "the record says nothing about the version " + short(version)}}
	default:
		status = s.byDflt
	}
	switch status {
	case "affected":
		return said{Verdict: Verdict{State: StateAffected, Fixed: s.fixAbove(r, fixed), Confidence: confidence}}
	case "unaffected":
		return said{Verdict: Verdict{State: StateClean, Confidence: confidence}}
	}
	return said{Verdict: Verdict{State: StateUnknown, Reason: "the record says that it is unknown for the version " + short(version)}}
}

// fixAbove is the lowest version above that the record calls unaffected: the end of the range, the start of an
// unaffected one (a stable branch of the kernel), or a change inside a range.
func (s *versions) fixAbove(version *reading, best string) string {
	var nearest semantic.Version
	consider := func(o order, text string, at semantic.Version) {
		v, ok := version.in(o)
		if !ok || at == nil {
			return
		}
		if c, err := v.Compare(at); err != nil || c >= 0 {
			return
		}
		if nearest == nil && best != "" {
			nearest, _ = o.parse(best)
		}
		if nearest != nil {
			if c, err := at.Compare(nearest); err != nil || c >= 0 {
				return
			}
		}
		best, nearest = text, at
	}
	for _, b := range s.bands {
		if b.status == "unaffected" && b.from != "" && !b.above {
			consider(b.order, b.from, b.low)
		}
		for _, c := range b.changes {
			if c.status == "unaffected" {
				consider(b.order, c.text, c.at)
			}
		}
	}
	return best
}

// judgeCommit decides the commits that the record names itself.
func (s *versions) judgeCommit(commit string) said {
	state := StateUnknown
	for _, v := range s.commits {
		ranged := v.LessThan != "" || v.LessOrEqual != ""
		switch {
		case ranged && v.Status == "affected" && sameCommit(commit, v.LessThan): // the fix, whatever other branches say
			return said{Verdict: Verdict{State: StateClean}}
		case sameCommit(commit, v.Version), sameCommit(commit, v.LessOrEqual):
			state = stateOf(v.Status)
		}
		for _, c := range v.Changes {
			if sameCommit(commit, c.At) {
				state = stateOf(c.Status)
			}
		}
	}
	if state != StateUnknown {
		return said{Verdict: Verdict{State: state}}
	}
	return said{Verdict{State: StateUnknown, Reason: "the record names ranges of commits; whether " + short(commit) + " lies in one is to be looked up in the repository"}, len(s.commits) == 0}
}

func stateOf(status string) State {
	switch status {
	case "affected":
		return StateAffected
	case "unaffected":
		return StateClean
	}
	return StateUnknown
}

// short cuts what an author wrote to what a sentence can carry.
func short(s string) string { return clean(s, 80) }
