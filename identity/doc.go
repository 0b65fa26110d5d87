// SPDX-License-Identifier: AGPL-3.0-only

// Package identity says who a device is: its row and lifecycle state, its certificates, and who is still trusted.
//
// The register of certificates is the one authority. Admit looks a certificate up by the SHA-256 of its whole DER at
// every handshake; what is not in the register is refused, also when its signature is right, so a stolen CA key alone
// opens no door. Signing is delegated to an Issuer (identity/embedded), policy never is.
//
// Invariants:
//   - A device moves through its states only along the table in device.go; deprovisioned is final.
//   - One public key gets one certificate, ever. The intent (key, serial number, validity) is durable before the
//     issuer signs, so a crash in between leaves no certificate that the register cannot name, and a repeat with the
//     same request gets the same certificate.
//   - A new LDevID is pending until its first use; that use makes it active and supersedes the one before. Power loss
//     at any moment leaves the device one that works.
//   - Revocations also stand in a journal outside the database. A database that lost some of them (a restored backup)
//     admits nobody until they are applied again.
//   - What cannot be checked is refused: an error of the database never admits.
//
// Events: device.state {from,to,reason,product,solution}, device.revoked {reason,barred,certificates}, trust.barred (a Bar).
package identity
