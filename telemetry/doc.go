// SPDX-License-Identifier: AGPL-3.0-only

// Package telemetry is what devices say: the inbox that makes a message durable, the chunks that measurements rest
// in, the latest values, the events, and the way of every other message to the stage that waits for it.
//
//	gateway -> Append: one inbox row per group commit -> PUBACK
//	Work:      inbox row -> chunks + latest + events, inbox row deleted, in ONE transaction
//	readers:   one snapshot of chunks + inbox
//
// Invariants:
//   - Append returns nil only when every record is on disk.
//   - A value is at any moment in exactly one place, inbox or chunk; so a reader that takes both from one snapshot sees
//     it once, and a crash between the two is impossible.
//   - A message that counts itself (boot and seq) is kept once, whatever is repeated, late or out of order; so is an event
//     that carries its time.
//   - Records of other classes reach the handler that was registered for their topic (Route) at least once, before
//     they leave the inbox or the table of undelivered records. One stuck handler delays no measurement. What no handler
//     takes is refused before it is acknowledged.
//   - Chunks, latest values and events are sealed with the device's own key, the inbox with an hourly key. EraseDevice compacts
//     first, then destroys the device's key: what is left in the tables or in a backup is unreadable.
//   - Security events are a chain per device, verified link by link and kept until the device is erased. A hole, a second
//     version, a link that does not fit or a checkpoint that is not the device's own is announced: device.chain-broken.
//   - A bad payload (of a measurement or an event) is dropped and counted against its device; it never stops the others.
//   - What a product's catalogue does not let in is kept nowhere but in the sealed inbox row that it came in, until that is
//     compacted; no reader shows it. It is counted per device and field by the rule that refused it.
//   - What is older than its field is kept goes within a day, out of the middle of chunks too; an existence fact of it stays.
//   - A hole in a device's own count of messages is told once, and closes when what was missing arrives.
//
// Events (of the telemetry handle): telemetry.gap, telemetry.gap-closed; subject: the device.
// Leaves: catalogue.changed, catalogue.retention, data.expired, data.shared, data.share-ended.
//
// On SQLite the tables live in their own file, and no transaction spans it and the platform's.
package telemetry
