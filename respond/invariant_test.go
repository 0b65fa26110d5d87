// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// happened is one event that Check let in, with the case before and after it.
type happened struct {
	was, is  State
	old, new []Deadline
	event    Event
	fired    map[Escalation]int
}

// randomCase drives random events, legal ones and others, through Check and calls look after each that was let in. Alarms
// ring when they are due, twice, and the clock of the platform is now and then set back.
func randomCase(t *rapid.T, look func(h happened)) {
	// What matters most stands first: rapid draws the first more often.
	kinds := append([]EventKind{SubmissionAttempted, SubmissionAccepted, MeasureAvailable, MeasureWithdrawn, Invalidated, PlatformOutage, PECInvoked, MitigationExpected, CoveredByEarlier,
		InterimRequested, InterimAnswered}, slices.Sorted(maps.Keys(checks))...)
	s := &story{kind: rapid.SampledFrom([]Kind{AEV, SI}).Draw(t, "kind"), now: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)}
	if err := s.add(Event{Kind: T0Set, Actor: "ann", Person: true, Data: Data{At: s.now, Note: "evidence", Title: "x", Coordinator: "DE"}}); err != nil {
		t.Fatal(err)
	}
	fired := map[Escalation]int{}
	add := func(e Event) bool {
		was := s.state()
		if s.add(e) != nil {
			return false
		}
		if !e.Person {
			fired[escalationOf(e)]++
		}
		is := s.state()
		look(happened{was, is, Clocks(was, was.Zone(), Targets{}), Clocks(is, is.Zone(), Targets{}), s.events[len(s.events)-1], fired})
		return true
	}
	for range rapid.IntRange(20, 50).Draw(t, "steps") {
		s.now = s.now.Add(time.Duration(rapid.Int64Range(int64(-2*time.Hour), int64(30*time.Hour)).Draw(t, "wait")))
		for range 2 { // the same job on two machines
			st := s.state()
			for _, esc := range Escalations(st, Clocks(st, st.Zone(), Targets{})) {
				if esc.At <= s.now.UnixMilli() {
					add(Event{Kind: esc.Level, Actor: "system", Data: Data{Stage: esc.Stage, Request: esc.Request, At: time.UnixMilli(esc.At)}})
				}
			}
		}
		n := s.state().Events
		k := rapid.SampledFrom(kinds).Draw(t, "event")
		add(Event{Kind: k, Actor: rapid.SampledFrom([]string{"ann", "bob", "system"}).Draw(t, "actor"), Person: rapid.IntRange(0, 9).Draw(t, "person") > 0, Data: Data{
			At: s.now.Add(-time.Duration(rapid.Int64Range(-1, 20).Draw(t, "ago")) * time.Hour), Title: "x", Note: rapid.SampledFrom([]string{"note", "note", ""}).Draw(t, "note"),
			Stage:   rapid.SampledFrom([]Stage{EarlyWarning, Notification, Final, Spreading, ""}).Draw(t, "stage"),
			Receipt: rapid.SampledFrom([]string{"SRP-1", ""}).Draw(t, "receipt"), Attempt: max(1, n-rapid.Int64Range(0, 3).Draw(t, "attempt")), Request: max(1, n-rapid.Int64Range(0, 3).Draw(t, "request")),
			Due: s.now.Add(time.Hour), Audience: "impacted", Case: "cas_2", Coordinator: rapid.SampledFrom([]string{"DE", "FI", "CH"}).Draw(t, "coordinator"),
			Ground: rapid.SampledFrom([]Ground{ImminentRisk, "other"}).Draw(t, "ground"), Component: "libfoo"}})
	}
}

// dues are the strict ends by duty.
func dues(ds []Deadline) map[Duty]time.Time {
	out := map[Duty]time.Time{}
	for _, d := range ds {
		out[d.Duty()] = d.Due
	}
	return out
}

func invariant(t *testing.T, look func(t *rapid.T, h happened)) {
	rapid.Check(t, func(t *rapid.T) { randomCase(t, func(h happened) { look(t, h) }) })
}

// TestInvariant01OnlyPeopleSetT0: no event of the platform sets or moves T0, and every value it ever had stays visible.
func TestInvariant01OnlyPeopleSetT0(t *testing.T) {
	invariant(t, func(t *rapid.T, h happened) {
		moved := !h.is.T0.Equal(h.was.T0)
		if moved && (!h.event.Person || h.event.Kind != T0Corrected) || !slices.Equal(h.is.T0History[:len(h.was.T0History)], h.was.T0History) || moved && len(h.is.T0History) != len(h.was.T0History)+1 {
			t.Fatalf("%s by %s: T0 %v became %v", h.event.Kind, h.event.Actor, h.was.T0History, h.is.T0History)
		}
	})
}

