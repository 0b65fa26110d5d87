// SPDX-License-Identifier: AGPL-3.0-only

package tenant_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

// authenticator is a passkey device in software (WebAuthn Level 3, section 6): one P-256 key, attestation "none".
type authenticator struct {
	key     *ecdsa.PrivateKey
	id      []byte
	handle  []byte
	counter uint32
	flags   byte // user present 0x01, user verified 0x04
	origin  string
}

func newAuthenticator(t testing.TB, origin string) *authenticator {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authenticator{key: key, id: make([]byte, 16), flags: 0x05, origin: origin}
	rand.Read(a.id)
	return a
}

var b64 = base64.RawURLEncoding

func (a *authenticator) clientData(kind, challenge string) []byte {
	b, _ := json.Marshal(map[string]any{"type": kind, "challenge": challenge, "origin": a.origin, "crossOrigin": false})
	return b
}

func (a *authenticator) data(rpID string, attested []byte) []byte {
	var b bytes.Buffer
	sum := sha256.Sum256([]byte(rpID))
	b.Write(sum[:])
	flags := a.flags
	if attested != nil {
		flags |= 0x40
	}
	b.WriteByte(flags)
	a.counter++
	binary.Write(&b, binary.BigEndian, a.counter)
	b.Write(attested)
	return b.Bytes()
}

// create answers creation options with a new credential.
func (a *authenticator) create(t testing.TB, options []byte) []byte {
	t.Helper()
	var o struct {
		PublicKey struct {
			Challenge string
			RP        struct{ ID string }
			User      struct{ ID string }
		}
	}
	if err := json.Unmarshal(options, &o); err != nil {
		t.Fatal(err)
	}
	a.handle, _ = b64.DecodeString(o.PublicKey.User.ID)
	x, y := a.key.X.FillBytes(make([]byte, 32)), a.key.Y.FillBytes(make([]byte, 32))
	cose, err := cbor.Marshal(map[int]any{1: 2, 3: -7, -1: 1, -2: x, -3: y})
	if err != nil {
		t.Fatal(err)
	}
	attested := append(make([]byte, 16), byte(len(a.id)>>8), byte(len(a.id)))
	attested = append(append(attested, a.id...), cose...)
	object, err := cbor.Marshal(map[string]any{"fmt": "none", "attStmt": map[string]any{}, "authData": a.data(o.PublicKey.RP.ID, attested)})
	if err != nil {
		t.Fatal(err)
	}
	return a.answer(map[string]any{"attestationObject": b64.EncodeToString(object), "clientDataJSON": b64.EncodeToString(a.clientData("webauthn.create", o.PublicKey.Challenge))})
}

// get answers request options with an assertion.
func (a *authenticator) get(t testing.TB, options []byte) []byte {
	t.Helper()
	var o struct {
		PublicKey struct{ Challenge, RPID string }
	}
	if err := json.Unmarshal(options, &o); err != nil {
		t.Fatal(err)
	}
	data, client := a.data(o.PublicKey.RPID, nil), a.clientData("webauthn.get", o.PublicKey.Challenge)
	hash := sha256.Sum256(client)
	digest := sha256.Sum256(append(append([]byte{}, data...), hash[:]...))
	sig, err := ecdsa.SignASN1(rand.Reader, a.key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return a.answer(map[string]any{"authenticatorData": b64.EncodeToString(data), "clientDataJSON": b64.EncodeToString(client),
		"signature": b64.EncodeToString(sig), "userHandle": b64.EncodeToString(a.handle)})
}

func (a *authenticator) answer(response map[string]any) []byte {
	b, _ := json.Marshal(map[string]any{"id": b64.EncodeToString(a.id), "rawId": b64.EncodeToString(a.id), "type": "public-key", "response": response, "clientExtensionResults": map[string]any{}})
	return b
}
