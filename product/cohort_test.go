// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

var ann = tenant.Actor{ID: "per_ann", Kind: tenant.KindPerson, Tenant: "ten_a", Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: "ten_a"}}}

// shop is a product with one hardware revision, and what it announces.
type shop struct {
	*Service
	t       *testing.T
	db      *store.DB
	hand    *clock.Hand
	product Product
	rev     Revision
	told    []Notice
}

// eachShop runs fn on both engines, with a clock that stands still.
func eachShop(t *testing.T, fn func(t *testing.T, h *shop)) {
	hand := clock.NewHand(day0)
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		hand.Set(day0)
		fn(t, openShop(t, db, hand))
	}, func(c *store.Config) { c.Clock = hand })
}

func openShop(t *testing.T, db *store.DB, hand *clock.Hand) *shop {
	h := &shop{t: t, db: db, hand: hand}
	sign, verify := signer(t)
	h.Service = New(Config{DB: db, Clock: h.hand, Sign: sign, Verify: verify, Maker: func(context.Context, string) (string, error) { return "Lamp Works", nil }, URL: "https://things.example"})
	db.On(EventNotice, "test", func(_ context.Context, e store.Event) error {
		var n Notice
		err := e.Decode(&n)
		h.told = append(h.told, n)
		return err
	})
	var err error
	if h.product, err = h.Create(t.Context(), Product{Tenant: "ten_a", Name: "Lamp", Model: "lamp"}, ann.ID); err != nil {
		t.Fatal(err)
	}
	if h.rev, err = h.CreateRevision(t.Context(), Revision{Tenant: "ten_a", Product: h.product.ID, Name: "A", Placed: day0, SupportEnd: day0.AddDate(5, 1, 0)}, ann.ID); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *shop) first() Cohort {
	h.t.Helper()
	cs, err := h.Cohorts(h.t.Context(), "ten_a", h.product.ID)
	if err != nil || len(cs) == 0 {
		h.t.Fatalf("%v %v", cs, err)
	}
	return cs[len(cs)-1]
}

// publish prepares and publishes d as the first cohort.
func (h *shop) publish(d Declaration) Cohort {
	h.t.Helper()
	c, err := h.Prepare(h.t.Context(), "ten_a", h.first().ID, d, ann.ID)
	if err == nil {
		c, err = h.Publish(h.t.Context(), "ten_a", c.ID, ann)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// leaves counts the leaves of a kind in the audit log.
func (h *shop) leaves(kind string) (n int) {
	h.t.Helper()
	if err := h.db.QueryRow(h.t.Context(), `SELECT count(*) FROM audit_entry WHERE kind = $1`, kind).Scan(&n); err != nil {
		h.t.Fatal(err)
	}
	return n
}

// Every hardware revision begins with a cohort that says what it states; publishing is an act with a name, and what was
// published stays and can only grow.
func TestCohort(t *testing.T) {
	eachShop(t, func(t *testing.T, h *shop) {
		ctx := t.Context()
		c := h.first()
		if c.Version != 0 || c.Draft.SupportEnd != "2031-12" || c.Draft.FirstPlaced != "2026-11-21" {
			t.Errorf("the first cohort: %+v", c)
		}
		if _, err := h.Publish(ctx, "ten_a", c.ID, ann); !problem.Is(err, problem.KindInvalid) || !strings.Contains(err.Error(), "who decided") {
			t.Errorf("published as it is: %v", err)
		}
		c = h.publish(sold("2031-12"))
		if _, err := h.Publish(ctx, "ten_a", c.ID, tenant.System("ten_a")); !problem.Is(err, problem.KindForbidden) || problem.Of(err).Rule != RulePublish {
			t.Errorf("the platform publishes: %v", err)
		}
		for _, end := range []Month{"2031-11"} {
			if _, err := h.Prepare(ctx, "ten_a", c.ID, sold(end), "per_bo"); !problem.Is(err, problem.KindForbidden) {
				t.Errorf("shortened to %s: %v", end, err)
			}
		}
		if n := h.leaves("cohort.shortening-refused"); n != 1 {
			t.Errorf("%d refusals on record", n)
		}
		again := h.publish(sold("2033-12"))
		vs, err := h.Versions(ctx, "ten_a", c.ID)
		if err != nil || len(vs) != 2 || vs[1].SupportEnd != "2031-12" || again.Version != 2 {
			t.Errorf("versions: %+v %v", vs, err)
		}
		text, err := h.cfg.Verify([]byte(vs[1].Note))
		if err != nil || !strings.HasPrefix(text, "openthings support 1\n"+h.product.ID+"\n"+c.ID+"\n1\n") {
			t.Errorf("signed: %q %v", text, err)
		}
		if rev, err := h.Revision(ctx, "ten_a", h.rev.ID); err != nil || !rev.SupportEnd.Equal(sold("2033-12").End()) {
			t.Errorf("the hardware revision is supported until %s (%v)", rev.SupportEnd, err)
		}
		if _, err := h.Cohort(ctx, "ten_b", c.ID); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("another tenant reads: %v", err)
		}
		if _, err := h.Prepare(ctx, "ten_b", c.ID, sold("2040-12"), "per_x"); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("another tenant prepares: %v", err)
		}
		if _, err := h.AddCohort(ctx, "ten_a", h.rev.ID, firstCohort, sold("2033-12"), ann.ID); !problem.Is(err, problem.KindConflict) {
			t.Errorf("the same name again: %v", err)
		}
		later := sold("2036-06")
		later.FirstPlaced = "2029-01-01"
		if _, err := h.AddCohort(ctx, "ten_a", h.rev.ID, "2029", later, ann.ID); err != nil {
			t.Fatal(err)
		}
		for cohort, want := range map[string]Month{"": "2036-06", c.ID: "2033-12"} {
			if got, err := h.SupportOf(ctx, "ten_a", h.rev.ID, cohort); err != nil || got.SupportEnd != want {
				t.Errorf("support of %q: %+v %v", cohort, got, err)
			}
		}
		if _, err := h.SupportOf(ctx, "ten_b", h.rev.ID, ""); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("another tenant's: %v", err)
		}
	})
}

