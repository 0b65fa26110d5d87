// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// MaxProduced bounds a list of serial numbers that were made, in bytes.
const MaxProduced = 64 << 20

// chunk is how many rows of a list go into one transaction.
const chunk = 1000

// CloseBatchWith closes a batch with the list of serial numbers that the factory made: the first column of a CSV file,
// headed "serial", so that no other file closes a batch by mistake. A serial number that stands in it twice is refused,
// since one of the two units is a copy. A batch that was closed with a number takes one list later, of as many units.
func (s *Service) CloseBatchWith(ctx context.Context, tenant, id string, r io.Reader, actor string) (Batch, error) {
	b, err := batchByID(s.reads(ctx), tenant, id)
	if err != nil {
		return Batch{}, err
	}
	if b.List != "" { // before much is read
		return Batch{}, b.takesList(b.Produced)
	}
	serials, err := readSerials(r)
	if err != nil {
		return Batch{}, err
	}
	produced := int64(len(serials))
	if err := b.takesList(produced); err != nil {
		return Batch{}, err
	}
	list := store.NewID("lst")
	for part := range slices.Chunk(serials, chunk) {
		err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
			for _, serial := range part {
				if _, err := tx.Exec(`INSERT INTO produced(batch, list, serial) VALUES ($1, $2, $3)`, id, list, serial); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return Batch{}, err
		}
	}
	if b.Closed.IsZero() {
		return s.closeBatch(ctx, tenant, id, produced, list, actor)
	}
	return s.reconcile(ctx, tenant, id, produced, list, actor)
}

// readSerials reads the first column below its heading; empty lines and lines that begin with # are left out.
func readSerials(r io.Reader) ([]string, error) {
	var out []string
	at := map[string]int{}
	headed := false
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		cell, _, _ := strings.Cut(lines.Text(), ",")
		cell = strings.Trim(strings.TrimSpace(strings.TrimPrefix(cell, "\ufeff")), `"`)
		if cell == "" || strings.HasPrefix(cell, "#") {
			continue
		}
		if !headed {
			if headed = strings.EqualFold(cell, "serial"); !headed {
				return nil, errNoHeading()
			}
			continue
		}
		where := fmt.Sprintf("line %d", n)
		if err := identity.CheckSerial(cell); err != nil {
			return nil, problem.Invalid("Line %d: %.80q is no serial number.", n, cell).At(where)
		}
		if before := at[cell]; before > 0 {
			return nil, problem.Conflict("The serial number %s stands in lines %d and %d: one of the two units is a copy.", cell, before, n).At(where)
		}
		if at[cell] = n; len(out) == MaxBatch {
			return nil, problem.TooLarge("A batch has at most %d units.", MaxBatch)
		}
		out = append(out, cell)
	}
	if err := lines.Err(); err != nil {
		return nil, problem.Invalid("The list breaks off.").Because(err)
	}
	if !headed {
		return nil, errNoHeading()
	}
	return out, nil
}

func errNoHeading() error {
	return problem.Invalid("The list does not begin with the heading serial.").At("line 1").Hint("The first line says serial; then comes one serial number a line, or a CSV file whose first column they are.")
}

// Difference is a serial number that the manifest of a batch and the list of what was made do not share.
type Difference struct {
	Serial  string `json:"serial"`
	Device  string `json:"device,omitempty"`
	Station string `json:"station,omitempty"`
	Kind    string `json:"kind" enum:"surplus,missing" doc:"surplus: an identity without a unit that was made; missing: a unit without an identity"`
	State   string `json:"state,omitempty" doc:"Of the device of a surplus identity"`
}

// Differences compares a closed batch with the list of what was made, by serial number after the one given.
func (s *Service) Differences(ctx context.Context, b Batch, after string, limit int) ([]Difference, error) {
	if b.List == "" {
		return nil, problem.NotFound("The batch %s has no list of the serial numbers that were made.", b.Name).Hint("Only a list names them, and it is given when a batch is closed or once later: openthings batch close BATCH --serials FILE. The manifest says which identities there are.")
	}
	rows, err := s.cfg.DB.Query(ctx, `SELECT serial, device, station, kind, coalesce((SELECT v.state FROM device v WHERE v.id = d.device), '') FROM (
			SELECT m.serial AS serial, m.device AS device, m.station AS station, 'surplus' AS kind FROM made m
				WHERE m.batch = $1 AND NOT EXISTS (SELECT 1 FROM produced p WHERE p.batch = m.batch AND p.list = $2 AND p.serial = m.serial)
			UNION ALL SELECT p.serial, '', '', 'missing' FROM produced p
				WHERE p.batch = $1 AND p.list = $2 AND NOT EXISTS (SELECT 1 FROM made m WHERE m.batch = p.batch AND m.serial = p.serial)
		) d WHERE serial > $3 ORDER BY serial LIMIT $4`, b.ID, b.List, after, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (d Difference, err error) {
		return d, r.Scan(&d.Serial, &d.Device, &d.Station, &d.Kind, &d.State)
	})
}
