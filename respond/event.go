// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"slices"
	"time"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
)

// Kind is what a case is about.
type Kind string

// AEV is an actively exploited vulnerability (CRA Art. 3(42)), SI a severe incident (Art. 14(5)).
const (
	AEV Kind = "aev"
	SI  Kind = "si"
)

// EventKind names what happened in a case.
type EventKind string

// The kinds of events. The first of a case is always T0Set; the platform by itself writes only those of deadlines.
const (
	T0Set               EventKind = "t0.set"
	T0Corrected         EventKind = "t0.corrected"
	Described           EventKind = "case.described"
	MeasureAvailable    EventKind = "measure.available"
	MeasureWithdrawn    EventKind = "measure.withdrawn"
	SubmissionAttempted EventKind = "submission.attempted"
	SubmissionFailed    EventKind = "submission.failed"
	SubmissionAccepted  EventKind = "submission.accepted"
	Invalidated         EventKind = "csirt.invalidated"
	ContactedDirectly   EventKind = "csirt.contacted_directly"
	MemberStatesChanged EventKind = "member_states.changed"
	InterimRequested    EventKind = "interim.requested"
	InterimAnswered     EventKind = "interim.answered"
	UsersInformed       EventKind = "users.informed"
	Linked              EventKind = "case.linked"
	Closed              EventKind = "case.closed"
	Withdrawn           EventKind = "case.withdrawn" // declared in error, before anything was submitted
	DeadlineSoon        EventKind = "deadline.soon"
	DeadlineOverdue     EventKind = "deadline.overdue"
	DeadlineUnknown     EventKind = "deadline.undetermined" // weekly while the final report has no anchor
)

// byPlatform reports whether only the platform itself writes events of the kind.
func (k EventKind) byPlatform() bool {
	return k == DeadlineSoon || k == DeadlineOverdue || k == DeadlineUnknown
}

// Data is what an event says; each kind needs its own part of it, see Check.
type Data struct {
	At           time.Time `json:"at,omitzero" doc:"When it happened in the world, with an offset; never in the future"`
	Note         string    `json:"note,omitempty" maxLength:"4000" doc:"Evidence, reason or text"`
	Title        string    `json:"title,omitempty" maxLength:"255"`
	Summary      string    `json:"summary,omitempty" maxLength:"4000"`
	Stage        Stage     `json:"stage,omitempty" enum:"early_warning,notification,final,intermediate,users"`
	Receipt      string    `json:"receipt,omitempty" maxLength:"255" doc:"Receipt id of the reporting platform"`
	Attempt      int64     `json:"attempt,omitempty" doc:"Number of the submission.attempted event"`
	Request      int64     `json:"request,omitempty" doc:"Number of the interim.requested event"`
	Due          time.Time `json:"due,omitzero" doc:"Date set by the CSIRT, or the deadline escalated"`
	MemberStates []string  `json:"member_states,omitempty" maxItems:"27"`
	Coordinator  string    `json:"coordinator,omitempty" doc:"Member State of the coordinator CSIRT"`
	Audience     string    `json:"audience,omitempty" enum:"impacted,all"`
	Case         string    `json:"case,omitempty"`
	Decision     string    `json:"decision,omitempty"`
}

// Event is one entry in the log of a case. Events are only ever appended.
type Event struct {
	Seq      int64     `json:"seq" doc:"1 is t0.set"`
	Kind     EventKind `json:"kind"`
	Recorded time.Time `json:"recorded" doc:"When the platform stored it"`
	Actor    string    `json:"actor"`
	Person   bool      `json:"person" doc:"False for what the platform wrote by itself"`
	Data     Data      `json:"data"`
}

// Submission is a report that the reporting platform received.
type Submission struct {
	SubmittedAt time.Time `json:"submitted_at"`
	Receipt     string    `json:"receipt"`
	Submitter   string    `json:"submitter"`
	Confirmer   string    `json:"confirmer"`
}

// Attempt is a submission that a person says was made; it counts only once accepted.
type Attempt struct {
	Stage Stage
	At    time.Time
	Actor string
	Done  bool // accepted or failed
}

