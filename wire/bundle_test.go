// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

type authority struct {
	key crypto.Signer
	der []byte
}

func newAuthority(t testing.TB, name string, key crypto.Signer) authority {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	id := sha256.Sum256(spki)
	from := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: from.AddDate(30, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: id[:20]}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return authority{key, der}
}

func p256(t testing.TB) crypto.Signer { return ec(t, elliptic.P256()) }

func ec(t testing.TB, c elliptic.Curve) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func signed(t testing.TB, b Bundle, by ...authority) SignedBundle {
	t.Helper()
	var keys []crypto.Signer
	for _, a := range by {
		keys = append(keys, a.key)
	}
	s, err := SignBundle(rand.Reader, b, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBundleFollows(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root, old, stranger := newAuthority(t, "root", p256(t)), newAuthority(t, "old", p256(t)), newAuthority(t, "stranger", p256(t))
	first := Bundle{Version: 1, Created: 1793450000123, Roots: [][]byte{root.der}, Anchors: [][]byte{old.der}, Bootstrap: "bootstrap.openthings.internal"}
	s1 := signed(t, first, old)
	if b, err := s1.Pin(); err != nil || b.Version != 1 {
		t.Fatalf("%+v, %v", b, err)
	}
	for name, next := range map[string]authority{"P-384": newAuthority(t, "new", ec(t, elliptic.P384())), "Ed25519": newAuthority(t, "new", ed), "P-256": newAuthority(t, "new", p256(t))} {
		second := first
		second.Version, second.Anchors = 2, [][]byte{next.der}
		third := second
		third.Version = 3
		s2, s3 := signed(t, second, old, next), signed(t, third, next)
		if b, err := Walk(first, s2, s3); err != nil || b.Version != 3 || !bytes.Equal(b.Anchors[0], next.der) {
			t.Errorf("%s: %+v, %v", name, b, err)
		}
		if _, err := s2.Pin(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for what, bad := range map[string]SignedBundle{
			"nobody signed":                 {Bundle: s2.Bundle},
			"the new anchor alone signed":   signed(t, second, next),
			"the new anchor did not sign":   signed(t, second, old),
			"a stranger signed":             signed(t, second, stranger, next),
			"a stranger under an old id":    {Bundle: s2.Bundle, Signatures: []BundleSignature{{s2.Signatures[0].KeyID, signed(t, second, stranger).Signatures[0].Sig}, s2.Signatures[1]}},
			"the version before":            s1,
			"a version is left out":         s3,
			"signatures of another version": {Bundle: s2.Bundle, Signatures: s3.Signatures},
		} {
			if b, err := bad.Verify(first); !errors.Is(err, ErrBundle) {
				t.Errorf("%s: %s: %+v, %v", name, what, b, err)
			}
		}
		for i := range s2.Bundle {
			bad := SignedBundle{Bundle: bytes.Clone(s2.Bundle), Signatures: s2.Signatures}
			bad.Bundle[i] ^= 1
			if _, err := bad.Verify(first); !errors.Is(err, ErrBundle) {
				t.Fatalf("%s: byte %d changed: %v", name, i, err)
			}
		}
	}
}

// An anchor signs certificates too: what it signed as something else is never a bundle.
func TestBundleSignatureHasItsOwnContext(t *testing.T) {
	a := newAuthority(t, "anchor", p256(t))
	b := Bundle{Version: 1, Roots: [][]byte{a.der}, Anchors: [][]byte{a.der}}
	s := signed(t, b, a)
	h := sha256.Sum256(s.Bundle)
	sig, err := a.key.Sign(rand.Reader, h[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	s.Signatures[0].Sig = sig
	if _, err := s.Pin(); !errors.Is(err, ErrBundle) {
		t.Errorf("a bare signature over the bytes was taken: %v", err)
	}
}

func TestBundleRefusesNonsense(t *testing.T) {
	a := newAuthority(t, "anchor", p256(t))
	good := Bundle{Version: 1, Roots: [][]byte{a.der}, Anchors: [][]byte{a.der}}
	for what, change := range map[string]func(*Bundle){
		"version 0": func(b *Bundle) { b.Version = 0 }, "no root": func(b *Bundle) { b.Roots = nil }, "no anchor": func(b *Bundle) { b.Anchors = nil },
		"garbage": func(b *Bundle) { b.Bridges = [][]byte{{1, 2}} }, "a name with markup": func(b *Bundle) { b.Bootstrap = "<b>" },
		"too many": func(b *Bundle) { b.Roots = make([][]byte, maxBundleList+1) },
	} {
		b := good
		change(&b)
		if _, err := SignBundle(rand.Reader, b, a.key); !errors.Is(err, ErrBundle) {
			t.Errorf("%s: signed: %v", what, err)
		}
		if _, err := ParseBundle(b.Bytes()); !errors.Is(err, ErrBundle) {
			t.Errorf("%s: read: %v", what, err)
		}
	}
	if _, err := ParseBundle([]byte(`{"version":1,"colour":"green",` + string(good.Bytes()[len(`{"version":1,`):]))); err != nil {
		t.Errorf("a member of a later format: %v", err)
	}
}

// The bytes in testdata were signed once: every later program has to follow them.
func TestBundleGolden(t *testing.T) {
	files := [2]string{filepath.Join("testdata", "signed_bundle_1.json"), filepath.Join("testdata", "signed_bundle_2.json")}
	if *update {
		root, anchor, next := newAuthority(t, "root", p256(t)), newAuthority(t, "anchor", p256(t)), newAuthority(t, "next", ec(t, elliptic.P384()))
		b := Bundle{Version: 1, Created: 1793450000123, Roots: [][]byte{root.der}, Anchors: [][]byte{anchor.der}, Bootstrap: "bootstrap.openthings.internal"}
		s1 := signed(t, b, anchor)
		b.Version, b.Bridges, b.Anchors = 2, [][]byte{root.der}, [][]byte{anchor.der, next.der}
		for i, s := range []SignedBundle{s1, signed(t, b, anchor, next)} {
			raw, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(files[i], append(raw, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	var s [2]SignedBundle
	for i, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if s[i], err = ParseSignedBundle(raw); err != nil {
			t.Fatal(err)
		}
		if again, err := json.Marshal(s[i]); err != nil || !bytes.Equal(again, bytes.TrimSpace(raw)) {
			t.Errorf("%s is spelled %s now (%v)", f, again, err)
		}
	}
	first, err := s[0].Pin()
	if err != nil {
		t.Fatal(err)
	}
	second, err := Walk(first, s[1])
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), s[0].Bundle) || !bytes.Equal(second.Bytes(), s[1].Bundle) {
		t.Error("the canonical bytes have changed")
	}
}

func FuzzParseSignedBundle(f *testing.F) {
	for _, name := range []string{"signed_bundle_1.json", "signed_bundle_2.json"} {
		raw, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte(`{"bundle":{"version":1},"signatures":[{"keyid":"","sig":null}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := ParseSignedBundle(raw)
		if err != nil {
			return
		}
		b, err := s.Pin()
		if err != nil {
			return
		}
		if back, err := ParseBundle(b.Bytes()); err != nil || !bytes.Equal(back.Bytes(), b.Bytes()) {
			t.Errorf("%q reads back as %+v, %v", b.Bytes(), back, err)
		}
	})
}