// TestInvariant02SentIsNoState: a report counts only with a receipt, or as covered by one, confirmed by a second person.
func TestInvariant02SentIsNoState(t *testing.T) {
	invariant(t, func(t *rapid.T, h happened) {
		for st, sub := range h.is.Accepted {
			if sub.Receipt == "" && sub.File == "" || sub.Confirmer == "" || sub.Confirmer == sub.Submitter {
				t.Fatalf("%s: %+v", st, sub)
			}
		}
		if len(h.is.Accepted) > len(h.was.Accepted) && h.event.Kind != SubmissionAccepted && h.event.Kind != CoveredByEarlier {
			t.Fatalf("%s made a submission", h.event.Kind)
		}
	})
}

// TestInvariant03NoGuessedDate: a clock has a date or the reason why there is none.
func TestInvariant03NoGuessedDate(t *testing.T) {
	invariant(t, func(t *rapid.T, h happened) {
		for _, d := range h.new {
			if (d.Undetermined == "") == d.Due.IsZero() {
				t.Fatalf("%+v", d)
			}
			if d.Stage == Final && !d.Due.IsZero() && (h.is.Kind == AEV && h.is.Measure.IsZero() || h.is.Kind == SI && !h.is.has(Notification)) {
				t.Fatalf("a date without an anchor: %+v", d)
			}
		}
	})
}

// TestInvariant04OrderAndEnd: each report stands on the one before, and after the final one nothing in them changes.
func TestInvariant04OrderAndEnd(t *testing.T) {
	invariant(t, func(t *rapid.T, h happened) {
		for st, sub := range h.is.Accepted {
			if first := before[st]; first != "" && (!h.is.has(first) || sub.SubmittedAt.Before(h.is.Accepted[first].SubmittedAt)) {
				t.Fatalf("%s without or before %s", st, first)
			}
		}
		if h.was.has(Final) && h.is.has(Final) && (!h.is.T0.Equal(h.was.T0) || !h.is.Measure.Equal(h.was.Measure) || h.is.Title != h.was.Title ||
			h.is.Coordinator != h.was.Coordinator || !reflect.DeepEqual(h.is.Accepted, h.was.Accepted)) {
			t.Fatalf("%s changed the report after the final one", h.event.Kind)
		}
	})
}

// TestInvariant05OutagesPauseNothing: outages, attempts that fail and direct contact move no clock and meet no duty.
func TestInvariant05OutagesPauseNothing(t *testing.T) {
	invariant(t, func(t *rapid.T, h happened) {
		switch h.event.Kind {
		case PlatformOutage, PlatformRestored, SubmissionAttempted, SubmissionFailed, ContactedDirectly, MitigationExpected, PECInvoked, PECGroundLost, PublicationHeld, PublicationReleased, UpstreamReported:
			if !reflect.DeepEqual(h.old, h.new) {
				t.Fatalf("%s changed the clocks\n%+v\n%+v", h.event.Kind, h.old, h.new)
			}
		}
	})
}

// TestInvariant06InvalidatedRunsOn: what a CSIRT invalidates is owed by the deadline it had, and so it is under another
// coordinator.
func TestInvariant06InvalidatedRunsOn(t *testing.T) {
	invariant(t, func(t *rapid.T, h happened) {
		if h.event.Kind != Invalidated && h.event.Kind != CoordinatorChanged {
			return
		}
		old, now := dues(h.old), dues(h.new)
		for _, st := range []Stage{EarlyWarning, Notification} {
			if !old[Duty{Stage: st}].Equal(now[Duty{Stage: st}]) {
				t.Fatalf("%s moved %s", h.event.Kind, st)
			}
		}
		for _, d := range h.new {
			if h.event.Kind == Invalidated && d.Stage == h.event.Data.Stage && !d.Due.IsZero() && !d.Running() {
				t.Fatalf("%s is not owed again", d.Stage)
			}
		}
	})
}

// TestInvariant07AlarmsRingOnce: over repeated jobs, two machines and clock steps each alarm is on record at most once, none
// before its time, and what was overdue stays so.
func TestInvariant07AlarmsRingOnce(t *testing.T) {
	invariant(t, func(t *rapid.T, h happened) {
		for esc, n := range h.fired {
			if n > 1 {
				t.Fatalf("%+v rang %d times", esc, n)
			}
		}
		if !h.event.Person && h.event.Data.At.After(h.event.Recorded) {
			t.Fatalf("%s rang before its time", h.event.Kind)
		}
		for duty := range h.was.Overdue {
			if !h.is.Overdue[duty] {
				t.Fatalf("%s made overdue un-happen for %v", h.event.Kind, duty)
			}
		}
		if e := h.was.Dissemination.Ends; !e.IsZero() && !h.is.Dissemination.Ends.Equal(e) {
			t.Fatalf("%s moved the end of silence", h.event.Kind)
		}
	})
}

