// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/problem"
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

// The rules by which a record and a component meet. docs/reference/matching.md has the table.
const (
	RulePackage = "purl-osv"    // a package of a language, by its purl
	RuleDistro  = "distro-osv"  // a package of a distribution's release, by that distribution's records alone
	RuleGit     = "git-osv"     // a commit or tag of a repository
	RuleGitCVE  = "git-cve"     // the same, by a record of the CVE List
	RuleKernel  = "kernel-cve"  // the Linux kernel, by version or commit
	RuleProduct = "product-cve" // vendor and product
	RuleCPE     = "cpe-cve"     // a CPE name
)

// How sure a verdict is, surest first.
const (
	ConfidenceExact  = "exact"  // the name and the order of versions are those of the package's own ecosystem
	ConfidenceRange  = "range"  // the name is sure; what was built into it is not known
	ConfidenceLikely = "likely" // the name is a word that others may use too
	ConfidenceProse  = "prose"  // the range was read from a sentence
)

// Verdict is an outcome with what a person needs to act on it.
type Verdict struct {
	State      State
	Fixed      string   // the lowest fixed version above the one compared; empty if the record knows none
	Reason     string   // why it is unknown
	Rule       string   // one of the rules above
	Confidence string   // one of the confidences above
	Speaker    string   // who in the record said so: "Linux", "CISA-ADP"; empty where a record has one author only
	Conditions []string // what must hold besides, in words: "running on …", "only on the platform x86"
}

// Better tells whether v says more than w, where one component is known to one vulnerability by several names or
// records: affected before unknown before clean, then the surer, then fewer conditions. Among equals the texts decide,
// so that the best of several is the same in whatever order they come.
func (v Verdict) Better(w Verdict) bool {
	return cmp.Or(
		cmp.Compare(stateRank[v.State], stateRank[w.State]),
		cmp.Compare(confidenceRank[v.Confidence], confidenceRank[w.Confidence]),
		cmp.Compare(len(w.Conditions), len(v.Conditions)),
		strings.Compare(v.Rule, w.Rule), strings.Compare(v.Fixed, w.Fixed), strings.Compare(v.Speaker, w.Speaker),
		strings.Compare(v.Reason, w.Reason), slices.Compare(v.Conditions, w.Conditions),
	) > 0
}

var (
	stateRank      = map[State]int{StateAffected: 2, StateUnknown: 1}
	confidenceRank = map[string]int{ConfidenceExact: 4, ConfidenceRange: 3, ConfidenceLikely: 2, ConfidenceProse: 1}
)

// Claim is what a record says about one name.
type Claim struct {
	Space, Name string          // by which components are looked up: sbom.Identity
	Body        json.RawMessage // stored beside the index, compiled when it is needed
}

// Judge compares versions with one claim. It is safe for concurrent use.
type Judge interface {
	Judge(id sbom.Identity) Verdict
}

// body is a claim at rest: one of the two forms, and what was looked up of single commits.
type body struct {
	OSV     []Affected `json:"osv,omitempty"`
	CVE     *cveClaim  `json:"cve,omitempty"`
	Commits *Commits   `json:"commits,omitempty"`
}

func (b body) claim(space, name string) Claim {
	text, err := json.Marshal(b)
	if err != nil {
		panic(err) // plain strings and numbers
	}
	return Claim{space, name, text}
}

// Compile makes a judge of a claim's body; the ends of ranges are parsed here, once.
func Compile(space string, text []byte) (Judge, error) {
	var b body
	if err := json.Unmarshal(text, &b); err != nil {
		return nil, problem.Invalid("the claim cannot be read: %v", err)
	}
	if b.CVE != nil {
		return b.CVE.compile(space, b.Commits), nil
	}
	return compileOSV(space, b.OSV, b.Commits), nil
}
