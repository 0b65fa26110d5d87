// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
)

// Affected is what a record says about one package.
type Affected struct {
	Package struct {
		Ecosystem string `json:"ecosystem"`
		Name      string `json:"name"`
	} `json:"package"`
	Ranges   []Range  `json:"ranges,omitempty"`
	Versions []string `json:"versions,omitempty"`
}

// Range is a line of versions on which events switch the fault on and off.
type Range struct {
	Type   string       `json:"type"` // SEMVER, ECOSYSTEM or GIT
	Repo   string       `json:"repo,omitempty"`
	Events []RangeEvent `json:"events"`
}

// RangeEvent has exactly one of its members.
type RangeEvent struct {
	Introduced   string `json:"introduced,omitempty"`
	Fixed        string `json:"fixed,omitempty"`
	LastAffected string `json:"last_affected,omitempty"`
	Limit        string `json:"limit,omitempty"`
}

// checkAffected refuses ranges that have no meaning and bounds the rest.
func (r *Record) checkAffected() error {
	events, copies := 0, 0
	for _, a := range r.Affected {
		if a.Package.Name == "" && a.Package.Ecosystem != "" {
			return problem.Invalid("record %s names an ecosystem without a package", r.ID)
		}
		words := slices.Concat([]string{a.Package.Ecosystem, a.Package.Name}, a.Versions)
		events += len(a.Versions) + len(a.Ranges)
		for _, rg := range a.Ranges {
			events += len(rg.Events)
			if rg.Repo != "" {
				copies += len(a.Versions) + len(a.Ranges) // each repository gets them
			}
			for _, e := range rg.Events {
				n := 0
				for _, v := range []string{e.Introduced, e.Fixed, e.LastAffected, e.Limit} {
					if v != "" {
						n++
						words = append(words, v)
					}
				}
				if n != 1 {
					return problem.Invalid("record %s has a range event with %d members; exactly one is allowed", r.ID, n)
				}
			}
		}
		for _, w := range words {
			if len(w) > maxWord || strings.ContainsFunc(w, func(c rune) bool { return c < ' ' || c == 0x7f }) {
				return problem.Invalid("record %s holds a name or version that cannot be one: %.80q", r.ID, w)
			}
		}
	}
	if events > maxEvents || copies > maxCopies {
		return problem.TooLarge("record %s has %d range events and versions; at most %d are read", r.ID, events, maxEvents)
	}
	return nil
}

func parseOSV(b []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(b, &r); err != nil {
		return r, problem.Invalid("the record is not valid OSV: %v", err)
	}
	for _, s := range r.Severity {
		if strings.HasPrefix(s.Type, "CVSS_V") {
			r.addScore(cvssVersion(s.Score), s.Score, 0, "")
		}
	}
	return r, nil
}

// osvClaims sorts what an OSV record says by the names that components are looked up by. A range of commits is a claim
// about its repository, whatever package it stands under.
func (r *Record) osvClaims() []Claim {
	byName := map[claimKey][]Affected{}
	add := func(space, name string, a Affected) {
		k := claimKey{space, name}
		byName[k] = append(byName[k], a)
	}
	for _, a := range r.Affected {
		if a.Package.Ecosystem != "" {
			space, name := osvName(a.Package.Ecosystem, a.Package.Name)
			add(space, name, Affected{Ranges: a.Ranges, Versions: a.Versions})
		}
		repos := map[string][]Range{}
		for _, rg := range a.Ranges {
			if name := repository(rg.Repo); rg.Type == "GIT" && name != "" {
				repos[name] = append(repos[name], Range{Type: rg.Type, Events: rg.Events})
			}
		}
		for name, ranges := range repos {
			if a.Package.Ecosystem == "" { // then these are the numbers of the repository's own releases
				for _, rg := range a.Ranges {
					if rg.Type == "SEMVER" {
						ranges = append(ranges, rg)
					}
				}
			}
			add(sbom.SpaceGit, name, Affected{Ranges: ranges, Versions: a.Versions})
		}
	}
	var out []Claim
	for _, k := range slices.SortedFunc(maps.Keys(byName), claimKey.compare) {
		out = append(out, body{OSV: byName[k], Commits: r.commitsOf(k.space, k.name)}.claim(k.space, k.name))
	}
	return out
}

// osvName is where components look for what OSV says about a package.
func osvName(ecosystem, name string) (string, string) {
	if ecosystem == "Linux" { // https://ossf.github.io/osv-schema: the one package of it is "Kernel"
		return sbom.SpaceKernel, kernelName
	}
	ecosystem = strings.TrimSuffix(ecosystem, ":LTS") // "Ubuntu:22.04:LTS": bills say 22.04
	return ecosystem, sbom.Fold(ecosystem, name)
}

