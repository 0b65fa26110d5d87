// SPDX-License-Identifier: AGPL-3.0-only

package attest

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/wire"
)

// Object identifiers of TCG EK Credential Profile for TPM 2.0, 3.1 and 3.2.
var (
	oidSAN          = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidEKUsage      = asn1.ObjectIdentifier{2, 23, 133, 8, 1}
	oidManufacturer = asn1.ObjectIdentifier{2, 23, 133, 2, 1}
	oidModel        = asn1.ObjectIdentifier{2, 23, 133, 2, 2}
	oidVersion      = asn1.ObjectIdentifier{2, 23, 133, 2, 3}
)

// endorsement reads the endorsement certificate into the evidence and says why it does not prove a maker; empty if it does.
func (e *Evidence) endorsement(r wire.AttestRequest, makers []*x509.Certificate, now time.Time) (why string) {
	if len(r.Certificate) == 0 {
		return "The TPM carries no certificate of its maker."
	}
	c, err := x509.ParseCertificate(r.Certificate)
	if err != nil {
		return "The endorsement certificate cannot be read."
	}
	sum := sha256.Sum256(c.Raw)
	e.Certificate, e.Issuer = hex.EncodeToString(sum[:]), c.Issuer.String()
	if c.PublicKey == nil { // some old ones state a kind of key that Go does not know, so that it was not compared
		return "The kind of key in the endorsement certificate is not known."
	}
	if !slices.ContainsFunc(c.UnknownExtKeyUsage, oidEKUsage.Equal) {
		return "The certificate is not one of an endorsement key."
	}
	if !e.describe(c) {
		return "The endorsement certificate does not say which TPM it is about."
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, m := range makers {
		roots.AddCert(m)
	}
	for _, der := range r.Chain {
		if m, err := x509.ParseCertificate(der); err == nil { // one that cannot be read helps nobody
			between.AddCert(m)
		}
	}
	// The alternative name is critical and holds a directory name, which crypto/x509 does not handle; describe did.
	c.UnhandledCriticalExtensions = slices.DeleteFunc(c.UnhandledCriticalExtensions, oidSAN.Equal)
	if _, err := c.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return "The maker of the TPM is not trusted."
	}
	return ""
}

// describe reads manufacturer, model and version from the directory name in the certificate's alternative name.
func (e *Evidence) describe(c *x509.Certificate) bool {
	i := slices.IndexFunc(c.Extensions, func(x pkix.Extension) bool { return x.Id.Equal(oidSAN) })
	if i < 0 {
		return false
	}
	var names []asn1.RawValue
	if rest, err := asn1.Unmarshal(c.Extensions[i].Value, &names); err != nil || len(rest) != 0 {
		return false
	}
	for _, n := range names {
		const directoryName = 4
		if n.Class != asn1.ClassContextSpecific || n.Tag != directoryName {
			continue
		}
		var rdns pkix.RDNSequence
		if rest, err := asn1.Unmarshal(n.Bytes, &rdns); err != nil || len(rest) != 0 {
			return false
		}
		for _, rdn := range rdns {
			for _, a := range rdn {
				text, ok := a.Value.(string)
				if !ok || len(text) > 64 {
					continue
				}
				switch {
				case a.Type.Equal(oidManufacturer):
					e.Manufacturer = text
				case a.Type.Equal(oidModel):
					e.Model = text
				case a.Type.Equal(oidVersion):
					e.Version = text
				}
			}
		}
		return e.Manufacturer != ""
	}
	return false
}
