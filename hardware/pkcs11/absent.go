// SPDX-License-Identifier: Apache-2.0

//go:build !pkcs11

package pkcs11

import (
	"crypto"
	"crypto/elliptic"
)

// Token is an open token. In this build there are none.
type Token struct{}

// Open checks the URI and fails with ErrAbsent.
func Open(uri string) (*Token, error) {
	if _, err := parse(uri); err != nil {
		return nil, err
	}
	return nil, ErrAbsent
}

// Close does nothing.
func (t *Token) Close() error { return nil }

// New fails with ErrAbsent.
func (t *Token) New(string, elliptic.Curve) ([]byte, crypto.Signer, error) {
	return nil, nil, ErrAbsent
}

// Open fails with ErrAbsent.
func (t *Token) Open([]byte) (crypto.Signer, error) { return nil, ErrAbsent }

// Destroy fails with ErrAbsent.
func (t *Token) Destroy([]byte) error { return ErrAbsent }

// Health fails with ErrAbsent.
func (t *Token) Health() error { return ErrAbsent }