// A revision of before there were cohorts gets its first one by the migration, and keeps its end of support.
func TestCohortsOfBefore(t *testing.T) {
	eachShop(t, func(t *testing.T, h *shop) {
		script, err := migrationsFS.ReadFile("migrations/0003_support.sql")
		if err != nil {
			t.Fatal(err)
		}
		_, move, ok := strings.Cut(string(script), "what it states, not published.\n")
		if !ok {
			t.Fatal("the migration moves nothing")
		}
		if err := h.db.Write(t.Context(), func(tx *store.Tx) error {
			if _, err := tx.Exec(`DELETE FROM product_cohort`); err != nil {
				return err
			}
			_, err := tx.Exec(strings.TrimSuffix(strings.TrimSpace(move), ";"))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		c := h.first()
		if c.ID != "coh"+strings.TrimPrefix(h.rev.ID, "rev") || c.Draft.SupportEnd != "2031-12" || c.Version != 0 || c.Tenant != "ten_a" {
			t.Errorf("%+v", c)
		}
		if rev, err := h.Revision(t.Context(), "ten_a", h.rev.ID); err != nil || !rev.SupportEnd.Equal(h.rev.SupportEnd) {
			t.Errorf("%+v %v", rev, err)
		}
	})
}

// round runs the jobs that are due.
func (h *shop) runDue() {
	h.t.Helper()
	if err := h.db.Write(h.t.Context(), h.soon); err != nil {
		h.t.Fatal(err)
	}
	if _, err := h.db.RunDue(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

// Each step is announced once, however often the platform looks, starts again or breaks off; an extension corrects.
func TestNoticesOnce(t *testing.T) {
	eachShop(t, func(t *testing.T, h *shop) {
		h.publish(sold("2031-12"))
		h.runDue()
		if len(h.told) != 0 {
			t.Fatalf("five years ahead: %+v", h.told)
		}
		h.hand.Set(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))
		h.runDue()
		h.runDue()
		if len(h.told) != 1 || h.told[0].Step != 24 || h.told[0].Months != 24 || h.told[0].Kind != NoticeScheduled || h.told[0].Product != h.product.ID {
			t.Fatalf("%+v", h.told)
		}
		// A round that breaks off after its notice leaves nothing behind: neither the record nor the event.
		h.hand.Set(time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC))
		broken := errors.New("broken off")
		if err := h.db.Write(t.Context(), func(tx *store.Tx) error { return errors.Join(h.announce(tx, h.first()), broken) }); !errors.Is(err, broken) {
			t.Fatal(err)
		}
		h.runDue()
		if len(h.told) != 2 || h.told[1].Step != 12 {
			t.Fatalf("%+v", h.told)
		}
		h.publish(sold("2033-12"))
		h.runDue()
		h.hand.Set(time.Date(2031, 7, 1, 0, 0, 0, 0, time.UTC)) // six months before the old end
		h.runDue()
		if len(h.told) != 3 || h.told[2].Kind != NoticeCorrection || h.told[2].Was != "2031-12" || h.told[2].End != "2033-12" {
			t.Fatalf("%+v", h.told)
		}
		h.hand.Set(time.Date(2034, 3, 1, 0, 0, 0, 0, time.UTC))
		h.runDue()
		if len(h.told) != 4 || h.told[3].Kind != NoticeEnded || h.told[3].Months != 0 {
			t.Fatalf("%+v", h.told)
		}
		if n := h.leaves("support.notice"); n != 4 {
			t.Errorf("%d notices on record", n)
		}
	})
}

// After the end no new unit gets an identity, unless somebody gave leave with a reason; an unpublished cohort stops nothing.
func TestEnrolAfterTheEnd(t *testing.T) {
	eachShop(t, func(t *testing.T, h *shop) {
		ctx := t.Context()
		may := func() error {
			return h.db.View(ctx, func(tx *store.Tx) error {
				return h.MayEnrol(tx, Unit{Tenant: "ten_a", Product: h.product.ID, Revision: h.rev.ID, Batch: "bat_x", Made: h.hand.Now()})
			})
		}
		h.hand.Set(day0.AddDate(20, 0, 0))
		if err := may(); err != nil {
			t.Errorf("nothing published: %v", err)
		}
		h.hand.Set(day0)
		h.publish(sold("2031-12"))
		if err := may(); err != nil {
			t.Errorf("supported: %v", err)
		}
		h.hand.Set(sold("2031-12").End().Add(time.Millisecond))
		if err := may(); !problem.Is(err, problem.KindForbidden) || problem.Of(err).Rule != RuleEnded {
			t.Errorf("after the end: %v", err)
		}
		if _, err := h.AllowEnrol(ctx, "ten_a", Leave{Revision: h.rev.ID, Until: h.hand.Now().Add(time.Hour)}); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("leave without a reason: %v", err)
		}
		if _, err := h.AllowEnrol(ctx, "ten_a", Leave{Revision: h.rev.ID, Until: h.hand.Now().Add(maxLeave + time.Hour), Reason: "spares"}); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("leave for ever: %v", err)
		}
		if _, err := h.AllowEnrol(ctx, "ten_a", Leave{Revision: h.rev.ID, Until: h.hand.Now().Add(time.Hour), Reason: "spares under warranty", Actor: ann.ID}); err != nil {
			t.Fatal(err)
		}
		if err := may(); err != nil {
			t.Errorf("with leave: %v", err)
		}
		h.hand.Advance(2 * time.Hour)
		if err := may(); !problem.Is(err, problem.KindForbidden) {
			t.Errorf("leave is over: %v", err)
		}
		h.publish(sold("2033-12"))
		if err := may(); err != nil {
			t.Errorf("extended: %v", err)
		}
	})
}

