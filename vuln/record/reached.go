// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"github.com/google/osv-scalibr/semantic"

	"github.com/openthings-platform/openthings/sbom"
)

// Reached reports whether a version, as a component of the space has it, is the one with which a fix came or a later one.
// What cannot be compared has not.
func Reached(space, version, fixed string) bool {
	parse := func(text string) (semantic.Version, bool) { return parseVersion(text, space, false) }
	switch space {
	case sbom.SpaceKernel:
		parse = func(text string) (semantic.Version, bool) {
			return asVersion(parseUpstream(kernelVersion(text), false))
		}
	case sbom.SpaceCPE, sbom.SpaceProduct:
		parse = func(text string) (semantic.Version, bool) { return asVersion(parseUpstream(text, false)) }
	}
	has, ok := parse(version)
	needed, comparable := parse(fixed)
	if !ok || !comparable {
		return false
	}
	order, err := has.Compare(needed)
	return err == nil && order >= 0
}
