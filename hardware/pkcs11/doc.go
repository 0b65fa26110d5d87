// SPDX-License-Identifier: Apache-2.0

// Package pkcs11 keeps signing keys in a PKCS#11 token: a hardware security module, a smart card, a secure element.
//
// A token is named by a PKCS#11 URI (RFC 7512):
//
//	pkcs11:token=LABEL?module-path=/usr/lib/…/module.so&pin-source=/etc/openthings/pin
//
// Instead of a token's label its serial number or slot-id may be given. The PIN comes from the file of pin-source, which
// nobody else may read, or from the environment variable OPENTHINGS_PKCS11_PIN. It never stands in the URI, since command lines are
// seen by everybody on the machine; a pin-value is refused.
//
// The vendor's module is a C library, so this package needs cgo and the build tag pkcs11. A build without them says so.
package pkcs11
