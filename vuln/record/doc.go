// SPDX-License-Identifier: AGPL-3.0-only

// Package record reads records of vulnerabilities as they are published and judges versions by them. It knows no
// database and no release.
//
// Invariants:
//   - What cannot be compared is "unknown" with the reason, never "not affected".
//   - A verdict depends on the record's present content and on the version alone.
package record
