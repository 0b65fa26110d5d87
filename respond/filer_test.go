// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// TestFilingsAreCounted: what somebody filed in cases, and nothing of a drill; at the twentieth the console says that they
// need to be verified, and who files instead.
func TestFilingsAreCounted(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		h.cfg.Rota.Turn = func(context.Context, string) ([]string, error) { return []string{"per_bob", "per_ann"}, nil }
		pages, _ := h.doors(t, ann)
		for _, who := range []context.Context{ann, bob} {
			if err := h.SetFiler(who, true, Primary, false); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.SetFiler(ann, true, "chief", false); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("another role: %v", err)
		}
		d := h.rehearse(t)
		if _, err := h.AppendDrill(ann, d.ID, SubmissionAttempted, Data{Stage: EarlyWarning, At: h.hand.Now()}); err != nil {
			t.Fatal(err)
		}
		ready := func(wants ...string) {
			t.Helper()
			_, body, _ := do(t, pages, "GET", "/readiness", "", "")
			for _, want := range wants {
				if !strings.Contains(body, want) {
					t.Errorf("/readiness does not say %q:\n%s", want, body)
				}
			}
		}
		ready("per_bob files next, per_ann is the deputy.", "0 of 20")
		for range unverifiedFilings {
			id := h.declared(t)
			if _, err := h.Append(bob, id, SubmissionAttempted, Data{Stage: EarlyWarning, At: h.hand.Now(), Deviation: "only the count matters here"}); err != nil {
				t.Fatal(err)
			}
		}
		fs, err := h.Filers(ann)
		if err != nil || len(fs) != 2 || fs[0].Filed+fs[1].Filed != unverifiedFilings {
			t.Fatalf("%+v %v", fs, err)
		}
		ready("per_ann files; there is no deputy.", "per_bob has filed 20 times and is not verified", "20 of 20")
		if code, body, _ := do(t, pages, "POST", "/readiness/filer", "application/x-www-form-urlencoded", url.Values{"can": {"yes"}, "role": {"secondary"}, "verified": {"yes"}}.Encode()); code != 303 {
			t.Fatalf("%d %s", code, body)
		}
		ready(`value="secondary" checked`)
		id := h.declared(t)
		e, err := h.Append(bob, id, SubmissionAttempted, Data{Stage: EarlyWarning, At: h.hand.Now(), Deviation: "x"})
		if err == nil {
			_, err = h.Append(ann, id, SubmissionAccepted, Data{Attempt: e.Seq, Receipt: "SRP-1"})
		}
		c, bad := h.Case(ann, id)
		if err != nil || bad != nil {
			t.Fatal(err, bad)
		}
		if line, err := h.Line(ann, c); err != nil || len(line) != 0 {
			t.Errorf("a secondary representative continues what somebody else filed: %+v %v", line, err)
		}
		if err := h.SetFiler(bob, true, Primary, true); err != nil {
			t.Fatal(err)
		}
		if line, err := h.Line(ann, c); err != nil || len(line) != 1 || line[0].Person != "per_bob" {
			t.Errorf("%+v %v", line, err)
		}
	})
}

// TestADrillIsScoredByItsCall: until a person answered, and only when it called.
func TestADrillIsScoredByItsCall(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		if _, err := h.StartDrill(ann, h.product, AEV, "x", true); !problem.Is(err, problem.KindUnavailable) {
			t.Errorf("without a rota: %v", err)
		}
		rang := map[string]Rang{}
		refuse := problem.Forbidden("oncall.real", "Somebody is being called in earnest.")
		var no error = refuse
		h.cfg.Rota = Rota{
			Ring: func(_ *store.Tx, _, drill, title, link string) error {
				if title != "a log of a break-in" || link != "/drills/"+drill {
					t.Errorf("%q %q", title, link)
				}
				rang[drill] = Rang{At: h.hand.Now(), People: []string{"per_bob"}}
				return no
			},
			Hush: func(_ *store.Tx, _, drill string) error {
				r := rang[drill]
				r.End = "over"
				rang[drill] = r
				return nil
			},
			Rang: func(_ context.Context, _, drill string) (Rang, error) { return rang[drill], nil },
		}
		if _, err := h.StartDrill(ann, h.product, AEV, "a log of a break-in", true); problem.Of(err).Rule != "oncall.real" {
			t.Errorf("%v", err)
		}
		if ds, err := h.Drills(ann, "", 10); err != nil || len(ds) != 0 {
			t.Errorf("a drill that could not call began: %+v %v", ds, err)
		}
		no = nil
		quiet, err := h.StartDrill(ann, h.product, AEV, "a log of a break-in", false)
		if err != nil || quiet.Calls || quiet.Call != nil || quiet.Score.Of != 5 {
			t.Fatalf("%+v %v", quiet, err)
		}
		d, err := h.StartDrill(ann, h.product, AEV, "a log of a break-in", true)
		if err != nil || !d.Calls || d.Score.Of != 6 || d.Score.Answer.Reached() {
			t.Fatalf("%+v %v", d, err)
		}
		for _, c := range []struct {
			after time.Duration
			done  bool
		}{{15 * time.Minute, true}, {16 * time.Minute, false}} {
			r := rang[d.ID]
			r.Answered, r.AnsweredBy = r.At.Add(c.after), "per_bob"
			rang[d.ID] = r
			d, err := h.Drill(ann, d.ID)
			if err != nil || d.Score.Answer.Span() != c.after || d.Score.Marks[0].Done != c.done {
				t.Errorf("%s: %+v %v", c.after, d.Score, err)
			}
		}
		if _, err := h.EndDrill(ann, d.ID, "We were asleep."); err != nil || rang[d.ID].End != "over" {
			t.Errorf("the call goes on after the drill: %+v %v", rang[d.ID], err)
		}
	})
}

// TestWhatEndsADuty is announced when its clock stops, once, and for every clock that runs when the case is closed.
func TestWhatEndsADuty(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		var mu sync.Mutex // jobs run side by side
		var ended []string
		h.db.On(TopicDutyEnded, "test", func(_ context.Context, e store.Event) error {
			var d DutyEnded
			if err := e.Decode(&d); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			ended = append(ended, string(d.Stage))
			return nil
		})
		decided := 0
		h.db.On(TopicDecided, "test", func(context.Context, store.Event) error {
			mu.Lock()
			defer mu.Unlock()
			decided++
			return nil
		})
		id := h.declared(t)
		e, err := h.Append(ann, id, SubmissionAttempted, Data{Stage: EarlyWarning, At: h.hand.Now(), Deviation: "x"})
		if err != nil {
			t.Fatal(err)
		}
		h.jobs(t)
		if len(ended) != 0 || decided != 1 {
			t.Fatalf("sent is no state: %v; decided %d times", ended, decided)
		}
		if _, err := h.Append(bob, id, SubmissionAccepted, Data{Attempt: e.Seq, Receipt: "SRP-1"}); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Append(ann, id, UsersInformed, Data{At: h.hand.Now(), Note: "mail", Audience: "impacted"}); err != nil {
			t.Fatal(err)
		}
		h.jobs(t)
		if strings.Join(ended, " ") != "early_warning users" && strings.Join(ended, " ") != "users early_warning" {
			t.Errorf("%v", ended)
		}
		ended = nil
		if _, err := h.Append(ann, h.declared(t), Withdrawn, Data{Note: "another product"}); err != nil {
			t.Fatal(err)
		}
		h.jobs(t)
		slices.Sort(ended)
		if strings.Join(ended, " ") != "early_warning notification users" {
			t.Errorf("%v", ended)
		}
	})
}
