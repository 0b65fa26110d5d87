// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"testing"

	"github.com/openthings-platform/openthings/problem"
)

// TestCoordinatorPath walks the order of CRA Art. 14(7): the first answer that there is decides.
func TestCoordinatorPath(t *testing.T) {
	all := Seat{Decisions: "DE", Employees: "AT", Representative: "NL", Importer: "BE", Distributor: "FR", Users: "ES"}
	for _, c := range []struct {
		change func(*Seat)
		want   string
	}{
		{func(s *Seat) { s.InUnion = true }, "DE"},
		{func(s *Seat) { s.InUnion, s.Decisions = true, "" }, "AT"},
		{func(s *Seat) { s.InUnion, s.Decisions, s.Employees = true, "", "" }, ""},
		{func(*Seat) {}, "NL"},
		{func(s *Seat) { s.Representative = "" }, "BE"},
		{func(s *Seat) { s.Representative, s.Importer = "", "" }, "FR"},
		{func(s *Seat) { s.Representative, s.Importer, s.Distributor = "", "", "" }, "ES"},
		{func(s *Seat) { *s = Seat{} }, ""},
	} {
		seat := all
		c.change(&seat)
		steps, got := seat.Path()
		decided := 0
		for _, x := range steps {
			if x.Decides {
				decided++
			}
		}
		if got != c.want || decided > 1 || (decided == 1) != (got != "") {
			t.Errorf("%+v leads to %q by %+v, want %q", seat, got, steps, c.want)
		}
	}
}

// TestCoordinatorIsConfirmed: a person confirms it, another than the path's needs a reason, the facts are kept, and the
// last one counts.
func TestCoordinatorIsConfirmed(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		if _, ok, err := h.Coordinator(ann); ok || err != nil {
			t.Fatalf("%t, %v", ok, err)
		}
		seat := Seat{Users: "ES"}
		if _, err := h.ConfirmCoordinator(ann, Seat{}, "DE", "x"); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("no answer at all: %v", err)
		}
		if _, err := h.ConfirmCoordinator(ann, Seat{Users: "XX"}, "DE", "x"); !pointsAt(err, "users") {
			t.Errorf("a state that is none: %v", err)
		}
		if _, err := h.ConfirmCoordinator(ann, seat, "IT", ""); problem.Of(err).Rule != "respond.coordinator" {
			t.Errorf("another one without a reason: %v", err)
		}
		for _, state := range []string{"ES", "IT"} {
			if c, err := h.ConfirmCoordinator(ann, seat, state, "we reported there first"); err != nil || c.CSIRT.State != state || len(c.Steps) != 4 {
				t.Errorf("%+v, %v", c, err)
			}
		}
		c, ok, err := h.Coordinator(bob)
		if err != nil || !ok || c.State != "IT" || c.Users != "ES" || c.Actor != "per_ann" || c.AsOf.IsZero() {
			t.Errorf("%+v, %v", c, err)
		}
		if _, err := h.ConfirmCoordinator(signedIn("per_eve", "auditor"), seat, "ES", ""); !problem.Is(err, problem.KindForbidden) {
			t.Errorf("an auditor confirmed it: %v", err)
		}
	})
}
