// SPDX-License-Identifier: Apache-2.0

// Package tpm keeps signing keys in a TPM 2.0, and lets the TPM prove that it does.
//
// A key is made inside the TPM below its storage root key (SRK) and leaves it only encrypted to that root: what lies on
// disk is a TSS2 PRIVATE KEY file, the format that tpm2-openssl and ssh-tpm-agent share, and it is of no use to another
// TPM. Parent of all keys is the persistent SRK at 0x81000001 (TCG TPM v2.0 Provisioning Guidance 7.8). Where there is
// none it is made and persisted once; where there is no room for it, it is made and kept loaded while the device is open.
// Making it anew for each signature costs six times the signature with the software TPM of the tests, and more in a chip
// (docs/decisions/0014-hardware-keys.md). An owner's password may be set once the SRK is there, not before.
//
// Invariants:
//   - Keys are fixedTPM, fixedParent and sensitiveDataOrigin: made here, and not to be taken elsewhere.
//   - A signature is verified before it is handed out, so a handle that somebody else reused yields an error.
//   - At most three objects are loaded at once, which every TPM can do; one is kept loaded between signatures.
//
// Attestation is the device's half of TCG "TPM 2.0 Keys for Device Identity and Attestation" 5: the endorsement key
// with its certificate, an attestation key, TPM2_ActivateCredential and TPM2_Certify. enroll/attest is the other half.
package tpm
