// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

//go:embed migrations/*.sql
var migrationsFS embed.FS

// Schema holds the tables of lines and claims.
var Schema = store.Migrations{Stage: "enroll", FS: migrationsFS}

type scanner interface{ Scan(...any) error }

const batchColumns = `id, tenant, product, revision, name, size, issued, produced, created, closed`

func scanBatch(r scanner) (Batch, error) {
	var b Batch
	var created, closed int64
	err := r.Scan(&b.ID, &b.Tenant, &b.Product, &b.Revision, &b.Name, &b.Size, &b.Issued, &b.Produced, &created, &closed)
	b.Created, b.Closed = store.Time(created), store.Time(closed)
	if errors.Is(err, store.ErrNoRows) {
		return Batch{}, problem.NotFound("There is no such batch.")
	}
	return b, err
}

const stationColumns = `id, tenant, batch, name, quota, used, refused, created, expires, killed, reason`

func scanStation(r scanner) (Station, error) {
	var s Station
	var created, expires, killed int64
	err := r.Scan(&s.ID, &s.Tenant, &s.Batch, &s.Name, &s.Quota, &s.Used, &s.Refused, &created, &expires, &killed, &s.Reason)
	s.Created, s.Expires, s.Killed = store.Time(created), store.Time(expires), store.Time(killed)
	if errors.Is(err, store.ErrNoRows) {
		return Station{}, problem.NotFound("There is no such line station.")
	}
	return s, err
}

// querier is QueryRow of a transaction, or of a handle whose context is bound.
type querier func(q string, args ...any) *sql.Row

func (s *Service) reads(ctx context.Context) querier {
	return func(q string, args ...any) *sql.Row { return s.cfg.DB.QueryRow(ctx, q, args...) }
}

// Name is what the line calls a batch or a station of the tenant.
func (s *Service) Name(ctx context.Context, tenant, id string) (string, error) {
	if strings.HasPrefix(id, "bat_") {
		b, err := batchByID(s.reads(ctx), tenant, id)
		return "batch " + b.Name, err
	}
	st, err := stationByID(s.reads(ctx), tenant, id)
	return st.Name, err
}

func batchByID(q querier, tenant, id string) (Batch, error) {
	return scanBatch(q(`SELECT `+batchColumns+` FROM batch WHERE tenant = $1 AND id = $2`, tenant, id))
}

func stationByID(q querier, tenant, id string) (Station, error) {
	return scanStation(q(`SELECT `+stationColumns+` FROM station WHERE tenant = $1 AND id = $2`, tenant, id))
}

func listBatches(ctx context.Context, db *store.DB, tenant string) ([]Batch, error) {
	rows, err := db.Query(ctx, `SELECT `+batchColumns+` FROM batch WHERE tenant = $1 ORDER BY id DESC LIMIT 1000`, tenant)
	return store.Collect(rows, err, func(r *sql.Rows) (Batch, error) { return scanBatch(r) })
}

func listStations(ctx context.Context, db *store.DB, tenant string) ([]Station, error) {
	rows, err := db.Query(ctx, `SELECT `+stationColumns+` FROM station WHERE tenant = $1 ORDER BY id DESC LIMIT 1000`, tenant)
	return store.Collect(rows, err, func(r *sql.Rows) (Station, error) { return scanStation(r) })
}

func insertBatch(tx *store.Tx, b Batch) error {
	_, err := tx.Exec(`INSERT INTO batch(`+batchColumns+`) VALUES ($1, $2, $3, $4, $5, $6, 0, 0, $7, 0)`,
		b.ID, b.Tenant, b.Product, b.Revision, b.Name, b.Size, store.Millis(b.Created))
	if store.IsUnique(err) {
		return problem.Conflict("The product already has a batch %s.", b.Name).At("name")
	}
	return err
}

func insertStation(tx *store.Tx, s Station) error {
	_, err := tx.Exec(`INSERT INTO station(`+stationColumns+`) VALUES ($1, $2, $3, $4, $5, 0, 0, $6, $7, 0, '')`,
		s.ID, s.Tenant, s.Batch, s.Name, s.Quota, store.Millis(s.Created), store.Millis(s.Expires))
	return err
}

// takeUnit counts one more unit of the station and its batch, or says which of them is full.
func takeUnit(tx *store.Tx, s Station) error {
	n, err := tx.Exec(`UPDATE station SET used = used + 1 WHERE tenant = $1 AND id = $2 AND used < quota`, s.Tenant, s.ID)
	if err != nil {
		return err
	}
	if n == 0 {
		return problem.Forbidden(RuleQuota, "The line station has made all the %d units that it may.", s.Quota)
	}
	n, err = tx.Exec(`UPDATE batch SET issued = issued + 1 WHERE tenant = $1 AND id = $2 AND issued < size`, s.Tenant, s.Batch)
	if err != nil {
		return err
	}
	if n == 0 {
		return problem.Forbidden(RuleQuota, "The batch has all the units that it may.")
	}
	return nil
}

