// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/wire"
)

// errUntrusted is wrapped when the platform's certificate, or one that it issued, ends in no root that the device knows, or
// not at this time. The bootstrap door may help.
var errUntrusted = errors.New("the platform is not one that this device can trust yet")

// pins is whom the device takes for its platform. The line gave it a trust bundle; from there on only a bundle that the
// one before vouches for takes its place (wire.SignedBundle.Verify). Nothing else adds trust, cacerts included.
type pins struct {
	disk  disk
	extra *x509.CertPool // Config.Roots, for the doors only; may be nil

	mu      sync.Mutex // guards the fields below
	bundle  wire.Bundle
	roots   *x509.CertPool
	bridges *x509.CertPool
}

// openPins reads the newest bundle. One that cannot be read is no reason to stay away: the walk begins again at the one
// from the line. A unit from before there were bundles has the root of its chain and no anchor.
func openPins(d disk, extra *x509.CertPool) (*pins, error) {
	p := &pins{disk: d, extra: extra}
	for _, name := range []string{"bundle.json", "pin.json"} {
		raw, err := d.read(name)
		if err != nil {
			continue
		}
		if b, err := readBundle(raw); err == nil {
			p.set(b)
			return p, nil
		}
	}
	if d.exists("pin.json") {
		return nil, errors.New("agent: pin.json cannot be read")
	}
	raw, err := d.read("chain.pem")
	if err != nil {
		return nil, err
	}
	chain, err := parseChain(raw)
	if err != nil {
		return nil, err
	}
	p.roots, p.bridges = x509.NewCertPool(), x509.NewCertPool()
	for _, c := range chain {
		if c.CheckSignatureFrom(c) == nil { // the root alone; an issuing CA is no anchor
			p.roots.AddCert(c)
		}
	}
	return p, nil
}

// readBundle reads a bundle that this device has verified before it was written.
func readBundle(raw []byte) (wire.Bundle, error) {
	s, err := wire.ParseSignedBundle(raw)
	if err != nil {
		return wire.Bundle{}, err
	}
	return wire.ParseBundle(s.Bundle)
}

func (p *pins) set(b wire.Bundle) {
	p.bundle, p.roots, p.bridges = b, b.RootPool(), b.BridgePool()
}

// current is the bundle in force; version 0 means that there is none.
func (p *pins) current() wire.Bundle {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bundle
}

// advance takes the next version, once its signature is checked and it is on disk.
func (p *pins) advance(s wire.SignedBundle) (wire.Bundle, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, err := s.Verify(p.bundle)
	if err != nil {
		return wire.Bundle{}, err
	}
	if err := p.disk.writeJSON("bundle.json", s); err != nil {
		return wire.Bundle{}, err
	}
	p.set(b)
	return b, nil
}

// chains says whether certs (the leaf first) end in a root of the platform. Bridges and the other certs may stand between.
func (p *pins) chains(certs []*x509.Certificate, name string, usage x509.ExtKeyUsage, now time.Time) error {
	p.mu.Lock()
	roots, between := p.roots, p.bridges.Clone()
	p.mu.Unlock()
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	o := x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: name, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}
	_, err := certs[0].Verify(o)
	if err != nil && p.extra != nil && usage == x509.ExtKeyUsageServerAuth {
		o.Roots = p.extra
		_, err = certs[0].Verify(o)
	}
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	if errors.As(err, &unknown) || errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return fmt.Errorf("%w: %w", errUntrusted, err)
	}
	return err
}

// tls is the configuration of a connection to the platform as c (nil: without a certificate). The check of the server's
// certificate is this package's own, because bridges and the calendar take part in it.
func (a *agent) tls(c *credential, host string) *tls.Config {
	t := a.tlsChecked(host, func(certs []*x509.Certificate) error {
		now, _ := a.time.now()
		return a.pins.chains(certs, host, x509.ExtKeyUsageServerAuth, now)
	})
	if c != nil {
		t.Certificates = []tls.Certificate{c.Certificate}
	}
	return t
}

