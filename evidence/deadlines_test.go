// SPDX-License-Identifier: AGPL-3.0-only

package evidence_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/evidence/verify"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/respond"
)

// randomCase makes the events of a case that could have happened. Half of its instants lie just before a change of the clocks,
// a midnight or the end of a month, so that a deadline falls where it hurts.
func randomCase(r *rand.Rand, states []law.MemberState) (respond.Kind, []respond.Event, respond.Targets) {
	kind := respond.AEV
	if r.IntN(2) == 0 {
		kind = respond.SI
	}
	hours := func(n int) time.Duration {
		return time.Duration(r.Int64N(int64(n) * int64(time.Hour))).Truncate(time.Millisecond)
	}
	t0 := time.Date(2026+r.IntN(33), time.Month(1+r.IntN(12)), 1+r.IntN(31), r.IntN(24), r.IntN(60), r.IntN(60), r.IntN(1000)*1_000_000, time.UTC)
	switch r.IntN(4) {
	case 0: // days before a change of the clocks
		month := time.March
		if r.IntN(2) == 0 {
			month = time.October
		}
		t0 = time.Date(t0.Year(), month, 31-r.IntN(35), 22, 0, 0, 0, time.UTC).Add(hours(5))
	case 1: // around the end of a month
		t0 = time.Date(t0.Year(), t0.Month(), 1, 0, 0, 0, 0, time.UTC).Add(-hours(96))
	}
	var events []respond.Event
	add := func(k respond.EventKind, d respond.Data) int64 {
		d.At, d.Due = d.At.UTC(), d.Due.UTC()
		events = append(events, respond.Event{Seq: int64(len(events) + 1), Kind: k, Actor: "per_1", Person: true, Recorded: t0, Data: d})
		return int64(len(events))
	}
	state := func() string { return states[r.IntN(len(states))].Code }
	add(respond.T0Set, respond.Data{At: t0, Coordinator: state(), Of: kind})
	if r.IntN(5) == 0 {
		add(respond.CoordinatorChanged, respond.Data{Coordinator: state()})
	}
	for r.IntN(4) == 0 {
		t0 = t0.Add(hours(60) - 30*time.Hour)
		add(respond.T0Corrected, respond.Data{At: t0})
	}
	at := t0
	measure := func() {
		for r.IntN(3) > 0 {
			add(respond.MeasureAvailable, respond.Data{At: t0.Add(hours(900) - 200*time.Hour), Note: "m"})
		}
		if r.IntN(6) == 0 {
			add(respond.MeasureWithdrawn, respond.Data{At: t0.Add(hours(900)), Note: "w"})
		}
	}
	measure()
	for _, st := range []struct {
		stage respond.Stage
		hours int
	}{{respond.EarlyWarning, 40}, {respond.Notification, 80}, {respond.Final, 1000}} {
		if r.IntN(5) == 0 {
			break
		}
		if st.stage != respond.EarlyWarning && r.IntN(4) == 0 {
			add(respond.CoveredByEarlier, respond.Data{Stage: st.stage})
			continue
		}
		if r.IntN(4) == 0 { // one that failed
			add(respond.SubmissionFailed, respond.Data{Attempt: add(respond.SubmissionAttempted, respond.Data{Stage: st.stage, At: at.Add(hours(10))}), Note: "f"})
		}
		at = at.Add(hours(st.hours))
		add(respond.SubmissionAccepted, respond.Data{Attempt: add(respond.SubmissionAttempted, respond.Data{Stage: st.stage, At: at, Note: "n"}), Receipt: "R"})
		if r.IntN(12) == 0 {
			add(respond.Invalidated, respond.Data{Stage: st.stage, At: at.Add(hours(20)), Note: "i"})
			break
		}
	}
	measure()
	for r.IntN(3) == 0 {
		add(respond.UsersInformed, respond.Data{At: t0.Add(hours(50)), Audience: "impacted", Note: "u"})
	}
	for r.IntN(4) == 0 {
		asked := t0.Add(hours(500))
		n := add(respond.InterimRequested, respond.Data{At: asked, Due: asked.Add(hours(300) + time.Millisecond), Note: "q"})
		if r.IntN(2) == 0 {
			add(respond.InterimAnswered, respond.Data{At: asked.Add(hours(400)), Request: n, Note: "a"})
		}
	}
	return kind, events, respond.Targets{EarlyWarningHours: 1 + r.IntN(24), NotificationHours: 1 + r.IntN(72), FinalDays: 1 + r.IntN(14), UsersHours: 1 + r.IntN(24), AssessmentHours: 1}
}

