// SPDX-License-Identifier: AGPL-3.0-only

package identity

import "testing"

// The card of a device must not send anybody to enrol it again when no certificate is left that a door takes.
func TestTheCardSaysWhoIsLockedOut(t *testing.T) {
	for what, c := range map[string]struct {
		phases []Phase
		want   bool
	}{
		"nothing yet":                    {nil, false},
		"only its birth certificate":     {[]Phase{PhaseActive}, false},
		"revoked, with its birth left":   {[]Phase{PhaseRevoked, PhaseActive}, false},
		"asked, not used":                {[]Phase{PhasePending, PhaseRevoked}, false},
		"all revoked":                    {[]Phase{PhaseRevoked, PhaseRevoked}, true},
		"all revoked, and one succeeded": {[]Phase{PhaseRevoked, PhaseSuperseded, PhaseRevoked}, true},
	} {
		var p devicePart
		for _, phase := range c.phases {
			p.Certificates = append(p.Certificates, Certificate{Phase: phase})
		}
		if got := p.LockedOut(); got != c.want {
			t.Errorf("%s: locked out is %v", what, got)
		}
	}
}
