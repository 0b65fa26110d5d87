// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// TestIdleSignalEscalates: a signal that nobody decides tells people, and again each day; opening an assessment buys no
// time, a watched signal is called to mind when its day is over, and a decision ends it.
func TestIdleSignalEscalates(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		told := func() (n int) {
			t.Helper()
			h.jobs(t)
			if err := h.db.QueryRow(t.Context(), `SELECT count(*) FROM respond_idle`).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		sig, err := h.AddSignal(ann, Signal{Product: h.product, Title: "shells on sensors"})
		if err != nil {
			t.Fatal(err)
		}
		h.hand.Advance(time.Hour)
		as, err := h.Assess(ann, sig.ID, "")
		if err != nil {
			t.Fatal(err)
		}
		h.hand.Advance(7*time.Hour - time.Minute)
		if n := told(); n != 0 {
			t.Fatalf("told %d times before its time", n)
		}
		h.hand.Advance(time.Minute)
		for range 3 {
			if n := told(); n != 1 {
				t.Fatalf("told %d times, want once", n)
			}
		}
		h.hand.Set(h.hand.Now().Add(-3 * time.Hour)) // a clock step
		if n := told(); n != 1 {
			t.Fatalf("told %d times after the clock was set back", n)
		}
		h.hand.Advance(3*time.Hour + 24*time.Hour)
		if n := told(); n != 2 {
			t.Fatalf("told %d times, want again after a day", n)
		}
		h.hand.Advance(10 * 24 * time.Hour) // it stood still; ten days are told once
		if n := told(); n != 3 {
			t.Fatalf("told %d times after ten days of standstill", n)
		}
		if _, _, err := h.Decide(bob, as.ID, Declaration{Verdict: Watch, Basis: "unclear"}); err != nil {
			t.Fatal(err)
		}
		if n := told(); n != 3 {
			t.Fatalf("told %d times while it is watched", n)
		}
		h.hand.Advance(24 * time.Hour)
		if n := told(); n != 4 {
			t.Fatalf("told %d times, want again when the watch is over", n)
		}
		if _, _, err := h.Decide(bob, as.ID, Declaration{Verdict: Negative, Basis: "not linked", Reason: NotReachable}); err != nil {
			t.Fatal(err)
		}
		h.hand.Advance(9 * 24 * time.Hour)
		if n := told(); n != 4 {
			t.Fatalf("told %d times after the decision", n)
		}
	})
}

// TestTighterLimitRingsEarlier: a limit that was tightened holds for what waits already.
func TestTighterLimitRingsEarlier(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		sig, err := h.AddSignal(ann, Signal{Product: h.product, Title: "x"})
		if err != nil {
			t.Fatal(err)
		}
		id := h.declared(t)
		if err := h.SetTargets(ann, Targets{AssessmentHours: 1, UsersHours: 2}); err != nil {
			t.Fatal(err)
		}
		if sig, err = h.Signal(ann, sig.ID); err != nil || !sig.DecideBy.Equal(sig.Intake.Add(time.Hour)) {
			t.Errorf("decide by %s, %v", sig.DecideBy, err)
		}
		h.hand.Advance(time.Hour)
		h.jobs(t)
		var n int
		if err := h.db.QueryRow(t.Context(), `SELECT count(*) FROM respond_idle WHERE signal = $1`, sig.ID).Scan(&n); err != nil || n != 1 {
			t.Errorf("told %d times, %v", n, err)
		}
		c, err := h.Case(ann, id)
		if err != nil || count(c.Events, DeadlineOverdue, Users) != 1 { // T0 was an hour before
			t.Errorf("users: %v, %+v", err, c.Events)
		}
	})
}

// TestNewEvidenceReopens: a signal that was judged is assessed again only for new evidence, which the assessment names; the
// decisions before stay, and are made no more in the old one.
func TestNewEvidenceReopens(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		for _, first := range []Verdict{Watch, Negative} {
			as := h.assessed(t)
			if _, _, err := h.Decide(bob, as.ID, Declaration{Verdict: first, Basis: "code not linked"}); err != nil {
				t.Fatal(err)
			}
			if _, err := h.Assess(ann, as.Signal, ""); !problem.Is(err, problem.KindInvalid) {
				t.Errorf("%s: reopened without evidence: %v", first, err)
			}
			again, err := h.Assess(ann, as.Signal, "log of a customer")
			if err != nil || again.Evidence != "log of a customer" || again.ID == as.ID {
				t.Fatalf("%+v, %v", again, err)
			}
			if _, _, err := h.Decide(bob, as.ID, Declaration{Verdict: Watch, Basis: "still"}); !problem.Is(err, problem.KindConflict) {
				t.Errorf("%s: decided in the old assessment: %v", first, err)
			}
			if _, cases, err := h.Decide(ann, again.ID, h.aware(true, false)); err != nil || len(cases) != 1 {
				t.Errorf("%v, %v", cases, err)
			}
			var n int
			if err := h.db.QueryRow(t.Context(), `SELECT count(*) FROM respond_decision WHERE assessment = $1`, as.ID).Scan(&n); err != nil || n != 1 {
				t.Errorf("%d decisions are left, %v", n, err)
			}
		}
	})
}

