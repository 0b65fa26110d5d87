// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"

	"github.com/openthings-platform/openthings/problem"
)

// MaxCSR is the largest certificate request in bytes of DER; one for a post-quantum key has about 6 kB.
const MaxCSR = 16 << 10

// CSR is a certificate request (PKCS #10, RFC 2986) that proved possession of a key we accept. What it asks for beyond
// the key is only ever compared, never copied into a certificate.
type CSR struct {
	*x509.CertificateRequest
	KeyHash string // hex SHA-256 of the subject public key info
}

var (
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidClientAuth       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
)

// ParseCSR reads a request in DER and refuses one that is not signed by its own key, whose key is not P-256, or that
// asks to be an authority or anything else but a TLS client.
func ParseCSR(der []byte) (*CSR, error) {
	if len(der) > MaxCSR {
		return nil, problem.TooLarge("A certificate request has at most %d bytes.", MaxCSR).At("csr")
	}
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, problem.Invalid("This is not a certificate request (PKCS #10).").At("csr").Because(err)
	}
	key, ok := r.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, problem.Forbidden("identity.key", "The key must be ECDSA on P-256.").At("csr").
			Hint("openssl ecparam -name prime256v1 -genkey -noout makes one.")
	}
	if err := r.CheckSignature(); err != nil {
		return nil, problem.Invalid("The certificate request is not signed by its own key.").At("csr").Because(err)
	}
	for _, e := range r.Extensions {
		if err := checkExtension(e.Id, e.Value); err != nil {
			return nil, err
		}
	}
	return &CSR{CertificateRequest: r, KeyHash: KeyHash(r.RawSubjectPublicKeyInfo)}, nil
}

func checkExtension(id asn1.ObjectIdentifier, value []byte) error {
	switch {
	case id.Equal(oidBasicConstraints):
		var bc struct {
			IsCA bool `asn1:"optional"`
			Path int  `asn1:"optional,default:-1"`
		}
		if rest, err := asn1.Unmarshal(value, &bc); err != nil || len(rest) > 0 || bc.IsCA {
			return problem.Forbidden("identity.csr-ca", "A device cannot be a certificate authority.").At("csr")
		}
	case id.Equal(oidExtKeyUsage):
		var usages []asn1.ObjectIdentifier
		if rest, err := asn1.Unmarshal(value, &usages); err != nil || len(rest) > 0 {
			return problem.Invalid("The extended key usage cannot be read.").At("csr").Because(err)
		}
		for _, u := range usages {
			if !u.Equal(oidClientAuth) {
				return problem.Forbidden("identity.csr-usage", "A device's certificate is for TLS client authentication only, not for %s.", u).At("csr")
			}
		}
	}
	return nil
}

// ParseCSRPEM reads a request in PEM.
func ParseCSRPEM(text string) (*CSR, error) {
	if len(text) > 2*MaxCSR {
		return nil, problem.TooLarge("A certificate request has at most %d bytes.", MaxCSR).At("csr")
	}
	b, _ := pem.Decode([]byte(text))
	if b == nil || b.Type != "CERTIFICATE REQUEST" && b.Type != "NEW CERTIFICATE REQUEST" {
		return nil, problem.Invalid("This is not a certificate request in PEM.").At("csr")
	}
	return ParseCSR(b.Bytes)
}

// OnlyFor refuses a request that asks for a subject alternative name other than uri.
func (c *CSR) OnlyFor(uri string) error {
	foreign := len(c.DNSNames) + len(c.EmailAddresses) + len(c.IPAddresses)
	for _, u := range c.URIs {
		if u.String() != uri {
			foreign++
		}
	}
	if foreign > 0 {
		return problem.Forbidden("identity.csr-name", "The certificate request asks for a name that is not this subject's.").At("csr").
			Hint("Leave the subject alternative name out, or ask for %s.", uri)
	}
	return nil
}
