// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"database/sql"
	"time"

	"github.com/openthings-platform/openthings/store"
)

const drillColumns = `id, product, kind, scenario, glossary, started, started_by, ended, ended_by, lesson, calls`

func insertDrill(tx *store.Tx, tenant, glossary string, d Drill) error {
	_, err := tx.Exec(`INSERT INTO respond_drill(tenant, `+drillColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, '', '', $9)`,
		tenant, d.ID, d.Product, d.Kind, d.Scenario, glossary, store.Millis(d.Started), d.StartedBy, flag(d.Calls))
	return err
}

func insertDrillEvent(tx *store.Tx, tenant, id string, e Event) error {
	return insertEventIn(tx, "respond_drill_event", tenant, id, e)
}

func endDrill(tx *store.Tx, tenant, id, actor, lesson string, at time.Time) error {
	_, err := tx.Exec(`UPDATE respond_drill SET ended = $3, ended_by = $4, lesson = $5 WHERE tenant = $1 AND id = $2 AND ended = 0`, tenant, id, store.Millis(at), actor, lesson)
	return err
}

func drillByID(tx *store.Tx, tenant, id string) (Drill, error) {
	ds, err := drillsWhere(tx, tenant, `id = $2`, id)
	if err == nil && len(ds) == 0 {
		err = store.ErrNoRows
	}
	if err != nil {
		return Drill{}, missing(err, "drill")
	}
	return ds[0], nil
}

func drills(tx *store.Tx, tenant string, l list) ([]Drill, error) {
	where, args := l.where()
	return drillsWhere(tx, tenant, where, args...)
}

// drillsWhere reads the drills that match where, of which $1 is the tenant, each with its events.
func drillsWhere(tx *store.Tx, tenant, where string, args ...any) ([]Drill, error) {
	rows, err := tx.Query(`SELECT `+drillColumns+` FROM respond_drill WHERE tenant = $1 AND `+where, append([]any{tenant}, args...)...)
	ds, err := store.Collect(rows, err, func(r *sql.Rows) (d Drill, err error) {
		var started, ended, calls int64
		err = r.Scan(&d.ID, &d.Product, &d.Kind, &d.Scenario, &d.file.Glossary, &started, &d.StartedBy, &ended, &d.EndedBy, &d.Lesson, &calls)
		d.Calls = calls == 1
		d.Started, d.Ended = store.Time(started), store.Time(ended)
		return d, err
	})
	for i := range ds {
		if err != nil {
			break
		}
		d := &ds[i]
		d.Events, err = eventsIn(tx, "respond_drill_event", tenant, d.ID)
		d.file = file{ID: d.ID, Tenant: tenant, Product: d.Product, Glossary: d.file.Glossary, Kind: d.Kind, Opened: d.Started, Events: d.Events}
	}
	return ds, err
}

// lastDrill is when the newest drill of the tenant ended that came to a confirmed early warning; zero: there is none.
func lastDrill(tx *store.Tx, tenant string) (at time.Time, err error) {
	var ms sql.NullInt64
	err = tx.QueryRow(`SELECT max(d.ended) FROM respond_drill d WHERE d.tenant = $1 AND d.ended > 0
		AND EXISTS (SELECT 1 FROM respond_drill_event e WHERE e.case_id = d.id AND e.kind = $2)`, tenant, SubmissionAccepted).Scan(&ms)
	return store.Time(ms.Int64), err
}

// flag is a boolean as the store keeps it.
func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
