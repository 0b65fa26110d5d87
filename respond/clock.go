// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"time"
)

// Stage is one duty of a case that has a deadline.
type Stage string

// The stages. Users has no limit in hours in the law; its deadline is the house's own.
const (
	EarlyWarning Stage = "early_warning"
	Notification Stage = "notification"
	Final        Stage = "final"
	Intermediate Stage = "intermediate" // only on request of the CSIRT
	Users        Stage = "users"
)

// What runs out beside the duties of a case: see Escalations.
const (
	Spreading   Stage = "dissemination"
	Publication Stage = "publication"
)

// Deadline is one clock of a case, recomputed from its events each time it is asked for.
//
// Due is what alarms are set to: the strictest reading. NominalEnd is the end by Regulation 1182/71 Article 3(1)-(2),
// ReliefEnd by Article 3(4); both are information only, and neither is ever earlier than Due.
type Deadline struct {
	Stage      Stage     `json:"stage"`
	Request    int64     `json:"request,omitempty" doc:"Of an intermediate report: the event that asked for it"`
	Rules      []string  `json:"rules" doc:"Ids of the rules in force; see /v1/law"`
	Anchor     time.Time `json:"anchor,omitzero" doc:"The instant that the clock counts from"`
	AnchorKind string    `json:"anchor_kind" doc:"t0, measure, notification or request"`
	Due        time.Time `json:"due,omitzero" doc:"Strict end; alarms use it"`
	NominalEnd time.Time `json:"nominal_end,omitzero" doc:"End by Reg. 1182/71 Art. 3(1)-(2); information only"`
	ReliefEnd  time.Time `json:"relief_end,omitzero" doc:"End by Reg. 1182/71 Art. 3(4), weekends only; information only"`
	Counter    time.Time `json:"counter,omitzero" doc:"What the reporting platform's own counter shows"`
	WorkBy     time.Time `json:"work_by,omitzero" doc:"The earliest of Due, Counter and the house's target"`
	Zone       string    `json:"zone" doc:"Zone in which days and months are counted"`

	Undetermined string    `json:"undetermined,omitempty" doc:"Why there is no date yet"`
	Note         string    `json:"note,omitempty"`
	Met          time.Time `json:"met,omitzero" doc:"When the duty was done, by an accepted submission"`
	Late         bool      `json:"late,omitempty" doc:"Done after Due"`
	WasOverdue   bool      `json:"was_overdue,omitempty" doc:"An overdue escalation is on record; later corrections do not remove it"`
}

// Running reports whether the clock has a date and the duty is not done.
func (d Deadline) Running() bool { return d.Met.IsZero() && !d.Due.IsZero() }

// Duty is what the clock is about.
func (d Deadline) Duty() Duty { return Duty{d.Stage, d.Request} }

const (
	earlyWarningPeriod = 24 * time.Hour
	notificationPeriod = 72 * time.Hour
	finalDays          = 14
)

// Clocks computes every deadline of a case from its state: early warning, notification, final report, users, and each
// intermediate report that a CSIRT asked for. zone is that of the coordinator's Member State.
func Clocks(s State, zone *time.Location, targets Targets) []Deadline {
	targets = targets.filled()
	ds := []Deadline{
		earlyWarning(s, zone, targets), notification(s, zone, targets), final(s, zone, targets), users(s, zone, targets),
	}
	for _, q := range s.Requests {
		ds = append(ds, Deadline{Stage: Intermediate, Request: q.Seq, Rules: []string{"cra.14.6"}, Anchor: q.At, AnchorKind: "request",
			Due: q.Due, WorkBy: q.Due, Zone: zone.String(), Met: q.Answered, Note: q.Text})
	}
	for i := range ds {
		d := &ds[i]
		if sub, ok := s.Accepted[d.Stage]; ok {
			d.Met = sub.SubmittedAt
		}
		d.Late = !d.Met.IsZero() && !d.Due.IsZero() && d.Met.After(d.Due)
		d.WasOverdue = s.Overdue[d.Duty()]
	}
	return ds
}

