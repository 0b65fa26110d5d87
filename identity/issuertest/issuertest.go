// SPDX-License-Identifier: AGPL-3.0-only

// Package issuertest is what every identity.Issuer has to pass: one suite, run by each backend's own tests.
package issuertest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
)

// Backend is an issuer with an active authority of each issuing role.
type Backend struct {
	Issuer identity.Issuer
	// Down is an issuer of the same kind with nothing behind it; nil if its keys are in this process.
	Down identity.Issuer
	// Certify signs the request of a new authority as the one above it; nil: the issuer makes no authorities.
	Certify func(role identity.Role, csr []byte) ([]byte, error)
	// Algorithms are those that the issuer makes authorities of; nil: all but ML-DSA.
	Algorithms []identity.Algorithm
}

// Run tests the backend that open makes; each subtest opens its own.
func Run(t *testing.T, open func(t *testing.T) Backend) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, b Backend)
	}{
		{"Authorities", authorities}, {"Profiles", profiles}, {"CSRsAskInVain", csrsAskInVain}, {"Refuses", refuses}, {"RevokeTwice", revokeTwice},
		{"Away", away}, {"Cancelled", cancelled}, {"Rotation", rotation}, {"RevocationLists", revocationLists}, {"AtOnce", atOnce},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

// Request is a well-formed request for a certificate of the profile, over a new key.
func Request(t testing.TB, profile string) identity.SignRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return requestFor(t, profile, key, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "whoever"}})
}

func requestFor(t testing.TB, profile string, key crypto.Signer, csr *x509.CertificateRequest) identity.SignRequest {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, csr, key)
	must(t, err)
	serial := make([]byte, 16)
	rand.Read(serial)
	ski, err := identity.KeyID(key.Public())
	must(t, err)
	now := time.Now().UTC().Truncate(time.Second)
	c := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour), SubjectKeyId: ski,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}
	role := identity.Factory
	device := pkix.Name{Organization: []string{"ten_1a"}, CommonName: "dev_0123456789", SerialNumber: "SN 4711/A"}
	switch profile {
	case "idevid":
		c.Subject, c.NotAfter = device, identity.Forever
	case "ldevid":
		role = identity.Operational
		c.Subject, c.NotAfter, c.URIs = device, now.Add(60*24*time.Hour), []*url.URL{identity.DeviceURI("ten_1a", "dev_0123456789")}
	case "station":
		c.Subject = pkix.Name{Organization: []string{"ten_1a"}, CommonName: "sta_0123456789"}
		c.NotBefore, c.URIs = now.Add(-5*time.Minute), []*url.URL{identity.StationURI("ten_1a", "sta_0123456789")}
	case "server", "bootstrap":
		role = identity.Role(profile)
		c.Subject, c.ExtKeyUsage = pkix.Name{CommonName: "localhost"}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		c.DNSNames, c.IPAddresses = []string{"localhost", "things.example.com"}, []net.IP{net.IPv4(127, 0, 0, 1).To4(), net.IPv6loopback}
	case "ocsp": // for the operational authority; each other one has its own
		role = identity.Operational
		c.Subject, c.ExtKeyUsage = pkix.Name{CommonName: "OpenThings OCSP operational-1"}, []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
		c.NotAfter = now.Add(7 * 24 * time.Hour)
	default:
		t.Fatalf("no profile %q", profile)
	}
	return identity.SignRequest{Authority: identity.AuthorityID(role, 1), Profile: profile, Template: c, Key: key.Public(), CSR: der}
}

func sign(t testing.TB, is identity.Issuer, r identity.SignRequest) *x509.Certificate {
	t.Helper()
	der, err := is.Sign(t.Context(), r)
	must(t, err)
	c, err := x509.ParseCertificate(der)
	must(t, err)
	return c
}

// authority is the certificate of the one with the id.
func authority(t testing.TB, is identity.Issuer, id string) *x509.Certificate {
	t.Helper()
	all, err := is.Authorities(t.Context())
	must(t, err)
	for _, h := range all {
		if h.ID == id && h.Cert != nil {
			c, err := x509.ParseCertificate(h.Cert)
			must(t, err)
			return c
		}
	}
	t.Fatalf("there is no %s in %v", id, all)
	return nil
}

