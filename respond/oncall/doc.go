// SPDX-License-Identifier: AGPL-3.0-only

// Package oncall is who is called when a clock of the law is near its end, and who is next while nobody answers.
//
// A tenant has one rota: people in the order of their turns, each with the endpoints (mail, webhook) that reach them, and who
// is away when. What is worth a call opens one; it goes to whoever has the turn, then to each deputy in order, with a pause
// that the rota sets, until somebody answers, until what it is about is over, or until everybody was called three times.
//
// Invariants:
//   - There is always somebody to call: when all are away, all are called in their order.
//   - A turn begins and ends at the same hour on the wall in the rota's zone, on both sides of a change of the clocks.
//   - Each step of a call is taken once, however often the platform restarts and on however many machines.
//   - An answer is a person's, the first one stands, and everybody sees whose it was.
//   - The call of a drill says DRILL first, is in no list of calls, is told to nobody but those on call, and ends the moment that
//     somebody is called in earnest.
//   - What a call is about being over ends it at once, and pagers close its incident.
//   - A call says nothing of a case but its title: it may reach a telephone that others see.
//
// Events consumed: those that Config.Worth and Config.Eased name. Event emitted: oncall.unanswered. Audit: oncall.rota_set, oncall.called,
// oncall.answered.
package oncall
