// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"slices"

	"github.com/openthings-platform/openthings/problem"
)

// MaxCSR is the largest certificate request in bytes of DER; one for a post-quantum key has about 6 kB.
const MaxCSR = 16 << 10

// The rules that refuse a certificate request.
const (
	RuleCSRSize      = "identity.csr-size"      // larger than MaxCSR
	RuleCSREncoding  = "identity.csr-encoding"  // not one PKCS #10 value in distinguished encoding
	RuleCSRDuplicate = "identity.csr-duplicate" // an extension or attribute twice
	RuleCSRSignature = "identity.csr-signature" // not signed by its own key
	RuleCSRAuthority = "identity.csr-ca"        // wants to be an authority
	RuleCSRUsage     = "identity.csr-usage"     // wants another usage than TLS client authentication
	RuleCSRName      = "identity.csr-name"      // wants somebody else's name
	RuleKey          = "identity.key"           // an algorithm, curve or size that policy does not take
	RuleWeakKey      = "identity.key-weak"      // a key that others can compute
	RuleBlockedKey   = "identity.key-blocked"   // a key on a list of keys not to be trusted
	RuleUsedKey      = "identity.key-used"      // the key of somebody else
	RuleUsedSerial   = "identity.serial-used"   // the serial number of a unit that has another key
)

// CSR is a certificate request (PKCS #10, RFC 2986) that proved possession of a key we accept. What it asks for beyond
// the key is only ever compared, never copied into a certificate.
type CSR struct {
	*x509.CertificateRequest
	KeyHash string // hex SHA-256 of the subject public key info
	shape   shape
}

var (
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidClientAuth       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
)

// ruled names the rule on a refusal that is of another kind than "forbidden".
func ruled(e *problem.Error, rule string) *problem.Error { e.Rule = rule; return e }

// ParseCSR reads a request in DER and refuses one that is not in distinguished encoding, not signed by its own key,
// whose key is of none of the algorithms named (none: ECDSA P-256) or known to be weak, or that asks to be an authority
// or anything else but a TLS client. Every refusal names its rule.
func ParseCSR(der []byte, algorithms ...Algorithm) (*CSR, error) {
	if len(der) > MaxCSR {
		return nil, errCSRSize()
	}
	if err := checkDER(der); err != nil {
		return nil, errCSREncoding(err)
	}
	sh, err := readShape(der)
	if err != nil {
		return nil, errCSREncoding(err)
	}
	for _, ids := range [][]asn1.ObjectIdentifier{sh.attributes, sh.extensions} {
		if id, ok := twice(ids); ok {
			return nil, ruled(problem.Invalid("The certificate request has %s twice.", id), RuleCSRDuplicate).At("csr")
		}
	}
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, errCSREncoding(err)
	}
	if err := acceptKey(r.PublicKey, algorithms); err != nil {
		return nil, err
	}
	if err := r.CheckSignature(); err != nil {
		return nil, ruled(problem.Invalid("The certificate request is not signed by its own key."), RuleCSRSignature).At("csr").Because(err)
	}
	for _, e := range r.Extensions {
		if err := checkExtension(e.Id, e.Value); err != nil {
			return nil, err
		}
	}
	return &CSR{CertificateRequest: r, KeyHash: KeyHash(r.RawSubjectPublicKeyInfo), shape: sh}, nil
}

func errCSRSize() error {
	return ruled(problem.TooLarge("A certificate request has at most %d bytes.", MaxCSR), RuleCSRSize).At("csr")
}

func errCSREncoding(cause error) error {
	return ruled(problem.Invalid("This is not a certificate request (PKCS #10, DER)."), RuleCSREncoding).At("csr").Because(cause)
}

// acceptKey refuses a key of another algorithm and one that others can compute.
func acceptKey(key any, algorithms []Algorithm) error {
	if len(algorithms) == 0 {
		algorithms = []Algorithm{AlgP256}
	}
	if !slices.Contains(algorithms, AlgorithmOf(key)) {
		return problem.Forbidden(RuleKey, "The key must be %s.", problem.Or(algorithms)).At("csr").
			Hint("openssl ecparam -name prime256v1 -genkey -noout makes one on P-256.")
	}
	if why := Weakness(key); why != "" {
		return problem.Forbidden(RuleWeakKey, "Others can compute this private key: %s.", why).At("csr").Hint("Make a new key, with a good source of randomness.")
	}
	return nil
}

func checkExtension(id asn1.ObjectIdentifier, value []byte) error {
	switch {
	case id.Equal(oidBasicConstraints):
		var bc struct {
			IsCA bool `asn1:"optional"`
			Path int  `asn1:"optional,default:-1"`
		}
		if rest, err := asn1.Unmarshal(value, &bc); err != nil || len(rest) > 0 || bc.IsCA {
			return problem.Forbidden(RuleCSRAuthority, "A device cannot be a certificate authority.").At("csr")
		}
	case id.Equal(oidKeyUsage):
		var bits asn1.BitString
		const keyCertSign, cRLSign = 5, 6 // RFC 5280 4.2.1.3
		if rest, err := asn1.Unmarshal(value, &bits); err != nil || len(rest) > 0 || bits.At(keyCertSign)|bits.At(cRLSign) != 0 {
			return problem.Forbidden(RuleCSRAuthority, "A device signs neither certificates nor revocation lists.").At("csr")
		}
	case id.Equal(oidExtKeyUsage):
		var usages []asn1.ObjectIdentifier
		if rest, err := asn1.Unmarshal(value, &usages); err != nil || len(rest) > 0 {
			return ruled(problem.Invalid("The extended key usage cannot be read."), RuleCSRUsage).At("csr").Because(err)
		}
		for _, u := range usages {
			if !u.Equal(oidClientAuth) {
				return problem.Forbidden(RuleCSRUsage, "A device's certificate is for TLS client authentication only, not for %s.", u).At("csr")
			}
		}
	}
	return nil
}

// ParseCSRPEM reads a request in PEM; see ParseCSR.
func ParseCSRPEM(text string, algorithms ...Algorithm) (*CSR, error) {
	if len(text) > 2*MaxCSR {
		return nil, errCSRSize()
	}
	b, rest := pem.Decode([]byte(text))
	if b == nil || b.Type != "CERTIFICATE REQUEST" && b.Type != "NEW CERTIFICATE REQUEST" {
		return nil, ruled(problem.Invalid("This is not a certificate request in PEM."), RuleCSREncoding).At("csr")
	}
	if more, _ := pem.Decode(rest); more != nil {
		return nil, ruled(problem.Invalid("One certificate request at a time."), RuleCSREncoding).At("csr")
	}
	return ParseCSR(b.Bytes, algorithms...)
}
