// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

func billOf(parts ...string) Bill {
	var b Bill
	for _, p := range parts {
		var name, version, licence string
		fmt.Sscan(p, &name, &version, &licence)
		c := Component{Name: name, Version: version, PURL: "pkg:npm/" + name + "@" + version}
		if licence != "" {
			c.Licences = []Licence{{ID: licence}}
		}
		b.Components = append(b.Components, c)
	}
	return b
}

func TestCompareTellsWhatBecameOfEveryPart(t *testing.T) {
	got := CompareBills(
		billOf("kept 1 MIT", "gone 1 MIT", "newer 1 MIT", "relicensed 1 MIT", "both 1 MIT", "both 2 MIT", "both 2 MIT"),
		billOf("kept 1 MIT", "came 1 MIT", "newer 2 MIT", "relicensed 1 GPL-3.0-only", "both 2 MIT", "both 3 MIT"))
	say := ""
	for _, p := range got.Added {
		say += "+" + p.Name + " "
	}
	for _, p := range got.Removed {
		say += "-" + p.Name + " "
	}
	for _, c := range got.Changed {
		say += fmt.Sprint(c.Name, " ", c.Before.Version, "→", c.After.Version, " ", c.LicenceChanged, " ")
	}
	if want := "+came -gone both 1→3 false newer 1→2 false relicensed 1→1 true "; say != want || got.Same != 2 {
		t.Errorf("%q and %d the same; want %q and 2", say, got.Same, want)
	}
	if len(got.Licences()) != 1 || len(got.Versions()) != 2 {
		t.Errorf("%d licence changes, %d version changes", len(got.Licences()), len(got.Versions()))
	}
	cpe := func(v string) Bill {
		return Bill{Components: []Component{{Name: "curl " + v, Version: v, CPE: "cpe:2.3:a:haxx:curl:" + v + ":*:*:*:*:*:*:*"}, {Name: "relay"}}}
	}
	if got := CompareBills(cpe("1"), cpe("2")); len(got.Changed) != 1 || len(got.Added)+len(got.Removed) != 0 || got.Same != 1 {
		t.Errorf("by CPE name: %+v", got)
	}
}

// TestComparisonsAddUp holds for any two bills: every part of either side is told about exactly once, and the way back is
// the way there reversed.
func TestComparisonsAddUp(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		draw := func() Bill {
			var parts []string
			for range rnd.IntN(12) {
				parts = append(parts, fmt.Sprintf("p%d %d %s", rnd.IntN(4), rnd.IntN(3), []string{"MIT", "0BSD"}[rnd.IntN(2)]))
			}
			return billOf(parts...)
		}
		a, b := draw(), draw()
		distinct := func(x Bill) int {
			set := map[string]bool{}
			for _, c := range x.Components {
				set[c.PURL+c.Licence()] = true
			}
			return len(set)
		}
		there, back := CompareBills(a, b), CompareBills(b, a)
		if there.Same+len(there.Changed)+len(there.Removed) != distinct(a) || there.Same+len(there.Changed)+len(there.Added) != distinct(b) {
			t.Fatalf("%v to %v does not add up: %+v", a.Components, b.Components, there)
		}
		if len(there.Added) != len(back.Removed) || len(there.Removed) != len(back.Added) || len(there.Changed) != len(back.Changed) {
			t.Fatalf("the way back differs: %+v and %+v", there, back)
		}
		if same := CompareBills(a, a); same.Same != distinct(a) || len(same.Changed) != 0 {
			t.Fatalf("a bill differs from itself: %+v", same)
		}
	}
}
