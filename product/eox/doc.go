// SPDX-License-Identifier: AGPL-3.0-only

// Package eox reads, writes and checks OpenEoX Core 1.0 (OASIS, Committee Specification Draft 01, 2026): when sale,
// security support and life of a product end, for machines.
//
// Invariants:
//
//   - What Marshal writes passes every check of Validate that makes a document invalid.
//
//   - The JSON schema of the specification accepts documents that its mandatory tests refuse, so Validate runs both: the
//     shape (section 6) and the tests 7.1.1 to 7.1.3, and beside them the recommended (7.2) and informative (7.3) ones.
//
// The package is pure: no clock, no files, no network.
package eox
