// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
)

func at(t testing.TB, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	l, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func clockOf(t testing.TB, ds []Deadline, st Stage) Deadline {
	t.Helper()
	for _, d := range ds {
		if d.Stage == st {
			return d
		}
	}
	t.Fatalf("no clock %s", st)
	return Deadline{}
}

func expect(t *testing.T, what string, got time.Time, want string) {
	t.Helper()
	if w := at(t, want); !got.Equal(w) {
		t.Errorf("%s = %s, want %s", what, got.UTC().Format(time.RFC3339Nano), want)
	}
}

// TestHours: 24 and 72 elapsed hours, whatever the clocks on the walls do; the nominal end leaves out the begun hour.
func TestHours(t *testing.T) {
	for name, c := range map[string]struct{ t0, ew, ewNominal, n72, n72Nominal string }{
		"plain": {"2026-11-21T22:50:07Z", "2026-11-22T22:50:07Z", "2026-11-22T23:00:00Z", "2026-11-24T22:50:07Z", "2026-11-24T23:00:00Z"},
		// 25 October 2026 has 25 hours in Berlin: adding a day on the wall would end an hour late.
		"autumn": {"2026-10-24T12:00:00+02:00", "2026-10-25T11:00:00+01:00", "2026-10-25T12:00:00+01:00", "2026-10-27T11:00:00+01:00", "2026-10-27T12:00:00+01:00"},
		// 28 March 2027 has 23 hours.
		"spring":    {"2027-03-27T12:00:00+01:00", "2027-03-28T13:00:00+02:00", "2027-03-28T14:00:00+02:00", "2027-03-30T13:00:00+02:00", "2027-03-30T14:00:00+02:00"},
		"new year":  {"2026-12-31T23:59:59.999Z", "2027-01-01T23:59:59.999Z", "2027-01-02T00:00:00Z", "2027-01-03T23:59:59.999Z", "2027-01-04T00:00:00Z"},
		"leap day":  {"2028-02-28T10:30:00Z", "2028-02-29T10:30:00Z", "2028-02-29T11:00:00Z", "2028-03-02T10:30:00Z", "2028-03-02T11:00:00Z"},
		"full hour": {"2026-12-25T10:00:00Z", "2026-12-26T10:00:00Z", "2026-12-26T11:00:00Z", "2026-12-28T10:00:00Z", "2026-12-28T11:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			ds := Clocks(State{Kind: AEV, T0: at(t, c.t0)}, zone(t, "Europe/Berlin"), Targets{})
			ew, n := clockOf(t, ds, EarlyWarning), clockOf(t, ds, Notification)
			expect(t, "early warning", ew.Due, c.ew)
			expect(t, "early warning, nominal", ew.NominalEnd, c.ewNominal)
			expect(t, "notification", n.Due, c.n72)
			expect(t, "notification, nominal", n.NominalEnd, c.n72Nominal)
			if !ew.ReliefEnd.IsZero() || !n.ReliefEnd.IsZero() {
				t.Error("a period in hours was moved to a working day")
			}
		})
	}
}

// TestCounter: the platform's own counter runs 48 hours from the early warning and only ever tightens.
func TestCounter(t *testing.T) {
	t0 := at(t, "2026-11-21T10:00:00Z")
	s := State{Kind: AEV, T0: t0, Accepted: map[Stage]Submission{EarlyWarning: {SubmittedAt: t0.Add(2 * time.Hour)}}}
	n := clockOf(t, Clocks(s, time.UTC, Targets{}), Notification)
	expect(t, "counter", n.Counter, "2026-11-23T12:00:00Z")
	expect(t, "work by", n.WorkBy, "2026-11-23T12:00:00Z")
	expect(t, "due", n.Due, "2026-11-24T10:00:00Z")
}

