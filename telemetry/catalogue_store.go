// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"io/fs"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

//go:embed catalogue/migrations/*.sql
var catalogueFS embed.FS

// CatalogueSchema belongs to the platform handle: what a product may send is decided beside the product, in the
// transaction of its leaf.
var CatalogueSchema = store.Migrations{Stage: "catalogue", FS: sub(catalogueFS, "catalogue")}

func sub(f fs.FS, dir string) fs.FS {
	s, err := fs.Sub(f, dir)
	if err != nil {
		panic(err) // only a wrong name can fail
	}
	return s
}

// SetCatalogue makes c what the product's devices may send from now on, as its next version. The same again changes
// nothing. What was stored before stays until its retention ends.
func (s *Service) SetCatalogue(ctx context.Context, tenant, product string, c Catalogue, actor string) (CatalogueVersion, error) {
	return s.editCatalogue(ctx, tenant, product, actor, func(Catalogue) (Catalogue, error) { return c, nil })
}

// Declare adds fields to the product's catalogue, or replaces those of the same name.
func (s *Service) Declare(ctx context.Context, tenant, product string, fields []Field, actor string) (CatalogueVersion, error) {
	return s.editCatalogue(ctx, tenant, product, actor, func(c Catalogue) (Catalogue, error) {
		byKey := map[string]int{}
		for i, f := range c.Fields {
			byKey[f.key()] = i
		}
		for _, f := range fields {
			if i, known := byKey[f.key()]; known {
				c.Fields[i] = f
				continue
			}
			byKey[f.key()] = len(c.Fields)
			c.Fields = append(c.Fields, f)
		}
		return c, nil
	})
}

// editCatalogue writes what edit makes of the newest version as the next one.
func (s *Service) editCatalogue(ctx context.Context, tenant, product, actor string, edit func(Catalogue) (Catalogue, error)) (v CatalogueVersion, err error) {
	err = s.cfg.Platform.Write(ctx, func(tx *store.Tx) error {
		was, err := scanCatalogue(tx.QueryRow(newestCatalogue, tenant, product), product)
		if err != nil {
			return err
		}
		old := was.Catalogue
		next, err := edit(Catalogue{Undeclared: was.Undeclared, Fields: append([]Field(nil), was.Fields...)})
		if err != nil {
			return err
		}
		if next, err = next.normal(); err != nil {
			return err
		}
		doc, err := json.Marshal(next)
		if err != nil {
			return err
		}
		if had, err := json.Marshal(old); err != nil || was.Version > 0 && string(had) == string(doc) {
			v = was
			return err
		}
		v = CatalogueVersion{Catalogue: next, Product: product, Version: was.Version + 1, Created: store.Time(store.Millis(s.cfg.Clock.Now())), Actor: actor}
		_, err = tx.Exec(`INSERT INTO catalogue(tenant, product, version, document, actor, created) VALUES ($1, $2, $3, $4, $5, $6)`,
			tenant, product, v.Version, string(doc), actor, store.Millis(v.Created))
		if store.IsUnique(err) {
			return problem.Conflict("The catalogue has just been changed by somebody else.")
		}
		if err != nil {
			return err
		}
		tx.After(s.judges.forget)
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "catalogue.changed", Subject: product,
			Data: map[string]any{"version": v.Version, "undeclared": next.Undeclared, "fields": len(next.Fields), "change": next.since(old), "digest": wire.Digest(doc)}})
	})
	if err != nil || v.Version == 0 {
		return v, err
	}
	return v, s.forgetDeclared(ctx, tenant, v)
}

const (
	catalogueColumns = `version, document, actor, created`
	newestCatalogue  = `SELECT ` + catalogueColumns + ` FROM catalogue WHERE tenant = $1 AND product = $2 ORDER BY version DESC LIMIT 1`
)

type scanner interface{ Scan(...any) error }

// scanCatalogue reads a version; no row is version 0.
func scanCatalogue(r scanner, product string) (CatalogueVersion, error) {
	v := CatalogueVersion{Product: product, Catalogue: Catalogue{Undeclared: KeepUndeclared, Fields: []Field{}}}
	var doc string
	var created int64
	err := r.Scan(&v.Version, &doc, &v.Actor, &created)
	if errors.Is(err, store.ErrNoRows) {
		return v, nil
	}
	if err != nil {
		return v, err
	}
	v.Created = store.Time(created)
	return v, json.Unmarshal([]byte(doc), &v.Catalogue)
}

// Catalogue is what the product's devices may send today, version 0 if nobody has said so.
func (s *Service) Catalogue(ctx context.Context, tenant, product string) (CatalogueVersion, error) {
	return scanCatalogue(s.cfg.Platform.QueryRow(ctx, newestCatalogue, tenant, product), product)
}

