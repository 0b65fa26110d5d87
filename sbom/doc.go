// SPDX-License-Identifier: AGPL-3.0-only

// Package sbom knows what is inside a release, and shows how it was built.
//
// CycloneDX and SPDX documents are read into one model, Bill, and written from it. The uploaded bytes are kept untouched
// with their SHA-512: what is shown is derived, what is kept is the original, and what an older version read is read
// again. A document is graded by two lists of named facts, never refused for its quality; it is refused only where it is
// hostile (beyond the stated bounds) or where it is no bill of materials.
//
// Invariants:
//   - a component is its names in records of vulnerabilities, for all releases; the spelling of each document is a part;
//   - a package of a registry or a distribution has that one name; the Linux kernel has its own; all others have every
//     name that can be read, and what has none is shown as not matchable, never as clean;
//   - what a release lists is half-open in time: a new document closes rows and deletes none;
//   - the root of a document, its files and digests are not packages, but they tie the document to an image;
//   - a list of compiled files is of a whole kernel, or it is refused;
//   - a reduced copy says in itself that it is one.
//
// Events: sbom.attached (subject: the release) when a release has a new bill of materials, or its bill was read anew;
// sbom.evidence (subject: the release) when something else is known of how it was built.
//
// Audit: sbom.attached, sbom.evidence, sbom.exported.
package sbom