func TestEndDecisions(t *testing.T) {
	eachShop(t, func(t *testing.T, h *shop) {
		ctx := t.Context()
		next, err := h.CreateRevision(ctx, Revision{Tenant: "ten_a", Product: h.product.ID, Name: "B", Placed: day0, SupportEnd: day0.AddDate(9, 0, 0)}, ann.ID)
		if err != nil {
			t.Fatal(err)
		}
		cs, err := h.Cohorts(ctx, "ten_a", h.product.ID)
		if err != nil || len(cs) != 2 {
			t.Fatalf("%v %v", cs, err)
		}
		old := cs[1]
		if old.Revision != h.rev.ID {
			old = cs[0]
		}
		for name, d := range map[string]EndDecision{
			"no reason":             {Kind: EndExtend, Reason: " "},
			"no such kind":          {Kind: "forget", Reason: "x"},
			"a successor unnamed":   {Kind: EndSuccessor, Reason: "x"},
			"a successor of itself": {Kind: EndSuccessor, Reason: "x", Successor: h.rev.ID},
			"isolated by one":       {Kind: EndIsolate, Reason: "x", Successor: next.ID},
		} {
			d.Cohort = old.ID
			if _, err := h.DecideEnd(ctx, "ten_a", d); !problem.Is(err, problem.KindInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, d := range []EndDecision{{Kind: EndExtend, Reason: "many in use"}, {Kind: EndSuccessor, Successor: next.ID, Reason: "B fits in its place"}} {
			h.hand.Advance(time.Hour)
			d.Cohort, d.Actor = old.ID, ann.ID
			if _, err := h.DecideEnd(ctx, "ten_a", d); err != nil {
				t.Fatal(err)
			}
		}
		ds, err := h.EndDecisions(ctx, "ten_a", old.ID)
		if err != nil || len(ds) != 2 || ds[0].Kind != EndSuccessor || ds[1].Kind != EndExtend {
			t.Errorf("%+v %v", ds, err)
		}
		if _, err := h.DecideEnd(ctx, "ten_b", EndDecision{Cohort: old.ID, Kind: EndExtend, Reason: "x"}); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("another tenant decides: %v", err)
		}
	})
}