func authorities(t *testing.T, b Backend) {
	must(t, b.Issuer.Health(t.Context()))
	all, err := b.Issuer.Authorities(t.Context())
	must(t, err)
	for _, role := range identity.Roles {
		i := slices.IndexFunc(all, func(h identity.Held) bool { return h.ID == identity.AuthorityID(role, 1) })
		if i < 0 {
			t.Errorf("there is no %s authority", role)
			continue
		}
		h := all[i]
		if h.Role != role || h.Generation != 1 || h.Backend == "" || h.Protection == "" || h.Algorithm == "" {
			t.Errorf("%+v", h)
		}
		c := authority(t, b.Issuer, h.ID)
		if !c.IsCA || !c.MaxPathLenZero || identity.AlgorithmOf(c.PublicKey) != h.Algorithm {
			t.Errorf("%s: CA %v, path length %d, %s", h.ID, c.IsCA, c.MaxPathLen, h.Algorithm)
		}
	}
}

// Every profile is signed exactly as decided.
func profiles(t *testing.T, b Backend) {
	for _, p := range []string{"idevid", "ldevid", "station", "server", "bootstrap", "ocsp"} {
		t.Run(p, func(t *testing.T) {
			r := Request(t, p)
			Check(t, b.Issuer, r, sign(t, b.Issuer, r))
		})
	}
}

// Check compares a certificate with the request, and verifies it under its authority.
func Check(t testing.TB, is identity.Issuer, r identity.SignRequest, c *x509.Certificate) {
	t.Helper()
	want := r.Template
	subject, err := asn1.Marshal(want.Subject.ToRDNSequence())
	must(t, err)
	switch {
	case !bytes.Equal(c.RawSubject, subject):
		t.Errorf("subject %s, want %s", c.Subject, want.Subject)
	case !c.PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(r.Key):
		t.Error("another key")
	case c.SerialNumber.Sign() <= 0 || c.SerialNumber.BitLen() < 64:
		t.Errorf("serial number %x", c.SerialNumber)
	case !c.NotAfter.Equal(want.NotAfter):
		t.Errorf("until %s, want %s", c.NotAfter, want.NotAfter)
	case c.NotBefore.Sub(want.NotBefore).Abs() > time.Minute:
		t.Errorf("from %s, want about %s", c.NotBefore, want.NotBefore)
	case c.KeyUsage != want.KeyUsage || !slices.Equal(c.ExtKeyUsage, want.ExtKeyUsage) || len(c.UnknownExtKeyUsage) > 0:
		t.Errorf("for %v %v %v", c.KeyUsage, c.ExtKeyUsage, c.UnknownExtKeyUsage)
	case c.IsCA || !c.BasicConstraintsValid:
		t.Errorf("CA %v, basic constraints %v", c.IsCA, c.BasicConstraintsValid)
	case names(c) != names(want):
		t.Errorf("named %s, want %s", names(c), names(want))
	}
	above := authority(t, is, r.Authority)
	if len(c.SubjectKeyId) != 20 || !bytes.Equal(c.AuthorityKeyId, above.SubjectKeyId) {
		t.Errorf("key ids %x under %x", c.SubjectKeyId, c.AuthorityKeyId)
	}
	pool := x509.NewCertPool()
	pool.AddCert(above)
	if _, err := c.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: want.ExtKeyUsage}); err != nil {
		t.Error(err)
	}
}

// names are the alternative names, in an order of their own.
func names(c *x509.Certificate) string {
	var all []string
	for _, v := range c.DNSNames {
		all = append(all, "DNS:"+v)
	}
	for _, v := range c.IPAddresses {
		all = append(all, "IP:"+v.String())
	}
	for _, v := range c.URIs {
		all = append(all, "URI:"+v.String())
	}
	for _, v := range c.EmailAddresses {
		all = append(all, "email:"+v)
	}
	slices.Sort(all)
	return fmt.Sprint(all)
}

// What a CSR asks for is nobody's business: the certificate is as decided.
func csrsAskInVain(t *testing.T, b Backend) {
	ca, err := asn1.Marshal(struct{ CA bool }{true})
	must(t, err)
	anyUsage, err := asn1.Marshal([]asn1.ObjectIdentifier{{2, 5, 29, 37, 0}, {1, 3, 6, 1, 5, 5, 7, 3, 3}})
	must(t, err)
	greedy := &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "dev_other", Organization: []string{"ten_other"}, SerialNumber: "SN 4711/A"},
		DNSNames: []string{"evil.example.com"}, EmailAddresses: []string{"root@example.com"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)},
		URIs: []*url.URL{identity.DeviceURI("ten_other", "dev_other")},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: ca},
			{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: anyUsage}},
	}
	for _, p := range []string{"idevid", "ldevid"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(t, err)
		r := requestFor(t, p, key, greedy)
		Check(t, b.Issuer, r, sign(t, b.Issuer, r))
	}
}

