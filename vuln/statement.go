// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/vex"
)

// Taken is a VEX document of others that was imported.
type Taken struct {
	ID         string     `json:"id"`
	Origin     vex.Origin `json:"origin" enum:"own,vendor,distribution"`
	Format     vex.Format `json:"format"`
	Document   string     `json:"document" doc:"What its author calls it"`
	Version    string     `json:"version"`
	Author     string     `json:"author"`
	Issued     time.Time  `json:"issued,omitzero"`
	Digest     string     `json:"digest"`
	Statements int64      `json:"statements"`
	Unread     []string   `json:"unread,omitempty" doc:"What it says that could not be taken over, a sentence each"`
	By         string     `json:"by"`
	At         time.Time  `json:"at"`
	Current    bool       `json:"current" doc:"False: a newer version of the same document was imported"`
}

// productsAtOnce bounds the products of one stored row.
const productsAtOnce = 200

// TakeVEX stores what a document says. It decides nothing: its statements are proposals for findings that they fit, now or
// whenever a product that they name appears. The same document again changes nothing.
func (s *Service) TakeVEX(ctx context.Context, tenant, actor string, origin vex.Origin, d vex.Document) (Taken, error) {
	if origin.Rank() > vex.Distribution.Rank() {
		return Taken{}, problem.Invalid("%.40q is no origin of statements.", origin).At("origin").Hint("use own, vendor or distribution")
	}
	in, err := s.arrange(tenant, actor, origin, d)
	if err != nil {
		return Taken{}, err
	}
	if known, ok, err := s.known(ctx, tenant, origin, d.Digest); err != nil || ok {
		return known, err
	}
	// What stands in no document yet is seen by nobody: the document's own row comes last.
	for _, part := range []struct {
		into string
		rows [][]any
	}{{insertStatements, in.rows}, {insertIdents, in.idents}} {
		for rows := range slices.Chunk(part.rows, rowsAtOnce) {
			if err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error { return tx.InsertMany(part.into, rows, `ON CONFLICT DO NOTHING`) }); err != nil {
				return Taken{}, err
			}
		}
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.putTaken(tx, tenant, &in) })
	if store.IsUnique(err) { // the same document, at the same time
		if known, ok, err := s.known(ctx, tenant, origin, d.Digest); err != nil || ok {
			return known, err
		}
	}
	return in.Taken, err
}

// arranged is a document on its way into the database: its row and those of its statements, ready to be written.
type arranged struct {
	Taken
	rows, idents [][]any
	unread       string
}

const (
	insertStatements = `INSERT INTO vuln_statement (tenant, id, vex_id, body)`
	insertIdents     = `INSERT INTO vuln_statement_ident (tenant, ident, statement_id)`
)

func (s *Service) arrange(tenant, actor string, origin vex.Origin, d vex.Document) (arranged, error) {
	in := arranged{Taken: Taken{ID: store.NewID("vex"), Origin: origin, Format: d.Format, Document: d.ID, Version: d.Version, Author: d.Author, Issued: d.At, Digest: d.Digest,
		Statements: int64(len(d.Statements)), Unread: d.Unread, By: actor, At: store.Time(s.now()), Current: true}}
	unread, err := json.Marshal(d.Unread)
	if err != nil {
		return in, err
	}
	in.unread = string(unread)
	for _, st := range d.Statements {
		for part := range slices.Chunk(st.Products, productsAtOnce) {
			st.Products = part
			body, err := json.Marshal(st)
			if err != nil {
				return in, err
			}
			id := store.NewID("vst")
			in.rows = append(in.rows, []any{tenant, id, in.ID, string(body)})
			for _, ident := range st.Idents {
				in.idents = append(in.idents, []any{tenant, ident, id})
			}
		}
	}
	return in, nil
}

// putTaken writes the document's own row, and with it lets its statements be seen.
func (s *Service) putTaken(tx *store.Tx, tenant string, in *arranged) (err error) {
	if in.Current, err = s.supersede(tx, tenant, in.Taken); err != nil {
		return err
	}
	current := int64(0)
	if in.Current {
		current = 1
	}
	if _, err := tx.Exec(`INSERT INTO vuln_vex (tenant, id, digest, origin, format, doc_id, doc_version, author, at, imported_by, imported_at, statements, unread, is_current)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`, tenant, in.ID, in.Digest, string(in.Origin), string(in.Format), in.Document, in.Version, in.Author,
		store.Millis(in.Issued), in.By, store.Millis(in.At), in.Statements, in.unread, current); err != nil {
		return err
	}
	return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: in.By, Kind: "vex.imported", Subject: in.ID, Data: in.Taken})
}

// maxWithRelease is how many rows may come in one transaction with a release.
const maxWithRelease = 1000

// WithRelease reads a document of the manufacturer's own statements that comes with a release, and returns what stores it
// in the transaction of the release. They are proposals like all others.
func (s *Service) WithRelease(doc []byte) (put func(tx *store.Tx, tenant, actor string) error, err error) {
	d, err := vex.Parse(doc)
	if err != nil {
		return nil, err
	}
	return func(tx *store.Tx, tenant, actor string) error {
		in, err := s.arrange(tenant, actor, vex.Own, d)
		if err != nil {
			return err
		}
		if len(in.rows)+len(in.idents) > maxWithRelease {
			return problem.TooLarge("The statements are too many to come with a release.").At("vex").Hint("import them apart, with POST /v1/vex?origin=own")
		}
		known, err := s.taken(tx, tenant, `digest = $2 AND origin = $3`, d.Digest, string(vex.Own))
		if err != nil || len(known) > 0 {
			return err
		}
		if err := tx.InsertMany(insertStatements, in.rows, ``); err != nil {
			return err
		}
		if err := tx.InsertMany(insertIdents, in.idents, `ON CONFLICT DO NOTHING`); err != nil {
			return err
		}
		return s.putTaken(tx, tenant, &in)
	}, nil
}

