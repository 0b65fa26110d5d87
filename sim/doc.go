// SPDX-License-Identifier: AGPL-3.0-only

// Package sim lets a fleet live for months in virtual time against the real register: devices that renew, lose power at
// the worst moment, stay away until their certificate has expired, and come back; authorities that are replaced; devices
// that are revoked and try again. It counts what must never happen.
//
// The register, the issuer, the audit log and the database are the platform's own, and so are keys, requests and
// certificates. Only the wire between them is left out, and time is a hand-turned clock.
//
//   - Stranded: devices in good standing that at the end of the run cannot come in, whatever they try.
//   - Duplicates: devices with a second identity or a second certificate in service.
//   - AcceptedAfterRevocation: times that a revoked device was let in or given a certificate.
package sim
