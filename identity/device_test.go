// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Whatever way a device takes through its life: what is barred stays barred, the end is the end, and only a state that
// the design names admits a certificate.
func TestStates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at, barred := Manufactured, false
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			to := rapid.SampledFrom(States).Draw(t, "to")
			may := at.May(to)
			switch {
			case at == Deprovisioned && may:
				t.Fatalf("%s -> %s: deprovisioned is final", at, to)
			case barred && may && !to.Barred():
				t.Fatalf("%s -> %s: a barred device comes back", at, to)
			case may && to == at:
				t.Fatalf("%s -> %s goes nowhere", at, to)
			case may && to == Manufactured:
				t.Fatalf("%s -> %s: a device is made once", at, to)
			case may && to == Deprovisioned && at != Decommissioned:
				t.Fatalf("%s -> %s skips decommissioning", at, to)
			case may && to == Commissioned && at != Pending && at != Suspended:
				t.Fatalf("%s -> %s skips the claim", at, to)
			}
			if may {
				at, barred = to, barred || to.Barred()
			}
			if (barred || at == Suspended || at == Manufactured) && (at.Admits(IDevID) || at.Admits(LDevID)) {
				t.Fatalf("a device that is %s is admitted", at)
			}
		}
	})
	for _, s := range States {
		if !s.Barred() && !slices.ContainsFunc([]State{Decommissioning, Decommissioned}, s.May) {
			t.Errorf("a device that is %s cannot be decommissioned", s)
		}
		if s.Admits(Station) || s.Admits("") {
			t.Errorf("%s admits a certificate that no device has", s)
		}
	}
	if State("asleep").May(Provisioned) || State("").Admits(IDevID) || State("asleep").Known() {
		t.Error("an unknown state is good for something")
	}
}

func TestProfiles(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 500, time.UTC)
	for k, p := range Profiles {
		for _, life := range []time.Duration{0, time.Hour, 100 * 365 * 24 * time.Hour} {
			from, until := p.validity(now, life)
			if from.After(now) || !until.After(now) || p.Life > 0 && until.Sub(now) > max(p.Life, p.Most) || life == 0 && p.Life > 0 && until.Sub(now) > p.Life || p.Life == 0 && !until.Equal(Forever) {
				t.Errorf("%s for %s: %s to %s", k, life, from, until)
			}
		}
	}
	seen := map[string]bool{}
	for range 1000 {
		n := newSerial()
		if n.Sign() <= 0 || n.BitLen() > 128 || seen[n.String()] {
			t.Fatalf("serial number %s", n)
		}
		seen[n.String()] = true
	}
}

func TestCheckSerial(t *testing.T) {
	for s, ok := range map[string]bool{"LAMP-000.1_a": true, "": false, "a b": false, "a/b": false, "ä": false, "a\n": false, strings.Repeat("a", 64): true, strings.Repeat("a", 65): false} {
		if err := CheckSerial(s); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
}
