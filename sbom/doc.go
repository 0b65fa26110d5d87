// SPDX-License-Identifier: AGPL-3.0-only

// Package sbom knows what is inside a release.
//
// CycloneDX and SPDX documents are read into one model, Bill. The uploaded bytes are kept untouched with their SHA-512:
// what is shown is derived, what is kept is the original. A document is graded, never refused for its quality; it is
// refused only where it is hostile (beyond the stated bounds) or where it is no bill of materials.
//
// Invariants:
//   - a component is one (ecosystem, name, version) for all releases; the spelling of each document stays beside it;
//   - Go package names are folded to lower case on both sides of every comparison and shown as they were written;
//   - the root of a document, its files and digests are not packages, but they tie the document to an image.
//
// Events: sbom.attached (subject: the release) when a release has a new bill of materials.
package sbom
