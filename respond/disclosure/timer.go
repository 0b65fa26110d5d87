// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"time"
	_ "time/tzdata" // zones are ours, not the machine's

	"github.com/openthings-platform/openthings/problem"
)

const (
	day        = 24 * time.Hour
	maxEmbargo = 180 * day
)

// Promise is what a policy says of time. The numbers are defaults of good practice, not law; a manufacturer may promise
// less time for its own answers, never more.
type Promise struct {
	Acknowledge int64  `json:"acknowledge_working_days" minimum:"1" maximum:"2" doc:"Working days until a person has answered"`
	Triage      int64  `json:"triage_days" minimum:"1" maximum:"7" doc:"Days until the finder knows the verdict"`
	Status      int64  `json:"status_days" minimum:"1" maximum:"14" doc:"Days between two answers, at most"`
	Disclosure  int64  `json:"disclosure_days" minimum:"30" maximum:"180" doc:"Days until the vulnerability is made public, unless agreed otherwise"`
	Zone        string `json:"zone" maxLength:"64" doc:"Where working days are counted, such as Europe/Berlin"`
}

// DefaultPromise holds while a manufacturer promises nothing else.
var DefaultPromise = Promise{Acknowledge: 2, Triage: 7, Status: 14, Disclosure: 90, Zone: "UTC"}

func (p Promise) check() error {
	for _, n := range []struct {
		at          string
		v, from, to int64
	}{
		{"acknowledge_working_days", p.Acknowledge, 1, DefaultPromise.Acknowledge}, {"triage_days", p.Triage, 1, DefaultPromise.Triage},
		{"status_days", p.Status, 1, DefaultPromise.Status}, {"disclosure_days", p.Disclosure, 30, 180},
	} {
		if n.v < n.from || n.v > n.to {
			return problem.Invalid("%d is not between %d and %d.", n.v, n.from, n.to).At(n.at)
		}
	}
	if _, err := time.LoadLocation(p.Zone); err != nil || p.Zone == "" || p.Zone == "Local" {
		return problem.Invalid("%q is not a time zone.", p.Zone).At("zone")
	}
	return nil
}

func (p Promise) location() *time.Location {
	l, err := time.LoadLocation(p.Zone)
	if err != nil {
		return time.UTC
	}
	return l
}

// TimerName names one of the clocks of a report.
type TimerName string

// The timers. Assess runs where a finder saw it exploited and no signal is open, as in reports of the time when a signal
// had to name a product; whatever is recorded next opens it.
const (
	TimerAcknowledge TimerName = "acknowledge"
	TimerTriage      TimerName = "triage"
	TimerStatus      TimerName = "status"
	TimerDisclosure  TimerName = "disclosure"
	TimerAssess      TimerName = "assess"
	TimerEmbargo     TimerName = "embargo"
)

// Timer is a promise to the finder, or an end to think of. It is no legal clock: those are of cases.
type Timer struct {
	Name   TimerName `json:"name"`
	Anchor time.Time `json:"anchor"`
	Due    time.Time `json:"due"`
	Met    time.Time `json:"met,omitzero"`
}

// Running reports whether the timer waits for somebody.
func (t Timer) Running() bool { return t.Met.IsZero() }

// ahead is how long before its end people are reminded of a timer.
var ahead = map[TimerName]time.Duration{TimerAcknowledge: 8 * time.Hour, TimerTriage: day, TimerStatus: 2 * day, TimerDisclosure: 14 * day, TimerEmbargo: 7 * day}

// Timers are the clocks of a report, computed from its events alone.
func Timers(s State) []Timer {
	if s.Events == 0 {
		return nil
	}
	p, ended := s.Promise, s.Closed
	first := func(ts ...time.Time) (out time.Time) {
		for _, t := range ts {
			if out.IsZero() || (!t.IsZero() && t.Before(out)) {
				out = t
			}
		}
		return out
	}
	out := []Timer{
		{TimerAcknowledge, s.Received, workingDays(s.Received, p.Acknowledge, p.location()), first(s.Acknowledged, ended)},
		{TimerTriage, s.Received, s.Received.Add(time.Duration(p.Triage) * day), first(s.Triaged, ended)},
	}
	if !s.Told.IsZero() && ended.IsZero() {
		out = append(out, Timer{Name: TimerStatus, Anchor: s.Told, Due: s.Told.Add(time.Duration(p.Status) * day)})
	}
	if s.Verdict == "" || s.Verdict == Valid {
		due := s.Disclosure
		if due.IsZero() {
			due = s.Received.Add(time.Duration(p.Disclosure) * day)
		}
		out = append(out, Timer{TimerDisclosure, s.Received, due, first(s.Published, ended)})
	}
	if s.Exploited == "yes" && s.Signal == "" {
		out = append(out, Timer{Name: TimerAssess, Anchor: s.ExploitedAt, Due: s.ExploitedAt})
	}
	if e := s.Embargo; e != nil {
		out = append(out, Timer{TimerEmbargo, e.Since, e.Until, first(e.Ended, ended)})
	}
	return out
}

// Next is the running timer that ends first.
func Next(ts []Timer) (next Timer, ok bool) {
	for _, t := range ts {
		if t.Running() && (!ok || t.Due.Before(next.Due)) {
			next, ok = t, true
		}
	}
	return next, ok
}

// workingDays adds n days from Monday to Friday in the zone. Public holidays count as working days, since their calendars
// differ and none may loosen an alarm. What comes on a weekend counts from Monday at midnight.
func workingDays(from time.Time, n int64, zone *time.Location) time.Time {
	free := func(t time.Time) bool { return t.Weekday() == time.Saturday || t.Weekday() == time.Sunday }
	t := from.In(zone)
	for free(t) {
		t = time.Date(t.Year(), t.Month(), t.Day()+1, 0, 0, 0, 0, zone)
	}
	for n > 0 {
		if t = t.AddDate(0, 0, 1); !free(t) {
			n--
		}
	}
	return t.UTC()
}

// Escalation is an alarm that must be written once: at its instant (ms since 1970 UTC), if the timer still runs then.
type Escalation struct {
	Timer TimerName `json:"timer"`
	Level EventKind `json:"level"`
	At    int64     `json:"at"`
}

// Escalations lists the alarms of a report, in the future and in the past: soon, and overdue, of each timer that runs.
func Escalations(s State) []Escalation {
	var es []Escalation
	for _, t := range Timers(s) {
		if !t.Running() {
			continue
		}
		if soon := t.Due.Add(-ahead[t.Name]); soon.After(t.Anchor) && soon.Before(t.Due) {
			es = append(es, Escalation{t.Name, DeadlineSoon, soon.UnixMilli()})
		}
		es = append(es, Escalation{t.Name, DeadlineOverdue, t.Due.UnixMilli()})
	}
	return es
}
