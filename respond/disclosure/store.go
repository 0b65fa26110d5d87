// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

//go:embed migrations/*.sql
var migrationsFS embed.FS

// Schema holds the tables of reports, policies, keys and signed files. The contacts lie in respond.Schema, where they were
// made.
var Schema = store.Migrations{Stage: "disclosure", FS: migrationsFS}

// file is a report as it is stored.
type file struct {
	ID, Tenant, Product string
	Received            time.Time
	Rows                []row
}

// row is an event with its sealed parts.
type row struct {
	Event
	note, words []byte
	digest      string
}

func (f file) state() State {
	es := make([]Event, len(f.Rows))
	for i, r := range f.Rows {
		es[i] = r.Event
	}
	return Fold(es)
}

// stamp fills in the digest: of everything that is stored, so that no single part of it can be guessed from the digest.
func (r *row) stamp(report string, more ...[]byte) ([]byte, error) {
	data, err := json.Marshal(r.Data)
	if err != nil {
		return nil, fmt.Errorf("event: %w", err)
	}
	h := sha256.New()
	for _, part := range append([][]byte{[]byte(report), []byte(fmt.Sprint(r.Seq, " ", r.Kind, " ", r.Recorded.UnixMilli(), " ", r.By, " ", r.Actor)), data, r.note, r.words}, more...) {
		fmt.Fprintf(h, "%d:", len(part))
		h.Write(part)
	}
	r.digest = hex.EncodeToString(h.Sum(nil))
	return data, nil
}

func insertReport(tx *store.Tx, f file, link string) error {
	_, err := tx.Exec(`INSERT INTO disclosure_report(id, tenant, link, product, received, closed, next) VALUES ($1, $2, $3, $4, $5, 0, 0)`,
		f.ID, f.Tenant, link, f.Product, store.Millis(f.Received))
	return err
}

