// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
)

// The rules of trusted CAs.
const (
	RuleCAProof   = "trusted-ca.proof"   // whoever uploaded it has not shown that it may use its key
	RuleCAClosed  = "trusted-ca.closed"  // suspended, retired, expired, or its quota is used
	RuleCAChain   = "trusted-ca.chain"   // the certificate's chain, usage or key is not what policy takes
	RuleCAMapping = "trusted-ca.mapping" // the certificate does not say what the mapping reads
	RuleCARevoked = "trusted-ca.revoked" // on the CA's revocation list
	RuleCAStale   = "trusted-ca.crl"     // a revocation list is demanded, and there is no fresh and readable one
	RuleCAShared  = "trusted-ca.shared"  // more than one tenant could be meant
	RuleTombstone = "enroll.tombstone"   // the device of this serial number or key was taken out of service for ever
)

// CAState is where a trusted CA stands.
type CAState string

// The states of a trusted CA. Devices that it brought stay as they are when it is suspended or retired.
const (
	CAUnproven  CAState = "unproven"
	CAActive    CAState = "active"
	CASuspended CAState = "suspended"
	CARetired   CAState = "retired"
)

// Bounds of trusted CAs.
const (
	maxBelow       = 3 // authorities between a trusted CA and a device
	maxCAs         = 100
	proofLife      = 7 * 24 * time.Hour
	maxCAPEM       = 64 << 10
	maxDevicesOfCA = 100_000_000
)

// Keys that a certificate of birth from another maker may have.
const keyRSA = "rsa" // of 2048 bits and more; the others are identity's algorithms

// CAPolicy is what the tenant decides about a trusted CA.
type CAPolicy struct {
	Mapping  Mapping   `json:"mapping"`
	Keys     []string  `json:"keys,omitempty" required:"false" maxItems:"4" enum:"ecdsa-p256,ecdsa-p384,ed25519,rsa" doc:"Keys that its devices may have; empty: ecdsa-p256 and ecdsa-p384"`
	Solution string    `json:"solution,omitempty" required:"false" doc:"Devices go straight into it; empty: they wait in the lobby"`
	Listed   bool      `json:"listed,omitempty" required:"false" doc:"Only preauthorised serial numbers"`
	Shared   bool      `json:"shared,omitempty" required:"false" doc:"It signs for other manufacturers too: only preauthorised serial numbers"`
	CRL      CRLPolicy `json:"crl,omitzero" required:"false"`
}

// CRLPolicy says whether a revocation list is demanded and where it comes from.
type CRLPolicy struct {
	Required bool   `json:"required,omitempty" required:"false" doc:"Without a fresh list nobody of this CA gets in"`
	URL      string `json:"url,omitempty" required:"false" maxLength:"1000" doc:"https, or http on loopback; fetched on a schedule. Empty: lists are uploaded"`
	MaxHours int64  `json:"max_hours,omitempty" required:"false" minimum:"0" maximum:"8784" doc:"A list older than this is stale even before its own end; 0: only its own end counts"`
}

// TrustedCA is a manufacturer's CA. Only the tenant's own devices are ever looked for among what it signed.
type TrustedCA struct {
	ID      string    `json:"id"`
	Tenant  string    `json:"-"`
	Name    string    `json:"name"`
	KeyHash string    `json:"key_hash" doc:"Hex SHA-256 of its subject public key info"`
	Subject string    `json:"subject"`
	State   CAState   `json:"state" enum:"unproven,active,suspended,retired"`
	Reason  string    `json:"reason,omitempty"`
	Policy  CAPolicy  `json:"policy"`
	Quota   int64     `json:"quota" doc:"How many devices it may bring"`
	Used    int64     `json:"used" doc:"How many it brought"`
	Refused int64     `json:"refused" doc:"How many proven devices were refused"`
	Expires time.Time `json:"expires,omitzero" doc:"It brings nobody new afterwards"`
	Ends    time.Time `json:"certificate_ends"`
	Proof   string    `json:"proof,omitempty" doc:"How its key was proven: certificate, request or host"`
	Code    string    `json:"code,omitempty" doc:"Put it into the common name of a certificate that this CA signs, and send that in"`
	Others  bool      `json:"others,omitempty" doc:"Another tenant trusts the same key, so only preauthorised serial numbers get in"`
	Actor   string    `json:"actor,omitempty"`
	Created time.Time `json:"created"`

	codeEnds time.Time
	cert     *x509.Certificate
	below    []*x509.Certificate
}

// open refuses a CA that may bring nobody new.
func (c TrustedCA) open(now time.Time) error {
	switch {
	case c.State != CAActive:
		return problem.Forbidden(RuleCAClosed, "The trusted CA is %s.", c.State)
	case !c.Expires.IsZero() && !now.Before(c.Expires):
		return problem.Forbidden(RuleCAClosed, "The trusted CA was trusted until %s.", c.Expires.Format(time.DateOnly))
	case c.Used >= c.Quota:
		return problem.Forbidden(RuleCAClosed, "The trusted CA has brought all the %d devices that it may.", c.Quota).Hint("If more are yours, let it bring more: openthings trusted-ca quota.")
	}
	return nil
}

