// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/openthings-platform/openthings/hardware/pkcs11"
	"github.com/openthings-platform/openthings/wire"
)

// Store makes P-256 keys and finds them again.
type Store interface {
	// New makes a key. One of that name that was there is lost.
	New(name string) (crypto.Signer, error)
	// Open returns the key, or fs.ErrNotExist.
	Open(name string) (crypto.Signer, error)
	// Destroy removes the key for ever. One that is absent is no error.
	Destroy(name string) error
	// Kind is KindFile, KindTPM or KindToken.
	Kind() string
	// Close ends the use of the store and of its keys.
	Close() error
}

// The kinds of store. Keys of the last two cannot be copied.
const (
	KindFile  = "file"
	KindTPM   = "tpm"
	KindToken = "pkcs11"
)

// Attester is a Store that can prove that a key is in it.
type Attester interface {
	Store
	// Request names the hardware; the answer to it is a challenge. It makes the attestation key if there is none yet.
	Request() (wire.AttestRequest, error)
	// Prove answers the challenge for the key of that name.
	Prove(name string, c wire.AttestChallenge) (wire.AttestProof, error)
}

// Disk is how a store reaches the state directory. Write replaces a file as a whole or not at all, also when the power
// is cut; Shred removes one beyond recovery as far as the medium permits. Read of an absent file is fs.ErrNotExist.
type Disk struct {
	Read  func(name string) ([]byte, error)
	Write func(name string, b []byte) error
	Shred func(name string) error
}

// ErrElsewhere is returned for a key that another kind of store made.
var ErrElsewhere = errors.New("keys: the key is in another store than the one that was opened")

// Open opens the store that where names: "file" or "", "tpm:/dev/tpmrm0", or the PKCS#11 URI of a token.
func Open(where string, disk Disk) (Store, error) {
	kind, rest, _ := strings.Cut(where, ":")
	switch {
	case where == "", where == KindFile:
		return file{disk}, nil
	case kind == KindTPM && rest != "":
		return openTPM(rest, disk)
	case kind == KindToken:
		t, err := pkcs11.Open(where)
		if err != nil {
			return nil, err
		}
		return token{disk, t}, nil
	}
	return nil, fmt.Errorf("keys: %q names no store: use file, tpm:/dev/tpmrm0 or pkcs11:token=…?module-path=…", where)
}

var nameShape = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,63}$`)

// path is the file of a key.
func path(name string) (string, error) {
	if !nameShape.MatchString(name) {
		return "", fmt.Errorf("keys: %q is no name of a key", name)
	}
	return name + ".key", nil
}

// file keeps keys in files.
type file struct{ disk Disk }

func (file) Kind() string { return KindFile }

func (file) Close() error { return nil }

func (s file) New(name string) (crypto.Signer, error) {
	at, err := path(name)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, s.disk.Write(at, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func (s file) Open(name string) (crypto.Signer, error) {
	at, err := path(name)
	if err != nil {
		return nil, err
	}
	b, err := s.disk.Read(at)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("%s: %w", at, ErrElsewhere)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: the key is not ECDSA", at)
	}
	return key, nil
}

func (s file) Destroy(name string) error { return shred(s.disk, name) }

func shred(d Disk, name string) error {
	at, err := path(name)
	if err != nil {
		return err
	}
	if err := d.Shred(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// token keeps keys in a PKCS#11 token; the key's file holds the reference to it.
type token struct {
	disk Disk
	t    *pkcs11.Token
}

func (token) Kind() string { return KindToken }

func (s token) Close() error { return s.t.Close() }

func (s token) New(name string) (crypto.Signer, error) {
	at, err := path(name)
	if err != nil {
		return nil, err
	}
	reference, key, err := s.t.New(name, elliptic.P256())
	if err != nil {
		return nil, err
	}
	return key, s.disk.Write(at, reference)
}

func (s token) reference(name string) ([]byte, error) {
	at, err := path(name)
	if err != nil {
		return nil, err
	}
	b, err := s.disk.Read(at)
	if err == nil && !pkcs11.IsReference(b) {
		err = fmt.Errorf("%s: %w", at, ErrElsewhere)
	}
	return b, err
}

func (s token) Open(name string) (crypto.Signer, error) {
	b, err := s.reference(name)
	if err != nil {
		return nil, err
	}
	return s.t.Open(b)
}

func (s token) Destroy(name string) error {
	b, err := s.reference(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	if err := s.t.Destroy(b); err != nil {
		return err
	}
	return shred(s.disk, name)
}

// Dir is the plain Disk of a folder, for programs that have none of their own.
func Dir(dir string) Disk {
	at := func(name string) string { return filepath.Join(dir, name) }
	return Disk{
		Read: func(name string) ([]byte, error) { return os.ReadFile(at(name)) },
		Write: func(name string, b []byte) error {
			f, err := os.CreateTemp(dir, "."+name+"-*") // 0600
			if err != nil {
				return err
			}
			defer os.Remove(f.Name()) //nolint:errcheck // gone when all went well
			_, err = f.Write(b)
			if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
				return err
			}
			return os.Rename(f.Name(), at(name))
		},
		Shred: func(name string) error { return os.Remove(at(name)) },
	}
}
