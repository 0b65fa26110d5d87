// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/openthings-platform/openthings/problem"
)

// story appends events as the service does: each is checked first, and the clock moves forward.
type story struct {
	kind   Kind
	events []Event
	now    time.Time
}

func (s *story) state() State { return Fold(s.kind, s.events) }

func (s *story) add(e Event) error {
	st := s.state()
	e.Seq, e.Recorded = st.Events+1, s.now
	if err := Check(st, e, s.now); err != nil {
		return err
	}
	s.events = append(s.events, e)
	return nil
}

func (s *story) must(t testing.TB, actor string, k EventKind, d Data) int64 {
	t.Helper()
	if err := s.add(Event{Kind: k, Actor: actor, Person: true, Data: d}); err != nil {
		t.Fatalf("%s: %v", k, err)
	}
	return s.state().Events
}

func (s *story) refused(t testing.TB, rule string, e Event) {
	t.Helper()
	err := s.add(e)
	if err == nil {
		t.Fatalf("%s was accepted", e.Kind)
	}
	if got := problem.Of(err).Rule; got != rule {
		t.Fatalf("%s was refused by rule %q, want %q: %v", e.Kind, got, rule, err)
	}
}

func begin(t testing.TB, k Kind) *story {
	s := &story{kind: k, now: at(t, "2026-11-21T12:00:00Z")}
	s.must(t, "ann", T0Set, Data{At: s.now.Add(-time.Hour), Note: "shell seen on three units", Title: "libfoo", Coordinator: "DE", MemberStates: []string{"DE", "FR"}})
	return s
}

func (s *story) submit(t testing.TB, st Stage) {
	t.Helper()
	n := s.must(t, "ann", SubmissionAttempted, Data{Stage: st, At: s.now})
	s.must(t, "bob", SubmissionAccepted, Data{Attempt: n, Receipt: "SRP-" + string(st)})
}

// TestNoFeedSetsT0: only a person's event sets or moves T0.
func TestNoFeedSetsT0(t *testing.T) {
	s := &story{kind: AEV, now: at(t, "2026-11-21T12:00:00Z")}
	d := Data{At: s.now, Note: "KEV lists it", Title: "x", Coordinator: "DE"}
	s.refused(t, "respond.person-only", Event{Kind: T0Set, Actor: "system", Data: d})
	s = begin(t, AEV)
	s.refused(t, "respond.person-only", Event{Kind: T0Corrected, Actor: "system", Data: Data{At: s.now, Note: "feed"}})
	s.refused(t, "respond.platform-only", Event{Kind: DeadlineOverdue, Actor: "ann", Person: true, Data: Data{Stage: Final, At: s.now}})
}

