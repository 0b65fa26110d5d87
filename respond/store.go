// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

//go:embed migrations/*.sql
var migrationsFS embed.FS

// Schema holds the tables of signals, assessments and cases, and those of respond/disclosure, respond/pgp and respond/advisory
// that were made here before they had rooms of their own.
var Schema = store.Migrations{Stage: "respond", FS: migrationsFS}

type scanner interface{ Scan(...any) error }

const signalColumns = `id, product, source, ref, title, detail, exploited, known_since, intake, actor`

func scanSignal(r scanner) (Signal, error) {
	var s Signal
	var known, intake int64
	err := r.Scan(&s.ID, &s.Product, &s.Source, &s.Ref, &s.Title, &s.Detail, &s.Exploited, &known, &intake, &s.Actor)
	s.KnownSince, s.Intake = store.Time(known), store.Time(intake)
	return s, missing(err, "signal")
}

// insertSignal adds a signal; false means that its source has said it before, under the same key.
func insertSignal(tx *store.Tx, tenant string, s Signal, key string) (bool, error) {
	n, err := tx.Exec(`INSERT INTO respond_signal(tenant, key, `+signalColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
		ON CONFLICT (tenant, source, key) DO NOTHING`,
		tenant, key, s.ID, s.Product, s.Source, s.Ref, s.Title, s.Detail, s.Exploited, store.Millis(s.KnownSince), store.Millis(s.Intake), s.Actor)
	return n == 1, err
}

func signalByID(tx *store.Tx, tenant, id string) (Signal, error) {
	s, err := scanSignal(tx.QueryRow(`SELECT `+signalColumns+` FROM respond_signal WHERE tenant = $1 AND id = $2`, tenant, id))
	if err != nil {
		return Signal{}, err
	}
	as, err := assessments(tx, tenant, `signal = $2 ORDER BY id DESC LIMIT 1`, id)
	if err == nil && len(as) == 1 {
		s.Assessment = &as[0]
	}
	return s, err
}

// signalByKey finds what a source has said before.
func signalByKey(tx *store.Tx, tenant, source, key string) (Signal, error) {
	var id string
	if err := tx.QueryRow(`SELECT id FROM respond_signal WHERE tenant = $1 AND source = $2 AND key = $3`, tenant, source, key).Scan(&id); err != nil {
		return Signal{}, err
	}
	return signalByID(tx, tenant, id)
}

// list says which rows of a list are wanted: the newest first, from before the id After, in Products unless Whole; of
// signals only the Burning ones, if so.
type list struct {
	Burning  bool
	After    string
	Limit    int
	Whole    bool
	Products []string
}

// where is the condition behind "tenant = $1", with its arguments.
func (l list) where() (string, []any) {
	q, args := `($2 = '' OR id < $2)`, []any{nil, l.After} // the tenant comes in the place of nil
	if !l.Whole {
		var in string
		in, args = store.In(args, l.Products)
		q += ` AND product IN ` + in
	}
	if l.Burning {
		q += ` AND exploited = 'yes' AND COALESCE((SELECT a.verdict FROM respond_assessment a WHERE a.tenant = respond_signal.tenant AND a.signal = respond_signal.id
			ORDER BY a.id DESC LIMIT 1), '') IN ('', 'watch')`
	}
	args = append(args, l.Limit)
	return q + fmt.Sprintf(` ORDER BY id DESC LIMIT $%d`, len(args)), args[1:]
}

func signals(tx *store.Tx, tenant string, l list) ([]Signal, error) {
	where, args := l.where()
	rows, err := tx.Query(`SELECT `+signalColumns+` FROM respond_signal WHERE tenant = $1 AND `+where, append([]any{tenant}, args...)...)
	ss, err := store.Collect(rows, err, func(r *sql.Rows) (Signal, error) { return scanSignal(r) })
	if err != nil || len(ss) == 0 {
		return nil, err
	}
	as, err := assessments(tx, tenant, `signal IN (SELECT id FROM respond_signal WHERE tenant = $1 AND id >= $2 AND id <= $3) ORDER BY id`, ss[len(ss)-1].ID, ss[0].ID)
	if err != nil {
		return nil, err
	}
	newest := map[string]*Assessment{}
	for i := range as {
		newest[as[i].Signal] = &as[i]
	}
	for i := range ss {
		ss[i].Assessment = newest[ss[i].ID]
	}
	return ss, nil
}

func insertAssessment(tx *store.Tx, tenant string, a Assessment) error {
	_, err := tx.Exec(`INSERT INTO respond_assessment(id, tenant, signal, opened, opened_by, evidence, verdict) VALUES ($1, $2, $3, $4, $5, $6, '')`,
		a.ID, tenant, a.Signal, store.Millis(a.Opened), a.OpenedBy, a.Evidence)
	return err
}

// assessments reads those that match where, of which $1 is the tenant, with their decisions.
func assessments(tx *store.Tx, tenant, where string, args ...any) ([]Assessment, error) {
	rows, err := tx.Query(`SELECT id, signal, opened, opened_by, evidence, verdict FROM respond_assessment WHERE tenant = $1 AND `+where, append([]any{tenant}, args...)...)
	as, err := store.Collect(rows, err, func(r *sql.Rows) (Assessment, error) {
		var a Assessment
		var opened int64
		err := r.Scan(&a.ID, &a.Signal, &opened, &a.OpenedBy, &a.Evidence, &a.Verdict)
		a.Opened = store.Time(opened)
		return a, err
	})
	for i := range as {
		if as[i].Decisions, err = decisions(tx, tenant, as[i].ID); err != nil {
			return nil, err
		}
	}
	return as, err
}

func assessmentByID(tx *store.Tx, tenant, id string) (Assessment, error) {
	as, err := assessments(tx, tenant, `id = $2`, id)
	if err == nil && len(as) == 0 {
		err = store.ErrNoRows
	}
	if err != nil {
		return Assessment{}, missing(err, "assessment")
	}
	return as[0], nil
}

func decisions(tx *store.Tx, tenant, assessment string) ([]Decision, error) {
	rows, err := tx.Query(`SELECT id, verdict, basis, reason, known, case_id, again, at, actor FROM respond_decision WHERE tenant = $1 AND assessment = $2 ORDER BY seq`, tenant, assessment)
	return store.Collect(rows, err, func(r *sql.Rows) (Decision, error) {
		var d Decision
		var known, again, at int64
		err := r.Scan(&d.ID, &d.Verdict, &d.Basis, &d.Reason, &known, &d.Case, &again, &at, &d.Actor)
		d.KnownSince, d.Again, d.At = store.Time(known), store.Time(again), store.Time(at)
		return d, err
	})
}

// insertDecision adds the next decision of an assessment; the key refuses a second one in the same place.
func insertDecision(tx *store.Tx, tenant string, a Assessment, d Decision) error {
	_, err := tx.Exec(`INSERT INTO respond_decision(assessment, seq, id, tenant, verdict, basis, reason, known, case_id, again, at, actor) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
		a.ID, len(a.Decisions)+1, d.ID, tenant, d.Verdict, d.Basis, d.Reason, store.Millis(d.KnownSince), d.Case, store.Millis(d.Again), store.Millis(d.At), d.Actor)
	if err == nil {
		_, err = tx.Exec(`UPDATE respond_assessment SET verdict = $1 WHERE tenant = $2 AND id = $3`, d.Verdict, tenant, a.ID)
	}
	return raced(err)
}

