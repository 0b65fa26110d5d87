// SPDX-License-Identifier: AGPL-3.0-only

// Package vuln knows what is wrong inside releases: records of vulnerabilities, findings, decisions, exposure.
//
//	feed delta     changed records -> what they claim about names -> components known by these names -> hits
//	sbom.attached  components new to the tenant -> claims about their names -> hits
//	decision       (product, a name of the vulnerability, component) -> what counts as exposed
//
// Only these three events change anything; nothing rescans the portfolio. A hit is one record speaking about one component,
// from when to when. Everything else is joined when it is asked for: a vulnerability is the records that share a name, a
// finding is a hit of a component while a release lists it, exposure is a finding that was not decided to be harmless, and
// the fleet's installation intervals give the devices. Hits follow from the present records and the components alone, so the
// order of events does not matter; Audit checks them against a plain comparison (docs/decisions/0036-hits.md).
//
// Invariants:
//   - Whatever the order of records, bills and decisions, the same is stored in the end; what older rules derived is derived
//     again at the next start (rulesVersion).
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
