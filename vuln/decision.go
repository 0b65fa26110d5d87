// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/record"
	"github.com/openthings-platform/openthings/vuln/vex"
)

// Status is what was decided, in the words of VEX.
type Status = vex.Status

// The statuses of OpenVEX.
const (
	UnderInvestigation = vex.UnderInvestigation
	DecidedAffected    = vex.Affected
	NotAffected        = vex.NotAffected
	Fixed              = vex.Fixed
)

// Justifications say why a product is not affected, in the words of VEX.
var Justifications = []string{
	string(vex.ComponentNotPresent), string(vex.CodeNotPresent), string(vex.CodeNotInPath), string(vex.NotControllable), string(vex.InlineMitigations),
}

// Decision is what a person decided about a vulnerability of a component in a product. Every release of the product that
// lists the same component, and whose evidence is one of those that the decision rested on, inherits it, unless it names
// one release. It holds until a date, if one was set, or until a fact that it rested on changes. It is never deleted.
type Decision struct {
	ID            string    `json:"id"`
	Product       string    `json:"product"`
	Component     string    `json:"component"`
	Release       string    `json:"release,omitempty" doc:"Absent: the whole release line"`
	Status        Status    `json:"status"`
	Justification string    `json:"justification,omitempty"`
	Evidence      string    `json:"evidence,omitempty"`
	Action        string    `json:"action,omitempty"`
	Origin        string    `json:"origin,omitempty" doc:"Id of the statement of others, or of the earlier decision, that was taken over"`
	By            string    `json:"by"`
	At            time.Time `json:"at"`
	Until         time.Time `json:"until,omitzero" doc:"When it ends or ended; absent: not yet"`
	Why           Lapse     `json:"why_until,omitempty" doc:"Why it ends: expired (the date), exploited or range (new facts)"`

	ident string
	seq   int64
	basis basis
}

// harmless reports whether devices with this decision do not count as exposed.
func (d *Decision) harmless() bool { return d.Status == NotAffected || d.Status == Fixed }

// Lapse is why a decision does not hold for a release.
type Lapse string

// The reasons. The first three end a decision; the others are why it was never inherited.
const (
	Expired          Lapse = "expired"   // the date that was set has passed
	NewlyExploited   Lapse = "exploited" // it became known to be exploited
	RangeChanged     Lapse = "range"     // records say something else about the component
	EvidenceChanged  Lapse = "evidence"  // the release was built from other sources, or nobody has shown from which
	ComponentChanged Lapse = "component" // the release lists another version
	OtherRelease     Lapse = "release"   // it names another release only
)

// basis is what a decision rested on. Of decisions from before it was kept, only the evidence is known: there was none.
type basis struct {
	Known     bool     `json:"known,omitempty"`     // the two below were noted
	Exploited bool     `json:"exploited,omitempty"` // it was known to be exploited
	Said      []string `json:"said,omitempty"`      // what records said about the component, see wordsOf
	Evidence  []string `json:"evidence,omitempty"`  // hashes of the evidence of the releases that it was made for; "" is none
}

// wordsOf is what a record says about a component as far as a decision rests on it.
func wordsOf(state record.State, fixed string) string {
	return strings.TrimSpace(string(state) + " " + fixed)
}

// shaken says why a decision no longer rests on what is known now, "" if it does. What is affected stays so until a person
// says otherwise, and attackers do not change that a release has the patch.
func (d *Decision) shaken(exploited bool, now []string) Lapse {
	if !d.basis.Known || d.Status == DecidedAffected {
		return ""
	}
	if exploited && !d.basis.Exploited && d.Status != Fixed {
		return NewlyExploited
	}
	for _, s := range now {
		if !slices.Contains(d.basis.Said, s) {
			return RangeChanged
		}
	}
	return ""
}

// restsOn reports whether a release with this evidence may inherit the decision.
func (d *Decision) restsOn(evidence string) bool {
	if len(d.basis.Evidence) == 0 {
		return evidence == ""
	}
	return slices.Contains(d.basis.Evidence, evidence)
}

// decided is every decision on one vulnerability, oldest first, with the evidence that releases had.
type decided struct {
	list     []Decision
	evidence map[string][]sbom.EvidenceState
}

// evidenceAt is the hash of a release's evidence at an instant.
func (l decided) evidenceAt(release string, ms int64) string {
	hash := ""
	for _, e := range l.evidence[release] {
		if e.From <= ms {
			hash = e.Hash
		}
	}
	return hash
}

// at returns the decision that applied at the instant, or nil: the newest that names the release, else the newest of
// the release line. One that has lapsed is not replaced by an older one: it is asked for again.
func (l decided) at(product, component, release string, ms int64) *Decision {
	if d, why := l.standing(product, component, release, ms); why == "" {
		return d
	}
	return nil
}

