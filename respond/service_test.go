// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/alarm"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/vuln"
)

var schema = []store.Migrations{audit.Schema, product.Schema, Schema}

// house is the room with its real neighbours.
type house struct {
	*Service
	db      *store.DB
	hand    *clock.Hand
	product string
}

const maker = "ten_maker"

func signedIn(id string, role tenant.Role) context.Context {
	return tenant.WithActor(context.Background(), tenant.Actor{ID: id, Kind: tenant.KindPerson, Tenant: maker, Grants: []tenant.Grant{{Role: role, Tenant: maker}}})
}

var (
	ann = signedIn("per_ann", tenant.ComplianceOfficer)
	bob = signedIn("per_bob", tenant.ProductSecurityOfficer)
)

func each(t *testing.T, fn func(t *testing.T, h house)) {
	start := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	storetest.EachURL(t, func(t *testing.T, url string) {
		hand := clock.NewHand(start)
		fn(t, openHouse(t, url, hand, ""))
	})
}

func openHouse(t *testing.T, url string, hand *clock.Hand, productID string) house {
	db := storetest.Open(t, url, schema, func(c *store.Config) { c.Clock = hand })
	ps := product.New(product.Config{DB: db, Clock: hand})
	h := house{Service: New(Config{DB: db, Products: ps, Keys: keys(t, hand)}), db: db, hand: hand, product: productID}
	if productID == "" {
		p, err := ps.Create(t.Context(), product.Product{Tenant: maker, Name: "Sensor", Model: "s1"}, "per_ann")
		if err != nil {
			t.Fatal(err)
		}
		h.product = p.ID
	}
	return h
}

func (h house) assessed(t *testing.T) Assessment {
	t.Helper()
	sig, err := h.AddSignal(ann, Signal{Product: h.product, Title: "shells on sensors", Ref: "CVE-2026-1", Exploited: "yes"})
	if err != nil {
		t.Fatal(err)
	}
	as, err := h.Assess(ann, sig.ID, "")
	if err != nil {
		t.Fatal(err)
	}
	return as
}

func (h house) aware(aev, si bool) Declaration {
	return Declaration{Verdict: Aware, Basis: "three units with a shell, images kept", AEV: &aev, SI: &si, T0: h.hand.Now().Add(-time.Hour), Title: "Shells on sensors", Summary: "A shell was opened on three sensors.", Coordinator: "DE",
		MemberStates: []string{"DE"}, Fields: map[string]string{"versions": "1.0"}}
}

func (h house) declared(t *testing.T) string {
	t.Helper()
	_, cases, err := h.Decide(ann, h.assessed(t).ID, h.aware(true, false))
	if err != nil || len(cases) != 1 {
		t.Fatalf("%v, cases %v", err, cases)
	}
	return cases[0]
}

func (h house) jobs(t *testing.T) {
	t.Helper()
	if _, err := h.db.RunDue(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func count(events []Event, k EventKind, st Stage) (n int) {
	for _, e := range events {
		if e.Kind == k && e.Data.Stage == st {
			n++
		}
	}
	return n
}

// TestWholeCase goes from a signal to a closed case.
func TestWholeCase(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		id := h.declared(t)
		submit := func(st Stage) {
			t.Helper()
			h.written(t, id, st)
			e, err := h.Append(ann, id, SubmissionAttempted, Data{Stage: st, At: h.hand.Now()})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := h.Append(ann, id, SubmissionAccepted, Data{Attempt: e.Seq, Receipt: "SRP-1"}); problem.Of(err).Rule != "respond.second-person" {
				t.Fatalf("the submitter confirmed the receipt: %v", err)
			}
			if _, err := h.Append(bob, id, SubmissionAccepted, Data{Attempt: e.Seq, Receipt: "SRP-1"}); err != nil {
				t.Fatal(err)
			}
		}
		c, err := h.Case(bob, id)
		if err != nil {
			t.Fatal(err)
		}
		if c.Next != EarlyWarning || c.ProductName != "Sensor" || c.Zone != "Europe/Berlin" || c.Ref != "CVE-2026-1" || c.Glossary == "" {
			t.Errorf("%+v", c)
		}
		expect(t, "early warning", clockOf(t, c.Clocks, EarlyWarning).Due, "2026-11-22T11:00:00Z")
		submit(EarlyWarning)
		h.hand.Advance(time.Hour)
		submit(Notification)
		if _, err := h.Append(ann, id, MeasureAvailable, Data{At: h.hand.Now(), Note: "release 1.1"}); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Append(ann, id, UsersInformed, Data{At: h.hand.Now(), Note: "mail", Audience: "impacted"}); err != nil {
			t.Fatal(err)
		}
		c, _ = h.Case(ann, id)
		expect(t, "final report", clockOf(t, c.Clocks, Final).Due, "2026-12-05T13:00:00Z")
		submit(Final)
		if _, err := h.Append(ann, id, Closed, Data{Note: "all done"}); err != nil {
			t.Fatal(err)
		}
		c, _ = h.Case(ann, id)
		if c.Status != "closed" || c.Next != "" {
			t.Errorf("status %q, next %q", c.Status, c.Next)
		}
		open, err := h.Cases(ann, true, "", 10)
		if err != nil || len(open) != 0 {
			t.Errorf("open: %v, %v", open, err)
		}
		var leaves int
		if err := h.db.QueryRow(t.Context(), `SELECT count(*) FROM audit_entry WHERE subject = $1`, id).Scan(&leaves); err != nil || leaves != len(c.Events) {
			t.Errorf("%d leaves for %d events, %v", leaves, len(c.Events), err)
		}
	})
}