// rowsAtOnce are written in one transaction.
const rowsAtOnce = 500

// known finds the document if it was imported already.
func (s *Service) known(ctx context.Context, tenant string, origin vex.Origin, digest string) (Taken, bool, error) {
	var list []Taken
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		list, err = s.taken(tx, tenant, `digest = $2 AND origin = $3`, digest, string(origin))
		return err
	})
	if err != nil || len(list) == 0 {
		return Taken{}, false, err
	}
	return list[0], true, nil
}

// supersede reports whether the document is the newest version of itself, and marks the ones that it replaces.
func (s *Service) supersede(tx *store.Tx, tenant string, t Taken) (bool, error) {
	if t.Document == "" {
		return true, nil
	}
	same, err := s.taken(tx, tenant, `origin = $2 AND author = $3 AND doc_id = $4 AND is_current = 1`, string(t.Origin), t.Author, t.Document)
	if err != nil {
		return false, err
	}
	for _, old := range same {
		if old.Issued.After(t.Issued) {
			return false, nil
		}
	}
	_, err = tx.Exec(`UPDATE vuln_vex SET is_current = 0 WHERE tenant = $1 AND origin = $2 AND author = $3 AND doc_id = $4`, tenant, string(t.Origin), t.Author, t.Document)
	return true, err
}

func (s *Service) taken(tx *store.Tx, tenant, where string, args ...any) ([]Taken, error) {
	rows, err := tx.Query(`SELECT id, origin, format, doc_id, doc_version, author, at, digest, statements, unread, imported_by, imported_at, is_current FROM vuln_vex
		WHERE tenant = $1 AND `+where, append([]any{tenant}, args...)...)
	return store.Collect(rows, err, func(r *sql.Rows) (t Taken, err error) {
		var issued, at, current int64
		var unread string
		err = r.Scan(&t.ID, &t.Origin, &t.Format, &t.Document, &t.Version, &t.Author, &issued, &t.Digest, &t.Statements, &unread, &t.By, &at, &current)
		t.Issued, t.At, t.Current = store.Time(issued), store.Time(at), current == 1
		return t, cmp.Or(err, json.Unmarshal([]byte(unread), &t.Unread))
	})
}

// TakenVEX lists the documents that were imported, after the id given.
func (s *Service) TakenVEX(ctx context.Context, tenant, after string, limit int) (list []Taken, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		list, err = s.taken(tx, tenant, `id > $2 ORDER BY id LIMIT $3`, after, int64(limit))
		return err
	})
	return list, err
}

// statement is one of others, with the document that it stands in.
type statement struct {
	id string
	vex.Statement
	doc Taken
}

// statementsOn reads the current statements on any name of a vulnerability, in the order of precedence: own before vendor
// before distribution, then the newest.
func (s *Service) statementsOn(tx *store.Tx, tenant, group string) ([]statement, error) {
	rows, err := tx.Query(`SELECT DISTINCT s.id, s.vex_id, s.body FROM vuln_member m
		JOIN vuln_statement_ident i ON i.tenant = m.tenant AND i.ident = m.ident
		JOIN vuln_statement s ON s.tenant = i.tenant AND s.id = i.statement_id
		JOIN vuln_vex v ON v.tenant = s.tenant AND v.id = s.vex_id AND v.is_current = 1
		WHERE m.tenant = $1 AND m.group_id = $2`, tenant, group)
	out, err := store.Collect(rows, err, scanStatement)
	if err != nil {
		return nil, err
	}
	if err := s.inDocuments(tx, tenant, out); err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b statement) int {
		return cmp.Or(cmp.Compare(a.doc.Origin.Rank(), b.doc.Origin.Rank()), b.At.Compare(a.At), cmp.Compare(a.id, b.id))
	})
	return out, nil
}

func scanStatement(r *sql.Rows) (st statement, err error) {
	var body string
	err = r.Scan(&st.id, &st.doc.ID, &body)
	return st, cmp.Or(err, json.Unmarshal([]byte(body), &st.Statement))
}

// inDocuments reads the documents of the statements.
func (s *Service) inDocuments(tx *store.Tx, tenant string, list []statement) error {
	documents := map[string]Taken{}
	for i := range list {
		id := list[i].doc.ID
		if _, ok := documents[id]; !ok {
			found, err := s.taken(tx, tenant, `id = $2`, id)
			if err != nil {
				return err
			}
			if len(found) == 0 {
				return fmt.Errorf("statement %s: its document %s is missing", list[i].id, id)
			}
			documents[id] = found[0]
		}
		list[i].doc = documents[id]
	}
	return nil
}

// parts lists what the release lists now.
func (s *Service) parts(tx *store.Tx, tenant, release string) ([]sbom.Part, error) {
	keys, err := s.cfg.SBOM.Keys(tx, tenant, release)
	if err != nil {
		return nil, err
	}
	components := make([]string, len(keys))
	for i, k := range keys {
		components[i] = k.Component
	}
	spelled, err := s.cfg.SBOM.Spelled(tx, tenant, []string{release}, components)
	out := make([]sbom.Part, 0, len(spelled))
	for _, p := range spelled {
		out = append(out, p)
	}
	return out, err
}
