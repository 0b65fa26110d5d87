// SPDX-License-Identifier: AGPL-3.0-only

package audit

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// row is one stored entry.
type row struct {
	leaf    wire.Leaf
	payload []byte // empty once erased
	hash    []byte
	pos     sql.NullInt64
}

const columns = `id, at, tenant, actor, kind, subject, digest, payload, leaf_hash, pos`

func scanRow(r *sql.Rows) (e row, err error) {
	return e, r.Scan(&e.leaf.ID, &e.leaf.At, &e.leaf.Tenant, &e.leaf.Actor, &e.leaf.Kind, &e.leaf.Subject, &e.leaf.Data, &e.payload, &e.hash, &e.pos)
}

func sortByPos(entries []row) {
	slices.SortFunc(entries, func(a, b row) int { return cmp.Compare(a.pos.Int64, b.pos.Int64) })
}

// data decodes the payload and checks it against the leaf; nil once erased.
func (e row) data() (*wire.LeafData, error) {
	if len(e.payload) == 0 {
		return nil, nil
	}
	var d wire.LeafData
	if err := json.Unmarshal(e.payload, &d); err != nil {
		return nil, fmt.Errorf("audit: payload of %s: %w", e.leaf.ID, err)
	}
	if d.Digest() != e.leaf.Data {
		return nil, fmt.Errorf("audit: the payload of %s does not match the digest in its leaf", e.leaf.ID)
	}
	return &d, nil
}

// oneEntry reads one entry of a tenant.
func oneEntry(tx *store.Tx, tenant, id string) (row, error) {
	rows, err := tx.Query(`SELECT `+columns+` FROM audit_entry WHERE tenant = $1 AND id = $2`, tenant, id)
	found, err := store.Collect(rows, err, scanRow)
	if err != nil {
		return row{}, fmt.Errorf("audit: entry %s: %w", id, err)
	}
	if len(found) == 0 {
		return row{}, problem.NotFound("There is no log entry %s.", id)
	}
	return found[0], nil
}

// sequenced reads a tenant's entries about a subject below a position.
func sequenced(tx *store.Tx, tenant, subject string, below int64) ([]row, error) {
	rows, err := tx.Query(`SELECT `+columns+` FROM audit_entry WHERE tenant = $1 AND subject = $2 AND pos < $3 ORDER BY pos`, tenant, subject, below)
	found, err := store.Collect(rows, err, scanRow)
	if err != nil {
		return nil, fmt.Errorf("audit: entries about %s: %w", subject, err)
	}
	return found, nil
}

// Filter narrows a list; empty members do not.
type Filter struct {
	Subject, Kind string
	From, To      int64 // ms since 1970 UTC, half open
	Before        string
}

// List returns at most n entries of a tenant, newest first; f.Before is the id of the last one of the page before.
func (l *Log) List(ctx context.Context, tenant string, f Filter, n int) ([]Item, error) {
	query, args := `SELECT `+columns+` FROM audit_entry WHERE tenant = $1`, []any{tenant}
	where := func(cond string, arg any) {
		args = append(args, arg)
		query += fmt.Sprintf(" AND %s $%d", cond, len(args))
	}
	if f.Subject != "" {
		where("subject =", f.Subject)
	}
	if f.Kind != "" {
		where("kind =", f.Kind)
	}
	if f.From > 0 {
		where("at >=", f.From)
	}
	if f.To > 0 {
		where("at <", f.To)
	}
	if f.Before != "" {
		where("id <", f.Before)
	}
	args = append(args, n)
	rows, err := l.db.Query(ctx, query+fmt.Sprintf(" ORDER BY id DESC LIMIT $%d", len(args)), args...)
	found, err := store.Collect(rows, err, scanRow)
	if err != nil {
		return nil, fmt.Errorf("audit: list: %w", err)
	}
	out := make([]Item, 0, len(found))
	for _, e := range found {
		out = append(out, e.item())
	}
	return out, nil
}

// Erase destroys the payload of one entry of a tenant and says so in the log. The leaf and every proof stay.
func Erase(tx *store.Tx, tenant, id, actor, reason string) error {
	e, err := oneEntry(tx, tenant, id)
	if err != nil {
		return err
	}
	if e.leaf.Kind == kindErased {
		return problem.Forbidden("audit.erasure-stays", "The record of an erasure is not erased.")
	}
	if len(e.payload) == 0 {
		return nil
	}
	if reason == "" {
		return errors.New("audit: an erasure needs a reason")
	}
	if _, err := tx.Exec(`UPDATE audit_entry SET payload = $1 WHERE tenant = $2 AND id = $3`, []byte{}, tenant, id); err != nil {
		return fmt.Errorf("audit: erase %s: %w", id, err)
	}
	return Append(tx, Entry{Tenant: tenant, Actor: actor, Kind: kindErased, Subject: e.leaf.Subject, Data: erased{Entry: id, Reason: reason}})
}

const kindErased = "audit.erased"

// erased is the data of kindErased.
type erased struct {
	Entry  string `json:"entry"`
	Reason string `json:"reason"`
}
