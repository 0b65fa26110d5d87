// SPDX-License-Identifier: AGPL-3.0-only

// Package handover gives away what the users of a product need when its maker, or this platform, no longer serves them.
//
//   - The orphan bundle of a product: the last firmware of each hardware revision with the maker's signatures and keys,
//     its bill of materials, what is said of its vulnerabilities, the published advisories and the user information. It is
//     verified with openssl and sha256sum, and its firmware with openthings-agent check, without this platform and without
//     a network.
//   - The configuration of a fleet: what was set for devices, in the bodies that the API takes them in.
//   - The data of a device: what it measured, said, was asked and answered, before it is erased (Data Act, article 4).
//
// Invariants:
//
//   - What is handed over names each of its files with its length and SHA-256; nothing is left out without a word.
//   - Equal inputs make equal bytes: an orphan bundle says nothing of when or for whom it was made.
//   - An orphan bundle whose firmware does not verify against the maker's own keys is not handed out.
//   - Nothing is held in memory that grows with images, fleets or history.
//   - Nobody gets by a bundle what they may not read by itself.
//
// Audit: product.orphaned, configuration.exported, device.data-exported. The room has no tables.
package handover
