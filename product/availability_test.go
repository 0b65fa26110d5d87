// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"slices"
	"testing"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// What is declared replaces what was, each state once and in order; a code of no Member State changes nothing.
func TestAvailability(t *testing.T) {
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		s := New(Config{DB: db, Clock: clock.NewHand(day0)})
		p, err := s.Create(t.Context(), Product{Tenant: "ten_a", Name: "Lamp", Model: "lamp"}, "per_1")
		if err != nil {
			t.Fatal(err)
		}
		if states, err := s.Availability(t.Context(), "ten_a", p.ID); err != nil || len(states) != 0 {
			t.Errorf("nothing declared: %v %v", states, err)
		}
		for _, c := range []struct{ set, want []string }{
			{[]string{"fr", "DE", "FR "}, []string{"DE", "FR"}},
			{[]string{"IT"}, []string{"IT"}},
			{[]string{"DE", "US"}, []string{"IT"}},
			{nil, []string{}},
		} {
			_, err := s.SetAvailability(t.Context(), "ten_a", p.ID, c.set, "per_1")
			if bad := slices.Contains(c.set, "US"); bad != problem.Is(err, problem.KindInvalid) || !bad && err != nil {
				t.Errorf("%v: %v", c.set, err)
			}
			if got, err := s.Availability(t.Context(), "ten_a", p.ID); err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%v: %v %v, want %v", c.set, got, err, c.want)
			}
		}
		if _, err := s.SetAvailability(t.Context(), "ten_b", p.ID, []string{"DE"}, "per_2"); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("another tenant declares: %v", err)
		}
	})
}
