// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// rehearse brings a drill to a decision, with an early warning that is complete.
func (h house) rehearse(t *testing.T) Drill {
	t.Helper()
	d, err := h.StartDrill(ann, h.product, AEV, "a customer sends the log of a break-in", false)
	if err != nil {
		t.Fatal(err)
	}
	h.hand.Advance(20 * time.Minute)
	d, err = h.AppendDrill(ann, d.ID, T0Set, Data{At: h.hand.Now(), Note: "the log shows a shell", Title: "Shell on sensors", Summary: "Somebody got a shell.", Coordinator: "DE", MemberStates: []string{"DE"}})
	if err != nil {
		t.Fatal(err)
	}
	h.hand.Advance(time.Minute)
	p, err := h.DrillPack(ann, d.ID, EarlyWarning)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for _, f := range p.Fields {
		switch {
		case f.Fault != "missing":
		case f.Form == law.Choice:
			fields[f.ID] = f.Options[0]
		default:
			fields[f.ID] = "known"
		}
	}
	if len(fields) > 0 {
		if d, err = h.AppendDrill(ann, d.ID, FieldsFilled, Data{Fields: fields}); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// TestDrill goes from a scenario to a confirmed early warning and is scored by what happened when.
func TestDrill(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		h.hand.Set(time.Date(2026, 11, 21, 23, 0, 0, 0, time.UTC)) // Saturday night
		d := h.rehearse(t)
		h.hand.Advance(2 * time.Minute)
		d, err := h.AppendDrill(ann, d.ID, SubmissionAttempted, Data{Stage: EarlyWarning, At: h.hand.Now()})
		if err != nil {
			t.Fatal(err)
		}
		attempt := d.Events[len(d.Events)-1].Seq
		h.hand.Advance(10 * time.Minute)
		for name, c := range map[string]struct {
			who     context.Context
			receipt string
		}{"the same person": {ann, "DRILL-1"}, "a receipt like a real one": {bob, "SRP-2026-1"}, "no receipt": {bob, ""}} {
			if _, err := h.AppendDrill(c.who, d.ID, SubmissionAccepted, Data{Attempt: attempt, Receipt: c.receipt}); !problem.Is(err, problem.KindForbidden) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if d, err = h.AppendDrill(bob, d.ID, SubmissionAccepted, Data{Attempt: attempt, Receipt: "DRILL-1"}); err != nil {
			t.Fatal(err)
		}
		if d, err = h.AppendDrill(bob, d.ID, UsersInformed, Data{At: h.hand.Now(), Audience: "impacted", Note: "by mail"}); err != nil {
			t.Fatal(err)
		}
		if d, err = h.EndDrill(bob, d.ID, "The login was on a telephone that nobody had."); err != nil {
			t.Fatal(err)
		}
		s := d.Score
		if s.Decide != 20*60 || s.Pack != 3*60 || s.Second != 10*60 || s.Points != 5 || s.Of != 5 || !d.OffHours {
			t.Errorf("%+v, off hours %v", s, d.OffHours)
		}
		if _, err := h.AppendDrill(ann, d.ID, Described, Data{Title: "Later"}); !problem.Is(err, problem.KindConflict) {
			t.Errorf("after its end: %v", err)
		}
	})
}

// TestADrillIsNoCase: nobody who asks for cases, clocks, alarms or events of cases is answered with a drill.
func TestADrillIsNoCase(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		heard := 0
		for _, topic := range []string{"case.opened", "case.deadline", "case.closed"} {
			h.db.On(topic, "test", func(context.Context, store.Event) error { heard++; return nil })
		}
		d := h.rehearse(t)
		h.hand.Advance(100 * 24 * time.Hour)
		h.jobs(t)
		cs, err := h.Cases(ann, false, "", 100)
		if err != nil || len(cs) != 0 || heard != 0 {
			t.Errorf("%d cases, %d events, %v", len(cs), heard, err)
		}
		if _, err := h.Case(ann, d.ID); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("the drill as a case: %v", err)
		}
		if _, err := h.Append(ann, d.ID, Described, Data{Title: "x"}); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("an event of a case: %v", err)
		}
		if _, err := h.Pack(ann, d.ID, EarlyWarning); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("a pack of a case: %v", err)
		}
		id := h.declared(t)
		if _, err := h.AppendDrill(ann, id, Described, Data{Title: "x"}); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("a case as a drill: %v", err)
		}
		p, err := h.DrillPack(ann, d.ID, "")
		if err != nil || !p.Drill || p.Case != d.ID {
			t.Errorf("%+v %v", p, err)
		}
		b, err := p.Canonical()
		if err != nil || !strings.Contains(string(b), `"drill":true`) {
			t.Errorf("%s %v", b, err)
		}
	})
}