// repository is the name of a repository without scheme, user, ending and capitals: "github.com/curl/curl".
func repository(url string) string {
	if _, rest, ok := strings.Cut(url, "://"); ok {
		url = rest
	} else {
		url = strings.Replace(url, ":", "/", 1) // git@github.com:curl/curl.git
	}
	host, path, ok := strings.Cut(url, "/")
	if _, h, user := strings.Cut(host, "@"); user {
		host = h
	}
	path = strings.TrimSuffix(strings.TrimRight(path, "/"), ".git")
	if !ok || !strings.Contains(host, ".") || path == "" {
		return ""
	}
	return strings.ToLower(host + "/" + path)
}

// osvJudge compares versions with the entries of an OSV record about one name.
type osvJudge struct {
	space, rule, confidence string
	entries                 []entry
	known                   *Commits
}

// entry is one Affected with its range ends parsed.
type entry struct {
	listed []string
	lines  []line
	git    []gitLine
	broken string // why some part cannot be compared, or ""
}

// distributions are the ecosystems whose packages are a distribution's builds.
var distributions = []string{"AlmaLinux", "Alpaquita", "Alpine", "Chainguard", "Debian", "Mageia", "MinimOS", "Photon OS", "Red Hat", "Rocky Linux", "SUSE", "Ubuntu", "Wolfi", "openEuler", "openSUSE"}

func compileOSV(space string, affected []Affected, known *Commits) osvJudge {
	j := osvJudge{space: space, rule: RulePackage, confidence: ConfidenceExact, known: known}
	family, _, _ := strings.Cut(space, ":")
	switch {
	case space == sbom.SpaceGit:
		j.rule = RuleGit
	case space == sbom.SpaceKernel:
		j.rule, j.confidence = RuleKernel, ConfidenceRange
	case slices.Contains(distributions, family):
		j.rule = RuleDistro
	}
	for _, a := range affected {
		e := entry{listed: a.Versions}
		for _, r := range a.Ranges {
			switch r.Type {
			case "SEMVER", "ECOSYSTEM":
				l, why := compileLine(space, r)
				if why != "" {
					e.broken = why
					continue
				}
				e.lines = append(e.lines, l)
			case "GIT":
				if space == sbom.SpaceGit || space == sbom.SpaceKernel {
					e.git = append(e.git, gitLine(r.Events))
				} else if len(a.Ranges) == 1 && len(a.Versions) == 0 {
					e.broken = "the record names commits only"
				}
			default:
				e.broken = "the record has a range of the unknown type " + r.Type
			}
		}
		j.entries = append(j.entries, e)
	}
	return j
}

// Judge compares one version. The listed versions speak first, then each range; any entry that hits is a hit, and what
// cannot be compared is unknown unless another entry hits.
func (j osvJudge) Judge(id sbom.Identity) Verdict {
	if s := j.known.state(id.Version); s != StateUnknown {
		return Verdict{State: s, Rule: j.rule, Confidence: j.confidence}
	}
	out := Verdict{State: StateClean}
	for _, e := range j.entries {
		var v Verdict
		if id.Space == sbom.SpaceGit || id.Space == sbom.SpaceKernel && isCommit(id.Version) {
			v = e.judgeGit(id)
		} else {
			v = e.judge(j.space, id.Version)
		}
		if v.Better(out) {
			out = v
		}
	}
	out.Rule, out.Confidence = j.rule, j.confidence
	return out
}

func (e entry) judge(space, version string) Verdict {
	hit := slices.Contains(e.listed, version)
	var unknown, fixed string
	if space == sbom.SpaceKernel {
		version = kernelVersion(version)
	}
	for _, l := range e.lines {
		v, ok := parseVersion(version, space, l.semver)
		if !ok {
			unknown = "the version " + version + " cannot be compared in " + space
			continue
		}
		on, next, err := l.evaluate(v)
		if err != nil {
			unknown = "the version " + version + " cannot be compared: " + err.Error()
			continue
		}
		if on || hit && fixed == "" {
			hit, fixed = true, next
		}
	}
	switch {
	case hit:
		return Verdict{State: StateAffected, Fixed: fixed}
	case unknown != "":
		return Verdict{State: StateUnknown, Reason: unknown}
	case e.broken != "":
		return Verdict{State: StateUnknown, Reason: e.broken}
	}
	return Verdict{State: StateClean}
}

// judgeGit compares a commit or a tag.
func (e entry) judgeGit(id sbom.Identity) Verdict {
	version := id.Version
	switch {
	case slices.Contains(e.listed, version):
		return Verdict{State: StateAffected}
	case isCommit(version):
		return e.judgeCommit(version)
	case len(e.lines) > 0: // a tag that is a number, beside ranges of numbers
		return e.judge(id.Space, version)
	}
	return Verdict{State: StateUnknown, Reason: "the tag " + version + " is not among those of the record, and tags have no order"}
}
