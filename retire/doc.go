// SPDX-License-Identifier: AGPL-3.0-only

// Package retire ends the life of a device, in two acts that are not the same.
//
// Decommission is the device's side: a wipe command with a nonce, answered by a receipt that the device signs with the
// IDevID key it was born with. Only a true receipt makes the device decommissioned and revokes its certificates.
//
// Deprovision is ours: every certificate is revoked and the device barred for ever, live sessions are cut, the telemetry
// and its key are erased, and a record of the erasure stays that names when backups have forgotten it too.
//
//	commissioned --decommission--> decommissioning --true receipt--> decommissioned --deprovision--> deprovisioned
//	     any ------------------- deprovision without wipe, for what is lost or broken -----------------^
//
// Invariants:
//   - A receipt counts only if the IDevID key pinned at the request signed it, for this device, serial number, command
//     and nonce. Any other is refused; the log keeps that the command failed and why.
//   - Trust ends first and at once; each later step of a deprovision is idempotent, its completion a row, and a job goes
//     on where a step failed or the platform died.
//   - With the trust ends what was asked of the device, in the same transaction: no command waits for one that never comes back.
//   - Evidence outlives the device: certificates, decisions, installations, receipts and the audit log are kept.
//
// Events: device.decommissioned, device.erased.
package retire
