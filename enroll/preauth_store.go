// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

const preauthorisedColumns = `p.tenant, p.product, p.serial, p.upload, p.batch, p.mac, p.purchase, p.line, p.part, p.labels, p.actor, p.created, p.used, p.device`

// wholeFiles joins the files that were taken as a whole: rows of one that broke off do not count.
const wholeFiles = ` FROM preauthorised p JOIN upload u ON u.id = p.upload AND u.tenant = p.tenant AND u.whole = 1 `

func scanPreauthorised(r scanner) (Preauthorised, error) {
	var p Preauthorised
	var labels string
	var created, used int64
	err := r.Scan(&p.Tenant, &p.Product, &p.Serial, &p.upload, &p.Batch, &p.MAC, &p.Order, &p.Line, &p.Part, &labels, &p.Actor, &created, &used, &p.Device)
	p.Created, p.Used = store.Time(created), store.Time(used)
	if err == nil && labels != "" {
		err = json.Unmarshal([]byte(labels), &p.Labels)
	}
	return p, err
}

func preauthorisedSerial(q querier, tenant, product, serial string) (Preauthorised, error) {
	return scanPreauthorised(q(`SELECT `+preauthorisedColumns+wholeFiles+`WHERE p.tenant = $1 AND p.product = $2 AND p.serial = $3`, tenant, product, serial))
}

// SerialFilter narrows a list of preauthorised serial numbers. Empty fields do not narrow.
type SerialFilter struct {
	Product string
	Search  string // beginning of the serial number
	Used    string // "yes" or "no"
	After   string // serial number of the last one of the page before
	Limit   int
}

// PreauthorisedSerials lists those of a product by serial number.
func (s *Service) PreauthorisedSerials(ctx context.Context, tenant string, f SerialFilter) ([]Preauthorised, error) {
	args := []any{tenant, f.Product, f.After, f.Limit}
	where := ""
	switch f.Used {
	case "yes":
		where = " AND p.used > 0"
	case "no":
		where = " AND p.used = 0"
	}
	if f.Search != "" {
		args = append(args, f.Search, f.Search+"\x7f") // above every character of a serial number
		where += " AND p.serial >= $5 AND p.serial < $6"
	}
	rows, err := s.cfg.DB.Query(ctx, `SELECT `+preauthorisedColumns+wholeFiles+`WHERE p.tenant = $1 AND p.product = $2 AND p.serial > $3`+where+` ORDER BY p.serial LIMIT $4`, args...)
	return store.Collect(rows, err, func(r *sql.Rows) (Preauthorised, error) { return scanPreauthorised(r) })
}

func openUpload(tx *store.Tx, tenant, id string, rows int, at time.Time) error {
	// What broke off an hour ago will not be finished by anybody.
	for _, q := range []string{`DELETE FROM preauthorised WHERE upload IN (SELECT id FROM upload WHERE tenant = $1 AND whole = 0 AND created < $2)`,
		`DELETE FROM upload WHERE tenant = $1 AND whole = 0 AND created < $2`} {
		if _, err := tx.Exec(q, tenant, store.Millis(at.Add(-time.Hour))); err != nil {
			return err
		}
	}
	_, err := tx.Exec(`INSERT INTO upload(id, tenant, rows, whole, created) VALUES ($1, $2, $3, 0, $4)`, id, tenant, rows, store.Millis(at))
	return err
}

func closeUpload(tx *store.Tx, tenant, id string) error {
	n, err := tx.Exec(`UPDATE upload SET whole = 1 WHERE tenant = $1 AND id = $2`, tenant, id)
	if err == nil && n == 0 {
		return problem.Conflict("The upload took too long and was dropped.")
	}
	return err
}

// dropUpload drops one that did not become whole.
func dropUpload(tx *store.Tx, tenant, id string) error {
	if _, err := tx.Exec(`DELETE FROM preauthorised WHERE tenant = $1 AND upload = $2 AND NOT EXISTS (SELECT 1 FROM upload WHERE id = $2 AND whole = 1)`, tenant, id); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM upload WHERE tenant = $1 AND id = $2 AND whole = 0`, tenant, id)
	return err
}

func insertPreauthorised(tx *store.Tx, ps []Preauthorised) error {
	for _, p := range ps {
		labels, err := labelsText(p.Labels)
		if err != nil {
			return err
		}
		_, err = tx.Exec(`INSERT INTO preauthorised(tenant, product, serial, upload, batch, mac, purchase, line, part, labels, actor, created, used, device)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 0, '')`,
			p.Tenant, p.Product, p.Serial, p.upload, p.Batch, p.MAC, p.Order, p.Line, p.Part, labels, p.Actor, store.Millis(p.Created))
		if store.IsUnique(err) {
			return problem.Conflict("The serial number %s is being preauthorised by somebody else.", p.Serial)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// takenSerials says of serial numbers whether they were made or are preauthorised; args are tenant, product and those
// that the placeholders in stand for.
func takenSerials(ctx context.Context, db *store.DB, in string, args []any) (map[string]string, error) {
	have := map[string]string{}
	for _, q := range []struct{ word, query string }{
		{"preauthorised", `SELECT p.serial` + wholeFiles + `WHERE p.tenant = $1 AND p.product = $2 AND p.serial IN (%s)`},
		{"made", `SELECT serial FROM device WHERE tenant = $1 AND product = $2 AND serial IN (%s)`},
	} {
		rows, err := db.Query(ctx, fmt.Sprintf(q.query, in), args...)
		serials, err := store.Collect(rows, err, func(r *sql.Rows) (s string, err error) { return s, r.Scan(&s) })
		if err != nil {
			return nil, err
		}
		for _, serial := range serials {
			have[strings.Clone(serial)] = q.word
		}
	}
	return have, nil
}
