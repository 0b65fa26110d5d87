// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"fmt"
	"slices"
	"time"
)

// What follows computes the deadlines of CRA Article 14 from the raw events of a case. It shares nothing with the
// platform's own implementation: whole milliseconds and days since 1970, no time zone table. What it knows of zones is
// Directive 2000/84/EC (summer time from the last Sunday of March to the last of October, 01:00 UTC) and how many hours each
// Member State is ahead of UTC in winter.

// Event is what the verifier reads of an event of a case; other members may stand beside these.
type Event struct {
	Seq   int64     `json:"seq"`
	Kind  string    `json:"kind"`
	Actor string    `json:"actor"`
	Data  EventData `json:"data"`
}

// EventData is what an event says, as far as a deadline depends on it.
type EventData struct {
	At          time.Time `json:"at"`
	Due         time.Time `json:"due"`
	Stage       string    `json:"stage"`
	Attempt     int64     `json:"attempt"`
	Request     int64     `json:"request"`
	Coordinator string    `json:"coordinator"`
	Of          string    `json:"of"` // t0.set: aev or si
	Product     string    `json:"product"`
	Pack        string    `json:"pack"`
	File        string    `json:"file"`
	SHA256      string    `json:"sha256"`
	Note        string    `json:"note"`
}

// Limits are the house's own limits, which only ever tighten the law's. Users has no other.
type Limits struct {
	EarlyWarningHours int64 `json:"early_warning_hours"`
	NotificationHours int64 `json:"notification_hours"`
	FinalDays         int64 `json:"final_days"`
	UsersHours        int64 `json:"users_hours"`
}

// Verdict is what the verifier says of one duty.
type Verdict string

// The verdicts. Open is a duty that is not done and whose end had not come when the bundle was made.
const (
	OnTime       Verdict = "on time"
	Late         Verdict = "late"
	Open         Verdict = "open"
	Undetermined Verdict = "undetermined"
	NotOwed      Verdict = "not owed"
)

// Deadline is one duty of a case with its clock, recomputed. Times that there are not are absent.
type Deadline struct {
	Stage        string    `json:"stage"`
	Request      int64     `json:"request,omitempty"`
	Rules        []string  `json:"rules,omitempty"`
	Anchor       time.Time `json:"anchor,omitzero"`
	Due          time.Time `json:"due,omitzero"`
	NominalEnd   time.Time `json:"nominal_end,omitzero"`
	ReliefEnd    time.Time `json:"relief_end,omitzero"`
	Counter      time.Time `json:"counter,omitzero"`
	WorkBy       time.Time `json:"work_by,omitzero"`
	Met          time.Time `json:"met,omitzero"`
	Verdict      Verdict   `json:"verdict,omitempty"`
	Undetermined string    `json:"undetermined,omitempty"`
	Reason       string    `json:"reason,omitempty"` // of what is late: what was noted when it was done
}

const (
	hourMS = 3_600_000
	dayMS  = 24 * hourMS
)

// winterHours is how far the clocks of each Member State are ahead of UTC in winter, by the zone of its capital.
var winterHours = map[string]int64{
	"IE": 0, "PT": 0,
	"AT": 1, "BE": 1, "CZ": 1, "DE": 1, "DK": 1, "ES": 1, "FR": 1, "HR": 1, "HU": 1, "IT": 1, "LU": 1, "MT": 1, "NL": 1, "PL": 1, "SE": 1, "SI": 1, "SK": 1,
	"BG": 2, "CY": 2, "EE": 2, "FI": 2, "GR": 2, "LT": 2, "LV": 2, "RO": 2,
}

// story is what happened in a case, in ms; 0 is: did not.
type story struct {
	kind, state string
	t0          int64
	measure     int64 // the first
	attempts    map[int64]EventData
	accepted    map[string]sent
	users       int64 // informed for the first time
	requests    []request
	withdrawn   bool
}

// request is an intermediate report that a CSIRT asked for.
type request struct {
	seq           int64 // of the event that asked
	at, due, done int64
}

// sent is a report that the reporting platform received.
type sent struct {
	at   int64
	note string
}

var earlier = map[string]string{"notification": "early_warning", "final": "notification"}

