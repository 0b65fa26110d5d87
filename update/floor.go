// SPDX-License-Identifier: AGPL-3.0-only

package update

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// RuleAdvised refuses to deploy a release below the floor that is advised for its hardware.
const RuleAdvised = "update.floor.advised"

// AdvisedFloor says from which security version on a hardware revision is safe, as far as is known. A later stage finds
// it out. Devices refuse what is older than what they run: that makes a floor firm, once a release at or above it is
// signed and installed.
type AdvisedFloor struct {
	HW              string    `json:"hw" doc:"Name of the hardware revision"`
	SecurityVersion int64     `json:"security_version" doc:"No published release at or above it is known to be exploited"`
	Past            time.Time `json:"past" doc:"When the last release that is not safe was published. What was published later is safe, and may be deployed also where it was signed with a lower security version"`
	Because         string    `json:"because" doc:"What keeps it from being lower"`
	At              time.Time `json:"at" doc:"Since when it is advised"`
}

// below says whether a release is one that the floor advises against.
func (f AdvisedFloor) below(r Release) bool {
	return slices.Contains(r.HW, f.HW) && r.SecurityVersion < f.SecurityVersion && !r.Published.After(f.Past)
}

// AdviseFloors sets what is advised for a product, by hardware revision; a revision that is left out has no floor. What
// does not change leaves no trace.
func (s *Service) AdviseFloors(tx *store.Tx, tenant, product string, floors []AdvisedFloor, by string) error {
	have, err := advisedFloors(tx, tenant, product)
	if err != nil {
		return err
	}
	say := func(f AdvisedFloor) error {
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: by, Kind: "floor.advised", Subject: product,
			Data: map[string]any{"hw": f.HW, "security_version": f.SecurityVersion, "because": f.Because}})
	}
	for _, f := range floors {
		i := slices.IndexFunc(have, func(h AdvisedFloor) bool { return h.HW == f.HW })
		f.At = s.cfg.Clock.Now()
		if i >= 0 {
			h := have[i]
			have = slices.Delete(have, i, i+1)
			if h.SecurityVersion == f.SecurityVersion && h.Because == f.Because && h.Past.Equal(f.Past) {
				continue
			}
		}
		if _, err := tx.Exec(`INSERT INTO advised_floor(tenant, product, hw, security_version, past, because, at) VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT (tenant, product, hw) DO UPDATE SET security_version = excluded.security_version, past = excluded.past, because = excluded.because, at = excluded.at`,
			tenant, product, f.HW, f.SecurityVersion, store.Millis(f.Past), f.Because, store.Millis(f.At)); err != nil {
			return err
		}
		if err := say(f); err != nil {
			return err
		}
	}
	for _, h := range have { // nothing is advised any more
		if _, err := tx.Exec(`DELETE FROM advised_floor WHERE tenant = $1 AND product = $2 AND hw = $3`, tenant, product, h.HW); err != nil {
			return err
		}
		if err := say(AdvisedFloor{HW: h.HW}); err != nil {
			return err
		}
	}
	return nil
}

func advisedFloors(tx *store.Tx, tenant, product string) ([]AdvisedFloor, error) {
	rows, err := tx.Query(`SELECT hw, security_version, past, because, at FROM advised_floor WHERE tenant = $1 AND product = $2 ORDER BY hw`, tenant, product)
	return store.Collect(rows, err, func(r *sql.Rows) (f AdvisedFloor, err error) {
		var past, at int64
		err = r.Scan(&f.HW, &f.SecurityVersion, &past, &f.Because, &at)
		f.Past, f.At = store.Time(past), store.Time(at)
		return f, err
	})
}

// EverPublished are the releases of a product that were published, withdrawn ones included: their signatures are good for
// ever, so a device may be made to install them. In the order of their publication.
func (s *Service) EverPublished(tx *store.Tx, tenant, product string) ([]Release, error) {
	rows, err := tx.Query(`SELECT `+releaseColumns+` FROM release WHERE tenant = $1 AND product = $2 AND published > 0 ORDER BY published, id`, tenant, product)
	return store.Collect(rows, err, func(r *sql.Rows) (Release, error) { return scanRelease(r) })
}

// against are the floors that advise against deploying the release.
func against(tx *store.Tx, r Release) ([]AdvisedFloor, error) {
	floors, err := advisedFloors(tx, r.Tenant, r.Product)
	return slices.DeleteFunc(floors, func(f AdvisedFloor) bool { return !f.below(r) }), err
}

// againstRelease is against outside a transaction.
func (s *Service) againstRelease(ctx context.Context, r Release) (floors []AdvisedFloor, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		floors, err = against(tx, r)
		return err
	})
	return floors, err
}

// maxOverride bounds the reason for deploying below a floor, in bytes.
const maxOverride = 2000

// aboveFloor refuses to deploy a release that is advised against, unless a person says why. It returns the floors that
// are overridden.
func aboveFloor(tx *store.Tx, r Release, override string) ([]AdvisedFloor, error) {
	floors, err := against(tx, r)
	switch {
	case err != nil || len(floors) == 0:
		return nil, err
	case len(override) > maxOverride:
		return nil, problem.Invalid("Say in up to %d bytes why it is deployed all the same.", maxOverride).At("override")
	case strings.TrimSpace(override) == "":
		f := floors[0]
		return nil, problem.Forbidden(RuleAdvised, "%s has security version %d; for hardware %s at least %d is advised: %s.", r.Version, r.SecurityVersion, f.HW, f.SecurityVersion, f.Because).
			Hint("Deploy a later release, or say why this one is deployed all the same (override).")
	}
	return floors, nil
}
