// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"slices"
	"time"

	"github.com/openthings-platform/openthings/law"
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
	FieldsFilled        EventKind = "fields.filled"
	MeasureAvailable    EventKind = "measure.available"
	MeasureWithdrawn    EventKind = "measure.withdrawn"
	SubmissionAttempted EventKind = "submission.attempted"
	SubmissionFailed    EventKind = "submission.failed"
	ReceiptStored       EventKind = "receipt.stored" // as a file
	SubmissionAccepted  EventKind = "submission.accepted"
	Invalidated         EventKind = "csirt.invalidated"
	ContactedDirectly   EventKind = "csirt.contacted_directly"
	MemberStatesChanged EventKind = "member_states.changed"
	InterimRequested    EventKind = "interim.requested"
	InterimAnswered     EventKind = "interim.answered"
	UsersInformed       EventKind = "users.informed"
	CoveredByEarlier    EventKind = "submission.covered_by_earlier" // "unless the relevant information has already been provided", Art. 14(2) and (4)
	CoordinatorChanged  EventKind = "coordinator.changed"
	MitigationExpected  EventKind = "mitigation.expected"
	PECInvoked          EventKind = "pec.invoked" // particularly exceptional circumstances, Art. 16(2)
	PECGroundLost       EventKind = "pec.ground_lost"
	UpstreamReported    EventKind = "upstream.reported"
	PublicationHeld     EventKind = "publication.held"
	PublicationReleased EventKind = "publication.released"
	PlatformOutage      EventKind = "platform.outage" // of the reporting platform; evidence, pauses nothing
	PlatformRestored    EventKind = "platform.restored"
	Linked              EventKind = "case.linked"
	Closed              EventKind = "case.closed"
	Withdrawn           EventKind = "case.withdrawn" // declared in error, before anything was submitted
	DeadlineSoon        EventKind = "deadline.soon"
	DeadlineOverdue     EventKind = "deadline.overdue"
	DeadlineUnknown     EventKind = "deadline.undetermined"  // weekly while the final report has no anchor
	SpreadingAssumed    EventKind = "dissemination.assumed"  // the 72 hours of mitigation.expected are over
	HoldOver            EventKind = "publication.hold_ended" // the day until which publication was held back has come
)

// byPlatform reports whether only the platform itself writes events of the kind.
func (k EventKind) byPlatform() bool {
	return k == DeadlineSoon || k == DeadlineOverdue || k == DeadlineUnknown || k == SpreadingAssumed || k == HoldOver
}

// Data is what an event says; each kind needs its own part of it, see Check.
type Data struct {
	At           time.Time `json:"at,omitzero" doc:"When it happened in the world, with an offset; never in the future"`
	Note         string    `json:"note,omitempty" maxLength:"4000" doc:"Evidence, reason or text"`
	Title        string    `json:"title,omitempty" maxLength:"255"`
	Summary      string    `json:"summary,omitempty" maxLength:"4000"`
	Stage        Stage     `json:"stage,omitempty" enum:"early_warning,notification,final,intermediate,users,dissemination,publication"`
	Receipt      string    `json:"receipt,omitempty" maxLength:"255" doc:"Receipt id of the reporting platform"`
	Attempt      int64     `json:"attempt,omitempty" doc:"Number of the submission.attempted event"`
	Request      int64     `json:"request,omitempty" doc:"Number of the interim.requested event"`
	Due          time.Time `json:"due,omitzero" doc:"Date set by the CSIRT, or the day until which publication is held back"`
	MemberStates []string  `json:"member_states,omitempty" maxItems:"27"`
	Coordinator  string    `json:"coordinator,omitempty" doc:"Member State of the coordinator CSIRT"`
	Audience     string    `json:"audience,omitempty" enum:"impacted,all"`
	Campaign     string    `json:"campaign,omitempty" maxLength:"64" doc:"users.informed: the campaign of this case that told them; absent where they were told by other ways"`
	Case         string    `json:"case,omitempty"`
	Decision     string    `json:"decision,omitempty"`
	Ground       Ground    `json:"ground,omitempty" enum:"one-member-state,essential-interests,imminent-risk"`
	Component    string    `json:"component,omitempty" maxLength:"255"`
	KnownSince   time.Time `json:"known_since,omitzero" doc:"t0.set: since when the source of the signal knew"`
	Intake       time.Time `json:"intake,omitzero" doc:"t0.set: when the signal came in"`

	Of      Kind   `json:"of,omitempty" readOnly:"true" doc:"t0.set: what the case is about"`
	Product string `json:"product,omitempty" readOnly:"true" doc:"t0.set: the product of the case"`

	Fields    map[string]string `json:"fields,omitempty" doc:"fields.filled: what is written into fields of the report, by their ids"`
	Reset     []string          `json:"reset,omitempty" maxItems:"64" doc:"fields.filled: fields that go back to their drafts"`
	Seen      int64             `json:"seen,omitempty" doc:"fields.filled: number of the last event that the writer saw; what others wrote since is not overwritten"`
	Deviation string            `json:"deviation,omitempty" maxLength:"4000" doc:"submission.attempted: why the reporting platform took a report that is not complete here"`
	Pack      string            `json:"pack,omitempty" readOnly:"true" doc:"submission.attempted: SHA-256 of what the report said"`
	File      string            `json:"file,omitempty" readOnly:"true" doc:"receipt.stored: the file"`
	Name      string            `json:"name,omitempty" readOnly:"true"`
	SHA256    string            `json:"sha256,omitempty" readOnly:"true"`
	Size      int64             `json:"size,omitempty" readOnly:"true"`
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
	CoveredBy   Stage     `json:"covered_by,omitempty" doc:"The earlier report that had provided the information already"`
	File        string    `json:"file,omitempty" doc:"The receipt as a file"`
	Pack        string    `json:"pack,omitempty" doc:"SHA-256 of what the report said"`
}

