// SPDX-License-Identifier: AGPL-3.0-only

package sim

import (
	"context"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/store"
)

// day is what people and chance do once a day: switch devices off for months, and revoke some for ever.
func (f *fleet) day(ctx context.Context, day int) error {
	if f.cfg.Progress != nil {
		f.cfg.Progress(day, f.cfg.Days, f.sum())
	}
	if err := f.rollover(ctx, day); err != nil {
		return err
	}
	chance := mrand.New(mrand.NewPCG(f.cfg.Seed, uint64(len(f.devices)+day)))
	daily := func(share float64) float64 { return share / float64(f.cfg.Days) }
	now := f.clock.Now()
	var revoked []*device
	for _, d := range f.devices {
		if d.revoked || d.ldevid.der == nil {
			continue
		}
		switch r := chance.Float64(); {
		case r < daily(f.cfg.Absent):
			if now.After(d.absent) {
				f.count.absences.Add(1)
				d.absent = now.Add(time.Duration(65+chance.IntN(50)) * 24 * time.Hour)
			}
		case r < daily(f.cfg.Absent+f.cfg.Revoked):
			revoked = append(revoked, d)
		}
	}
	return f.each(ctx, revoked, f.revoke)
}

// rollover makes a new root twice, with bridges and without, and puts it to work once the fleet has had the time of a
// renewal to hear of it.
func (f *fleet) rollover(ctx context.Context, day int) error {
	switch day {
	case f.cfg.Days / 10:
		return f.ceremony(ctx, 2, true)
	case f.cfg.Days / 2:
		return f.ceremony(ctx, 3, false)
	case f.cfg.Days * 4 / 10, f.cfg.Days * 8 / 10:
		return f.promote(ctx)
	}
	return nil
}

// revoke is the operator's word. The device comes within the day to see whether it still gets in.
func (f *fleet) revoke(ctx context.Context, d *device) error {
	err := f.db.WriteFirst(ctx, func(tx *store.Tx) error {
		return errors.Join(f.svc.SetState(tx, tenantID, d.id, identity.Decommissioned, "per_sim", "lost"), f.svc.Revoke(tx, tenantID, d.id, "per_sim", "lost"))
	})
	d.revoked = true
	return err
}

// judge looks at the fleet after the last day: every device in good standing is switched on and must come in, and the
// register must hold one identity and one certificate in service for each.
func (f *fleet) judge(ctx context.Context) (Report, error) {
	r := f.sum()
	f.cfg.Cut = 0
	var good []*device
	for _, d := range f.devices {
		if d.revoked {
			r.Revoked++
		} else {
			good = append(good, d)
		}
	}
	if err := f.look(); err != nil {
		return r, err
	}
	stranded := make(chan *device, len(good))
	err := f.each(ctx, good, func(ctx context.Context, d *device) error {
		err := f.comeIn(ctx, d)
		if refused(err) || errors.Is(err, errDistrust) {
			stranded <- d
			return nil
		}
		return err
	})
	if err != nil {
		return r, err
	}
	r.Stranded = int64(len(stranded))
	// A device row without its serial number's uniqueness, a certificate in service beside another, a revoked one in service.
	for _, q := range []string{
		`SELECT count(*) - count(DISTINCT serial) FROM device WHERE tenant = $1`,
		`SELECT count(*) FROM (SELECT subject FROM certificate WHERE tenant = $1 AND phase = 'active' GROUP BY subject, kind HAVING count(*) > 1) t`,
	} {
		var n int64
		if err := f.db.QueryRow(ctx, q, tenantID).Scan(&n); err != nil {
			return r, err
		}
		r.Duplicates += n
	}
	var devices, barred int64
	err = f.db.QueryRow(ctx, `SELECT count(*), coalesce(sum(CASE WHEN state = 'decommissioned' THEN 1 ELSE 0 END), 0) FROM device WHERE tenant = $1`, tenantID).Scan(&devices, &barred)
	if err == nil && (devices != int64(len(f.devices)) || barred != r.Revoked) {
		err = fmt.Errorf("the register has %d devices of which %d are decommissioned, and the fleet has %d and %d", devices, barred, len(f.devices), r.Revoked)
	}
	return r, err
}

// sum is the report so far.
func (f *fleet) sum() Report {
	r := f.report
	c := &f.count
	r.Devices = len(f.devices)
	r.Issued, r.Renewals, r.Returns, r.Bootstraps, r.Cuts, r.Absences, r.Refused = c.issued.Load(), c.renewals.Load(), c.returns.Load(), c.bootstraps.Load(), c.cuts.Load(), c.absences.Load(), c.refused.Load()
	r.AcceptedAfterRevocation = c.accepted.Load()
	return r
}
