// SPDX-License-Identifier: AGPL-3.0-only

// Package embedded is the certificate authority inside the platform: crypto/x509 over keys that lie sealed on disk or in
// hardware (identity/keystore).
//
// At the first start it makes a root and an anchor and, below them, one issuing authority per role. Root and anchor are
// used again only when an authority is made; their sealed files (root-1.key, anchor-1.key) can then be moved to a safe
// place and the platform runs on. Their keys are always sealed files, made to leave; those of the issuing authorities are
// made in the hardware if there is any. No key is plaintext on disk, and the files alone, copied to another host, are of
// no use.
package embedded

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/keystore"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
)

// Config is what the authority needs; Dir, Keys and Name are mandatory.
type Config struct {
	Dir   string     // certificates and sealed keys; made at the first start
	Keys  *seal.Keys // seals them
	Name  string     // of the organization in the authorities' names
	Clock clock.Clock
	Roles []identity.Role // the issuing authorities to make at the first start; nil: all
	// Hardware is where the keys of new issuing authorities are made; nil: in sealed files.
	Hardware keystore.Store
}

// How long authorities live. The factory's lives as long as the root, since IDevIDs have no end.
const (
	RootLife  = 30 * 365 * 24 * time.Hour
	OtherLife = 10 * 365 * 24 * time.Hour
)

// ErrRootAway is returned when an authority must be signed and the key above it is not on this host.
var ErrRootAway = errors.New("the key of the authority above is not on this machine; bring it back, or sign the request where it is")

// Issuer implements identity.Issuer, Rotator and CRLSigner. Its methods are safe for concurrent use.
type Issuer struct {
	folder folder

	mu          sync.RWMutex // guards authorities
	authorities map[string]authority
}

// authority is a certificate and its key. A root that is away has no key, a requested authority has no certificate.
type authority struct {
	id     string
	role   identity.Role
	gen    int64
	parent string
	cert   *x509.Certificate
	key    crypto.Signer
	kind   string // of the store that the key is in
}

var (
	_ identity.Issuer    = (*Issuer)(nil)
	_ identity.Rotator   = (*Issuer)(nil)
	_ identity.CRLSigner = (*Issuer)(nil)
)

// Open loads the authorities, and makes them at the first start.
func Open(cfg Config) (*Issuer, error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Roles == nil {
		cfg.Roles = identity.Roles
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded issuer: %w", err)
	}
	is := &Issuer{folder: folder{cfg}, authorities: map[string]authority{}}
	if err := is.load(); err != nil {
		return nil, fmt.Errorf("embedded issuer: %w", err)
	}
	for _, role := range slices.Concat([]identity.Role{identity.Root, identity.Anchor}, cfg.Roles) {
		if is.has(role) {
			continue
		}
		if err := is.found(role); err != nil {
			return nil, fmt.Errorf("embedded issuer: %s: %w", role, err)
		}
	}
	return is, nil
}

var idPattern = regexp.MustCompile(`^([a-z]+)-([1-9][0-9]{0,8})$`)

// load reads what the folder holds and checks that each certificate chains to the one above it.
func (is *Issuer) load() error {
	files, err := os.ReadDir(is.folder.cfg.Dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		id, kind, _ := strings.Cut(f.Name(), ".")
		m := idPattern.FindStringSubmatch(id)
		if m == nil || kind != "crt" && kind != "key" {
			continue
		}
		if known, done := is.authorities[id]; done && known.cert != nil {
			continue
		}
		a := authority{id: id, role: identity.Role(m[1])}
		a.gen, _ = strconv.ParseInt(m[2], 10, 64) // the pattern allows nothing else
		if err := is.folder.read(&a); err != nil {
			return err
		}
		is.authorities[id] = a
	}
	for id, a := range is.authorities {
		if a.cert == nil {
			continue
		}
		if a.parent = is.above(a.role, a.cert); a.parent == "" {
			return fmt.Errorf("%s.crt was not signed by any %s in %s", id, a.role.Above(), is.folder.cfg.Dir)
		}
		is.authorities[id] = a
	}
	return nil
}

// has says whether there is an authority of the role with its certificate.
func (is *Issuer) has(r identity.Role) bool {
	for _, a := range is.authorities {
		if a.role == r && a.cert != nil {
			return true
		}
	}
	return false
}

// above names the authority that signed c; empty if there is none here.
func (is *Issuer) above(r identity.Role, c *x509.Certificate) string {
	for id, p := range is.authorities {
		if p.role == r.Above() && p.cert != nil && c.CheckSignatureFrom(p.cert) == nil {
			return id
		}
	}
	return ""
}

// found makes the first authority of a role.
func (is *Issuer) found(r identity.Role) error {
	id := identity.AuthorityID(r, 1)
	csr, err := is.Generate(context.Background(), id, r, identity.AlgP256, pkix.Name{Organization: []string{is.folder.cfg.Name}, CommonName: "OpenThings " + Title(r)})
	if err != nil {
		return err
	}
	life := OtherLife
	if r == identity.Factory || r.Above() == r {
		life = RootLife
	}
	der, err := is.Certify(identity.AuthorityID(r.Above(), 1), r, csr, life)
	if err != nil {
		return err
	}
	return is.Install(context.Background(), id, der)
}

