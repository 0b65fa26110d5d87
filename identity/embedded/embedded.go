// SPDX-License-Identifier: AGPL-3.0-only

// Package embedded is the certificate authority inside the platform: crypto/x509 over keys that lie sealed on disk.
//
// One root signs one issuing authority per role. The root's key is used at the first start only: its sealed file
// (root.key) can then be moved to a safe place and the platform runs on. Keys are P-256, sealed under the platform key
// for their own name, and never plaintext on disk; the files alone, copied to another host, are of no use.
package embedded

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/seal"
)

// Config is what the authority needs; all fields but Clock are mandatory.
type Config struct {
	Dir   string     // certificates and sealed keys; made at the first start
	Keys  *seal.Keys // seals them
	Name  string     // of the organization in the authorities' names
	Clock clock.Clock
}

// How long the authorities live. The factory's lives as long as the root, since IDevIDs have no end.
const (
	rootLife  = 30 * 365 * 24 * time.Hour
	otherLife = 10 * 365 * 24 * time.Hour
)

// ErrRootAway is returned when an authority must be made and the root's key is not on this host.
var ErrRootAway = errors.New("the root key is not here; bring root.key back to make another issuing authority")

// Issuer implements identity.Issuer.
type Issuer struct {
	root        *x509.Certificate
	authorities map[identity.Role]authority
}

type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

var _ identity.Issuer = (*Issuer)(nil)

// Open loads the authorities, and makes them at the first start.
func Open(cfg Config) (*Issuer, error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded issuer: %w", err)
	}
	f := folder{cfg}
	root, err := f.load("root")
	if errors.Is(err, fs.ErrNotExist) && !f.has("root.crt") {
		root, err = f.make("root", "Root", rootLife, nil)
	} else if errors.Is(err, fs.ErrNotExist) { // the key is away, as it should be
		root.cert, err = f.certificate("root")
	}
	if err != nil {
		return nil, fmt.Errorf("embedded issuer: %w", err)
	}
	is := &Issuer{root: root.cert, authorities: map[identity.Role]authority{}}
	for _, role := range identity.Roles {
		a, err := f.load(string(role))
		if errors.Is(err, fs.ErrNotExist) && !f.has(string(role)+".crt") {
			if root.key == nil {
				return nil, fmt.Errorf("embedded issuer: %s: %w", role, ErrRootAway)
			}
			life := otherLife
			if role == identity.Factory {
				life = rootLife
			}
			a, err = f.make(string(role), titles[role], life, &root)
		}
		if err == nil {
			err = a.cert.CheckSignatureFrom(root.cert)
		}
		if err != nil {
			return nil, fmt.Errorf("embedded issuer: %s: %w", role, err)
		}
		is.authorities[role] = a
	}
	return is, nil
}

var titles = map[identity.Role]string{identity.Factory: "Factory CA", identity.Operational: "Operational CA", identity.Server: "Server CA"}

// Root is the trust anchor.
func (is *Issuer) Root() *x509.Certificate { return is.root }

// Sign implements identity.Issuer.
func (is *Issuer) Sign(_ context.Context, r identity.SignRequest) ([]byte, error) {
	a, ok := is.authorities[r.Role]
	if !ok {
		return nil, fmt.Errorf("embedded issuer: there is no authority for the role %q", r.Role)
	}
	if r.Template.NotAfter.After(a.cert.NotAfter) && !r.Template.NotAfter.Equal(identity.Forever) {
		return nil, fmt.Errorf("embedded issuer: the %s authority ends on %s, before the certificate would", r.Role, a.cert.NotAfter.Format(time.DateOnly))
	}
	return x509.CreateCertificate(rand.Reader, r.Template, a.cert, r.Key, a.key)
}

