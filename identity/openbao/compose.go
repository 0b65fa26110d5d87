// SPDX-License-Identifier: AGPL-3.0-only

package openbao

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/problem"
)

// Roles are those whose authorities the engine holds. Root, anchor and what stands for the doors stay with the platform:
// the doors must open while the engine is away.
var Roles = []identity.Role{identity.Factory, identity.Operational}

// Beside are the issuing roles that stay embedded.
var Beside = slices.DeleteFunc(slices.Clone(identity.Roles), func(r identity.Role) bool { return slices.Contains(Roles, r) })

// Composed is the embedded issuer with the roots, and the engine below them. An authority belongs for life to where its
// key was made: what the embedded issuer holds goes on there, so that a platform that ran without an engine changes to
// one by the rotation of its authorities, and back.
type Composed struct {
	*embedded.Issuer
	engine *Issuer
}

// Compose joins both.
func Compose(base *embedded.Issuer, engine *Issuer) *Composed { return &Composed{base, engine} }

// holder is where the key of the authority is.
func (c *Composed) holder(ctx context.Context, id string) (interface {
	identity.Issuer
	identity.Rotator
	identity.CRLSigner
}, error) {
	own, err := c.Issuer.Authorities(ctx)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(own, func(h identity.Held) bool { return h.ID == id }) {
		return c.Issuer, nil
	}
	if h, ok := held(id); ok && slices.Contains(Roles, h.Role) {
		return c.engine, nil
	}
	return c.Issuer, nil
}

// Authorities implements identity.Issuer. While the engine is away it returns what is here, and the error.
func (c *Composed) Authorities(ctx context.Context) ([]identity.Held, error) {
	own, err := c.Issuer.Authorities(ctx)
	if err != nil {
		return nil, err
	}
	theirs, err := c.engine.Authorities(ctx)
	if err != nil {
		return own, err
	}
	for i, h := range theirs {
		if len(h.Cert) == 0 {
			continue
		}
		if theirs[i].Parent, err = above(h, own); err != nil {
			return nil, err
		}
	}
	return append(own, theirs...), nil
}

// above names the root that signed the authority.
func above(h identity.Held, own []identity.Held) (string, error) {
	c, err := x509.ParseCertificate(h.Cert)
	if err != nil {
		return "", err
	}
	for _, r := range own {
		if r.Role != h.Role.Above() || len(r.Cert) == 0 {
			continue
		}
		if p, err := x509.ParseCertificate(r.Cert); err == nil && c.CheckSignatureFrom(p) == nil {
			return r.ID, nil
		}
	}
	return "", problem.Conflict("%s in the PKI engine was signed by no %s of this platform.", h.ID, h.Role.Above()).
		Hint("Another platform uses this mount, or this one lost its data folder. Each platform needs a mount of its own.")
}

// Found prepares the engine, and makes the first authority of each of its roles that has none anywhere. A repeat goes on
// where the last one was cut off.
func (c *Composed) Found(ctx context.Context, organization string) error {
	if err := c.engine.Setup(ctx); err != nil {
		return err
	}
	all, err := c.Authorities(ctx)
	if err != nil {
		return err
	}
	for _, r := range Roles {
		if slices.ContainsFunc(all, func(h identity.Held) bool { return h.Role == r && len(h.Cert) > 0 }) {
			continue
		}
		id := identity.AuthorityID(r, 1)
		name := pkix.Name{Organization: []string{organization}, CommonName: "OpenThings " + embedded.Title(r)}
		csr, err := c.engine.Generate(ctx, id, r, identity.AlgP256, name)
		if err != nil {
			return err
		}
		life := embedded.OtherLife
		if r == identity.Factory {
			life = embedded.RootLife
		}
		der, err := c.Certify(identity.AuthorityID(r.Above(), 1), r, csr, life)
		if err != nil {
			return err
		}
		if err := c.engine.Install(ctx, id, der); err != nil {
			return err
		}
	}
	return nil
}

// Sign implements identity.Issuer.
func (c *Composed) Sign(ctx context.Context, r identity.SignRequest) ([]byte, error) {
	h, err := c.holder(ctx, r.Authority)
	if err != nil {
		return nil, err
	}
	return h.Sign(ctx, r)
}

// Revoke implements identity.Issuer.
func (c *Composed) Revoke(ctx context.Context, authority string, serial *big.Int, at time.Time) error {
	h, err := c.holder(ctx, authority)
	if err != nil {
		return err
	}
	return h.Revoke(ctx, authority, serial, at)
}

// Health implements identity.Issuer.
func (c *Composed) Health(ctx context.Context) error {
	return errors.Join(c.Issuer.Health(ctx), c.engine.Health(ctx))
}

// Generate implements identity.Rotator: new authorities of the engine's roles are made there.
func (c *Composed) Generate(ctx context.Context, id string, r identity.Role, alg identity.Algorithm, name pkix.Name) ([]byte, error) {
	if slices.Contains(Roles, r) {
		return c.engine.Generate(ctx, id, r, alg, name)
	}
	return c.Issuer.Generate(ctx, id, r, alg, name)
}

// Install implements identity.Rotator.
func (c *Composed) Install(ctx context.Context, id string, cert []byte) error {
	h, err := c.holder(ctx, id)
	if err != nil {
		return err
	}
	return h.Install(ctx, id, cert)
}

// SignCRL implements identity.CRLSigner.
func (c *Composed) SignCRL(ctx context.Context, authority string, list *x509.RevocationList) ([]byte, error) {
	h, err := c.holder(ctx, authority)
	if err != nil {
		return nil, err
	}
	return h.SignCRL(ctx, authority, list)
}

// Kept implements identity.Reconciler.
func (c *Composed) Kept(ctx context.Context, each func([]*big.Int) error) error {
	return c.engine.Kept(ctx, each)
}

// Certificate implements identity.Reconciler.
func (c *Composed) Certificate(ctx context.Context, serial *big.Int) ([]byte, bool, error) {
	return c.engine.Certificate(ctx, serial)
}

// Work keeps the engine's token alive until ctx ends.
func (c *Composed) Work(ctx context.Context) error { return c.engine.Work(ctx) }
