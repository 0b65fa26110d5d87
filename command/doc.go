// SPDX-License-Identifier: AGPL-3.0-only

// Package command is what is asked of devices: a command to one device, from the request to its result, and a job that
// asks the same of many.
//
//	queued -> sent -> received -> accepted -> done | failed
//	   \________\_________\___________\____> expired
//	    \> cancelled
//
// The row is the queue: a QoS 1 packet only carries it. "received" means that the device acknowledged the packet;
// "accepted" and the result are its own words, on cmd/<id>/ack and cmd/<id>/res.
//
// Invariants:
//   - A command is sent until the device's acknowledgement of the packet is on record, never afterwards: a device that
//     restarts on command does not find the same command again. If the platform dies between the two, it comes twice
//     under the same id. Only a command that is declared idempotent is asked again when no result comes.
//   - Every attempt is counted in the row and fenced by that count: two nodes do not hand the same attempt over, and the
//     note of a slow one undoes nothing. What was never acknowledged is handed over so often and no more.
//   - A device that is offline gets what is queued when it comes back, oldest first, unless it has expired. What is open when
//     the device comes to its end is ended with it, and so it is when one act bars its batch, line station or trusted CA.
//   - Only the device that was asked can answer. The first result counts; a repeat changes nothing.
//   - A result that comes after the expiry still counts, since the device did it; the log then holds both ends.
//   - A command's creation and its end are leaves of the audit log, in the same transaction as the row; so are a job's.
//   - What is asked of a device and what it answers is sealed with its own key: erasing the device makes them unreadable in
//     every backup. Rows, states, times and leaves stay; a leaf has the digest of what is sealed, which tells nothing then.
//   - Every deadline is a column that any node sweeps, never a timer in memory. A command asked for on one node reaches a
//     device on another within a second or two: nodes look at the rows of the last moments.
//   - A job is driven by rows alone: whoever drives it next goes on where it was cut off, and asks nobody twice. It lets
//     devices begin that are online, within its rate and bound; the others wait for their return. What a platform did not
//     do while it was away is not made up for at once.
//
// Events: command.ended {device, name, state}, job.ended {state, reason, title, counts}.
package command
