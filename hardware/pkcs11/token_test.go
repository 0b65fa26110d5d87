// SPDX-License-Identifier: Apache-2.0

//go:build pkcs11

package pkcs11_test

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
	"strings"
	"sync"
	"testing"

	"github.com/openthings-platform/openthings/hardware/hardwaretest"
	"github.com/openthings-platform/openthings/hardware/pkcs11"
)

func open(t *testing.T, uri string) *pkcs11.Token {
	t.Helper()
	token, err := pkcs11.Open(uri)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func sign(k crypto.Signer, text string) error {
	h := sha256.Sum256([]byte(text))
	sig, err := k.Sign(rand.Reader, h[:], crypto.SHA256)
	if err == nil && !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), h[:], sig) {
		err = errors.New("the signature is wrong")
	}
	return err
}

// A key signs, is found again by its reference after a new log-in, and is gone once destroyed.
func TestToken(t *testing.T) {
	peer := hardwaretest.NewToken(t)
	token := open(t, peer.URI)
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		reference, key, err := token.New("operational-1", curve)
		if err != nil {
			t.Fatal(err)
		}
		if err := sign(key, "x"); err != nil {
			t.Error(err)
		}
		if !pkcs11.IsReference(reference) || !bytes.Contains(reference, []byte("operational-1")) {
			t.Errorf("%q", reference)
		}
		if err := token.Close(); err != nil {
			t.Fatal(err)
		}
		token = open(t, peer.URI)
		again, err := token.Open(reference)
		if err != nil {
			t.Fatal(err)
		}
		if !again.Public().(*ecdsa.PublicKey).Equal(key.Public()) || again.Public().(*ecdsa.PublicKey).Curve != curve {
			t.Error("another key came back")
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := sign(again, "at once"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for range 2 {
			if err := token.Destroy(reference); err != nil {
				t.Error(err)
			}
		}
		if _, err := token.Open(reference); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a destroyed key: %v", err)
		}
	}
	if _, _, err := token.New("x", elliptic.P521()); err == nil {
		t.Error("P-521")
	}
	if _, err := token.Open([]byte("no reference")); err == nil {
		t.Error("no reference")
	}
	if err := token.Health(); err != nil {
		t.Error(err)
	}
	if err := token.Close(); err != nil {
		t.Error(err)
	}
}

// A wrong PIN opens nothing, and no error repeats it.
func TestWrongPIN(t *testing.T) {
	peer := hardwaretest.NewToken(t)
	const wrong = "not-the-pin-4711"
	if err := os.WriteFile(peer.PINFile, []byte(wrong), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := pkcs11.Open(peer.URI); err == nil || strings.Contains(err.Error(), wrong) {
		t.Errorf("%v", err)
	}
}

func BenchmarkSign(b *testing.B) {
	token, err := pkcs11.Open(hardwaretest.NewToken(b).URI)
	if err != nil {
		b.Fatal(err)
	}
	defer token.Close() //nolint:errcheck // the benchmark is over
	_, key, err := token.New("bench", elliptic.P256())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := sign(key, "x"); err != nil {
			b.Fatal(err)
		}
	}
}
