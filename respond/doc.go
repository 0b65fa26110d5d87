// SPDX-License-Identifier: AGPL-3.0-only

// Package respond is what is owed once something went wrong: signals, assessments, cases, their clocks and what was
// submitted (CRA Article 14).
//
// A signal is a hint, from a person or from the event vuln.exploited. A person opens an assessment of it and decides:
// negative, watch or aware. A finder's signal may name no product; whoever decides does. Only that decision, with an evidence note, sets T0 and opens a case; no feed, scanner or
// job can (Commission guidance C(2026) 5252, points 211-218). A case is one manufacturer x one product x one kind:
// AEV, an actively exploited vulnerability, or SI, a severe incident. If both questions are answered yes, two linked
// cases open.
//
// A case is its events and nothing else: Fold makes the state, Clocks the deadlines, Check says whether a further event
// may be appended. All three are pure, so that anybody can recompute from an exported log what was due and when.
//
// Invariants:
//   - T0 is set by a person's decision; a correction appends and leaves the first value visible.
//   - A submission counts only with a receipt, confirmed by a second person; "sent" is never a state.
//   - A missing anchor gives "undetermined" with a reason, never a guessed date.
//   - Early warning before notification before final; after an accepted final report nothing is submitted.
//   - Withdrawing a measure does not move the anchor; an outage pauses nothing; what was overdue stays so on record.
//   - What a report asks for is the union of the law and of the reporting platform's fields as they were when the case was
//     opened; what a person wrote is replaced by no draft; an incomplete report is not recorded as submitted without a reason.
//   - What was submitted is kept byte for byte, its digest stands in the log; receipts as files are sealed and never shown.
//   - The coordinator is what the order of Art. 14(7) leads to and a person confirmed.
//   - A signal that nobody decides escalates by itself; what was judged is opened again only by new evidence, which is named.
//   - The house's limits only tighten the law's; a looser one is refused by the name of its rule.
//   - Users informed, dissemination, upstream, publication, requests and outages go on beside the reports and move no clock;
//     72 hours after a measure was filed as expected, others are assumed to know.
//   - Of two people who decide at once one wins, and the other is told who it was and when.
//   - Each escalation is written exactly once, however often the platform restarts.
//
// A drill rehearses a case up to a confirmed early warning, by the same rules and fields, and is none: it has tables of its
// own, so that no question about cases can answer with one, and no receipt of it can look like a real one.
//
// Events consumed: vuln.exploited, alarm.raised. Events emitted: case.opened, case.deadline (soon, overdue, or
// something beside the reports ran out), case.closed, signal.idle.
package respond
