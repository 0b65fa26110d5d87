// SPDX-License-Identifier: AGPL-3.0-only

package status

import (
	"crypto"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 6960 names certificates by SHA-1; nothing is signed with it
	"crypto/sha256"
	_ "crypto/sha512" // clients may ask by SHA-384 and SHA-512
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Limits of a request; what is larger is malformed.
const (
	MaxRequest = 8 << 10 // bytes
	MaxItems   = 20      // certificates in one request
	maxNonce   = 128     // bytes (RFC 9654 2.1)
	maxSerial  = 64      // bytes; RFC 5280 has 20, and what is longer is merely unknown
)

// Bodies of refusals (RFC 6960 4.2.1: OCSPResponseStatus without bytes).
var (
	Malformed     = []byte{0x30, 0x03, 0x0a, 0x01, 1}
	InternalError = []byte{0x30, 0x03, 0x0a, 0x01, 2}
	TryLater      = []byte{0x30, 0x03, 0x0a, 0x01, 3}
	Unauthorized  = []byte{0x30, 0x03, 0x0a, 0x01, 6}
)

// ErrMalformed is any request that is not one.
var ErrMalformed = errors.New("status: no OCSP request")

// CertID names a certificate by its issuer's name and key and by its serial number (RFC 6960 4.1.1).
type CertID struct {
	Raw     []byte      // as it came, for the answer
	Hash    crypto.Hash // 0: one that we do not know
	Name    []byte      // hash of the issuer's name
	Key     []byte      // hash of the issuer's key
	Serial  *big.Int
	hashOID asn1.ObjectIdentifier
}

// Request is an OCSP request. Its signature, if it has one, is of no interest: everybody may ask.
type Request struct {
	IDs   []CertID
	Nonce []byte // the extension's value, to be returned; nil without one
}

func asn1Tag(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }

// ParseRequest reads a request of at most MaxRequest bytes with 1 to MaxItems certificates.
func ParseRequest(der []byte) (Request, error) {
	var r Request
	var request, tbs, list, extensions cryptobyte.String
	var has bool
	in := cryptobyte.String(der)
	if len(der) > MaxRequest || !in.ReadASN1(&request, cbasn1.SEQUENCE) || !in.Empty() ||
		!request.ReadASN1(&tbs, cbasn1.SEQUENCE) || !request.SkipOptionalASN1(tagExplicit0) || !request.Empty() ||
		!tbs.SkipOptionalASN1(tagExplicit0) || !tbs.SkipOptionalASN1(tagExplicit1) || !tbs.ReadASN1(&list, cbasn1.SEQUENCE) ||
		!tbs.ReadOptionalASN1(&extensions, &has, tagExplicit2) || !tbs.Empty() {
		return Request{}, ErrMalformed
	}
	for !list.Empty() {
		var one cryptobyte.String
		if len(r.IDs) == MaxItems || !list.ReadASN1(&one, cbasn1.SEQUENCE) {
			return Request{}, ErrMalformed
		}
		id, ok := readCertID(&one)
		if !ok || !one.SkipOptionalASN1(tagExplicit0) || !one.Empty() {
			return Request{}, ErrMalformed
		}
		r.IDs = append(r.IDs, id)
	}
	if len(r.IDs) == 0 {
		return Request{}, ErrMalformed
	}
	if has {
		var ok bool
		if r.Nonce, ok = readNonce(extensions); !ok {
			return Request{}, ErrMalformed
		}
	}
	return r, nil
}

func readCertID(s *cryptobyte.String) (id CertID, ok bool) {
	var raw, body, algorithm, parameters cryptobyte.String
	var name, key []byte
	var tag cbasn1.Tag
	id.Serial = new(big.Int)
	if !s.ReadASN1Element(&raw, cbasn1.SEQUENCE) {
		return id, false
	}
	id.Raw = raw
	if !raw.ReadASN1(&body, cbasn1.SEQUENCE) || !body.ReadASN1(&algorithm, cbasn1.SEQUENCE) || !algorithm.ReadASN1ObjectIdentifier(&id.hashOID) ||
		!algorithm.Empty() && !(algorithm.ReadAnyASN1(&parameters, &tag) && algorithm.Empty()) ||
		!body.ReadASN1Bytes(&name, cbasn1.OCTET_STRING) || !body.ReadASN1Bytes(&key, cbasn1.OCTET_STRING) ||
		!body.ReadASN1Integer(id.Serial) || !body.Empty() || len(name) > 64 || len(key) > 64 || id.Serial.BitLen() > 8*maxSerial {
		return id, false
	}
	id.Name, id.Key = name, key
	for hash, oid := range map[crypto.Hash]asn1.ObjectIdentifier{crypto.SHA1: oidSHA1, crypto.SHA256: oidSHA256, crypto.SHA384: oidSHA384, crypto.SHA512: oidSHA512} {
		if id.hashOID.Equal(oid) {
			id.Hash = hash
		}
	}
	return id, true
}

// readNonce looks for the nonce among the request's extensions; the others are not critical to us.
func readNonce(s cryptobyte.String) (nonce []byte, ok bool) {
	var list cryptobyte.String
	if !s.ReadASN1(&list, cbasn1.SEQUENCE) || !s.Empty() {
		return nil, false
	}
	for !list.Empty() {
		var extension, value cryptobyte.String
		var oid asn1.ObjectIdentifier
		if !list.ReadASN1(&extension, cbasn1.SEQUENCE) || !extension.ReadASN1ObjectIdentifier(&oid) || !extension.SkipOptionalASN1(cbasn1.BOOLEAN) ||
			!extension.ReadASN1(&value, cbasn1.OCTET_STRING) || !extension.Empty() {
			return nil, false
		}
		if !oid.Equal(oidNonce) {
			continue
		}
		if nonce != nil || len(value) == 0 || len(value) > maxNonce+4 {
			return nil, false
		}
		nonce = value
	}
	return nonce, true
}

// Issuer is the two hashes by which clients name an authority.
type Issuer struct{ Name, Key string }

// IssuerOf computes them for a certificate of an authority.
func IssuerOf(h crypto.Hash, authority *x509.Certificate) (Issuer, error) {
	key, err := keyBits(authority.RawSubjectPublicKeyInfo)
	if err != nil {
		return Issuer{}, err
	}
	sum := func(b []byte) string {
		d := h.New()
		d.Write(b)
		return string(d.Sum(nil))
	}
	return Issuer{sum(authority.RawSubject), sum(key)}, nil
}

// Issuer is whom the client means.
func (id CertID) Issuer() Issuer { return Issuer{string(id.Name), string(id.Key)} }

func keyBits(spki []byte) ([]byte, error) {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(spki, &info); err != nil {
		return nil, fmt.Errorf("status: public key: %w", err)
	}
	return info.Key.RightAlign(), nil
}

// NoCheck is the extension that keeps clients from asking about the responder's own certificate (RFC 6960 4.2.2.2.1).
func NoCheck() pkix.Extension { return pkix.Extension{Id: oidNoCheck, Value: asn1.NullBytes} }

// Answer is what is to be signed: one standing for each certificate of a request.
type Answer struct {
	Request   Request
	Standings []Standing
	Produced  time.Time
	Until     time.Time // nextUpdate
}

// Sign makes the response. cert is the responder's certificate, which goes along, and key its P-256 key.
func (a Answer) Sign(cert *x509.Certificate, key crypto.Signer) ([]byte, error) {
	public, err := keyBits(cert.RawSubjectPublicKeyInfo)
	if err != nil {
		return nil, err
	}
	responder := sha1.Sum(public) //nolint:gosec // RFC 6960 4.2.1: KeyHash is SHA-1
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tagExplicit2, func(b *cryptobyte.Builder) { b.AddASN1OctetString(responder[:]) })
		b.AddASN1GeneralizedTime(a.Produced.UTC())
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for i, id := range a.Request.IDs {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { a.single(b, id, a.Standings[i]) })
			}
		})
		if a.Request.Nonce != nil {
			b.AddASN1(tagExplicit1, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { addExtension(b, oidNonce, a.Request.Nonce) })
			})
		}
	})
	data, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("status: %w", err)
	}
	digest := sha256.Sum256(data)
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("status: %w", err)
	}
	var out cryptobyte.Builder
	out.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Enum(0)
		b.AddASN1(tagExplicit0, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidBasic)
				b.AddASN1(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddBytes(data)
						b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidECDSA256) })
						b.AddASN1BitString(signature)
						b.AddASN1(tagExplicit0, func(b *cryptobyte.Builder) {
							b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(cert.Raw) })
						})
					})
				})
			})
		})
	})
	return out.Bytes()
}

func (a Answer) single(b *cryptobyte.Builder, id CertID, s Standing) {
	b.AddBytes(id.Raw)
	switch s.State {
	case Good:
		b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(*cryptobyte.Builder) {})
	case Revoked:
		b.AddASN1(tagExplicit1, func(b *cryptobyte.Builder) { // implicit SEQUENCE
			b.AddASN1GeneralizedTime(s.At.UTC())
			b.AddASN1(tagExplicit0, func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(s.Reason)) })
		})
	default:
		b.AddASN1(cbasn1.Tag(2).ContextSpecific(), func(*cryptobyte.Builder) {})
	}
	b.AddASN1GeneralizedTime(a.Produced.UTC())
	b.AddASN1(tagExplicit0, func(b *cryptobyte.Builder) { b.AddASN1GeneralizedTime(a.Until.UTC()) })
}

func addExtension(b *cryptobyte.Builder, oid asn1.ObjectIdentifier, value []byte) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1OctetString(value)
	})
}
