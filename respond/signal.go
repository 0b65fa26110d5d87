// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"slices"
	"time"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
)

// Where signals come from. There is no other source: a feed's match becomes a signal through vuln's event.
const (
	SourcePerson = "person"
	SourceVuln   = "vuln"
	SourceAlarm  = "alarm"
)

// Signal is a hint that a product may be attacked. It starts no clock.
type Signal struct {
	ID         string    `json:"id"`
	Product    string    `json:"product" doc:"Empty: a finder named none; whoever declares awareness names those concerned"`
	Source     string    `json:"source" enum:"person,vuln,alarm,report"`
	Ref        string    `json:"ref" doc:"What the source calls it, such as a vulnerability"`
	Title      string    `json:"title"`
	Detail     string    `json:"detail,omitempty"`
	Exploited  string    `json:"exploited" enum:"yes,no,unknown" doc:"Whether the source says that it was exploited"`
	KnownSince time.Time `json:"known_since,omitzero" doc:"Since when the source knew"`
	Intake     time.Time `json:"intake"`
	Actor      string    `json:"actor"`
	DecideBy   time.Time `json:"decide_by,omitzero" doc:"When a person must have decided; absent once somebody has"`

	Assessment *Assessment `json:"assessment,omitempty" doc:"The newest one"`
}

// Waiting reports whether a person must look at the signal now: nobody has decided yet, or it was to be assessed again
// by now. An idle assessment is its own alarm.
func (s Signal) Waiting(now time.Time) bool {
	if s.Assessment == nil || len(s.Assessment.Decisions) == 0 {
		return true
	}
	last := s.Assessment.Decisions[len(s.Assessment.Decisions)-1]
	return last.Verdict == Watch && !now.Before(last.Again)
}

// Burning reports whether somebody saw it exploited and a person must look at it now: nothing is more urgent.
func (s Signal) Burning(now time.Time) bool { return s.Exploited == "yes" && s.Waiting(now) }

// Due is when a person must have decided about the signal; zero when somebody has. Opening an assessment buys no time, a
// signal that is watched is looked at again, and new evidence starts anew.
func (s Signal) Due(limits Targets) time.Time {
	within := hoursOf(limits.filled().AssessmentHours)
	a := s.Assessment
	switch {
	case a == nil || len(a.Decisions) == 0 && a.Evidence == "":
		return s.Intake.Add(within)
	case len(a.Decisions) == 0:
		return a.Opened.Add(within)
	default:
		return a.Decisions[len(a.Decisions)-1].Again
	}
}

// deciding reports whether an assessment is open that a person has not ended.
func (s Signal) deciding() bool {
	return s.Assessment != nil && s.Assessment.Verdict != Negative && s.Assessment.Verdict != Aware
}

func (s Signal) check(now time.Time) error {
	switch {
	case !text(s.Product, 0, 64) || s.Product == "" && s.Source != SourceReport:
		return problem.Invalid("A signal names a product.").At("product")
	case !text(s.Title, 1, 255):
		return problem.Invalid("A signal has a title of at most 255 characters.").At("title")
	case !text(s.Detail, 0, 4000) || !text(s.Ref, 0, 255):
		return problem.Invalid("A text is too long or not UTF-8.")
	case s.Exploited != "yes" && s.Exploited != "no" && s.Exploited != "unknown":
		return problem.Invalid("Say whether it was exploited: yes, no or unknown.").At("exploited")
	case s.KnownSince.After(now):
		return problem.Invalid("The source cannot know it since a time in the future.").At("known_since")
	}
	return nil
}

// Verdict is what a person decided about a signal.
type Verdict string

// The verdicts. Watch is assessed again within a day; Aware opens cases; Joined gives the signal to a case that is open.
const (
	Negative Verdict = "negative"
	Watch    Verdict = "watch"
	Aware    Verdict = "aware"
	Joined   Verdict = "joined"
)

// Reason is why something is not reportable.
type Reason string

// The reasons. Whatever fits none of them is told in the basis alone.
const (
	NotReachable    Reason = "not-reachable"
	NotExploited    Reason = "not-exploited-here"
	GoodFaith       Reason = "good-faith-testing"
	KnownBefore     Reason = "known-before-the-law"
	NotOurProduct   Reason = "not-our-product"
	ReasonElsewhere Reason = "other"
)

// reasonText is a reason in words, with its source.
type reasonText struct {
	Reason Reason
	Text   string
}

// Reasons lists the reasons for the verdict negative.
var Reasons = []reasonText{
	{NotExploited, "not exploited in this product (C(2026) 5252, point 218)"},
	{NotReachable, "the vulnerable code cannot be reached in this product (point 218)"},
	{GoodFaith, "found by testing in good faith, without malicious exploitation (recital 68)"},
	{KnownBefore, "the exploitation was known before 2026-09-11 (point 217)"},
	{NotOurProduct, "it is not our product"},
	{ReasonElsewhere, "another reason, which the basis tells"},
}

// watchFor is the longest time until a watched signal is assessed again.
const watchFor = 24 * time.Hour

