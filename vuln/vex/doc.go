// SPDX-License-Identifier: AGPL-3.0-only

// Package vex reads and writes what somebody says about a vulnerability in a product: OpenVEX 0.2.0, the VEX profile of
// CSAF 2.0 and the vulnerabilities of CycloneDX 1.4 to 1.7. It is pure: no database, no network.
//
//	Parse   reads a document of others within bounds, whichever of the three it is
//	Write   gives the bytes of a document in one of the three
//
// All three become Statements in one normal form, so that the same statements read from any of them are equal. The words
// are those of OpenVEX, which CSAF shares. CycloneDX has words of its own: those with an equal are translated, those
// without one are kept as Foreign beside the statement, and nothing is guessed in their place (docs/reference/vex.md has
// the table).
//
// Invariants:
//   - Parse(Write(d)) has the statements of d in its normal form, in every format (TestRoundTrip).
//   - What a document says and a statement cannot hold is named in Unread, never dropped in silence.
//   - Reading decides nothing. A statement of others is a proposal until a person accepts it, in package vuln.
package vex
