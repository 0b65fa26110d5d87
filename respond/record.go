// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// MaxRecords is how many cases, drills or signals of one product are read into one bundle.
const MaxRecords = 200

// Record is all that is on record about a case, for whoever has to prove it.
type Record struct {
	Case        Case
	Signal      Signal
	Assessments []Assessment // of the signal, in the order in which they were opened
	Limits      Targets
	Packs       []Sent
	Receipts    []ReceiptFile
}

// Sent is what a report said when somebody said that it was submitted.
type Sent struct {
	Attempt int64
	Body    string
}

// ReceiptFile is a receipt as it came.
type ReceiptFile struct {
	ID, Name, SHA256 string
	Size             int64
	Bytes            []byte // nil where the files before it took all the room
}

// Record reads all that is on record about a case of the tenant. Receipts are opened until they have room bytes together.
// The caller has checked access.
func (s *Service) Record(ctx context.Context, tenant, id string, room int64) (r Record, err error) {
	var f file
	var sealed [][]byte
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		r, sealed = Record{}, nil
		if f, err = fileByID(tx, tenant, id); err != nil {
			return err
		}
		if r.Limits, err = targets(tx, tenant); err != nil {
			return err
		}
		if r.Signal, err = signalByID(tx, tenant, f.Signal); err != nil && !problem.Is(err, problem.KindNotFound) {
			return err
		}
		if r.Assessments, err = assessments(tx, tenant, `signal = $2 ORDER BY id`, f.Signal); err != nil {
			return err
		}
		rows, err := tx.Query(`SELECT seq, body FROM respond_pack WHERE tenant = $1 AND case_id = $2 ORDER BY seq`, tenant, id)
		r.Packs, err = store.Collect(rows, err, func(q *sql.Rows) (p Sent, err error) { return p, q.Scan(&p.Attempt, &p.Body) })
		if err != nil {
			return err
		}
		r.Receipts, sealed, err = receiptFiles(tx, tenant, id, room)
		return err
	})
	if err != nil {
		return Record{}, err
	}
	for i := range sealed {
		if s.cfg.Keys == nil {
			return Record{}, problem.Unavailable("Files cannot be opened here.")
		}
		if sealed[i] == nil {
			continue
		}
		if r.Receipts[i].Bytes, err = s.cfg.Keys.Unwrap(sealedFor(tenant, r.Receipts[i].ID), sealed[i]); err != nil {
			return Record{}, fmt.Errorf("receipt %s: %w", r.Receipts[i].ID, err)
		}
	}
	r.Case, err = s.showBy(ctx, f, r.Limits)
	return r, err
}

// receiptFiles reads the receipts of a case, the bytes of as many as have room.
func receiptFiles(tx *store.Tx, tenant, id string, room int64) (out []ReceiptFile, sealed [][]byte, err error) {
	rows, err := tx.Query(`SELECT id, name, size, sha256 FROM respond_file WHERE tenant = $1 AND case_id = $2 ORDER BY id`, tenant, id)
	out, err = store.Collect(rows, err, func(q *sql.Rows) (f ReceiptFile, err error) { return f, q.Scan(&f.ID, &f.Name, &f.Size, &f.SHA256) })
	for _, f := range out {
		var b []byte
		if err == nil && f.Size <= room {
			room -= f.Size
			err = tx.QueryRow(`SELECT sealed FROM respond_file WHERE tenant = $1 AND case_id = $2 AND id = $3`, tenant, id, f.ID).Scan(&b)
		}
		if err != nil {
			return nil, nil, err
		}
		sealed = append(sealed, b)
	}
	return out, sealed, nil
}

// DrillRecord reads a drill of the tenant with its clocks as they would have run. The caller has checked access.
func (s *Service) DrillRecord(ctx context.Context, tenant, id string) (d Drill, clocks []Deadline, limits Targets, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		if d, err = drillByID(tx, tenant, id); err == nil {
			limits, err = targets(tx, tenant)
		}
		return err
	})
	if err != nil {
		return d, nil, limits, err
	}
	if d, err = s.judged(ctx, d, limits); err == nil && len(d.Events) > 0 {
		st := d.file.state()
		clocks = Clocks(st, st.Zone(), limits)
	}
	return d, clocks, limits, err
}

// Whats names kinds of records of this room, for RecordsOf.
const (
	WhatCases  = "cases"
	WhatDrills = "drills"
)

var recordTables = map[string]string{WhatCases: "respond_case", WhatDrills: "respond_drill"}

// RecordsOf are the ids of the newest cases or drills of a product, or of the whole tenant, the newest first, at most limit.
func (s *Service) RecordsOf(ctx context.Context, what, tenant, product string, limit int) ([]string, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT id FROM `+recordTables[what]+` WHERE tenant = $1 AND ($2 = '' OR product = $2) ORDER BY id DESC LIMIT $3`, tenant, product, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (id string, err error) { return id, r.Scan(&id) })
}

// Negatives are the newest signals that somebody decided not to report, with all assessments of each, the newest first: for
// a product, or for the whole tenant if it is empty.
func (s *Service) Negatives(ctx context.Context, tenant, product string, limit int) (out []Judged, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		rows, err := tx.Query(`SELECT `+signalColumns+` FROM respond_signal s WHERE tenant = $1 AND ($2 = '' OR product = $2)
			AND EXISTS (SELECT 1 FROM respond_assessment a WHERE a.tenant = s.tenant AND a.signal = s.id AND a.verdict = $3) ORDER BY id DESC LIMIT $4`, tenant, product, Negative, limit)
		sigs, err := store.Collect(rows, err, func(r *sql.Rows) (Signal, error) { return scanSignal(r) })
		out = nil
		for _, sig := range sigs {
			if err != nil {
				return err
			}
			j := Judged{Signal: sig}
			j.Assessments, err = assessments(tx, tenant, `signal = $2 ORDER BY id`, sig.ID)
			out = append(out, j)
		}
		return err
	})
	return out, err
}

// Judged is a signal with every assessment of it.
type Judged struct {
	Signal
	Assessments []Assessment `json:"assessments"`
}

// ProductsOf is the product of each of these cases, drills, signals and assessments of the tenant, by id.
func (s *Service) ProductsOf(ctx context.Context, tenant string, ids []string) (map[string]string, error) {
	in, args := store.In([]any{tenant}, ids)
	return store.Pairs(s.cfg.DB.Query(ctx, `SELECT id, product FROM respond_case WHERE tenant = $1 AND id IN `+in+` UNION ALL SELECT id, product FROM respond_drill WHERE tenant = $1 AND id IN `+in+`
		UNION ALL SELECT id, product FROM respond_signal WHERE tenant = $1 AND id IN `+in+`
		UNION ALL SELECT a.id, s.product FROM respond_assessment a JOIN respond_signal s ON s.tenant = a.tenant AND s.id = a.signal WHERE a.tenant = $1 AND a.id IN `+in, args...))
}
