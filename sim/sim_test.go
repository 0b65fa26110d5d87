// SPDX-License-Identifier: AGPL-3.0-only

package sim_test

import (
	"testing"

	"github.com/openthings-platform/openthings/sim"
)

// A fleet lives through 140 days of power cuts, absences, revocations and two rollovers: nobody is stranded, nobody has
// two identities, and nobody who was revoked comes in.
func TestFleet(t *testing.T) {
	r, err := sim.Run(t.Context(), sim.Config{Dir: t.TempDir(), Devices: 300, Absent: 0.3, Revoked: 0.1, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", r)
	if r.Stranded != 0 || r.Duplicates != 0 || r.AcceptedAfterRevocation != 0 {
		t.Errorf("%d stranded, %d duplicates, %d accepted after revocation", r.Stranded, r.Duplicates, r.AcceptedAfterRevocation)
	}
	// Without these the run would prove nothing.
	if r.Renewals == 0 || r.Returns == 0 || r.Bootstraps == 0 || r.Cuts == 0 || r.Refused == 0 || r.Revoked == 0 || r.Rollovers != 2 {
		t.Errorf("the fleet's life was too quiet: %+v", r)
	}
}
