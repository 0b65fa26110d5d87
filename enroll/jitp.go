// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// Admit is identity's, and holds a certificate of birth that a trusted CA brought against that CA's revocation lists at
// every knock: its maker may have revoked it since.
func (s *Service) Admit(ctx context.Context, cert *x509.Certificate) (gateway.Peer, error) {
	p, err := s.cfg.Identity.Admit(ctx, cert)
	if err != nil || p.Kind != gateway.IDevID {
		return p, err
	}
	var ca string
	var path []byte
	err = s.cfg.DB.QueryRow(ctx, `SELECT ca, path FROM brought WHERE fp = $1`, p.Fingerprint).Scan(&ca, &path)
	if errors.Is(err, store.ErrNoRows) {
		return p, nil
	}
	if err != nil {
		return gateway.Peer{}, problem.Unavailable("What trusted CAs brought cannot be read.").Because(err)
	}
	c, err := s.TrustedCA(ctx, p.Tenant, ca)
	if err != nil {
		return gateway.Peer{}, err
	}
	chain, err := x509.ParseCertificates(path)
	if err != nil {
		return gateway.Peer{}, err
	}
	if err := s.notRevoked(ctx, c, append([]*x509.Certificate{cert}, chain...)); err != nil {
		s.tellRefused(ctx, c, cert, err)
		return gateway.Peer{}, err
	}
	return p, nil
}

// newcomer is a certificate of birth that a trusted CA vouches for.
type newcomer struct {
	ca     TrustedCA
	leaf   *x509.Certificate
	path   []*x509.Certificate // authorities between leaf and CA
	mapped Mapped
	signed bool // the CA has signed it, whatever else is said of it
}

// Vouch says whether a trusted CA, or a claim certificate's token, answers for a certificate that the register does not
// know. It changes nothing: nobody has proven yet to hold the key. A claim certificate has a name, a newcomer gets one
// from Introduce.
func (s *Service) Vouch(ctx context.Context, chain []*x509.Certificate) (gateway.Peer, error) {
	if err := s.cfg.Identity.Ready(); err != nil {
		return gateway.Peer{}, err
	}
	fp := identity.Fingerprint(chain[0].Raw)
	t, err := tokenBySecret(s.reads(ctx), fp)
	if err == nil {
		if err := t.open(s.now()); err != nil {
			return gateway.Peer{}, err
		}
		return gateway.Peer{Kind: gateway.Claim, Tenant: t.Tenant, Station: t.ID, Fingerprint: fp}, nil
	}
	if !problem.Is(err, problem.KindNotFound) {
		return gateway.Peer{}, problem.Unavailable("The tokens cannot be read.").Because(err)
	}
	n, err := s.newcomer(ctx, chain)
	if err != nil {
		p, err := s.meanwhile(ctx, chain[0], err)
		if err != nil && n.signed {
			s.tellRefused(ctx, n.ca, n.leaf, err)
		}
		return p, err
	}
	return gateway.Peer{Kind: gateway.IDevID, Tenant: n.ca.Tenant, Fingerprint: fp, Stranger: true}, nil
}

// newcomer finds the one trusted CA that a chain leads to and reads the device out of it. With a refusal it returns whom that
// CA has signed, if it was one of the tenant's.
func (s *Service) newcomer(ctx context.Context, chain []*x509.Certificate) (n newcomer, err error) {
	unknown := problem.Forbidden("identity.unknown", "This certificate is not in the register, and no trusted CA has signed it.")
	if len(chain) > 1+maxBelow {
		return n, problem.Forbidden(RuleCAChain, "A device sends at most %d authorities along.", maxBelow)
	}
	var hashes []string
	for _, c := range chain {
		hashes = append(hashes, subjectHash(c.RawIssuer))
	}
	cas, err := s.casNamed(ctx, hashes)
	if err != nil {
		return n, problem.Unavailable("The trusted CAs cannot be read.").Because(err)
	}
	var found []newcomer
	err = unknown
	for _, ca := range cas {
		one, refusal := s.judge(ctx, ca, chain)
		if refusal == nil {
			found = append(found, one)
		} else if problem.Of(err).Rule == unknown.Rule {
			n, err = one, refusal // the first clear word
		}
	}
	found = nearest(found)
	if len(found) > 1 {
		return newcomer{}, problem.Forbidden(RuleCAShared, "More than one tenant expects the serial number %s.", found[0].mapped.Serial)
	}
	if len(found) == 0 {
		return n, err
	}
	return found[0], nil
}

