// SPDX-License-Identifier: AGPL-3.0-only

// Package openbao signs with the PKI engine of OpenBao, or of a Vault that speaks the same API. Keys of authorities are
// made inside the engine and never leave it; the root stays ours.
//
// Policy is identity's: every field of a certificate is decided before the engine is asked. The engine keeps one role
// per profile and tenant, which allows that profile and no more (roles.go), and what it returns is compared with what
// was asked, field by field; a certificate that differs is refused, and revoked there. Three things are the engine's to
// choose: the serial number, the method of the subject key identifier, and the beginning of the validity, which is its
// own clock less the profile's slack. It also cannot stamp a distribution point of ours, nor id-pkix-ocsp-nocheck into the
// certificate of an OCSP responder: who checks that too finds it in no revocation list, and it ends within a week.
//
// In the engine an authority is an issuer and a key of the same name ("operational-2"). A certificate is not stored
// there (no_store) unless Config.Store says so: the register keeps all of them, and the revocation list is signed from
// it. With Store the engine is asked now and then what it has signed that the register does not know (identity.Reconcile).
//
// Nothing waits long: each call has a deadline, none is repeated here, and an engine that is sealed, away or refuses
// the token is a problem of kind unavailable.
package openbao
