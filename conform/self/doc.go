// SPDX-License-Identifier: AGPL-3.0-only

// Package self is the file that the platform keeps on itself: it is a product with digital elements too, and part of the
// remote data processing of every product that uses it.
//
// It travels inside the program and is computed from it: the bill of materials from the build information of the very file
// that runs, bound to it by digest and graded by the rules of package sbom; until when which version is supported; where
// vulnerabilities are reported; the class with its reasons; the 22 rows of Annex I; what users and integrators get
// (Annex II); a declaration of conformity as an unsigned draft; OpenEoX; VEX. All of it is public at fixed addresses below
// /self, on every installation and without signing in, since CRA Article 32(5) asks for public technical documentation.
//
// Invariants:
//   - The parts of the bill are those that "go version -m" shows of the file, what was embedded into it beside them, and
//     the Go standard library; a module without a licence on record fails a test, not a release.
//   - Nothing here says that the platform conforms: who places it on the market declares that, and signs.
//   - What the program does not know of itself is a sentence of Open, never left out.
//   - The public documents say the same on every installation of the same file. What the feeds of an installation find in
//     it is shown to people who signed in, and to nobody else.
package self
