// SPDX-License-Identifier: AGPL-3.0-only

package pgp_test

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/respond/pgp"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

var schema = []store.Migrations{audit.Schema, seal.Schema, product.Schema, respond.Schema}

func each(t *testing.T, fn func(t *testing.T, s *pgp.Service)) {
	hand := clock.NewHand(time.Now().UTC().Truncate(time.Second))
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		keys, err := seal.Open(t.TempDir()+"/keys", hand)
		if err != nil {
			t.Fatal(err)
		}
		fn(t, pgp.New(db, keys))
	}, func(c *store.Config) { c.Clock = hand })
}

// to encrypts a text to the public key, as a finder's program does.
func to(t *testing.T, public, text string) []byte {
	t.Helper()
	ring, err := openpgp.ReadArmoredKeyRing(strings.NewReader(public))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	a, err := armor.Encode(&b, "PGP MESSAGE", nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := openpgp.Encrypt(a, ring, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestRoundTrip: what is encrypted to a tenant's key is read by that tenant only, whole or not at all.
func TestRoundTrip(t *testing.T) {
	each(t, func(t *testing.T, s *pgp.Service) {
		k, err := s.Signer(t.Context(), "ten_a", "per_1", "Acme (Ltd) <x>")
		if err != nil {
			t.Fatal(err)
		}
		if again, err := s.Signer(t.Context(), "ten_a", "per_2", "Acme"); err != nil || again.Fingerprint != k.Fingerprint {
			t.Fatalf("a second key was made: %v", err)
		}
		if _, err := s.Signer(t.Context(), "ten_b", "per_3", "Rival"); err != nil {
			t.Fatal(err)
		}
		m := to(t, k.Public, "a report")
		text, err := s.Decrypt(t.Context(), "ten_a", m, 100)
		if err != nil || string(text) != "a report" {
			t.Errorf("%q, %v", text, err)
		}
		if text, err := s.Decrypt(t.Context(), "ten_b", m, 100); !problem.Is(err, problem.KindInvalid) || text != nil {
			t.Errorf("another tenant read %q, %v", text, err)
		}
		if text, err := s.Decrypt(t.Context(), "ten_a", m, 7); !problem.Is(err, problem.KindTooLarge) || text != nil {
			t.Errorf("beyond the bound: %q, %v", text, err)
		}
		block, err := armor.Decode(bytes.NewReader(m))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(block.Body)
		if err != nil {
			t.Fatal(err)
		}
		raw[len(raw)-5] ^= 1
		var b bytes.Buffer
		w, err := armor.Encode(&b, "PGP MESSAGE", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write(raw)
		_ = w.Close()
		if text, err := s.Decrypt(t.Context(), "ten_a", b.Bytes(), 100); !problem.Is(err, problem.KindInvalid) || text != nil {
			t.Errorf("a damaged message: %q, %v", text, err)
		}
	})
}

// TestSignatures: another implementation's reader would believe them, and not for other bytes.
func TestSignatures(t *testing.T) {
	each(t, func(t *testing.T, s *pgp.Service) {
		k, err := s.Signer(t.Context(), "ten_a", "per_1", "Acme")
		if err != nil {
			t.Fatal(err)
		}
		signature, err := s.Sign(k, []byte("document"))
		if err != nil {
			t.Fatal(err)
		}
		if s.Believes(k, []byte("document"), signature) != nil || s.Believes(k, []byte("documents"), signature) == nil {
			t.Error("the reader is not the judge")
		}
		clear, err := s.ClearSign(k, []byte("Contact: mailto:a@b.example\n- dash\n"))
		if err != nil {
			t.Fatal(err)
		}
		ring, err := openpgp.ReadArmoredKeyRing(strings.NewReader(k.Public))
		if err != nil {
			t.Fatal(err)
		}
		block, rest := clearsign.Decode(clear)
		if block == nil || len(bytes.TrimSpace(rest)) > 0 {
			t.Fatalf("no cleartext signature:\n%s", clear)
		}
		if _, err := block.VerifySignature(ring, nil); err != nil {
			t.Error(err)
		}
		if string(block.Plaintext) != "Contact: mailto:a@b.example\n- dash\n" {
			t.Errorf("the text became %q", block.Plaintext)
		}
		block.Bytes = append(block.Bytes, 'x')
		if _, err := block.VerifySignature(ring, nil); err == nil {
			t.Error("other bytes are believed")
		}
	})
}

// TestPrivatePartIsSealed: it does not lie open in the database, neither raw nor armored.
func TestPrivatePartIsSealed(t *testing.T) {
	hand := clock.NewHand(time.Now().UTC().Truncate(time.Second))
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		keys, err := seal.Open(t.TempDir()+"/keys", hand)
		if err != nil {
			t.Fatal(err)
		}
		k, err := pgp.New(db, keys).Signer(t.Context(), "ten_a", "per_1", "Acme")
		if err != nil {
			t.Fatal(err)
		}
		var sealed []byte
		if err := db.QueryRow(t.Context(), `SELECT sealed FROM respond_signing_key WHERE tenant = 'ten_a'`).Scan(&sealed); err != nil {
			t.Fatal(err)
		}
		secret, err := keys.Unwrap("respond.advisory-key/ten_a/"+k.Fingerprint, sealed)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(sealed, secret[8:24]) {
			t.Error("the private key lies open")
		}
	}, func(c *store.Config) { c.Clock = hand })
}
