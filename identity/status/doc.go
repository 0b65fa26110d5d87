// SPDX-License-Identifier: AGPL-3.0-only

// Package status is the language in which third parties (a customer's broker, a browser, an auditor) ask whether a
// certificate is still good: OCSP (RFC 6960) and the extensions of sharded certificate revocation lists (RFC 5280 5.2).
// It knows bytes only. What the answer is, the register of package identity says.
package status

import (
	"encoding/asn1"
	"time"
)

// State is what the register says of a certificate.
type State int

// The states. Unknown is for whatever is not in the register, however well it is signed.
const (
	Unknown State = iota
	Good
	Revoked
)

// Reason is a CRLReason (RFC 5280 5.3.1).
type Reason int

// The reasons in use.
const (
	Unspecified          Reason = 0
	KeyCompromise        Reason = 1
	CACompromise         Reason = 2
	CessationOfOperation Reason = 5
	CertificateHold      Reason = 6 // a suspended device: it may come back
	RemoveFromCRL        Reason = 8 // in a delta only: it came back
	PrivilegeWithdrawn   Reason = 9 // its origin was barred
)

// Standing is the state of one certificate, with when and why it was revoked.
type Standing struct {
	State  State
	At     time.Time // Revoked
	Reason Reason    // Revoked
}

var (
	oidBasic     = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}
	oidNonce     = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}
	oidNoCheck   = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}
	oidIDP       = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidDelta     = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidFreshest  = asn1.ObjectIdentifier{2, 5, 29, 46}
	oidSHA1      = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	oidSHA256    = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidSHA384    = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}
	oidSHA512    = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}
	oidECDSA256  = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	tagExplicit0 = asn1Tag(0)
	tagExplicit1 = asn1Tag(1)
	tagExplicit2 = asn1Tag(2)
)
