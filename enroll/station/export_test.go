// SPDX-License-Identifier: AGPL-3.0-only

package station

import "github.com/openthings-platform/openthings/clock"

// OpenUntilCut is Open on a disk whose power may go: cut is asked before each effect.
func OpenUntilCut(dir string, clk clock.Clock, cut func(effect string) error) (*Station, error) {
	return open(disk{dir: dir, cut: cut}, clk)
}
