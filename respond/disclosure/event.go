// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"net/url"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
)

// Status is how far a report has come.
type Status string

// The states of a report, in their order.
const (
	Received     Status = "received"
	Acknowledged Status = "acknowledged"
	Triaged      Status = "triaged"
	Confirmed    Status = "confirmed"
	Remediating  Status = "remediating"
	FixAvailable Status = "fix_available"
	Published    Status = "published"
	Closed       Status = "closed"
)

// Side is a state beside the main one; several may hold at once.
type Side string

// The side states.
const (
	Exploited       Side = "exploited"
	Embargoed       Side = "embargoed"
	UpstreamPending Side = "upstream_pending"
	Disputed        Side = "disputed"
)

// Verdict is the outcome of triage.
type Verdict string

// The verdicts of triage.
const (
	Valid           Verdict = "valid"
	Duplicate       Verdict = "duplicate"
	OutOfScope      Verdict = "out_of_scope"
	NotReproducible Verdict = "not_reproducible"
)

// EventKind names what happened to a report.
type EventKind string

// The kinds of events. The first of a report is always ReportReceived.
const (
	ReportReceived   EventKind = "report.received"
	FinderAdded      EventKind = "finder.added"
	ReportAck        EventKind = "report.acknowledged"
	ReportTriaged    EventKind = "report.triaged"
	ReportConfirmed  EventKind = "report.confirmed"
	RemediationBegun EventKind = "remediation.begun"
	FixReady         EventKind = "fix.available"
	ReportPublished  EventKind = "report.published"
	ReportClosed     EventKind = "report.closed"
	FinderTold       EventKind = "finder.told"
	SignalOpened     EventKind = "signal.opened"
	EmbargoSet       EventKind = "embargo.set"
	EmbargoEnded     EventKind = "embargo.ended"
	UpstreamOpened   EventKind = "upstream.opened"
	UpstreamClosed   EventKind = "upstream.closed"
	DisputeOpened    EventKind = "dispute.opened"
	DisputeSettled   EventKind = "dispute.settled"
	DateMoved        EventKind = "disclosure.date_moved"
	FinderErased     EventKind = "finder.erased"
	DeadlineSoon     EventKind = "deadline.soon"
	DeadlineOverdue  EventKind = "deadline.overdue"
)

// Author is what kind of somebody wrote an event.
type Author string

// The authors. A finder has no account; the platform writes only what follows from the events before.
const (
	ByFinder   Author = "finder"
	ByPerson   Author = "person"
	ByPlatform Author = "platform"
)

// authors says who may write which kind; a kind that is not listed is for people alone.
var authors = map[EventKind][]Author{
	ReportReceived: {ByFinder, ByPerson}, FinderAdded: {ByFinder, ByPerson},
	SignalOpened: {ByPlatform}, DeadlineSoon: {ByPlatform}, DeadlineOverdue: {ByPlatform},
}

// shownToFinder are the events whose note the finder reads behind the status link.
var shownToFinder = []EventKind{ReportAck, ReportTriaged, ReportConfirmed, FixReady, ReportPublished, ReportClosed, FinderTold, DisputeSettled, DateMoved}

// Data is what an event says besides its note; each kind needs its own part of it, see Check. It holds nothing personal
// of the finder and none of their words.
type Data struct {
	At            time.Time `json:"at,omitzero" doc:"When it happened in the world, with an offset; never in the future"`
	Channel       string    `json:"channel,omitempty" enum:"form,mail,phone,csirt" doc:"report.received: how it came"`
	Language      string    `json:"language,omitempty" maxLength:"35" doc:"report.received: of the finder"`
	Cipher        string    `json:"cipher,omitempty" enum:"pgp,age" doc:"What the finder's words are encrypted with"`
	Anonymous     bool      `json:"anonymous,omitempty"`
	Exploited     string    `json:"exploited,omitempty" enum:"yes,no,unknown" doc:"What the finder answered: have you seen it exploited?"`
	Product       string    `json:"product,omitempty" maxLength:"64"`
	Policy        int64     `json:"policy,omitempty" doc:"Version of the policy that the report came under"`
	Promise       *Promise  `json:"promise,omitempty" doc:"The times of that policy"`
	Verdict       Verdict   `json:"verdict,omitempty" enum:"valid,duplicate,out_of_scope,not_reproducible"`
	Of            string    `json:"of,omitempty" maxLength:"64" doc:"Of which report it is a duplicate"`
	Vulnerability string    `json:"vulnerability,omitempty" maxLength:"64" doc:"Such as a CVE number"`
	Release       string    `json:"release,omitempty" maxLength:"64" doc:"fix.available: the release that repairs it"`
	Advisory      string    `json:"advisory,omitempty" maxLength:"64" doc:"report.published: the advisory"`
	URL           string    `json:"url,omitempty" maxLength:"500" doc:"report.published: https: address of the advisory"`
	Due           time.Time `json:"due,omitzero" doc:"End of an embargo, new disclosure date, or the deadline escalated"`
	People        []string  `json:"people,omitempty" maxItems:"50" doc:"embargo.set: who may read, by id; the writer always may"`
	Component     string    `json:"component,omitempty" maxLength:"500" doc:"upstream.opened: which component, such as a purl"`
	Task          int64     `json:"task,omitempty" doc:"upstream.closed: number of the upstream.opened event"`
	Signal        string    `json:"signal,omitempty" maxLength:"64"`
	Timer         TimerName `json:"timer,omitempty" enum:"acknowledge,triage,status,disclosure,assess,embargo"`
}

