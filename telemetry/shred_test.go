// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"bytes"
	"database/sql"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
)

// perDevice lists every table that holds something of one device, with the column that is sealed; "": numbers only. A table
// that is added without a line here fails the test below.
var perDevice = map[string]string{
	"telemetry_chunk": "body", "telemetry_latest": "body", "telemetry_event": "body", "telemetry_dropped": "body",
	"telemetry_security": "body", "telemetry_chain": "", "telemetry_chain_break": "", "telemetry_gap": "", "telemetry_refused": "", "telemetry_retained": "", "telemetry_pending": "body",
}

// backup is the rows of a device as a backup holds them.
type backup struct {
	table   string
	columns []string
	rows    [][]any
}

func (r rig) copyRows(query string, args ...any) (b backup) {
	r.t.Helper()
	rows, err := r.cfg.DB.Query(r.t.Context(), query, args...)
	check(r.t, err)
	defer rows.Close()
	b.columns, err = rows.Columns()
	check(r.t, err)
	for rows.Next() {
		values := make([]any, len(b.columns))
		into := make([]any, len(values))
		for i := range values {
			into[i] = &values[i]
		}
		check(r.t, rows.Scan(into...))
		for i, v := range values {
			if raw, ok := v.([]byte); ok {
				values[i] = bytes.Clone(raw)
			}
		}
		b.rows = append(b.rows, values)
	}
	check(r.t, rows.Err())
	return b
}

func (r rig) restore(b backup) {
	r.t.Helper()
	check(r.t, r.cfg.DB.Write(r.t.Context(), func(tx *store.Tx) error {
		for _, row := range b.rows {
			if _, err := tx.Exec(`INSERT INTO `+b.table+`(`+strings.Join(b.columns, ", ")+`) VALUES `+values(1, len(row)), row...); err != nil {
				return err
			}
		}
		return nil
	}))
}

// S17: after an erasure nothing of the device can be read, in no table, by no reader, and not out of a restored backup of
// the tables, nor of the tables and their wrapped keys once the backup horizon has passed.
func TestS17_ErasedInEveryTableAndInARestoredBackup(t *testing.T) {
	each(t, func(r rig) {
		ctx := r.t.Context()
		tables := r.copyRows(map[store.Engine]string{
			store.SQLite:   `SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'telemetry_%'`,
			store.Postgres: `SELECT table_name FROM information_schema.columns WHERE table_schema = current_schema() AND table_name LIKE 'telemetry_%' AND column_name = 'device'`,
		}[r.cfg.DB.Engine()])
		for _, row := range tables.rows {
			name := fmt.Sprint(row[0])
			if b, ok := row[0].([]byte); ok {
				name = string(b)
			}
			var sqlText sql.NullString
			if r.cfg.DB.Engine() == store.SQLite {
				check(r.t, r.cfg.DB.QueryRow(ctx, `SELECT sql FROM sqlite_master WHERE name = $1`, name).Scan(&sqlText))
				if !strings.Contains(sqlText.String, "device text") {
					continue
				}
			}
			if _, known := perDevice[name]; !known {
				r.t.Errorf("the table %s holds something of a device; say here how an erasure reaches it", name)
			}
		}

		r.product(temperature(), "dev_a", "dev_b")
		for _, d := range []string{"dev_a", "dev_b"} {
			r.append(says(d, 1, `"temp":21.5,"secretname":7`), says(d, 4, `"temp":22`), says(d, 5, `oops`))
		}
		r.compactAll()
		_, err := r.turn(ctx, r.lookForGaps)
		check(r.t, err)
		other := r.all("dev_b")
		var saved []backup
		for table, body := range perDevice {
			b := r.copyRows(`SELECT * FROM ` + table + ` WHERE device = 'dev_a'`)
			b.table = table
			saved = append(saved, b)
			if body == "" {
				continue
			}
			for _, row := range b.rows { // nothing lies in the clear
				if text := fmt.Sprintf("%s", row); strings.Contains(text, "secretname") || strings.Contains(text, "21.5") {
					r.t.Errorf("%s holds in the clear: %s", table, text)
				}
			}
		}
		keys := r.copyRows(`SELECT * FROM seal_subject WHERE subject = 'dev_a'`)
		keys.table = "seal_subject"

		unreadable := func(when string) {
			r.t.Helper()
			d := identity.Device{ID: "dev_a", Tenant: "ten", Product: "prd", Serial: "SN"}
			if _, err := r.Latest(ctx, "ten", "dev_a"); !problem.Is(err, problem.KindNotFound) {
				r.t.Errorf("%s, latest: %v", when, err)
			}
			if _, err := r.Series(ctx, "ten", "dev_a", Query{From: t0.Add(-time.Hour), To: t0.Add(time.Hour)}); !problem.Is(err, problem.KindNotFound) {
				r.t.Errorf("%s, series: %v", when, err)
			}
			if _, err := r.Events(ctx, "ten", "dev_a", "", 10); !problem.Is(err, problem.KindNotFound) {
				r.t.Errorf("%s, events: %v", when, err)
			}
			if _, err := r.feed(ctx, d, ""); !problem.Is(err, problem.KindNotFound) {
				r.t.Errorf("%s, the user's feed: %v", when, err)
			}
			var file bytes.Buffer
			out, err := newLines(io.MultiWriter(&file), formatLines)
			check(r.t, err)
			if err := r.exportDevice(ctx, d, Export{To: t0.Add(time.Hour)}, out); err != nil || file.Len() > 0 {
				r.t.Errorf("%s, an export holds %q, %v", when, file.String(), err)
			}
		}
		check(r.t, r.EraseDevice(ctx, "ten", "dev_a"))
		unreadable("erased")
		for table := range perDevice {
			if n := r.rows(table + " WHERE device = 'dev_a'"); n != 0 {
				r.t.Errorf("%s holds %d rows of the erased device", table, n)
			}
		}
		for _, b := range saved { // the tables come back from a backup, the keys do not
			r.restore(b)
		}
		unreadable("restored")
		check(r.t, r.EraseDevice(ctx, "ten", "dev_a")) // what a restored tombstone leads to

		r.clk.Set(seal.Horizon(t0)) // now even the wrapped keys come back
		check(r.t, r.cfg.Keys.Rotate(ctx, r.cfg.DB))
		check(r.t, r.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			_, err := tx.Exec(`DELETE FROM seal_subject WHERE subject = 'dev_a'`)
			return err
		}))
		for _, b := range append(saved, keys) {
			r.restore(b)
		}
		unreadable("restored with its wrapped key after the horizon")
		if got := r.all("dev_b"); got != other {
			r.t.Errorf("another device was touched:\n%s\nbefore:\n%s", got, other)
		}
	})
}