// TestFinalAEV: 14 days from the first measure, on the earlier of elapsed time and the wall.
func TestFinalAEV(t *testing.T) {
	for name, c := range map[string]struct{ zone, measure, due, nominal, relief string }{
		"plain": {"Europe/Berlin", "2026-11-02T09:00:00+01:00", "2026-11-16T09:00:00+01:00", "2026-11-17T00:00:00+01:00", "2026-11-17T00:00:00+01:00"},
		// Autumn: 336 hours end at 08:00 on the wall; the wall's 09:00 would be an hour later.
		"autumn": {"Europe/Berlin", "2026-10-20T09:00:00+02:00", "2026-11-03T08:00:00+01:00", "2026-11-04T00:00:00+01:00", "2026-11-04T00:00:00+01:00"},
		// Spring: the wall's 09:00 comes after 335 hours.
		"spring": {"Europe/Berlin", "2027-03-20T09:00:00+01:00", "2027-04-03T09:00:00+02:00", "2027-04-04T00:00:00+02:00", "2027-04-06T00:00:00+02:00"},
		// Spring, in the hour that does not exist: 02:30 on 28 March 2027.
		"gap": {"Europe/Berlin", "2027-03-14T02:30:00+01:00", "2027-03-28T00:30:00Z", "2027-03-29T00:00:00+02:00", "2027-03-30T00:00:00+02:00"},
		// Autumn, in the hour that exists twice: 02:30 on 25 October 2026, the first of the two.
		"twice":    {"Europe/Berlin", "2026-10-11T02:30:00+02:00", "2026-10-25T00:30:00Z", "2026-10-26T00:00:00+01:00", "2026-10-27T00:00:00+01:00"},
		"saturday": {"Europe/Paris", "2026-11-07T09:00:00+01:00", "2026-11-21T09:00:00+01:00", "2026-11-22T00:00:00+01:00", "2026-11-24T00:00:00+01:00"},
		// In Helsinki the event falls on the next local day already.
		"local day": {"Europe/Helsinki", "2026-11-02T22:30:00Z", "2026-11-16T22:30:00Z", "2026-11-17T22:00:00Z", "2026-11-17T22:00:00Z"},
		"leap year": {"Europe/Lisbon", "2028-02-20T12:00:00Z", "2028-03-05T12:00:00Z", "2028-03-06T00:00:00Z", "2028-03-07T00:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			m := at(t, c.measure)
			s := State{Kind: AEV, T0: m.Add(-time.Hour), Measure: m}
			d := clockOf(t, Clocks(s, zone(t, c.zone), Targets{}), Final)
			expect(t, "due", d.Due, c.due)
			expect(t, "nominal", d.NominalEnd, c.nominal)
			expect(t, "relief", d.ReliefEnd, c.relief)
		})
	}
}

// TestFinalSI: one calendar month after the submission of the notification, clamped, the earlier of two calendars.
func TestFinalSI(t *testing.T) {
	for name, c := range map[string]struct{ zone, submitted, due, nominal, relief string }{
		"plain": {"Europe/Berlin", "2026-11-21T12:00:00Z", "2026-12-21T12:00:00Z", "2026-12-21T23:00:00Z", "2026-12-21T23:00:00Z"},
		// 00:30 on 31 March in Brussels: pure UTC would end half an hour after the local end.
		"before midnight": {"Europe/Brussels", "2027-03-30T22:30:00Z", "2027-04-29T22:30:00Z", "2027-04-30T22:00:00Z", "2027-04-30T22:00:00Z"},
		"31 january":      {"Europe/Berlin", "2027-01-31T12:00:00Z", "2027-02-28T12:00:00Z", "2027-02-28T23:00:00Z", "2027-03-01T23:00:00Z"},
		"31 january leap": {"Europe/Berlin", "2028-01-31T12:00:00Z", "2028-02-29T12:00:00Z", "2028-02-29T23:00:00Z", "2028-02-29T23:00:00Z"},
		"29 february":     {"Europe/Berlin", "2028-02-29T12:00:00Z", "2028-03-29T11:00:00Z", "2028-03-29T22:00:00Z", "2028-03-29T22:00:00Z"}, // one hour of summer time
		"february is 28":  {"Europe/Dublin", "2027-02-15T12:00:00Z", "2027-03-15T12:00:00Z", "2027-03-16T00:00:00Z", "2027-03-16T00:00:00Z"},
		"autumn":          {"Europe/Berlin", "2026-10-10T12:00:00Z", "2026-11-10T12:00:00Z", "2026-11-10T23:00:00Z", "2026-11-10T23:00:00Z"},
		"december":        {"Europe/Rome", "2026-12-31T12:00:00Z", "2027-01-31T12:00:00Z", "2027-01-31T23:00:00Z", "2027-02-01T23:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			sub := at(t, c.submitted)
			s := State{Kind: SI, T0: sub.Add(-50 * time.Hour), Accepted: map[Stage]Submission{Notification: {SubmittedAt: sub}}}
			d := clockOf(t, Clocks(s, zone(t, c.zone), Targets{}), Final)
			expect(t, "due", d.Due, c.due)
			expect(t, "nominal", d.NominalEnd, c.nominal)
			expect(t, "relief", d.ReliefEnd, c.relief)
		})
	}
}

// TestUndetermined: a missing anchor gives a reason and no date.
func TestUndetermined(t *testing.T) {
	for _, k := range []Kind{AEV, SI} {
		d := clockOf(t, Clocks(State{Kind: k, T0: at(t, "2026-11-21T10:00:00Z")}, time.UTC, Targets{}), Final)
		if d.Undetermined == "" || !d.Due.IsZero() || !d.NominalEnd.IsZero() || d.Running() {
			t.Errorf("%s: %+v", k, d)
		}
	}
}

