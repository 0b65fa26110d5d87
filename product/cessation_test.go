// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"testing"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// The run is declared before operations cease, with a reason; each step is done once, with its proof.
func TestCessation(t *testing.T) {
	eachShop(t, func(t *testing.T, h *shop) {
		ctx := t.Context()
		c, err := h.Cessation(ctx, "ten_a")
		if err != nil || !c.At.IsZero() || len(c.Steps) != len(cessationSteps) {
			t.Fatalf("%+v %v", c, err)
		}
		if _, err := h.FinishStep(ctx, "ten_a", "users", "mail of 1 May", ann.ID); !problem.Is(err, problem.KindConflict) {
			t.Errorf("a step of nothing: %v", err)
		}
		for name, at := range map[string]time.Time{"the past": day0.AddDate(0, 0, -1), "now": day0} {
			if _, err := h.DeclareCessation(ctx, "ten_a", at, "sold", ann.ID); !problem.Is(err, problem.KindInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := h.DeclareCessation(ctx, "ten_a", day0.AddDate(0, 6, 0), "", ann.ID); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("without a reason: %v", err)
		}
		if _, err := h.DeclareCessation(ctx, "ten_a", day0.AddDate(0, 6, 0), "the owners retire", ann.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := h.FinishStep(ctx, "ten_a", "users", " ", ann.ID); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("a step without proof: %v", err)
		}
		if _, err := h.FinishStep(ctx, "ten_a", "party", "x", ann.ID); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("an invented step: %v", err)
		}
		if c, err = h.FinishStep(ctx, "ten_a", "users", "mail of 1 May", ann.ID); err != nil || c.Steps[1].At.IsZero() || c.Steps[0].At != (time.Time{}) {
			t.Errorf("%+v %v", c, err)
		}
		if _, err := h.FinishStep(ctx, "ten_a", "users", "again", ann.ID); !problem.Is(err, problem.KindConflict) {
			t.Errorf("a step twice: %v", err)
		}
		if c, err := h.Cessation(ctx, "ten_b"); err != nil || !c.At.IsZero() || !c.Steps[1].At.IsZero() {
			t.Errorf("another tenant's run: %+v %v", c, err)
		}
		if n := h.leaves("cessation.step") + h.leaves("cessation.declared"); n != 2 {
			t.Errorf("%d leaves", n)
		}
	})
}
