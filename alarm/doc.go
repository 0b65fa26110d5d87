// SPDX-License-Identifier: AGPL-3.0-only

// Package alarm watches what devices say and raises alarms by rules: a value beyond a threshold, a value that changes too
// fast, a device that says nothing, events that come too often.
//
//	telemetry --watched records--> Observe: standing of rule and device -> alarm raised or cleared
//	job at a time               --> tick:    what only time can tell (a condition that holds long enough, silence)
//
// Invariants:
//   - A record that a rule watches is evaluated at least once after its receipt, also when the platform dies between the
//     two; evaluating it twice changes nothing. A record older than one that was evaluated changes nothing either.
//   - There is at most one open alarm per rule and device. Who acknowledges an alarm does not end it; it ends when the
//     condition is over, the rule or the device has gone, or a person closes it.
//   - Time is a job at an instant, not a timer in memory.
//   - Alarms are operational: they are no leaves of the audit log. Rules are, since they decide what people are told.
//
// Events: alarm.raised {rule, name, device, product, severity, value, signal}, alarm.cleared {rule, name, device, why}. The
// same two are told outside by package notify.
package alarm
