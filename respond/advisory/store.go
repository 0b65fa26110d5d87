// SPDX-License-Identifier: AGPL-3.0-only

package advisory

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/csaf"
)

const advisoryColumns = `id, product, vuln, tracking, data, created, changed, actor, hold_reason, hold_until, hold_actor, revision, initial, latest, tlp`

func scanAdvisory(r interface{ Scan(...any) error }) (a Advisory, err error) {
	var data string
	var created, changed, until, initial, latest int64
	var h Hold
	if err := r.Scan(&a.ID, &a.Product, &a.Vulnerability, &a.Tracking, &data, &created, &changed, &a.By, &h.Reason, &until, &h.By,
		&a.Revision, &initial, &latest, &a.tlp); err != nil {
		return a, err
	}
	a.Created, a.Changed, a.Initial, a.Current = store.Time(created), store.Time(changed), store.Time(initial), store.Time(latest)
	if until > 0 {
		h.Until = store.Time(until)
		a.Hold = &h
	}
	return a, json.Unmarshal([]byte(data), &a.Text)
}

func advisoryByID(tx *store.Tx, tenant, id string) (Advisory, error) {
	a, err := scanAdvisory(tx.QueryRow(`SELECT `+advisoryColumns+` FROM respond_advisory WHERE tenant = $1 AND id = $2`, tenant, id))
	if err != nil {
		return a, missing(err)
	}
	a.Revisions, err = revisions(tx, tenant, id)
	return a, err
}

// advisories lists drafts and published ones, newest first, from before the id after; of all products, or of those given.
func advisories(tx *store.Tx, tenant, after string, n int, whole bool, products []string) ([]Advisory, error) {
	args, among := []any{tenant, after, n}, ""
	if !whole {
		var in string
		in, args = store.In(args, products)
		among = ` AND product IN ` + in
	}
	rows, err := tx.Query(`SELECT `+advisoryColumns+` FROM respond_advisory WHERE tenant = $1 AND ($2 = '' OR id < $2)`+among+` ORDER BY id DESC LIMIT $3`, args...)
	return store.Collect(rows, err, func(r *sql.Rows) (Advisory, error) { return scanAdvisory(r) })
}

// insert gives the draft the next id of its year and keeps it.
func insert(tx *store.Tx, tenant, prefix string, a *Advisory) error {
	data, err := json.Marshal(a.Text)
	if err != nil {
		return fmt.Errorf("advisory: %w", err)
	}
	year := fmt.Sprintf("%s-%d-", prefix, a.Created.Year())
	var n int64
	if err := tx.QueryRow(`SELECT count(*) FROM respond_advisory WHERE tenant = $1 AND tracking LIKE $2`, tenant, year+"%").Scan(&n); err != nil {
		return err
	}
	a.Tracking = fmt.Sprintf("%s%04d", year, n+1)
	_, err = tx.Exec(`INSERT INTO respond_advisory(id, tenant, product, vuln, tracking, data, created, changed, actor, hold_reason, hold_until, hold_actor, revision, initial, latest, tlp)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, '', 0, '', 0, 0, 0, '')`,
		a.ID, tenant, a.Product, a.Vulnerability, a.Tracking, string(data), store.Millis(a.Created), a.By)
	if store.IsUnique(err) {
		return problem.Conflict("Somebody else drafted an advisory at the same moment.").Hint("Repeat it.")
	}
	return err
}

// change replaces the words of the next revision.
func change(tx *store.Tx, tenant, id string, t Text, at time.Time) error {
	data, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("advisory: %w", err)
	}
	_, err = tx.Exec(`UPDATE respond_advisory SET data = $3, changed = $4 WHERE tenant = $1 AND id = $2`, tenant, id, string(data), store.Millis(at))
	return err
}

// hold holds it back, or with a zero Hold no longer.
func hold(tx *store.Tx, tenant, id string, h Hold) error {
	_, err := tx.Exec(`UPDATE respond_advisory SET hold_reason = $3, hold_until = $4, hold_actor = $5 WHERE tenant = $1 AND id = $2`,
		tenant, id, h.Reason, store.Millis(h.Until), h.By)
	return err
}

