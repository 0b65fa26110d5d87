// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
)

// Key is a public key in TUF's form.
type Key struct {
	ID     string // hex SHA-256 over the canonical JSON of the key
	Type   string // "ed25519" or "ecdsa"
	Scheme string // "ed25519" or "ecdsa-sha2-nistp256"
	Public crypto.PublicKey
	text   string // keyval.public as written: hex of an Ed25519 key, PEM of a P-256 key
}

// NewKey describes pub, an Ed25519 or ECDSA P-256 public key.
func NewKey(pub crypto.PublicKey) (Key, error) {
	var k Key
	switch p := pub.(type) {
	case ed25519.PublicKey:
		k = Key{Type: "ed25519", Scheme: "ed25519", Public: p, text: hex.EncodeToString(p)}
	case *ecdsa.PublicKey:
		if p.Curve != elliptic.P256() {
			return Key{}, fmt.Errorf("the key lies on %s; P-256 is the curve here", p.Curve.Params().Name)
		}
		der, err := x509.MarshalPKIXPublicKey(p)
		if err != nil {
			return Key{}, err
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
		k = Key{Type: "ecdsa", Scheme: "ecdsa-sha2-nistp256", Public: p, text: string(text)}
	default:
		return Key{}, fmt.Errorf("a key of type %T cannot sign releases; use Ed25519 or ECDSA P-256", pub)
	}
	id := sha256.Sum256(canonical(k.tree()))
	k.ID = hex.EncodeToString(id[:])
	return k, nil
}

func (k Key) tree() map[string]any {
	return map[string]any{"keytype": k.Type, "scheme": k.Scheme, "keyval": map[string]any{"public": k.text}}
}

func readKey(o object) (Key, error) {
	kind, scheme, text := o.text("keytype"), o.text("scheme"), o.object("keyval").text("public")
	if *o.err != nil {
		return Key{}, *o.err
	}
	var pub crypto.PublicKey
	switch {
	case kind == "ed25519" && scheme == "ed25519":
		b, err := hex.DecodeString(text)
		if err != nil || len(b) != ed25519.PublicKeySize {
			return Key{}, refuse(RuleFormat, "an Ed25519 key is 64 hex digits")
		}
		pub = ed25519.PublicKey(b)
	case kind == "ecdsa" && scheme == "ecdsa-sha2-nistp256":
		block, _ := pem.Decode([]byte(text))
		if block == nil {
			return Key{}, refuse(RuleFormat, "an ECDSA key is PEM")
		}
		p, err := x509.ParsePKIXPublicKey(block.Bytes)
		if ec, ok := p.(*ecdsa.PublicKey); err != nil || !ok || ec.Curve != elliptic.P256() {
			return Key{}, refuse(RuleFormat, "the key is not ECDSA P-256")
		}
		pub = p
	default:
		return Key{}, refuse(RuleFormat, "keys of type %q with scheme %q are not known here", kind, scheme)
	}
	k, err := NewKey(pub)
	if err != nil {
		return Key{}, refuse(RuleFormat, "%v", err)
	}
	return k, nil
}

// verify checks sig over the canonical bytes.
func (k Key) verify(msg, sig []byte) bool {
	switch p := k.Public.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(p, msg, sig)
	case *ecdsa.PublicKey:
		h := sha256.Sum256(msg)
		return ecdsa.VerifyASN1(p, h[:], sig)
	}
	return false
}

// sign makes a signature that verify accepts. The key may live in hardware: only crypto.Signer is asked.
func sign(key crypto.Signer, msg []byte) ([]byte, error) {
	if _, ok := key.Public().(ed25519.PublicKey); ok {
		return key.Sign(rand.Reader, msg, crypto.Hash(0))
	}
	h := sha256.Sum256(msg)
	return key.Sign(rand.Reader, h[:], crypto.SHA256)
}

// GenerateKey makes an Ed25519 signing key.
func GenerateKey(random io.Reader) (crypto.Signer, error) {
	_, key, err := ed25519.GenerateKey(random)
	return key, err
}

// MarshalKey is the file form of a signing key: PKCS#8 in PEM. The file belongs to the manufacturer, mode 0600.
func MarshalKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseKey reads MarshalKey's form.
func ParseKey(b []byte) (crypto.Signer, error) {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" || len(rest) != 0 {
		return nil, fmt.Errorf("the file does not hold exactly one PEM block PRIVATE KEY")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", k)
	}
	if _, err := NewKey(s.Public()); err != nil {
		return nil, err
	}
	return s, nil
}
