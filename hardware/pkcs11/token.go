// SPDX-License-Identifier: Apache-2.0

//go:build pkcs11

package pkcs11

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"

	"github.com/ThalesGroup/crypto11"
)

// Token is an open token.
type Token struct{ ctx *crypto11.Context }

// Open opens the token of a URI and logs in.
func Open(uri string) (*Token, error) {
	a, err := parse(uri)
	if err != nil {
		return nil, err
	}
	pin, err := a.pin()
	if err != nil {
		return nil, err
	}
	ctx, err := crypto11.Configure(&crypto11.Config{Path: a.Module, TokenLabel: a.Token, TokenSerial: a.Serial, SlotNumber: a.Slot, Pin: pin})
	if err != nil {
		return nil, fmt.Errorf("pkcs11: %s: %w", a.Module, err)
	}
	return &Token{ctx}, nil
}

// Close logs out. The keys cannot sign any more.
func (t *Token) Close() error { return t.ctx.Close() }

// New makes a P-256 or P-384 key that cannot be taken out of the token. Nothing may have that label yet.
func (t *Token) New(label string, curve elliptic.Curve) (crypto.Signer, error) {
	if curve != elliptic.P256() && curve != elliptic.P384() {
		return nil, errors.New("pkcs11: keys are made on P-256 or P-384 only")
	}
	if found, err := t.ctx.FindKeyPair(nil, []byte(label)); err != nil || found != nil {
		return nil, errors.Join(fmt.Errorf("pkcs11: %s: %w", label, fs.ErrExist), err)
	}
	id := make([]byte, 16)
	rand.Read(id)
	if _, err := t.ctx.GenerateECDSAKeyPairWithLabel(id, []byte(label), curve); err != nil {
		return nil, fmt.Errorf("pkcs11: making a key: %w", err)
	}
	return t.Find(label)
}

// Find returns the key with that label, or fs.ErrNotExist. A key that the token would give away is refused.
func (t *Token) Find(label string) (crypto.Signer, error) {
	key, err := t.find(label)
	if err != nil {
		return nil, err
	}
	for _, want := range []struct {
		attribute crypto11.AttributeType
		value     byte
	}{{crypto11.CkaExtractable, 0}, {crypto11.CkaSensitive, 1}} {
		a, err := t.ctx.GetAttribute(key, want.attribute)
		if err != nil {
			return nil, fmt.Errorf("pkcs11: %s: %w", label, err)
		}
		if len(a.Value) == 0 || a.Value[0] != want.value {
			return nil, fmt.Errorf("pkcs11: the key %s can be taken out of the token", label)
		}
	}
	if _, ok := key.Public().(*ecdsa.PublicKey); !ok {
		return nil, fmt.Errorf("pkcs11: the key %s is not ECDSA", label)
	}
	return key, nil
}

func (t *Token) find(label string) (crypto11.Signer, error) {
	keys, err := t.ctx.FindKeyPairs(nil, []byte(label))
	switch {
	case err != nil:
		return nil, fmt.Errorf("pkcs11: %s: %w", label, err)
	case len(keys) == 0:
		return nil, fmt.Errorf("pkcs11: the token holds no key %s: %w", label, fs.ErrNotExist)
	case len(keys) > 1:
		return nil, fmt.Errorf("pkcs11: the token holds %d keys %s", len(keys), label)
	}
	return keys[0], nil
}

// Destroy removes the key with that label; one that is absent is no error.
func (t *Token) Destroy(label string) error {
	key, err := t.find(label)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return key.Delete()
}