// Event is one entry in the log of a report. Events are only ever appended.
type Event struct {
	Seq      int64     `json:"seq" doc:"1 is report.received"`
	Kind     EventKind `json:"kind"`
	Recorded time.Time `json:"recorded" doc:"When the platform stored it"`
	By       Author    `json:"by" enum:"finder,person,platform"`
	Actor    string    `json:"actor"`
	Note     string    `json:"note,omitempty" doc:"Sealed at rest. Of acknowledgement, triage, confirmation, fix, publication, close, dispute settled, date moved and finder.told the finder reads it"`
	Data     Data      `json:"data"`
}

// Embargo binds people inside the house. It never binds the CSIRT: what is exploited is reported (CRA Art. 14).
type Embargo struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	Ended time.Time `json:"ended,omitzero"`
	// People may read; nobody else, whatever their role.
	People []string `json:"people"`
}

// Task is the duty to tell the maker of a component (CRA Art. 13(6)).
type Task struct {
	Seq       int64     `json:"seq"`
	Component string    `json:"component"`
	Opened    time.Time `json:"opened"`
	Closed    time.Time `json:"closed,omitzero"`
}

// State is a report as its events make it. The zero State has no events.
type State struct {
	Events        int64
	Status        Status
	Received      time.Time
	Promise       Promise
	Product       string
	Exploited     string // the gravest answer that the finder gave
	ExploitedAt   time.Time
	Signal        string
	Acknowledged  time.Time
	Triaged       time.Time // first
	Verdict       Verdict
	Of            string
	Vulnerability string
	Fixed         time.Time
	Published     time.Time
	Advisory, URL string
	Closed        time.Time
	Told          time.Time // when the finder was last given something to read
	Disclosure    time.Time // agreed date; zero: the promise's
	Embargo       *Embargo
	Tasks         []Task
	Disputed      bool
	Erased        time.Time // the finder's identity
	Escalated     map[Escalation]bool
}

// Embargoed reports whether an embargo binds at the time now.
func (s State) Embargoed(now time.Time) bool {
	return s.Embargo != nil && s.Embargo.Ended.IsZero() && now.Before(s.Embargo.Until)
}

// May reports whether the person may read what the report says at the time now, the right to work on reports given.
func (s State) May(person string, now time.Time) bool {
	return !s.Embargoed(now) || slices.Contains(s.Embargo.People, person)
}

// Sides are the side states that hold at the time now.
func (s State) Sides(now time.Time) []Side {
	var out []Side
	if s.Exploited == "yes" {
		out = append(out, Exploited)
	}
	if s.Embargoed(now) {
		out = append(out, Embargoed)
	}
	if slices.ContainsFunc(s.Tasks, func(t Task) bool { return t.Closed.IsZero() }) {
		out = append(out, UpstreamPending)
	}
	if s.Disputed {
		out = append(out, Disputed)
	}
	return out
}

// Fold makes the state of a report from all its events in order.
func Fold(events []Event) State {
	s := State{Escalated: map[Escalation]bool{}}
	for _, e := range events {
		s.apply(e)
	}
	return s
}