// tlsChecked asks check, and nothing else, whether the server's certificates are good. The signature of the handshake
// under the first of them is checked by crypto/tls as ever.
func (a *agent) tlsChecked(host string, check func([]*x509.Certificate) error) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, ServerName: host, InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error { return check(s.PeerCertificates) }}
}

// atBootstrap is the client of the bootstrap door: the platform's HTTPS door under the name that only the anchor vouches
// for. It is what a device can still verify after any absence and with any clock: where the clock cannot be right, the
// certificate itself says what time it is.
func (a *agent) atBootstrap() *http.Client {
	b := a.pins.current()
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true, TLSHandshakeTimeout: 30 * time.Second,
		TLSClientConfig: a.tlsChecked(b.Bootstrap, func(certs []*x509.Certificate) error {
			now, err := a.time.within(certs[0].NotBefore, certs[0].NotAfter)
			if err != nil {
				return err
			}
			between := x509.NewCertPool()
			for _, c := range certs[1:] {
				between.AddCert(c)
			}
			_, err = certs[0].Verify(x509.VerifyOptions{Roots: b.AnchorPool(), Intermediates: between, DNSName: b.Bootstrap,
				CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
			return err
		})}}
}

// bootstrap finds the way back to a platform that changed while the device was away: the time, then one bundle after the
// other.
func (a *agent) bootstrap(ctx context.Context) error {
	if b := a.pins.current(); b.Bootstrap == "" {
		return errors.New("this unit has no anchor for the bootstrap door")
	}
	door := a.atBootstrap()
	err := a.askTime(ctx, door)
	if err == nil {
		_, err = a.follow(ctx, door)
	}
	if err != nil {
		return fmt.Errorf("the bootstrap door: %w", err)
	}
	return nil
}

// askTime takes the platform's word for the time. It must lie in the life of the certificate that the platform showed:
// whoever holds that key cannot lie further than that.
func (a *agent) askTime(ctx context.Context, door *http.Client) error {
	asked := a.Clock.Now()
	b, shown, err := a.get(ctx, door, "/d/1/time", 4<<10)
	if err != nil {
		return err
	}
	if took := a.Clock.Now().Sub(asked); took < 0 || took > 2*time.Minute {
		return fmt.Errorf("the clock was set by %s while the platform was asked for the time", took)
	}
	var said wire.Time
	if err := json.Unmarshal(b, &said); err != nil {
		return fmt.Errorf("the time: %w", err)
	}
	t, life := time.UnixMilli(said.Now), shown.PeerCertificates[0]
	if t.Before(life.NotBefore) || t.After(life.NotAfter) {
		door.CloseIdleConnections() // or the connection is older than the certificate that the platform has by now
		return fmt.Errorf("the platform says that it is %s, outside of its own certificate's life", t.UTC().Format(time.DateTime))
	}
	a.clockChecked(t.Sub(a.Clock.Now()))
	return a.time.told(t)
}

// maxSteps bounds how many versions of the bundle are taken at once. It is far beyond any life.
const maxSteps = 1000

// follow takes one version of the bundle after the other until the platform has no newer one, and says how many.
func (a *agent) follow(ctx context.Context, door *http.Client) (steps int, err error) {
	for ; steps < maxSteps; steps++ {
		b := a.pins.current()
		if b.Version == 0 {
			return 0, nil // without an anchor nobody can say which bundle is ours
		}
		raw, _, err := a.get(ctx, door, fmt.Sprintf("/d/1/trust/%d", b.Version+1), wire.MaxBundle)
		var status *statusError
		if errors.As(err, &status) && status.status == http.StatusNotFound {
			return steps, nil
		}
		if err != nil {
			return steps, err
		}
		s, err := wire.ParseSignedBundle(raw)
		if err != nil {
			return steps, err
		}
		if b, err = a.pins.advance(s); err != nil {
			return steps, err
		}
		a.Log.Info("the platform's trust bundle", "version", b.Version)
		if err := a.time.seen(time.UnixMilli(b.Created)); err != nil {
			return steps, err
		}
	}
	return steps, nil
}

// hostOf is the name under which a door's certificate is checked.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}