// Title is a role in the name of its authority.
func Title(r identity.Role) string {
	switch r {
	case identity.Root:
		return "Root"
	case identity.Anchor:
		return "Anchor"
	}
	return strings.ToUpper(string(r[:1])) + string(r[1:]) + " CA"
}

// Certify signs the request of an authority of the role as the one above it, whose key must be here. The validity ends
// with the signer's at the latest. A root's own request makes its self-signed certificate.
func (is *Issuer) Certify(above string, r identity.Role, csr []byte, life time.Duration) ([]byte, error) {
	req, err := x509.ParseCertificateRequest(csr)
	if err == nil {
		err = req.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("the request of the authority: %w", err)
	}
	now := is.folder.cfg.Clock.Now()
	t, err := identity.AuthorityTemplate(r, req.Subject, req.PublicKey, now.Add(-time.Hour), now.Add(life))
	if err != nil {
		return nil, err
	}
	p, err := is.authority(above)
	switch {
	case err != nil:
		return nil, err
	case p.key == nil:
		return nil, ErrRootAway
	case p.cert == nil: // a root that signs itself
		return x509.CreateCertificate(rand.Reader, t, t, req.PublicKey, p.key)
	}
	if t.NotAfter.After(p.cert.NotAfter) {
		t.NotAfter = p.cert.NotAfter
	}
	return x509.CreateCertificate(rand.Reader, t, p.cert, req.PublicKey, p.key)
}

func (is *Issuer) authority(id string) (authority, error) {
	is.mu.RLock()
	defer is.mu.RUnlock()
	a, ok := is.authorities[id]
	if !ok {
		return authority{}, problem.Unavailable("There is no authority %s on this machine.", id).
			Hint("If another node has made it, copy %s.crt and %[1]s.key from the folder ca of that node's data to this one's.", id)
	}
	return a, nil
}

// reread looks again at the folder: another node may have made an authority since, and its files have been put here. What
// is not whole yet, or not signed by a root that is here, changes nothing.
func (is *Issuer) reread() error {
	is.mu.Lock()
	defer is.mu.Unlock()
	fresh := &Issuer{folder: is.folder, authorities: maps.Clone(is.authorities)}
	if err := fresh.load(); err != nil {
		return fmt.Errorf("embedded issuer: %w", err)
	}
	is.authorities = fresh.authorities
	return nil
}

// signer is an authority that can sign now.
func (is *Issuer) signer(id string) (authority, error) {
	a, err := is.authority(id)
	if err != nil || a.cert == nil {
		if again := is.reread(); again != nil {
			return a, errors.Join(err, again)
		}
		a, err = is.authority(id)
	}
	switch {
	case err != nil:
		return a, err
	case a.cert == nil:
		return a, fmt.Errorf("embedded issuer: %s has no certificate yet", id)
	case a.key == nil:
		return a, fmt.Errorf("embedded issuer: %s: %w", id, ErrRootAway)
	}
	return a, nil
}

// Authorities implements identity.Issuer.
func (is *Issuer) Authorities(context.Context) ([]identity.Held, error) {
	is.mu.RLock()
	defer is.mu.RUnlock()
	out := make([]identity.Held, 0, len(is.authorities))
	for _, a := range is.authorities {
		h := identity.Held{ID: a.id, Role: a.role, Generation: a.gen, Backend: "embedded", Protection: "away", Parent: a.parent}
		if a.key != nil {
			h.Algorithm, h.Protection = identity.AlgorithmOf(a.key.Public()), a.kind
		}
		if a.cert != nil {
			h.Algorithm, h.Cert = identity.AlgorithmOf(a.cert.PublicKey), a.cert.Raw
		}
		out = append(out, h)
	}
	return out, nil
}

// Sign implements identity.Issuer.
func (is *Issuer) Sign(_ context.Context, r identity.SignRequest) ([]byte, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	a, err := is.signer(r.Authority)
	if err != nil {
		return nil, err
	}
	if r.Template.NotAfter.After(a.cert.NotAfter) && !r.Template.NotAfter.Equal(identity.Forever) {
		return nil, fmt.Errorf("embedded issuer: %s ends on %s, before the certificate would", a.id, a.cert.NotAfter.Format(time.DateOnly))
	}
	der, err := x509.CreateCertificate(rand.Reader, r.Template, a.cert, r.Key, a.key)
	return der, a.reached(err)
}

// SignCRL implements identity.CRLSigner.
func (is *Issuer) SignCRL(_ context.Context, id string, list *x509.RevocationList) ([]byte, error) {
	a, err := is.signer(id)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	return der, a.reached(err)
}

// reached says of a signature that failed whether it is worth while to try again: with a key in hardware it is.
func (a authority) reached(err error) error {
	if err == nil || a.kind == keystore.Sealed {
		return err
	}
	return problem.Unavailable("The hardware with the key of %s does not sign.", a.id).Because(err)
}

