// SPDX-License-Identifier: AGPL-3.0-only

// Package csaf is the Common Security Advisory Framework 2.0 (OASIS Standard, 2022-11-18) as documents: what an advisory or
// a VEX is made of, how it is read, written and judged. It is pure: no database, no network.
//
//	Parse   reads a document of others within bounds; members that it does not know are left out
//	Check   says which of the mandatory tests of section 6.1 the document fails
//	Write   gives the bytes that are hashed and signed; equal documents give equal bytes
//
// Invariants:
//   - Write refuses what Check refuses, so nothing that fails a mandatory test is ever published.
//   - Members are written in alphabetical order (section 6.2.13), sets of products sorted.
//   - The version written is Version; a reader that takes 2.1 adds a second one here, nothing else has to know.
package csaf