// read folds the events of a case of the given kind.
func read(kind string, events []Event) story {
	s := story{kind: kind, attempts: map[int64]EventData{}, accepted: map[string]sent{}}
	for _, e := range events {
		at := ms(e.Data.At)
		switch e.Kind {
		case "t0.set":
			s.t0, s.state = at, e.Data.Coordinator
		case "t0.corrected":
			s.t0 = at
		case "coordinator.changed":
			s.state = e.Data.Coordinator
		case "measure.available":
			if s.measure == 0 || at < s.measure {
				s.measure = at
			}
		case "submission.attempted":
			s.attempts[e.Seq] = e.Data
		case "submission.accepted":
			a := s.attempts[e.Data.Attempt]
			s.accepted[a.Stage] = sent{ms(a.At), a.Note}
		case "submission.covered_by_earlier":
			s.accepted[e.Data.Stage] = s.accepted[earlier[e.Data.Stage]]
		case "csirt.invalidated":
			delete(s.accepted, e.Data.Stage)
		case "users.informed":
			if s.users == 0 {
				s.users = at
			}
		case "interim.requested":
			s.requests = append(s.requests, request{seq: e.Seq, at: at, due: ms(e.Data.Due)})
		case "interim.answered":
			if i := slices.IndexFunc(s.requests, func(q request) bool { return q.seq == e.Data.Request }); i >= 0 {
				s.requests[i].done = at
			}
		case "case.withdrawn":
			s.withdrawn = true
		}
	}
	return s
}

// Deadlines recomputes every deadline of a case of the given kind (aev or si) from its events, in the order early warning,
// notification, final report, users, intermediate reports, and says of each whether it was met as of now.
func Deadlines(kind string, events []Event, limits Limits, now time.Time) []Deadline {
	s := read(kind, events)
	ds := []Deadline{s.warning(limits), s.notification(limits), s.final(limits), s.informed(limits)}
	for _, q := range s.requests {
		ds = append(ds, Deadline{Stage: "intermediate", Request: q.seq, Rules: []string{"cra.14.6"}, Anchor: instant(q.at),
			Due: instant(q.due), WorkBy: instant(q.due), Met: instant(q.done)})
	}
	for i := range ds {
		ds[i].judge(s, now)
	}
	return ds
}

// judge says what became of the duty.
func (d *Deadline) judge(s story, now time.Time) {
	if sub, ok := s.accepted[d.Stage]; ok {
		d.Met = instant(sub.at)
	}
	switch {
	case d.Met.IsZero() && s.withdrawn:
		d.Verdict = NotOwed
	case d.Due.IsZero():
		d.Verdict = Undetermined
	case d.Met.After(d.Due) || d.Met.IsZero() && now.After(d.Due):
		d.Verdict, d.Reason = Late, s.accepted[d.Stage].note
	case d.Met.IsZero():
		d.Verdict = Open
	default:
		d.Verdict = OnTime
	}
}

// hours is a duty within n hours of awareness: elapsed time, so that no change of the clocks moves it. Its nominal end
// leaves out the hour of the event (Reg. 1182/71 Art. 3(1)).
func (s story) hours(n, own int64) Deadline {
	next := (s.t0/hourMS + 1) * hourMS
	return Deadline{Anchor: instant(s.t0), Due: instant(s.t0 + n*hourMS), NominalEnd: instant(next + n*hourMS), WorkBy: instant(s.t0 + min(n, own)*hourMS)}
}

// rule is the point of Article 14(2) for a vulnerability, of 14(4) for an incident.
func (s story) rule(point string) string {
	if s.kind == "aev" {
		return "cra.14.2." + point
	}
	return "cra.14.4." + point
}

func (s story) warning(l Limits) Deadline {
	d := s.hours(24, l.EarlyWarningHours)
	d.Stage, d.Rules = "early_warning", []string{s.rule("a"), "time.3.1"}
	return d
}

// notification shows the reporting platform's own counter too: 48 hours from the early warning.
func (s story) notification(l Limits) Deadline {
	d := s.hours(72, l.NotificationHours)
	d.Stage, d.Rules = "notification", []string{s.rule("b"), "time.3.1", "srp.q26"}
	if ew, ok := s.accepted["early_warning"]; ok {
		d.Counter = instant(ew.at + 48*hourMS)
		d.WorkBy = instant(min(ms(d.WorkBy), ms(d.Counter)))
	}
	return d
}

// final runs 14 days from the first corrective or mitigating measure for a vulnerability, and one calendar month from the
// submission of the notification for an incident; of elapsed time and the calendar on the wall the earlier counts.
func (s story) final(l Limits) Deadline {
	d := Deadline{Stage: "final", Rules: []string{s.rule("c"), "time.3.2", "time.3.4"}}
	winter, known := winterHours[s.state]
	z := zone{winter, known} // without a Member State days are counted in UTC
	var anchor, strict, end int64
	if s.kind == "aev" {
		if s.measure == 0 {
			d.Undetermined = "no corrective or mitigating measure is on record"
			return d
		}
		anchor = max(s.measure, s.t0)
		end = z.day(anchor) + 14
		strict = anchor + 14*dayMS
	} else {
		n, ok := s.accepted["notification"]
		if !ok {
			d.Undetermined = "no incident notification was accepted"
			return d
		}
		anchor = n.at
		end = monthLater(z.day(anchor))
		strict = monthLater(floor(anchor, dayMS))*dayMS + rest(anchor, dayMS)
	}
	d.Anchor = instant(anchor)
	d.Due = instant(min(strict, z.utc(end, z.clock(anchor))))
	d.WorkBy = instant(min(ms(d.Due), anchor+l.FinalDays*dayMS))
	d.NominalEnd = instant(z.utc(end+1, 0))
	switch weekday(end) { // public holidays are left out on purpose: that only errs early
	case 6:
		end += 2
	case 0:
		end++
	}
	d.ReliefEnd = instant(z.utc(end+1, 0))
	return d
}

