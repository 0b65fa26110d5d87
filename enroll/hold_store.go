// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"database/sql"
	"errors"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

const holdColumns = `h.id, h.tenant, h.product, h.batch, h.origin, h.cause, h.reason, h.actor, h.since, h.lifted, h.lifted_by, h.lifted_why`

func scanHold(r scanner) (h Hold, err error) {
	var since, lifted int64
	err = r.Scan(&h.ID, &h.Tenant, &h.Product, &h.Batch, &h.Origin, &h.Cause, &h.Reason, &h.By, &since, &lifted, &h.LiftedBy, &h.Why)
	h.Since, h.Lifted = store.Time(since), store.Time(lifted)
	return h, err
}

// holdOn finds the oldest hold that stands and matches the unit. A unit whose image nobody has told matches every image.
func holdOn(tx *store.Tx, d identity.Device) (h Hold, found bool, err error) {
	h, err = scanHold(tx.QueryRow(`SELECT `+holdColumns+` FROM hold h WHERE h.tenant = $1 AND h.product = $2 AND h.lifted = 0
		AND (h.batch = '' OR h.batch = $3) AND (h.origin = '' OR h.origin = $4)
		AND ($5 = '' OR NOT EXISTS (SELECT 1 FROM hold_firmware f WHERE f.hold = h.id) OR EXISTS (SELECT 1 FROM hold_firmware f WHERE f.hold = h.id AND f.digest = $5))
		ORDER BY h.id LIMIT 1`, d.Tenant, d.Product, d.Batch, d.Origin, d.Firmware))
	if errors.Is(err, store.ErrNoRows) {
		return h, false, nil
	}
	return h, err == nil, err
}

func countHolds(tx *store.Tx, tenant string) (n int64, err error) {
	return n, tx.QueryRow(`SELECT count(*) FROM hold WHERE tenant = $1 AND lifted = 0`, tenant).Scan(&n)
}

func insertHold(tx *store.Tx, h Hold) error {
	_, err := tx.Exec(`INSERT INTO hold(id, tenant, product, batch, origin, cause, reason, actor, since, lifted, lifted_by, lifted_why) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, '', '')`,
		h.ID, h.Tenant, h.Product, h.Batch, h.Origin, h.Cause, h.Reason, h.By, store.Millis(h.Since))
	if err != nil {
		return err
	}
	_, err = addFirmware(tx, h.Tenant, h.ID, h.Firmware)
	return err
}

// addFirmware returns the digests that the hold did not name before.
func addFirmware(tx *store.Tx, tenant, hold string, firmware []string) (added []string, err error) {
	for _, digest := range firmware {
		n, err := tx.Exec(`INSERT INTO hold_firmware(hold, digest, tenant) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, hold, digest, tenant)
		if err != nil {
			return nil, err
		}
		if n == 1 {
			added = append(added, digest)
		}
	}
	return added, nil
}

func liftHold(tx *store.Tx, tenant, id, actor, why string, at time.Time) (bool, error) {
	n, err := tx.Exec(`UPDATE hold SET lifted = $3, lifted_by = $4, lifted_why = $5 WHERE tenant = $1 AND id = $2 AND lifted = 0`, tenant, id, store.Millis(at), actor, why)
	return n == 1, err
}

func holdByID(tx *store.Tx, tenant, id string) (Hold, error) {
	h, err := scanHold(tx.QueryRow(`SELECT `+holdColumns+` FROM hold h WHERE h.tenant = $1 AND h.id = $2`, tenant, id))
	if errors.Is(err, store.ErrNoRows) {
		return h, problem.NotFound("There is no such hold.")
	}
	if err != nil {
		return h, err
	}
	list := []Hold{h}
	err = fillFirmware(tx, list)
	return list[0], err
}

func listHolds(tx *store.Tx, tenant string, f HoldFilter) ([]Hold, error) {
	rows, err := tx.Query(`SELECT `+holdColumns+` FROM hold h WHERE h.tenant = $1 AND (h.product = $2 OR $2 = '') AND (h.lifted = 0 OR $3 = 0) ORDER BY h.id DESC`,
		tenant, f.Product, number01(f.Standing))
	list, err := store.Collect(rows, err, func(r *sql.Rows) (Hold, error) { return scanHold(r) })
	if err != nil {
		return nil, err
	}
	return list, fillFirmware(tx, list)
}

func fillFirmware(tx *store.Tx, list []Hold) error {
	at := map[string]*Hold{}
	ids := make([]string, len(list))
	for i := range list {
		ids[i] = list[i].ID
		at[ids[i]] = &list[i]
	}
	for part := range slices.Chunk(ids, 256) {
		in, args := store.In(nil, part)
		rows, err := tx.Query(`SELECT hold, digest FROM hold_firmware WHERE hold IN `+in+` ORDER BY hold, digest`, args...)
		if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
			var hold, digest string
			err := r.Scan(&hold, &digest)
			at[hold].Firmware = append(at[hold].Firmware, digest)
			return struct{}{}, err
		}); err != nil {
			return err
		}
	}
	return nil
}