func (s *State) apply(e Event) {
	s.Events++
	d := e.Data
	if slices.Contains(shownToFinder, e.Kind) {
		s.Told = e.Recorded
	}
	if d.Exploited == "yes" && s.Exploited != "yes" {
		s.ExploitedAt = e.Recorded
	}
	if d.Exploited == "yes" || s.Exploited == "" {
		s.Exploited = d.Exploited
	}
	if d.Product != "" {
		s.Product = d.Product
	}
	if d.Vulnerability != "" {
		s.Vulnerability = d.Vulnerability
	}
	switch e.Kind {
	case ReportReceived:
		s.Status, s.Received = Received, d.At
		if d.Promise != nil {
			s.Promise = *d.Promise
		}
	case ReportAck:
		s.Status, s.Acknowledged = Acknowledged, e.Recorded
	case ReportTriaged:
		s.Status, s.Verdict, s.Of = Triaged, d.Verdict, d.Of
		if s.Triaged.IsZero() {
			s.Triaged = e.Recorded
		}
	case ReportConfirmed:
		s.Status = Confirmed
	case RemediationBegun:
		s.Status = Remediating
	case FixReady:
		s.Status, s.Fixed = FixAvailable, d.At
	case ReportPublished:
		s.Status, s.Published, s.Advisory, s.URL = Published, d.At, d.Advisory, d.URL
	case ReportClosed:
		s.Status, s.Closed = Closed, e.Recorded
	case SignalOpened:
		s.Signal = d.Signal
	case EmbargoSet:
		since := e.Recorded
		if s.Embargo != nil && s.Embargo.Ended.IsZero() {
			since = s.Embargo.Since
		}
		s.Embargo = &Embargo{Since: since, Until: d.Due, People: d.People}
	case EmbargoEnded:
		ended := *s.Embargo
		ended.Ended = e.Recorded
		s.Embargo = &ended
	case UpstreamOpened:
		s.Tasks = append(slices.Clip(s.Tasks), Task{Seq: e.Seq, Component: d.Component, Opened: e.Recorded})
	case UpstreamClosed:
		s.Tasks = slices.Clone(s.Tasks)
		s.Tasks[s.task(d.Task)].Closed = d.At
	case DisputeOpened:
		s.Disputed = true
	case DisputeSettled:
		s.Disputed = false
	case DateMoved:
		s.Disclosure = d.Due
	case FinderErased:
		s.Erased = e.Recorded
	case DeadlineSoon, DeadlineOverdue:
		s.Escalated[Escalation{d.Timer, e.Kind, d.Due.UnixMilli()}] = true
	}
}

func (s State) task(seq int64) int {
	return slices.IndexFunc(s.Tasks, func(t Task) bool { return t.Seq == seq })
}

// Check says whether e may be appended to a report in state s at the time now; nil means yes.
func Check(s State, e Event, now time.Time) error {
	check := checks[e.Kind]
	may := authors[e.Kind]
	if may == nil {
		may = []Author{ByPerson}
	}
	switch {
	case check == nil:
		return problem.Invalid("There is no event %q.", e.Kind).At("kind")
	case s.Events == 0 && e.Kind != ReportReceived:
		return problem.Conflict("A report begins with being received.")
	case s.Events > 0 && e.Kind == ReportReceived:
		return problem.Conflict("The report was received already.")
	case !slices.Contains(may, e.By):
		return problem.Forbidden("disclosure.author", "%s is not for a %s to write.", e.Kind, e.By)
	case s.Status == Closed && !slices.Contains(afterClose, e.Kind):
		return problem.Forbidden("disclosure.closed", "The report is closed.")
	case e.Data.At.After(now):
		return problem.Invalid("%s lies in the future.", e.Data.At.Format(time.RFC3339)).At("at")
	case !text(e.Note, 0, 4000):
		return problem.Invalid("A note has at most 4000 characters of UTF-8.").At("note")
	case !slices.Contains([]string{"", "yes", "no", "unknown"}, e.Data.Exploited):
		return problem.Invalid("Say whether it was seen exploited: yes, no or unknown.").At("exploited")
	}
	if slices.Contains(shownToFinder, e.Kind) {
		if err := law.CheckClaim("note", e.Note); err != nil {
			return err
		}
	}
	return check(s, e, now)
}

// afterClose may still happen to a closed report: its finder may write again, and may be forgotten. An exploited report
// opens its signal at any time.
var afterClose = []EventKind{FinderAdded, FinderTold, FinderErased, SignalOpened}

