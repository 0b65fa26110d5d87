// SPDX-License-Identifier: AGPL-3.0-only

// Package feed reads sets of records of vulnerabilities from where they are published.
//
// Invariants:
//   - A set is read and judged whole before anything of it is handed over: one broken file refuses all of it.
//   - Nothing is unpacked, and no file read, beyond the stated bounds.
package feed
