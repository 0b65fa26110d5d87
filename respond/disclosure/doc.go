// SPDX-License-Identifier: AGPL-3.0-only

// Package disclosure is the desk where finders of vulnerabilities reach a manufacturer (CRA Annex I Part II (5) and (6)):
// policy, security.txt (RFC 9116), a form that needs neither account nor script, and what becomes of a report.
//
// A report is its events and nothing else: Fold makes the state, Timers what was promised to the finder and when it ends,
// Check says whether a further event may be appended. All three are pure. Timers are promises of the policy; legal clocks
// are those of cases, and only a person starts them.
//
// Invariants:
//   - A finder who gets an answer has an id, and the report is on disk.
//   - What a finder wrote, who they are and what they attached are sealed; a person opens it, and that is on record. The
//     identity has a key of its own: destroying it leaves the report, and its digest in the log, as they were.
//   - Files of strangers are never shown, only handed out as bytes; in the clear they never touch the disk.
//   - "Seen exploited: yes" opens a signal in the same transaction. No embargo holds it back, and it starts no clock.
//   - An embargo has a list and an end. Who is not on the list sees that a report exists, whatever their role.
//   - Strangers write one leaf an hour into the log, however much they send. Each escalation is written once.
//   - A valid report is closed after a public advisory, and none while the maker of a component is still to be told.
//   - What is served as security.txt is signed and renews itself; people are told 30 days before a file ends.
//
// Events announced: report.received, report.added, report.deadline, securitytxt.expiring. It consumes none.
package disclosure
