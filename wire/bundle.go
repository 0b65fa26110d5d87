// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
)

// Bounds of a trust bundle. A post-quantum certificate has up to 16 kB.
const (
	MaxBundle     = 1 << 20 // bytes of a SignedBundle on the wire
	maxBundleList = 16      // certificates in each list
)

// Bundle is what a device trusts of its platform from one version to the next. Each list holds certificates in DER.
// A bundle has no end: a device that comes back after ten years still knows whom to believe.
type Bundle struct {
	Version   int64    `json:"version"`             // counts from 1
	Created   int64    `json:"created"`             // ms since 1970 UTC
	Roots     [][]byte `json:"roots"`               // what the platform's doors and the device's own chain end in
	Bridges   [][]byte `json:"bridges,omitempty"`   // roots certified by other roots, for whoever knows only one of them
	Anchors   [][]byte `json:"anchors"`             // may sign the next version; the bootstrap door ends in one of them
	Bootstrap string   `json:"bootstrap,omitempty"` // server name (SNI) of the bootstrap door
}

// SignedBundle is a bundle in its canonical bytes with the signatures over them.
type SignedBundle struct {
	Bundle     json.RawMessage   `json:"bundle"`
	Signatures []BundleSignature `json:"signatures"`
}

// BundleSignature is what one anchor says of a bundle: ECDSA in ASN.1 over SHA-256 (P-256) or SHA-384 (P-384), or Ed25519.
type BundleSignature struct {
	KeyID string `json:"keyid"` // the anchor's subject key identifier, hex
	Sig   []byte `json:"sig"`
}

// ErrBundle is wrapped by every refusal of a bundle.
var ErrBundle = errors.New("trust bundle")

// bundleContext goes before what an anchor signs, so that nothing else it ever signs is a bundle.
const bundleContext = "openthings trust bundle 1\n"

// serverName is a DNS name in lower case (RFC 1035 2.3.1), so that it has one spelling in JSON.
var serverName = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Bytes is the bundle's canonical encoding: compact JSON with the members in the order above. It holds no character
// that any JSON encoder would write in another way.
func (b Bundle) Bytes() []byte {
	raw, err := json.Marshal(b)
	if err != nil { // ints, base64 and a checked name: cannot fail
		panic(err)
	}
	return raw
}

// check refuses a bundle that cannot be followed.
func (b Bundle) check() error {
	switch {
	case b.Version < 1:
		return fmt.Errorf("%w: version %d", ErrBundle, b.Version)
	case len(b.Roots) == 0 || len(b.Anchors) == 0:
		return fmt.Errorf("%w: it names no root or no anchor", ErrBundle)
	case b.Bootstrap != "" && (len(b.Bootstrap) > 253 || !serverName.MatchString(b.Bootstrap)):
		return fmt.Errorf("%w: %q is not a server name", ErrBundle, b.Bootstrap)
	}
	for _, list := range [][][]byte{b.Roots, b.Bridges, b.Anchors} {
		if len(list) > maxBundleList {
			return fmt.Errorf("%w: a list of %d certificates", ErrBundle, len(list))
		}
		for _, der := range list {
			c, err := x509.ParseCertificate(der)
			if err != nil || !c.IsCA || !c.BasicConstraintsValid || len(c.SubjectKeyId) == 0 {
				return fmt.Errorf("%w: an entry is not the certificate of an authority", ErrBundle)
			}
		}
	}
	return nil
}

// ParseBundle reads canonical bytes. Members of a later format are ignored: the signature covers them, and a device
// that is never updated must not be locked out by them.
func ParseBundle(raw []byte) (Bundle, error) {
	var b Bundle
	if len(raw) > MaxBundle {
		return Bundle{}, fmt.Errorf("%w: %d bytes", ErrBundle, len(raw))
	}
	if err := json.Unmarshal(raw, &b); err != nil {
		return Bundle{}, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	return b, b.check()
}

// ParseSignedBundle reads a signed bundle as it comes from a door or a file. It says nothing of the signatures yet.
func ParseSignedBundle(raw []byte) (SignedBundle, error) {
	var s SignedBundle
	if len(raw) > MaxBundle {
		return SignedBundle{}, fmt.Errorf("%w: %d bytes", ErrBundle, len(raw))
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return SignedBundle{}, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	if len(s.Signatures) > 2*maxBundleList {
		return SignedBundle{}, fmt.Errorf("%w: %d signatures", ErrBundle, len(s.Signatures))
	}
	return s, nil
}

// SignBundle signs b with each of the anchors' keys: one that the version before names, and each one that is new.
func SignBundle(rand io.Reader, b Bundle, keys ...crypto.Signer) (SignedBundle, error) {
	if err := b.check(); err != nil {
		return SignedBundle{}, err
	}
	s := SignedBundle{Bundle: b.Bytes()}
	for _, key := range keys {
		anchor, err := b.anchorOf(key.Public())
		if err != nil {
			return SignedBundle{}, err
		}
		message, hash, err := bundleMessage(s.Bundle, key.Public())
		if err != nil {
			return SignedBundle{}, err
		}
		sig, err := key.Sign(rand, message, hash)
		if err != nil {
			return SignedBundle{}, err
		}
		s.Signatures = append(s.Signatures, BundleSignature{KeyID: hex.EncodeToString(anchor), Sig: sig})
	}
	return s, nil
}

// anchorOf is the key identifier of the key. A key that is no anchor of this bundle may still be one of the version
// before; its identifier is then made as all of this platform's are.
func (b Bundle) anchorOf(key crypto.PublicKey) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	for _, der := range b.Anchors {
		if c, err := x509.ParseCertificate(der); err == nil && bytes.Equal(c.RawSubjectPublicKeyInfo, spki) {
			return c.SubjectKeyId, nil
		}
	}
	sum := sha256.Sum256(spki)
	return sum[:20], nil
}

// bundleMessage is what a key of this kind signs: a digest, or the bytes themselves.
func bundleMessage(raw []byte, key crypto.PublicKey) ([]byte, crypto.Hash, error) {
	m := append([]byte(bundleContext), raw...)
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			h := sha256.Sum256(m)
			return h[:], crypto.SHA256, nil
		case elliptic.P384():
			h := sha512.Sum384(m)
			return h[:], crypto.SHA384, nil
		}
	case ed25519.PublicKey:
		return m, 0, nil
	}
	return nil, 0, fmt.Errorf("%w: an anchor's key of type %T", ErrBundle, key)
}

