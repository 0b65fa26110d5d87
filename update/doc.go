// SPDX-License-Identifier: AGPL-3.0-only

// Package update brings software to devices: the manufacturer's trust root, releases behind their gate, deployments in waves.
//
// Promises
//   - An unsigned release cannot exist: its facts are copied from a list that keys of the tenant's root have signed, and
//     the signing keys never reach this platform. What the platform says is a hint; devices decide with update/trust.
//   - A release has a bill of materials whose digest stands under the signature and which names the digest of the image.
//   - A release is published by a person once every check of the policy has passed, and none has failed since.
//   - A release below the advised floor of its hardware is deployed only if a person says why.
//   - An update is committed when the new system has reported, after its start, that it runs the image that was signed
//     for. What a device claims of itself earlier is shown, and counts for nothing.
//   - Starting, widening or pausing a deployment writes a handful of rows, however many devices it asks for.
//
// States of a release: draft -> checked -> published -> withdrawn; a check that fails leads from checked back to draft.
// States of a deployment: running <-> paused; aborted and completed are ends.
//
// Events: release.uploaded, release.published, release.withdrawn, deployment.started, deployment.ended, update.ended.
// Other stages judge a release by listening to release.uploaded and calling RecordCheck.
package update
