// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"slices"
	"time"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
)

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
	case !text(e.Data.Note, 0, 4000), !text(e.Data.Title, 0, 255), !text(e.Data.Summary, 0, 4000), !text(e.Data.Receipt, 0, 255), !text(e.Data.Deviation, 0, 4000):
		return problem.Invalid("A text is too long or not UTF-8.")
	case e.Data.Campaign != "" && (e.Kind != UsersInformed || !text(e.Data.Campaign, 1, 64)):
		return problem.Invalid("Only users.informed names a campaign.").At("campaign")
	}
	if err := law.CheckClaims(map[string]string{"title": e.Data.Title, "summary": e.Data.Summary}); err != nil {
		return err
	}
	if err := law.CheckClaims(e.Data.Fields); err != nil {
		return err
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
var reportEvents = []EventKind{T0Corrected, Described, FieldsFilled, MeasureAvailable, MeasureWithdrawn, SubmissionAttempted, SubmissionFailed,
	SubmissionAccepted, CoveredByEarlier, CoordinatorChanged, MemberStatesChanged, MitigationExpected, PECInvoked}

// checks are the rules of each kind of event.
var checks = map[EventKind]func(State, Event) error{
	T0Set: func(s State, e Event) error {
		if err := checkCountries(e.Data, true); err != nil {
			return err
		}
		if !text(e.Data.Title, 1, 255) {
			return problem.Invalid("A title of at most 255 characters is needed.").At("title")
		}
		if len(e.Data.Fields) > 0 {
			if err := checkFilled(s, e); err != nil {
				return err
			}
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
	FieldsFilled: checkFilled,
	ReceiptStored: func(s State, e Event) error {
		if _, ok := s.Attempts[e.Data.Attempt]; !ok {
			return problem.Invalid("Event %d is not an attempt to submit.", e.Data.Attempt).At("attempt")
		}
		if e.Data.File == "" || len(e.Data.SHA256) != 64 {
			return problem.Forbidden("respond.receipt", "A receipt is stored by uploading its file.").At("file")
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
	CoveredByEarlier:  checkCovered,
	CoordinatorChanged: func(s State, e Event) error {
		switch _, ok := law.State(e.Data.Coordinator); {
		case !ok:
			return problem.Invalid("%q is not the code of a Member State.", e.Data.Coordinator).At("coordinator")
		case e.Data.Coordinator == s.Coordinator:
			return problem.Conflict("%s is the coordinator's Member State already.", s.Coordinator).At("coordinator")
		case len(s.Accepted) > 0:
			return problem.Forbidden("respond.coordinator", "The CSIRT of %s has accepted a report.", s.Coordinator).
				Hint("Record first that it was invalidated; its clock goes on as before.")
		}
		return needs(e, false, "why another CSIRT is the coordinator (CRA Art. 14(7))")
	},
	MitigationExpected: func(s State, e Event) error {
		switch {
		case !s.Dissemination.Expected.IsZero():
			return problem.Conflict("It was filed at %s; its 72 hours run from then.", s.Dissemination.Expected.Format(time.RFC3339))
		case !s.Measure.IsZero():
			return problem.Conflict("A measure is available; none is expected any more.")
		case e.Data.At.Before(s.T0):
			return problem.Invalid("It cannot have been filed before awareness.").At("at")
		}
		return needs(e, true, "which measure is expected within 72 hours")
	},
	PECInvoked: checkPEC,
	PECGroundLost: func(s State, e Event) error {
		switch d := s.Dissemination; {
		case d.Invoked.IsZero() || !d.Lost.IsZero():
			return problem.Conflict("No exceptional circumstances are claimed.")
		case e.Data.At.Before(d.Invoked):
			return problem.Invalid("The ground cannot be lost before it was claimed.").At("at")
		}
		return needs(e, true, "why the ground no longer holds, and that the CSIRT was told")
	},
	UpstreamReported: func(_ State, e Event) error {
		if !text(e.Data.Component, 1, 255) {
			return problem.Invalid("Name the component in at most 255 characters.").At("component")
		}
		return needs(e, true, "who was told, and how")
	},
	PublicationHeld: func(_ State, e Event) error {
		if !e.Data.Due.After(e.Data.At) {
			return problem.Invalid("A hold ends on a day after it began.").At("due")
		}
		return needs(e, true, "why publication is held back (CRA Annex I Part II (4))")
	},
	PublicationReleased: func(s State, e Event) error {
		switch {
		case s.Hold.Since.IsZero() || !s.Hold.Released.IsZero():
			return problem.Conflict("Publication is not held back.")
		case e.Data.At.Before(s.Hold.Since):
			return problem.Invalid("A hold cannot end before it began.").At("at")
		}
		return needs(e, true, "why it is released")
	},
	PlatformOutage: func(s State, e Event) error {
		if o, on := s.outage(); on {
			return problem.Conflict("An outage is on record since %s.", o.From.Format(time.RFC3339))
		}
		return needs(e, true, "what was tried and what was seen; it pauses no clock")
	},
	PlatformRestored: func(s State, e Event) error {
		o, on := s.outage()
		switch {
		case !on:
			return problem.Conflict("No outage is on record.")
		case e.Data.At.Before(o.From):
			return problem.Invalid("An outage cannot end before it began.").At("at")
		}
		return needs(e, true, "")
	},
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
		if slices.ContainsFunc(s.Requests, func(q Request) bool { return q.Answered.IsZero() }) {
			return problem.Forbidden("respond.open-duty", "An intermediate report is still owed.")
		}
		return needs(e, false, "why it is closed")
	},
	Withdrawn: func(s State, e Event) error {
		if len(s.Accepted) > 0 {
			return problem.Forbidden("respond.submitted", "A report was submitted; the case is ended by its final report.")
		}
		return needs(e, false, "why nobody was aware of anything after all")
	},
	DeadlineSoon:     checkEscalation,
	DeadlineOverdue:  checkEscalation,
	DeadlineUnknown:  checkEscalation,
	SpreadingAssumed: checkEscalation,
	HoldOver:         checkEscalation,
}

func checkT0(e Event, what string) error {
	if r, ok := law.Get("cra.14.1"); ok && !e.Data.At.IsZero() && !r.Applies(e.Data.At) {
		return problem.Invalid("%s applies from %s; awareness before that day opens no clock.", r.Ref, r.From).At("at").
			Hint("Record the verdict negative with the reason %s.", KnownBefore)
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
	case !text(e.Data.Receipt, 1, 255) && a.File == "":
		return problem.Forbidden("respond.receipt", "A submission counts only with the receipt of the reporting platform.").At("receipt")
	case e.Actor == a.Actor:
		return problem.Forbidden("respond.second-person", "A second person confirms the receipt.").
			Hint("Ask a colleague to compare the receipt with the reporting platform.")
	}
	// The attempt was legal when it was made; another may have been accepted or invalidated since.
	return checkAttempt(s, Event{Kind: SubmissionAttempted, Actor: a.Actor, Person: true, Data: Data{Stage: a.Stage, At: a.At}})
}

// checkCovered lets a notification or a final report be covered by the one before it: the law asks for each "unless the
// relevant information has already been provided". A second person says so, as one would confirm a receipt.
func checkCovered(s State, e Event) error {
	first, ok := before[e.Data.Stage]
	sub, has := s.Accepted[first]
	switch {
	case !ok:
		return problem.Invalid("Only a notification or a final report can be covered by an earlier report.").At("stage")
	case s.has(e.Data.Stage):
		return problem.Conflict("The %s was accepted already.", e.Data.Stage)
	case !has:
		return problem.Forbidden("respond.order", "The %s comes after an accepted %s.", e.Data.Stage, first)
	case e.Data.Stage == Final && s.Kind == AEV && s.Measure.IsZero():
		return problem.Forbidden("respond.anchor", "A final report says which measure is available; none is on record.")
	case e.Actor == sub.Submitter:
		return problem.Forbidden("respond.second-person", "A second person says that the %s held everything.", first)
	}
	return needs(e, false, "where the earlier report says what this one would")
}

// checkPEC lets exceptional circumstances in where the law and the reporting platform ask for them: in the 72-hour
// notification of an exploited vulnerability, with one of three grounds.
func checkPEC(s State, e Event) error {
	switch {
	case s.Kind != AEV:
		return problem.Forbidden("respond.pec", "Exceptional circumstances (CRA Art. 16(2)) concern exploited vulnerabilities, not incidents.")
	case !s.has(EarlyWarning) || s.has(Notification):
		return problem.Forbidden("respond.pec", "Exceptional circumstances are claimed in the 72-hour notification: after the early warning was accepted and before the notification was.")
	case !slices.ContainsFunc(Grounds, func(g groundText) bool { return g.Ground == e.Data.Ground }):
		return problem.Invalid("Name one of the three grounds of CRA Art. 16(2).").At("ground")
	case !s.Dissemination.Invoked.IsZero() && s.Dissemination.Lost.IsZero():
		return problem.Conflict("Exceptional circumstances are claimed already.")
	case e.Data.At.Before(s.Accepted[EarlyWarning].SubmittedAt):
		return problem.Invalid("They cannot have been claimed before the early warning.").At("at")
	case !text(e.Data.Note, 1, 800):
		return problem.Invalid("Say in at most 800 characters what speaks for the ground.").At("note")
	}
	return needs(e, true, "")
}

// checkEscalation lets an escalation in once, and only for what runs and has come that far.
func checkEscalation(s State, e Event) error {
	esc := escalationOf(e)
	if s.Escalated[esc] {
		return problem.Conflict("That escalation is on record.")
	}
	ds := Clocks(s, s.Zone(), Targets{})
	if e.Kind != DeadlineSoon && e.Data.Stage != Users {
		if !esc.due(Escalations(s, ds)) {
			return problem.Conflict("Nothing of %s has come that far.", esc.Stage)
		}
		return nil
	}
	// How much earlier than the law's limit is the house's own choice.
	for _, d := range ds {
		if due := d.Due.UnixMilli(); d.Duty() == esc.Duty() && d.Running() && (esc.At < due || d.Stage == Users && esc.At == due) {
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
