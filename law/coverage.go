// SPDX-License-Identifier: AGPL-3.0-only

package law

import _ "embed"

// Covered says what stands behind a row of the law: checks that run by themselves, or a step that a person takes. A test
// holds each name to the tree: a row without either, or with a name of nothing, fails the build.
type Covered struct {
	Row      string   `json:"row" doc:"Id of the row"`
	Tests    []string `json:"tests,omitempty" doc:"Tests of this platform, as package.Test"`
	Controls []string `json:"controls,omitempty" doc:"Names of controls: each removes a check and expects its test to fail"`
	Step     *Step    `json:"step,omitempty" doc:"What a person does"`
}

// Step is what a person of the manufacturer does, and where it is recorded.
type Step struct {
	Role    string `json:"role" doc:"As openthings roles names it"`
	Does    string `json:"does"`
	Page    string `json:"page,omitempty" doc:"Path of the console, with {id} for what it is about"`
	Command string `json:"command,omitempty" doc:"Of the openthings program; absent where a page records it"`
}

//go:embed coverage.json
var coverageJSON []byte

var coverage = must(parse[[]Covered](coverageJSON))

// Coverage lists what stands behind each row of Annexes I, II, V and VII and of Articles 13 and 14. The caller must not
// change it.
func Coverage() []Covered { return coverage }

// CoverageOf returns what stands behind a row; nothing for a rule that is no such row.
func CoverageOf(row string) Covered {
	for _, c := range coverage {
		if c.Row == row {
			return c
		}
	}
	return Covered{Row: row}
}
