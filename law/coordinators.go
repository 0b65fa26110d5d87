// SPDX-License-Identifier: AGPL-3.0-only

package law

import (
	_ "embed"
	"fmt"
)

// Coordinator is the CSIRT that a Member State designated as coordinator (CRA Art. 14(1), 16). There is no address here:
// reports go through the reporting platform, and an address that nobody compared would be worse than none.
type Coordinator struct {
	State string `json:"state"` // code of the Member State
	Name  string `json:"name"`
	Basis Basis  `json:"basis"`
	Note  string `json:"note,omitempty"`
}

// Coordinators are all of them, with where and when the names were read.
type Coordinators struct {
	AsOf    Date          `json:"as_of"`
	Source  string        `json:"source"`
	Checked Date          `json:"checked"`
	List    []Coordinator `json:"coordinators"`
}

//go:embed coordinators.json
var coordinatorsJSON []byte

var coordinators = must(parseCoordinators(coordinatorsJSON))

// AllCoordinators lists the coordinators by Member State. The caller must not change it.
func AllCoordinators() Coordinators { return coordinators }

// CoordinatorOf returns the coordinator of a Member State.
func CoordinatorOf(state string) (Coordinator, bool) {
	for _, c := range coordinators.List {
		if c.State == state {
			return c, true
		}
	}
	return Coordinator{}, false
}

// parseCoordinators refuses a list that does not name exactly one for each Member State.
func parseCoordinators(b []byte) (Coordinators, error) {
	c, err := parse[Coordinators](b)
	if err != nil {
		return c, fmt.Errorf("coordinators: %w", err)
	}
	if c.AsOf.IsZero() || c.Checked.IsZero() || c.Source == "" || len(c.List) != len(states) {
		return c, fmt.Errorf("coordinators: %d of %d, or a date or source is absent", len(c.List), len(states))
	}
	for i, x := range c.List {
		if x.State != states[i].Code || x.Name == "" || x.Basis == "" {
			return c, fmt.Errorf("coordinators: %q stands where %q belongs, or lacks a part", x.State, states[i].Code)
		}
	}
	return c, nil
}
