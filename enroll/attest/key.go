// SPDX-License-Identifier: AGPL-3.0-only

package attest

import "crypto"

// Key is the public key in a public area (TPMT_PUBLIC), as a certificate request would have it.
func Key(public []byte) (crypto.PublicKey, error) {
	_, key, err := area("the key", public)
	return key, err
}
