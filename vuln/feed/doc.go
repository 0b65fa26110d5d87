// SPDX-License-Identifier: AGPL-3.0-only

// Package feed reads what is published about vulnerabilities from where it is published: records (OSV, CVE List v5), lists
// of what is exploited (KEV, EUVD), the scores of EPSS, and CSAF documents. It knows no database and no platform.
//
//	file, folder, zip            Open, OpenPath
//	named source                 Fetcher.Gather: a file, one address, an OSV bucket, a mirror, a CSAF provider
//	signed bundle                WriteBundle, OpenBundle: the same for a site without a network
//
// Invariants:
//   - A set is read and judged whole before anything of it is handed over: one broken file refuses all of it.
//   - Nothing is unpacked, and no file read, beyond the stated bounds; what a header or an archive says of sizes is not believed.
//   - What changed is told by content. Dates and lists of changes only save reading.
//   - Over the network: TLS with verified names, http only to the machine itself, no way back from https to http, a body of
//     exactly the stated length.
//   - A bundle that is unsigned, altered, cut short or older than the one before is refused.
package feed
