// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/store"
)

// Reconciler is an Issuer that keeps what it signed, and so can hold certificates that the register never learnt of.
type Reconciler interface {
	// Kept hands on the serial numbers of everything that the issuer keeps, at most 1,000 at a time, until each fails.
	Kept(ctx context.Context, each func(serials []*big.Int) error) error
	// Certificate returns one of them, and whether the issuer lists it as revoked.
	Certificate(ctx context.Context, serial *big.Int) (der []byte, revoked bool, err error)
}

// settled is how old a certificate is before its absence from the register counts: between signature and commit lie
// seconds. The beginning of the validity is earlier than the signature by the profile's slack.
const settled = 10 * time.Minute

// Reconcile revokes, at an issuer that keeps certificates, those that one of our authorities signed and the register
// does not know: the platform died between signature and commit, or somebody else used the issuer. None of them opens a
// door of ours, since the register is asked there; a third party that trusts the authority learns it from the issuer's
// own list. Each is a leaf of the log. It returns how many there were.
func (s *Service) Reconcile(ctx context.Context) (found int, err error) {
	r, ok := s.cfg.Issuer.(Reconciler)
	if !ok {
		return 0, nil
	}
	authorities, err := s.Authorities(ctx)
	if err != nil {
		return 0, err
	}
	err = r.Kept(ctx, func(serials []*big.Int) error {
		known, err := s.knownSerials(ctx, serials)
		if err != nil {
			return err
		}
		for _, n := range serials {
			if known[n.Text(16)] {
				continue
			}
			fresh, err := s.disown(ctx, r, authorities, n)
			if err != nil {
				return err
			}
			if fresh {
				found++
			}
		}
		return nil
	})
	if err != nil {
		err = fmt.Errorf("identity: what the issuer keeps: %w", err)
	}
	return found, err
}

// knownSerials are those that a certificate of the register has.
func (s *Service) knownSerials(ctx context.Context, serials []*big.Int) (map[string]bool, error) {
	texts := make([]string, len(serials))
	for i, n := range serials {
		texts[i] = n.Text(16)
	}
	in, args := store.In(nil, texts)
	known := map[string]bool{}
	rows, err := s.cfg.DB.Query(ctx, `SELECT serial FROM certificate WHERE serial IN `+in, args...)
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var text string
		err := r.Scan(&text)
		known[text] = true
		return struct{}{}, err
	})
	return known, err
}

// disown revokes a certificate that the register does not know, at the issuer, and says whether it was one.
func (s *Service) disown(ctx context.Context, r Reconciler, authorities []Authority, n *big.Int) (bool, error) {
	der, revoked, err := r.Certificate(ctx, n)
	if err != nil || revoked {
		return false, err
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return false, fmt.Errorf("identity: certificate %s at the issuer: %w", n.Text(16), err)
	}
	signer := signedBy(c, authorities)
	now := s.cfg.Clock.Now()
	if signer == "" || !now.Before(c.NotAfter) || now.Before(c.NotBefore.Add(slackOf(c)+settled)) {
		return false, nil
	}
	if err := s.cfg.Issuer.Revoke(ctx, signer, n, now); err != nil {
		return false, err
	}
	keyHash := KeyHash(c.RawSubjectPublicKeyInfo)
	tenant, subject, err := s.intended(ctx, keyHash)
	if err != nil {
		return false, err
	}
	s.cfg.Log.WarnContext(ctx, "the issuer held a certificate that the register does not know; it is revoked there", "authority", signer, "serial", n.Text(16), "subject", subject)
	return true, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: "system", Kind: "certificate.disowned", Subject: subject, Data: map[string]any{
			"authority": signer, "serial": n.Text(16), "fingerprint": Fingerprint(der), "key_hash": keyHash, "name": c.Subject.String()}})
	})
}

// signedBy names the authority that signed c; empty if it is none of ours.
func signedBy(c *x509.Certificate, authorities []Authority) string {
	for _, a := range authorities {
		if len(a.Cert) == 0 {
			continue
		}
		if p, err := a.Certificate(); err == nil && c.CheckSignatureFrom(p) == nil {
			return a.ID
		}
	}
	return ""
}

// slackOf is the slack of the profile that c looks like.
func slackOf(c *x509.Certificate) time.Duration {
	if len(c.URIs) == 1 && len(c.Subject.SerialNumber) == 0 {
		return Profiles[Station].Slack
	}
	return Profiles[LDevID].Slack
}

// intended says whose certificate was wanted for the key. A key that nobody here wanted one for belongs to nobody: the
// leaf is the platform's, under the authority's serial number.
func (s *Service) intended(ctx context.Context, keyHash string) (tenant, subject string, err error) {
	err = s.cfg.DB.QueryRow(ctx, `SELECT tenant, subject FROM issue_intent WHERE key_hash = $1`, keyHash).Scan(&tenant, &subject)
	if errors.Is(err, store.ErrNoRows) {
		return "", "issuer", nil
	}
	return tenant, subject, err
}
