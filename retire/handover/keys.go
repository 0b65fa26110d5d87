// SPDX-License-Identifier: AGPL-3.0-only

package handover

import (
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/update"
	"github.com/openthings-platform/openthings/update/trust"
)

// Ordinary tools read neither signed notes nor TUF: what they need is taken out of them here, the raw signature and the
// key in PEM.

// noteHead is what stands before the signature in a line of a note: 4 bytes of the key's hash.
const noteHead = 4

// fromNote returns the raw Ed25519 signature of a note by the key of a verifier, and that key in PEM. The note is verified
// first: nothing is handed out that its reader would refuse.
func fromNote(signed []byte, verifierKey string) (signature, key []byte, err error) {
	v, err := note.NewVerifier(verifierKey)
	if err != nil {
		return nil, nil, fmt.Errorf("handover: %w", err)
	}
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil {
		return nil, nil, fmt.Errorf("handover: %w", err)
	}
	raw, err := base64.StdEncoding.DecodeString(n.Sigs[0].Base64)
	if err != nil || len(raw) != noteHead+ed25519.SignatureSize {
		return nil, nil, errors.New("handover: the platform's signature is not one of Ed25519")
	}
	// name+hash+base64 of an algorithm byte and the key; names hold no plus sign.
	parts := strings.SplitN(verifierKey, "+", 3)
	public, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(public) != 1+ed25519.PublicKeySize {
		return nil, nil, errors.New("handover: the platform's key is not one of Ed25519")
	}
	key, err = publicPEM(ed25519.PublicKey(public[1:]))
	return raw[noteHead:], key, err
}

func publicPEM(key crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("handover: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// signatureOf returns the raw signature by a key under a document of TUF that was verified before.
func signatureOf(doc []byte, keyID string) ([]byte, error) {
	var d struct {
		Signatures []struct {
			KeyID string `json:"keyid"`
			Sig   string `json:"sig"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(doc, &d); err != nil {
		return nil, fmt.Errorf("handover: %w", err)
	}
	for _, s := range d.Signatures {
		if s.KeyID == keyID {
			return hex.DecodeString(s.Sig)
		}
	}
	return nil, fmt.Errorf("handover: the list bears no signature of key %s", keyID)
}

// voucher is what proves that a release is the maker's.
type voucher struct {
	root      int // place of the root among those that the maker has had
	key       trust.Key
	until     time.Time
	signature []byte // of the list by the key
}

// vouch finds the newest root whose keys signed the very list that names the release: keys are replaced over the years. The
// list is judged as of the day on which the release was published.
func vouch(roots [][]byte, targets []byte, r update.Release) (v voucher, err error) {
	for n := len(roots) - 1; n >= 0; n-- {
		root, err := trust.ParseRoot(roots[n])
		if err != nil {
			return v, fmt.Errorf("handover: %w", err)
		}
		list, err := root.Verify(targets, r.Published)
		if err != nil || list.Targets[r.Path].SHA256 != r.Image {
			continue
		}
		v = voucher{root: n, key: root.Keys[list.Signers[0]], until: list.Expires}
		v.signature, err = signatureOf(targets, v.key.ID)
		return v, err
	}
	return v, problem.Forbidden(RuleUnverified, "No trust root of the maker vouches for release %s; a bundle with it could not be verified.", r.Version)
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
