// SPDX-License-Identifier: AGPL-3.0-only

package embedded_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
)

var t0 = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

type place struct {
	dir string
	cfg embedded.Config
}

func newPlace(t *testing.T) place {
	t.Helper()
	dir := t.TempDir()
	keys, err := seal.Open(filepath.Join(dir, "keys"), clock.System)
	if err != nil {
		t.Fatal(err)
	}
	return place{dir, embedded.Config{Dir: filepath.Join(dir, "ca"), Keys: keys, Name: "Test", Clock: clock.NewHand(t0)}}
}

func (p place) open(t *testing.T) *embedded.Issuer {
	t.Helper()
	is, err := embedded.Open(p.cfg)
	if err != nil {
		t.Fatal(err)
	}
	return is
}

func request(role identity.Role, until time.Time, key *ecdsa.PrivateKey) identity.SignRequest {
	profile, usage := map[identity.Role]string{identity.Factory: "idevid", identity.Operational: "ldevid", identity.Server: "server", identity.Bootstrap: "bootstrap"}[role], x509.ExtKeyUsageClientAuth
	if role == identity.Server || role == identity.Bootstrap {
		usage = x509.ExtKeyUsageServerAuth
	}
	return identity.SignRequest{Authority: identity.AuthorityID(role, 1), Profile: profile, Key: key.Public(), Template: &x509.Certificate{SerialNumber: big.NewInt(7),
		NotBefore: t0, NotAfter: until, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage}, BasicConstraintsValid: true}}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// certificate of the first authority of a role.
func (p place) certificate(t *testing.T, role identity.Role) *x509.Certificate {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(p.cfg.Dir, identity.AuthorityID(role, 1)+".crt"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(b)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// No file under the data folder holds a private key that can be read.
func TestKeysAreSealed(t *testing.T) {
	p := newPlace(t)
	p.open(t)
	n := 0
	err := filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		n++
		// The marks of PKCS #8, SEC 1 and PEM private keys.
		for _, mark := range [][]byte{[]byte("PRIVATE KEY"), {0x02, 0x01, 0x01, 0x04, 0x20}} {
			if bytes.Contains(b, mark) {
				t.Errorf("%s holds a private key in the clear", path)
			}
		}
		if _, err := x509.ParsePKCS8PrivateKey(b); err == nil {
			t.Errorf("%s is a private key", path)
		}
		if info, err := d.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v (%v)", path, info.Mode(), err)
		}
		return nil
	})
	if err != nil || n < 9 {
		t.Fatalf("%d files (%v)", n, err)
	}
}