// readJSON turns the platform's events into the verifier's by way of the JSON that the log holds.
func readJSON(tb testing.TB, events []respond.Event) []verify.Event {
	tb.Helper()
	b, err := json.Marshal(events)
	if err != nil {
		tb.Fatal(err)
	}
	var out []verify.Event
	if err := json.Unmarshal(b, &out); err != nil {
		tb.Fatal(err)
	}
	return out
}

// same is that without JSON, for speed.
func same(events []respond.Event) []verify.Event {
	out := make([]verify.Event, len(events))
	for i, e := range events {
		d := e.Data
		out[i] = verify.Event{Seq: e.Seq, Kind: string(e.Kind), Actor: e.Actor, Data: verify.EventData{At: d.At, Due: d.Due, Stage: string(d.Stage), Attempt: d.Attempt, Request: d.Request,
			Coordinator: d.Coordinator, Of: string(d.Of), Note: d.Note}}
	}
	return out
}

// TestTheVerifierAgrees: the verifier and the platform, which share no code, give the same deadlines and the same verdicts for
// a hundred thousand random cases (1,000,000 in the measurements of decision 0056). One in fifty goes through the JSON of the log.
func TestTheVerifierAgrees(t *testing.T) {
	const cases = 100_000
	states := law.MemberStates()
	r := rand.New(rand.NewPCG(2026, 11))
	now := time.Date(2061, 1, 1, 0, 0, 0, 0, time.UTC) // everything has ended
	seen, wrong := map[verify.Verdict]int{}, 0
	for i := range cases {
		kind, events, limits := randomCase(r, states)
		s := respond.Fold(kind, events)
		want := respond.Clocks(s, s.Zone(), limits)
		read := same(events)
		if i%50 == 0 {
			read = readJSON(t, events)
		}
		got := verify.Deadlines(string(kind), read, limitsOf(limits), now)
		if diff := differs(want, got, seen); diff != "" {
			if wrong++; wrong < 5 {
				t.Errorf("%s: %s\n%+v", kind, diff, events)
			}
		}
	}
	if wrong > 0 {
		t.Fatalf("%d of %d cases differ", wrong, cases)
	}
	t.Logf("0 differences in %d cases; verdicts %v", cases, seen)
	for _, v := range []verify.Verdict{verify.OnTime, verify.Late, verify.Undetermined} {
		if seen[v] < cases/10 {
			t.Errorf("only %d deadlines were %s", seen[v], v)
		}
	}
}

func limitsOf(l respond.Targets) verify.Limits {
	return verify.Limits{EarlyWarningHours: int64(l.EarlyWarningHours), NotificationHours: int64(l.NotificationHours), FinalDays: int64(l.FinalDays), UsersHours: int64(l.UsersHours)}
}

func differs(want []respond.Deadline, got []verify.Deadline, seen map[verify.Verdict]int) string {
	if len(want) != len(got) {
		return fmt.Sprintf("%d and %d deadlines", len(want), len(got))
	}
	for i, w := range want {
		g := got[i]
		late := w.Late || w.Met.IsZero() && !w.Due.IsZero()
		seen[g.Verdict]++
		if string(w.Stage) != g.Stage || w.Request != g.Request || !w.Due.Equal(g.Due) || !w.NominalEnd.Equal(g.NominalEnd) || !w.ReliefEnd.Equal(g.ReliefEnd) || !w.Counter.Equal(g.Counter) ||
			!w.WorkBy.Equal(g.WorkBy) || !w.Met.Equal(g.Met) || !w.Anchor.Equal(g.Anchor) || late != (g.Verdict == verify.Late) || (w.Undetermined != "") != (g.Verdict == verify.Undetermined) ||
			!slices.Equal(w.Rules, g.Rules) {
			return fmt.Sprintf("%s: the platform says %+v, the verifier %+v", w.Stage, w, g)
		}
	}
	return ""
}