// signedBy says whether the anchor signed s.
func (s SignedBundle) signedBy(anchor *x509.Certificate) bool {
	message, _, err := bundleMessage(s.Bundle, anchor.PublicKey)
	if err != nil {
		return false
	}
	id := hex.EncodeToString(anchor.SubjectKeyId)
	for _, g := range s.Signatures {
		if g.KeyID != id {
			continue
		}
		switch k := anchor.PublicKey.(type) {
		case *ecdsa.PublicKey:
			if ecdsa.VerifyASN1(k, message, g.Sig) {
				return true
			}
		case ed25519.PublicKey:
			if ed25519.Verify(k, message, g.Sig) {
				return true
			}
		}
	}
	return false
}

// Verify reads s if it is the version right after trusted: one anchor of trusted signed it, and so did each anchor that
// it adds, which proves that somebody holds its key. Time is no part of it: a device's clock may stand at 1970.
func (s SignedBundle) Verify(trusted Bundle) (Bundle, error) {
	b, err := ParseBundle(s.Bundle)
	if err != nil {
		return Bundle{}, err
	}
	if b.Version != trusted.Version+1 {
		return Bundle{}, fmt.Errorf("%w: version %d does not follow %d", ErrBundle, b.Version, trusted.Version)
	}
	known := parseAll(trusted.Anchors)
	signed := false
	for _, a := range known {
		signed = signed || s.signedBy(a)
	}
	if !signed {
		return Bundle{}, fmt.Errorf("%w: no anchor of version %d signed version %d", ErrBundle, trusted.Version, b.Version)
	}
	return b, s.provesNew(b, known)
}

// provesNew refuses an added anchor that did not sign. One whose algorithm this program does not speak proves nothing to
// it and never will: it is passed over, so that a device of today does not stumble over an anchor of tomorrow.
func (s SignedBundle) provesNew(b Bundle, known []*x509.Certificate) error {
	for _, a := range parseAll(b.Anchors) {
		_, _, unknown := bundleMessage(nil, a.PublicKey)
		had := unknown != nil
		for _, k := range known {
			had = had || bytes.Equal(k.RawSubjectPublicKeyInfo, a.RawSubjectPublicKeyInfo)
		}
		if !had && !s.signedBy(a) {
			return fmt.Errorf("%w: the new anchor %x did not sign", ErrBundle, a.SubjectKeyId)
		}
	}
	return nil
}

// Pin reads s on the word of whoever handed it over, such as the line station that provisions a device: that one of its
// own anchors signed it only shows that it arrived whole.
func (s SignedBundle) Pin() (Bundle, error) {
	b, err := ParseBundle(s.Bundle)
	if err != nil {
		return Bundle{}, err
	}
	for _, a := range parseAll(b.Anchors) {
		if s.signedBy(a) {
			return b, nil
		}
	}
	return Bundle{}, fmt.Errorf("%w: none of its own anchors signed version %d", ErrBundle, b.Version)
}

// Walk goes from trusted to the last of the steps, one version after the other.
func Walk(trusted Bundle, steps ...SignedBundle) (Bundle, error) {
	for _, s := range steps {
		next, err := s.Verify(trusted)
		if err != nil {
			return Bundle{}, err
		}
		trusted = next
	}
	return trusted, nil
}

// RootPool holds the roots.
func (b Bundle) RootPool() *x509.CertPool { return pool(b.Roots) }

// BridgePool holds the bridges: intermediates for whoever trusts only some of the roots.
func (b Bundle) BridgePool() *x509.CertPool { return pool(b.Bridges) }

// AnchorPool holds the anchors: roots for the bootstrap door, and for nothing else.
func (b Bundle) AnchorPool() *x509.CertPool { return pool(b.Anchors) }

func pool(list [][]byte) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range parseAll(list) {
		p.AddCert(c)
	}
	return p
}

// parseAll decodes what check has accepted.
func parseAll(list [][]byte) (out []*x509.Certificate) {
	for _, der := range list {
		if c, err := x509.ParseCertificate(der); err == nil {
			out = append(out, c)
		}
	}
	return out
}
