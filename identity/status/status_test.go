// SPDX-License-Identifier: AGPL-3.0-only

package status

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// ca is an authority with two certificates and a delegated responder.
type ca struct {
	dir       string
	cert      *x509.Certificate
	key       *ecdsa.PrivateKey
	leaves    [2]*x509.Certificate
	responder *x509.Certificate
	answering *ecdsa.PrivateKey
}

func newCA(t testing.TB, point string) *ca {
	t.Helper()
	c := &ca{dir: t.TempDir()}
	newKey := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	serial := int64(1000)
	sign := func(file string, x, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
		serial++
		x.SerialNumber, x.NotBefore, x.NotAfter = big.NewInt(serial), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		if parent == nil {
			parent = x
		}
		der, err := x509.CreateCertificate(rand.Reader, x, parent, key.Public(), c.key)
		if err != nil {
			t.Fatal(err)
		}
		out, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		c.write(t, file, "CERTIFICATE", der)
		return out
	}
	c.key = newKey()
	c.cert = sign("ca.pem", &x509.Certificate{Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true, SubjectKeyId: []byte{1, 2, 3},
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}, nil, c.key)
	for i, name := range []string{"a", "b"} {
		c.leaves[i] = sign(name+".pem", &x509.Certificate{Subject: pkix.Name{CommonName: name}, CRLDistributionPoints: []string{point}}, c.cert, newKey())
	}
	c.answering = newKey()
	c.responder = sign("responder.pem", &x509.Certificate{Subject: pkix.Name{CommonName: "OCSP"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}, ExtraExtensions: []pkix.Extension{NoCheck()}}, c.cert, c.answering)
	return c
}

