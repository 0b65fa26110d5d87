// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"testing"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/vuln"
)

// Ways in which others get it wrong, each by its name.

// TestTrapDSTLocalAdd: a day on the wall ends an hour too late where October repeats an hour.
func TestTrapDSTLocalAdd(t *testing.T) {
	t0 := at(t, "2026-10-24T12:00:00+02:00")
	berlin := zone(t, "Europe/Berlin")
	due := clockOf(t, Clocks(State{Kind: AEV, T0: t0}, berlin, Targets{}), EarlyWarning).Due
	expect(t, "due", due, "2026-10-25T11:00:00+01:00")
	if trap := t0.In(berlin).AddDate(0, 0, 1); trap.Sub(due) != time.Hour {
		t.Errorf("the trap ends at %s", trap)
	}
}

// TestTrapUTCMonthAfterLocalMidnight: a month in UTC ends half an hour after the local one.
func TestTrapUTCMonthAfterLocalMidnight(t *testing.T) {
	sub := at(t, "2027-03-30T22:30:00Z") // the 31st in Brussels
	s := State{Kind: SI, T0: sub.Add(-70 * time.Hour), Accepted: map[Stage]Submission{Notification: {SubmittedAt: sub}}}
	d := clockOf(t, Clocks(s, zone(t, "Europe/Brussels"), Targets{}), Final)
	expect(t, "due", d.Due, "2027-04-29T22:30:00Z")
	if trap := sub.AddDate(0, 1, 0); trap.Sub(d.NominalEnd) != 30*time.Minute {
		t.Errorf("the trap ends at %s, the nominal end is %s", trap, d.NominalEnd)
	}
}

// TestTrapThirtyDaysInsteadOfAMonth: February has no thirty days.
func TestTrapThirtyDaysInsteadOfAMonth(t *testing.T) {
	sub := at(t, "2027-02-10T12:00:00Z")
	s := State{Kind: SI, T0: sub.Add(-time.Hour), Accepted: map[Stage]Submission{Notification: {SubmittedAt: sub}}}
	expect(t, "due", clockOf(t, Clocks(s, time.UTC, Targets{}), Final).Due, "2027-03-10T12:00:00Z")
}

// TestTrapMitigationIgnored: a workaround starts the fourteen days, not the firmware that follows.
func TestTrapMitigationIgnored(t *testing.T) {
	s := begin(t, AEV)
	s.now = s.now.Add(20 * 24 * time.Hour)
	s.must(t, "ann", MeasureAvailable, Data{At: at(t, "2026-11-22T09:00:00Z"), Note: "close port 8080"})
	s.must(t, "ann", MeasureAvailable, Data{At: at(t, "2026-12-09T09:00:00Z"), Note: "firmware 2.1"})
	expect(t, "due", clockOf(t, Clocks(s.state(), s.state().Zone(), Targets{}), Final).Due, "2026-12-06T09:00:00Z")
}

// TestTrapT0FromScanner: neither a feed's match nor a token sets T0, and the instant at which a source knew is kept apart.
func TestTrapT0FromScanner(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		err := h.db.Write(t.Context(), func(tx *store.Tx) error {
			return h.db.Emit(tx, "vuln.exploited", maker, "CVE-2026-1", vuln.Exploited{Group: "CVE-2026-1", ID: "vul_1", Product: h.product, Release: "rel_1", Version: "1.0"})
		})
		if err != nil {
			t.Fatal(err)
		}
		h.jobs(t)
		h.hand.Advance(30 * 24 * time.Hour)
		h.jobs(t)
		ss, err := h.Signals(ann, "", 10)
		if err != nil || len(ss) != 1 {
			t.Fatalf("%+v, %v", ss, err)
		}
		if cs, err := h.Cases(ann, false, "", 10); err != nil || len(cs) != 0 {
			t.Fatalf("a scanner opened %+v, %v", cs, err)
		}
		token := tenant.Actor{ID: "tok_1", Kind: tenant.KindToken, Tenant: maker, Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: maker}}}
		if _, err := h.Assess(tenant.WithActor(t.Context(), token), ss[0].ID, ""); problem.Of(err).Rule != "respond.person-only" {
			t.Errorf("a token assessed: %v", err)
		}
	})
}

