// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"bytes"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openthings-platform/openthings/problem"
)

// MaxEST bounds the body of an EST request, in bytes.
const MaxEST = 64 << 10

var (
	oidSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidData       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
)

// decodeEST returns the DER in the body of an EST request. RFC 8951 demands base64 and says to ignore
// Content-Transfer-Encoding; clients send it in lines of 64, in one line, with CRLF, as PEM, and some send plain DER.
func decodeEST(body []byte) ([]byte, error) {
	if len(body) > MaxEST {
		return nil, problem.TooLarge("An EST request has at most %d bytes.", MaxEST)
	}
	if bytes.HasPrefix(bytes.TrimSpace(body), []byte("-----BEGIN ")) {
		if b, _ := pem.Decode(bytes.TrimSpace(body)); b != nil && len(b.Bytes) > 0 {
			return b.Bytes, nil
		}
		return nil, problem.Invalid("The PEM of the request is broken.")
	}
	if len(body) > 0 && body[0] == 0x30 { // a SEQUENCE; its base64 begins with M
		return body, nil
	}
	der, err := base64.StdEncoding.DecodeString(string(bytes.Join(bytes.Fields(body), nil)))
	if err != nil || len(der) == 0 {
		return nil, problem.Invalid("The body is neither base64 nor DER of a certificate request (RFC 8951).").Because(err)
	}
	return der, nil
}

// encodeEST is base64 in lines of 64 with a final line end: libest fails on one long line, and RFC 8951 allows both.
func encodeEST(der []byte) []byte {
	text := base64.StdEncoding.EncodeToString(der)
	var b bytes.Buffer
	for line := range slices.Chunk([]byte(text), 64) {
		b.Write(line)
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// certsOnly is a CMS SignedData without content and signatures that carries certificates (RFC 5652 5.1, RFC 8551 3.8).
func certsOnly(certs ...[]byte) ([]byte, error) {
	certs = slices.SortedFunc(slices.Values(certs), bytes.Compare) // CertificateSet is a SET OF
	var b cryptobyte.Builder
	tag0 := cbasn1.Tag(0).ContextSpecific().Constructed()
	b.AddASN1(cbasn1.SEQUENCE, func(b builder) { // ContentInfo
		b.AddASN1ObjectIdentifier(oidSignedData)
		b.AddASN1(tag0, func(b builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b builder) { // SignedData
				b.AddASN1Int64(1)
				b.AddASN1(cbasn1.SET, func(builder) {}) // digestAlgorithms
				b.AddASN1(cbasn1.SEQUENCE, func(b builder) { b.AddASN1ObjectIdentifier(oidData) })
				b.AddASN1(tag0, func(b builder) {
					for _, c := range certs {
						b.AddBytes(c)
					}
				})
				b.AddASN1(cbasn1.SET, func(builder) {}) // signerInfos
			})
		})
	})
	return b.Bytes()
}
