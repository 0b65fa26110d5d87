// SPDX-License-Identifier: AGPL-3.0-only

package sim

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/ceremony"
	"github.com/openthings-platform/openthings/wire"
)

// hostName is what the platform's door is called.
const hostName = "things.example"

// errDistrust is a device that can verify neither door of the platform.
var errDistrust = errors.New("sim: the device cannot verify the platform")

// trust is the platform's side of what devices verify, and what they make of it: the same for all that go by one
// version of the bundle.
type trust struct {
	serve   func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	root    ceremony.Held   // the newest
	anchor  ceremony.Held   // for life
	bundles []wire.Bundle   // by version from 1 on, each verified by the one before; [0] is empty
	standby []string        // authorities that wait for the gate
	doors   map[string]door // by server name, as of this slice
}

// door is what the platform shows under a server name, and which versions of the bundle verify it.
type door struct {
	leaf     *x509.Certificate
	verified []bool
}

// openTrust takes the keys of the first root and anchor from where the issuer made them.
func (f *fleet) openTrust(ctx context.Context) (err error) {
	t := &trust{bundles: []wire.Bundle{{}}, doors: map[string]door{}}
	for role, h := range map[identity.Role]*ceremony.Held{identity.Root: &t.root, identity.Anchor: &t.anchor} {
		a, err := f.svc.Authority(ctx, identity.AuthorityID(role, 1))
		if err != nil {
			return err
		}
		h.ID, h.Role = a.ID, role
		if h.Cert, err = a.Certificate(); err != nil {
			return err
		}
		if h.Key, err = f.issuer.RootKey(ctx, a.ID); err != nil {
			return err
		}
	}
	f.trust = t
	if err := f.follow(ctx); err != nil {
		return err
	}
	t.serve, err = f.svc.ServerTLS([]string{hostName})
	return err
}

// follow goes to the newest trust bundle as a device does: each version is verified by the one before.
func (f *fleet) follow(ctx context.Context) error {
	for {
		last := len(f.trust.bundles) - 1
		newest, _, err := f.svc.Bundle(ctx, 0)
		if err != nil || newest.Version == int64(last) {
			return err
		}
		_, raw, err := f.svc.Bundle(ctx, int64(last)+1)
		if err != nil {
			return err
		}
		signed, err := wire.ParseSignedBundle(raw)
		if err != nil {
			return err
		}
		next, err := signed.Pin()
		if last > 0 {
			next, err = signed.Verify(f.trust.bundles[last])
		}
		if err != nil {
			return err
		}
		f.trust.bundles = append(f.trust.bundles, next)
	}
}

// look works out who can verify the doors now.
func (f *fleet) look() error {
	for _, name := range []string{hostName, identity.BootstrapName} {
		c, err := f.trust.serve(&tls.ClientHelloInfo{ServerName: name})
		if err != nil {
			return err
		}
		d := f.trust.doors[name]
		if d.leaf == c.Leaf && len(d.verified) == len(f.trust.bundles) {
			continue
		}
		d = door{leaf: c.Leaf, verified: make([]bool, len(f.trust.bundles))}
		for v, b := range f.trust.bundles {
			roots, between := b.RootPool(), b.BridgePool()
			if name == identity.BootstrapName {
				roots = b.AnchorPool()
			}
			for _, der := range c.Certificate[1:] {
				x, err := x509.ParseCertificate(der)
				if err != nil {
					return err
				}
				between.AddCert(x)
			}
			_, err := c.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: name, CurrentTime: f.clock.Now()})
			d.verified[v] = err == nil
		}
		f.trust.doors[name] = d
	}
	return nil
}

// reach verifies the platform. A device that does not know the root of today goes to the bootstrap door first; either
// way it goes by the newest bundle afterwards and says so.
func (f *fleet) reach(ctx context.Context, d *device) error {
	newest := int64(len(f.trust.bundles) - 1)
	if !f.trust.doors[hostName].verified[d.bundle] {
		if !f.trust.doors[identity.BootstrapName].verified[d.bundle] {
			return errDistrust
		}
		f.count.bootstraps.Add(1)
		if !f.trust.doors[hostName].verified[newest] {
			return errDistrust
		}
	}
	if d.bundle == newest {
		return nil
	}
	d.bundle = newest
	return f.svc.AckBundle(ctx, tenantID, d.id, newest)
}

// ceremony makes a new root and, below it, the next authorities for devices and doors. With bridges the old and the new
// root certify each other; without them, as after the theft of the old root's key, only the bootstrap door helps a
// device that was away.
func (f *fleet) ceremony(ctx context.Context, generation int64, bridges bool) error {
	t, now := f.trust, f.clock.Now()
	made, err := ceremony.Make(ceremony.Options{Organization: "Simulation", Generation: generation, Algorithm: identity.AlgP256, Now: now})
	if err != nil {
		return err
	}
	next, err := made.Of(identity.Root)
	if err != nil {
		return err
	}
	install := func(c *x509.Certificate) error {
		_, err := f.svc.InstallAuthority(ctx, c.Raw, "per_sim")
		return err
	}
	if err := install(next.Cert); err != nil {
		return err
	}
	if bridges {
		between, err := ceremony.CrossSign(t.root, next, now)
		if err != nil {
			return err
		}
		for _, c := range between {
			if err := install(c); err != nil {
				return err
			}
		}
	}
	t.root = next
	for _, role := range []identity.Role{identity.Operational, identity.Server} {
		a, der, err := f.svc.RequestAuthority(ctx, role, identity.AlgP256, "per_sim")
		if err != nil {
			return err
		}
		req, err := ceremony.ParseRequest(der)
		if err != nil {
			return err
		}
		c, err := made.Certify(req, now)
		if err != nil {
			return err
		}
		if err := install(c); err != nil {
			return err
		}
		t.standby = append(t.standby, a.ID)
	}
	signed, err := f.svc.SignBundle(ctx)
	if err != nil {
		return err
	}
	if err := f.svc.PublishBundle(ctx, signed, "per_sim"); err != nil {
		return err
	}
	return f.follow(ctx)
}

// needed is the share of the fleet, in per cent, that must know the new root before it signs. A tenth of this fleet is
// away for months, so the usual 99 would never come.
const needed = 80

// promote puts the waiting authorities into service.
func (f *fleet) promote(ctx context.Context) error {
	for _, id := range f.trust.standby {
		if _, err := f.svc.PromoteAuthority(ctx, id, needed, "", "per_sim"); err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
	}
	f.trust.standby = nil
	f.report.Rollovers++
	return nil
}