func (c *ca) write(t testing.TB, file, kind string, der []byte) {
	t.Helper()
	b := der
	if kind != "" {
		b = pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	if err := os.WriteFile(filepath.Join(c.dir, file), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// openssl runs it in the folder of c and returns everything it said.
func (c *ca) openssl(args ...string) (string, error) {
	cmd := exec.Command("openssl", args...)
	cmd.Dir = c.dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestOCSPWithOpenSSL: a request of openssl for three certificates with a nonce, and openssl's opinion of the answer.
func TestOCSPWithOpenSSL(t *testing.T) {
	c := newCA(t, "https://things.example/crl")
	if out, err := c.openssl("ocsp", "-issuer", "ca.pem", "-cert", "a.pem", "-sha256", "-cert", "b.pem", "-serial", "77", "-reqout", "req.der", "-nonce"); err != nil {
		t.Fatal(out, err)
	}
	der, err := os.ReadFile(filepath.Join(c.dir, "req.der"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParseRequest(der)
	if err != nil || len(r.IDs) != 3 || r.Nonce == nil {
		t.Fatalf("%+v %v", r, err)
	}
	now := time.Now().Truncate(time.Second)
	for i, id := range r.IDs {
		want, err := IssuerOf(id.Hash, c.cert)
		if err != nil || id.Issuer() != want {
			t.Errorf("%d: not our issuer (hash %v, %v)", i, id.Hash, err)
		}
	}
	a := Answer{Request: r, Produced: now, Until: now.Add(10 * time.Minute), Standings: []Standing{
		{State: Good}, {State: Revoked, At: now.Add(-time.Minute), Reason: KeyCompromise}, {}}}
	answer, err := a.Sign(c.responder, c.answering)
	if err != nil {
		t.Fatal(err)
	}
	c.write(t, "resp.der", "", answer)
	// Given the request, openssl compares the nonces too; -no_nonce keeps it from adding a second one.
	out, err := c.openssl("ocsp", "-issuer", "ca.pem", "-cert", "a.pem", "-sha256", "-cert", "b.pem", "-serial", "77", "-no_nonce", "-reqin", "req.der", "-respin", "resp.der", "-CAfile", "ca.pem")
	if err != nil {
		t.Fatal(out, err)
	}
	for _, want := range []string{"Response verify OK", "a.pem: good", "b.pem: revoked", "Reason: keyCompromise", "77: unknown"} {
		if !strings.Contains(out, want) {
			t.Errorf("openssl does not say %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "WARNING") {
		t.Error(out)
	}
	// An answer that somebody touched is refused.
	answer[len(answer)/3] ^= 1
	c.write(t, "resp.der", "", answer)
	if out, err := c.openssl("ocsp", "-issuer", "ca.pem", "-cert", "a.pem", "-respin", "resp.der", "-CAfile", "ca.pem"); err == nil && strings.Contains(out, "verify OK") {
		t.Errorf("openssl accepts a forged answer:\n%s", out)
	}
}

// TestOCSPWithGo: x/crypto's client understands each state.
func TestOCSPWithGo(t *testing.T) {
	c := newCA(t, "https://things.example/crl")
	now := time.Now().Truncate(time.Second).UTC()
	for _, want := range []Standing{{State: Good}, {}, {State: Revoked, At: now.Add(-time.Hour), Reason: CertificateHold}} {
		der, err := ocsp.CreateRequest(c.leaves[0], c.cert, &ocsp.RequestOptions{Hash: crypto.SHA384})
		if err != nil {
			t.Fatal(err)
		}
		r, err := ParseRequest(der)
		if err != nil || r.Nonce != nil || r.IDs[0].Serial.Cmp(c.leaves[0].SerialNumber) != 0 {
			t.Fatalf("%+v %v", r, err)
		}
		answer, err := Answer{Request: r, Standings: []Standing{want}, Produced: now, Until: now.Add(time.Minute)}.Sign(c.responder, c.answering)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ocsp.ParseResponseForCert(answer, c.leaves[0], c.cert)
		if err != nil {
			t.Fatal(err)
		}
		state := map[State]int{Good: ocsp.Good, Revoked: ocsp.Revoked, Unknown: ocsp.Unknown}[want.State]
		if got.Status != state || got.RevocationReason != int(want.Reason) || want.State == Revoked && !got.RevokedAt.Equal(want.At) || !got.ThisUpdate.Equal(now) || !got.NextUpdate.Equal(now.Add(time.Minute)) {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	for _, b := range [][]byte{Malformed, InternalError, TryLater, Unauthorized} {
		if _, err := ocsp.ParseResponse(b, c.cert); err == nil {
			t.Errorf("%x is an answer", b)
		} else if _, ok := err.(ocsp.ResponseError); !ok {
			t.Errorf("%x: %v", b, err)
		}
	}
}

// TestListWithOpenSSL: openssl checks certificates against a shard and its delta, and refuses a shard of other
// certificates.
func TestListWithOpenSSL(t *testing.T) {
	const url = "https://things.example/crl/operational-1/7.crl"
	c := newCA(t, url)
	now := time.Now().UTC().Truncate(time.Second)
	make := func(file string, tmpl *x509.RevocationList, err error) *x509.RevocationList {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.CreateRevocationList(rand.Reader, tmpl, c.cert, c.key)
		if err != nil {
			t.Fatal(err)
		}
		c.write(t, file, "X509 CRL", der)
		l, err := x509.ParseRevocationList(der)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	list := List{URL: url, DeltaURL: url + ".delta", Number: 4, Updated: now.Add(-time.Hour), Until: now.Add(time.Hour),
		Revoked: []Entry{{Serial: big.NewInt(99), At: now.Add(-2 * time.Hour), Reason: CertificateHold}}}
	tmpl, err := list.Complete()
	base := make("base.pem", tmpl, err)
	list.Number, list.Updated = 5, now
	list.Revoked = []Entry{{Serial: c.leaves[1].SerialNumber, At: now, Reason: KeyCompromise}}
	tmpl, err = list.Complete()
	make("full.pem", tmpl, err)
	tmpl, err = list.Delta(base)
	delta := make("delta.pem", tmpl, err)
	if p, b, err := Point(delta); err != nil || p != url || b.Int64() != 4 || len(delta.RevokedCertificateEntries) != 2 || delta.RevokedCertificateEntries[0].ReasonCode != int(RemoveFromCRL) {
		t.Errorf("the delta is about %s since %v with %+v (%v)", p, b, delta.RevokedCertificateEntries, err)
	}
	other := list
	other.URL = "https://things.example/crl/operational-1/8.crl"
	tmpl, err = other.Complete()
	make("other.pem", tmpl, err)

	check := func(leaf string, crls ...string) error {
		args := []string{"verify", "-CAfile", "ca.pem", "-crl_check", "-extended_crl"}
		for _, f := range crls {
			args = append(args, "-CRLfile", f)
		}
		if len(crls) == 2 {
			args = append(args, "-use_deltas")
		}
		out, err := c.openssl(append(args, leaf)...)
		if err != nil {
			t.Logf("%s with %s: %s", leaf, crls, out)
		}
		return err
	}
	if check("a.pem", "full.pem") != nil || check("b.pem", "full.pem") == nil {
		t.Error("the complete list")
	}
	if check("a.pem", "base.pem", "delta.pem") != nil || check("b.pem", "base.pem") != nil || check("b.pem", "base.pem", "delta.pem") == nil {
		t.Error("the base with its delta")
	}
	if check("a.pem", "other.pem") == nil {
		t.Error("openssl takes the list of another shard")
	}
	if out, err := c.openssl("crl", "-in", "full.pem", "-noout", "-text", "-CAfile", "ca.pem"); err != nil || !strings.Contains(out, "verify OK") || !strings.Contains(out, url+".delta") {
		t.Errorf("%s %v", out, err)
	}
	if _, err := list.Delta(&x509.RevocationList{Number: big.NewInt(6)}); err == nil {
		t.Error("a delta against a later list")
	}
}

// TestShardSize: a shard whose certificates are all revoked stays small, with the longest serial numbers there are.
func TestShardSize(t *testing.T) {
	c := newCA(t, "")
	l := List{URL: "https://things.example:8443/crl/operational-1/500.crl", DeltaURL: "https://things.example:8443/crl/operational-1/500.delta.crl", Number: 1 << 40, Updated: time.Now(), Until: time.Now()}
	for range PerShard {
		b := make([]byte, 16)
		rand.Read(b)
		b[0] |= 0x80 // one byte more
		l.Revoked = append(l.Revoked, Entry{Serial: new(big.Int).SetBytes(b), At: time.Now(), Reason: KeyCompromise})
	}
	tmpl, err := l.Complete()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateRevocationList(rand.Reader, tmpl, c.cert, c.key)
	if err != nil || len(der) > 101_000 {
		t.Errorf("%d bytes (%v)", len(der), err)
	}
}

func FuzzParseRequest(f *testing.F) {
	c := newCA(f, "")
	one, err := ocsp.CreateRequest(c.leaves[0], c.cert, nil)
	if err != nil {
		f.Fatal(err)
	}
	if out, err := c.openssl("ocsp", "-issuer", "ca.pem", "-cert", "a.pem", "-cert", "b.pem", "-reqout", "req.der", "-nonce"); err != nil {
		f.Fatal(out, err)
	}
	two, err := os.ReadFile(filepath.Join(c.dir, "req.der"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(one)
	f.Add(two)
	f.Add([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, der []byte) {
		r, err := ParseRequest(der)
		if err != nil {
			return
		}
		if len(r.IDs) == 0 || len(r.IDs) > MaxItems || len(r.Nonce) > maxNonce+4 {
			t.Fatalf("%d certificates, a nonce of %d bytes", len(r.IDs), len(r.Nonce))
		}
		answer, err := Answer{Request: r, Standings: make([]Standing, len(r.IDs)), Produced: time.Unix(0, 0), Until: time.Unix(1, 0)}.Sign(c.responder, c.answering)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range r.IDs { // whatever was asked is answered under its name
			if !bytes.Contains(answer, id.Raw) {
				t.Fatal("the answer does not name what was asked")
			}
		}
	})
}