// Attempt is a submission that a person says was made; it counts only once accepted.
type Attempt struct {
	Stage Stage
	At    time.Time
	Actor string
	Done  bool // accepted or failed
	Pack  string
	File  string // its receipt
}

// State is a case as its events make it. The zero State has no events.
type State struct {
	Kind             Kind
	Events           int64 // number of events folded
	T0               time.Time
	T0History        []time.Time // every value it ever had, in order
	KnownSince       time.Time   // since when the source of the signal knew; zero: it did not say
	Intake           time.Time   // when the signal came in
	Title, Summary   string
	Fields           map[string]Filled // what people wrote into the report
	Coordinator      string
	MemberStates     []string
	Measure          time.Time // the first corrective or mitigating measure
	MeasureNote      string
	MeasureWithdrawn bool
	Attempts         map[int64]Attempt
	Accepted         map[Stage]Submission
	Links            []string
	Escalated        map[Escalation]bool
	Overdue          map[Duty]bool
	Closed           bool
	Withdrawn        bool // closed because awareness was declared in error

	// What goes on beside the reports, each by itself.
	Users         Reach
	UsersInformed time.Time // the first time
	Dissemination Dissemination
	Upstream      []Upstream
	Hold          PublicationHold
	Requests      []Request
	Availability  []Outage
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
		Escalated: map[Escalation]bool{}, Overdue: map[Duty]bool{}, Users: ReachNone}
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
		s.KnownSince, s.Intake = d.KnownSince, d.Intake
		s.fill(e)
	case T0Corrected:
		s.T0, s.T0History = d.At, append(s.T0History, d.At)
	case Described:
		s.Title, s.Summary = d.Title, d.Summary
		delete(s.Fields, "title")
		delete(s.Fields, "summary")
	case FieldsFilled:
		s.fill(e)
	case MeasureAvailable:
		if s.Measure.IsZero() || d.At.Before(s.Measure) {
			s.Measure, s.MeasureNote = d.At, d.Note
		}
	case MeasureWithdrawn:
		s.MeasureWithdrawn = true
	case SubmissionAttempted:
		s.Attempts[e.Seq] = Attempt{Stage: d.Stage, At: d.At, Actor: e.Actor, Pack: d.Pack}
	case ReceiptStored:
		a := s.Attempts[d.Attempt]
		a.File = d.File
		s.Attempts[d.Attempt] = a
	case SubmissionFailed:
		s.finish(d.Attempt)
	case SubmissionAccepted:
		a := s.finish(d.Attempt)
		s.Accepted[a.Stage] = Submission{SubmittedAt: a.At, Receipt: d.Receipt, Submitter: a.Actor, Confirmer: e.Actor, File: a.File, Pack: a.Pack}
	case CoveredByEarlier:
		earlier := s.Accepted[before[d.Stage]]
		earlier.Confirmer, earlier.CoveredBy = e.Actor, before[d.Stage]
		s.Accepted[d.Stage] = earlier
	case Invalidated:
		delete(s.Accepted, d.Stage)
	case CoordinatorChanged:
		s.Coordinator = d.Coordinator
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
		if s.Users != ReachAll {
			s.Users = Reach(d.Audience)
		}
	case MitigationExpected:
		s.Dissemination.Expected, s.Dissemination.Ends = d.At, d.At.Add(expectedWithin)
	case PECInvoked:
		s.Dissemination.Ground, s.Dissemination.Invoked, s.Dissemination.Lost = d.Ground, d.At, time.Time{}
	case PECGroundLost:
		s.Dissemination.Lost = d.At
	case UpstreamReported:
		s.Upstream = append(s.Upstream, Upstream{Component: d.Component, At: d.At, Note: d.Note})
	case PublicationHeld:
		s.Hold = PublicationHold{Since: d.At, Until: d.Due, Reason: d.Note}
	case PublicationReleased:
		s.Hold.Released = d.At
	case PlatformOutage:
		s.Availability = append(s.Availability, Outage{From: d.At, Note: d.Note})
	case PlatformRestored:
		s.Availability[len(s.Availability)-1].Until = d.At
	case Linked:
		s.Links = append(s.Links, d.Case)
	case DeadlineSoon, DeadlineOverdue, DeadlineUnknown, SpreadingAssumed, HoldOver:
		s.Escalated[escalationOf(e)] = true
		if e.Kind == DeadlineOverdue {
			s.Overdue[Duty{d.Stage, d.Request}] = true
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