// countRefusal returns how often the station has now asked for more than it may.
func countRefusal(tx *store.Tx, s Station) (n int64, err error) {
	return n, tx.QueryRow(`UPDATE station SET refused = refused + 1 WHERE tenant = $1 AND id = $2 RETURNING refused`, s.Tenant, s.ID).Scan(&n)
}

func closeBatch(tx *store.Tx, tenant, id string, produced int64, at time.Time) error {
	n, err := tx.Exec(`UPDATE batch SET closed = $1, produced = $2 WHERE tenant = $3 AND id = $4 AND closed = 0`, store.Millis(at), produced, tenant, id)
	if err == nil && n == 0 {
		return problem.Conflict("The batch is already closed.")
	}
	return err
}

func killStation(tx *store.Tx, tenant, id, reason string, at time.Time) error {
	n, err := tx.Exec(`UPDATE station SET killed = $1, reason = $2 WHERE tenant = $3 AND id = $4 AND killed = 0`, store.Millis(at), reason, tenant, id)
	if err == nil && n == 0 {
		return problem.Conflict("The line station was already killed.")
	}
	return err
}

func devicesOfStation(ctx context.Context, db *store.DB, tenant, station string) ([]string, error) {
	rows, err := db.Query(ctx, `SELECT device FROM claim WHERE tenant = $1 AND station = $2 ORDER BY device LIMIT 10000`, tenant, station)
	return store.Collect(rows, err, func(r *sql.Rows) (id string, err error) { return id, r.Scan(&id) })
}

// putClaim gives the device a claim code, in the place of one that was not used.
func putClaim(tx *store.Tx, tenant, device, station, hash string, at time.Time) error {
	n, err := tx.Exec(`INSERT INTO claim(device, tenant, station, code_hash, created, used, solution) VALUES ($1, $2, $3, $4, $5, 0, '')
		ON CONFLICT (device) DO UPDATE SET code_hash = excluded.code_hash, created = excluded.created WHERE claim.used = 0`,
		device, tenant, station, hash, store.Millis(at))
	if err == nil && n == 0 {
		return problem.Conflict("The unit has already been claimed.")
	}
	return err
}

// claimed is a claim row.
type claimed struct {
	device string
	used   bool
}

func claimByHash(q querier, tenant, hash string) (claimed, error) {
	var c claimed
	err := q(`SELECT device, used > 0 FROM claim WHERE tenant = $1 AND code_hash = $2`, tenant, hash).Scan(&c.device, &c.used)
	return c, err
}

// useClaim marks the code as used; false means that it was used meanwhile.
func useClaim(tx *store.Tx, tenant, hash, solution string, at time.Time) (bool, error) {
	n, err := tx.Exec(`UPDATE claim SET used = $1, solution = $2 WHERE tenant = $3 AND code_hash = $4 AND used = 0`, store.Millis(at), solution, tenant, hash)
	return n == 1, err
}

// Failed claims allowed in a window, for one code and for a tenant. 128 bits cannot be guessed; the limits keep
// somebody who tries from costing more than a few rows.
const (
	claimWindow     = 10 * time.Minute
	failuresPerCode = 5
	failuresPerAll  = 100
)

// mayClaim refuses while there were too many failures.
func mayClaim(q querier, tenant, hash string, now time.Time) error {
	var n int64
	err := q(`SELECT count(*) FROM claim_failure WHERE tenant = $1 AND since > $2 AND (code_hash = $3 AND n >= $4 OR code_hash = '' AND n >= $5)`,
		tenant, store.Millis(now.Add(-claimWindow)), hash, failuresPerCode, failuresPerAll).Scan(&n)
	if err == nil && n > 0 {
		return problem.Limited("Too many claims have failed.").Hint("Wait %.0f minutes, then check the code on the box.", claimWindow.Minutes())
	}
	return err
}

// countFailure adds a failed claim. hash is empty for a code that nobody has.
func countFailure(tx *store.Tx, tenant, hash string, now time.Time) error {
	for _, h := range []string{"", hash} {
		_, err := tx.Exec(`INSERT INTO claim_failure(tenant, code_hash, since, n) VALUES ($1, $2, $3, 1) ON CONFLICT (tenant, code_hash) DO UPDATE SET
			n = CASE WHEN claim_failure.since > $4 THEN claim_failure.n + 1 ELSE 1 END,
			since = CASE WHEN claim_failure.since > $4 THEN claim_failure.since ELSE excluded.since END`,
			tenant, h, store.Millis(now), store.Millis(now.Add(-claimWindow)))
		if err != nil || hash == "" {
			return err
		}
	}
	return nil
}
