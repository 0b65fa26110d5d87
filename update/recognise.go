// SPDX-License-Identifier: AGPL-3.0-only

package update

import (
	"context"
	"database/sql"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// jobRecognise looks for devices that ran an image before its release was known: those that left the line with it.
const jobRecognise = "update.recognise"

// recogniseStep bounds one transaction, in devices.
const recogniseStep = 200

type recogniseJob struct{ Tenant, Release string }

// recognise turns what devices said earlier into installations of the release, since the moment they said it.
func (s *Service) recognise(ctx context.Context, j store.Job) error {
	var in recogniseJob
	if err := j.Decode(&in); err != nil {
		return err
	}
	r, err := s.Get(ctx, in.Tenant, in.Release)
	if err != nil {
		return err
	}
	for after := ""; ; {
		last := ""
		err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) (err error) {
			last, err = s.recogniseSome(tx, r, after)
			return err
		})
		if err != nil || last == "" {
			return err
		}
		after = last
	}
}

// recogniseSome handles the devices that follow after, and returns the last one; "" when there are no more.
func (s *Service) recogniseSome(tx *store.Tx, r Release, after string) (last string, err error) {
	type sighting struct {
		device string
		at     int64
	}
	rows, err := tx.Query(`SELECT device, at FROM firmware WHERE tenant = $1 AND image = $2 AND release_id = '' AND device > $3 ORDER BY device LIMIT $4`,
		r.Tenant, r.Image, after, int64(recogniseStep))
	seen, err := store.Collect(rows, err, func(rows *sql.Rows) (x sighting, err error) { return x, rows.Scan(&x.device, &x.at) })
	if err != nil {
		return "", err
	}
	for _, x := range seen {
		last = x.device
		d, err := s.cfg.Identity.GetTx(tx, r.Tenant, x.device)
		if problem.Is(err, problem.KindNotFound) || d.Product != r.Product {
			continue // an image of another product is none of ours
		}
		if err != nil {
			return "", err
		}
		if _, err := tx.Exec(`UPDATE firmware SET release_id = $1, version = $2, security_version = $3 WHERE tenant = $4 AND device = $5`,
			r.ID, r.Version, r.SecurityVersion, r.Tenant, x.device); err != nil {
			return "", err
		}
		if err := s.cfg.Fleet.Installed(tx, r.Tenant, r.Product, x.device, r.ID, store.Time(x.at)); err != nil {
			return "", err
		}
	}
	return last, nil
}