// insertRevision publishes: the key refuses a second revision with the number, the schema one without digests or signature.
func insertRevision(tx *store.Tx, tenant string, a Advisory, r Revision) error {
	if _, err := tx.Exec(`INSERT INTO respond_advisory_revision(advisory, number, tenant, at, actor, summary, tlp, title, note, product_name, document, sha256, sha512, signature, fingerprint)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`,
		a.ID, r.Number, tenant, store.Millis(r.At), r.By, r.Summary, r.TLP, r.title, r.note, r.productName, r.document, r.SHA256, r.SHA512, r.signature, r.Fingerprint); err != nil {
		if store.IsUnique(err) {
			return problem.Conflict("Somebody else drafted an advisory at the same moment.").Hint("Repeat it.")
		}
		return err
	}
	n, err := tx.Exec(`UPDATE respond_advisory SET revision = $3, latest = $4, tlp = $5, hold_reason = '', hold_until = 0, hold_actor = '',
		initial = CASE WHEN initial = 0 THEN $4 ELSE initial END WHERE tenant = $1 AND id = $2 AND revision = $6 AND changed = $7`,
		tenant, a.ID, r.Number, store.Millis(r.At), r.TLP, a.Revision, store.Millis(a.Changed))
	if err == nil && n == 0 {
		err = problem.Conflict("Somebody changed the advisory while it was signed.").Hint("Look again and repeat.")
	}
	return err
}

const revisionColumns = `v.number, v.at, v.actor, v.summary, v.tlp, v.title, v.note, v.product_name, v.sha256, v.sha512, v.fingerprint`

// into are the places of revisionColumns.
func (v *Revision) into(at *int64) []any {
	return []any{&v.Number, at, &v.By, &v.Summary, &v.TLP, &v.title, &v.note, &v.productName, &v.SHA256, &v.SHA512, &v.Fingerprint}
}

// revisions are what was published of an advisory, oldest first, with the documents.
func revisions(tx *store.Tx, tenant, advisory string) ([]Revision, error) {
	rows, err := tx.Query(`SELECT `+revisionColumns+`, v.document, v.signature FROM respond_advisory_revision v WHERE v.tenant = $1 AND v.advisory = $2 ORDER BY v.number`, tenant, advisory)
	return store.Collect(rows, err, func(r *sql.Rows) (v Revision, err error) {
		var at int64
		err = r.Scan(append(v.into(&at), &v.document, &v.signature)...)
		v.At = store.Time(at)
		return v, err
	})
}

// entry is a published advisory as lists show it: its newest revision, without the document.
type entry struct {
	Revision
	id, product, tracking string
	initial               time.Time
}

// published lists what was published with the label, the newest change first; with a tracking id that one alone.
func published(tx *store.Tx, tenant string, label csaf.TLPLabel, tracking string) ([]entry, error) {
	rows, err := tx.Query(`SELECT a.id, a.product, a.tracking, a.initial, `+revisionColumns+` FROM respond_advisory a
		JOIN respond_advisory_revision v ON v.advisory = a.id AND v.number = a.revision
		WHERE a.tenant = $1 AND a.tlp = $2 AND a.revision > 0 AND ($3 = '' OR a.tracking = $3) ORDER BY a.latest DESC, a.id DESC`, tenant, label, tracking)
	return store.Collect(rows, err, func(r *sql.Rows) (e entry, err error) {
		var initial, at int64
		err = r.Scan(append([]any{&e.id, &e.product, &e.tracking, &initial}, e.into(&at)...)...)
		e.initial, e.At = store.Time(initial), store.Time(at)
		return e, err
	})
}

func putPublisher(tx *store.Tx, tenant string, p Publisher, at time.Time) error {
	b, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("publisher: %w", err)
	}
	_, err = tx.Exec(`INSERT INTO respond_publisher(tenant, data, updated) VALUES ($1, $2, $3)
		ON CONFLICT (tenant) DO UPDATE SET data = excluded.data, updated = excluded.updated`, tenant, string(b), store.Millis(at))
	return err
}

// publisherOf reads what was set, with the instant; nothing set is the zero Publisher.
func publisherOf(tx *store.Tx, tenant string) (p Publisher, updated time.Time, err error) {
	var data string
	var at int64
	err = tx.QueryRow(`SELECT data, updated FROM respond_publisher WHERE tenant = $1`, tenant).Scan(&data, &at)
	if errors.Is(err, store.ErrNoRows) {
		return p, updated, nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(data), &p)
	}
	return p, store.Time(at), err
}

// ProductsOf is the product of each of these advisories of the tenant, by id.
func (s *Service) ProductsOf(ctx context.Context, tenant string, ids []string) (map[string]string, error) {
	in, args := store.In([]any{tenant}, ids)
	return store.Pairs(s.cfg.DB.Query(ctx, `SELECT id, product FROM respond_advisory WHERE tenant = $1 AND id IN `+in, args...))
}