// Next is the running clock that must be worked on first.
func Next(ds []Deadline) (Deadline, bool) {
	var next Deadline
	for _, d := range ds {
		if d.Running() && (next.Due.IsZero() || d.WorkBy.Before(next.WorkBy)) {
			next = d
		}
	}
	return next, !next.Due.IsZero()
}

func earlyWarning(s State, zone *time.Location, t Targets) Deadline {
	d := hours(s.T0, earlyWarningPeriod, zone)
	d.Stage, d.Rules = EarlyWarning, []string{pick(s.Kind, "cra.14.2.a", "cra.14.4.a"), "time.3.1"}
	d.WorkBy = earliest(d.Due, s.T0.Add(hoursOf(t.EarlyWarningHours)))
	return d
}

func notification(s State, zone *time.Location, t Targets) Deadline {
	d := hours(s.T0, notificationPeriod, zone)
	d.Stage, d.Rules = Notification, []string{pick(s.Kind, "cra.14.2.b", "cra.14.4.b"), "time.3.1", "srp.q26"}
	d.WorkBy = earliest(d.Due, s.T0.Add(hoursOf(t.NotificationHours)))
	if ew, ok := s.Accepted[EarlyWarning]; ok {
		d.Counter = ew.SubmittedAt.Add(notificationPeriod - earlyWarningPeriod)
		d.WorkBy = earliest(d.WorkBy, d.Counter)
	}
	return d
}

// final is the clock that the field gets wrong most often. For a vulnerability it runs from the first corrective or
// mitigating measure, so a workaround starts it; for an incident from the submission of its notification, one
// calendar month and not thirty days.
func final(s State, zone *time.Location, t Targets) Deadline {
	if s.Kind == AEV {
		d := Deadline{Stage: Final, AnchorKind: "measure", Rules: []string{"cra.14.2.c", "time.3.2", "time.3.4"}, Zone: zone.String()}
		if s.Measure.IsZero() {
			d.Undetermined = "no corrective or mitigating measure is available yet; an intermediate report is possible"
			return d
		}
		d.Anchor = s.Measure
		switch {
		case s.Measure.Before(s.T0):
			d.Anchor = s.T0
			d.Note = "the measure was available before awareness, so this clock counts from T0"
		case s.MeasureWithdrawn:
			d.Note = "a measure was withdrawn later; the anchor stays"
		}
		d.Due = earliest(d.Anchor.Add(finalDays*24*time.Hour), sameWallClock(d.Anchor, zone, 0, finalDays))
		d.NominalEnd = endOfDay(d.Anchor, zone, 0, finalDays)
		d.ReliefEnd = workingDay(d.NominalEnd, zone)
		d.WorkBy = earliest(d.Due, d.Anchor.Add(hoursOf(24*t.FinalDays)))
		return d
	}
	d := Deadline{Stage: Final, AnchorKind: "notification", Rules: []string{"cra.14.4.c", "time.3.2", "time.3.4"}, Zone: zone.String()}
	n, ok := s.Accepted[Notification]
	if !ok {
		d.Undetermined = "the incident notification has not been submitted; an intermediate report is possible"
		return d
	}
	d.Anchor = n.SubmittedAt
	d.Due = earliest(sameWallClock(n.SubmittedAt, time.UTC, 1, 0), sameWallClock(n.SubmittedAt, zone, 1, 0))
	d.NominalEnd = endOfDay(n.SubmittedAt, zone, 1, 0)
	d.ReliefEnd = workingDay(d.NominalEnd, zone)
	d.WorkBy = earliest(d.Due, n.SubmittedAt.Add(hoursOf(24*t.FinalDays)))
	return d
}