// checks are the rules of each kind of event.
var checks = map[EventKind]func(s State, e Event, now time.Time) error{
	ReportReceived: func(_ State, e Event, _ time.Time) error {
		switch {
		case !slices.Contains([]string{"form", "mail", "phone", "csirt"}, e.Data.Channel):
			return problem.Invalid("A report comes by form, mail, phone or csirt.").At("channel")
		case e.Data.Promise == nil:
			return problem.Invalid("A report comes under a policy.")
		case e.Data.Exploited == "":
			return problem.Invalid("Say whether it was seen exploited: yes, no or unknown.").At("exploited")
		}
		return needsTime(e)
	},
	FinderAdded:      func(State, Event, time.Time) error { return nil },
	ReportAck:        from("what the finder is told", Received),
	ReportTriaged:    checkTriage,
	ReportConfirmed:  checkConfirm,
	RemediationBegun: from("", Confirmed),
	FixReady: func(s State, e Event, now time.Time) error {
		if err := needsTime(e); err != nil {
			return err
		}
		return from("what repairs it", Confirmed, Remediating)(s, e, now)
	},
	ReportPublished: checkPublish,
	ReportClosed:    checkClose,
	FinderTold: func(s State, e Event, _ time.Time) error {
		if s.Acknowledged.IsZero() {
			return problem.Conflict("Acknowledge the report first; that is the first answer.")
		}
		return needsNote(e, "what the finder is told")
	},
	SignalOpened: func(s State, e Event, _ time.Time) error {
		if s.Exploited != "yes" || s.Signal != "" || e.Data.Signal == "" {
			return problem.Conflict("Nothing asks for a signal.")
		}
		return nil
	},
	EmbargoSet: func(s State, e Event, now time.Time) error {
		switch {
		case s.Status == Published:
			return problem.Conflict("What is published cannot be kept back.")
		case !e.Data.Due.After(now):
			return problem.Invalid("An embargo has an end, and it lies ahead.").At("due")
		case e.Data.Due.After(now.Add(maxEmbargo)):
			return problem.Invalid("An embargo lasts at most %d days; set it again then.", maxEmbargo/day).At("due")
		case !slices.Contains(e.Data.People, e.Actor):
			return problem.Invalid("Who sets an embargo is on its list.").At("people")
		}
		return needsNote(e, "the parties and the reason")
	},
	EmbargoEnded: func(s State, e Event, now time.Time) error {
		if !s.Embargoed(now) {
			return problem.Conflict("No embargo binds.")
		}
		return needsNote(e, "why it ends")
	},
	UpstreamOpened: func(_ State, e Event, _ time.Time) error {
		if !text(e.Data.Component, 1, 500) {
			return problem.Invalid("Name the component.").At("component")
		}
		return nil
	},
	UpstreamClosed: func(s State, e Event, _ time.Time) error {
		i := s.task(e.Data.Task)
		switch {
		case i < 0:
			return problem.Invalid("Event %d opened no task.", e.Data.Task).At("task")
		case !s.Tasks[i].Closed.IsZero():
			return problem.Conflict("That task is closed.")
		}
		if err := needsTime(e); err != nil {
			return err
		}
		return needsNote(e, "the evidence: who was told, and their ticket or answer")
	},
	DisputeOpened: func(s State, e Event, _ time.Time) error {
		if s.Disputed || s.Triaged.IsZero() {
			return problem.Conflict("There is nothing to dispute.")
		}
		return needsNote(e, "what is disputed")
	},
	DisputeSettled: func(s State, e Event, _ time.Time) error {
		if !s.Disputed {
			return problem.Conflict("Nothing is disputed.")
		}
		return needsNote(e, "how it was settled")
	},
	DateMoved: func(s State, e Event, now time.Time) error {
		switch {
		case !s.Published.IsZero():
			return problem.Conflict("It is published already.")
		case !e.Data.Due.After(now) || e.Data.Due.After(s.Received.AddDate(1, 0, 0)):
			return problem.Invalid("The new date lies ahead, and at most a year after the report came.").At("due")
		}
		return needsNote(e, "what was agreed with the finder, and why")
	},
	FinderErased: func(s State, e Event, _ time.Time) error {
		if !s.Erased.IsZero() {
			return problem.Conflict("The finder's identity is erased already.")
		}
		return needsNote(e, "on whose wish")
	},
	DeadlineSoon:    checkEscalation,
	DeadlineOverdue: checkEscalation,
}

