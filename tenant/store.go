// SPDX-License-Identifier: AGPL-3.0-only

package tenant

import (
	"context"
	"database/sql"
	"embed"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

//go:embed migrations/*.sql
var migrationsFS embed.FS

// Schema is the room's tables, of the platform handle.
var Schema = store.Migrations{Stage: "tenant", FS: migrationsFS}

type row interface{ Scan(...any) error }

func readTenant(r row) (t Tenant, err error) {
	var at int64
	err = r.Scan(&t.ID, &t.Name, &at)
	t.At = store.Time(at)
	return t, err
}

func listTenants(rows *sql.Rows, err error) ([]Tenant, error) {
	return store.Collect(rows, err, func(r *sql.Rows) (Tenant, error) { return readTenant(r) })
}

const solutionColumns = `SELECT id, tenant, parent, name, owner, at FROM solution`

func readSolution(r row) (s Solution, err error) {
	var at int64
	err = r.Scan(&s.ID, &s.Tenant, &s.Parent, &s.Name, &s.Owner, &at)
	s.At = store.Time(at)
	return s, err
}

func listSolutions(rows *sql.Rows, err error) ([]Solution, error) {
	return store.Collect(rows, err, func(r *sql.Rows) (Solution, error) { return readSolution(r) })
}

func insertSolution(tx *store.Tx, s Solution) error {
	n, err := tx.Exec(`INSERT INTO solution (id, tenant, parent, name, owner, at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant, parent, name) DO NOTHING`,
		s.ID, s.Tenant, s.Parent, s.Name, s.Owner, store.Millis(s.At))
	if err == nil && n == 0 {
		return errNameTaken(s.Name)
	}
	return err
}

func updateSolution(tx *store.Tx, s Solution) error {
	_, err := tx.Exec(`UPDATE solution SET parent = $1, name = $2, owner = $3 WHERE tenant = $4 AND id = $5`, s.Parent, s.Name, s.Owner, s.Tenant, s.ID)
	if store.IsUnique(err) {
		return errNameTaken(s.Name)
	}
	return err
}

func errNameTaken(name string) error {
	return problem.Conflict("There is a solution %q already.", name).At("name")
}

// querier is a transaction or the handle itself.
type querier interface {
	Query(query string, args ...any) (*sql.Rows, error)
	QueryRow(query string, args ...any) *sql.Row
}

// reading is the handle as a querier for ctx.
type reading struct {
	ctx context.Context
	db  *store.DB
}

func (r reading) Query(q string, args ...any) (*sql.Rows, error) {
	return r.db.Query(r.ctx, q, args...)
}
func (r reading) QueryRow(q string, args ...any) *sql.Row { return r.db.QueryRow(r.ctx, q, args...) }

func (s *Service) reading(ctx context.Context) querier { return reading{ctx, s.cfg.DB} }

func grantsOf(q querier, holder string) ([]Grant, error) {
	rows, err := q.Query(`SELECT role, tenant, product, solution FROM access_grant WHERE holder = $1 ORDER BY role, product, solution`, holder)
	return store.Collect(rows, err, func(r *sql.Rows) (g Grant, err error) {
		err = r.Scan(&g.Role, &g.Tenant, &g.Product, &g.Solution)
		return g, err
	})
}

// grantsIn are the grants of everybody in the tenant, by their holder.
func grantsIn(q querier, tenant string) (map[string][]Grant, error) {
	out := map[string][]Grant{}
	rows, err := q.Query(`SELECT holder, role, tenant, product, solution FROM access_grant WHERE tenant = $1 ORDER BY holder, role, product, solution`, tenant)
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var holder string
		var g Grant
		err := r.Scan(&holder, &g.Role, &g.Tenant, &g.Product, &g.Solution)
		out[holder] = append(out[holder], g)
		return struct{}{}, err
	})
	return out, err
}

func insertGrant(tx *store.Tx, holder string, g Grant) error {
	_, err := tx.Exec(`INSERT INTO access_grant (holder, role, tenant, product, solution) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (holder, role, tenant, product, solution) DO NOTHING`, holder, string(g.Role), g.Tenant, g.Product, g.Solution)
	return err
}

func insertPerson(tx *store.Tx, p Person) error {
	_, err := tx.Exec(`INSERT INTO person (id, tenant, name, handle, at, seen, removed) VALUES ($1, $2, $3, $4, $5, $6, 0)`,
		p.ID, p.Tenant, p.Name, p.handle, store.Millis(p.At), store.Millis(p.Seen))
	return err
}

const personColumns = `SELECT id, tenant, name, handle, at, seen FROM person`

func readPerson(r row) (p Person, err error) {
	var at, seen int64
	err = r.Scan(&p.ID, &p.Tenant, &p.Name, &p.handle, &at, &seen)
	p.At, p.Seen = store.Time(at), store.Time(seen)
	return p, err
}

const tokenColumns = `SELECT id, tenant, name, hash, made_by, at, expires, used, revoked FROM token`

func readToken(r row) (t Token, err error) {
	var at, expires, used, revoked int64
	err = r.Scan(&t.ID, &t.Tenant, &t.Name, &t.hash, &t.MadeBy, &at, &expires, &used, &revoked)
	t.At, t.Expires, t.Used, t.Revoked = store.Time(at), store.Time(expires), store.Time(used), store.Time(revoked)
	return t, err
}

// count runs a query for one number.
func count(q querier, query string, args ...any) (n int64, err error) {
	err = q.QueryRow(query, args...).Scan(&n)
	return n, err
}
