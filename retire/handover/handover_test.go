// SPDX-License-Identifier: AGPL-3.0-only

package handover

import (
	"archive/zip"
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/update"
	"github.com/openthings-platform/openthings/update/trust"
)

var day0 = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

func key(t *testing.T) crypto.Signer {
	t.Helper()
	k, err := trust.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func root(t *testing.T, version int64, rootKey, targets crypto.Signer) []byte {
	t.Helper()
	b, err := trust.NewRoot(trust.RootSpec{Version: version, Expires: day0.AddDate(1, 0, 0), RootKeys: []crypto.PublicKey{rootKey.Public()}, RootThreshold: 1, TargetsKeys: []crypto.PublicKey{targets.Public()}, TargetsThreshold: 1}, rootKey)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A release is handed out with the root whose keys signed its list, also when they were replaced since; without one, or
// with another image than the signed one, it is not.
func TestOrphanIsVerified(t *testing.T) {
	master, old, young := key(t), key(t), key(t)
	roots := [][]byte{root(t, 1, master, old), root(t, 2, master, young)}
	r := update.Release{ID: "rel_1", Version: "1.0", Path: "lamp/1.0", Image: "sha256:" + strings.Repeat("ab", 32), Published: day0}
	target := trust.Target{Path: r.Path, Length: 5, SHA256: r.Image, Product: "prd_1", HW: []string{"C"}, Version: "1.0", SecurityVersion: 1, Class: trust.ClassSecurity, SBOM: "sha256:" + strings.Repeat("cd", 32)}
	sign := func(k crypto.Signer) []byte {
		t.Helper()
		b, err := trust.SignTargets(1, day0.AddDate(0, 6, 0), []trust.Target{target}, k)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, c := range map[string]struct {
		by   crypto.Signer
		root int
	}{"signed before the keys were replaced": {old, 0}, "signed since": {young, 1}} {
		v, err := vouch(roots, sign(c.by), r)
		if err != nil || v.root != c.root || len(v.signature) != ed25519.SignatureSize {
			t.Errorf("%s: %+v %v", name, v, err)
		}
	}
	if _, err := vouch(roots, sign(key(t)), r); problem.Of(err).Rule != RuleUnverified {
		t.Errorf("signed by a stranger: %v", err)
	}
	r.Image = "sha256:" + strings.Repeat("ef", 32)
	if _, err := vouch(roots, sign(young), r); problem.Of(err).Rule != RuleUnverified {
		t.Errorf("another image: %v", err)
	}
}

// Equal files make equal bytes, whatever the day; the sums name each of them.
func TestArchive(t *testing.T) {
	write := func() ([]byte, string) {
		var b bytes.Buffer
		a := newArchive(&b, day0)
		for _, f := range []string{"a.txt", "b/c.json"} {
			if err := a.add(f, "a file", []byte(f)); err != nil {
				t.Fatal(err)
			}
		}
		sums := a.sums("title")
		if err := a.close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes(), sums
	}
	one, sums := write()
	two, _ := write()
	if !bytes.Equal(one, two) {
		t.Error("the bytes differ")
	}
	z, err := zip.NewReader(bytes.NewReader(one), int64(len(one)))
	if err != nil || len(z.File) != 2 {
		t.Fatal(z, err)
	}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil || string(b) != f.Name || !strings.Contains(sums, sumOf(b)+"  "+f.Name+"\n") {
			t.Errorf("%s: %q %v", f.Name, b, err)
		}
	}
}

// What is taken out of a signed note is the signature over its text, by the key in PEM; a note of another key is refused.
func TestFromNote(t *testing.T) {
	const text = "# a title\nsome sums\n"
	private, public, err := note.GenerateKey(rand.Reader, "things.example/openthings")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: text}, signer)
	if err != nil {
		t.Fatal(err)
	}
	signature, keyPEM, err := fromNote(signed, public)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(keyPEM)
	k, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil || !ed25519.Verify(k.(ed25519.PublicKey), []byte(text), signature) {
		t.Errorf("the signature does not verify: %v", err)
	}
	_, other, err := note.GenerateKey(rand.Reader, "things.example/openthings")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := fromNote(signed, other); err == nil {
		t.Error("a note of another key was taken")
	}
}
