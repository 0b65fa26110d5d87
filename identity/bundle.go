// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// BootstrapName is the server name under which the device door presents a certificate below the anchor. It is no name of
// the DNS: a device dials the address that it knows and asks for this name.
const BootstrapName = "bootstrap.openthings.internal"

// Gated is the share of commissioned devices, in per cent, that must have acknowledged a trust bundle before authorities
// below its new root begin to sign.
const Gated = 99.0

// firstBundle makes version 1 at the first start, under the anchor's key that is then still on this machine.
func (s *Service) firstBundle(ctx context.Context) error {
	if _, _, err := s.Bundle(ctx, 0); err == nil || !problem.Is(err, problem.KindNotFound) {
		return err
	}
	b, err := s.DraftBundle(ctx)
	if err != nil {
		return err
	}
	key, err := s.anchorKey(ctx)
	if err != nil {
		s.cfg.Log.Warn("there is no trust bundle: no anchor key is on this machine", slog.Any("error", err))
		return nil
	}
	signed, err := wire.SignBundle(rand.Reader, b, key)
	if err != nil {
		return err
	}
	return s.PublishBundle(ctx, signed, "system")
}

// anchorKey is the key of the active anchor, if it is on this machine.
func (s *Service) anchorKey(ctx context.Context) (crypto.Signer, error) {
	keeper, err := s.RootKeeper()
	if err != nil {
		return nil, err
	}
	a, err := s.ActiveAuthority(ctx, Anchor)
	if err != nil {
		return nil, err
	}
	return keeper.RootKey(ctx, a.ID)
}

// DraftBundle is the next version as the authorities stand now, not signed: every root and anchor that is not retired or
// compromised, and the bridges between them.
func (s *Service) DraftBundle(ctx context.Context) (wire.Bundle, error) {
	b := wire.Bundle{Version: 1, Created: store.Millis(s.cfg.Clock.Now()), Bootstrap: BootstrapName}
	switch newest, _, err := s.Bundle(ctx, 0); {
	case err == nil:
		b.Version = newest.Version + 1
	case !problem.Is(err, problem.KindNotFound):
		return b, err
	}
	all, err := s.Authorities(ctx)
	if err != nil {
		return b, err
	}
	slices.SortFunc(all, func(x, y Authority) int { return int(x.Generation - y.Generation) })
	good := map[string]bool{}
	for _, a := range all {
		if len(a.Cert) == 0 || a.Status == Retired || a.Status == Compromised {
			continue
		}
		switch a.Role {
		case Root:
			b.Roots = append(b.Roots, a.Cert)
		case Anchor:
			b.Anchors = append(b.Anchors, a.Cert)
		default:
			continue
		}
		good[a.ID] = true
	}
	bridges, err := s.bridges(ctx)
	if err != nil {
		return b, err
	}
	for _, x := range bridges {
		if good[x.Authority] && good[x.Signer] {
			b.Bridges = append(b.Bridges, x.Cert)
		}
	}
	return b, nil
}

// SignBundle signs the draft with the anchor's key that is still on this machine.
func (s *Service) SignBundle(ctx context.Context) (wire.SignedBundle, error) {
	b, err := s.DraftBundle(ctx)
	if err != nil {
		return wire.SignedBundle{}, err
	}
	key, err := s.anchorKey(ctx)
	if err != nil {
		return wire.SignedBundle{}, problem.Forbidden("ca.anchor-away", "The anchor's key is not on this machine, as it should be.").
			Hint("openthings ca bundle draft writes what is to be signed; openthings ca bundle sign signs it where the recovery file is.").Because(err)
	}
	return wire.SignBundle(rand.Reader, b, key)
}

// PublishBundle makes a signed bundle the newest one. It must follow the one before, and name every root and anchor whose
// authorities are in use: a bundle that forgets one would cut devices off.
func (s *Service) PublishBundle(ctx context.Context, signed wire.SignedBundle, actor string) error {
	raw, err := json.Marshal(signed)
	if err != nil {
		return problem.Invalid("This is not a trust bundle.").Because(err)
	}
	next, err := wire.ParseBundle(signed.Bundle)
	if err != nil {
		return problem.Invalid("This is not a trust bundle.").Because(err)
	}
	if err := s.keepBundles(ctx); err != nil { // a version that a restore took away is never given to another one
		return problem.Unavailable("Which trust bundles were published before a restore cannot be read from their journal.").Because(err)
	}
	switch before, old, err := s.Bundle(ctx, 0); {
	case problem.Is(err, problem.KindNotFound):
		if _, err := signed.Pin(); err != nil || next.Version != 1 {
			return problem.Forbidden("ca.bundle", "The first trust bundle is version 1 and signed by its own anchor.").Because(err)
		}
	case err != nil:
		return err
	case before.Version == next.Version && bytes.Equal(old, raw):
		return nil
	default:
		if _, err := signed.Verify(before); err != nil {
			return problem.Forbidden("ca.bundle", "The trust bundle does not follow version %d.", before.Version).Because(err)
		}
	}
	if err := s.covers(ctx, next); err != nil {
		return err
	}
	if err := s.putBundle(ctx, next, raw, actor, "bundle.published"); err != nil {
		return err
	}
	if err := s.keepBundles(ctx); err != nil { // it is published all the same; Work goes on
		s.cfg.Log.Error("the trust bundle is not in its journal yet; it is tried again", slog.Any("error", err))
	}
	return nil
}