func users(s State, zone *time.Location, t Targets) Deadline {
	due := s.T0.Add(hoursOf(t.UsersHours))
	return Deadline{Stage: Users, Rules: []string{"cra.14.8"}, Anchor: s.T0, AnchorKind: "t0", Due: due, WorkBy: due, Zone: zone.String(),
		Met: s.UsersInformed, Note: "the law says in a timely manner; this limit is the house's own"}
}

// hours counts a period in hours. Due counts elapsed time, so that the hour which October repeats cannot make it late;
// the nominal end leaves out the hour of the event (Reg. 1182/71 Art. 3(1)). Periods in hours are never moved to a
// working day here: some read Art. 3(5) so for 72 hours, and relying on it would be a gamble.
func hours(anchor time.Time, period time.Duration, zone *time.Location) Deadline {
	return Deadline{Anchor: anchor, AnchorKind: "t0", Due: anchor.Add(period), Zone: zone.String(),
		NominalEnd: anchor.Truncate(time.Hour).Add(time.Hour + period)} // every zone of the Union is whole hours off UTC
}

// shift is the calendar day that lies months and days after t's day in zone, clamped to the last day of its month.
func shift(t time.Time, zone *time.Location, months, days int) (y int, m time.Month, d int) {
	y, m, d = t.In(zone).Date()
	if months != 0 {
		last := time.Date(y, m+time.Month(months)+1, 0, 0, 0, 0, 0, time.UTC).Day()
		first := time.Date(y, m+time.Month(months), 1, 0, 0, 0, 0, time.UTC)
		y, m, d = first.Year(), first.Month(), min(d, last)
	}
	return time.Date(y, m, d+days, 0, 0, 0, 0, time.UTC).Date()
}

// sameWallClock is t moved by months and days with the clock on the wall in zone showing the same time.
func sameWallClock(t time.Time, zone *time.Location, months, days int) time.Time {
	y, m, d := shift(t, zone, months, days)
	hh, mm, ss := t.In(zone).Clock()
	return onWall(time.Date(y, m, d, hh, mm, ss, t.Nanosecond(), time.UTC), zone)
}

// endOfDay is 24:00 in zone of the day that lies months and days after t's day.
func endOfDay(t time.Time, zone *time.Location, months, days int) time.Time {
	y, m, d := shift(t, zone, months, days)
	return onWall(time.Date(y, m, d+1, 0, 0, 0, 0, time.UTC), zone)
}

// onWall is the first instant at which a clock on the wall in zone shows what wall shows in UTC. In the hour that
// spring leaves out there is none; of the two readings the earlier is taken, since earlier is stricter.
func onWall(wall time.Time, zone *time.Location) time.Time {
	_, before := wall.Add(-24 * time.Hour).In(zone).Zone()
	_, after := wall.Add(24 * time.Hour).In(zone).Zone()
	a, b := wall.Add(-time.Duration(before)*time.Second), wall.Add(-time.Duration(after)*time.Second)
	shows := func(t time.Time) bool {
		_, off := t.In(zone).Zone()
		return t.Add(time.Duration(off) * time.Second).Equal(wall)
	}
	switch {
	case shows(a) && !shows(b):
		return a
	case shows(b) && !shows(a):
		return b
	default:
		return earliest(a, b)
	}
}

// workingDay moves an end of day that closes a Saturday or Sunday to the end of the next Monday. Public holidays are
// left out on purpose: calendars of them disagree, and leaving them out only errs on the early side.
func workingDay(end time.Time, zone *time.Location) time.Time {
	switch end.Add(-time.Second).In(zone).Weekday() {
	case time.Saturday:
		return endOfDay(end.Add(-time.Second), zone, 0, 2)
	case time.Sunday:
		return endOfDay(end.Add(-time.Second), zone, 0, 1)
	default:
		return end
	}
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func pick(k Kind, aev, si string) string {
	if k == AEV {
		return aev
	}
	return si
}
