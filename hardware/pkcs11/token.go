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
	"sync"

	"github.com/ThalesGroup/crypto11"
)

// Token is an open token.
type Token struct {
	ctx   *crypto11.Context
	close func() error // once: the library panics when it is closed twice
}

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
	return &Token{ctx, sync.OnceValue(ctx.Close)}, nil
}

// Close logs out. The keys cannot sign any more.
func (t *Token) Close() error { return t.close() }

// New makes a P-256 or P-384 key that cannot be taken out of the token. Name becomes part of its label. The reference is
// what finds it again: text to keep in a file, of no use without the token.
func (t *Token) New(name string, curve elliptic.Curve) (reference []byte, key crypto.Signer, err error) {
	if curve != elliptic.P256() && curve != elliptic.P384() {
		return nil, nil, errors.New("pkcs11: keys are made on P-256 or P-384 only")
	}
	id := make([]byte, 16)
	rand.Read(id)
	label := "openthings-" + name + "-" + rand.Text()[:12]
	if _, err := t.ctx.GenerateECDSAKeyPairWithLabel(id, []byte(label), curve); err != nil {
		return nil, nil, fmt.Errorf("pkcs11: making a key: %w", err)
	}
	reference = []byte(mark + label + "\n")
	key, err = t.Open(reference)
	return reference, key, err
}

// Open finds the key of a reference, or fails with fs.ErrNotExist. A key that the token would give away is refused.
func (t *Token) Open(reference []byte) (crypto.Signer, error) {
	label, err := parseReference(reference)
	if err != nil {
		return nil, err
	}
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

// Destroy removes the key of a reference; one that is absent is no error.
func (t *Token) Destroy(reference []byte) error {
	label, err := parseReference(reference)
	if err != nil {
		return err
	}
	key, err := t.find(label)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return key.Delete()
}

// Health returns nil when the token answers.
func (t *Token) Health() error {
	r, err := t.ctx.NewRandomReader()
	if err == nil {
		_, err = r.Read(make([]byte, 1))
	}
	if err != nil {
		return fmt.Errorf("pkcs11: the token does not answer: %w", err)
	}
	return nil
}