// from lets an event in when the report has one of these states; with what, it needs a note that says it.
func from(what string, states ...Status) func(State, Event, time.Time) error {
	return func(s State, e Event, _ time.Time) error {
		if !slices.Contains(states, s.Status) {
			return problem.Conflict("The report is %s; %s comes elsewhere.", s.Status, e.Kind)
		}
		return needsNote(e, what)
	}
}

func checkTriage(s State, e Event, _ time.Time) error {
	switch {
	case s.Acknowledged.IsZero():
		return problem.Conflict("Acknowledge the report first.")
	case !s.Published.IsZero():
		return problem.Conflict("It is published already.")
	case !slices.Contains([]Verdict{Valid, Duplicate, OutOfScope, NotReproducible}, e.Data.Verdict):
		return problem.Invalid("A verdict is valid, duplicate, out_of_scope or not_reproducible.").At("verdict")
	case (e.Data.Verdict == Duplicate) != (e.Data.Of != ""):
		return problem.Invalid("A duplicate names the report that it repeats, and only a duplicate does.").At("of")
	}
	return needsNote(e, "the reason")
}

func checkConfirm(s State, e Event, _ time.Time) error {
	switch {
	case s.Status != Triaged || s.Verdict != Valid:
		return problem.Conflict("Only what was triaged as valid is confirmed.")
	case s.Product == "" && e.Data.Product == "":
		return problem.Invalid("Name the product.").At("product")
	}
	return needsNote(e, "what was confirmed")
}

func checkPublish(s State, e Event, now time.Time) error {
	switch {
	case !slices.Contains([]Status{Confirmed, Remediating, FixAvailable}, s.Status):
		return problem.Conflict("The report is %s; only what is confirmed is published.", s.Status)
	case s.Embargoed(now):
		return problem.Forbidden("disclosure.embargo", "An embargo binds until %s.", s.Embargo.Until.Format(time.RFC3339)).Hint("End it first, with the agreement of its parties.")
	}
	if u, err := url.Parse(e.Data.URL); err != nil || u.Scheme != "https" || u.Host == "" {
		return problem.Invalid("A publication has an advisory, or the https: address of one.").At("url")
	}
	if err := needsTime(e); err != nil {
		return err
	}
	return needsNote(e, "what the finder is told, and the credit")
}

func checkClose(s State, e Event, now time.Time) error {
	sides := s.Sides(now)
	switch {
	case s.Triaged.IsZero():
		return problem.Forbidden("disclosure.open-duty", "Nothing is closed before triage.")
	case s.Verdict == Valid && s.Published.IsZero():
		return problem.Forbidden("disclosure.open-duty", "A valid report ends with a public advisory.").Hint("If it is not valid after all, triage it again.")
	case slices.Contains(sides, UpstreamPending):
		return problem.Forbidden("disclosure.upstream", "The maker of a component is still to be told (CRA Art. 13(6)).")
	case slices.Contains(sides, Disputed):
		return problem.Forbidden("disclosure.disputed", "A dispute is open.")
	case slices.Contains(sides, Exploited) && s.Signal == "":
		return problem.Forbidden("disclosure.exploited", "The finder saw it exploited and nobody assesses that yet.").Hint("Answer the finder first: whatever is recorded opens the signal.")
	}
	return needsNote(e, "why it is closed")
}

// checkEscalation lets an escalation in once, and only for a timer that runs and has that instant.
func checkEscalation(s State, e Event, now time.Time) error {
	esc := Escalation{e.Data.Timer, e.Kind, e.Data.Due.UnixMilli()}
	if !s.Escalated[esc] && slices.Contains(Escalations(s), esc) && !now.Before(e.Data.Due) {
		return nil
	}
	return problem.Conflict("No timer %s has come that far.", e.Data.Timer)
}

func needsTime(e Event) error {
	if e.Data.At.IsZero() {
		return problem.Invalid("Say when it happened, with an offset from UTC.").At("at")
	}
	return nil
}

func needsNote(e Event, what string) error {
	if what != "" && !text(e.Note, 1, 4000) {
		return problem.Invalid("Say in a note %s.", what).At("note")
	}
	return nil
}

func text(s string, least, most int) bool {
	n := utf8.RuneCountInString(s)
	return utf8.ValidString(s) && n >= least && n <= most
}