func TestAwarenessNeedsEvidence(t *testing.T) {
	now := at(t, "2026-11-21T12:00:00Z")
	good := Data{At: now, Note: "evidence", Title: "x", Coordinator: "DE", MemberStates: []string{"DE"}}
	for name, bad := range map[string]func(*Data){
		"no note":          func(d *Data) { d.Note = "" },
		"no title":         func(d *Data) { d.Title = "" },
		"future":           func(d *Data) { d.At = now.Add(time.Second) },
		"no time":          func(d *Data) { d.At = time.Time{} },
		"before the law":   func(d *Data) { d.At = at(t, "2026-09-10T23:59:59Z") },
		"no coordinator":   func(d *Data) { d.Coordinator = "" },
		"not a state":      func(d *Data) { d.MemberStates = []string{"DE", "UK"} },
		"state twice":      func(d *Data) { d.MemberStates = []string{"DE", "DE"} },
		"not UTF-8":        func(d *Data) { d.Note = "\xff" },
		"summary too long": func(d *Data) { d.Summary = string(make([]byte, 4001)) },
	} {
		d := good
		bad(&d)
		if err := (&story{kind: AEV, now: now}).add(Event{Kind: T0Set, Actor: "ann", Person: true, Data: d}); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (&story{kind: AEV, now: now}).add(Event{Kind: T0Set, Actor: "ann", Person: true, Data: good}); err != nil {
		t.Error(err)
	}
}

// TestSubmissionNeedsReceiptAndSecondPerson: "sent" is not a state.
func TestSubmissionNeedsReceiptAndSecondPerson(t *testing.T) {
	s := begin(t, AEV)
	n := s.must(t, "ann", SubmissionAttempted, Data{Stage: EarlyWarning, At: s.now})
	if s.state().has(EarlyWarning) {
		t.Fatal("an attempt counted as a submission")
	}
	s.refused(t, "respond.receipt", Event{Kind: SubmissionAccepted, Actor: "bob", Person: true, Data: Data{Attempt: n}})
	s.refused(t, "respond.second-person", Event{Kind: SubmissionAccepted, Actor: "ann", Person: true, Data: Data{Attempt: n, Receipt: "SRP-1"}})
	s.must(t, "bob", SubmissionAccepted, Data{Attempt: n, Receipt: "SRP-1"})
	want := Submission{SubmittedAt: s.now, Receipt: "SRP-1", Submitter: "ann", Confirmer: "bob"}
	if got := s.state().Accepted[EarlyWarning]; got != want {
		t.Errorf("accepted %+v", got)
	}
	if err := s.add(Event{Kind: SubmissionAccepted, Actor: "bob", Person: true, Data: Data{Attempt: n, Receipt: "SRP-1"}}); err == nil {
		t.Error("one attempt was accepted twice")
	}
}

func TestOrderAndFinality(t *testing.T) {
	s := begin(t, AEV)
	s.refused(t, "respond.order", Event{Kind: SubmissionAttempted, Actor: "ann", Person: true, Data: Data{Stage: Notification, At: s.now}})
	s.refused(t, "respond.order", Event{Kind: SubmissionAttempted, Actor: "ann", Person: true, Data: Data{Stage: Final, At: s.now}})
	s.submit(t, EarlyWarning)
	s.submit(t, Notification)
	s.refused(t, "respond.anchor", Event{Kind: SubmissionAttempted, Actor: "ann", Person: true, Data: Data{Stage: Final, At: s.now}})
	s.refused(t, "respond.open-duty", Event{Kind: Closed, Actor: "ann", Person: true, Data: Data{Note: "done"}})
	s.must(t, "ann", MeasureAvailable, Data{At: s.now, Note: "turn off UPnP"})
	s.submit(t, Final)
	for _, k := range reportEvents {
		s.refused(t, "respond.final", Event{Kind: k, Actor: "ann", Person: true, Data: Data{At: s.now, Note: "late idea", Title: "x"}})
	}
	s.must(t, "ann", UsersInformed, Data{At: s.now, Note: "mail", Audience: "impacted"})
	s.must(t, "ann", Closed, Data{Note: "done"})
	s.refused(t, "respond.closed", Event{Kind: Linked, Actor: "ann", Person: true, Data: Data{Case: "cas_1"}})
}

// TestWorkaroundStartsTheFinalClock: a mitigation counts, a later fix does not move it, an earlier one found out later does,
// and withdrawing moves nothing.
func TestWorkaroundStartsTheFinalClock(t *testing.T) {
	s := begin(t, AEV)
	s.now = s.now.Add(240 * time.Hour)
	first := at(t, "2026-11-23T09:00:00Z")
	final := func() time.Time { return clockOf(t, Clocks(s.state(), s.state().Zone(), Targets{}), Final).Due }
	s.must(t, "ann", MeasureAvailable, Data{At: first, Note: "workaround"})
	want := final()
	expect(t, "final", want, "2026-12-07T09:00:00Z")
	s.must(t, "ann", MeasureAvailable, Data{At: first.Add(72 * time.Hour), Note: "release 2.0"})
	s.must(t, "ann", MeasureWithdrawn, Data{At: s.now, Note: "breaks the radio"})
	if got := final(); !got.Equal(want) {
		t.Errorf("the final clock moved from %s to %s", want, got)
	}
	s.must(t, "ann", MeasureAvailable, Data{At: first.Add(-time.Hour), Note: "support told customers earlier"})
	expect(t, "final", final(), "2026-12-07T08:00:00Z")
}

// TestMeasureBeforeAwareness: a fix that was out before anybody knew of the exploitation leaves the full 14 days.
func TestMeasureBeforeAwareness(t *testing.T) {
	s := begin(t, AEV)
	s.must(t, "ann", MeasureAvailable, Data{At: at(t, "2026-10-01T00:00:00Z"), Note: "release 1.9"})
	d := clockOf(t, Clocks(s.state(), time.UTC, Targets{}), Final)
	expect(t, "final", d.Due, "2026-12-05T11:00:00Z")
	if d.Note == "" {
		t.Error("the reading is not explained")
	}
}

// TestCorrectionIsVisible: a corrected T0 leaves the first value on record and never postdates a submission.
func TestCorrectionIsVisible(t *testing.T) {
	s := begin(t, AEV)
	t0 := s.state().T0
	s.must(t, "ann", T0Corrected, Data{At: t0.Add(-3 * time.Hour), Note: "support desk knew at eight"})
	if h := s.state().T0History; len(h) != 2 || !h[0].Equal(t0) || !s.state().T0.Equal(t0.Add(-3*time.Hour)) {
		t.Errorf("history %v", h)
	}
	s.submit(t, EarlyWarning)
	at := s.now
	s.now = s.now.Add(time.Hour)
	if err := s.add(Event{Kind: T0Corrected, Actor: "ann", Person: true, Data: Data{At: at.Add(time.Minute), Note: "later"}}); err == nil {
		t.Error("T0 was moved behind a submission")
	}
}

// TestInvalidatedRunsOnTheOldClock: what a CSIRT invalidates is owed again, by the old deadline.
func TestInvalidatedRunsOnTheOldClock(t *testing.T) {
	s := begin(t, SI)
	due := func() Deadline { return clockOf(t, Clocks(s.state(), s.state().Zone(), Targets{}), EarlyWarning) }
	old := due().Due
	s.submit(t, EarlyWarning)
	if due().Running() {
		t.Fatal("still running")
	}
	s.submit(t, Notification)
	if err := s.add(Event{Kind: Invalidated, Actor: "ann", Person: true, Data: Data{Stage: EarlyWarning, At: s.now, Note: "wrong CSIRT"}}); err == nil {
		t.Fatal("invalidated under a notification that builds on it")
	}
	s.must(t, "ann", Invalidated, Data{Stage: Notification, At: s.now, Note: "wrong CSIRT"})
	s.must(t, "ann", Invalidated, Data{Stage: EarlyWarning, At: s.now, Note: "wrong CSIRT"})
	if d := due(); !d.Running() || !d.Due.Equal(old) {
		t.Errorf("%+v", d)
	}
}

// TestWithdrawn: what was declared in error ends on record, but never once something was submitted.
func TestWithdrawn(t *testing.T) {
	s := begin(t, AEV)
	if err := s.add(Event{Kind: Withdrawn, Actor: "ann", Person: true}); !problem.Is(err, problem.KindInvalid) {
		t.Errorf("without a reason: %v", err)
	}
	s.must(t, "ann", Withdrawn, Data{Note: "the log was of another product"})
	if st := s.state(); !st.Closed || st.Status() != "withdrawn" || st.T0.IsZero() {
		t.Errorf("%+v", st)
	}
	s = begin(t, AEV)
	s.submit(t, EarlyWarning)
	s.refused(t, "respond.submitted", Event{Kind: Withdrawn, Actor: "ann", Person: true, Data: Data{Note: "sorry"}})
}

func TestIntermediateReport(t *testing.T) {
	s := begin(t, AEV)
	n := s.must(t, "ann", InterimRequested, Data{At: s.now, Due: s.now.Add(48 * time.Hour), Note: "how many units"})
	d := clockOf(t, Clocks(s.state(), time.UTC, Targets{}), Intermediate)
	expect(t, "due", d.Due, "2026-11-23T12:00:00Z")
	s.now = s.now.Add(time.Hour)
	s.must(t, "ann", InterimAnswered, Data{At: s.now, Request: n, Note: "mail to the CSIRT"})
	if clockOf(t, Clocks(s.state(), time.UTC, Targets{}), Intermediate).Running() {
		t.Error("still running")
	}
	if err := s.add(Event{Kind: InterimAnswered, Actor: "ann", Person: true, Data: Data{At: s.now, Request: n, Note: "again"}}); err == nil {
		t.Error("answered twice")
	}
}

// TestCaseProperties drives random events through Check and looks at the promises after each one that was let in.
func TestCaseProperties(t *testing.T) {
	kinds := slices.Sorted(maps.Keys(checks))
	stages := []Stage{EarlyWarning, Notification, Final, Intermediate, Users, "other", ""}
	rapid.Check(t, func(t *rapid.T) {
		s := &story{kind: rapid.SampledFrom([]Kind{AEV, SI}).Draw(t, "kind"), now: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)}
		s.add(Event{Kind: T0Set, Actor: "ann", Person: true, Data: Data{At: s.now, Note: "evidence", Title: "x", Coordinator: "DE"}})
		fired := map[Escalation]int{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			s.now = s.now.Add(time.Duration(rapid.Int64Range(0, int64(36*time.Hour)).Draw(t, "wait")))
			was := s.state()
			e := Event{Kind: rapid.SampledFrom(kinds).Draw(t, "event"), Actor: rapid.SampledFrom([]string{"ann", "bob", "system"}).Draw(t, "actor"), Data: Data{
				At:    s.now.Add(-time.Duration(rapid.Int64Range(-1, 48).Draw(t, "ago")) * time.Hour),
				Stage: rapid.SampledFrom(stages).Draw(t, "stage"), Note: rapid.SampledFrom([]string{"", "note"}).Draw(t, "note"), Title: "x",
				Receipt: rapid.SampledFrom([]string{"", "SRP-1"}).Draw(t, "receipt"), Attempt: rapid.Int64Range(0, was.Events).Draw(t, "attempt"),
				Request: rapid.Int64Range(0, was.Events).Draw(t, "request"), Due: s.now.Add(time.Hour), Audience: "all", Case: "cas_2", Coordinator: "DE"}}
			if e.Person = e.Actor != "system"; !e.Person && len(fired) < 50 {
				for _, esc := range Escalations(was, Clocks(was, was.Zone(), Targets{})) {
					if esc.At <= s.now.UnixMilli() {
						e.Kind, e.Data = esc.Level, Data{Stage: esc.Stage, At: time.UnixMilli(esc.At)}
						break
					}
				}
			}
			if s.add(e) != nil {
				continue
			}
			st := s.state()
			promises(t, was, st, e, s.now)
			if !e.Person {
				esc := escalationOf(e)
				if fired[esc]++; fired[esc] > 1 {
					t.Fatalf("%v fired %d times", esc, fired[esc])
				}
			}
		}
		// Anybody who holds the exported log computes the same clocks.
		log, err := json.Marshal(s.events)
		if err != nil {
			t.Fatal(err)
		}
		var read []Event
		if err := json.Unmarshal(log, &read); err != nil {
			t.Fatal(err)
		}
		here, there := s.state(), Fold(s.kind, read)
		a, _ := json.Marshal(Clocks(here, here.Zone(), Targets{}))
		b, _ := json.Marshal(Clocks(there, there.Zone(), Targets{}))
		if !bytes.Equal(a, b) {
			t.Fatalf("the log gives other clocks:\n%s\n%s", a, b)
		}
	})
}