// TestDrillRefused: by the rules of cases, and by those of drills.
func TestDrillRefused(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		rival := tenant.WithActor(context.Background(), tenant.Actor{ID: "per_x", Kind: tenant.KindPerson, Tenant: "ten_rival", Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: "ten_rival"}}})
		program := tenant.WithActor(context.Background(), tenant.Actor{ID: "tok_1", Kind: tenant.KindToken, Tenant: maker, Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: maker}}})
		if _, err := h.StartDrill(program, h.product, AEV, "x", false); !problem.Is(err, problem.KindForbidden) {
			t.Errorf("a program begins one: %v", err)
		}
		if _, err := h.StartDrill(rival, h.product, AEV, "x", false); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("about another's product: %v", err)
		}
		if _, err := h.StartDrill(ann, h.product, "", "x", false); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("about nothing: %v", err)
		}
		d, err := h.StartDrill(ann, h.product, SI, "the signing key is on a forum", false)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Drill(rival, d.ID); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("another tenant reads it: %v", err)
		}
		if _, err := h.AppendDrill(ann, d.ID, SubmissionAttempted, Data{Stage: EarlyWarning, At: h.hand.Now()}); !problem.Is(err, problem.KindConflict) {
			t.Errorf("submitted before a decision: %v", err)
		}
		if d, err = h.AppendDrill(ann, d.ID, T0Set, Data{At: h.hand.Now(), Note: "seen", Title: "Key", Coordinator: "DE"}); err != nil {
			t.Fatal(err)
		}
		if _, err := h.AppendDrill(ann, d.ID, SubmissionAttempted, Data{Stage: EarlyWarning, At: h.hand.Now()}); !problem.Is(err, problem.KindForbidden) || problem.Of(err).Rule != "respond.pack" {
			t.Errorf("an incomplete early warning: %v", err)
		}
		for _, k := range []EventKind{Closed, Withdrawn, DeadlineSoon, PECInvoked, "x"} {
			if _, err := h.AppendDrill(ann, d.ID, k, Data{At: h.hand.Now(), Note: "x"}); !problem.Is(err, problem.KindInvalid) {
				t.Errorf("%s: %v", k, err)
			}
		}
		if _, err := h.EndDrill(ann, d.ID, " "); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("ended without a lesson: %v", err)
		}
	})
}