// Request is an intermediate report that a CSIRT asked for.
type Request struct {
	Seq      int64
	At, Due  time.Time
	Text     string
	Answered time.Time
}

// State is a case as its events make it. The zero State has no events.
type State struct {
	Kind             Kind
	Events           int64 // number of events folded
	T0               time.Time
	T0History        []time.Time // every value it ever had, in order
	Title, Summary   string
	Coordinator      string
	MemberStates     []string
	Measure          time.Time // the first corrective or mitigating measure
	MeasureNote      string
	MeasureWithdrawn bool
	Attempts         map[int64]Attempt
	Accepted         map[Stage]Submission
	Requests         []Request
	UsersInformed    time.Time
	Links            []string
	Escalated        map[Escalation]bool
	Overdue          map[Stage]bool
	Closed           bool
	Withdrawn        bool // closed because awareness was declared in error
}

// Zone is the zone in which days and months of this case are counted.
func (s State) Zone() *time.Location {
	m, ok := law.State(s.Coordinator)
	if !ok {
		return time.UTC
	}
	return m.Location()
}

// Status is the case in one word, for lists.
func (s State) Status() string {
	switch {
	case s.Withdrawn:
		return "withdrawn"
	case s.Closed:
		return "closed"
	case s.has(Final):
		return "final report submitted"
	case s.has(Notification):
		return "notification submitted"
	case s.has(EarlyWarning):
		return "early warning submitted"
	default:
		return "aware"
	}
}

func (s State) has(st Stage) bool { _, ok := s.Accepted[st]; return ok }

// Fold makes the state of a case of the given kind from all its events in order.
func Fold(kind Kind, events []Event) State {
	s := State{Kind: kind, Attempts: map[int64]Attempt{}, Accepted: map[Stage]Submission{},
		Escalated: map[Escalation]bool{}, Overdue: map[Stage]bool{}}
	for _, e := range events {
		s.apply(e)
	}
	return s
}

func (s *State) apply(e Event) {
	s.Events++
	d := e.Data
	switch e.Kind {
	case T0Set:
		s.T0, s.T0History = d.At, append(s.T0History, d.At)
		s.Title, s.Summary, s.Coordinator, s.MemberStates = d.Title, d.Summary, d.Coordinator, d.MemberStates
	case T0Corrected:
		s.T0, s.T0History = d.At, append(s.T0History, d.At)
	case Described:
		s.Title, s.Summary = d.Title, d.Summary
	case MeasureAvailable:
		if s.Measure.IsZero() || d.At.Before(s.Measure) {
			s.Measure, s.MeasureNote = d.At, d.Note
		}
	case MeasureWithdrawn:
		s.MeasureWithdrawn = true
	case SubmissionAttempted:
		s.Attempts[e.Seq] = Attempt{Stage: d.Stage, At: d.At, Actor: e.Actor}
	case SubmissionFailed:
		s.finish(d.Attempt)
	case SubmissionAccepted:
		a := s.finish(d.Attempt)
		s.Accepted[a.Stage] = Submission{SubmittedAt: a.At, Receipt: d.Receipt, Submitter: a.Actor, Confirmer: e.Actor}
	case Invalidated:
		delete(s.Accepted, d.Stage)
	case MemberStatesChanged:
		s.MemberStates = d.MemberStates
	case InterimRequested:
		s.Requests = append(s.Requests, Request{Seq: e.Seq, At: d.At, Due: d.Due, Text: d.Note})
	case InterimAnswered:
		if i := s.request(d.Request); i >= 0 {
			s.Requests[i].Answered = d.At
		}
	case UsersInformed:
		if s.UsersInformed.IsZero() {
			s.UsersInformed = d.At
		}
	case Linked:
		s.Links = append(s.Links, d.Case)
	case DeadlineSoon, DeadlineOverdue, DeadlineUnknown:
		s.Escalated[Escalation{Stage: d.Stage, Level: e.Kind, At: d.At.UnixMilli()}] = true
		if e.Kind == DeadlineOverdue {
			s.Overdue[d.Stage] = true
		}
	case Closed:
		s.Closed = true
	case Withdrawn:
		s.Closed, s.Withdrawn = true, true
	}
}

