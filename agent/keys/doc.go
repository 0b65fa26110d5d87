// SPDX-License-Identifier: Apache-2.0

// Package keys is where a device has its private keys: in files, in its TPM 2.0, or in a PKCS#11 token (a secure
// element, a smart card; needs the build tag pkcs11).
//
// Every key has a name and one file <name>.key in the state directory, whatever the kind of store:
//
//	file      the key itself, PKCS #8 in PEM, mode 0600
//	tpm       a TSS2 PRIVATE KEY in PEM, which only the device's own TPM can use
//	pkcs11    a reference to the key in the token
//
// The file is written last and as a whole, so a power cut leaves a key or none; what it leaves in a token is of no use
// to anybody. A key that is renewed is made anew under another name: reusing one is possible in a TPM, and not the rule.
package keys
