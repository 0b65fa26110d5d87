// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
)

// The rules by which a policy refuses.
const (
	RuleLabel         = "enroll.label"         // the policy is not for this product
	RuleOrigin        = "enroll.origin"        // who brought the device in is not among those the policy takes
	RuleGrade         = "enroll.grade"         // the key is less sure than the policy demands
	RulePreauthorised = "enroll.preauthorised" // the serial number was not announced
	RuleEarly         = "enroll.early"         // a renewal before its window
	RuleExpired       = "enroll.expired"       // an LDevID that ended longer ago than the policy forgives, or at all
	RuleChain         = "enroll.chain"         // more authorities between the device and its CA than allowed
)

// DefaultLabel names the policy of products that no policy names.
const DefaultLabel = "default"

// Approval is how a device gets into a solution.
type Approval string

// The ways into a solution.
const (
	ByPerson    Approval = "person"    // a claim code, or somebody in the lobby
	Automatical Approval = "automatic" // at its first enrolment, into Policy.Solution
)

// Bounds of a policy.
const (
	MinLeafDays  = 30
	MaxLeafDays  = 90
	MaxLapseDays = 3 * 366
	maxDepth     = 4
	maxPolicies  = 100 // of a tenant
)

// Policy says how devices enrol and renew. The label in the path of an EST request (RFC 7030 3.2.2) selects one, and
// never says who the device is. A member that is zero demands nothing beyond what the platform always does.
type Policy struct {
	Label         string               `json:"label" readOnly:"true"`
	Products      []string             `json:"products,omitempty" required:"false" maxItems:"100" doc:"Products that it is for; they then enrol by no other policy than those that name them. Empty: products that no policy names"`
	Keys          []identity.Algorithm `json:"keys,omitempty" required:"false" maxItems:"3" enum:"ecdsa-p256,ecdsa-p384,ed25519" doc:"Key algorithms, the preferred first; empty: ecdsa-p256"`
	LeafDays      int64                `json:"leaf_days,omitempty" required:"false" minimum:"0" maximum:"90" doc:"Life of an LDevID, 30 to 90 days; 0: 60"`
	Grade         identity.Grade       `json:"grade,omitempty" required:"false" enum:",A,B,C" doc:"How sure of the key at least: A attested by hardware, B hardware claimed"`
	Preauthorised bool                 `json:"preauthorised,omitempty" required:"false" doc:"Only serial numbers that were announced before"`
	Origins       []string             `json:"origins,omitempty" required:"false" maxItems:"100" doc:"Ids of the line stations, trusted CAs and tokens whose devices it takes; empty: any"`
	ChainDepth    int64                `json:"chain_depth,omitempty" required:"false" minimum:"0" maximum:"4" doc:"How many authorities a device may show between its certificate and the CA that is trusted; 0: as many as the platform allows"`
	Approval      Approval             `json:"approval,omitempty" required:"false" enum:"person,automatic" doc:"person: a claim code or the lobby; automatic: at the first enrolment, into the solution"`
	Solution      string               `json:"solution,omitempty" required:"false" doc:"Of automatic approval"`
	RenewDays     int64                `json:"renew_days,omitempty" required:"false" minimum:"0" maximum:"90" doc:"A renewal is taken this many days before the end and later; 0: at any time"`
	LapseDays     int64                `json:"lapse_days,omitempty" required:"false" minimum:"0" maximum:"1098" doc:"An LDevID that ended at most so many days ago may still renew, with its old key; 0: never, the device returns with its IDevID"`

	Version int64     `json:"version" readOnly:"true" doc:"0: nobody has set it, it is the platform's own"`
	Actor   string    `json:"actor,omitempty" readOnly:"true"`
	Created time.Time `json:"created,omitzero" readOnly:"true"`
	Ended   bool      `json:"ended,omitempty" readOnly:"true" doc:"This version ends the policy"`
}

// builtin is how a tenant's devices enrol before it sets anything.
func builtin() Policy { return Policy{Label: DefaultLabel}.filled() }