// TestTargetsOnlyTighten: a limit that is looser than the law's is refused by the name of its rule, never replaced.
func TestTargetsOnlyTighten(t *testing.T) {
	for rule, loose := range map[string]Targets{
		"guidance.213": {AssessmentHours: 25}, "cra.14.2.a": {EarlyWarningHours: 25}, "cra.14.2.b": {NotificationHours: 73},
		"cra.14.2.c": {FinalDays: 15}, "cra.14.8": {UsersHours: 25},
	} {
		if err := loose.Check(); problem.Of(err).Rule != rule {
			t.Errorf("%+v: %v, want it refused by %s", loose, err, rule)
		}
		if _, ok := law.Get(rule); !ok {
			t.Errorf("there is no rule %s", rule)
		}
	}
	if err := (Targets{UsersHours: -1}).Check(); !problem.Is(err, problem.KindInvalid) {
		t.Errorf("a negative limit: %v", err)
	}
	if err := DefaultTargets.Check(); err != nil || (Targets{}).filled() != DefaultTargets {
		t.Errorf("the defaults: %v", err)
	}
	tight := Targets{1, 1, 2, 1, 1}
	if got := tight.filled(); got != tight || tight.Check() != nil {
		t.Errorf("tight targets became %+v", got)
	}
}

// TestRulesExist: each clock names rules that the law data holds.
func TestRulesExist(t *testing.T) {
	s := State{T0: at(t, "2026-11-21T10:00:00Z"), Requests: []Request{{Seq: 2}}}
	for _, k := range []Kind{AEV, SI} {
		s.Kind = k
		for _, d := range Clocks(s, time.UTC, Targets{}) {
			for _, id := range d.Rules {
				if _, ok := law.Get(id); !ok {
					t.Errorf("%s %s names the rule %s, which does not exist", k, d.Stage, id)
				}
			}
		}
	}
}

// TestDeadlineProperties: over random instants and every zone of the Union, the strict end is never the latest reading,
// and the local calendar agrees with what a second, day-by-day count finds.
func TestDeadlineProperties(t *testing.T) {
	states := law.MemberStates()
	from, to := at(t, "2026-09-11T00:00:00Z").Unix(), at(t, "2060-01-01T00:00:00Z").Unix()
	rapid.Check(t, func(t *rapid.T) {
		loc := rapid.SampledFrom(states).Draw(t, "state").Location()
		anchor := time.Unix(rapid.Int64Range(from, to).Draw(t, "anchor"), rapid.Int64Range(0, 999).Draw(t, "ms")*1e6)
		t0 := anchor.Add(-time.Duration(rapid.Int64Range(0, int64(90*24*time.Hour)).Draw(t, "before")))
		for _, s := range []State{
			{Kind: AEV, T0: t0, Measure: anchor},
			{Kind: SI, T0: t0, Accepted: map[Stage]Submission{Notification: {SubmittedAt: anchor}, EarlyWarning: {SubmittedAt: t0}}},
		} {
			for _, d := range Clocks(s, loc, Targets{}) {
				if !d.Due.After(d.Anchor) || d.WorkBy.After(d.Due) {
					t.Fatalf("%s: due %s, work by %s, anchor %s", d.Stage, d.Due, d.WorkBy, d.Anchor)
				}
				if !d.NominalEnd.IsZero() && d.Due.After(d.NominalEnd) {
					t.Fatalf("%s: due %s after the nominal end %s", d.Stage, d.Due, d.NominalEnd)
				}
				if d.ReliefEnd.IsZero() {
					continue
				}
				if d.ReliefEnd.Before(d.NominalEnd) || d.ReliefEnd.Sub(d.NominalEnd) > 49*time.Hour {
					t.Fatalf("relief %s for %s", d.ReliefEnd, d.NominalEnd)
				}
				if w := d.ReliefEnd.Add(-time.Second).In(loc).Weekday(); w == time.Saturday || w == time.Sunday {
					t.Fatalf("relief ends on %s", w)
				}
				slow := slowEnd(anchor, loc, s.Kind)
				if y, m, day := d.NominalEnd.Add(-time.Nanosecond).In(loc).Date(); slow != [3]int{y, int(m), day} {
					t.Fatalf("%s: nominal end on %d-%d-%d, the slow count says %v", s.Kind, y, m, day, slow)
				}
			}
		}
	})
}

// slowEnd counts the last day of a final report one day at a time.
func slowEnd(anchor time.Time, loc *time.Location, k Kind) [3]int {
	y, m, d := anchor.In(loc).Date()
	if k == SI {
		ny, nm := y, m+1
		if nm == 13 {
			ny, nm = y+1, 1
		}
		for day := d; ; day-- {
			if c := time.Date(ny, nm, day, 12, 0, 0, 0, time.UTC); c.Month() == nm {
				return [3]int{ny, int(nm), day}
			}
		}
	}
	noon := time.Date(y, m, d, 12, 0, 0, 0, time.UTC)
	for range 14 {
		noon = noon.Add(24 * time.Hour)
	}
	y, m, d = noon.Date()
	return [3]int{y, int(m), d}
}
