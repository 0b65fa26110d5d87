// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// maker is a manufacturer with a CA of its own.
type maker struct {
	t     testing.TB
	key   *ecdsa.PrivateKey
	cert  *x509.Certificate
	clock func() time.Time
}

func newMaker(h *house, name string) maker {
	m := maker{h.t, newKey(h.t), nil, h.clock.Now}
	m.cert = m.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}, &m.key.PublicKey)
	return m
}

// sign fills what c leaves open and signs it; the maker's own certificate by itself.
func (m maker) sign(c *x509.Certificate, key any) *x509.Certificate {
	m.t.Helper()
	if c.SerialNumber == nil {
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
		if err != nil {
			m.t.Fatal(err)
		}
		c.SerialNumber = n
	}
	if c.NotAfter.IsZero() {
		c.NotBefore, c.NotAfter = m.clock().Add(-time.Hour), m.clock().AddDate(20, 0, 0)
	}
	parent := m.cert
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key, m.key)
	if err != nil {
		m.t.Fatal(err)
	}
	x, err := x509.ParseCertificate(der)
	if err != nil {
		m.t.Fatal(err)
	}
	return x
}

// below is an authority that the maker signs.
func (m maker) below(name string) maker {
	b := maker{m.t, newKey(m.t), nil, m.clock}
	b.cert = m.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}, &b.key.PublicKey)
	return b
}

// born is a device with the maker's certificate of birth.
func (m maker) born(serial string, change ...func(*x509.Certificate)) credential {
	c := &x509.Certificate{Subject: pkix.Name{CommonName: "unit", SerialNumber: serial}, KeyUsage: x509.KeyUsageDigitalSignature}
	for _, f := range change {
		f(c)
	}
	key := newKey(m.t)
	x := m.sign(c, &key.PublicKey)
	return credential{key, &tls.Certificate{Certificate: [][]byte{x.Raw}, PrivateKey: key, Leaf: x}}
}

// crl lists the serial numbers.
func (m maker) crl(number int64, life time.Duration, serials ...*big.Int) []byte {
	m.t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: m.clock().Add(-time.Hour), NextUpdate: m.clock().Add(life)}
	for _, n := range serials {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: n, RevocationTime: m.clock()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, m.cert, m.key)
	if err != nil {
		m.t.Fatal(err)
	}
	return der
}

func certPEM(certs ...*x509.Certificate) string {
	var b bytes.Buffer
	for _, c := range certs {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return b.String()
}

// mapping reads the serial number from the subject.
func (h *house) mapping() enroll.Mapping {
	return enroll.Mapping{Serial: enroll.Source{Field: "subject.serialNumber"}, Revision: h.revision}
}

// trust uploads the maker's CA and proves its key.
func (h *house) trust(m maker, change func(*enroll.TrustedCA), below ...*x509.Certificate) enroll.TrustedCA {
	h.t.Helper()
	ca := enroll.TrustedCA{Tenant: ten, Name: m.cert.Subject.CommonName, Quota: 1000, Policy: enroll.CAPolicy{Mapping: h.mapping(), Solution: h.solution}}
	if change != nil {
		change(&ca)
	}
	ctx := context.Background()
	ca, err := h.enroll.AddTrustedCA(ctx, ca, certPEM(append([]*x509.Certificate{m.cert}, below...)...), owner.ID)
	h.must(err)
	proof := m.sign(&x509.Certificate{Subject: pkix.Name{CommonName: ca.Code}}, &newKey(h.t).PublicKey)
	ca, err = h.enroll.ProveTrustedCA(ctx, ca.Tenant, ca.ID, certPEM(proof), owner.ID)
	h.must(err)
	return ca
}

// est asks for a certificate over the key.
func (h *house) est(as *credential, operation string, csr []byte) (int, string) {
	h.t.Helper()
	return h.do(as, "POST", "/.well-known/est/"+operation, "application/pkcs10", base64.StdEncoding.EncodeToString(csr))
}

// enrolled makes an LDevID for the device.
func (h *house) enrolled(as *credential, operation string, key *ecdsa.PrivateKey, change func(*x509.CertificateRequest)) credential {
	h.t.Helper()
	code, body := h.est(as, operation, csrFor(h.t, key, change))
	if code != 200 {
		h.t.Fatalf("%s: %d %s", operation, code, body)
	}
	return credential{key, h.certificate(body, key)}
}

func (h *house) certificate(body string, key *ecdsa.PrivateKey) *tls.Certificate {
	h.t.Helper()
	der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(body), ""))
	h.must(err)
	i := bytes.Index(der, []byte{0x30, 0x82}) // the certificate is the last thing but the empty set of signers
	for i >= 0 {
		if x, err := x509.ParseCertificate(der[i : len(der)-2]); err == nil {
			return &tls.Certificate{Certificate: [][]byte{x.Raw}, PrivateKey: key, Leaf: x}
		}
		j := bytes.Index(der[i+1:], []byte{0x30, 0x82})
		if j < 0 {
			break
		}
		i += 1 + j
	}
	h.t.Fatalf("no certificate in %q", body)
	return nil
}

