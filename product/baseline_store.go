// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"context"
	"database/sql"
	"errors"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

// SetBaseline makes b the product's baseline from now on, as its next version. A baseline that demands nothing ends
// the demand. The same again changes nothing.
func (s *Service) SetBaseline(ctx context.Context, tenant, product string, b Baseline, actor string) (BaselineVersion, error) {
	if err := b.check(); err != nil {
		return BaselineVersion{}, err
	}
	if s.cfg.Sign == nil {
		return BaselineVersion{}, problem.Unavailable("This platform has no key to sign a baseline with.")
	}
	if _, err := s.Get(ctx, tenant, product); err != nil {
		return BaselineVersion{}, err
	}
	now, err := s.Baseline(ctx, tenant, product)
	if err != nil {
		return BaselineVersion{}, err
	}
	v := BaselineVersion{Baseline: b, Product: product, Version: now.Version + 1, Actor: actor, Created: store.Time(store.Millis(s.cfg.Clock.Now()))}
	text, err := v.text()
	if err != nil {
		return BaselineVersion{}, err
	}
	if was := (BaselineVersion{Baseline: now.Baseline, Product: product, Version: v.Version}); now.Version > 0 || !b.Demands() {
		if same, err := was.text(); err != nil || same == text {
			return now, err
		}
	}
	note, err := s.cfg.Sign(text)
	if err != nil {
		return BaselineVersion{}, err
	}
	v.Note = string(note)
	return v, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO baseline(tenant, product, version, note, actor, created) VALUES ($1, $2, $3, $4, $5, $6)`,
			tenant, product, v.Version, v.Note, actor, store.Millis(v.Created))
		if store.IsUnique(err) {
			return problem.Conflict("The baseline has just been changed by somebody else.")
		}
		if err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "product.baseline", Subject: product,
			Data: map[string]any{"version": v.Version, "baseline": b, "digest": wire.Digest(note)}})
	})
}

// Baseline is the product's baseline of today, version 0 if it has none. One whose signature is not the platform's is
// an error: somebody wrote past the platform, and nothing is commissioned under it.
func (s *Service) Baseline(ctx context.Context, tenant, product string) (BaselineVersion, error) {
	v, err := s.scanBaseline(s.cfg.DB.QueryRow(ctx, `SELECT product, version, note, actor, created FROM baseline
		WHERE tenant = $1 AND product = $2 ORDER BY version DESC LIMIT 1`, tenant, product))
	if errors.Is(err, store.ErrNoRows) {
		return BaselineVersion{Product: product}, nil
	}
	return v, err
}

// BaselineVersions is the history of the product's baseline, the newest first.
func (s *Service) BaselineVersions(ctx context.Context, tenant, product string, before int64, limit int) ([]BaselineVersion, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT product, version, note, actor, created FROM baseline
		WHERE tenant = $1 AND product = $2 AND ($3 = 0 OR version < $3) ORDER BY version DESC LIMIT $4`, tenant, product, before, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (BaselineVersion, error) { return s.scanBaseline(r) })
}

func (s *Service) scanBaseline(r scanner) (v BaselineVersion, err error) {
	var created int64
	if err := r.Scan(&v.Product, &v.Version, &v.Note, &v.Actor, &created); err != nil {
		return v, err
	}
	v.Created = store.Time(created)
	if s.cfg.Verify == nil {
		return v, problem.Unavailable("This platform has no key to verify a baseline with.")
	}
	text, err := s.cfg.Verify([]byte(v.Note))
	if err == nil {
		v.Baseline, err = readBaseline(text, v.Product, v.Version)
	}
	if err != nil {
		return BaselineVersion{}, problem.Unavailable("The baseline of the product is not the one that was signed.").Because(err)
	}
	return v, nil
}

// readableBaseline is Baseline for whoever asks.
func (s *Service) readableBaseline(ctx context.Context, product string) (BaselineVersion, error) {
	p, err := s.read(ctx, product)
	if err != nil {
		return BaselineVersion{}, err
	}
	return s.Baseline(ctx, p.Tenant, p.ID)
}

// setBaseline is SetBaseline for whoever asks.
func (s *Service) setBaseline(ctx context.Context, product string, b Baseline) (BaselineVersion, error) {
	t := tenant.MustTenant(ctx)
	if _, err := s.Get(ctx, t, product); err != nil {
		return BaselineVersion{}, err
	}
	if err := tenant.Require(ctx, tenant.ProductWrite, tenant.Thing{Tenant: t, Product: product}); err != nil {
		return BaselineVersion{}, err
	}
	who, _ := tenant.ActorFrom(ctx)
	return s.SetBaseline(ctx, t, product, b, who.ID)
}