func (s *State) finish(seq int64) Attempt {
	a := s.Attempts[seq]
	a.Done = true
	s.Attempts[seq] = a
	return a
}

func (s State) request(seq int64) int {
	return slices.IndexFunc(s.Requests, func(r Request) bool { return r.Seq == seq })
}

// before is the stage that must have been accepted first; the reporting platform opens its tabs in this order.
var before = map[Stage]Stage{Notification: EarlyWarning, Final: Notification}

// after is the stage that builds on one.
var after = map[Stage]Stage{EarlyWarning: Notification, Notification: Final}

// Check says whether e may be appended to a case in state s at the time now; nil means yes.
func Check(s State, e Event, now time.Time) error {
	byPlatform := e.Kind.byPlatform()
	switch {
	case s.Events == 0 && e.Kind != T0Set:
		return problem.Conflict("A case begins with a declaration of awareness.")
	case s.Events > 0 && e.Kind == T0Set:
		return problem.Conflict("Awareness was declared already.").Hint("Append t0.corrected with a reason.")
	case e.Person == byPlatform:
		if byPlatform {
			return problem.Forbidden("respond.platform-only", "Only the platform writes %s.", e.Kind)
		}
		return problem.Forbidden("respond.person-only", "%s needs a person.", e.Kind).
			Hint("Feeds, scanners and jobs may only send signals.")
	case s.Closed:
		return problem.Forbidden("respond.closed", "The case is closed.")
	case e.Data.At.After(now):
		return problem.Invalid("%s lies in the future.", e.Data.At.Format(time.RFC3339)).At("at")
	case !text(e.Data.Note, 0, 4000), !text(e.Data.Title, 0, 255), !text(e.Data.Summary, 0, 4000), !text(e.Data.Receipt, 0, 255):
		return problem.Invalid("A text is too long or not UTF-8.")
	}
	if s.has(Final) && slices.Contains(reportEvents, e.Kind) {
		return problem.Forbidden("respond.final", "The final report was accepted; nothing in it can change any more.")
	}
	check := checks[e.Kind]
	if check == nil {
		return problem.Invalid("There is no event %q.", e.Kind).At("kind")
	}
	return check(s, e)
}

// reportEvents change what a report says, so the accepted final report ends them.
var reportEvents = []EventKind{T0Corrected, Described, MeasureAvailable, MeasureWithdrawn, SubmissionAttempted, SubmissionFailed,
	SubmissionAccepted, MemberStatesChanged}