// TestAlarmOpensASignal: an alarm is one signal if its rule asks for it, however often it is announced; otherwise none.
func TestAlarmOpensASignal(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		for _, x := range []alarm.Raised{{Name: "Break-in", Value: "5 × login-failed", Signal: true}, {Name: "Break-in", Value: "5 × login-failed", Signal: true}, {Name: "Too hot"}} {
			x.Product, x.Device = h.product, "dev_1"
			subject := "alm_1"
			if !x.Signal {
				subject = "alm_2"
			}
			if err := h.db.Write(t.Context(), func(tx *store.Tx) error { return h.db.Emit(tx, "alarm.raised", maker, subject, x) }); err != nil {
				t.Fatal(err)
			}
		}
		h.jobs(t)
		ss, err := h.Signals(ann, "", 10)
		if err != nil || len(ss) != 1 || ss[0].Source != SourceAlarm || ss[0].Ref != "alm_1" || ss[0].Exploited != "unknown" {
			t.Fatalf("%+v, %v", ss, err)
		}
	})
}

// TestEventMakesOnlyASignal: what a feed finds is a signal, once, and opens no case.
func TestEventMakesOnlyASignal(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		for range 2 {
			err := h.db.Write(t.Context(), func(tx *store.Tx) error {
				return h.db.Emit(tx, "vuln.exploited", maker, "CVE-2026-1", vuln.Exploited{Group: "CVE-2026-1", ID: "vul_1", Product: h.product, Release: "rel_1", Version: "1.0"})
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		h.jobs(t)
		ss, err := h.Signals(ann, "", 10)
		if err != nil || len(ss) != 1 || ss[0].Source != SourceVuln || ss[0].Exploited != "unknown" {
			t.Fatalf("%+v, %v", ss, err)
		}
		if cs, err := h.Cases(ann, false, "", 10); err != nil || len(cs) != 0 {
			t.Errorf("a feed opened %v, %v", cs, err)
		}
		// Nor does the platform itself when it is asked to.
		as, err := h.Assess(ann, ss[0].ID, "")
		if err != nil {
			t.Fatal(err)
		}
		token := tenant.Actor{ID: "tok_feed", Kind: tenant.KindToken, Tenant: maker, Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: maker}}}
		for _, program := range []tenant.Actor{tenant.System(maker), token} {
			_, _, err = h.Decide(tenant.WithActor(t.Context(), program), as.ID, h.aware(true, false))
			if problem.Of(err).Rule != "respond.person-only" {
				t.Errorf("a program (%s) declared awareness: %v", program.Kind, err)
			}
		}
		program := tenant.WithActor(t.Context(), tenant.Actor{ID: "tok_1", Kind: tenant.KindToken, Tenant: maker, Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: maker}}})
		if _, _, err = h.Decide(program, as.ID, h.aware(true, false)); problem.Of(err).Rule != "respond.person-only" {
			t.Errorf("a program declared awareness: %v", err)
		}
		sig, err := h.AddSignal(program, Signal{Product: h.product, Title: "scanner says so"})
		if err != nil {
			t.Errorf("a program may send a signal: %v", err)
		}
		if _, err := h.Assess(program, sig.ID, ""); problem.Of(err).Rule != "respond.person-only" {
			t.Errorf("a program assessed its signal: %v", err)
		}
		if cs, _ := h.Cases(ann, false, "", 10); len(cs) != 0 {
			t.Error("a case was left behind")
		}
	})
}

