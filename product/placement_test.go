// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"testing"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// twoCohorts publishes the first cohort until 2031-12 and one of units placed from 2028 on until 2033-12.
func (h *shop) twoCohorts() (first, second Cohort) {
	h.t.Helper()
	first = h.publish(sold("2031-12"))
	d := sold("2033-12")
	d.FirstPlaced, d.LastPlaced = "2028-01-01", ""
	second, err := h.AddCohort(h.t.Context(), "ten_a", h.rev.ID, "2028", d, ann.ID)
	if err == nil {
		second, err = h.Publish(h.t.Context(), "ten_a", second.ID, ann)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return first, second
}

func (h *shop) unit(device, batch string) Unit {
	return Unit{Tenant: "ten_a", Product: h.product.ID, Revision: h.rev.ID, Device: device, Batch: batch, Made: day0}
}

func (h *shop) place(subject string, p Placement) error {
	return h.db.Write(h.t.Context(), func(tx *store.Tx) error {
		return h.Place(tx, "ten_a", h.product.ID, h.rev.ID, subject, p, ann.ID)
	})
}

// A unit has the promise of when it was placed: as said of itself, else of its batch, else by the day of its making.
func TestPlacement(t *testing.T) {
	eachShop(t, func(t *testing.T, h *shop) {
		first, second := h.twoCohorts()
		support := func(device, batch string) UnitSupport {
			t.Helper()
			s, err := h.SupportOfUnit(t.Context(), h.unit(device, batch))
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		if s := support("dev_1", "bat_1"); s.Cohort != first.ID || s.By != ByMaking || s.Placed != dayOf(day0) {
			t.Errorf("nothing said: %+v", s)
		}
		if err := h.place("bat_1", Placement{Placed: "2028-03-01"}); err != nil {
			t.Fatal(err)
		}
		if s := support("dev_1", "bat_1"); s.Cohort != second.ID || s.By != ByBatch || s.End != "2033-12" {
			t.Errorf("by its batch: %+v", s)
		}
		if err := h.place("dev_1", Placement{Cohort: first.ID}); err != nil {
			t.Fatal(err)
		}
		if s := support("dev_1", "bat_1"); s.Cohort != first.ID || s.By != ByDevice || s.Placed != "" {
			t.Errorf("by itself: %+v", s)
		}
		if s := support("dev_2", "bat_1"); s.Cohort != second.ID {
			t.Errorf("another unit of the batch: %+v", s)
		}
		if d, ok, err := h.Promised(t.Context(), Unit{Tenant: "ten_b", Product: h.product.ID, Revision: h.rev.ID, Batch: "bat_1", Made: day0}); ok || err != nil {
			t.Errorf("another tenant: %+v %v", d, err)
		}
		for name, p := range map[string]Placement{
			"nothing": {}, "both": {Placed: "2028-03-01", Cohort: first.ID}, "no day": {Placed: "2028-02-30"}, "a foreign cohort": {Cohort: "coh_other"},
		} {
			if err := h.place("dev_3", p); !problem.Is(err, problem.KindInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n := h.leaves("unit.placed"); n != 2 {
			t.Errorf("%d leaves", n)
		}
	})
}

// After the end of its cohort a batch makes no new unit, although another cohort of the hardware goes on; units of which
// nothing was said may be of that one. A decision to restrict or isolate goes before any leave.
func TestEndOfACohort(t *testing.T) {
	eachShop(t, func(t *testing.T, h *shop) {
		ctx := t.Context()
		first, second := h.twoCohorts()
		for batch, p := range map[string]Placement{"bat_old": {Placed: "2027-02-01"}, "bat_named": {Cohort: first.ID}, "bat_new": {Placed: "2029-02-01"}} {
			if err := h.place(batch, p); err != nil {
				t.Fatal(err)
			}
		}
		may := func(batch string) string {
			err := h.db.View(ctx, func(tx *store.Tx) error { return h.MayEnrol(tx, h.unit("dev_x", batch)) })
			if err != nil && problem.Of(err).Rule == "" {
				t.Fatal(err)
			}
			if err == nil {
				return ""
			}
			return problem.Of(err).Rule
		}
		want := func(when, old, said, new string) {
			t.Helper()
			for batch, rule := range map[string]string{"bat_old": old, "bat_named": old, "bat_unsaid": said, "bat_new": new} {
				if got := may(batch); got != rule {
					t.Errorf("%s, %s: %q, want %q", when, batch, got, rule)
				}
			}
		}
		want("supported", "", "", "")
		h.hand.Set(first.Public.End().Add(time.Second))
		want("the first has ended", RuleEnded, "", "")
		leave := func() {
			t.Helper()
			if _, err := h.AllowEnrol(ctx, "ten_a", Leave{Revision: h.rev.ID, Until: h.hand.Now().Add(time.Hour), Reason: "spares", Actor: ann.ID}); err != nil {
				t.Fatal(err)
			}
		}
		leave()
		want("with leave", "", "", "")
		if _, err := h.DecideEnd(ctx, "ten_a", EndDecision{Cohort: first.ID, Kind: EndRestrict, Reason: "unsafe radio", Actor: ann.ID}); err != nil {
			t.Fatal(err)
		}
		want("restricted", RuleRestricted, "", "")
		h.hand.Advance(time.Minute)
		if _, err := h.DecideEnd(ctx, "ten_a", EndDecision{Cohort: second.ID, Kind: EndIsolate, Reason: "no back end", Actor: ann.ID}); err != nil {
			t.Fatal(err)
		}
		want("decided ahead of its end", RuleRestricted, "", "")
		h.hand.Set(second.Public.End().Add(time.Second))
		leave()
		want("both have ended", RuleRestricted, RuleRestricted, RuleRestricted)
		h.hand.Advance(time.Minute)
		for _, c := range []string{first.ID, second.ID} {
			if _, err := h.DecideEnd(ctx, "ten_a", EndDecision{Cohort: c, Kind: EndExtend, Reason: "many in use", Actor: ann.ID}); err != nil {
				t.Fatal(err)
			}
		}
		want("decided otherwise", "", "", "")
	})
}
