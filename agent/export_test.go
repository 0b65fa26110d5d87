// SPDX-License-Identifier: Apache-2.0

package agent

import "context"

// RunUntilCut is Run with a power that may go before any effect on disk.
func RunUntilCut(ctx context.Context, c Config, cut func(effect string) error) error {
	return run(ctx, c, disk{dir: c.Dir, cut: cut}, func(*agent) {})
}
