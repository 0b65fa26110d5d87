// SPDX-License-Identifier: AGPL-3.0-only

package testpeers

import "context"

// Versions returns the path of a program that compares versions by other people's code: see testpeers/versions.
func Versions(ctx context.Context) (string, error) { return build(ctx, "versions", ".") }