// filled puts the platform's own choice in the place of what is left open.
func (p Policy) filled() Policy {
	if len(p.Keys) == 0 {
		p.Keys = []identity.Algorithm{identity.AlgP256}
	}
	if p.LeafDays == 0 {
		p.LeafDays = int64(identity.Profiles[identity.LDevID].Life / day)
	}
	if p.Approval == "" {
		p.Approval = ByPerson
	}
	return p
}

const day = 24 * time.Hour

var labelPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)

// operations are the last segments of EST paths; no label may be one of them (RFC 7030 3.2.2).
var operations = []string{tokenLabel, "cacerts", "csrattrs", "simpleenroll", "simplereenroll", "fullcmc", "serverkeygen"}

func checkLabel(s string) error {
	if !labelPattern.MatchString(s) || slices.Contains(operations, s) {
		return problem.Invalid("A label is 1 to 40 of a-z, 0-9 and -, and not the name of an EST operation.").At("label")
	}
	return nil
}

// check refuses a policy that makes no sense. p is filled.
func (p Policy) check() error {
	if err := checkLabel(p.Label); err != nil {
		return err
	}
	for _, k := range p.Keys {
		if !slices.Contains([]identity.Algorithm{identity.AlgP256, identity.AlgP384, identity.AlgEd25519}, k) {
			return problem.Invalid("No device key can be of the algorithm %q.", k).At("keys")
		}
	}
	switch {
	case p.LeafDays < MinLeafDays || p.LeafDays > MaxLeafDays:
		return problem.Invalid("An LDevID lives %d to %d days.", MinLeafDays, MaxLeafDays).At("leaf_days")
	case p.Grade != "" && p.Grade != identity.GradeA && p.Grade != identity.GradeB && p.Grade != identity.GradeC:
		return problem.Invalid("A grade is A, B or C.").At("grade")
	case p.Approval != ByPerson && p.Approval != Automatical:
		return problem.Invalid("Approval is by a person or automatic.").At("approval")
	case p.Approval == Automatical && p.Solution == "":
		return problem.Invalid("Automatic approval needs the solution that devices join.").At("solution")
	case p.Approval == ByPerson && p.Solution != "":
		return problem.Invalid("The solution is chosen by the person who approves.").At("solution")
	case p.RenewDays < 0 || p.RenewDays >= p.LeafDays:
		return problem.Invalid("The renewal window is shorter than the life of %d days.", p.LeafDays).At("renew_days")
	case p.RenewDays > 0 && p.RenewDays*2 < p.LeafDays:
		return problem.Invalid("Devices renew around two thirds of a certificate's life, so the window is at least half of it.").At("renew_days").
			Hint("For %d days that is %d or more.", p.LeafDays, (p.LeafDays+1)/2)
	case p.LapseDays < 0 || p.LapseDays > MaxLapseDays:
		return problem.Invalid("An LDevID may have ended at most %d days ago.", MaxLapseDays).At("lapse_days")
	case p.ChainDepth < 0 || p.ChainDepth > maxDepth:
		return problem.Invalid("A chain has at most %d authorities.", maxDepth).At("chain_depth")
	case len(p.Products) > 100 || len(p.Origins) > 100 || len(p.Keys) > 3:
		return problem.Invalid("A list of a policy has at most 100 entries.")
	}
	return nil
}

// Life is how long an LDevID of the policy is good.
func (p Policy) Life() time.Duration { return time.Duration(p.LeafDays) * day }