// What no profile allows is refused here too, whoever asks.
func refuses(t *testing.T, b Backend) {
	for name, change := range map[string]func(*identity.SignRequest){
		"an authority":   func(r *identity.SignRequest) { r.Template.IsCA = true },
		"no constraints": func(r *identity.SignRequest) { r.Template.BasicConstraintsValid = false },
		"any usage":      func(r *identity.SignRequest) { r.Template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} },
		"a server":       func(r *identity.SignRequest) { r.Template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
		"one usage more": func(r *identity.SignRequest) {
			r.Template.ExtKeyUsage = append(r.Template.ExtKeyUsage, x509.ExtKeyUsageCodeSigning)
		},
		"signing certificates": func(r *identity.SignRequest) { r.Template.KeyUsage |= x509.KeyUsageCertSign },
		"no profile":           func(r *identity.SignRequest) { r.Profile = "root" },
		"another's profile":    func(r *identity.SignRequest) { r.Profile = "idevid" },
		"no authority":         func(r *identity.SignRequest) { r.Authority = "operational-99" },
		"longer than its signer": func(r *identity.SignRequest) {
			r.Template.NotAfter = time.Now().AddDate(40, 0, 0).UTC().Truncate(time.Second)
		},
	} {
		r := Request(t, "ldevid")
		change(&r)
		if der, err := b.Issuer.Sign(t.Context(), r); err == nil {
			t.Errorf("%s: it signed %x", name, der)
		}
	}
}

func revokeTwice(t *testing.T, b Backend) {
	r := Request(t, "ldevid")
	c := sign(t, b.Issuer, r)
	for range 2 {
		must(t, b.Issuer.Revoke(t.Context(), r.Authority, c.SerialNumber, time.Now()))
	}
	must(t, b.Issuer.Revoke(t.Context(), r.Authority, big.NewInt(0).Lsh(big.NewInt(77), 90), time.Now())) // that it never signed
}

// An issuer that is away is a temporary fault, never another one.
func away(t *testing.T, b Backend) {
	if b.Down == nil {
		t.Skip("its keys are in this process")
	}
	r := Request(t, "ldevid")
	_, signed := b.Down.Sign(t.Context(), r)
	_, listed := b.Down.Authorities(t.Context())
	for what, err := range map[string]error{"health": b.Down.Health(t.Context()), "sign": signed, "list": listed,
		"revoke": b.Down.Revoke(t.Context(), r.Authority, big.NewInt(1), time.Now())} {
		if !problem.Is(err, problem.KindUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Who has gone is not served, and not kept.
func cancelled(t *testing.T, b Backend) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Issuer.Sign(ctx, Request(t, "ldevid")); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A new authority: its key, its request, its certificate from above, its first signature.
func rotation(t *testing.T, b Backend) {
	is, ok := b.Issuer.(identity.Rotator)
	if !ok || b.Certify == nil {
		t.Skip("it makes no authorities")
	}
	algorithms := b.Algorithms
	if algorithms == nil {
		algorithms = []identity.Algorithm{identity.AlgP256, identity.AlgP384, identity.AlgEd25519}
	}
	ctx := t.Context()
	for i, alg := range algorithms {
		id := identity.AuthorityID(identity.Operational, int64(i+2))
		name := pkix.Name{Organization: []string{"Test"}, OrganizationalUnit: []string{id}, CommonName: "Operational CA"}
		first, err := is.Generate(ctx, id, identity.Operational, alg, name)
		must(t, err)
		again, err := is.Generate(ctx, id, identity.Operational, alg, name)
		must(t, err)
		a, err := x509.ParseCertificateRequest(first)
		must(t, err)
		must(t, a.CheckSignature())
		z, err := x509.ParseCertificateRequest(again)
		must(t, err)
		if !bytes.Equal(a.RawSubjectPublicKeyInfo, z.RawSubjectPublicKeyInfo) {
			t.Fatalf("%s: a repeat made another key", alg)
		}
		if a.Subject.String() != name.String() || identity.AlgorithmOf(a.PublicKey) != alg {
			t.Fatalf("%s: the request is %s, %s", alg, a.Subject, identity.AlgorithmOf(a.PublicKey))
		}
		r := Request(t, "ldevid")
		r.Authority = id
		if _, err := b.Issuer.Sign(ctx, r); err == nil {
			t.Fatalf("%s: it signs before it has a certificate", alg)
		}
		foreign, err := b.Certify(identity.Operational, otherRequest(t, name))
		must(t, err)
		if err := is.Install(ctx, id, foreign); err == nil {
			t.Fatalf("%s: it took a certificate over another key", alg)
		}
		der, err := b.Certify(identity.Operational, first)
		must(t, err)
		for range 2 {
			must(t, is.Install(ctx, id, der))
		}
		Check(t, b.Issuer, r, sign(t, b.Issuer, r))
		r = Request(t, "ldevid") // the one before goes on
		Check(t, b.Issuer, r, sign(t, b.Issuer, r))
	}
	if _, err := is.Generate(ctx, "operational-98", identity.Operational, identity.AlgMLDSA65, pkix.Name{CommonName: "x"}); err == nil {
		t.Error("it makes a key for an algorithm that crypto/x509 does not speak")
	}
	if _, err := is.Generate(ctx, "factory-98", identity.Operational, identity.AlgP256, pkix.Name{CommonName: "x"}); err == nil {
		t.Error("it makes an authority whose name says another role")
	}
}

func otherRequest(t *testing.T, name pkix.Name) []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: name}, key)
	must(t, err)
	return der
}

