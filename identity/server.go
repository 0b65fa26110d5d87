// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// ServerCertificate makes a key that never leaves memory and a certificate for the platform's own doors, good for 30
// days under the given host names and addresses.
func (s *Service) ServerCertificate(hosts []string) (tls.Certificate, error) {
	return s.doorCertificate(serverProfile, hosts)
}

func (s *Service) doorCertificate(p Profile, hosts []string) (tls.Certificate, error) {
	if len(hosts) == 0 {
		return tls.Certificate{}, fmt.Errorf("identity: a server certificate needs a host name or address")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	ctx := context.Background()
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return tls.Certificate{}, err
	}
	if err := s.ownKey(ctx, KeyHash(spki)); err != nil {
		return tls.Certificate{}, fmt.Errorf("identity: server certificate: %w", err)
	}
	signs, err := s.ActiveAuthority(ctx, p.Role)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("identity: server certificate: %w", err)
	}
	from, until := p.validity(s.cfg.Clock.Now(), 0)
	if until, err = p.within(signs, from, until); err != nil {
		return tls.Certificate{}, err
	}
	t, err := p.template(pkix.Name{CommonName: hosts[0]}, newSerial(), from, until, key.Public())
	if err != nil {
		return tls.Certificate{}, err
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: t.Subject, DNSNames: t.DNSNames, IPAddresses: t.IPAddresses}, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := s.cfg.Issuer.Sign(ctx, SignRequest{Authority: signs.ID, Profile: p.Name, Template: t, Key: key.Public(), CSR: csr})
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("identity: server certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, err
	}
	chain, err := s.doorChain(ctx, signs.ID)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: append([][]byte{der}, chain...), PrivateKey: key, Leaf: leaf}, nil
}

// ServerTLS is for tls.Config.GetCertificate: a certificate below the anchor for who asks for the bootstrap name, one
// below the current root for everybody else. Each is renewed at two thirds of its life, and at once when another
// authority becomes active or a bridge is installed; within doorLook when that happened on another node. The first ones are made at once, so that a fault shows at start.
func (s *Service) ServerTLS(hosts []string) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	door := &served{s: s, profile: serverProfile, hosts: hosts}
	bootstrap := &served{s: s, profile: bootstrapProfile, hosts: []string{BootstrapName}}
	if _, err := door.certificate(); err != nil {
		return nil, err
	}
	if _, err := bootstrap.certificate(); err != nil {
		s.cfg.Log.Warn("the bootstrap door cannot be served", "err", err)
	}
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if strings.EqualFold(hello.ServerName, BootstrapName) {
			return bootstrap.certificate()
		}
		return door.certificate()
	}, nil
}

// served is a server certificate in use.
type served struct {
	s       *Service
	profile Profile
	hosts   []string

	mu      sync.Mutex // guards those below
	current *tls.Certificate
	life    int64     // of the authorities, when current was made
	looked  time.Time // when another node was last asked about, which may have promoted or lost an authority
}

// doorLook is how long a door goes on under an authority that another node has taken out of service.
const doorLook = 30 * time.Second

func (d *served) certificate() (*tls.Certificate, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, life := d.s.cfg.Clock.Now(), d.s.authorityLife.Load()
	if d.current != nil && d.life == life && serves(d.current.Leaf, now) {
		if now.Sub(d.looked).Abs() < doorLook {
			return d.current, nil
		}
		if d.looked = now; d.stands() {
			return d.current, nil
		}
	}
	next, err := d.s.doorCertificate(d.profile, d.hosts)
	switch {
	case err == nil:
		d.current, d.life, d.looked = &next, life, now
	case d.current == nil || now.After(d.current.Leaf.NotAfter):
		return nil, err
	default: // the old one still serves; the next handshake tries again
		d.s.cfg.Log.Error("the server certificate could not be renewed", "err", err)
	}
	return d.current, nil
}

// stands says that what the door shows above its certificate is still what it would show if it were made now; so it does
// while the database cannot tell.
func (d *served) stands() bool {
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Second)
	defer stop()
	signs, err := d.s.ActiveAuthority(ctx, d.profile.Role)
	if err != nil {
		return true
	}
	chain, err := d.s.doorChain(ctx, signs.ID)
	return err != nil || slices.EqualFunc(chain, d.current.Certificate[1:], bytes.Equal)
}

// serves says that a certificate of the platform's own needs no renewal: it is within the first two thirds of its life. One
// that begins in the future was made while the clock was wrong; nobody would take it.
func serves(c *x509.Certificate, now time.Time) bool {
	return !now.Before(c.NotBefore) && now.Before(renewAt(c))
}

// renewAt is two thirds into a certificate's life.
func renewAt(c *x509.Certificate) time.Time {
	return c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / 3)
}
