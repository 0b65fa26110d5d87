// SPDX-License-Identifier: AGPL-3.0-only

package conform

import (
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

//go:embed migrations/*.sql
var migrationsFS embed.FS

// Schema holds what was recorded, and which components the bills name.
var Schema = store.Migrations{Stage: "conform", FS: migrationsFS}

// The kinds of records, with the audit kind of each. The key says which of a kind: a row, a release, a component.
const (
	kindClass     = "class"
	kindConfirmed = "class-confirmed" // key: the version confirmed
	kindRoute     = "route"
	kindContext   = "risk-context"
	kindRow       = "risk-row"     // key: id of the row
	kindSealed    = "assessment"   //
	kindDue       = "review-due"   // key: the cause
	kindScreen    = "modification" // key: the release
	kindComponent = "component"    // of no product; key: its name
	kindSettings  = "settings"     // of no product
	kindNag       = "law-stale"    // of no product; key: the oldest day on which a rule was checked
)

var auditKinds = map[string]string{kindClass: "conform.classified", kindConfirmed: "conform.class-confirmed", kindRoute: "conform.route", kindContext: "conform.risk-context",
	kindRow: "conform.risk-row", kindSealed: "conform.assessment-sealed", kindDue: "conform.review-due", kindScreen: "conform.modification", kindComponent: "conform.component",
	kindSettings: "conform.settings"}

// place is where a record stands.
type place struct{ tenant, product, kind, key string }

type scanner interface{ Scan(...any) error }

// read scans one record into v.
func read(r scanner, key *string, v any) (Stamp, error) {
	var s Stamp
	var body string
	var at int64
	if err := r.Scan(key, &s.Version, &s.seq, &body, &s.By, &at); err != nil {
		return Stamp{}, err
	}
	s.At = store.Time(at)
	return s, json.Unmarshal([]byte(body), v)
}

const recordColumns = `key, version, seq, body, actor, at`

// newest reads the newest version of a record into v; version 0 if there is none.
func newest(tx *store.Tx, p place, v any) (Stamp, error) {
	s, err := read(tx.QueryRow(`SELECT `+recordColumns+` FROM conform_record WHERE tenant = $1 AND product = $2 AND kind = $3 AND key = $4
		ORDER BY version DESC LIMIT 1`, p.tenant, p.product, p.kind, p.key), new(string), v)
	if errors.Is(err, store.ErrNoRows) {
		return Stamp{}, nil
	}
	return s, err
}

// version reads one version of a record into v, or problem.NotFound.
func version(tx *store.Tx, p place, n int64, v any) (Stamp, error) {
	s, err := read(tx.QueryRow(`SELECT `+recordColumns+` FROM conform_record WHERE tenant = $1 AND product = $2 AND kind = $3 AND key = $4 AND version = $5`,
		p.tenant, p.product, p.kind, p.key, n), new(string), v)
	if errors.Is(err, store.ErrNoRows) {
		return Stamp{}, problem.NotFound("There is no version %d.", n)
	}
	return s, err
}

// record is a document with its key and its stamp.
type record[T any] struct {
	Key string
	Doc T
	Stamp
}

func collect[T any](rows *sql.Rows, err error) ([]record[T], error) {
	return store.Collect(rows, err, func(r *sql.Rows) (x record[T], err error) {
		x.Stamp, err = read(r, &x.Key, &x.Doc)
		return x, err
	})
}

// allNewest reads the newest version of every key of a kind.
func allNewest[T any](tx *store.Tx, tenant, product, kind string) ([]record[T], error) {
	return collect[T](tx.Query(`SELECT `+recordColumns+` FROM conform_record r WHERE tenant = $1 AND product = $2 AND kind = $3
		AND version = (SELECT max(n.version) FROM conform_record n WHERE n.tenant = r.tenant AND n.product = r.product AND n.kind = r.kind AND n.key = r.key)
		ORDER BY key`, tenant, product, kind))
}

// since reads what was recorded of a kind after seq, in its order.
func since[T any](tx *store.Tx, tenant, product, kind string, seq int64) ([]record[T], error) {
	return collect[T](tx.Query(`SELECT `+recordColumns+` FROM conform_record WHERE tenant = $1 AND product = $2 AND kind = $3 AND seq > $4 ORDER BY seq`, tenant, product, kind, seq))
}

// history reads the versions of a record, the newest first; before 0 is the newest.
func history[T any](tx *store.Tx, p place, before int64, limit int) ([]record[T], error) {
	return collect[T](tx.Query(`SELECT `+recordColumns+` FROM conform_record WHERE tenant = $1 AND product = $2 AND kind = $3 AND key = $4 AND (version < $5 OR $5 = 0)
		ORDER BY version DESC LIMIT $6`, p.tenant, p.product, p.kind, p.key, before, limit))
}

// put records the next version of a document and its leaf in the log. What two people record at once is refused to one.
func put(tx *store.Tx, p place, doc any, actor string, now time.Time) (Stamp, error) {
	body, err := json.Marshal(doc)
	if err != nil {
		return Stamp{}, err
	}
	s := Stamp{By: actor, At: store.Time(store.Millis(now))}
	if err := tx.QueryRow(`SELECT coalesce(max(seq), 0) + 1, coalesce(max(CASE WHEN kind = $3 AND key = $4 THEN version END), 0) + 1
		FROM conform_record WHERE tenant = $1 AND product = $2`, p.tenant, p.product, p.kind, p.key).Scan(&s.seq, &s.Version); err != nil {
		return Stamp{}, err
	}
	_, err = tx.Exec(`INSERT INTO conform_record (tenant, product, seq, kind, key, version, body, actor, at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		p.tenant, p.product, s.seq, p.kind, p.key, s.Version, string(body), actor, store.Millis(now))
	if store.IsUnique(err) {
		return Stamp{}, problem.Conflict("Somebody else recorded something at the same moment. Look again.")
	}
	if err != nil {
		return Stamp{}, err
	}
	kind := auditKinds[p.kind]
	if kind == "" {
		return s, nil
	}
	subject := p.product
	if subject == "" {
		subject = p.tenant
	}
	return s, audit.Append(tx, audit.Entry{Tenant: p.tenant, Actor: actor, Kind: kind, Subject: subject,
		Data: map[string]any{"key": p.key, "version": s.Version, "document": json.RawMessage(body)}})
}

// part is a component as the bill of a release names it.
type part struct{ thing, name, version, supplier, licence string }

// putParts notes what the bill of a release names; seen marks this reading of it.
func putParts(tx *store.Tx, tenant, product, release, seen string, parts []part) error {
	for _, x := range parts {
		if _, err := tx.Exec(`INSERT INTO conform_part (tenant, product, release_id, thing, name, version, supplier, licence, seen) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
			ON CONFLICT (tenant, product, release_id, thing) DO UPDATE SET name = excluded.name, version = excluded.version, supplier = excluded.supplier,
			licence = excluded.licence, seen = excluded.seen`, tenant, product, release, x.thing, x.name, x.version, x.supplier, x.licence, seen); err != nil {
			return err
		}
	}
	return nil
}

// dropParts forgets what an earlier reading of the release's bill named and this one does not.
func dropParts(tx *store.Tx, tenant, product, release, seen string) error {
	_, err := tx.Exec(`DELETE FROM conform_part WHERE tenant = $1 AND product = $2 AND release_id = $3 AND seen <> $4`, tenant, product, release, seen)
	return err
}

// newestBilled is the newest release of a product that has a bill; "" if none has one. Ids sort by the time of upload.
func newestBilled(tx *store.Tx, tenant, product string) (release string, err error) {
	err = tx.QueryRow(`SELECT coalesce(max(release_id), '') FROM conform_part WHERE tenant = $1 AND product = $2`, tenant, product).Scan(&release)
	return release, err
}

// firstSeen are the components of a release that no earlier release of the product had; nil if there is no earlier one.
func firstSeen(tx *store.Tx, tenant, product, release string) ([]string, error) {
	rows, err := tx.Query(`SELECT p.name FROM conform_part p WHERE p.tenant = $1 AND p.product = $2 AND p.release_id = $3
		AND EXISTS (SELECT 1 FROM conform_part e WHERE e.tenant = $1 AND e.product = $2 AND e.release_id < $3)
		AND NOT EXISTS (SELECT 1 FROM conform_part e WHERE e.tenant = $1 AND e.product = $2 AND e.release_id < $3 AND e.thing = p.thing) ORDER BY p.name`, tenant, product, release)
	return store.Collect(rows, err, func(r *sql.Rows) (name string, err error) { return name, r.Scan(&name) })
}

// entries reads lines of the register after the cursor: those of the newest release of each product, or of one product.
func entries(tx *store.Tx, tenant, product, after string, limit int) ([]Entry, error) {
	q := `SELECT p.thing, p.name, p.version, p.release_id, p.supplier, p.licence FROM conform_part p
		WHERE p.tenant = $1 AND p.thing > $2 AND p.release_id = (SELECT max(n.release_id) FROM conform_part n WHERE n.tenant = p.tenant AND n.thing = p.thing%[1]s)%[2]s
		AND p.release_id IN (SELECT max(c.release_id) FROM conform_part c WHERE c.tenant = $1 GROUP BY c.product) ORDER BY p.thing LIMIT $3`
	args := []any{tenant, after, limit}
	if product != "" {
		q = fmt.Sprintf(q, ` AND n.product = $4`, ` AND p.product = $4`)
		args = append(args, product)
	} else {
		q = fmt.Sprintf(q, ` AND n.release_id IN (SELECT max(c.release_id) FROM conform_part c WHERE c.tenant = $1 GROUP BY c.product)`, ``)
	}
	rows, err := tx.Query(q, args...)
	return store.Collect(rows, err, func(r *sql.Rows) (e Entry, err error) {
		return e, r.Scan(&e.Name, &e.Title, &e.Version, &e.Release, &e.Supplier, &e.Licence)
	})
}

// known says whether any bill of the tenant names the component.
func known(tx *store.Tx, tenant, thing string) (bool, error) {
	var n int64
	err := tx.QueryRow(`SELECT count(*) FROM (SELECT 1 FROM conform_part WHERE tenant = $1 AND thing = $2 LIMIT 1) x`, tenant, thing).Scan(&n)
	return n > 0, err
}
