// SPDX-License-Identifier: AGPL-3.0-only

// Package disclosure is where finders of vulnerabilities reach a manufacturer (CRA Annex I Part II (5) and (6)): the
// contact, published as security.txt (RFC 9116).
//
// Invariants:
//   - What is published as security.txt is what RFC 9116 allows, one field a line.
//   - A host leads to one tenant: the one that named it, else the only one that named none.
package disclosure