// file is the row that says that a case exists, with all its events.
type file struct {
	ID, Tenant, Product, Signal, Ref, Glossary string
	Kind                                       Kind
	Opened                                     time.Time
	Events                                     []Event
}

func (f file) state() State { return Fold(f.Kind, f.Events) }

func insertCase(tx *store.Tx, f file) error {
	_, err := tx.Exec(`INSERT INTO respond_case(id, tenant, product, kind, signal, ref, opened, glossary, closed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0)`,
		f.ID, f.Tenant, f.Product, f.Kind, f.Signal, f.Ref, store.Millis(f.Opened), f.Glossary)
	return err
}

func closeCase(tx *store.Tx, tenant, id string, at time.Time) error {
	_, err := tx.Exec(`UPDATE respond_case SET closed = $1 WHERE tenant = $2 AND id = $3`, store.Millis(at), tenant, id)
	return err
}

func insertEvent(tx *store.Tx, tenant, id string, e Event) error {
	return insertEventIn(tx, "respond_event", tenant, id, e)
}

// insertEventIn adds an event to a log: of cases or of drills.
func insertEventIn(tx *store.Tx, table, tenant, id string, e Event) error {
	data, err := json.Marshal(e.Data)
	if err != nil {
		return fmt.Errorf("event: %w", err)
	}
	person := 0
	if e.Person {
		person = 1
	}
	_, err = tx.Exec(`INSERT INTO `+table+`(case_id, seq, tenant, kind, recorded, actor, person, data) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		id, e.Seq, tenant, e.Kind, store.Millis(e.Recorded), e.Actor, person, string(data))
	return raced(err)
}

// files reads the cases that match where, of which $1 is the tenant, each with its events.
func files(tx *store.Tx, tenant, where string, args ...any) ([]file, error) {
	args = append([]any{tenant}, args...)
	rows, err := tx.Query(`SELECT id, tenant, product, kind, signal, ref, opened, glossary FROM respond_case WHERE tenant = $1 AND `+where, args...)
	fs, err := store.Collect(rows, err, func(r *sql.Rows) (file, error) {
		var f file
		var opened int64
		err := r.Scan(&f.ID, &f.Tenant, &f.Product, &f.Kind, &f.Signal, &f.Ref, &opened, &f.Glossary)
		f.Opened = store.Time(opened)
		return f, err
	})
	if err != nil {
		return nil, err
	}
	for i := range fs {
		if fs[i].Events, err = events(tx, tenant, fs[i].ID); err != nil {
			return nil, err
		}
	}
	return fs, nil
}

func fileByID(tx *store.Tx, tenant, id string) (file, error) {
	fs, err := files(tx, tenant, `id = $2`, id)
	if err == nil && len(fs) == 0 {
		err = store.ErrNoRows
	}
	if err != nil {
		return file{}, missing(err, "case")
	}
	return fs[0], nil
}

// caseSiblings are the ids of the other cases that the same signal opened.
func caseSiblings(tx *store.Tx, tenant string, f file) ([]string, error) {
	rows, err := tx.Query(`SELECT id FROM respond_case WHERE tenant = $1 AND signal = $2 AND id <> $3 ORDER BY id`, tenant, f.Signal, f.ID)
	return store.Collect(rows, err, func(r *sql.Rows) (id string, err error) { return id, r.Scan(&id) })
}

// openCases are the cases of a tenant that are not closed, or of all tenants, with their events.
func openCases(tx *store.Tx, tenant string) ([]file, error) {
	rows, err := tx.Query(`SELECT id, tenant FROM respond_case WHERE closed = 0 AND ($1 = '' OR tenant = $1) ORDER BY id`, tenant)
	ids, err := store.Collect(rows, err, func(r *sql.Rows) (f file, err error) { return f, r.Scan(&f.ID, &f.Tenant) })
	for i := range ids {
		if err != nil {
			break
		}
		ids[i], err = fileByID(tx, ids[i].Tenant, ids[i].ID)
	}
	return ids, err
}

// undecided are the signals of a tenant, or of all, about which no final decision was made, by their tenants.
func undecided(tx *store.Tx, tenant string) (map[string][]Signal, error) {
	rows, err := tx.Query(`SELECT s.tenant, s.id FROM respond_signal s WHERE ($1 = '' OR s.tenant = $1)
		AND NOT EXISTS (SELECT 1 FROM respond_assessment a WHERE a.tenant = s.tenant AND a.signal = s.id AND a.verdict IN ('aware', 'joined')) ORDER BY s.id`, tenant)
	ids, err := store.Collect(rows, err, func(r *sql.Rows) (id [2]string, err error) { return id, r.Scan(&id[0], &id[1]) })
	out := map[string][]Signal{}
	for _, id := range ids {
		sig, err := signalByID(tx, id[0], id[1])
		if err != nil {
			return nil, err
		}
		out[id[0]] = append(out[id[0]], sig)
	}
	return out, err
}

func events(tx *store.Tx, tenant, id string) ([]Event, error) {
	return eventsIn(tx, "respond_event", tenant, id)
}

func eventsIn(tx *store.Tx, table, tenant, id string) ([]Event, error) {
	rows, err := tx.Query(`SELECT seq, kind, recorded, actor, person, data FROM `+table+` WHERE tenant = $1 AND case_id = $2 ORDER BY seq`, tenant, id)
	return store.Collect(rows, err, func(r *sql.Rows) (Event, error) {
		var e Event
		var recorded, person int64
		var data string
		if err := r.Scan(&e.Seq, &e.Kind, &recorded, &e.Actor, &person, &data); err != nil {
			return e, err
		}
		e.Recorded, e.Person = store.Time(recorded), person == 1
		return e, json.Unmarshal([]byte(data), &e.Data)
	})
}

func missing(err error, what string) error {
	if errors.Is(err, store.ErrNoRows) {
		return problem.NotFound("There is no such %s.", what)
	}
	return err
}

// raced turns the collision of two writers into something that the slower one may repeat.
func raced(err error) error {
	if store.IsUnique(err) {
		return problem.Conflict("Somebody else changed it at the same moment.").Because(errRaced)
	}
	return err
}

// errRaced marks a write that met another one; repeated, it sees what the other one wrote.
var errRaced = errors.New("two writers in the same place")

func errChanged() error {
	return problem.Conflict("Somebody else changed it meanwhile.").Hint("Look again and repeat.")
}
