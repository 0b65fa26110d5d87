// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
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
	signs, err := s.ActiveAuthority(ctx, p.Role)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("identity: server certificate: %w", err)
	}
	from, until := p.validity(s.cfg.Clock.Now(), 0)
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
	chain, err := s.chain(ctx, signs.ID)
	if err != nil {
		return tls.Certificate{}, err
	}
	c := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	for _, above := range chain[:len(chain)-1] { // the root is what the client already has
		c.Certificate = append(c.Certificate, above.Raw)
	}
	return c, nil
}

// ServerTLS is ServerCertificate renewed at two thirds of its life, for tls.Config.GetCertificate. The first
// certificate is made at once, so that a fault shows at start.
func (s *Service) ServerTLS(hosts []string) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	first, err := s.ServerCertificate(hosts)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex // guards current
	current := &first
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		if now := s.cfg.Clock.Now(); now.After(renewAt(current.Leaf)) {
			next, err := s.ServerCertificate(hosts)
			switch {
			case err == nil:
				current = &next
			case now.After(current.Leaf.NotAfter):
				return nil, err
			default: // the old one still serves; the next handshake tries again
				s.cfg.Log.Error("the server certificate could not be renewed", "err", err)
			}
		}
		return current, nil
	}, nil
}

// renewAt is two thirds into a certificate's life.
func renewAt(c *x509.Certificate) time.Time {
	return c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / 3)
}