// TestDecisionsAreFinal: both questions are asked, both cases linked, and an ended assessment takes no further decision.
func TestDecisionsAreFinal(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		as := h.assessed(t)
		d := h.aware(true, true)
		d.SI = nil
		if _, _, err := h.Decide(ann, as.ID, d); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("one question left open: %v", err)
		}
		if _, _, err := h.Decide(ann, as.ID, h.aware(false, false)); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("aware of nothing: %v", err)
		}
		w, _, err := h.Decide(bob, as.ID, Declaration{Verdict: Watch, Basis: "unclear"})
		if err != nil || !w.Again.Equal(h.hand.Now().Add(24*time.Hour)) {
			t.Fatalf("%+v, %v", w, err)
		}
		if sig, err := h.Signal(ann, as.Signal); err != nil || sig.Waiting(h.hand.Now()) || !sig.Waiting(w.Again) {
			t.Errorf("a watched signal waits when it must be looked at again: %v", err)
		}
		_, cases, err := h.Decide(ann, as.ID, h.aware(true, true))
		if err != nil || len(cases) != 2 {
			t.Fatalf("%v, %v", cases, err)
		}
		c, err := h.Case(ann, cases[0])
		if err != nil || c.Kind != AEV || len(c.Links) != 1 || c.Links[0] != cases[1] {
			t.Errorf("%+v, %v", c.Links, err)
		}
		if c, err := h.Case(ann, cases[1]); err != nil || c.Kind != SI || len(c.Links) != 1 || c.Links[0] != cases[0] {
			t.Errorf("%+v, %v", c.Links, err)
		}
		if _, _, err := h.Decide(ann, as.ID, Declaration{Verdict: Negative, Basis: "sorry"}); !problem.Is(err, problem.KindConflict) {
			t.Errorf("an ended assessment was decided again: %v", err)
		}
		if _, err := h.Assess(ann, as.Signal, "again"); !problem.Is(err, problem.KindConflict) {
			t.Errorf("assessed again after awareness: %v", err)
		}
	})
}

// TestNegativeCanBeAssessedAgain: new evidence opens a new assessment, and the old decision stays.
func TestNegativeCanBeAssessedAgain(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		as := h.assessed(t)
		if _, _, err := h.Decide(bob, as.ID, Declaration{Verdict: Negative, Basis: "code not linked"}); err != nil {
			t.Fatal(err)
		}
		again, err := h.Assess(bob, as.Signal, "the linker map shows it after all")
		if err != nil || again.ID == as.ID {
			t.Fatalf("%+v, %v", again, err)
		}
		sig, err := h.Signal(bob, as.Signal)
		if err != nil || sig.Assessment.ID != again.ID || !sig.Waiting(h.hand.Now()) {
			t.Errorf("%+v, %v", sig.Assessment, err)
		}
	})
}

// TestEscalatesOnce: near and over are written exactly once, over restarts, repeated jobs and two machines.
func TestEscalatesOnce(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		hand := clock.NewHand(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC))
		h := openHouse(t, url, hand, "")
		id := h.declared(t)
		hand.Advance(11*time.Hour + time.Minute) // T0 was an hour ago: the target of 12 hours is over
		h.jobs(t)
		h.jobs(t)
		c, err := h.Case(ann, id)
		if err != nil || count(c.Events, DeadlineSoon, EarlyWarning) != 1 || count(c.Events, DeadlineOverdue, EarlyWarning) != 0 {
			t.Fatalf("%v, %+v", err, c.Events)
		}
		h = openHouse(t, url, hand, h.product) // a second machine
		hand.Advance(12 * time.Hour)
		alarm := reminder{maker, id, Escalation{Stage: EarlyWarning, Level: DeadlineOverdue, At: clockOf(t, c.Clocks, EarlyWarning).Due.UnixMilli()}}
		for range 2 { // the same job, again
			err := h.db.Write(t.Context(), func(tx *store.Tx) error { return h.db.Enqueue(tx, jobEscalate, "", hand.Now(), alarm) })
			if err != nil {
				t.Fatal(err)
			}
		}
		h.jobs(t)
		c, _ = h.Case(ann, id)
		if count(c.Events, DeadlineOverdue, EarlyWarning) != 1 || count(c.Events, DeadlineOverdue, Notification) != 0 {
			t.Fatalf("%+v", c.Events)
		}
		// A correction of T0 moves the clock and leaves what was overdue on record.
		if _, err := h.Append(ann, id, T0Corrected, Data{At: hand.Now().Add(-time.Hour), Note: "first report was about another device"}); err != nil {
			t.Fatal(err)
		}
		c, _ = h.Case(ann, id)
		if d := clockOf(t, c.Clocks, EarlyWarning); !d.WasOverdue || d.Due.Before(hand.Now()) {
			t.Errorf("%+v", d)
		}
	})
}

