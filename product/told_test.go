// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"testing"
	"time"

	"github.com/openthings-platform/openthings/law"
)

// TestPromised: a unit has the support of the cohort that had begun when it was made, and only what was published counts.
func TestPromised(t *testing.T) {
	eachShop(t, func(t *testing.T, h *shop) {
		promised := func(day string) Month {
			t.Helper()
			made, err := time.Parse(time.DateOnly, day)
			if err != nil {
				t.Fatal(err)
			}
			d, ok, err := h.Promised(t.Context(), Unit{Tenant: "ten_a", Product: h.product.ID, Revision: h.rev.ID, Made: made})
			if err != nil || ok != (d.SupportEnd != "") {
				t.Fatalf("%v %v", ok, err)
			}
			return d.SupportEnd
		}
		if got := promised("2026-12-01"); got != "" {
			t.Errorf("before anything is published: %s", got)
		}
		h.publish(sold("2031-12"))
		later := sold("2033-12")
		later.FirstPlaced, later.LastPlaced = "2028-01-01", ""
		c, err := h.AddCohort(t.Context(), "ten_a", h.rev.ID, "2028", later, ann.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got := promised("2028-06-01"); got != "2031-12" {
			t.Errorf("what is a draft was promised: %s", got)
		}
		if _, err := h.Publish(t.Context(), "ten_a", c.ID, ann); err != nil {
			t.Fatal(err)
		}
		for day, want := range map[string]Month{"2026-01-01": "2031-12", "2026-12-01": "2031-12", "2027-12-31": "2031-12", "2028-01-01": "2033-12", "2030-01-01": "2033-12"} {
			if got := promised(day); got != want {
				t.Errorf("made on %s: %s, want %s", day, got, want)
			}
		}
		if d, ok, err := h.Promised(t.Context(), Unit{Tenant: "ten_b", Product: h.product.ID, Revision: h.rev.ID, Made: day0}); ok || err != nil {
			t.Errorf("another tenant: %+v %v", d, err)
		}
	})
}

// The row of Annex II that the public page of a device shows is the one about taking it out of service.
func TestItemRemovalIsTheRowAboutRemoval(t *testing.T) {
	for _, row := range law.Annex(annexII) {
		if row.ID == ItemRemoval && row.Ref == "CRA Annex II(8)(d)" {
			return
		}
	}
	t.Error("there is no such row")
}