// TestKnownBeforeTheLaw: exploitation that was known before 2026-09-11 is not reportable (point 217); that is a decision on
// record with the day, not silence, and awareness cannot be dated before that day.
func TestKnownBeforeTheLaw(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		as := h.assessed(t)
		old := h.aware(true, false)
		old.T0 = at(t, "2026-09-10T12:00:00Z")
		if _, _, err := h.Decide(ann, as.ID, old); !problem.Is(err, problem.KindInvalid) || !strings.Contains(err.Error(), string(KnownBefore)) {
			t.Errorf("T0 before the law: %v", err)
		}
		d := Declaration{Verdict: Negative, Basis: "seen and fixed in July", Reason: KnownBefore}
		for _, bad := range []time.Time{{}, at(t, "2026-09-11T00:00:00Z")} {
			d.KnownSince = bad
			if _, _, err := h.Decide(ann, as.ID, d); !problem.Is(err, problem.KindInvalid) {
				t.Errorf("known since %s: %v", bad, err)
			}
		}
		d.KnownSince = at(t, "2026-07-01T08:00:00Z")
		if _, _, err := h.Decide(ann, as.ID, d); err != nil {
			t.Fatal(err)
		}
		sig, err := h.Signal(ann, as.Signal)
		if err != nil || sig.Assessment.Decisions[0].Reason != KnownBefore || !sig.Assessment.Decisions[0].KnownSince.Equal(d.KnownSince) {
			t.Errorf("%+v, %v", sig.Assessment, err)
		}
	})
}

// TestFanOut: one signal opens a case per product and kind, each with its own clocks; both kinds of one product are linked,
// the three instants stand beside each other, and nobody declares for a product that is not theirs.
func TestFanOut(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		second, err := h.cfg.Products.Create(t.Context(), product.Product{Tenant: maker, Name: "Gateway", Model: "g1"}, "per_ann")
		if err != nil {
			t.Fatal(err)
		}
		known := h.hand.Now().Add(-50 * time.Hour)
		sig, err := h.AddSignal(ann, Signal{Product: h.product, Title: "libfoo", Ref: "CVE-2026-1", KnownSince: known})
		if err != nil {
			t.Fatal(err)
		}
		h.hand.Advance(time.Hour)
		as, err := h.Assess(ann, sig.ID, "")
		if err != nil {
			t.Fatal(err)
		}
		d := h.aware(true, true)
		d.Products = []string{h.product, second.ID}
		one := tenant.WithActor(t.Context(), tenant.Actor{ID: "per_sam", Kind: tenant.KindPerson, Tenant: maker, Grants: []tenant.Grant{{Role: tenant.ProductSecurityOfficer, Tenant: maker, Product: h.product}}})
		if _, _, err := h.Decide(one, as.ID, d); !problem.Is(err, problem.KindForbidden) {
			t.Errorf("declared for another's product: %v", err)
		}
		d.Products = []string{h.product, "prd_none"}
		if _, _, err := h.Decide(ann, as.ID, d); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("declared for no product: %v", err)
		}
		d.Products = []string{h.product, second.ID, h.product}
		if _, _, err := h.Decide(ann, as.ID, d); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("one product twice: %v", err)
		}
		d.Products = []string{h.product, second.ID}
		_, ids, err := h.Decide(ann, as.ID, d)
		if err != nil || len(ids) != 4 {
			t.Fatalf("%v, %v", ids, err)
		}
		got := map[string]Case{}
		for _, id := range ids {
			c, err := h.Case(ann, id)
			if err != nil {
				t.Fatal(err)
			}
			got[c.Product+" "+string(c.Kind)] = c
			if !c.KnownSince.Equal(known) || !c.Intake.Equal(sig.Intake) || !c.T0.Equal(d.T0) || len(c.Siblings) != 3 || len(c.Links) != 1 {
				t.Errorf("%s: known %s, intake %s, T0 %s, siblings %v, links %v", id, c.KnownSince, c.Intake, c.T0, c.Siblings, c.Links)
			}
		}
		for _, p := range d.Products {
			if a, b := got[p+" aev"], got[p+" si"]; a.ID == "" || b.ID == "" || a.Links[0] != b.ID || b.Links[0] != a.ID {
				t.Errorf("%s: %v and %v", p, a.Links, b.Links)
			}
		}
	})
}

