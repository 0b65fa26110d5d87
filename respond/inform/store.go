// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"cmp"
	"database/sql"
	"embed"
	"errors"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

//go:embed migrations/*.sql
var migrationsFS embed.FS

// Schema belongs to the platform handle.
var Schema = store.Migrations{Stage: "inform", FS: migrationsFS}

func missing(err error, what string) error {
	if errors.Is(err, store.ErrNoRows) {
		return problem.NotFound("There is no such %s.", what)
	}
	return err
}

type scanner interface{ Scan(...any) error }

const contactColumns = `id, tenant, role, channel, lang, hash, sealed, created, changed, erased`

func scanContact(r scanner) (c Contact, err error) {
	var created, changed, erased int64
	err = r.Scan(&c.ID, &c.tenant, &c.Role, &c.Channel, &c.Language, &c.hash, &c.sealed, &created, &changed, &erased)
	c.Created, c.Changed, c.Erased = store.Time(created), store.Time(changed), store.Time(erased)
	return c, missing(err, "contact")
}

func insertContact(tx *store.Tx, c Contact) error {
	_, err := tx.Exec(`INSERT INTO inform_contact(`+contactColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0)`,
		c.ID, c.tenant, c.Role, c.Channel, c.Language, c.hash, c.sealed, store.Millis(c.Created), store.Millis(c.Changed))
	if err != nil {
		return err
	}
	return insertHoldings(tx, c)
}

func insertHoldings(tx *store.Tx, c Contact) error {
	rows := make([][]any, len(c.Products))
	for i, h := range c.Products {
		rows[i] = []any{c.ID, h.Product, h.Revision, c.tenant}
	}
	return tx.InsertMany(`INSERT INTO inform_holding(contact, product, revision, tenant)`, rows, "")
}

func updateContact(tx *store.Tx, c Contact) error {
	n, err := tx.Exec(`UPDATE inform_contact SET role = $3, lang = $4, hash = $5, sealed = $6, changed = $7 WHERE tenant = $1 AND id = $2 AND erased = 0`,
		c.tenant, c.ID, c.Role, c.Language, c.hash, c.sealed, store.Millis(c.Changed))
	if err == nil && n == 0 {
		err = problem.Conflict("The contact was erased.")
	}
	if err == nil {
		_, err = tx.Exec(`DELETE FROM inform_holding WHERE tenant = $1 AND contact = $2`, c.tenant, c.ID)
	}
	if err == nil {
		err = insertHoldings(tx, c)
	}
	return err
}

func contactByID(tx *store.Tx, tenant, id string) (Contact, error) {
	cs, err := contactsWhere(tx, tenant, `id = $2`, id)
	return one(cs, err)
}

func contactByHash(tx *store.Tx, tenant, hash string) (Contact, error) {
	cs, err := contactsWhere(tx, tenant, `hash = $2`, hash)
	return one(cs, err)
}

func one(cs []Contact, err error) (Contact, error) {
	if err == nil && len(cs) == 0 {
		err = problem.NotFound("There is no such contact.")
	}
	if err != nil {
		return Contact{}, err
	}
	return cs[0], nil
}

// contacts is a page of those of a product (all if empty), the newest first; the erased ones are left out.
func contacts(tx *store.Tx, tenant, product, before string, limit int) ([]Contact, error) {
	before = cmp.Or(before, "con`") // follows every id
	if product == "" {
		return contactsWhere(tx, tenant, `erased = 0 AND id < $2 ORDER BY id DESC LIMIT $3`, before, limit)
	}
	// Who was erased has no product.
	return contactsWhere(tx, tenant, `id IN (SELECT DISTINCT contact FROM inform_holding WHERE tenant = $1 AND product = $4 AND contact < $2
		ORDER BY contact DESC LIMIT $3) ORDER BY id DESC`, before, limit, product)
}

func contactsWhere(tx *store.Tx, tenant, where string, args ...any) ([]Contact, error) {
	rows, err := tx.Query(`SELECT `+contactColumns+` FROM inform_contact WHERE tenant = $1 AND `+where, append([]any{tenant}, args...)...)
	cs, err := store.Collect(rows, err, func(r *sql.Rows) (Contact, error) { return scanContact(r) })
	if err != nil || len(cs) == 0 {
		return nil, err
	}
	at, ids := map[string]int{}, make([]string, len(cs))
	for i, c := range cs {
		at[c.ID], ids[i], cs[i].Products = i, c.ID, []Holding{}
	}
	in, of := store.In([]any{tenant}, ids)
	rows, err = tx.Query(`SELECT contact, product, revision FROM inform_holding WHERE tenant = $1 AND contact IN `+in+` ORDER BY contact, product, revision`, of...)
	_, err = store.Collect(rows, err, func(r *sql.Rows) (h Holding, err error) {
		var contact string
		err = r.Scan(&contact, &h.Product, &h.Revision)
		cs[at[contact]].Products = append(cs[at[contact]].Products, h)
		return h, err
	})
	return cs, err
}

func countContacts(tx *store.Tx, tenant string) (n int64, err error) {
	err = tx.QueryRow(`SELECT count(*) FROM inform_contact WHERE tenant = $1 AND erased = 0`, tenant).Scan(&n)
	return n, err
}

// eraseContact leaves a tombstone, ends what waits for the contact and says how many deliveries stay on record. What a
// worker has taken ends by itself.
func eraseContact(tx *store.Tx, tenant, id string, at time.Time) (told int64, err error) {
	now := store.Millis(at)
	if _, err = tx.Exec(`UPDATE inform_contact SET sealed = $3, hash = id, changed = $4, erased = $4 WHERE tenant = $1 AND id = $2`, tenant, id, []byte{}, now); err != nil {
		return 0, err
	}
	if _, err = tx.Exec(`DELETE FROM inform_holding WHERE tenant = $1 AND contact = $2`, tenant, id); err != nil {
		return 0, err
	}
	if _, err = tx.Exec(`UPDATE inform_delivery SET state = 'failed', ended = $3, answer = $4 WHERE tenant = $1 AND contact = $2 AND state = 'waiting' AND busy <= $3`,
		tenant, id, now, erasedAnswer); err != nil {
		return 0, err
	}
	err = tx.QueryRow(`SELECT count(*) FROM inform_delivery WHERE tenant = $1 AND contact = $2`, tenant, id).Scan(&told)
	return told, err
}