func promises(t *rapid.T, was, st State, e Event, now time.Time) {
	if !st.T0.Equal(was.T0) && (e.Kind != T0Corrected || !e.Person || len(st.T0History) != len(was.T0History)+1) {
		t.Fatalf("%s by %s moved T0", e.Kind, e.Actor)
	}
	if e.Person == e.Kind.byPlatform() {
		t.Fatalf("the platform wrote %s", e.Kind)
	}
	for stage, sub := range st.Accepted {
		if sub.Receipt == "" || sub.Submitter == "" || sub.Confirmer == sub.Submitter || sub.SubmittedAt.After(now) {
			t.Fatalf("%s accepted as %+v", stage, sub)
		}
		if first, ok := before[stage]; ok && (!st.has(first) || sub.SubmittedAt.Before(st.Accepted[first].SubmittedAt)) {
			t.Fatalf("%s accepted without or before %s", stage, first)
		}
	}
	if was.has(Final) && st.has(Final) && (!st.T0.Equal(was.T0) || !st.Measure.Equal(was.Measure) || st.Title != was.Title ||
		!reflect.DeepEqual(st.MemberStates, was.MemberStates) || !reflect.DeepEqual(st.Accepted, was.Accepted)) {
		t.Fatalf("%s changed the report after the final one", e.Kind)
	}
	old, ds := Clocks(was, was.Zone(), Targets{}), Clocks(st, st.Zone(), Targets{})
	for i, d := range ds {
		if (d.Undetermined == "") == d.Due.IsZero() {
			t.Fatalf("%s has a date and a reason for none, or neither: %+v", d.Stage, d)
		}
		if i < len(old) && old[i].WasOverdue && !d.WasOverdue {
			t.Fatalf("%s made overdue un-happen for %s", e.Kind, d.Stage)
		}
	}
	switch e.Kind {
	case SubmissionAttempted, SubmissionFailed, ContactedDirectly, MeasureWithdrawn, Described, Linked:
		for i := range old {
			if !old[i].Due.Equal(ds[i].Due) || !old[i].Met.Equal(ds[i].Met) {
				t.Fatalf("%s moved the clock %s", e.Kind, old[i].Stage)
			}
		}
	}
}