// informed is held against the house's own limit: the law says "in a timely manner".
func (s story) informed(l Limits) Deadline {
	due := instant(s.t0 + l.UsersHours*hourMS)
	return Deadline{Stage: "users", Rules: []string{"cra.14.8"}, Anchor: instant(s.t0), Due: due, WorkBy: due, Met: instant(s.users)}
}

// zone is how the clocks on the walls of a Member State go.
type zone struct {
	winter int64 // hours ahead of UTC
	summer bool  // has summer time
}

// ahead is how many ms the clocks are ahead of UTC at an instant.
func (z zone) ahead(at int64) int64 {
	y, _, _ := civil(floor(at, dayMS))
	if z.summer && at >= lastSunday(y, 3)*dayMS+hourMS && at < lastSunday(y, 10)*dayMS+hourMS {
		return (z.winter + 1) * hourMS
	}
	return z.winter * hourMS
}

// day and clock are the date, in days since 1970, and the time of day, in ms, that the wall shows at an instant.
func (z zone) day(at int64) int64   { return floor(at+z.ahead(at), dayMS) }
func (z zone) clock(at int64) int64 { return rest(at+z.ahead(at), dayMS) }

// utc is the first instant at which the wall shows that day and time. In the hour that spring leaves out there is none;
// the earlier of the two readings is taken, since earlier is stricter.
func (z zone) utc(day, clock int64) int64 {
	wall := day*dayMS + clock
	summer, normal := wall-(z.winter+1)*hourMS, wall-z.winter*hourMS
	if z.ahead(summer) != (z.winter+1)*hourMS && z.ahead(normal) == z.winter*hourMS {
		return normal
	}
	if !z.summer {
		return normal
	}
	return summer
}

func floor(a, b int64) int64 { return (a - rest(a, b)) / b }
func rest(a, b int64) int64  { return ((a % b) + b) % b }

// civil is the date of a day since 1970-01-01, days its inverse (H. Hinnant, chrono-compatible low-level date algorithms).
func civil(day int64) (y, m, d int64) {
	day += 719468
	era := floor(day, 146097)
	doe := day - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	d, m, y = doy-(153*mp+2)/5+1, mp+3, yoe+era*400
	if m > 12 {
		m -= 12
		y++
	}
	return y, m, d
}

func days(y, m, d int64) int64 {
	if m <= 2 {
		y--
	}
	era := floor(y, 400)
	yoe := y - era*400
	doy := (153*rest(m-3, 12)+2)/5 + d - 1
	return era*146097 + yoe*365 + yoe/4 - yoe/100 + doy - 719468
}

func weekday(day int64) int64 { return rest(day+4, 7) } // 0 is Sunday

func lastSunday(y, m int64) int64 {
	last := days(y, m+1, 1) - 1 // March and October have a next month in the same year
	return last - weekday(last)
}

// monthLater is the same day of the next month, or the last that it has.
func monthLater(day int64) int64 {
	y, m, d := civil(day)
	if m++; m > 12 {
		y, m = y+1, 1
	}
	after := days(y, m, 1) + 31
	ay, am, _ := civil(after)
	return min(days(y, m, d), days(ay, am, 1)-1)
}

// ms is an instant in ms since 1970; the zero time is 0.
func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func instant(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// differs says in what a clock that the platform states is not the one that follows from the events; empty: in nothing.
func (d Deadline) differs(said Deadline) string {
	for _, p := range []struct {
		what       string
		said, want time.Time
	}{
		{"end", said.Due, d.Due}, {"nominal end", said.NominalEnd, d.NominalEnd}, {"end with relief", said.ReliefEnd, d.ReliefEnd},
		{"counter", said.Counter, d.Counter}, {"day to work by", said.WorkBy, d.WorkBy}, {"fulfilment", said.Met, d.Met},
	} {
		if ms(p.said) != ms(p.want) {
			return fmt.Sprintf("%s: the %s that is stated is %s, the one that follows from the events is %s", d.Stage, p.what, shown(p.said), shown(p.want))
		}
	}
	if said.Stage != d.Stage || said.Request != d.Request {
		return fmt.Sprintf("%s stands where %s belongs", said.Stage, d.Stage)
	}
	return ""
}

func shown(t time.Time) string {
	if t.IsZero() {
		return "none"
	}
	return t.UTC().Format(time.RFC3339Nano)
}
