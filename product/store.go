// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"context"
	"database/sql"
	"embed"
	"errors"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed migrations/*.sql
var migrationsFS embed.FS

// Schema holds the tables of products and hardware revisions.
var Schema = store.Migrations{Stage: "product", FS: migrationsFS}

type scanner interface{ Scan(...any) error }

const productColumns = `id, tenant, name, model, created`

func scanProduct(r scanner) (Product, error) {
	var p Product
	var created int64
	err := r.Scan(&p.ID, &p.Tenant, &p.Name, &p.Model, &created)
	p.Created = store.Time(created)
	if errors.Is(err, store.ErrNoRows) {
		return Product{}, problem.NotFound("There is no such product.")
	}
	return p, err
}

const revisionColumns = `id, tenant, product, name, placed, support_end, reason, created`

func scanRevision(r scanner) (Revision, error) {
	var v Revision
	var placed, end, created int64
	err := r.Scan(&v.ID, &v.Tenant, &v.Product, &v.Name, &placed, &end, &v.Reason, &created)
	v.Placed, v.SupportEnd, v.Created = store.Time(placed), store.Time(end), store.Time(created)
	if errors.Is(err, store.ErrNoRows) {
		return Revision{}, problem.NotFound("There is no such hardware revision.")
	}
	return v, err
}

func insertProduct(tx *store.Tx, p Product) error {
	_, err := tx.Exec(`INSERT INTO product(`+productColumns+`) VALUES ($1, $2, $3, $4, $5)`, p.ID, p.Tenant, p.Name, p.Model, store.Millis(p.Created))
	if store.IsUnique(err) {
		return problem.Conflict("There is already a product with the model %s.", p.Model).At("model")
	}
	return err
}

func insertRevision(tx *store.Tx, v Revision) error {
	_, err := tx.Exec(`INSERT INTO hardware_revision(`+revisionColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		v.ID, v.Tenant, v.Product, v.Name, store.Millis(v.Placed), store.Millis(v.SupportEnd), v.Reason, store.Millis(v.Created))
	if store.IsUnique(err) {
		return problem.Conflict("The product already has a hardware revision %s.", v.Name).At("name")
	}
	return err
}

// Get returns a product of the tenant, or a problem of kind not-found.
func (s *Service) Get(ctx context.Context, tenant, id string) (Product, error) {
	return scanProduct(s.cfg.DB.QueryRow(ctx, `SELECT `+productColumns+` FROM product WHERE tenant = $1 AND id = $2`, tenant, id))
}

// List returns the tenant's products in the order of their names.
func (s *Service) List(ctx context.Context, tenant string) ([]Product, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT `+productColumns+` FROM product WHERE tenant = $1 ORDER BY lower(name), id`, tenant)
	return store.Collect(rows, err, func(r *sql.Rows) (Product, error) { return scanProduct(r) })
}

// Revision returns a hardware revision of the tenant, or a problem of kind not-found.
func (s *Service) Revision(ctx context.Context, tenant, id string) (Revision, error) {
	return scanRevision(s.cfg.DB.QueryRow(ctx, `SELECT `+revisionColumns+` FROM hardware_revision WHERE tenant = $1 AND id = $2`, tenant, id))
}

// Revisions returns the hardware revisions of a product, the newest first.
func (s *Service) Revisions(ctx context.Context, tenant, product string) ([]Revision, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT `+revisionColumns+` FROM hardware_revision WHERE tenant = $1 AND product = $2 ORDER BY placed DESC, id DESC`, tenant, product)
	return store.Collect(rows, err, func(r *sql.Rows) (Revision, error) { return scanRevision(r) })
}

// started says whether the tenant of whoever asks has a hardware revision.
func (s *Service) started(ctx context.Context) (bool, error) {
	var n int64
	err := s.cfg.DB.QueryRow(ctx, `SELECT count(*) FROM hardware_revision WHERE tenant = $1`, tenant.MustTenant(ctx)).Scan(&n)
	return n > 0, err
}