// nearest leaves those with the fewest authorities between the device and the proven key. Anybody can sign a certificate
// over another's CA key and put it below a CA of its own: that must not outweigh the one who has proven the key itself.
func nearest(found []newcomer) []newcomer {
	least := maxBelow
	for _, n := range found {
		least = min(least, len(n.path))
	}
	return slices.DeleteFunc(found, func(n newcomer) bool { return len(n.path) > least })
}

// judge holds a chain against one trusted CA: signatures and validity, usage and key, mapping, preauthorisation,
// revocation lists.
func (s *Service) judge(ctx context.Context, ca TrustedCA, chain []*x509.Certificate) (newcomer, error) {
	n := newcomer{ca: ca, leaf: chain[0]}
	path, err := ca.verify(chain, s.now())
	if err != nil {
		return n, err
	}
	n.path, n.signed = path, true
	if err := ca.open(s.now()); err != nil {
		return n, err
	}
	if n.mapped, err = ca.Policy.Mapping.Read(n.leaf); err != nil {
		return n, err
	}
	if ca.listed() {
		rev, err := s.cfg.Products.Revision(ctx, ca.Tenant, n.mapped.Revision)
		if err != nil {
			return n, err
		}
		if _, err := preauthorisedSerial(s.reads(ctx), ca.Tenant, rev.Product, n.mapped.Serial); errors.Is(err, store.ErrNoRows) {
			return n, problem.Forbidden(RuleListed, "The serial number %s is not preauthorised, and the trusted CA brings no other.", n.mapped.Serial)
		} else if err != nil {
			return n, err
		}
	}
	return n, s.notRevoked(ctx, ca, append([]*x509.Certificate{n.leaf}, n.path...))
}

// verify returns the authorities between the device's certificate and the CA.
func (c TrustedCA) verify(chain []*x509.Certificate, now time.Time) ([]*x509.Certificate, error) {
	leaf := chain[0]
	no := func(format string, args ...any) ([]*x509.Certificate, error) {
		return nil, problem.Forbidden(RuleCAChain, format, args...)
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(c.cert)
	for _, x := range slices.Concat(c.below, chain[1:]) {
		between.AddCert(x)
	}
	paths, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return no("The certificate does not lead to the trusted CA %s: %v.", c.Name, err)
	}
	path := paths[0][1 : len(paths[0])-1]
	client := len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0 || slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) || slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny)
	keys := c.Policy.Keys
	if len(keys) == 0 {
		keys = []string{string(identity.AlgP256), string(identity.AlgP384)}
	}
	why := identity.Weakness(leaf.PublicKey)
	switch {
	case len(path) > maxBelow:
		return no("%d authorities stand between the certificate and the trusted CA.", len(path))
	case leaf.IsCA:
		return no("The certificate is that of an authority.")
	case !client || leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return no("The certificate is not for TLS client authentication (IEEE 802.1AR 8.10).")
	case !slices.Contains(keys, kindOfKey(leaf)):
		return no("The key must be %s.", strings.Join(keys, " or "))
	case why != "":
		return nil, problem.Forbidden(identity.RuleWeakKey, "Others can compute this private key: %s.", why)
	}
	return path, nil
}

func kindOfKey(c *x509.Certificate) string {
	if c.PublicKeyAlgorithm == x509.RSA {
		return keyRSA
	}
	return string(identity.AlgorithmOf(c.PublicKey))
}

// Introduce registers a device on its first connect, once it has proven to hold the key of a certificate that a trusted
// CA vouches for: its row, its certificate and its place in the lobby or solution in one transaction. Any number of
// connects at once have one outcome.
func (s *Service) Introduce(ctx context.Context, chain []*x509.Certificate, from string) (gateway.Peer, error) {
	n, err := s.newcomer(ctx, chain)
	if err != nil {
		return s.meanwhile(ctx, chain[0], err)
	}
	rev, err := s.cfg.Products.Revision(ctx, n.ca.Tenant, n.mapped.Revision)
	if err != nil {
		return gateway.Peer{}, err
	}
	keyHash := identity.KeyHash(n.leaf.RawSubjectPublicKeyInfo)
	if err := s.ask(ctx, Question{Kind: AskRegister, Tenant: n.ca.Tenant, Product: rev.Product, Serial: n.mapped.Serial, Key: keyHash}); err != nil {
		return gateway.Peer{}, err
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.register(tx, n, rev.Product) })
	if err != nil {
		if p, refusal := s.meanwhile(ctx, n.leaf, err); refusal == nil {
			return p, nil
		}
		err = s.suspect(ctx, err, Sighting{by: n.ca.ID, Door: ByCA, Place: place(from), Key: keyHash, Serial: n.mapped.Serial, Detail: "a certificate of the trusted CA " + n.ca.ID}, n.ca.Tenant, rev.Product)
		return gateway.Peer{}, s.refusedByCA(ctx, n.ca, n.leaf, n.mapped.Serial, err)
	}
	return s.Admit(ctx, n.leaf)
}

