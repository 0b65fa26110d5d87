// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"database/sql"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// RuleReconcile refuses a list that does not name as many units as the batch was closed with: what the factory said it
// made is not said anew once the identities that are too many are known.
const RuleReconcile = "line.reconcile"

// takesList refuses a list of what was made that names so many units, unless the batch is open or was closed with that number
// and has none yet.
func (b Batch) takesList(units int64) error {
	switch {
	case b.Closed.IsZero():
		return nil
	case b.List != "":
		return problem.Conflict("The batch is already closed, and has its list of what was made.")
	case b.Produced != units:
		return problem.Forbidden(RuleReconcile, "The batch was closed with %d units made, and the list names %d.", b.Produced, units).
			Hint("Hand in the list of just those units that were counted when it was closed.")
	}
	return nil
}

// reconcile gives a batch that was closed with a number the list of the serial numbers behind it, once. Surplus identities
// that the number did not show are an alarm.
func (s *Service) reconcile(ctx context.Context, tenant, id string, produced int64, list, actor string) (b Batch, err error) {
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		n, err := tx.Exec(`UPDATE batch SET produced_list = $1 WHERE tenant = $2 AND id = $3 AND closed > 0 AND produced_list = '' AND produced = $4`, list, tenant, id, produced)
		if err != nil {
			return err
		}
		if b, err = batchByID(tx.QueryRow, tenant, id); err != nil {
			return err
		}
		if n == 0 {
			if err := b.takesList(produced); err != nil {
				return err
			}
			return problem.Conflict("The batch is not closed.")
		}
		known := b.Surplus()
		if err := putSurplus(tx, &b); err != nil {
			return err
		}
		if err := audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "batch.reconciled", Subject: id, Data: map[string]any{"issued": b.Issued, "produced": b.Produced, "serials": b.surplus}}); err != nil {
			return err
		}
		if b.surplus <= known {
			return nil
		}
		return s.alarm(tx, tenant, id, actor, map[string]any{"batch": id, "issued": b.Issued, "produced": b.Produced, "serials": b.surplus})
	})
	return b, err
}

// putSurplus notes which identities of a batch its list of what was made does not name, and how many there are.
func putSurplus(tx *store.Tx, b *Batch) (err error) {
	b.surplus, err = tx.Exec(`INSERT INTO surplus(batch, device, tenant) SELECT m.batch, m.device, m.tenant FROM made m WHERE m.batch = $1 AND NOT EXISTS (
		SELECT 1 FROM produced p WHERE p.batch = m.batch AND p.list = $2 AND p.serial = m.serial)`, b.ID, b.List)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`UPDATE batch SET surplus = $1 WHERE tenant = $2 AND id = $3`, b.surplus, b.Tenant, b.ID)
	return err
}

// canEnter narrows a query over device d to those whose identity opens a door, or will again when the device is resumed.
const canEnter = notGone + ` AND d.state <> 'manufactured' AND NOT EXISTS (SELECT 1 FROM bar r WHERE r.tenant = d.tenant
	AND (r.scope = 'batch' AND r.id = d.batch OR r.scope IN ('station', 'ca') AND r.id = d.origin))`

// atLarge is how many surplus identities of a batch can still open a door. Where a list names them, those are counted; a
// number leaves open whether what was ended was one of them, so that there all count until fewer identities are left.
func atLarge(q querier, b Batch) (n int64, err error) {
	most := b.Surplus()
	if most <= 0 {
		return 0, nil
	}
	if b.List != "" {
		return n, q(`SELECT count(*) FROM surplus s JOIN device d ON d.id = s.device AND d.tenant = s.tenant WHERE s.tenant = $1 AND s.batch = $2`+canEnter, b.Tenant, b.ID).Scan(&n)
	}
	return n, q(`SELECT count(*) FROM (SELECT 1 FROM device d WHERE d.tenant = $1 AND d.batch = $2`+canEnter+` LIMIT $3) few`, b.Tenant, b.ID, most).Scan(&n)
}

type batchCount struct{ all, open, over, surplus int64 }

// countBatches counts a tenant's batches, those of them with identities at large that are too many, and these.
func (s *Service) countBatches(ctx context.Context, tenant string, products []string) (n batchCount, err error) {
	where, args := within([]any{tenant}, "product", products)
	err = s.cfg.DB.QueryRow(ctx, `SELECT count(*), coalesce(sum(CASE WHEN closed = 0 THEN 1 ELSE 0 END), 0) FROM batch WHERE tenant = $1`+where, args...).Scan(&n.all, &n.open)
	if err != nil {
		return n, err
	}
	rows, err := s.cfg.DB.Query(ctx, `SELECT `+batchColumns+` FROM batch WHERE tenant = $1 AND closed > 0 AND (surplus > 0 OR issued > produced)
		AND NOT EXISTS (SELECT 1 FROM bar r WHERE r.tenant = batch.tenant AND r.scope = 'batch' AND r.id = batch.id)`+where, args...)
	over, err := store.Collect(rows, err, func(r *sql.Rows) (Batch, error) { return scanBatch(r) })
	if err != nil {
		return n, err
	}
	for _, b := range over {
		left, err := atLarge(s.reads(ctx), b)
		if err != nil {
			return n, err
		}
		if n.surplus += left; left > 0 {
			n.over++
		}
	}
	return n, nil
}

// countSuspicious counts the stations at work that asked beyond their quota, whose clock was off, or that have a copy. One
// that has expired, or that was revoked by itself or with its batch, makes nothing more; an offline one may still bring what
// it made for a while.
func countSuspicious(ctx context.Context, db *store.DB, tenant string, products []string, now int64) (n int64, err error) {
	where, args := within([]any{tenant, now, SyncGrace.Milliseconds()}, "b.product", products)
	return n, db.QueryRow(ctx, `SELECT count(*) FROM station s JOIN batch b ON b.id = s.batch WHERE s.tenant = $1 AND s.killed = 0 AND s.expires + s.offline * $3 > $2
		AND (s.refused > 0 OR s.skewed > 0 OR s.forked > 0)
		AND NOT EXISTS (SELECT 1 FROM bar r WHERE r.tenant = s.tenant AND (r.scope = 'batch' AND r.id = s.batch OR r.scope = 'station' AND r.id = s.id))`+where, args...).Scan(&n)
}
