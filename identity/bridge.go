// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"bytes"
	"context"
	"crypto/x509"
	"database/sql"
	"slices"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// Bridge is a root certified by another root, or an anchor by another anchor.
type Bridge struct {
	Authority string // whose key it is about
	Signer    string
	Cert      []byte
}

func (s *Service) bridges(ctx context.Context) ([]Bridge, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT authority, signer, cert FROM bridge ORDER BY created, fp`)
	return store.Collect(rows, err, func(r *sql.Rows) (b Bridge, err error) { return b, r.Scan(&b.Authority, &b.Signer, &b.Cert) })
}

// installBridge takes a certificate over the key of a root or anchor that another one signed.
func (s *Service) installBridge(ctx context.Context, c *x509.Certificate, of Authority, all []Authority, actor string) (Installed, error) {
	x, err := of.Certificate()
	if err != nil {
		return Installed{}, err
	}
	if !bytes.Equal(c.RawSubject, x.RawSubject) || !bytes.Equal(c.SubjectKeyId, x.SubjectKeyId) {
		return Installed{}, problem.Forbidden("ca.profile", "The bridge to %s bears another name or key identifier than it.", of.ID)
	}
	by, err := aboveOf(c, of.Role, all)
	if err != nil {
		return Installed{}, err
	}
	if by.ID == of.ID {
		return Installed{}, problem.Conflict("%s has another certificate already.", of.ID)
	}
	return Installed{What: "bridge", Authority: of}, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		n, err := tx.Exec(`INSERT INTO bridge(fp, authority, signer, cert, created) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (fp) DO NOTHING`,
			Fingerprint(c.Raw), of.ID, by.ID, c.Raw, store.Millis(s.cfg.Clock.Now()))
		if err != nil || n == 0 {
			return err
		}
		return s.changed(tx, "authority.bridged", of, actor, map[string]any{"signer": by.ID, "fingerprint": Fingerprint(c.Raw)})
	})
}

// maxBridges bounds what a handshake carries: as many rollovers as a device may have slept through.
const maxBridges = 6

// bridgesTo are the bridges by which somebody who knows only other roots reaches this one: those over its key first,
// then those over the keys that signed them. Each root is reached once.
func bridgesTo(root string, all []Bridge, good func(id string) bool) (out []Bridge) {
	reached := []string{root}
	for i := 0; i < len(reached); i++ {
		for _, b := range all {
			if b.Authority != reached[i] || slices.Contains(reached, b.Signer) || !good(b.Signer) || len(out) == maxBridges {
				continue
			}
			out, reached = append(out, b), append(reached, b.Signer)
		}
	}
	return out
}

// bridged are the bridges to the root or anchor above the authority. One that was retired is still a way in for the
// device that slept since then; a compromised one never is.
func (s *Service) bridged(ctx context.Context, a Authority) ([]Bridge, error) {
	bridges, err := s.bridges(ctx)
	if err != nil || len(bridges) == 0 {
		return nil, err
	}
	all, err := s.Authorities(ctx)
	if err != nil {
		return nil, err
	}
	return bridgesTo(a.Parent, bridges, func(id string) bool {
		return slices.ContainsFunc(all, func(x Authority) bool { return x.ID == id && x.Status != Compromised })
	}), nil
}

// doorChain is what a door presents above its own certificate: the authority that signed it and the bridges to its root.
// The root itself is what the client has, or cannot trust.
func (s *Service) doorChain(ctx context.Context, id string) ([][]byte, error) {
	a, err := s.Authority(ctx, id)
	if err != nil {
		return nil, err
	}
	out := [][]byte{a.Cert}
	bridges, err := s.bridged(ctx, a)
	for _, b := range bridges {
		out = append(out, b.Cert)
	}
	return out, err
}

// CACerts are the certificates that EST clients install (RFC 7030 4.1.3): the current root, the authorities that sign
// what they enrol for now and next, and over a rollover the other roots and the bridges between them (RFC 4210 4.4:
// OldWithOld, NewWithOld, OldWithNew).
func (s *Service) CACerts(ctx context.Context) ([]*x509.Certificate, error) {
	chain, err := s.activeChain(ctx, Operational)
	if err != nil {
		return nil, err
	}
	all, err := s.Authorities(ctx)
	if err != nil {
		return nil, err
	}
	bridges, err := s.bridges(ctx)
	if err != nil {
		return nil, err
	}
	more := [][]byte{}
	good := map[string]bool{}
	for _, a := range all {
		usable := len(a.Cert) > 0 && (a.Status == Standby || a.Status == Active || a.Status == Retiring)
		if good[a.ID] = usable; usable && (a.Role == Root || a.Role == Operational) {
			more = append(more, a.Cert)
		}
	}
	for _, b := range bridges {
		if good[b.Authority] && good[b.Signer] && Role(b.Authority[:len(Root)]) == Root {
			more = append(more, b.Cert)
		}
	}
	for _, der := range more {
		if slices.ContainsFunc(chain, func(c *x509.Certificate) bool { return bytes.Equal(c.Raw, der) }) {
			continue
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		chain = append(chain, c)
	}
	return chain, nil
}
