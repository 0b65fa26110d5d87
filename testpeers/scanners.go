// SPDX-License-Identifier: AGPL-3.0-only

package testpeers

import "context"

// OSVScanner returns the path of osv-scanner v1.9.2: it reads a bill of materials and a zip of OSV records without any
// network. It compares versions with code of the same family as ours; its walk along the ranges is its own.
func OSVScanner(ctx context.Context) (string, error) {
	return build(ctx, "osvscanner", "github.com/google/osv-scanner/cmd/osv-scanner")
}

// Govulncheck returns the path of govulncheck v1.6.0: it reads the modules inside a Go program, and records in the layout
// of the Go vulnerability database. Its comparison of versions is independent of ours.
func Govulncheck(ctx context.Context) (string, error) {
	return build(ctx, "govulncheck", "golang.org/x/vuln/cmd/govulncheck")
}
