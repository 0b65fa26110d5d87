// SPDX-License-Identifier: AGPL-3.0-only

package identity_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"net"
	"net/url"
	"testing"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
)

func csrDER(t testing.TB, key crypto.Signer, change func(*x509.CertificateRequest)) []byte {
	t.Helper()
	r := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "x"}}
	if change != nil {
		change(r)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, r, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func extension(t testing.TB, id asn1.ObjectIdentifier, v any) func(*x509.CertificateRequest) {
	b, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return func(r *x509.CertificateRequest) { r.ExtraExtensions = []pkix.Extension{{Id: id, Value: b}} }
}

func spki(t testing.TB, key crypto.Signer) []byte {
	b, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func p256(t testing.TB) crypto.Signer { return ec(t, elliptic.P256()) }

func ec(t testing.TB, c elliptic.Curve) crypto.Signer {
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestParseCSR(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0")
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	broken := csrDER(t, p256(t), nil)
	broken[len(broken)-5] ^= 1
	mine, theirs := p256(t), p256(t)
	swapped := bytes.Replace(csrDER(t, mine, nil), spki(t, mine), spki(t, theirs), 1)
	basic, usage := asn1.ObjectIdentifier{2, 5, 29, 19}, asn1.ObjectIdentifier{2, 5, 29, 37}
	type ca struct{ IsCA bool }
	for _, c := range []struct {
		name string
		der  []byte
		kind problem.Kind
		rule string
	}{
		{"good", csrDER(t, p256(t), nil), "", ""},
		{"not an authority, said so", csrDER(t, p256(t), extension(t, basic, struct{}{})), "", ""},
		{"client", csrDER(t, p256(t), extension(t, usage, []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 2}})), "", ""},
		{"CA:true", csrDER(t, p256(t), extension(t, basic, ca{true})), problem.KindForbidden, "identity.csr-ca"},
		{"any usage", csrDER(t, p256(t), extension(t, usage, []asn1.ObjectIdentifier{{2, 5, 29, 37, 0}})), problem.KindForbidden, "identity.csr-usage"},
		{"server", csrDER(t, p256(t), extension(t, usage, []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 1}})), problem.KindForbidden, "identity.csr-usage"},
		{"RSA-1024", csrDER(t, weak, nil), problem.KindForbidden, "identity.key"},
		{"P-384", csrDER(t, ec(t, elliptic.P384()), nil), problem.KindForbidden, "identity.key"},
		{"signature broken", broken, problem.KindInvalid, identity.RuleCSRSignature},
		{"another's key", swapped, problem.KindInvalid, identity.RuleCSRSignature},
		{"empty", nil, problem.KindInvalid, identity.RuleCSREncoding},
		{"noise", []byte("hello"), problem.KindInvalid, identity.RuleCSREncoding},
		{"trailing bytes", append(csrDER(t, p256(t), nil), 0), problem.KindInvalid, identity.RuleCSREncoding},
		{"1 MB", make([]byte, 1<<20), problem.KindTooLarge, identity.RuleCSRSize},
	} {
		_, err := identity.ParseCSR(c.der)
		if c.kind == "" && err != nil || c.kind != "" && (!problem.Is(err, c.kind) || problem.Of(err).Rule != c.rule) {
			t.Errorf("%s: %v, want %s %s", c.name, err, c.kind, c.rule)
		}
	}
}

func TestOnlyFor(t *testing.T) {
	mine := identity.DeviceURI("t", "d")
	for _, c := range []struct {
		name   string
		change func(*x509.CertificateRequest)
		ok     bool
	}{
		{"no name", nil, true},
		{"mine", func(r *x509.CertificateRequest) { r.URIs = []*url.URL{mine} }, true},
		{"another's", func(r *x509.CertificateRequest) { r.URIs = []*url.URL{identity.DeviceURI("t", "e")} }, false},
		{"both", func(r *x509.CertificateRequest) { r.URIs = []*url.URL{mine, identity.DeviceURI("t", "e")} }, false},
		{"host", func(r *x509.CertificateRequest) { r.DNSNames = []string{"example.com"} }, false},
		{"address", func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{net.IPv4(1, 2, 3, 4)} }, false},
		{"mail", func(r *x509.CertificateRequest) { r.EmailAddresses = []string{"a@b"} }, false},
	} {
		if err := newCSR(t, c.change).OnlyFor(mine.String()); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestParseCSRPEM(t *testing.T) {
	der := csrDER(t, p256(t), nil)
	for typ, ok := range map[string]bool{"CERTIFICATE REQUEST": true, "NEW CERTIFICATE REQUEST": true, "CERTIFICATE": false} {
		if _, err := identity.ParseCSRPEM(string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}))); (err == nil) != ok {
			t.Errorf("%s: %v", typ, err)
		}
	}
	if _, err := identity.ParseCSRPEM("hello"); !problem.Is(err, problem.KindInvalid) {
		t.Error(err)
	}
}

func FuzzParseCSR(f *testing.F) {
	f.Add(csrDER(f, p256(f), nil))
	f.Add(csrDER(f, p256(f), func(r *x509.CertificateRequest) { r.DNSNames = []string{"a"} }))
	f.Add(csrDER(f, ec(f, elliptic.P384()), nil))
	f.Add(csrDER(f, p256(f), func(r *x509.CertificateRequest) { r.URIs = []*url.URL{identity.DeviceURI("t", "d")} }))
	f.Add(csrDER(f, p256(f), extension(f, asn1.ObjectIdentifier{2, 5, 29, 15}, asn1.BitString{Bytes: []byte{0x80}, BitLength: 1})))
	f.Add([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0x30, 0x80, 0, 0})
	f.Add(bytes.Repeat([]byte{0x30, 0x7e}, 60))
	f.Fuzz(func(t *testing.T, der []byte) {
		c, err := identity.ParseCSR(der)
		if err == nil && (len(der) > identity.MaxCSR || len(c.KeyHash) != 64 || c.CheckSignature() != nil) {
			t.Errorf("accepted %x", der)
		}
		if err != nil && (problem.Is(err, problem.KindInternal) || problem.Of(err).Rule == "") {
			t.Errorf("%x: %v", der, err)
		}
		if err == nil { // what reads names must take whatever was accepted
			_ = c.OnlyFor("urn:x")
			_ = c.Names(identity.Device{ID: "dev_1", Tenant: "ten_1", Serial: "1"})
			_ = c.Keeps(&x509.Certificate{RawSubject: c.RawSubject})
		}
	})
}