// TestTrapSettingsLoosened: a limit looser than the law's is refused by its rule; what was stored stays.
func TestTrapSettingsLoosened(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		if err := h.SetTargets(ann, Targets{EarlyWarningHours: 6}); err != nil {
			t.Fatal(err)
		}
		if err := h.SetTargets(ann, Targets{EarlyWarningHours: 48}); problem.Of(err).Rule != "cra.14.2.a" {
			t.Errorf("48 hours: %v", err)
		}
		if got, err := h.Targets(ann); err != nil || got.EarlyWarningHours != 6 || got.NotificationHours != 60 {
			t.Errorf("%+v, %v", got, err)
		}
		c, err := h.Case(ann, h.declared(t))
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "work by", clockOf(t, c.Clocks, EarlyWarning).WorkBy, "2026-11-21T17:00:00Z")
		expect(t, "due", clockOf(t, c.Clocks, EarlyWarning).Due, "2026-11-22T11:00:00Z")
		reader := signedIn("per_eve", tenant.Auditor)
		if err := h.SetTargets(reader, Targets{EarlyWarningHours: 1}); !problem.Is(err, problem.KindForbidden) {
			t.Errorf("an auditor set limits: %v", err)
		}
		var leaves int
		if err := h.db.QueryRow(t.Context(), `SELECT count(*) FROM audit_entry WHERE kind = 'targets.set'`).Scan(&leaves); err != nil || leaves != 1 {
			t.Errorf("%d leaves, %v", leaves, err)
		}
	})
}

// TestTrapMicroEnterpriseShortcut: the fine relief of micro and small enterprises (CRA Art. 64) moves no deadline: nothing
// that a tenant can set makes the early warning later than 24 hours.
func TestTrapMicroEnterpriseShortcut(t *testing.T) {
	t0 := at(t, "2026-11-21T12:00:00Z")
	want := t0.Add(24 * time.Hour)
	for hours := -1; hours <= 200; hours++ {
		limits := Targets{EarlyWarningHours: hours}
		d := clockOf(t, Clocks(State{Kind: AEV, T0: t0}, time.UTC, limits), EarlyWarning)
		if !d.Due.Equal(want) || d.WorkBy.After(want) {
			t.Fatalf("%d hours: due %s, work by %s", hours, d.Due, d.WorkBy)
		}
		if ok := hours >= 0 && hours <= 24; (limits.Check() == nil) != ok {
			t.Errorf("%d hours: %v", hours, limits.Check())
		}
	}
}

// TestTrapOutagePauses: an outage, attempts and direct contact are evidence; the clock runs on and becomes overdue.
func TestTrapOutagePauses(t *testing.T) {
	s := begin(t, SI)
	clocks := func() []Deadline { return Clocks(s.state(), s.state().Zone(), Targets{}) }
	due := clockOf(t, clocks(), EarlyWarning).Due
	s.must(t, "ann", PlatformOutage, Data{At: s.now, Note: "HTTP 503"})
	s.refused(t, "", Event{Kind: PlatformOutage, Actor: "bob", Person: true, Data: Data{At: s.now, Note: "again"}})
	n := s.must(t, "ann", SubmissionAttempted, Data{Stage: EarlyWarning, At: s.now})
	s.must(t, "ann", SubmissionFailed, Data{Attempt: n, Note: "HTTP 503"})
	s.must(t, "ann", ContactedDirectly, Data{At: s.now, Note: "mail to the CSIRT"})
	s.now = due.Add(time.Hour)
	s.must(t, "ann", PlatformRestored, Data{At: s.now})
	d := clockOf(t, clocks(), EarlyWarning)
	if !d.Due.Equal(due) || !d.Running() {
		t.Errorf("%+v", d)
	}
	if err := s.add(Event{Kind: DeadlineOverdue, Actor: "system", Data: Data{Stage: EarlyWarning, At: due}}); err != nil {
		t.Errorf("not overdue: %v", err)
	}
	if a := s.state().Availability; len(a) != 1 || a[0].Until.IsZero() {
		t.Errorf("%+v", a)
	}
}

// TestTrapWrongCoordinator: what went to the wrong CSIRT is invalidated, the old clock goes on, and only then is another
// coordinator named; its zone counts for what is counted in days.
func TestTrapWrongCoordinator(t *testing.T) {
	s := begin(t, SI)
	due := clockOf(t, Clocks(s.state(), s.state().Zone(), Targets{}), EarlyWarning).Due
	s.submit(t, EarlyWarning)
	change := Event{Kind: CoordinatorChanged, Actor: "ann", Person: true, Data: Data{Coordinator: "FI", Note: "decisions are taken in Espoo"}}
	s.refused(t, "respond.coordinator", change)
	s.must(t, "ann", Invalidated, Data{Stage: EarlyWarning, At: s.now, Note: "not competent"})
	if err := s.add(change); err != nil {
		t.Fatal(err)
	}
	d := clockOf(t, Clocks(s.state(), s.state().Zone(), Targets{}), EarlyWarning)
	if !d.Due.Equal(due) || !d.Running() || s.state().Zone().String() != "Europe/Helsinki" {
		t.Errorf("%+v in %s", d, s.state().Zone())
	}
	s.refused(t, "", Event{Kind: CoordinatorChanged, Actor: "ann", Person: true, Data: Data{Coordinator: "CH", Note: "x"}})
}

