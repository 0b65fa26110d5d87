// SPDX-License-Identifier: AGPL-3.0-only

package ceremony

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
)

var t0 = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func made(t testing.TB, generation int64, alg identity.Algorithm) Recovery {
	t.Helper()
	r, err := Make(Options{Organization: "Test", Generation: generation, Algorithm: alg, Now: t0})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func request(t testing.TB, key crypto.Signer, change func(*x509.CertificateRequest)) []byte {
	t.Helper()
	r := &x509.CertificateRequest{Subject: identity.AuthorityName("Test", identity.Operational, 2)}
	if change != nil {
		change(r)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, r, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func p256(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// What a ceremony makes opens with the identity only, whole or not at all, and holds no key in the clear.
func TestRecoveryFile(t *testing.T) {
	for _, alg := range []identity.Algorithm{identity.AlgP256, identity.AlgP384, identity.AlgEd25519} {
		r := made(t, 1, alg)
		for _, h := range r.Held {
			if identity.AlgorithmOf(h.Cert.PublicKey) != alg || h.Cert.CheckSignatureFrom(h.Cert) != nil || !h.Cert.IsCA || h.Cert.NotAfter.Sub(t0) < RootLife-24*time.Hour {
				t.Errorf("%s: %+v", h.ID, h.Cert.Subject)
			}
		}
		safe, err := age.GenerateHybridIdentity()
		if err != nil {
			t.Fatal(err)
		}
		second, err := age.GenerateHybridIdentity()
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := r.Seal([]age.Recipient{safe.Recipient(), second.Recipient()})
		if err != nil {
			t.Fatal(err)
		}
		if err := Check(sealed); err != nil {
			t.Error(err)
		}
		for _, id := range []string{safe.String(), second.String()} {
			back, err := Open(sealed, strings.NewReader(id))
			if err != nil || len(back.Held) != 2 || !back.Held[0].Cert.Equal(r.Held[0].Cert) || !equal(back.Held[1].Key.Public(), r.Held[1].Key.Public()) {
				t.Fatalf("%+v, %v", back, err)
			}
		}
		stranger, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(sealed, strings.NewReader(stranger.String())); problem.Of(err) == nil || problem.Of(err).Rule != "ca.identity" {
			t.Errorf("a stranger: %v", err)
		}
		if _, err := Open(sealed, strings.NewReader("no identity")); !problem.Is(err, problem.KindInvalid) {
			t.Error(err)
		}
		for _, cut := range []int{0, 100, len(sealed) - 100, len(sealed) - 1} {
			if err := Check(sealed[:cut]); cut < len(sealed)-1 && err == nil {
				t.Errorf("%d of %d bytes are taken for a whole file", cut, len(sealed))
			}
		}
		for _, h := range r.Held {
			key, err := x509.MarshalPKCS8PrivateKey(h.Key)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(sealed, key) {
				t.Error("a key lies in the file in the clear")
			}
		}
	}
}

// A file whose keys do not belong to its certificates is damaged, whoever encrypted it.
func TestRecoveryIsChecked(t *testing.T) {
	r := made(t, 1, identity.AlgP256)
	good := recoveryFile{Format: recoveryFormat}
	for _, h := range r.Held {
		key, err := x509.MarshalPKCS8PrivateKey(h.Key)
		if err != nil {
			t.Fatal(err)
		}
		good.Keys = append(good.Keys, recoveryKey{h.ID, h.Role, h.Cert.Raw, key})
	}
	for what, change := range map[string]func(*recoveryFile){
		"another format":    func(f *recoveryFile) { f.Format = "x" },
		"no keys":           func(f *recoveryFile) { f.Keys = nil },
		"swapped keys":      func(f *recoveryFile) { f.Keys[0].Key, f.Keys[1].Key = f.Keys[1].Key, f.Keys[0].Key },
		"no certificate":    func(f *recoveryFile) { f.Keys[0].Certificate = nil },
		"a role of another": func(f *recoveryFile) { f.Keys[0].Role = identity.Anchor },
		"an issuing role":   func(f *recoveryFile) { f.Keys[0].Role, f.Keys[0].ID = identity.Server, "server-1" },
	} {
		f := good
		f.Keys = slices.Clone(good.Keys)
		for i := range f.Keys {
			f.Keys[i].Key = bytes.Clone(f.Keys[i].Key)
		}
		change(&f)
		plain, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parse(plain); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A ceremony signs issuing authorities and nothing else, however the request is dressed.
func TestRequestsAreChecked(t *testing.T) {
	good := request(t, p256(t), nil)
	if r, err := ParseRequest(good); err != nil || r.ID != "operational-2" || r.Role != identity.Operational {
		t.Fatalf("%+v, %v", r, err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	for what, der := range map[string][]byte{
		"RSA":               request(t, weak, nil),
		"another curve":     request(t, p521, nil),
		"not signed":        forged,
		"a root":            request(t, p256(t), func(r *x509.CertificateRequest) { r.Subject = identity.AuthorityName("Test", identity.Root, 2) }),
		"no unit":           request(t, p256(t), func(r *x509.CertificateRequest) { r.Subject.OrganizationalUnit = nil }),
		"two units":         request(t, p256(t), func(r *x509.CertificateRequest) { r.Subject.OrganizationalUnit = []string{"server-2", "operational-2"} }),
		"another name":      request(t, p256(t), func(r *x509.CertificateRequest) { r.Subject.CommonName = "Some Bank CA" }),
		"generation 0":      request(t, p256(t), func(r *x509.CertificateRequest) { r.Subject.OrganizationalUnit = []string{"operational-0"} }),
		"an extension":      request(t, p256(t), func(r *x509.CertificateRequest) { r.DNSNames = []string{"example.com"} }),
		"a megabyte":        bytes.Repeat([]byte{0x30}, 1<<20),
		"nothing":           nil,
		"a name of another": request(t, p256(t), func(r *x509.CertificateRequest) { r.Subject = pkix.Name{CommonName: "x"} }),
	} {
		if r, err := ParseRequest(der); err == nil {
			t.Errorf("%s: taken as %s", what, r.ID)
		}
	}
}

// What it signs has no authority below it and does not outlive the signer; the anchor signs bootstrap authorities only.
func TestCertify(t *testing.T) {
	r := made(t, 1, identity.AlgEd25519)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range identity.Roles {
		req, err := ParseRequest(request(t, key, func(r *x509.CertificateRequest) { r.Subject = identity.AuthorityName("Test", role, 2) }))
		if err != nil {
			t.Fatal(err)
		}
		above, err := r.Of(role.Above())
		if err != nil {
			t.Fatal(err)
		}
		for _, now := range []time.Time{t0, t0.AddDate(25, 0, 0)} {
			c, err := r.Certify(req, now)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.CheckSignatureFrom(above.Cert); err != nil || !c.IsCA || !c.MaxPathLenZero || c.NotAfter.After(above.Cert.NotAfter) || len(c.DNSNames) > 0 {
				t.Errorf("%s: %v %+v", role, err, c)
			}
		}
	}
}

func TestCrossSign(t *testing.T) {
	a, b := made(t, 1, identity.AlgP256), made(t, 2, identity.AlgP384)
	for i := range a.Held {
		bridges, err := CrossSign(a.Held[i], b.Held[i], t0)
		if err != nil || len(bridges) != 2 {
			t.Fatal(err)
		}
		if bridges[0].CheckSignatureFrom(b.Held[i].Cert) != nil || bridges[1].CheckSignatureFrom(a.Held[i].Cert) != nil ||
			!equal(bridges[0].PublicKey, a.Held[i].Cert.PublicKey) || !bytes.Equal(bridges[0].RawSubject, a.Held[i].Cert.RawSubject) || !bytes.Equal(bridges[0].SubjectKeyId, a.Held[i].Cert.SubjectKeyId) {
			t.Errorf("%s", a.Held[i].ID)
		}
	}
	if _, err := CrossSign(a.Held[0], b.Held[1], t0); err == nil {
		t.Error("a root and an anchor were joined")
	}
	if _, err := CrossSign(a.Held[0], a.Held[0], t0); err == nil {
		t.Error("a root was joined with itself")
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add(request(f, p256(f), nil))
	f.Add([]byte{0x30, 0x00})
	f.Fuzz(func(t *testing.T, der []byte) {
		r, err := ParseRequest(der)
		if err == nil && (!slices.Contains(identity.Roles, r.Role) || r.CheckSignature() != nil) {
			t.Errorf("%x was taken as %s", der, r.ID)
		}
	})
}

func FuzzRecovery(f *testing.F) {
	f.Add([]byte(`{"format":"openthings-recovery/1","keys":[{"id":"root-1","role":"root"}]}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, plain []byte) {
		if r, err := parse(bytes.Clone(plain)); err == nil {
			for _, h := range r.Held {
				if !equal(h.Key.Public(), h.Cert.PublicKey) {
					t.Error("a key of another certificate")
				}
			}
		}
	})
}