func revocationLists(t *testing.T, b Backend) {
	is, ok := b.Issuer.(identity.CRLSigner)
	if !ok {
		t.Skip("it signs no revocation lists")
	}
	now := time.Now().UTC().Truncate(time.Second)
	idp := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 0x03, 0x81, 0x01, 0xff}} // onlyContainsUserCerts
	base, err := asn1.Marshal(big.NewInt(41))
	must(t, err)
	delta := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: base}
	for name, more := range map[string][]pkix.Extension{"full": {idp}, "delta": {idp, delta}} {
		list := &x509.RevocationList{Number: big.NewInt(42), ThisUpdate: now, NextUpdate: now.Add(36 * time.Hour), ExtraExtensions: more}
		for i := range 3 {
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{
				SerialNumber: new(big.Int).Lsh(big.NewInt(int64(i+1)), 100), RevocationTime: now.Add(-time.Hour), ReasonCode: i})
		}
		der, err := is.SignCRL(t.Context(), "operational-1", list)
		must(t, err)
		got, err := x509.ParseRevocationList(der)
		must(t, err)
		must(t, got.CheckSignatureFrom(authority(t, b.Issuer, "operational-1")))
		if got.Number.Cmp(list.Number) != 0 || got.NextUpdate.Sub(got.ThisUpdate) != 36*time.Hour || got.ThisUpdate.Sub(now).Abs() > time.Minute {
			t.Errorf("%s: number %s from %s to %s", name, got.Number, got.ThisUpdate, got.NextUpdate)
		}
		for i, e := range got.RevokedCertificateEntries {
			want := list.RevokedCertificateEntries[i]
			if e.SerialNumber.Cmp(want.SerialNumber) != 0 || !e.RevocationTime.Equal(want.RevocationTime) || e.ReasonCode != want.ReasonCode {
				t.Errorf("%s: entry %d is %+v", name, i, e)
			}
		}
		for _, x := range more {
			if !slices.ContainsFunc(got.Extensions, func(e pkix.Extension) bool {
				return e.Id.Equal(x.Id) && e.Critical == x.Critical && bytes.Equal(e.Value, x.Value)
			}) {
				t.Errorf("%s: the extension %s is not there", name, x.Id)
			}
		}
	}
}

// Many at once get what each asked for.
func atOnce(t *testing.T, b Backend) {
	const n = 16
	requests, certs := make([]identity.SignRequest, n), make([]*x509.Certificate, n)
	for i := range requests {
		requests[i] = Request(t, "ldevid")
		requests[i].Template.Subject.CommonName = fmt.Sprintf("dev_%d", i)
	}
	var wg sync.WaitGroup
	for i, r := range requests {
		wg.Go(func() {
			der, err := b.Issuer.Sign(t.Context(), r)
			if err == nil {
				certs[i], err = x509.ParseCertificate(der)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	seen := map[string]bool{}
	for i, c := range certs {
		Check(t, b.Issuer, requests[i], c)
		if seen[c.SerialNumber.String()] {
			t.Errorf("serial number %x twice", c.SerialNumber)
		}
		seen[c.SerialNumber.String()] = true
	}
}
