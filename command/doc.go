// SPDX-License-Identifier: AGPL-3.0-only

// Package command is what is asked of devices: one command to one device, from the request to its result.
//
//	queued -> sent -> received -> accepted -> done | failed
//	   \________\_________\___________\____> expired
//
// The row is the queue: a QoS 1 packet only carries it. "received" means that the device acknowledged the packet;
// "accepted" and the result are its own words, on cmd/<id>/ack and cmd/<id>/res.
//
// Invariants:
//   - A command is sent until the device's acknowledgement of the packet is on record, never afterwards: a device that
//     restarts on command does not find the same command again. If the platform dies between the two, it comes twice
//     under the same id.
//   - A device that is offline gets what is queued when it comes back, oldest first, unless it has expired.
//   - Only the device that was asked can answer. The first result counts; a repeat changes nothing.
//   - A result that comes after the expiry still counts, since the device did it; the log then holds both ends.
//   - A command's creation and its end are leaves of the audit log, in the same transaction as the row.
//   - Expiry is a job at a time, not a timer in memory.
//
// Events: command.ended {device, name, state}.
package command
