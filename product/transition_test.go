// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"context"
	"testing"

	"github.com/openthings-platform/openthings/problem"
)

// Devices on the newest release for their hardware need hardware; all others can move first.
func TestTransition(t *testing.T) {
	eachShop(t, func(t *testing.T, h *shop) {
		c := h.publish(sold("2031-12"))
		if _, err := h.Transition(t.Context(), "ten_a", c.ID); !problem.Is(err, problem.KindUnavailable) {
			t.Errorf("nobody knows: %v", err)
		}
		h.cfg.Running = func(_ context.Context, tenant string, v Revision) (Fleet, error) {
			if tenant != "ten_a" || v.ID != h.rev.ID {
				t.Errorf("asked about %s %s", tenant, v.ID)
			}
			return Fleet{Newest: "5.0", Releases: []Running{{Version: "4.1", Devices: 1310}, {Version: "5.0", Devices: 594, Newest: true}}}, nil
		}
		got, err := h.Transition(t.Context(), "ten_a", c.ID)
		if err != nil || got.Devices != 1904 || got.Move != 1310 || got.Hardware != 594 || got.End != "2031-12" {
			t.Errorf("%+v %v", got, err)
		}
		if _, err := h.Transition(t.Context(), "ten_b", c.ID); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("another tenant's: %v", err)
		}
	})
}
