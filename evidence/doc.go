// SPDX-License-Identifier: AGPL-3.0-only

// Package evidence gathers what the platform can prove about a device into one sealed file that needs no platform to be
// checked (evidence/verify).
//
// A bundle holds every entry of the audit log about the device, with payloads and inclusion proofs under one signed
// checkpoint, entries about what the device is related to (its releases, its product), and one section per stage:
// certificates, the wipe receipt, installation history, releases with their signed metadata, decisions, the tombstone.
//
// Invariants:
//   - Each export is itself an entry of the log ("evidence.exported", about the device) that states the digest of every
//     section and how many entries about the device the log held. So neither a section nor an entry can be left out or
//     exchanged without the log saying otherwise.
//   - A bundle is verified before it is handed out.
//   - Retirement takes nothing from it: a deprovisioned device can be exported as long as its rows are retained.
//
// The public page of a device (/label) stands behind the 128-bit code of its label, never behind its serial number. It says
// what its maker promises for the product; what runs on the device it says to whoever claimed it, and to nobody else.
//
// It announces no events. Audit: evidence.exported.
package evidence
