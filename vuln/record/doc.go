// SPDX-License-Identifier: AGPL-3.0-only

// Package record reads records of vulnerabilities as they are published, OSV and CVE List, and judges versions by them.
// It knows no database and no release.
//
// Parse reads a record; Claims cuts it into what it says about single names; Compile makes a Judge of one claim; Judge
// gives a Verdict on one version. Prioritize orders what was found, Unbuilt weighs a kernel's compiled files.
//
// Invariants:
//   - What cannot be compared is "unknown" with the reason, never "not affected".
//   - A verdict depends on the record's present content and on the component's names and version alone.
//   - Nothing grows with the square of a record's size, and no slip in one field costs the whole record.
package record