// covers refuses a bundle that forgets a root or anchor which is in use, or names one that is not known here.
func (s *Service) covers(ctx context.Context, b wire.Bundle) error {
	all, err := s.Authorities(ctx)
	if err != nil {
		return err
	}
	for _, a := range all {
		if a.Role.Above() != a.Role || a.Status != Active && a.Status != Retiring {
			continue
		}
		list := b.Roots
		if a.Role == Anchor {
			list = b.Anchors
		}
		if !slices.ContainsFunc(list, func(der []byte) bool { return bytes.Equal(der, a.Cert) }) {
			return problem.Forbidden("ca.bundle", "The trust bundle forgets %s, which is %s.", a.ID, a.Status).
				Hint("Devices that follow it would refuse the platform. openthings ca bundle draft writes the right one.")
		}
	}
	for _, der := range slices.Concat(b.Roots, b.Anchors) {
		if !slices.ContainsFunc(all, func(a Authority) bool { return bytes.Equal(a.Cert, der) && a.Status != Compromised }) {
			return problem.Forbidden("ca.bundle", "The trust bundle names a root or anchor that is not known here, or compromised: %s.", Fingerprint(der))
		}
	}
	return nil
}

// Bundle returns a version of the trust bundle and its signed bytes; version 0 is the newest.
func (s *Service) Bundle(ctx context.Context, version int64) (b wire.Bundle, signed []byte, err error) {
	q, args := `SELECT bytes FROM trust_bundle ORDER BY version DESC LIMIT 1`, []any{}
	if version != 0 {
		q, args = `SELECT bytes FROM trust_bundle WHERE version = $1`, []any{version}
	}
	err = s.cfg.DB.QueryRow(ctx, q, args...).Scan(&signed)
	if errors.Is(err, store.ErrNoRows) {
		return b, nil, problem.NotFound("There is no such trust bundle.")
	}
	if err != nil {
		return b, nil, err
	}
	w, err := wire.ParseSignedBundle(signed)
	if err == nil {
		b, err = wire.ParseBundle(w.Bundle)
	}
	return b, signed, err
}

// SignedBundle is the newest trust bundle for a device to pin; nil if there is none.
func (s *Service) SignedBundle(ctx context.Context) (*wire.SignedBundle, error) {
	_, raw, err := s.Bundle(ctx, 0)
	if problem.Is(err, problem.KindNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	w, err := wire.ParseSignedBundle(raw)
	return &w, err
}

// Bundles lists the versions, the newest first.
func (s *Service) Bundles(ctx context.Context, before int64, limit int) ([]BundleOut, error) {
	if before <= 0 {
		before = 1 << 62
	}
	rows, err := s.cfg.DB.Query(ctx, `SELECT bytes, created FROM trust_bundle WHERE version < $1 ORDER BY version DESC LIMIT $2`, before, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (o BundleOut, err error) {
		var raw []byte
		var created int64
		if err := r.Scan(&raw, &created); err != nil {
			return o, err
		}
		w, err := wire.ParseSignedBundle(raw)
		if err != nil {
			return o, err
		}
		b, err := wire.ParseBundle(w.Bundle)
		o = BundleOut{Version: b.Version, Created: store.Time(created), Digest: wire.Digest(raw), Bootstrap: b.Bootstrap, Roots: describe(b.Roots),
			Anchors: describe(b.Anchors), Bridges: describe(b.Bridges)}
		for _, g := range w.Signatures {
			o.SignedBy = append(o.SignedBy, g.KeyID)
		}
		return o, err
	})
}

// BundleOut is a trust bundle for people and programs.
type BundleOut struct {
	Version   int64     `json:"version"`
	Created   time.Time `json:"created"`
	Digest    string    `json:"digest" doc:"Of the signed bytes"`
	Bootstrap string    `json:"bootstrap" doc:"Server name of the bootstrap door"`
	Roots     []CertOut `json:"roots"`
	Anchors   []CertOut `json:"anchors"`
	Bridges   []CertOut `json:"bridges"`
	SignedBy  []string  `json:"signed_by" doc:"Key identifiers of the anchors that signed"`
}

// CertOut names a certificate of a bundle.
type CertOut struct {
	Subject     string    `json:"subject"`
	Issuer      string    `json:"issuer"`
	KeyID       string    `json:"key_id" doc:"Subject key identifier, hex"`
	Fingerprint string    `json:"fingerprint" doc:"Hex SHA-256 of the DER"`
	NotAfter    time.Time `json:"not_after"`
}

func describe(list [][]byte) []CertOut {
	out := []CertOut{}
	for _, der := range list {
		if c, err := x509.ParseCertificate(der); err == nil {
			out = append(out, CertOut{c.Subject.String(), c.Issuer.String(), hex.EncodeToString(c.SubjectKeyId), Fingerprint(der), c.NotAfter})
		}
	}
	return out
}