// Revoke implements identity.Issuer. Nothing is kept here: the register is the one authority.
func (is *Issuer) Revoke(context.Context, string, *big.Int, time.Time) error { return nil }

// Health implements identity.Issuer: sealed keys are in memory, hardware is asked.
func (is *Issuer) Health(context.Context) error {
	if hw := is.folder.cfg.Hardware; hw != nil {
		if err := hw.Health(); err != nil {
			return problem.Unavailable("The hardware with the keys of the authorities does not answer.").Because(err)
		}
	}
	return nil
}

// Generate implements identity.Rotator.
func (is *Issuer) Generate(_ context.Context, id string, r identity.Role, alg identity.Algorithm, name pkix.Name) ([]byte, error) {
	m := idPattern.FindStringSubmatch(id)
	if m == nil || identity.Role(m[1]) != r {
		return nil, fmt.Errorf("embedded issuer: %q does not name a %s authority", id, r)
	}
	is.mu.Lock()
	defer is.mu.Unlock()
	a, ok := is.authorities[id]
	switch {
	case ok && a.cert != nil:
		return nil, fmt.Errorf("embedded issuer: %s exists already", id)
	case !ok:
		entry, key, err := is.folder.maker(r).Make(id, alg)
		if err != nil {
			return nil, fmt.Errorf("embedded issuer: the key of %s: %w", id, err)
		}
		a = authority{id: id, role: r, key: key, kind: keystore.KindOf(entry)}
		a.gen, _ = strconv.ParseInt(m[2], 10, 64) // the pattern allows nothing else
		if err := is.folder.write(id+".key", entry); err != nil {
			return nil, err
		}
		is.authorities[id] = a
	}
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: name}, a.key)
}

// Install implements identity.Rotator.
func (is *Issuer) Install(_ context.Context, id string, der []byte) error {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	is.mu.Lock()
	defer is.mu.Unlock()
	a, ok := is.authorities[id]
	switch {
	case !ok:
		return fmt.Errorf("embedded issuer: there is no authority %q", id)
	case a.cert != nil && a.cert.Equal(cert):
		return nil
	case a.cert != nil:
		return fmt.Errorf("embedded issuer: %s has another certificate already", id)
	case a.key == nil || !samePublic(a.key.Public(), cert.PublicKey):
		return fmt.Errorf("embedded issuer: the certificate is not over the key of %s", id)
	case !cert.IsCA:
		return fmt.Errorf("embedded issuer: the certificate of %s is not an authority's", id)
	}
	if a.parent = is.above(a.role, cert); a.parent == "" && a.role.Above() == a.role && cert.CheckSignatureFrom(cert) == nil {
		a.parent = id
	}
	if a.parent == "" {
		return fmt.Errorf("embedded issuer: the certificate of %s was not signed by any %s here", id, a.role.Above())
	}
	if err := is.folder.write(id+".crt", der); err != nil {
		return err
	}
	a.cert = cert
	is.authorities[id] = a
	return nil
}

func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// folder is Config.Dir: <id>.crt in DER and <id>.key, the entry of the key in its store. The key is on disk before the certificate.
type folder struct{ cfg Config }

func (f folder) path(name string) string { return filepath.Join(f.cfg.Dir, name) }

// read loads the certificate and the key of an authority; either may be absent.
func (f folder) read(a *authority) error {
	der, err := os.ReadFile(f.path(a.id + ".crt"))
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", f.path(a.id+".crt"), err)
	}
	entry, err := os.ReadFile(f.path(a.id + ".key"))
	if errors.Is(err, fs.ErrNotExist) && a.cert != nil && a.role.Above() == a.role {
		return nil // away, as it should be
	}
	if err != nil {
		return err
	}
	a.kind = keystore.KindOf(entry)
	store, err := f.store(a.kind)
	if err == nil {
		a.key, err = store.Open(a.id, entry)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.path(a.id+".key"), err)
	}
	if a.cert != nil && !samePublic(a.key.Public(), a.cert.PublicKey) {
		return fmt.Errorf("%s.key does not belong to %s.crt", a.id, a.id)
	}
	return nil
}

// maker is the store for new keys of a role. Roots and anchors are made to leave this machine, which hardware forbids.
func (f folder) maker(r identity.Role) keystore.Store {
	if f.cfg.Hardware == nil || r.Above() == r {
		return keystore.Files{Keys: f.cfg.Keys}
	}
	return f.cfg.Hardware
}

// store is where keys of that kind are.
func (f folder) store(kind string) (keystore.Store, error) {
	switch {
	case kind == keystore.Sealed:
		return keystore.Files{Keys: f.cfg.Keys}, nil
	case f.cfg.Hardware == nil || f.cfg.Hardware.Kind() != kind:
		return nil, fmt.Errorf("the key is in hardware (%s) that was not opened: start with --ca-keys %[1]s:…", kind)
	}
	return f.cfg.Hardware, nil
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
	return f.sync()
}

// sync makes what was renamed or removed in the folder durable.
func (f folder) sync() error {
	d, err := os.Open(f.cfg.Dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
