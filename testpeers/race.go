// SPDX-License-Identifier: AGPL-3.0-only

package testpeers

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// RaceFlags are the flags of the go command with which `make test` builds under the race detector (docs/decisions/0060).
func RaceFlags(ctx context.Context) ([]string, error) {
	root, err := source(ctx, "..")
	if err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, "make", "--silent", "--no-print-directory", "-C", root, "race-flags").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("testpeers: make race-flags: %w\n%s", err, out)
	}
	return strings.Fields(string(out)), nil
}
