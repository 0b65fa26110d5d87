// SPDX-License-Identifier: AGPL-3.0-only

// Package advisory tells users about one vulnerability of one product (CRA Annex I Part II (4) and (8)). People write its
// words; what it says of releases is computed from findings and decisions whenever a revision is published, as CSAF 2.0
// with digests and an OpenPGP signature, by a provider that needs no login for TLP:WHITE.
//
//   - A published revision never changes; nothing is published without digests and a signature that a reader believes.
//   - Releases that were never published are not named, drafts are nowhere to be seen.
//   - A hold has a reason and an end; while it lasts nothing is published, at its end people are reminded.
//
// Its tables are in the schema of package respond. Events: advisory.published, advisory.hold_ended. Audit: the same, and
// advisory.drafted, advisory.changed, advisory.held, advisory.lifted, advisory.publisher_set.
package advisory