// TestMetDutyIsNotEscalated: an accepted report silences its alarms.
func TestMetDutyIsNotEscalated(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		id := h.declared(t)
		e, err := h.Append(ann, id, SubmissionAttempted, Data{Stage: EarlyWarning, At: h.hand.Now()})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Append(bob, id, SubmissionAccepted, Data{Attempt: e.Seq, Receipt: "SRP-1"}); err != nil {
			t.Fatal(err)
		}
		h.hand.Advance(48 * time.Hour)
		h.jobs(t)
		c, _ := h.Case(ann, id)
		if count(c.Events, DeadlineSoon, EarlyWarning)+count(c.Events, DeadlineOverdue, EarlyWarning) != 0 {
			t.Errorf("%+v", c.Events)
		}
		if count(c.Events, DeadlineSoon, Notification) != 1 {
			t.Errorf("the notification is near and nobody was told: %+v", c.Events)
		}
	})
}

// TestNagsWeekly: without a measure the final report is called to mind each week, and no longer once there is one.
func TestNagsWeekly(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		id := h.declared(t)
		for _, st := range []Stage{EarlyWarning, Notification} {
			h.written(t, id, st)
			e, err := h.Append(ann, id, SubmissionAttempted, Data{Stage: st, At: h.hand.Now()})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := h.Append(bob, id, SubmissionAccepted, Data{Attempt: e.Seq, Receipt: "SRP-1"}); err != nil {
				t.Fatal(err)
			}
		}
		nags := func() int {
			t.Helper()
			h.jobs(t)
			c, err := h.Case(ann, id)
			if err != nil {
				t.Fatal(err)
			}
			return count(c.Events, DeadlineUnknown, Final)
		}
		for week := range 3 {
			if n := nags(); n != week {
				t.Fatalf("%d reminders after %d weeks", n, week)
			}
			h.hand.Advance(7 * 24 * time.Hour)
		}
		if _, err := h.Append(ann, id, MeasureAvailable, Data{At: h.hand.Now(), Note: "release 1.1"}); err != nil {
			t.Fatal(err)
		}
		h.hand.Advance(8 * 24 * time.Hour)
		if n := nags(); n != 2 {
			t.Errorf("%d reminders with a measure on record", n)
		}
	})
}

// TestWhoMay: rights are checked against the product, and another tenant sees nothing.
func TestWhoMay(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		as := h.assessed(t)
		id := h.declared(t)
		reader := signedIn("per_eve", tenant.Auditor)
		stranger := tenant.WithActor(t.Context(), tenant.Actor{ID: "per_mal", Kind: tenant.KindPerson, Tenant: "ten_other", Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: "ten_other"}}})
		elsewhere := tenant.WithActor(t.Context(), tenant.Actor{ID: "per_sam", Kind: tenant.KindPerson, Tenant: maker, Grants: []tenant.Grant{{Role: tenant.ProductSecurityOfficer, Tenant: maker, Product: "prd_other"}}})
		if _, _, err := h.Decide(reader, as.ID, h.aware(true, false)); !problem.Is(err, problem.KindForbidden) {
			t.Errorf("an auditor declared awareness: %v", err)
		}
		if _, err := h.Append(elsewhere, id, MeasureAvailable, Data{At: h.hand.Now(), Note: "x"}); !problem.Is(err, problem.KindForbidden) {
			t.Errorf("another product's officer worked on the case: %v", err)
		}
		if _, err := h.Case(stranger, id); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("another tenant read the case: %v", err)
		}
		if _, err := h.Assess(stranger, as.Signal, ""); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("another tenant assessed the signal: %v", err)
		}
		if cs, err := h.Cases(elsewhere, false, "", 10); err != nil || len(cs) != 0 {
			t.Errorf("another product's officer listed %d cases, %v", len(cs), err)
		}
		if cs, err := h.Cases(reader, false, "", 10); err != nil || len(cs) != 1 {
			t.Errorf("the auditor sees %d cases, %v", len(cs), err)
		}
	})
}