// TestInvariant08WithdrawalMovesNothing: withdrawing a measure leaves the anchor, and a later measure leaves the first.
func TestInvariant08WithdrawalMovesNothing(t *testing.T) {
	invariant(t, func(t *rapid.T, h happened) {
		if h.event.Kind == MeasureWithdrawn && !maps.EqualFunc(dues(h.old), dues(h.new), time.Time.Equal) {
			t.Fatalf("a withdrawal moved a clock")
		}
		if !h.was.Measure.IsZero() && h.is.Measure.After(h.was.Measure) {
			t.Fatalf("%s moved the first measure from %s to %s", h.event.Kind, h.was.Measure, h.is.Measure)
		}
	})
}

// TestInvariant09BothQuestions: whatever a person declares, aware means that both questions were answered, and each yes is a
// case of its own kind.
func TestInvariant09BothQuestions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		answer := func(name string) *bool {
			return rapid.SampledFrom([]*bool{nil, new(true), new(false)}).Draw(t, name)
		}
		d := Declaration{Verdict: rapid.SampledFrom([]Verdict{Negative, Watch, Aware, Joined, "other"}).Draw(t, "verdict"), Basis: "b", Case: "cas_1", AEV: answer("aev"), SI: answer("si")}
		ks, err := d.kinds()
		yes := map[Kind]bool{AEV: d.AEV != nil && *d.AEV, SI: d.SI != nil && *d.SI}
		switch {
		case d.Verdict != Aware && len(ks) > 0:
			t.Fatalf("%s opens %v", d.Verdict, ks)
		case d.Verdict == Aware && err == nil && (d.AEV == nil || d.SI == nil || len(ks) == 0 || slices.Contains(ks, AEV) != yes[AEV] || slices.Contains(ks, SI) != yes[SI]):
			t.Fatalf("%v, %v opened %v", d.AEV, d.SI, ks)
		}
	})
}

// TestInvariant10WhoFilesNext: nobody is named who cannot file: an unverified representative files 20 times at most, a
// secondary one only in cases where nobody else has filed. Everybody else is, once, and whoever is on call stands first.
func TestInvariant10WhoFilesNext(t *testing.T) {
	ids := []string{"ann", "bob", "eve", "kim", "max"}
	rapid.Check(t, func(t *rapid.T) {
		var filers []Filer
		for _, id := range ids[:rapid.IntRange(0, len(ids)).Draw(t, "filers")] {
			filers = append(filers, Filer{Person: id, Since: time.Unix(rapid.Int64Range(0, 3).Draw(t, "since"), 0), Role: rapid.SampledFrom([]FilerRole{Primary, Secondary}).Draw(t, "role"),
				Verified: rapid.Bool().Draw(t, "verified"), Filed: rapid.SampledFrom([]int{0, 19, 20, 21, 400}).Draw(t, "filed")})
		}
		turn := rapid.Permutation(ids).Draw(t, "turn")[:rapid.IntRange(0, len(ids)).Draw(t, "on call")]
		earlier := rapid.SliceOfNDistinct(rapid.SampledFrom(append(ids, "gone")), 0, 3, rapid.ID).Draw(t, "earlier")
		line := Line(filers, turn, earlier)
		last := -1
		for i, f := range line {
			if !f.Verified && f.Filed >= 20 {
				t.Fatalf("%+v files next", f)
			}
			if f.Role == Secondary && len(earlier) > 0 && !slices.Equal(earlier, []string{f.Person}) {
				t.Fatalf("%+v cannot see what %v filed", f, earlier)
			}
			if slices.IndexFunc(line, func(o Filer) bool { return o.Person == f.Person }) != i {
				t.Fatalf("%s is their own deputy", f.Person)
			}
			place := slices.Index(turn, f.Person)
			if place < 0 {
				place = len(turn)
			}
			if place < last {
				t.Fatalf("%s stands behind somebody who is called later: %v", f.Person, turn)
			}
			last = place
		}
		for _, f := range filers {
			in := slices.ContainsFunc(line, func(o Filer) bool { return o.Person == f.Person })
			able := (f.Verified || f.Filed < 20) && (f.Role == Primary || len(earlier) == 0 || slices.Equal(earlier, []string{f.Person}))
			if in != able {
				t.Fatalf("%+v is in the line: %v", f, in)
			}
		}
	})
}