// choose is the policy by which a device of the product enrols when it names label, empty if it names none. all are the
// tenant's policies. A product that policies name enrols by those alone: no device gets around what its maker demands by
// naming another label, or none.
func choose(all []Policy, product, label string) (Policy, error) {
	standard := builtin()
	var mine []Policy
	var known bool
	for _, p := range all {
		switch {
		case slices.Contains(p.Products, product):
			mine = append(mine, p)
		case p.Label == DefaultLabel && len(p.Products) == 0:
			standard = p
		}
		known = known || p.Label == label
	}
	if len(mine) == 0 { // no policy names the product: those without products are for it
		mine = []Policy{standard}
		for _, p := range all {
			if len(p.Products) == 0 && p.Label != DefaultLabel {
				mine = append(mine, p)
			}
		}
		if label == "" {
			return standard, nil
		}
	}
	if label == "" {
		if len(mine) == 1 {
			return mine[0], nil
		}
		label = DefaultLabel
		known = true
	}
	labels := make([]string, len(mine))
	for i, p := range mine {
		if p.Label == label {
			return p, nil
		}
		labels[i] = p.Label
	}
	if !known && label != DefaultLabel {
		return Policy{}, problem.NotFound("There is no enrolment policy %s.", label)
	}
	slices.Sort(labels)
	return Policy{}, problem.Forbidden(RuleLabel, "The enrolment policy %s is not for this product.", label).
		Hint("Its devices enrol by %s: /.well-known/est/{label}/simpleenroll.", strings.Join(labels, " or "))
}

// admits holds a device against the policy, at each enrolment.
func (p Policy) admits(d identity.Device) error {
	if len(p.Origins) > 0 && !slices.Contains(p.Origins, d.Origin) {
		return problem.Forbidden(RuleOrigin, "The enrolment policy %s does not take devices of this origin.", p.Label)
	}
	return nil
}

// sure refuses a key of a lower grade than the policy demands.
func (p Policy) sure(g identity.Grade) error {
	if p.Grade == "" || g.AtLeast(p.Grade) {
		return nil
	}
	e := problem.Forbidden(RuleGrade, "The enrolment policy %s demands a key of grade %s; this one has grade %s.", p.Label, p.Grade, g)
	if p.Grade == identity.GradeA {
		return e.Hint("Prove that the key of this request is in hardware: POST /d/1/attest/challenge, then /d/1/attest/answer.")
	}
	return e.Hint("Say in the report to POST /d/1/baseline which root of trust holds the key, or attest it.")
}

// renewal refuses one that is too early. ends is the end of the certificate in use; a certificate of an authority that
// no longer signs is renewed at any time, so that a rollover never waits.
func (p Policy) renewal(ends, now time.Time, authoritySigns bool) error {
	from := ends.Add(-time.Duration(p.RenewDays) * day)
	if p.RenewDays == 0 || !authoritySigns || !now.Before(from) {
		return nil
	}
	return problem.Forbidden(RuleEarly, "The enrolment policy %s takes a renewal from %s on.", p.Label, from.UTC().Format(time.DateOnly))
}

// lapse refuses an LDevID that ended longer ago than the policy forgives.
func (p Policy) lapse(ended, now time.Time) error {
	if p.LapseDays > 0 && now.Before(ended.Add(time.Duration(p.LapseDays)*day)) {
		return nil
	}
	e := problem.Forbidden(RuleExpired, "The LDevID ended on %s.", ended.UTC().Format(time.DateOnly))
	return e.Hint("Enrol again with the IDevID: POST /.well-known/est/simpleenroll.")
}

// shown refuses a device that shows more authorities beside its own certificate than the policy allows.
func (p Policy) shown(authorities int) error {
	if p.ChainDepth > 0 && int64(authorities) > p.ChainDepth {
		return problem.Forbidden(RuleChain, "The enrolment policy %s takes at most %d authorities above a device's certificate, and %d were shown.", p.Label, p.ChainDepth, authorities)
	}
	return nil
}

// Words is the policy in a sentence, for the console.
func (p Policy) Words() string {
	var w []string
	say := func(is bool, format string, args ...any) {
		if is {
			w = append(w, fmt.Sprintf(format, args...))
		}
	}
	say(true, "%d days", p.LeafDays)
	say(p.Grade != "", "grade %s at least", p.Grade)
	say(p.Preauthorised, "announced serial numbers only")
	say(p.Approval == Automatical, "approved automatically")
	say(p.RenewDays > 0, "renewal in the last %d days", p.RenewDays)
	say(p.LapseDays > 0, "ended certificates renew for %d days", p.LapseDays)
	return strings.Join(w, ", ")
}