// standing returns the decision that was made last for the component of the release, and why it did not hold at the
// instant, "" if it did.
func (l decided) standing(product, component, release string, ms int64) (*Decision, Lapse) {
	var line, exact *Decision
	for i := range l.list {
		d := &l.list[i]
		if d.Product != product || d.Component != component || store.Millis(d.At) > ms {
			continue
		}
		switch d.Release {
		case release:
			exact = d
		case "":
			line = d
		}
	}
	d := line
	if exact != nil {
		d = exact
	}
	switch {
	case d == nil:
		return nil, ""
	case !d.Until.IsZero() && store.Millis(d.Until) <= ms:
		return d, d.Why
	case !d.restsOn(l.evidenceAt(release, ms)):
		return d, EvidenceChanged
	}
	return d, ""
}

// turns are the instants, in order, at which what at returns for the component of the release may change.
func (l decided) turns(product, component, release string) []int64 {
	var out []int64
	for _, d := range l.list {
		if d.Product != product || d.Component != component || d.Release != release && d.Release != "" {
			continue
		}
		out = append(out, store.Millis(d.At))
		if !d.Until.IsZero() {
			out = append(out, store.Millis(d.Until))
		}
	}
	if len(out) > 0 {
		for _, e := range l.evidence[release] {
			out = append(out, e.From)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Deciding is the input of a decision.
type Deciding struct {
	Product       string    `json:"product" maxLength:"64" doc:"Id of the product"`
	Component     string    `json:"component,omitempty" maxLength:"64" doc:"Id of the component; absent: every component of the product's releases with an open finding"`
	Release       string    `json:"release,omitempty" maxLength:"64" doc:"Id of the one release that it holds for; absent: the whole release line"`
	Status        Status    `json:"status,omitempty" enum:"under_investigation,affected,not_affected,fixed" doc:"Absent only with origin: what that says"`
	Justification string    `json:"justification,omitempty" doc:"For not_affected: one of the five VEX justifications"`
	Evidence      string    `json:"evidence,omitempty" maxLength:"4000" doc:"What shows it; required for not_affected and fixed"`
	Action        string    `json:"action,omitempty" maxLength:"4000" doc:"What users should do about it"`
	Expires       time.Time `json:"expires,omitzero" doc:"When it is to be asked for again; absent: only on new facts"`
	Origin        string    `json:"origin,omitempty" maxLength:"64" doc:"Id of a proposal that is taken over: a statement of others, or an earlier decision. What is absent above is taken from it"`
	Seen          *string   `json:"seen,omitempty" maxLength:"64" doc:"Id of the newest decision on this vulnerability and product that you know of, empty for none: if there is a newer one, nothing is decided and it is named"`

	rests []string // hashes of the evidence that it rests on; nil: that of the releases it is about
}

// maxEvidence bounds the texts of a decision, in bytes.
const maxEvidence = 4000

func (d *Deciding) check(now time.Time) error {
	d.Evidence, d.Action = strings.TrimSpace(d.Evidence), strings.TrimSpace(d.Action)
	switch {
	case d.Product == "":
		return problem.Invalid("A decision is about one product.").At("product")
	case !record.Identifier.MatchString(d.Product), d.Component != "" && !record.Identifier.MatchString(d.Component), d.Release != "" && !record.Identifier.MatchString(d.Release):
		return problem.Invalid("Product, component and release are named by their ids.")
	case !plain(d.Evidence):
		return problem.Invalid("The evidence is a text of at most %d bytes.", maxEvidence).At("evidence")
	case !plain(d.Action):
		return problem.Invalid("The action is a text of at most %d bytes.", maxEvidence).At("action")
	case d.Justification != "" && d.Status != NotAffected:
		return problem.Invalid("A justification belongs to not_affected only.").At("justification")
	case !d.Expires.IsZero() && !d.Expires.After(now):
		return problem.Invalid("A decision can only expire in the future.").At("expires")
	}
	switch d.Status {
	case UnderInvestigation, DecidedAffected:
	case NotAffected:
		if !slices.Contains(Justifications, d.Justification) {
			return problem.Invalid("not_affected needs one of the justifications %s.", strings.Join(Justifications, ", ")).At("justification")
		}
		if d.Evidence == "" {
			return problem.Invalid("A justification without evidence is refused: say what shows it.").At("evidence")
		}
	case Fixed:
		if d.Release == "" {
			return problem.Invalid("fixed is said of one release: older ones with the same component stay affected.").At("release")
		}
		if d.Evidence == "" {
			return problem.Invalid("fixed needs evidence: say which patch or change fixes it.").At("evidence")
		}
	default:
		return problem.Invalid("%.40q is not a status", d.Status).At("status").
			Hint("use under_investigation, affected, not_affected or fixed")
	}
	return nil
}

func plain(text string) bool {
	return len(text) <= maxEvidence && utf8.ValidString(text) && !strings.ContainsRune(text, 0)
}