// Chain implements identity.Issuer.
func (is *Issuer) Chain(_ context.Context, role identity.Role) ([]*x509.Certificate, error) {
	a, ok := is.authorities[role]
	if !ok {
		return nil, fmt.Errorf("embedded issuer: there is no authority for the role %q", role)
	}
	return []*x509.Certificate{a.cert, is.root}, nil
}

// Revoke implements identity.Issuer. Nothing is kept here: the register is the one authority.
func (is *Issuer) Revoke(context.Context, identity.Role, *big.Int, time.Time) error { return nil }

// folder is Config.Dir: <name>.crt in DER and <name>.key sealed.
type folder struct{ cfg Config }

func (f folder) path(name string) string { return filepath.Join(f.cfg.Dir, name) }

func (f folder) has(name string) bool {
	_, err := os.Stat(f.path(name))
	return err == nil
}

func (f folder) certificate(name string) (*x509.Certificate, error) {
	der, err := os.ReadFile(f.path(name + ".crt"))
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// load returns fs.ErrNotExist when the key or the certificate is absent.
func (f folder) load(name string) (authority, error) {
	sealed, err := os.ReadFile(f.path(name + ".key"))
	if err != nil {
		return authority{}, err
	}
	cert, err := f.certificate(name)
	if err != nil {
		return authority{}, err
	}
	plain, err := f.cfg.Keys.Unwrap(KeyPurpose(name), sealed)
	if err != nil {
		return authority{}, fmt.Errorf("%s: %w", f.path(name+".key"), err)
	}
	defer clear(plain)
	key, err := x509.ParsePKCS8PrivateKey(plain)
	if err != nil {
		return authority{}, err
	}
	signer, ok := key.(*ecdsa.PrivateKey)
	if !ok || !signer.PublicKey.Equal(cert.PublicKey) {
		return authority{}, fmt.Errorf("%s.key does not belong to %s.crt", name, name)
	}
	return authority{cert: cert, key: signer}, nil
}

// KeyPurpose is what the key file of that name is sealed for.
func KeyPurpose(name string) string { return "identity.ca-key/" + name }

// make creates an authority below parent, or the root. The key is on disk before the certificate: a key without a
// certificate means that the making was cut off, and is overwritten.
func (f folder) make(name, title string, life time.Duration, parent *authority) (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return authority{}, err
	}
	id := sha256.Sum256(spki)
	serial := make([]byte, 16)
	rand.Read(serial)
	now := f.cfg.Clock.Now().UTC().Truncate(time.Second)
	t := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial), Subject: pkix.Name{Organization: []string{f.cfg.Name}, CommonName: "OpenThings " + title},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(life), SubjectKeyId: id[:20], BasicConstraintsValid: true, IsCA: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	signer := authority{cert: t, key: key}
	if parent != nil {
		t.MaxPathLenZero = true
		if t.NotAfter.After(parent.cert.NotAfter) {
			t.NotAfter = parent.cert.NotAfter
		}
		signer = *parent
	}
	der, err := x509.CreateCertificate(rand.Reader, t, signer.cert, key.Public(), signer.key)
	if err != nil {
		return authority{}, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return authority{}, err
	}
	plain, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return authority{}, err
	}
	defer clear(plain)
	sealed, err := f.cfg.Keys.Wrap(KeyPurpose(name), plain)
	if err != nil {
		return authority{}, err
	}
	if err := f.write(name+".key", sealed); err != nil {
		return authority{}, err
	}
	return authority{cert: cert, key: key}, f.write(name+".crt", der)
}

// write is durable when it returns: temporary file, sync, rename, sync of the folder.
func (f folder) write(name string, b []byte) error {
	t, err := os.CreateTemp(f.cfg.Dir, "."+name+"-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(t.Name())
	_, err = t.Write(b)
	if err == nil {
		err = t.Sync()
	}
	if err = errors.Join(err, t.Close()); err != nil {
		return err
	}
	if err := os.Rename(t.Name(), f.path(name)); err != nil {
		return err
	}
	d, err := os.Open(f.cfg.Dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
