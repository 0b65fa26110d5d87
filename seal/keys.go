// SPDX-License-Identifier: AGPL-3.0-only

package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/store"
)

//go:embed migrations/*.sql
var migrationsFS embed.FS

// Schema holds the wrapped keys. Both the platform handle (subjects) and the telemetry handle (hours) need it.
var Schema = store.Migrations{Stage: "seal", FS: migrationsFS}

// ErrDestroyed is returned for a key that existed and was destroyed, or whose epoch key was.
var ErrDestroyed = errors.New("seal: the key was destroyed")

// ErrSealed is returned for sealed bytes that do not open: altered, of another purpose, or under another key.
var ErrSealed = errors.New("seal: the sealed bytes do not open under this key and purpose")

const (
	keySize = 32   // AES-256
	format1 = 0x01 // first byte of everything sealed: AES-256-GCM with a random nonce in front
)

// Keys is the key hierarchy of one platform.
type Keys struct {
	dir      string
	clock    clock.Clock
	platform cipher.AEAD
	secret   []byte // what Derive starts from; not the platform key

	mu     sync.Mutex // guards the fields below
	epochs map[epochID]cipher.AEAD
	hours  map[string]cipher.AEAD // by id
}

// Open opens the key directory and makes it, with a new platform key, if there is none. It refuses a directory or a
// key file that anyone but its owner can read, and a directory that has epoch keys but no platform key.
func Open(dir string, clk clock.Clock) (*Keys, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	if err := makeDir(filepath.Join(dir, "epochs")); err != nil {
		return nil, err
	}
	k := &Keys{dir: dir, clock: clk, epochs: map[epochID]cipher.AEAD{}, hours: map[string]cipher.AEAD{}}
	path := filepath.Join(dir, "platform.key")
	key, err := readSecret(path)
	if errors.Is(err, os.ErrNotExist) {
		if left, err := os.ReadDir(filepath.Join(dir, "epochs")); err != nil || len(left) > 0 {
			return nil, fmt.Errorf("seal: %s is missing, but there are keys that it sealed; put it back (%w)", path, errors.Join(err, os.ErrNotExist))
		}
		key = newKey()
		err = writeOnce(path, key)
		if errors.Is(err, os.ErrExist) { // another process was faster
			key, err = readSecret(path)
		}
	}
	if err != nil {
		return nil, err
	}
	if k.platform, err = newAEAD(key); err != nil {
		return nil, fmt.Errorf("seal: %s: %w", path, err)
	}
	if k.secret, err = hkdf.Extract(sha256.New, key, []byte("openthings/derive")); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return k, nil
}

// Derive returns 32 bytes for the purpose, the same in every process that shares DIR and after each restart. They are
// for what may end with the platform key, such as the authentication of page tokens.
func (k *Keys) Derive(purpose string) ([]byte, error) {
	return hkdf.Expand(sha256.New, k.secret, "openthings/"+purpose, keySize)
}

// Wrap seals plain under the platform key. Purpose says what it is ("identity.ca-key/iss_…"); Unwrap needs the same.
func (k *Keys) Wrap(purpose string, plain []byte) ([]byte, error) {
	return wrap(k.platform, purpose, plain), nil
}

// Unwrap opens what Wrap sealed for the same purpose, or fails with ErrSealed.
func (k *Keys) Unwrap(purpose string, sealed []byte) ([]byte, error) {
	return unwrap(k.platform, purpose, sealed)
}

func wrap(a cipher.AEAD, purpose string, plain []byte) []byte {
	return a.Seal([]byte{format1}, nil, plain, []byte("openthings/"+purpose))
}

func unwrap(a cipher.AEAD, purpose string, sealed []byte) ([]byte, error) {
	if len(sealed) < 1 || sealed[0] != format1 {
		return nil, fmt.Errorf("%w (%s)", ErrSealed, purpose)
	}
	plain, err := a.Open(nil, nil, sealed[1:], []byte("openthings/"+purpose))
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", ErrSealed, purpose)
	}
	return plain, nil
}

func newKey() []byte {
	key := make([]byte, keySize)
	rand.Read(key) // never fails since Go 1.24
	return key
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	if len(key) != keySize {
		return nil, fmt.Errorf("seal: a key has %d bytes, not %d", keySize, len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