// Assessment is a person's look at a signal.
type Assessment struct {
	ID        string     `json:"id"`
	Signal    string     `json:"signal"`
	Opened    time.Time  `json:"opened"`
	OpenedBy  string     `json:"opened_by"`
	Evidence  string     `json:"evidence,omitempty" doc:"What is new since the assessment before"`
	Verdict   Verdict    `json:"verdict" doc:"The last decision; empty until there is one"`
	Decisions []Decision `json:"decisions,omitempty"`
}

// Decision is one verdict with its basis. It never changes.
type Decision struct {
	ID         string    `json:"id"`
	Verdict    Verdict   `json:"verdict"`
	Basis      string    `json:"basis"`
	Reason     Reason    `json:"reason,omitempty" doc:"Negative: why it is not reportable"`
	KnownSince time.Time `json:"known_since,omitzero" doc:"Negative, known before the law: since when the exploitation was known"`
	Case       string    `json:"case,omitempty" doc:"Joined: the case that the signal belongs to"`
	Again      time.Time `json:"again,omitzero" doc:"Watch: to be assessed again by"`
	At         time.Time `json:"at"`
	Actor      string    `json:"actor"`
}

// Declaration is a decision as a person makes it. Both questions are asked: AEV and SI may both be true.
type Declaration struct {
	Verdict      Verdict   `json:"verdict" enum:"negative,watch,aware,joined"`
	Basis        string    `json:"basis" maxLength:"4000" doc:"The evidence for the verdict"`
	AEV          *bool     `json:"aev,omitempty" doc:"Aware: is there reliable evidence that a malicious actor exploited a vulnerability in the product? (CRA Art. 3(42))"`
	SI           *bool     `json:"si,omitempty" doc:"Aware: is there a severe incident with an impact on the product's security? (CRA Art. 14(5))"`
	T0           time.Time `json:"t0,omitzero" doc:"Aware: since when, with an offset"`
	Title        string    `json:"title,omitempty" maxLength:"255"`
	Summary      string    `json:"summary,omitempty" maxLength:"4000"`
	Coordinator  string    `json:"coordinator,omitempty" doc:"Aware: Member State of the coordinator CSIRT (CRA Art. 14(7)); by default the one that was confirmed"`
	MemberStates []string  `json:"member_states,omitempty" doc:"Aware: where the product was made available; by default where it is declared to be available"`
	Products     []string  `json:"products,omitempty" maxItems:"100" doc:"Aware: the products concerned, a case each; by default the signal's"`
	Reason       Reason    `json:"reason,omitempty" enum:"not-reachable,not-exploited-here,good-faith-testing,known-before-the-law,not-our-product,other" doc:"Negative: why it is not reportable; by default other"`
	KnownSince   time.Time `json:"known_since,omitzero" required:"false" doc:"Negative, known before the law: since when the exploitation was known"`
	Case         string    `json:"case,omitempty" maxLength:"64" doc:"Joined: the case that the signal belongs to"`
	Seen         *int      `json:"seen,omitempty" doc:"How many decisions of the assessment the person had seen; another one since then is a conflict"`

	Fields map[string]string `json:"fields,omitempty" doc:"Aware: what is known already, by the ids of the report's fields"`
}

// kinds says which cases the declaration opens.
func (d Declaration) kinds() ([]Kind, error) {
	if !text(d.Basis, 1, 4000) {
		return nil, problem.Invalid("A decision has a basis of at most 4000 characters.").At("basis")
	}
	switch d.Verdict {
	case Aware:
	case Watch:
		return nil, nil
	case Joined:
		if d.Case == "" {
			return nil, problem.Invalid("Name the case that the signal belongs to.").At("case")
		}
		return nil, nil
	case Negative:
		return nil, d.checkReason()
	default:
		return nil, problem.Invalid("A verdict is negative, watch, aware or joined.").At("verdict")
	}
	if d.AEV == nil || d.SI == nil {
		return nil, problem.Invalid("Both questions need an answer: actively exploited vulnerability, and severe incident.").At("aev")
	}
	var ks []Kind
	if *d.AEV {
		ks = append(ks, AEV)
	}
	if *d.SI {
		ks = append(ks, SI)
	}
	if len(ks) == 0 {
		return nil, problem.Invalid("Aware of neither a vulnerability nor an incident is the verdict negative.").At("verdict")
	}
	return ks, nil
}

// concerned are the products that a decision about the signal is about: those that it names, else the signal's.
func (d Declaration) concerned(sig Signal) ([]string, error) {
	switch {
	case d.Verdict == Aware && len(d.Products) > 0:
		return d.Products, nil
	case d.Verdict == Aware && sig.Product == "":
		return nil, problem.Invalid("The signal names no product: name those that are concerned.").At("products")
	}
	return []string{sig.Product}, nil
}

// checkReason lets the reason "known before the law" stand only with the day since which it was known.
func (d Declaration) checkReason() error {
	if d.Reason != "" && !slices.ContainsFunc(Reasons, func(r reasonText) bool { return r.Reason == d.Reason }) {
		return problem.Invalid("There is no reason %q.", d.Reason).At("reason")
	}
	if d.Reason != KnownBefore {
		return nil
	}
	r, _ := law.Get("cra.14.1")
	if d.KnownSince.IsZero() || r.Applies(d.KnownSince) {
		return problem.Invalid("Say since when the exploitation was known: an instant before %s.", r.From).At("known_since").
			Hint("What was exploited anew since then is reportable.")
	}
	return nil
}