// checks are the rules of each kind of event.
var checks = map[EventKind]func(State, Event) error{
	T0Set: func(s State, e Event) error {
		if err := checkCountries(e.Data, true); err != nil {
			return err
		}
		if !text(e.Data.Title, 1, 255) {
			return problem.Invalid("A title of at most 255 characters is needed.").At("title")
		}
		return checkT0(e, "the evidence for being aware")
	},
	T0Corrected: func(s State, e Event) error {
		for st, sub := range s.Accepted {
			if sub.SubmittedAt.Before(e.Data.At) {
				return problem.Conflict("The %s was submitted before that time.", st).At("at")
			}
		}
		return checkT0(e, "the reason for the correction")
	},
	Described: func(_ State, e Event) error {
		if !text(e.Data.Title, 1, 255) {
			return problem.Invalid("A title of at most 255 characters is needed.").At("title")
		}
		return nil
	},
	MeasureAvailable: func(_ State, e Event) error { return needs(e, true, "what the measure is") },
	MeasureWithdrawn: func(s State, e Event) error {
		if s.Measure.IsZero() {
			return problem.Conflict("No measure is on record.")
		}
		return needs(e, true, "why it was withdrawn")
	},
	SubmissionAttempted: checkAttempt,
	SubmissionFailed: func(s State, e Event) error {
		if _, err := openAttempt(s, e); err != nil {
			return err
		}
		return needs(e, false, "what failed")
	},
	SubmissionAccepted: checkAccepted,
	Invalidated: func(s State, e Event) error {
		if !s.has(e.Data.Stage) {
			return problem.Conflict("No accepted %s is on record.", e.Data.Stage).At("stage")
		}
		if next := after[e.Data.Stage]; next != "" && s.has(next) {
			return problem.Conflict("The %s builds on it; invalidate that first.", next).At("stage")
		}
		return needs(e, true, "what the CSIRT said")
	},
	ContactedDirectly: func(_ State, e Event) error { return needs(e, true, "who was told what, and how") },
	MemberStatesChanged: func(_ State, e Event) error {
		if err := checkCountries(e.Data, false); err != nil {
			return err
		}
		return needs(e, false, "what is newly known")
	},
	InterimRequested: func(_ State, e Event) error {
		if !e.Data.Due.After(e.Data.At) {
			return problem.Invalid("The CSIRT's date must lie after its request.").At("due")
		}
		return needs(e, true, "what the CSIRT asked for")
	},
	InterimAnswered: func(s State, e Event) error {
		i := s.request(e.Data.Request)
		switch {
		case i < 0:
			return problem.Invalid("Event %d is not a request of the CSIRT.", e.Data.Request).At("request")
		case !s.Requests[i].Answered.IsZero():
			return problem.Conflict("That request was answered already.")
		case e.Data.At.Before(s.Requests[i].At):
			return problem.Invalid("An answer cannot precede its request.").At("at")
		}
		return needs(e, true, "how it was answered")
	},
	UsersInformed: func(_ State, e Event) error {
		if e.Data.Audience != "impacted" && e.Data.Audience != "all" {
			return problem.Invalid("Say whether the impacted or all users were informed.").At("audience")
		}
		return needs(e, true, "how they were informed")
	},
	Linked: func(_ State, e Event) error {
		if e.Data.Case == "" {
			return problem.Invalid("A link names another case.").At("case")
		}
		return nil
	},
	Closed: func(s State, e Event) error {
		if !s.has(Final) {
			return problem.Forbidden("respond.open-duty", "The final report is still owed.")
		}
		return needs(e, false, "why it is closed")
	},
	Withdrawn: func(s State, e Event) error {
		if len(s.Accepted) > 0 {
			return problem.Forbidden("respond.submitted", "A report was submitted; the case is ended by its final report.")
		}
		return needs(e, false, "why nobody was aware of anything after all")
	},
	DeadlineSoon:    checkEscalation,
	DeadlineOverdue: checkEscalation,
	DeadlineUnknown: checkEscalation,
}

func checkT0(e Event, what string) error {
	if r, ok := law.Get("cra.14.1"); ok && !e.Data.At.IsZero() && !r.Applies(e.Data.At) {
		return problem.Invalid("%s applies from %s; awareness before that day opens no clock.", r.Ref, r.From).At("at")
	}
	return needs(e, true, what)
}

func checkCountries(d Data, coordinator bool) error {
	if coordinator {
		if _, ok := law.State(d.Coordinator); !ok {
			return problem.Invalid("%q is not the code of a Member State.", d.Coordinator).At("coordinator").
				Hint("CRA Art. 14(7) says whose CSIRT is the coordinator; codes are like DE or FR.")
		}
	}
	for i, c := range d.MemberStates {
		if _, ok := law.State(c); !ok || slices.Contains(d.MemberStates[:i], c) {
			return problem.Invalid("%q is not the code of a Member State, or stands twice.", c).At("member_states")
		}
	}
	return nil
}

func checkAttempt(s State, e Event) error {
	d := e.Data
	first, ok := before[d.Stage]
	switch {
	case d.Stage != EarlyWarning && !ok:
		return problem.Invalid("There is no report %q.", d.Stage).At("stage")
	case s.has(d.Stage):
		return problem.Conflict("The %s was accepted already.", d.Stage)
	case ok && !s.has(first):
		return problem.Forbidden("respond.order", "The %s comes after an accepted %s.", d.Stage, first)
	case d.At.Before(s.T0):
		return problem.Invalid("A submission cannot precede awareness.").At("at")
	case ok && d.At.Before(s.Accepted[first].SubmittedAt):
		return problem.Invalid("It cannot have been submitted before the %s.", first).At("at")
	case d.Stage == Final && s.Kind == AEV && s.Measure.IsZero():
		return problem.Forbidden("respond.anchor", "A final report says which measure is available; none is on record.")
	}
	return needs(e, true, "")
}