// from asks the device door from another loopback address, so from another network.
func (h *house) from(address string, as *credential, method, path, body string) (int, string) {
	h.t.Helper()
	conf := &tls.Config{RootCAs: h.roots, Certificates: []tls.Certificate{*as.cert}}
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	tr := &http.Transport{TLSClientConfig: conf, DialContext: d.DialContext}
	defer tr.CloseIdleConnections()
	r, err := http.NewRequest(method, strings.Replace(h.door, "localhost", "127.0.0.1", 1)+path, strings.NewReader(body))
	h.must(err)
	conf.ServerName = "localhost"
	resp, err := (&http.Client{Transport: tr}).Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	h.must(err)
	return resp.StatusCode, string(b)
}

// device is the tenant's device with the serial number.
func (h *house) device(serial string) identity.Device {
	h.t.Helper()
	rev, err := h.products.Revision(context.Background(), ten, h.revision)
	h.must(err)
	d, err := h.identity.BySerial(context.Background(), ten, rev.Product, serial)
	h.must(err)
	return d
}

func (h *house) absent(serial string) {
	h.t.Helper()
	rev, err := h.products.Revision(context.Background(), ten, h.revision)
	h.must(err)
	if d, err := h.identity.BySerial(context.Background(), ten, rev.Product, serial); !problem.Is(err, problem.KindNotFound) {
		h.t.Errorf("the device %s is %s (%v)", serial, d.State, err)
	}
}

// announce preauthorises serial numbers.
func (h *house) announce(serials ...string) {
	h.t.Helper()
	rev, err := h.products.Revision(context.Background(), ten, h.revision)
	h.must(err)
	_, err = h.enroll.Preauthorise(context.Background(), ten, rev.Product, "", strings.NewReader("serial\n"+strings.Join(serials, "\n")+"\n"), false, owner.ID)
	h.must(err)
}

// retired decommissions a device for ever.
func (h *house) retired(id string) {
	h.t.Helper()
	h.write(func(tx *store.Tx) error {
		if err := h.identity.SetState(tx, ten, id, identity.Decommissioned, owner.ID, "scrapped"); err != nil {
			return err
		}
		return h.identity.Revoke(tx, ten, id, owner.ID, "scrapped")
	})
}

func wantRule(t testing.TB, what string, err error, rule string) {
	t.Helper()
	if rule == "" && err != nil || rule != "" && (err == nil || problem.Of(err).Rule != rule) {
		t.Errorf("%s: %v, want the rule %s", what, err, rule)
	}
}

func name(format string, args ...any) string { return fmt.Sprintf(format, args...) }

// spoil damages the stored revocation lists of a trusted CA.
func (h *house) spoil(ca string) {
	h.write(func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE trusted_crl SET hash = $1, der = $2 WHERE ca = $3`, strings.Repeat("0", 64), []byte("x"), ca)
		return err
	})
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
