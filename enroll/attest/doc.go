// SPDX-License-Identifier: AGPL-3.0-only

// Package attest judges whether a device's key is in a TPM 2.0. It is pure: no database, no network, no TPM.
//
// It is the server's half of TCG "TPM 2.0 Keys for Device Identity and Attestation" 5. Three facts make grade A:
//
//  1. The endorsement key (EK) was certified by a maker of TPMs whom the tenant trusts.
//  2. The attestation key (AK) is in the same TPM: only there can the secret of the challenge be opened
//     (TPM2_MakeCredential, TPM2_ActivateCredential), and the challenge names the AK.
//  3. The key that a certificate is wanted for is in that TPM, was made there and cannot leave it: the AK, which signs
//     nothing but what its TPM says, has signed so over the challenge's nonce (TPM2_Certify).
//
// Without the first it is grade B: everything is consistent, but a program could pretend to be the TPM. A key that may
// leave its TPM is grade C, as one in a file. A statement that is false, stale or about another key is no grade but an
// error: somebody lies or mixes things up.
//
// Challenge and Verify belong together; what Challenge returns as Pending is kept by the caller for the device that
// asked, is given to Verify once, and is then destroyed, so that no proof serves twice.
//
// Invariants:
//   - Lengths are checked before anything is parsed; a malformed structure is an error, never a panic.
//   - Signatures by ECDSA on P-256 or P-384 with SHA-256 or SHA-384 only, and an EK of RSA 2048 to 4096, P-256 or P-384.
//   - Makers' revocation lists are not asked: revoke the device instead, or withdraw the trust in the maker.
package attest
