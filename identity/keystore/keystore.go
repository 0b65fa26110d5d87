// SPDX-License-Identifier: AGPL-3.0-only

// Package keystore is where the embedded issuer's private keys are: in sealed files, in a TPM 2.0, or in a PKCS#11 token
// (a hardware security module; needs the build tag pkcs11).
//
// A key is found again by its entry, which lies beside the authority's certificate as <id>.key:
//
//	sealed   the key itself, encrypted under the platform key for its own name
//	tpm      a TSS2 PRIVATE KEY, which only the TPM that made it can use
//	pkcs11   a reference to the key in the token
//
// No entry is of use on another machine, and none holds a key that can be read. Entries tell their kind, so that
// authorities made before a platform got its hardware go on as they are: keys move into it as authorities are rotated.
package keystore

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/openthings-platform/openthings/hardware/pkcs11"
	"github.com/openthings-platform/openthings/hardware/tpm"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
)

// Store makes keys and opens them by their entries.
type Store interface {
	// Make makes the key of an authority. The entry must be kept.
	Make(id string, alg identity.Algorithm) (entry []byte, key crypto.Signer, err error)
	// Open returns the key of an entry that Make gave for that id.
	Open(id string, entry []byte) (crypto.Signer, error)
	// Kind is Sealed, TPM or Token.
	Kind() string
	// Health returns nil when the keys can be used now.
	Health() error
	Close() error
}

// What protects a key (identity.Held.Protection). Only the last two keep it from whoever copies the disk.
const (
	Sealed = "sealed"
	TPM    = "tpm"
	Token  = "pkcs11"
)

// KindOf says in which kind of store the key of an entry is.
func KindOf(entry []byte) string {
	switch {
	case tpm.IsFile(entry):
		return TPM
	case pkcs11.IsReference(entry):
		return Token
	}
	return Sealed
}

// Open opens the hardware that where names: tpm:/dev/tpmrm0, or the PKCS#11 URI of a token. For "" and "sealed" there is
// none, and the store is nil.
func Open(where string) (Store, error) {
	kind, rest, _ := strings.Cut(where, ":")
	switch {
	case where == "" || where == Sealed:
		return nil, nil
	case kind == TPM && rest != "":
		d, err := tpm.Open(rest)
		if err != nil {
			return nil, problem.Unavailable("The TPM that the keys of the authorities are in cannot be opened.").
				Hint("May this user open %s? Usually the group tss may.", rest).Because(err)
		}
		return tpmStore{d}, nil
	case kind == Token:
		t, err := pkcs11.Open(where)
		if errors.Is(err, pkcs11.ErrAbsent) {
			return nil, problem.Precondition("This build speaks no PKCS#11.").Hint("Build it with: CGO_ENABLED=1 go build -tags pkcs11 ./cmd/...").Because(err)
		}
		if err != nil {
			return nil, problem.Unavailable("The token that the keys of the authorities are in cannot be opened.").Because(err)
		}
		return tokenStore{t}, nil
	}
	return nil, problem.Invalid("%q names no store of keys", where).Hint("Use sealed, tpm:/dev/tpmrm0 or pkcs11:token=…?module-path=…&pin-source=…")
}

// curveOf is the curve of an algorithm that hardware has.
func curveOf(alg identity.Algorithm) (elliptic.Curve, error) {
	switch alg {
	case identity.AlgP256:
		return elliptic.P256(), nil
	case identity.AlgP384:
		return elliptic.P384(), nil
	}
	return nil, problem.Invalid("hardware makes keys of %s and %s only, not of %q", identity.AlgP256, identity.AlgP384, alg).At("algorithm")
}

type tpmStore struct{ d *tpm.Device }

func (tpmStore) Kind() string { return TPM }

func (s tpmStore) Health() error { return s.d.Health() }

func (s tpmStore) Close() error { return s.d.Close() }

func (s tpmStore) Make(_ string, alg identity.Algorithm) ([]byte, crypto.Signer, error) {
	curve, err := curveOf(alg)
	if err != nil {
		return nil, nil, err
	}
	k, err := s.d.New(curve)
	if err != nil {
		return nil, nil, err
	}
	return k.File(), k, nil
}

func (s tpmStore) Open(_ string, entry []byte) (crypto.Signer, error) {
	k, err := s.d.Load(entry)
	if err != nil {
		return nil, err
	}
	return k, nil
}

type tokenStore struct{ t *pkcs11.Token }

func (tokenStore) Kind() string { return Token }

func (s tokenStore) Health() error { return s.t.Health() }

func (s tokenStore) Close() error { return s.t.Close() }

func (s tokenStore) Make(id string, alg identity.Algorithm) ([]byte, crypto.Signer, error) {
	curve, err := curveOf(alg)
	if err != nil {
		return nil, nil, err
	}
	return s.t.New(id, curve)
}

func (s tokenStore) Open(_ string, entry []byte) (crypto.Signer, error) { return s.t.Open(entry) }

// Files is the store of sealed files; keys come into memory when they are opened.
type Files struct{ Keys *seal.Keys }

// Purpose is what the entry of an authority is sealed for.
func Purpose(id string) string { return "identity.ca-key/" + id }

// Kind implements Store.
func (Files) Kind() string { return Sealed }

// Health implements Store: the keys are in memory.
func (Files) Health() error { return nil }

// Close implements Store.
func (Files) Close() error { return nil }

// Make implements Store.
func (f Files) Make(id string, alg identity.Algorithm) ([]byte, crypto.Signer, error) {
	var key crypto.Signer
	var err error
	switch alg {
	case identity.AlgP256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case identity.AlgP384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case identity.AlgEd25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = fmt.Errorf("no key can be made for the algorithm %q", alg)
	}
	if err != nil {
		return nil, nil, err
	}
	plain, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	defer clear(plain)
	entry, err := f.Keys.Wrap(Purpose(id), plain)
	return entry, key, err
}

// Open implements Store.
func (f Files) Open(id string, entry []byte) (crypto.Signer, error) {
	plain, err := f.Keys.Unwrap(Purpose(id), entry)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	key, err := x509.ParsePKCS8PrivateKey(plain)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("the key signs nothing")
	}
	return signer, nil
}