func openAttempt(s State, e Event) (Attempt, error) {
	a, ok := s.Attempts[e.Data.Attempt]
	if !ok {
		return a, problem.Invalid("Event %d is not an attempt to submit.", e.Data.Attempt).At("attempt")
	}
	if a.Done {
		return a, problem.Conflict("Attempt %d has ended already.", e.Data.Attempt)
	}
	return a, nil
}

func checkAccepted(s State, e Event) error {
	a, err := openAttempt(s, e)
	switch {
	case err != nil:
		return err
	case !text(e.Data.Receipt, 1, 255):
		return problem.Forbidden("respond.receipt", "A submission counts only with the receipt of the reporting platform.").At("receipt")
	case e.Actor == a.Actor:
		return problem.Forbidden("respond.second-person", "A second person confirms the receipt.").
			Hint("Ask a colleague to compare the receipt with the reporting platform.")
	}
	// The attempt was legal when it was made; another may have been accepted or invalidated since.
	return checkAttempt(s, Event{Kind: SubmissionAttempted, Actor: a.Actor, Person: true, Data: Data{Stage: a.Stage, At: a.At}})
}

// checkEscalation lets an escalation in once, and only for a clock that runs and has come that far.
func checkEscalation(s State, e Event) error {
	esc := Escalation{Stage: e.Data.Stage, Level: e.Kind, At: e.Data.At.UnixMilli()}
	if s.Escalated[esc] {
		return problem.Conflict("That escalation is on record.")
	}
	for _, d := range Clocks(s, s.Zone(), Targets{}) {
		due := d.Due.UnixMilli()
		switch {
		case d.Stage != esc.Stage:
		case e.Kind == DeadlineUnknown && d.Undetermined != "",
			e.Kind == DeadlineSoon && d.Running() && esc.At < due, // how much earlier is the house's own choice
			e.Kind == DeadlineOverdue && d.Running() && esc.At == due:
			return nil
		}
	}
	return problem.Conflict("No clock of %s has come that far.", esc.Stage)
}

// needs asks for an instant and, if what is not empty, for a note that says it.
func needs(e Event, at bool, what string) error {
	if at && e.Data.At.IsZero() {
		return problem.Invalid("Say when it happened, with an offset from UTC.").At("at")
	}
	if what != "" && !text(e.Data.Note, 1, 4000) {
		return problem.Invalid("Say in a note %s.", what).At("note")
	}
	return nil
}

func text(s string, least, most int) bool {
	n := utf8.RuneCountInString(s)
	return utf8.ValidString(s) && n >= least && n <= most
}

// Escalation is an alarm that must be written once: at its instant (ms since 1970 UTC), if the duty is still open.
type Escalation struct {
	Stage Stage     `json:"stage"`
	Level EventKind `json:"level"`
	At    int64     `json:"at"`
}

// due reports whether e is among the alarms that are still set.
func (e Escalation) due(set []Escalation) bool { return slices.Contains(set, e) }

// nagEvery is how often a final report without an anchor is called to mind; an intermediate report is possible meanwhile.
const nagEvery = 7 * 24 * time.Hour

// Escalations lists the alarms of a case: soon at WorkBy and overdue at Due for each clock that runs, and the next weekly
// reminder where the notification was accepted and the final report has no anchor yet.
func Escalations(s State, ds []Deadline) []Escalation {
	var es []Escalation
	for _, d := range ds {
		if n, ok := s.Accepted[Notification]; ok && d.Undetermined != "" {
			at := n.SubmittedAt.Add(nagEvery)
			for s.Escalated[Escalation{d.Stage, DeadlineUnknown, at.UnixMilli()}] {
				at = at.Add(nagEvery)
			}
			es = append(es, Escalation{d.Stage, DeadlineUnknown, at.UnixMilli()})
		}
		if !d.Running() {
			continue
		}
		if d.WorkBy.Before(d.Due) {
			es = append(es, Escalation{d.Stage, DeadlineSoon, d.WorkBy.UnixMilli()})
		}
		es = append(es, Escalation{d.Stage, DeadlineOverdue, d.Due.UnixMilli()})
	}
	return es
}