// Catalogues is the history of a product's catalogue, the newest first, before the version given (0: from the newest).
func (s *Service) Catalogues(ctx context.Context, tenant, product string, before int64, limit int) ([]CatalogueVersion, error) {
	rows, err := s.cfg.Platform.Query(ctx, `SELECT `+catalogueColumns+` FROM catalogue
		WHERE tenant = $1 AND product = $2 AND ($3 = 0 OR version < $3) ORDER BY version DESC LIMIT $4`, tenant, product, before, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (CatalogueVersion, error) { return scanCatalogue(r, product) })
}

// Retention is how many days the tenant keeps a field whose catalogue does not say.
func (s *Service) Retention(ctx context.Context, tenant string) (days int, err error) {
	err = s.cfg.Platform.QueryRow(ctx, `SELECT days FROM catalogue_retention WHERE tenant = $1`, tenant).Scan(&days)
	if errors.Is(err, store.ErrNoRows) {
		return defaultRetention, nil
	}
	return days, err
}

// SetRetention sets how many days the tenant keeps a field whose catalogue does not say.
func (s *Service) SetRetention(ctx context.Context, tenant string, days int, actor string) error {
	if days < 1 || days > maxRetention {
		return problem.Invalid("Retention is 1 to %d days.", maxRetention).At("days")
	}
	return s.cfg.Platform.Write(ctx, func(tx *store.Tx) error {
		var was int
		err := tx.QueryRow(`SELECT days FROM catalogue_retention WHERE tenant = $1`, tenant).Scan(&was)
		if errors.Is(err, store.ErrNoRows) {
			was, err = defaultRetention, nil
		}
		if err != nil || was == days {
			return err
		}
		if _, err := tx.Exec(`INSERT INTO catalogue_retention(tenant, days) VALUES ($1, $2) ON CONFLICT (tenant) DO UPDATE SET days = excluded.days`, tenant, days); err != nil {
			return err
		}
		tx.After(s.judges.forget)
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "catalogue.retention", Subject: tenant, Data: map[string]any{"days": days, "before": was}})
	})
}

// rulesKept is how long another process's change of a catalogue may go unseen; one's own is seen at once.
const rulesKept = 5 * time.Second

// maxKnown bounds how many devices' products are remembered, at about 150 bytes each.
const maxKnown = 200_000

// judges remember the products of devices, which never change, and the rules of products.
type judges struct {
	mu       sync.Mutex // guards the fields below
	products map[[2]string]string
	rules    map[[2]string]*rules // by tenant and product
	since    time.Time            // when the first of the rules was read
}

func (j *judges) forget() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.rules = nil
}

func (j *judges) product(tenant, device string) (string, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	p, ok := j.products[[2]string{tenant, device}]
	return p, ok
}

func (j *judges) know(tenant, device, product string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.products == nil || len(j.products) >= maxKnown {
		j.products = map[[2]string]string{}
	}
	j.products[[2]string{tenant, device}] = product
}

func (j *judges) of(tenant, product string, now time.Time) *rules {
	j.mu.Lock()
	defer j.mu.Unlock()
	if now.Sub(j.since) >= rulesKept {
		j.rules, j.since = nil, now
	}
	return j.rules[[2]string{tenant, product}]
}

func (j *judges) learn(tenant, product string, r *rules) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.rules == nil {
		j.rules = map[[2]string]*rules{}
	}
	j.rules[[2]string{tenant, product}] = r
}

// productOf is the device's product, "" for a device that is not registered.
func (s *Service) productOf(ctx context.Context, tenant, device string) (string, error) {
	if p, ok := s.judges.product(tenant, device); ok || s.cfg.Identity == nil {
		return p, nil
	}
	d, err := s.cfg.Identity.Get(ctx, tenant, device)
	if problem.Is(err, problem.KindNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	s.judges.know(tenant, device, d.Product)
	return d.Product, nil
}

// rulesOf returns what a device may send. The answer lies in memory but for once per device and, per product, once in
// rulesKept. nil: everything; so it is without identity, as where only the storage is used.
func (s *Service) rulesOf(ctx context.Context, tenant, device string) (*rules, error) {
	product, err := s.productOf(ctx, tenant, device)
	if err != nil || product == "" {
		return nil, err
	}
	return s.productRules(ctx, tenant, product)
}

func (s *Service) productRules(ctx context.Context, tenant, product string) (*rules, error) {
	if r := s.judges.of(tenant, product, s.cfg.Clock.Now()); r != nil {
		return r, nil
	}
	v, err := s.Catalogue(ctx, tenant, product)
	if err != nil {
		return nil, err
	}
	days, err := s.Retention(ctx, tenant)
	if err != nil {
		return nil, err
	}
	r := v.compile(days)
	s.judges.learn(tenant, product, r)
	return r, nil
}
