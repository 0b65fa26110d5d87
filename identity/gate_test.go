// SPDX-License-Identifier: AGPL-3.0-only

package identity_test

import (
	"testing"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
)

// A gate of no device at all is not how a rollover goes past its devices: a share that was left out opens nothing.
func TestAGateOfNothingOpensNothing(t *testing.T) {
	w := alone(t)
	d, _, _ := w.commissioned("S1")
	op := w.next(identity.Operational, identity.AlgP256, w.ceremony(w.held(), 2, identity.AlgP256))
	if _, err := w.PromoteAuthority(t.Context(), op.ID, 0, "", "host"); !problem.Is(err, problem.KindInvalid) || w.status(op.ID) != identity.Standby {
		t.Errorf("no device knows the root, and %s is %s (%v)", op.ID, w.status(op.ID), err)
	}
	if _, err := w.PromoteAuthority(t.Context(), op.ID, 0.01, "", "host"); problem.Of(err).Rule != "ca.gate" {
		t.Errorf("no device knows the root: %v", err)
	}
	if err := w.AckBundle(t.Context(), d.Tenant, d.ID, 2); err != nil {
		t.Fatal(err)
	}
	w.promote(op.ID)
}