// TestReadiness: what is missing is said until it is there, and a drill grows old.
func TestReadiness(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		h.cfg.Ready = append(h.cfg.Ready, func(context.Context, string) ([]Ready, error) {
			return []Ready{{Text: "Somebody is on call", Done: true}}, nil
		})
		want := func(when string, done ...string) {
			t.Helper()
			r, err := h.Readiness(ann)
			if err != nil || r.Of != 4 || r.Done != len(done)+1 {
				t.Fatalf("%s: %+v %v", when, r, err)
			}
			for _, i := range r.Items {
				is := i.Text == "Somebody is on call"
				for _, d := range done {
					is = is || strings.Contains(i.Text, d)
				}
				if i.Done != is {
					t.Errorf("%s: %q is %v", when, i.Text, i.Done)
				}
			}
		}
		want("at first")
		for _, who := range []context.Context{ann, ann} {
			if err := h.SetFiler(who, true, "", false); err != nil {
				t.Fatal(err)
			}
		}
		want("one person twice")
		if err := h.SetFiler(bob, true, "", false); err != nil {
			t.Fatal(err)
		}
		want("two people", "EU Login")
		d := h.rehearse(t)
		if _, err := h.EndDrill(ann, d.ID, "stopped"); err != nil {
			t.Fatal(err)
		}
		want("a drill that came to nothing", "EU Login")
		d = h.rehearse(t)
		if d, err := h.AppendDrill(ann, d.ID, SubmissionAttempted, Data{Stage: EarlyWarning, At: h.hand.Now()}); err != nil {
			t.Fatal(err)
		} else if _, err := h.AppendDrill(bob, d.ID, SubmissionAccepted, Data{Attempt: d.Events[len(d.Events)-1].Seq, Receipt: "DRILL-7"}); err != nil {
			t.Fatal(err)
		} else if _, err := h.EndDrill(ann, d.ID, "all well"); err != nil {
			t.Fatal(err)
		}
		want("a whole drill", "EU Login", "A drill")
		h.hand.Advance(DrillEvery)
		want("90 days later", "EU Login", "A drill")
		h.hand.Advance(time.Second)
		want("a second more", "EU Login")
		if err := h.SetFiler(bob, false, "", false); err != nil {
			t.Fatal(err)
		}
		want("one left")
	})
}

// TestDrillPages walks a drill by forms alone.
func TestDrillPages(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		pages, _ := h.doors(t, ann)
		second, _ := h.doors(t, bob)
		const form = "application/x-www-form-urlencoded"
		post := func(who string, path string, v url.Values) string {
			t.Helper()
			door := pages
			if who == "bob" {
				door = second
			}
			code, body, to := do(t, door, "POST", path, form, v.Encode())
			if code != 303 {
				t.Fatalf("%s: %d\n%s", path, code, body)
			}
			return to
		}
		get := func(path string, wants ...string) string {
			t.Helper()
			code, body, _ := do(t, pages, "GET", path, "", "")
			if code != 200 {
				t.Fatalf("%s: %d\n%s", path, code, body)
			}
			for _, want := range wants {
				if !strings.Contains(body, want) {
					t.Errorf("%s does not say %q:\n%s", path, want, body)
				}
			}
			return body
		}
		get("/drills", "Nobody has rehearsed yet")
		path := post("ann", "/drills", url.Values{"product": {h.product}, "kind": {"aev"}, "scenario": {"a log of a break-in"}})
		get(path, "DRILL", "Would you declare to be aware?")
		get("/", "DRILL", "a log of a break-in")
		at := h.hand.Now().Format(time.RFC3339)
		post("ann", path+"/events", url.Values{"kind": {"t0.set"}, "title": {"Shell"}, "summary": {"Somebody has one."}, "note": {"a log"}, "at": {at}, "coordinator": {"DE"}, "member_states": {"DE"}})
		body := get(path, "DRILL")
		fields := url.Values{"kind": {"fields.filled"}}
		for _, part := range strings.Split(body, `name="field.`)[1:] {
			id, _, _ := strings.Cut(part, `"`)
			fields.Set("field."+id, "known")
		}
		if len(fields) > 1 {
			post("ann", path+"/events", fields)
		}
		get(path, "The early warning is complete.", "Nothing is sent.")
		post("ann", path+"/events", url.Values{"kind": {"submission.attempted"}, "stage": {"early_warning"}, "at": {at}})
		body = get(path, "A second person")
		_, rest, _ := strings.Cut(body, `name="attempt" value="`)
		attempt, _, _ := strings.Cut(rest, `"`)
		post("bob", path+"/events", url.Values{"kind": {"submission.accepted"}, "attempt": {attempt}, "receipt": {"DRILL-1"}})
		post("ann", path+"/end", url.Values{"lesson": {"It went well."}})
		get(path, "Score: 4 of 5", "It went well.")
		get("/drills", "4 of 5")
		post("ann", "/readiness/filer", url.Values{"can": {"yes"}})
		get("/readiness", "2 people have an EU Login", "1 said so", "A drill came to a confirmed early warning")
	})
}
