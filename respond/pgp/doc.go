// SPDX-License-Identifier: AGPL-3.0-only

// Package pgp keeps the OpenPGP keys in which a tenant speaks to the world: they sign its advisories and its security.txt,
// and reports of vulnerabilities are encrypted to them. They sign no firmware and open no door.
//
//   - The first key is made when it is first needed; a private part is sealed under the platform key and never leaves.
//   - All keys of a tenant are published, since they signed what is still read; the newest signs.
//   - Nothing is handed out as signed that a reader with the public key alone would not believe.
//
// Audit: pgp.key_made. It announces no events.
package pgp