// TestTrapPECInTheWrongStage: exceptional circumstances belong into the 72-hour notification of an exploited vulnerability.
func TestTrapPECInTheWrongStage(t *testing.T) {
	claim := func(s *story, g Ground) Event {
		return Event{Kind: PECInvoked, Actor: "ann", Person: true, Data: Data{At: s.now, Ground: g, Note: "only in Germany so far"}}
	}
	si := begin(t, SI)
	si.submit(t, EarlyWarning)
	si.refused(t, "respond.pec", claim(si, OneMemberState))
	s := begin(t, AEV)
	s.refused(t, "respond.pec", claim(s, OneMemberState))
	s.submit(t, EarlyWarning)
	s.refused(t, "", claim(s, "embarrassing"))
	if err := s.add(claim(s, ImminentRisk)); err != nil {
		t.Fatal(err)
	}
	if got := s.state().Dissemination.At(s.now); got != SpreadPEC {
		t.Errorf("dissemination is %s", got)
	}
	s.must(t, "ann", PECGroundLost, Data{At: s.now, Note: "a second Member State"})
	if got := s.state().Dissemination.At(s.now); got != SpreadNormal {
		t.Errorf("dissemination is %s", got)
	}
	s.submit(t, Notification)
	s.refused(t, "respond.pec", claim(s, ImminentRisk))
}

// TestSilenceEnds: 72 hours after "a measure is expected" was filed, others are assumed to know, whatever came between.
func TestSilenceEnds(t *testing.T) {
	s := begin(t, AEV)
	s.must(t, "ann", MitigationExpected, Data{At: s.now, Note: "hotfix by Monday"})
	ends := s.now.Add(72 * time.Hour)
	s.refused(t, "", Event{Kind: MitigationExpected, Actor: "ann", Person: true, Data: Data{At: s.now.Add(time.Hour), Note: "later"}})
	s.submit(t, EarlyWarning)
	s.must(t, "ann", PECInvoked, Data{At: s.now, Ground: ImminentRisk, Note: "exploit is one line"})
	s.must(t, "ann", MeasureAvailable, Data{At: s.now, Note: "hotfix"})
	d := s.state().Dissemination
	if d.At(ends.Add(-time.Millisecond)) != SpreadPEC || d.At(ends) != SpreadAssumed {
		t.Errorf("%s, then %s", d.At(ends.Add(-time.Millisecond)), d.At(ends))
	}
	told := Event{Kind: SpreadingAssumed, Actor: "system", Data: Data{Stage: Spreading, At: ends}}
	if err := s.add(told); err == nil {
		t.Error("told before its time")
	}
	s.now = ends
	if err := s.add(told); err != nil {
		t.Fatal(err)
	}
	if err := s.add(told); err == nil {
		t.Error("told twice")
	}
}

// TestCoveredByEarlier: a report whose content was given already is not owed, says a second person; a month then counts from
// that earlier report.
func TestCoveredByEarlier(t *testing.T) {
	s := begin(t, SI)
	covered := Data{Stage: Notification, Note: "nature and assessment stand in the early warning"}
	s.refused(t, "respond.order", Event{Kind: CoveredByEarlier, Actor: "bob", Person: true, Data: covered})
	s.submit(t, EarlyWarning)
	s.now = s.now.Add(time.Hour)
	s.refused(t, "respond.second-person", Event{Kind: CoveredByEarlier, Actor: "ann", Person: true, Data: covered})
	s.must(t, "bob", CoveredByEarlier, covered)
	ds := Clocks(s.state(), s.state().Zone(), Targets{})
	if clockOf(t, ds, Notification).Running() || s.state().Accepted[Notification].CoveredBy != EarlyWarning {
		t.Errorf("%+v", s.state().Accepted)
	}
	expect(t, "final", clockOf(t, ds, Final).Due, "2026-12-21T12:00:00Z")
}
