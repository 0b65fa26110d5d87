// SPDX-License-Identifier: AGPL-3.0-only

package demo

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
)

// passkey is an authenticator in software: the demo has no browser, yet only a person with a passkey may declare
// awareness. It speaks WebAuthn Level 2 with "none" attestation (section 8.7) and ES256.
type passkey struct {
	key *ecdsa.PrivateKey
	id  []byte
}

func newPasskey() (*passkey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	id := make([]byte, 32)
	rand.Read(id)
	return &passkey{key: key, id: id}, nil
}

// Flags of authenticator data (section 6.1): user present, user verified, attested credential data included.
const userPresent, userVerified, attested = 0x01, 0x04, 0x40

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// create answers navigator.credentials.create for a relying party, challenge and origin.
func (p *passkey) create(rpID, challenge, origin string) (json.RawMessage, error) {
	pub, err := p.key.PublicKey.Bytes() // 0x04, X, Y
	if err != nil {
		return nil, err
	}
	rp := sha256.Sum256([]byte(rpID))
	var auth bytes.Buffer
	auth.Write(rp[:])
	auth.WriteByte(userPresent | userVerified | attested)
	auth.Write(make([]byte, 4+16)) // signature counter, AAGUID: both zero
	binary.Write(&auth, binary.BigEndian, uint16(len(p.id)))
	auth.Write(p.id)
	// COSE_Key in CBOR: {1: 2 (EC2), 3: -7 (ES256), -1: 1 (P-256), -2: x, -3: y}
	auth.Write([]byte{0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20})
	auth.Write(pub[1:33])
	auth.Write([]byte{0x22, 0x58, 0x20})
	auth.Write(pub[33:])
	// Attestation object in CBOR: {"fmt": "none", "attStmt": {}, "authData": bytes}
	obj := []byte("\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x58")
	obj = append(append(obj, byte(auth.Len())), auth.Bytes()...)
	client, err := clientData("webauthn.create", challenge, origin)
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{
		"id": b64(p.id), "rawId": b64(p.id), "type": "public-key",
		"response": map[string]any{"clientDataJSON": b64(client), "attestationObject": b64(obj)},
	})
}

func clientData(kind, challenge, origin string) ([]byte, error) {
	return json.Marshal(map[string]any{"type": kind, "challenge": challenge, "origin": origin, "crossOrigin": false})
}
