// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"slices"
	"time"

	"github.com/openthings-platform/openthings/store"
)

// Escalation is an alarm that must be written once: at its instant (ms since 1970 UTC), if the duty is still open.
type Escalation struct {
	Stage   Stage     `json:"stage"`
	Level   EventKind `json:"level"`
	At      int64     `json:"at"`
	Request int64     `json:"request,omitempty"` // of an intermediate report: the event that asked for it
}

// Duty is one thing that is owed by a deadline.
type Duty struct {
	Stage   Stage
	Request int64
}

func escalationOf(e Event) Escalation {
	return Escalation{Stage: e.Data.Stage, Level: e.Kind, At: e.Data.At.UnixMilli(), Request: e.Data.Request}
}

// Duty is what the alarm is about.
func (e Escalation) Duty() Duty { return Duty{e.Stage, e.Request} }

// TopicDutyEnded is announced when a duty needs nobody any more: it is met, or its case is closed.
const TopicDutyEnded = "case.duty_ended"

// DutyEnded is the data of TopicDutyEnded.
type DutyEnded struct {
	Stage   Stage `json:"stage"`
	Request int64 `json:"request,omitempty"` // of an intermediate report: the event that asked for it
}

// ended are the duties whose clock ran before and runs no more.
func ended(was, is []Deadline) (out []Duty) {
	for _, d := range was {
		if d.Running() && !slices.ContainsFunc(is, func(now Deadline) bool { return now.Duty() == d.Duty() && now.Running() }) {
			out = append(out, d.Duty())
		}
	}
	return out
}

// announceEnded announces the duties that the last event of a case ended.
func (s *Service) announceEnded(tx *store.Tx, f file, was State, limits Targets) error {
	is := f.state()
	var now []Deadline
	if !is.Closed {
		now = Clocks(is, is.Zone(), limits)
	}
	for _, d := range ended(Clocks(was, was.Zone(), limits), now) {
		if err := s.cfg.DB.Emit(tx, TopicDutyEnded, f.Tenant, f.ID, DutyEnded{d.Stage, d.Request}); err != nil {
			return err
		}
	}
	return nil
}

// due reports whether e is among the alarms that are still set.
func (e Escalation) due(set []Escalation) bool { return slices.Contains(set, e) }

// nagEvery is how often a final report without an anchor is called to mind; an intermediate report is possible meanwhile.
const nagEvery = 7 * 24 * time.Hour

// Escalations lists the alarms of a case: soon at WorkBy and overdue at Due for each clock that runs, the next weekly
// reminder where the notification was accepted and the final report has no anchor yet, the end of the 72 hours in which a
// measure was expected, and that of a hold on publication.
func Escalations(s State, ds []Deadline) []Escalation {
	var es []Escalation
	for _, d := range ds {
		if n, ok := s.Accepted[Notification]; ok && d.Undetermined != "" {
			at := n.SubmittedAt.Add(nagEvery)
			for s.Escalated[Escalation{Stage: d.Stage, Level: DeadlineUnknown, At: at.UnixMilli()}] {
				at = at.Add(nagEvery)
			}
			es = append(es, Escalation{Stage: d.Stage, Level: DeadlineUnknown, At: at.UnixMilli()})
		}
		if !d.Running() {
			continue
		}
		if d.WorkBy.Before(d.Due) {
			es = append(es, Escalation{Stage: d.Stage, Level: DeadlineSoon, At: d.WorkBy.UnixMilli(), Request: d.Request})
		}
		es = append(es, Escalation{Stage: d.Stage, Level: DeadlineOverdue, At: d.Due.UnixMilli(), Request: d.Request})
	}
	if ends := s.Dissemination.Ends; !ends.IsZero() {
		es = append(es, Escalation{Stage: Spreading, Level: SpreadingAssumed, At: ends.UnixMilli()})
	}
	if !s.Hold.Since.IsZero() && s.Hold.Released.IsZero() {
		es = append(es, Escalation{Stage: Publication, Level: HoldOver, At: s.Hold.Until.UnixMilli()})
	}
	return es
}