// meanwhile is who the certificate belongs to if another connect of the same device was faster, and else the refusal.
func (s *Service) meanwhile(ctx context.Context, cert *x509.Certificate, refusal error) (gateway.Peer, error) {
	p, err := s.Admit(ctx, cert)
	if err != nil {
		return gateway.Peer{}, refusal
	}
	return p, nil
}

// register makes the device and certificate of a newcomer known.
func (s *Service) register(tx *store.Tx, n newcomer, product string) error {
	ca, now := n.ca, s.now()
	if err := s.noTombstone(tx, ca.Tenant, product, n.mapped.Serial, identity.KeyHash(n.leaf.RawSubjectPublicKeyInfo)); err != nil {
		return err
	}
	if err := takeFromCA(tx, ca, now); err != nil {
		return err
	}
	if _, err := s.cfg.Identity.BySerialTx(tx, ca.Tenant, product, n.mapped.Serial); err == nil {
		return errSerialTaken(n.mapped.Serial)
	} else if !problem.Is(err, problem.KindNotFound) {
		return err
	}
	announced, err := s.Preauthorised(tx, ca.Tenant, product, n.mapped.Serial)
	isAnnounced := err == nil
	if err != nil && (ca.listed() || problem.Of(err).Rule != RuleListed) {
		return err
	}
	d, err := s.cfg.Identity.Register(tx, identity.Device{Tenant: ca.Tenant, Product: product, Revision: n.mapped.Revision, Serial: n.mapped.Serial, Origin: ca.ID}, ca.ID)
	if err != nil {
		return err
	}
	c, err := s.cfg.Identity.Adopt(tx, d, n.leaf, ca.ID, ca.ID)
	if err != nil {
		return err
	}
	if isAnnounced {
		if err := s.UsePreauthorised(tx, announced, d.ID); err != nil {
			return err
		}
	}
	var path []byte
	for _, x := range n.path {
		path = append(path, x.Raw...)
	}
	_, err = tx.Exec(`INSERT INTO brought(fp, tenant, ca, device, issuer, serial, path, at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		c.Fingerprint, ca.Tenant, ca.ID, d.ID, subjectHash(n.leaf.RawIssuer), n.leaf.SerialNumber.Text(16), append([]byte{}, path...), store.Millis(now))
	if err != nil {
		return err
	}
	return s.seat(tx, d, ca.Policy.Solution, ByCA, ca.ID, map[string]string{"ca": ca.ID, "issuer": n.leaf.Issuer.String(), "subject": n.leaf.Subject.String(), "fingerprint": c.Fingerprint})
}

// seat puts a new device straight into a solution, or into the lobby without one.
func (s *Service) seat(tx *store.Tx, d identity.Device, solution, how, actor string, evidence any) error {
	if solution == "" {
		return s.Wait(tx, d.Tenant, d.ID, how, evidence)
	}
	if err := s.cfg.Identity.SetSolution(tx, d.Tenant, d.ID, solution); err != nil {
		return err
	}
	return s.cfg.Identity.SetState(tx, d.Tenant, d.ID, identity.Pending, actor, "")
}

// noTombstone refuses a serial number or key whose device was taken out of service for ever: no other way in brings it
// back, whoever vouches for it.
func (s *Service) noTombstone(tx *store.Tx, tenant, product, serial, keyHash string) error {
	var ids []string
	d, err := s.cfg.Identity.BySerialTx(tx, tenant, product, serial)
	if err == nil {
		ids = append(ids, d.ID)
	} else if !problem.Is(err, problem.KindNotFound) {
		return err
	}
	c, err := s.cfg.Identity.CertificateOfKey(tx, tenant, keyHash)
	if err == nil && c.Kind != identity.Station {
		ids = append(ids, c.Subject)
	} else if err != nil && !problem.Is(err, problem.KindNotFound) {
		return err
	}
	for _, id := range ids {
		d, err := s.cfg.Identity.GetTx(tx, tenant, id)
		if err != nil {
			return err
		}
		if d.State.Barred() {
			return problem.Forbidden(RuleTombstone, "The device %s is %s for ever; neither its serial number nor its key comes back.", d.Serial, d.State)
		}
	}
	return nil
}
