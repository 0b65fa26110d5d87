// SPDX-License-Identifier: AGPL-3.0-only

// Package vuln knows what is wrong inside releases: records of vulnerabilities, findings, decisions, exposure.
//
//	feed delta     records (id, content hash) -> packages touched -> component versions -> releases -> findings
//	sbom.attached  components of one release -> records of their packages -> findings of that release
//	decision       (product, vulnerability, component) -> what counts as exposed
//
// Only these three events change anything; nothing rescans the portfolio. "Which devices" is not kept here: findings
// and decisions give releases with their times, the fleet's installation intervals give devices.
//
// Invariants:
//   - A feed changes everything that it says or nothing: it is read and judged whole before the first row is written.
//   - Aliases make one group, whatever the number of sources; a second source makes no second finding.
//   - A record that cannot be compared with a version gives an "unknown" finding with the reason, never silence.
//   - Decisions are appended, never changed but for their end; the newest that applies counts, at any instant also in the
//     past. One that no longer rests on what is known is asked for again, and no older one steps in.
//   - What others say proposes: nothing that is imported changes a decision, or what counts as exposed.
//   - Records, findings and decisions belong to one tenant: what one imports never reaches another.
//   - What stops the making of units is lifted by a person alone, and never stopped again for the same finding.
//
// Events: vuln.exploited (subject: the group's id) when a release with an open finding turns out to be known as
// exploited. It is a signal for a person to assess; it starts no clock. vuln.stopped and vuln.resumed (subject:
// the hold) when the making of units stops and goes on. Listens to sbom.attached and release.uploaded.
package vuln
