// SPDX-License-Identifier: AGPL-3.0-only

package issuertest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/identity"
)

// Root is an offline root and anchor at once, for issuers that hold what stands below them.
type Root struct {
	Cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewRoot makes one.
func NewRoot(t testing.TB) Root {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	now := time.Now()
	c, err := identity.AuthorityTemplate(identity.Root, pkix.Name{CommonName: "Test Root"}, key.Public(), now.Add(-time.Hour), now.Add(30*365*24*time.Hour))
	must(t, err)
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return Root{cert, key}
}

// Certify signs the request of an authority.
func (r Root) Certify(role identity.Role, csr []byte) ([]byte, error) {
	req, err := x509.ParseCertificateRequest(csr)
	if err == nil {
		err = req.CheckSignature()
	}
	if err != nil {
		return nil, err
	}
	now := time.Now()
	c, err := identity.AuthorityTemplate(role, req.Subject, req.PublicKey, now.Add(-time.Hour), now.Add(10*365*24*time.Hour))
	if err != nil {
		return nil, err
	}
	return x509.CreateCertificate(rand.Reader, c, r.Cert, req.PublicKey, r.key)
}

// Found makes the first authority of each issuing role in an issuer that makes keys.
func (r Root) Found(t testing.TB, is identity.Rotator) {
	t.Helper()
	for _, role := range identity.Roles {
		id := identity.AuthorityID(role, 1)
		csr, err := is.Generate(context.Background(), id, role, identity.AlgP256, pkix.Name{Organization: []string{"Test"}, CommonName: id})
		must(t, err)
		der, err := r.Certify(role, csr)
		must(t, err)
		must(t, is.Install(context.Background(), id, der))
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