// The root key may leave the host; another issuing authority cannot be made without it.
func TestRootAway(t *testing.T) {
	p := newPlace(t)
	p.open(t)
	root := p.certificate(t, identity.Root)
	if err := os.Rename(filepath.Join(p.cfg.Dir, "root-1.key"), filepath.Join(p.dir, "safe")); err != nil {
		t.Fatal(err)
	}
	again := p.open(t)
	if !p.certificate(t, identity.Root).Equal(root) {
		t.Error("another root")
	}
	der, err := again.Sign(t.Context(), request(identity.Operational, t0.Add(time.Hour), newKey(t)))
	if err != nil {
		t.Fatal(err)
	}
	x, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	operational := p.certificate(t, identity.Operational)
	if err := errors.Join(x.CheckSignatureFrom(operational), operational.CheckSignatureFrom(root)); err != nil {
		t.Error(err)
	}
	for _, f := range []string{"server-1.crt", "server-1.key"} {
		if err := os.Remove(filepath.Join(p.cfg.Dir, f)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := embedded.Open(p.cfg); !errors.Is(err, embedded.ErrRootAway) {
		t.Errorf("an authority was made without the root: %v", err)
	}
}

// The files of the authority are useless under another platform key, and one key's file does not stand for another's.
func TestFilesAreBound(t *testing.T) {
	p := newPlace(t)
	p.open(t)
	other := newPlace(t)
	other.cfg.Dir = p.cfg.Dir
	if _, err := embedded.Open(other.cfg); !errors.Is(err, seal.ErrSealed) {
		t.Errorf("copied to another host: %v", err)
	}
	b, err := os.ReadFile(filepath.Join(p.cfg.Dir, "factory-1.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.cfg.Dir, "operational-1.key"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := embedded.Open(p.cfg); !errors.Is(err, seal.ErrSealed) {
		t.Errorf("one key in the place of another: %v", err)
	}
}

// An authority signs nothing that outlives it, but for IDevIDs, which have no end.
func TestLife(t *testing.T) {
	p := newPlace(t)
	is := p.open(t)
	key := newKey(t)
	if _, err := is.Sign(t.Context(), request(identity.Operational, t0.AddDate(11, 0, 0), key)); err == nil {
		t.Error("a certificate outlives its authority")
	}
	if _, err := is.Sign(t.Context(), request(identity.Factory, identity.Forever, key)); err != nil {
		t.Error(err)
	}
	if _, err := is.Sign(t.Context(), request("other", t0.Add(time.Hour), key)); err == nil {
		t.Error("an unknown role")
	}
	for _, role := range identity.Roles {
		if ca := p.certificate(t, role); !ca.IsCA || !ca.MaxPathLenZero || ca.KeyUsage&x509.KeyUsageCertSign == 0 {
			t.Errorf("%s: %+v", role, ca.Subject)
		}
	}
}

// A second generation works beside the first: its key is made here, the root signs its request, and both can sign.
func TestGenerations(t *testing.T) {
	for _, alg := range []identity.Algorithm{identity.AlgP256, identity.AlgP384, identity.AlgEd25519} {
		p := newPlace(t)
		is := p.open(t)
		csr, err := is.Generate(t.Context(), "operational-2", identity.Operational, alg, pkix.Name{CommonName: "Second"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := is.Sign(t.Context(), identity.SignRequest{Authority: "operational-2", Profile: "ldevid", Template: request(identity.Operational, t0.Add(time.Hour), newKey(t)).Template}); err == nil {
			t.Error("an authority without a certificate signs")
		}
		is = p.open(t) // the request survives a restart
		der, err := is.Certify("root-1", identity.Operational, csr, embedded.OtherLife)
		if err != nil {
			t.Fatal(err)
		}
		foreign := p.certificate(t, identity.Server).Raw
		if err := is.Install(t.Context(), "operational-2", foreign); err == nil {
			t.Error("a certificate over another key was installed")
		}
		if err := errors.Join(is.Install(t.Context(), "operational-2", der), is.Install(t.Context(), "operational-2", der)); err != nil {
			t.Fatal(err)
		}
		is = p.open(t)
		key := newKey(t)
		for _, id := range []string{"operational-1", "operational-2"} {
			r := request(identity.Operational, t0.Add(time.Hour), key)
			r.Authority = id
			if _, err := is.Sign(t.Context(), r); err != nil {
				t.Errorf("%s with %s: %v", id, alg, err)
			}
		}
		held, err := is.Authorities(t.Context())
		if err != nil || len(held) != 7 {
			t.Fatalf("%d authorities, %v", len(held), err)
		}
		for _, h := range held {
			if want := identity.AuthorityID(h.Role.Above(), 1); h.Parent != want || h.Protection != "sealed" || len(h.Cert) == 0 {
				t.Errorf("%s: parent %s, key %s", h.ID, h.Parent, h.Protection)
			}
		}
	}
}

// An authority that another node has made since signs here once its files are here, without a restart; before that, and while
// they are half there, what to do is said and nothing else changes.
func TestAnAuthorityOfAnotherNode(t *testing.T) {
	one := newPlace(t)
	first := one.open(t)
	two := place{one.dir, one.cfg}
	two.cfg.Dir = filepath.Join(t.TempDir(), "ca")
	if err := os.CopyFS(two.cfg.Dir, os.DirFS(one.cfg.Dir)); err != nil {
		t.Fatal(err)
	}
	second := two.open(t)
	csr, err := first.Generate(t.Context(), "operational-2", identity.Operational, identity.AlgP256, pkix.Name{CommonName: "next"})
	if err != nil {
		t.Fatal(err)
	}
	der, err := first.Certify("root-1", identity.Operational, csr, embedded.OtherLife)
	if err == nil {
		err = first.Install(t.Context(), "operational-2", der)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := request(identity.Operational, t0.AddDate(0, 0, 60), newKey(t))
	r.Authority = "operational-2"
	if _, err := second.Sign(t.Context(), r); !problem.Is(err, problem.KindUnavailable) || problem.Of(err).Help == "" {
		t.Errorf("without its files: %v", err)
	}
	move := func(name string) {
		b, err := os.ReadFile(filepath.Join(one.cfg.Dir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(two.cfg.Dir, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	move("operational-2.crt")
	if _, err := second.Sign(t.Context(), r); err == nil {
		t.Error("it signs without its key")
	}
	move("operational-2.key")
	if _, err := second.Sign(t.Context(), r); err != nil {
		t.Error(err)
	}
	if _, err := second.Sign(t.Context(), request(identity.Operational, t0.AddDate(0, 0, 60), newKey(t))); err != nil {
		t.Errorf("the one before: %v", err)
	}
}
