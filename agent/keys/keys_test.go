// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/openthings-platform/openthings/agent/keys"
	"github.com/openthings-platform/openthings/hardware/hardwaretest"
	"github.com/openthings-platform/openthings/hardware/tpm"
)

func open(t *testing.T, where, dir string) keys.Store {
	t.Helper()
	s, err := keys.Open(where, keys.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() }) //nolint:errcheck // the test is over
	return s
}

func sign(t *testing.T, k crypto.Signer) {
	t.Helper()
	h := sha256.Sum256([]byte("x"))
	sig, err := k.Sign(rand.Reader, h[:], crypto.SHA256)
	if err != nil || !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), h[:], sig) {
		t.Errorf("the key does not sign: %v", err)
	}
}

// life takes a key through its life in one store.
func life(t *testing.T, where, kind string) {
	dir := t.TempDir()
	s := open(t, where, dir)
	if s.Kind() != kind {
		t.Errorf("%s is of kind %s", where, s.Kind())
	}
	if _, err := s.Open("idevid"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key that was never made: %v", err)
	}
	first, err := s.New("idevid")
	if err != nil {
		t.Fatal(err)
	}
	sign(t, first)
	k, err := s.New("idevid") // a making that was cut off is repeated
	if err != nil {
		t.Fatal(err)
	}
	if k.Public().(*ecdsa.PublicKey).Equal(first.Public()) {
		t.Error("the key was not made anew")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, where, dir)
	again, err := s.Open("idevid")
	if err != nil {
		t.Fatal(err)
	}
	if !again.Public().(*ecdsa.PublicKey).Equal(k.Public()) || again.Public().(*ecdsa.PublicKey).Curve != elliptic.P256() {
		t.Error("another key came back")
	}
	sign(t, again)
	info, err := os.Stat(filepath.Join(dir, "idevid.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v %v", info, err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "idevid.key"))
	if err != nil {
		t.Fatal(err)
	}
	if plain := bytes.Contains(b, []byte("BEGIN PRIVATE KEY")); plain != (kind == keys.KindFile) {
		t.Errorf("the key lies in the clear: %v", plain)
	}
	for range 2 {
		if err := s.Destroy("idevid"); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Open("idevid"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a destroyed key: %v", err)
	}
	for _, bad := range []string{"", "../x", "A", "x/y"} {
		if _, err := s.New(bad); err == nil {
			t.Errorf("%q names a key", bad)
		}
	}
}

func TestFile(t *testing.T) { life(t, "file", keys.KindFile) }

func TestTPM(t *testing.T) { life(t, "tpm:"+hardwaretest.NewTPM(t).Where, keys.KindTPM) }

// A state directory that was copied to another device: its keys stay behind.
func TestI18_DeviceKeysCopiedToAnotherTPM(t *testing.T) {
	dir := t.TempDir()
	if _, err := open(t, "tpm:"+hardwaretest.NewTPM(t).Where, dir).New("ldevid"); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, "tpm:"+hardwaretest.NewTPM(t).Where, dir).Open("ldevid"); !errors.Is(err, tpm.ErrForeign) {
		t.Errorf("the key of another TPM was opened: %v", err)
	}
	if _, err := open(t, "file", dir).Open("ldevid"); !errors.Is(err, keys.ErrElsewhere) {
		t.Errorf("the key of a TPM was opened as a file: %v", err)
	}
}

// A file store's key is not taken for a TPM's, and places that are no store are named.
func TestWrongStore(t *testing.T) {
	dir := t.TempDir()
	if _, err := open(t, "", dir).New("ldevid"); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, "tpm:"+hardwaretest.NewTPM(t).Where, dir).Open("ldevid"); !errors.Is(err, keys.ErrElsewhere) {
		t.Errorf("a file was opened as the key of a TPM: %v", err)
	}
	for _, where := range []string{"paper", "tpm", "tpm:", "tpm:/nowhere", "pkcs11:", "/dev/tpmrm0"} {
		if _, err := keys.Open(where, keys.Dir(dir)); err == nil {
			t.Errorf("%q was opened", where)
		}
	}
}
