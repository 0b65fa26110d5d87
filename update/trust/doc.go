// SPDX-License-Identifier: Apache-2.0

// Package trust decides whether a device may install a release. It is pure: no files, no network, no clock of its own.
//
// The manufacturer signs two documents in the format of The Update Framework (TUF 1.0) with keys that the platform never
// holds: a root, which names the keys, and targets, which lists what may be installed. A device keeps the root it was
// given on the line, follows rotations that the root it trusts has signed, and asks [Decide] about everything else.
//
// Invariants:
//   - Signatures cover the canonical JSON of "signed"; what was verified is what is read, from the same bytes.
//   - A document with a repeated member, a fraction, foreign bytes after it, or beyond the limits of size and depth is refused.
//   - A threshold counts distinct public keys, whatever ids they go by.
//   - Expiry stops installing, never running.
//   - The floor compares security_version, a whole number under the manufacturer's signature; a version string decides nothing.
//
// Every refusal is a [*Refusal] that names its rule.
package trust

import "fmt"

// Rules a refusal can name. They travel in wire.UpdateStatus.Rule and appear in the fleet, so they are stable.
const (
	RuleFormat    = "format"     // not a well-formed document of its role, or beyond a limit
	RuleSignature = "signature"  // fewer valid signatures of distinct listed keys than the threshold
	RuleExpired   = "expired"    // root, targets or the offer is past its time
	RuleRollback  = "rollback"   // metadata older than what the device has already seen
	RuleTarget    = "target"     // the signed list does not name it
	RuleProduct   = "product"    // made for another product
	RuleHardware  = "hardware"   // made for other hardware revisions
	RuleFloor     = "floor"      // security_version below the device's floor
	RuleDataFloor = "data_floor" // it cannot read the data that the running software has migrated
	RuleMinFrom   = "min_from"   // an intermediate release must be installed first
	RuleDigest    = "digest"     // the bytes are not the ones that were signed for
)

// Refusal says by which rule something was refused, and why, in one sentence.
type Refusal struct {
	Rule   string
	Reason string
}

func (r *Refusal) Error() string { return r.Reason + " (rule " + r.Rule + ")" }

func refuse(rule, format string, args ...any) *Refusal {
	return &Refusal{Rule: rule, Reason: fmt.Sprintf(format, args...)}
}