// insertEvent adds the next event of a report and brings its row up to date.
func insertEvent(tx *store.Tx, f *file, r row, data []byte) error {
	_, err := tx.Exec(`INSERT INTO disclosure_event(report, seq, tenant, kind, recorded, author, actor, data, note, words, digest, logged) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
		f.ID, r.Seq, f.Tenant, r.Kind, store.Millis(r.Recorded), r.By, r.Actor, string(data), r.note, bytesOf(r.words), r.digest, flag(r.By != ByFinder))
	if store.IsUnique(err) {
		return problem.Conflict("Somebody else changed it at the same moment.").Hint("Look again and repeat.")
	}
	if err != nil {
		return err
	}
	f.Rows = append(f.Rows, r)
	st := f.state()
	f.Product = st.Product
	var next int64
	if t, ok := Next(Timers(st)); ok {
		next = store.Millis(t.Due)
	}
	_, err = tx.Exec(`UPDATE disclosure_report SET product = $1, closed = $2, next = $3 WHERE tenant = $4 AND id = $5`,
		f.Product, store.Millis(st.Closed), next, f.Tenant, f.ID)
	return err
}

func bytesOf(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// list says which rows of a list are wanted.
type list struct {
	After    string // the newest first, from before this id
	Limit    int
	Open     bool // by next timer instead, the open ones only
	Whole    bool
	Products []string
}

func (l list) where() (string, []any) {
	q, args := `($2 = '' OR id < $2)`, []any{nil, l.After} // the tenant comes in the place of nil
	if !l.Whole {
		var in string
		in, args = store.In(args, l.Products)
		q += ` AND product IN ` + in
	}
	order := `id DESC`
	if l.Open {
		q += ` AND closed = 0`
		order = `CASE WHEN next = 0 THEN 1 ELSE 0 END, next, id`
	}
	args = append(args, l.Limit)
	return q + fmt.Sprintf(` ORDER BY `+order+` LIMIT $%d`, len(args)), args[1:]
}

// files reads the reports that match where, of which $1 is the tenant, each with its events.
func files(tx *store.Tx, tenant, where string, args ...any) ([]file, error) {
	rows, err := tx.Query(`SELECT id, tenant, product, received FROM disclosure_report WHERE tenant = $1 AND `+where, append([]any{tenant}, args...)...)
	fs, err := store.Collect(rows, err, func(r *sql.Rows) (file, error) {
		var f file
		var received int64
		err := r.Scan(&f.ID, &f.Tenant, &f.Product, &received)
		f.Received = store.Time(received)
		return f, err
	})
	if err != nil {
		return nil, err
	}
	for i := range fs {
		if fs[i].Rows, err = eventsOf(tx, tenant, fs[i].ID); err != nil {
			return nil, err
		}
	}
	return fs, nil
}

func fileBy(tx *store.Tx, tenant, column, value string) (file, error) {
	fs, err := files(tx, tenant, column+` = $2`, value)
	if err == nil && len(fs) == 0 {
		err = problem.NotFound("There is no such report.")
	}
	if err != nil {
		return file{}, err
	}
	return fs[0], nil
}

// Name is what people call a report of the tenant: by when it came, which no embargo withholds.
func (s *Service) Name(ctx context.Context, tenant, id string) (string, error) {
	var received int64
	err := s.cfg.DB.QueryRow(ctx, `SELECT received FROM disclosure_report WHERE tenant = $1 AND id = $2`, tenant, id).Scan(&received)
	if errors.Is(err, store.ErrNoRows) {
		err = problem.NotFound("There is no such report.")
	}
	return "report of " + store.Time(received).UTC().Format("2006-01-02 15:04"), err
}

func eventsOf(tx *store.Tx, tenant, report string) ([]row, error) {
	rows, err := tx.Query(`SELECT seq, kind, recorded, author, actor, data, note, words, digest FROM disclosure_event WHERE tenant = $1 AND report = $2 ORDER BY seq`, tenant, report)
	return store.Collect(rows, err, func(r *sql.Rows) (row, error) {
		var e row
		var recorded int64
		var data string
		if err := r.Scan(&e.Seq, &e.Kind, &recorded, &e.By, &e.Actor, &data, &e.note, &e.words, &e.digest); err != nil {
			return e, err
		}
		e.Recorded = store.Time(recorded)
		return e, json.Unmarshal([]byte(data), &e.Data)
	})
}

func insertFinder(tx *store.Tx, f file, sealed []byte) error {
	_, err := tx.Exec(`INSERT INTO disclosure_finder(report, tenant, sealed) VALUES ($1, $2, $3)`, f.ID, f.Tenant, sealed)
	return err
}

func finderOf(tx *store.Tx, tenant, report string) (sealed []byte, err error) {
	err = tx.QueryRow(`SELECT sealed FROM disclosure_finder WHERE tenant = $1 AND report = $2`, tenant, report).Scan(&sealed)
	if errors.Is(err, store.ErrNoRows) {
		return nil, nil
	}
	return sealed, err
}

// Attachment is a file that a finder sent. What it is called is among the finder's words.
type Attachment struct {
	ID   string    `json:"id"`
	Seq  int64     `json:"seq" doc:"The event that it came with"`
	Size int64     `json:"size" doc:"Bytes"`
	At   time.Time `json:"at"`

	digest string
}

func insertAttachment(tx *store.Tx, f file, a Attachment) error {
	_, err := tx.Exec(`INSERT INTO disclosure_attachment(id, report, seq, tenant, size, at, digest) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		a.ID, f.ID, a.Seq, f.Tenant, a.Size, store.Millis(a.At), a.digest)
	return err
}

func attachmentsOf(tx *store.Tx, tenant, report string) ([]Attachment, error) {
	rows, err := tx.Query(`SELECT id, seq, size, at, digest FROM disclosure_attachment WHERE tenant = $1 AND report = $2 ORDER BY id`, tenant, report)
	return store.Collect(rows, err, func(r *sql.Rows) (a Attachment, err error) {
		var at int64
		err = r.Scan(&a.ID, &a.Seq, &a.Size, &at, &a.digest)
		a.At = store.Time(at)
		return a, err
	})
}

// attachedSince is how many bytes of attachments a tenant was sent since then.
func attachedSince(tx *store.Tx, tenant string, since time.Time) (bytes int64, err error) {
	err = tx.QueryRow(`SELECT COALESCE(SUM(size), 0) FROM disclosure_attachment WHERE tenant = $1 AND at >= $2`, tenant, store.Millis(since)).Scan(&bytes)
	return bytes, err
}