// listed says that only preauthorised serial numbers get in.
func (c TrustedCA) listed() bool { return c.Policy.Listed || c.Policy.Shared || c.Others }

func (p CAPolicy) check() error {
	for _, k := range p.Keys {
		if !slices.Contains([]string{string(identity.AlgP256), string(identity.AlgP384), string(identity.AlgEd25519), keyRSA}, k) {
			return problem.Invalid("There is no kind of key %q.", k).At("keys")
		}
	}
	if p.CRL.URL != "" {
		if err := checkCRLURL(p.CRL.URL); err != nil {
			return err
		}
	}
	return p.Mapping.check()
}

func checkCRLURL(s string) error {
	u, err := url.Parse(s)
	loopback := err == nil && (u.Hostname() == "localhost" || u.Hostname() == "127.0.0.1" || u.Hostname() == "::1")
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && !(u.Scheme == "http" && loopback) {
		return problem.Invalid("A revocation list is fetched from an https address, or by http from this machine.").At("crl.url")
	}
	return nil
}

// readCAs reads what a tenant uploads: the CA, then authorities below it.
func readCAs(text string, now time.Time) (ca *x509.Certificate, below []*x509.Certificate, err error) {
	if len(text) > maxCAPEM {
		return nil, nil, problem.TooLarge("The certificates have at most %d bytes.", maxCAPEM).At("certificates")
	}
	var all []*x509.Certificate
	for rest := []byte(text); ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil || b.Type != "CERTIFICATE" {
			return nil, nil, problem.Invalid("One of the certificates cannot be read.").At("certificates").Because(err)
		}
		all = append(all, c)
	}
	if len(all) == 0 || len(all) > 1+maxBelow {
		return nil, nil, problem.Invalid("Upload the CA's certificate in PEM, and at most %d of authorities below it.", maxBelow).At("certificates")
	}
	for i, c := range all {
		switch why := identity.Weakness(c.PublicKey); {
		case !c.IsCA || !c.BasicConstraintsValid || c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
			return nil, nil, problem.Invalid("%s is not a CA certificate.", c.Subject).At("certificates")
		case !now.Before(c.NotAfter):
			return nil, nil, problem.Invalid("The certificate of %s has ended.", c.Subject).At("certificates")
		case why != "":
			return nil, nil, problem.Forbidden(identity.RuleWeakKey, "Others can compute the private key of %s: %s.", c.Subject, why).At("certificates")
		case i > 0 && !slices.ContainsFunc(all[:i], func(above *x509.Certificate) bool { return c.CheckSignatureFrom(above) == nil }):
			return nil, nil, problem.Invalid("%s is not signed by one of the certificates before it.", c.Subject).At("certificates").
				Hint("The trusted CA stands first, then what is below it.")
		}
	}
	return all[0], all[1:], nil
}

// provedBy says how the text proves that whoever sends it can use the CA's key: a certificate that the CA signed, or a
// request with the CA's own key, whose common name is the code.
func (c TrustedCA) provedBy(text string, now time.Time) (how string, err error) {
	no := func(why string) (string, error) {
		return "", problem.Forbidden(RuleCAProof, "This does not prove that you can use the key of %s: %s.", c.Name, why).At("proof").
			Hint("Sign a certificate with the common name %s by the CA, or make a request with its own key and that name.", c.Code)
	}
	if c.Code == "" || !now.Before(c.codeEnds) {
		return no("its code has ended; ask for a new one")
	}
	b, _ := pem.Decode([]byte(text))
	switch {
	case b == nil || len(text) > maxCAPEM:
		return no("it is no PEM")
	case b.Type == "CERTIFICATE":
		x, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return no("the certificate cannot be read")
		}
		if err := x.CheckSignatureFrom(c.cert); err != nil {
			return no("the CA has not signed the certificate")
		}
		if x.Subject.CommonName != c.Code {
			return no("the common name is not the code")
		}
		return "certificate", nil
	case strings.HasSuffix(b.Type, "CERTIFICATE REQUEST"):
		r, err := x509.ParseCertificateRequest(b.Bytes)
		if err != nil || r.CheckSignature() != nil || identity.KeyHash(r.RawSubjectPublicKeyInfo) != c.KeyHash {
			return no("the request is not signed by the CA's own key")
		}
		if r.Subject.CommonName != c.Code {
			return no("the common name is not the code")
		}
		return "request", nil
	}
	return no("it is neither a certificate nor a request")
}

func subjectHash(rawName []byte) string {
	h := sha256.Sum256(rawName)
	return hex.EncodeToString(h[:])
}