// TestJoined: what was said again belongs to the case that is open, and waits no more.
func TestJoined(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		id := h.declared(t)
		as := h.assessed(t)
		if _, _, err := h.Decide(ann, as.ID, Declaration{Verdict: Joined, Basis: "same", Case: "cas_none"}); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("joined to nothing: %v", err)
		}
		if _, _, err := h.Decide(ann, as.ID, Declaration{Verdict: Joined, Basis: "same", Case: id}); err != nil {
			t.Fatal(err)
		}
		if sig, err := h.Signal(ann, as.Signal); err != nil || sig.Waiting(h.hand.Now()) || !sig.DecideBy.IsZero() || sig.Assessment.Decisions[0].Case != id {
			t.Errorf("%+v, %v", sig, err)
		}
	})
}

// TestTwoDecideAtOnce: of two people who decide at the same moment one wins, and the other is told who it was and when.
func TestTwoDecideAtOnce(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		as := h.assessed(t)
		var wg sync.WaitGroup
		errs := make([]error, 2)
		wg.Go(func() { _, _, errs[0] = h.Decide(ann, as.ID, h.aware(true, false)) })
		wg.Go(func() {
			_, _, errs[1] = h.Decide(bob, as.ID, Declaration{Verdict: Negative, Basis: "not ours", Reason: NotOurProduct})
		})
		wg.Wait()
		lost, winner := errs[0], "per_bob"
		if lost == nil {
			lost, winner = errs[1], "per_ann"
		}
		if (errs[0] == nil) == (errs[1] == nil) || !problem.Is(lost, problem.KindConflict) || !strings.Contains(lost.Error(), winner) || !strings.Contains(lost.Error(), "2026-11-21 12:00:00 UTC") {
			t.Fatalf("%v and %v", errs[0], errs[1])
		}
		cs, err := h.Cases(ann, false, "", 10)
		if err != nil || len(cs) != map[string]int{"per_ann": 1, "per_bob": 0}[winner] {
			t.Errorf("%d cases, %v", len(cs), err)
		}
	})
}

// TestDecidedUnseen: a decision that rests on what somebody saw before another decided is a conflict, also where the rules
// would let both stand.
func TestDecidedUnseen(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		as := h.assessed(t)
		none := 0
		watch := Declaration{Verdict: Watch, Basis: "unclear", Seen: &none}
		if _, _, err := h.Decide(bob, as.ID, watch); err != nil {
			t.Fatal(err)
		}
		if _, _, err := h.Decide(ann, as.ID, watch); !problem.Is(err, problem.KindConflict) || !strings.Contains(err.Error(), "per_bob decided watch at 2026-11-21 12:00:00 UTC") {
			t.Errorf("%v", err)
		}
		id := h.declared(t)
		measure := Data{At: h.hand.Now(), Note: "workaround", Seen: 1}
		if _, err := h.Append(bob, id, MeasureAvailable, measure); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Append(ann, id, MeasureAvailable, measure); !problem.Is(err, problem.KindConflict) || !strings.Contains(err.Error(), "per_bob recorded measure.available at 2026-11-21 12:00:00 UTC") {
			t.Errorf("%v", err)
		}
		h.hand.Advance(12 * time.Hour)
		h.jobs(t) // what the platform writes surprises nobody
		measure.Seen = 2
		if _, err := h.Append(ann, id, MeasureAvailable, measure); err != nil {
			t.Error(err)
		}
	})
}

// TestRearmedAtTheStart: alarms that were lost are set again when the platform starts.
func TestRearmedAtTheStart(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		id := h.declared(t)
		if _, err := h.AddSignal(ann, Signal{Product: h.product, Title: "x"}); err != nil {
			t.Fatal(err)
		}
		if err := h.db.Write(t.Context(), func(tx *store.Tx) error { _, err := tx.Exec(`DELETE FROM job`); return err }); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := h.Work(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		h.hand.Advance(24 * time.Hour)
		h.jobs(t)
		c, err := h.Case(ann, id)
		var n int
		if err == nil {
			err = h.db.QueryRow(t.Context(), `SELECT count(*) FROM respond_idle`).Scan(&n)
		}
		if err != nil || n != 1 || count(c.Events, DeadlineOverdue, EarlyWarning) != 1 {
			t.Errorf("%v, told %d times, %+v", err, n, c.Events)
		}
	})
}
