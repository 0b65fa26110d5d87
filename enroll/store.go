// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
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

const batchColumns = `id, tenant, product, revision, name, size, issued, produced, created, closed, reserved, signed, listed, units, head, produced_list, surplus`

func scanBatch(r scanner) (Batch, error) {
	var b Batch
	var created, closed, signed, listed int64
	err := r.Scan(&b.ID, &b.Tenant, &b.Product, &b.Revision, &b.Name, &b.Size, &b.Issued, &b.Produced, &created, &closed,
		&b.Reserved, &signed, &listed, &b.Units, &b.Head, &b.List, &b.surplus)
	b.Created, b.Closed, b.Signed, b.Listed = store.Time(created), store.Time(closed), signed > 0, listed > 0
	if errors.Is(err, store.ErrNoRows) {
		return Batch{}, problem.NotFound("There is no such batch.")
	}
	return b, err
}

const stationColumns = `id, tenant, batch, name, quota, used, refused, created, expires, killed, reason, skewed, offline, permit, reserved, seq, head, forked`

func scanStation(r scanner) (Station, error) {
	var s Station
	var created, expires, killed, offline, forked int64
	err := r.Scan(&s.ID, &s.Tenant, &s.Batch, &s.Name, &s.Quota, &s.Used, &s.Refused, &created, &expires, &killed, &s.Reason,
		&s.Skewed, &offline, &s.permit, &s.reserved, &s.Seq, &s.head, &forked)
	s.Created, s.Expires, s.Killed, s.Offline, s.Forked = store.Time(created), store.Time(expires), store.Time(killed), offline > 0, forked > 0
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

// Name is what people call a batch, a station, a trusted CA or an enrolment token of the tenant.
func (s *Service) Name(ctx context.Context, tenant, id string) (string, error) {
	if strings.HasPrefix(id, "bat_") {
		b, err := batchByID(s.reads(ctx), tenant, id)
		return "batch " + b.Name, err
	}
	if strings.HasPrefix(id, "tca_") {
		c, err := s.TrustedCA(ctx, tenant, id)
		return "trusted CA " + c.Name, err
	}
	if strings.HasPrefix(id, "etk_") {
		t, err := s.Token(ctx, tenant, id)
		return "enrolment token " + t.Name, err
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

// page is a part of a list, the newest first: at most limit of those before an id, of the products named if any are.
type page struct {
	products []string
	before   string
	limit    int
}

// where narrows a list to the page; args are those of the query so far, product and id are its columns.
func (p page) where(args []any, product, id string) (string, []any) {
	var b strings.Builder
	if p.before != "" {
		args = append(args, p.before)
		fmt.Fprintf(&b, " AND %s < $%d", id, len(args))
	}
	in, args := within(args, product, p.products)
	b.WriteString(in)
	args = append(args, p.limit)
	fmt.Fprintf(&b, " ORDER BY %s DESC LIMIT $%d", id, len(args))
	return b.String(), args
}

func listBatches(ctx context.Context, db *store.DB, tenant string, p page) ([]Batch, error) {
	where, args := p.where([]any{tenant}, "product", "id")
	rows, err := db.Query(ctx, `SELECT `+batchColumns+` FROM batch WHERE tenant = $1`+where, args...)
	return store.Collect(rows, err, func(r *sql.Rows) (Batch, error) { return scanBatch(r) })
}

func listStations(ctx context.Context, db *store.DB, tenant string, p page) ([]Station, error) {
	where, args := p.where([]any{tenant}, "(SELECT b.product FROM batch b WHERE b.id = station.batch)", "id")
	rows, err := db.Query(ctx, `SELECT `+stationColumns+` FROM station WHERE tenant = $1`+where, args...)
	return store.Collect(rows, err, func(r *sql.Rows) (Station, error) { return scanStation(r) })
}

func insertBatch(tx *store.Tx, b Batch) error {
	_, err := tx.Exec(`INSERT INTO batch(`+batchColumns+`) VALUES ($1, $2, $3, $4, $5, $6, 0, 0, $7, 0, 0, $8, $9, 0, $10, '', 0)`,
		b.ID, b.Tenant, b.Product, b.Revision, b.Name, b.Size, store.Millis(b.Created), number01(b.Signed), number01(b.Listed), firstHash(b.ID))
	if store.IsUnique(err) {
		return problem.Conflict("The product already has a batch %s.", b.Name).At("name")
	}
	return err
}

func number01(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func insertStation(tx *store.Tx, s Station) error {
	_, err := tx.Exec(`INSERT INTO station(`+stationColumns+`) VALUES ($1, $2, $3, $4, $5, 0, 0, $6, $7, 0, '', 0, $8, $9, $10, 0, $11, 0)`,
		s.ID, s.Tenant, s.Batch, s.Name, s.Quota, store.Millis(s.Created), store.Millis(s.Expires), number01(s.Offline), s.permit, s.reserved, s.head)
	return err
}

// takeUnit counts one more unit of the station and its batch, or says which of them is full.
func takeUnit(tx *store.Tx, s Station) error {
	n, err := tx.Exec(`UPDATE station SET used = used + 1 WHERE tenant = $1 AND id = $2 AND used < quota AND killed = 0`, s.Tenant, s.ID)
	if err != nil {
		return err
	}
	if n == 0 {
		if err := stillAtWork(tx, s); err != nil {
			return err
		}
		return problem.Forbidden(RuleQuota, "The line station has made all the %d units that it may.", s.Quota)
	}
	if s.Offline {
		return takeReserved(tx, s)
	}
	n, err = tx.Exec(`UPDATE batch SET issued = issued + 1 WHERE tenant = $1 AND id = $2 AND issued + reserved < size`, s.Tenant, s.Batch)
	if err != nil {
		return err
	}
	if n == 0 {
		return problem.Forbidden(RuleQuota, "The batch has all the units that it may, offline stations included.")
	}
	return nil
}

// stillAtWork refuses what a station that was killed meanwhile has begun. Whoever kills it waits for this transaction, and
// so finds its unit.
func stillAtWork(tx *store.Tx, s Station) error {
	n, err := tx.Exec(`UPDATE station SET used = used WHERE tenant = $1 AND id = $2 AND killed = 0`, s.Tenant, s.ID)
	if err == nil && n == 0 {
		return problem.Forbidden(RuleClosed, "The line station is killed.")
	}
	return err
}

// countRefusal returns how often the station has now asked for more than it may.
func countRefusal(tx *store.Tx, s Station) (n int64, err error) {
	return n, tx.QueryRow(`UPDATE station SET refused = refused + 1 WHERE tenant = $1 AND id = $2 RETURNING refused`, s.Tenant, s.ID).Scan(&n)
}

// countSkew returns how often the station's clock was off.
func countSkew(tx *store.Tx, s Station) (n int64, err error) {
	return n, tx.QueryRow(`UPDATE station SET skewed = skewed + 1 WHERE tenant = $1 AND id = $2 RETURNING skewed`, s.Tenant, s.ID).Scan(&n)
}

// reserve promises units of the batch to an offline station.
func reserve(tx *store.Tx, b Batch, n int64) error {
	rows, err := tx.Exec(`UPDATE batch SET reserved = reserved + $1 WHERE tenant = $2 AND id = $3 AND issued + reserved + $1 <= size`, n, b.Tenant, b.ID)
	if err == nil && rows == 0 {
		return problem.Forbidden(RuleQuota, "The batch has %d of %d units left to promise, and the station wants %d.", b.Size-b.Issued-b.Reserved, b.Size, n).At("quota")
	}
	return err
}

// takeReserved counts a unit that an offline station brings against what it was promised.
func takeReserved(tx *store.Tx, s Station) error {
	n, err := tx.Exec(`UPDATE station SET reserved = reserved - 1 WHERE tenant = $1 AND id = $2 AND reserved > 0`, s.Tenant, s.ID)
	if err != nil {
		return err
	}
	if n == 0 {
		return problem.Forbidden(RuleQuota, "The line station has brought all the %d units that it was promised.", s.Quota)
	}
	_, err = tx.Exec(`UPDATE batch SET issued = issued + 1, reserved = reserved - 1 WHERE tenant = $1 AND id = $2`, s.Tenant, s.Batch)
	return err
}

// freeReserved gives back what an offline station was promised and has not brought.
func freeReserved(tx *store.Tx, s Station) error {
	if s.reserved == 0 {
		return nil
	}
	if _, err := tx.Exec(`UPDATE batch SET reserved = reserved - $1 WHERE tenant = $2 AND id = $3`, s.reserved, s.Tenant, s.Batch); err != nil {
		return err
	}
	_, err := tx.Exec(`UPDATE station SET reserved = 0 WHERE tenant = $1 AND id = $2`, s.Tenant, s.ID)
	return err
}

func closeBatch(tx *store.Tx, tenant, id string, produced int64, list string, at time.Time) error {
	n, err := tx.Exec(`UPDATE batch SET closed = $1, produced = $2, produced_list = $3 WHERE tenant = $4 AND id = $5 AND closed = 0`,
		store.Millis(at), produced, list, tenant, id)
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

// stationStands refuses what was begun for a station that was killed meanwhile, and holds its row: a kill comes before this
// or revokes what comes of it.
func stationStands(tx *store.Tx, tenant, id string) error {
	n, err := tx.Exec(`UPDATE station SET killed = 0 WHERE tenant = $1 AND id = $2 AND killed = 0`, tenant, id)
	if err == nil && n == 0 {
		err = problem.Forbidden(RuleClosed, "The line station is killed.")
	}
	return err
}

// devicesOfStation lists the units that have an identity through the station: a claim row is made in the transaction
// that makes the certificate known.
func devicesOfStation(ctx context.Context, db *store.DB, tenant, station, after string, limit int) ([]string, error) {
	rows, err := db.Query(ctx, `SELECT device FROM claim WHERE tenant = $1 AND station = $2 AND device > $3 ORDER BY device LIMIT $4`, tenant, station, after, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (id string, err error) { return id, r.Scan(&id) })
}

// countOfStation is how many units have an identity through the station.
func countOfStation(q querier, tenant, station string) (n int64, err error) {
	return n, q(`SELECT count(*) FROM claim WHERE tenant = $1 AND station = $2`, tenant, station).Scan(&n)
}

// affected lists the units of a station as they stand now.
func affected(ctx context.Context, db *store.DB, st Station, after string, limit int) ([]Affected, error) {
	rows, err := db.Query(ctx, `SELECT d.id, d.serial, d.state, d.solution FROM claim c JOIN device d ON d.id = c.device AND d.tenant = c.tenant
		WHERE c.tenant = $1 AND c.station = $2 AND c.device > $3 ORDER BY c.device LIMIT $4`, st.Tenant, st.ID, after, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (a Affected, err error) {
		return a, r.Scan(&a.Device, &a.Serial, &a.State, &a.Solution)
	})
}

// unitCount is how many units of a batch were claimed, and how many are out of service.
type unitCount struct{ claimed, failed int64 }

func countUnits(ctx context.Context, db *store.DB, tenant string, bs []Batch) (map[string]unitCount, error) {
	out := map[string]unitCount{}
	if len(bs) == 0 {
		return out, nil
	}
	args, marks := []any{tenant}, make([]string, len(bs))
	for i, b := range bs {
		args = append(args, b.ID)
		marks[i] = fmt.Sprintf("$%d", len(args))
	}
	rows, err := db.Query(ctx, `SELECT batch, sum(CASE WHEN state IN ('pending', 'commissioned') THEN 1 ELSE 0 END), sum(CASE WHEN state IN ('manufactured', 'suspended', 'decommissioned') THEN 1 ELSE 0 END)
		FROM device WHERE tenant = $1 AND batch IN (`+strings.Join(marks, ", ")+`) GROUP BY batch`, args...)
	_, err = store.Collect(rows, err, func(r *sql.Rows) (id string, err error) {
		var c unitCount
		err = r.Scan(&id, &c.claimed, &c.failed)
		out[id] = c
		return id, err
	})
	return out, err
}

// within narrows a query to products, if any are named.
func within(args []any, column string, products []string) (string, []any) {
	if len(products) == 0 {
		return "", args
	}
	marks := make([]string, len(products))
	for i, p := range products {
		args = append(args, p)
		marks[i] = fmt.Sprintf("$%d", len(args))
	}
	return " AND " + column + " IN (" + strings.Join(marks, ", ") + ")", args
}

func countGuests(ctx context.Context, db *store.DB, tenant string, products []string) (n int64, err error) {
	where, args := within([]any{tenant}, "d.product", products)
	return n, db.QueryRow(ctx, `SELECT count(*) FROM lobby l JOIN device d ON d.id = l.device WHERE l.tenant = $1 AND l.verdict = 'waiting'`+notGone+where, args...).Scan(&n)
}

// ProductsOf is the product of each of these batches of the tenant, by id.
func (s *Service) ProductsOf(ctx context.Context, tenant string, ids []string) (map[string]string, error) {
	in, args := store.In([]any{tenant}, ids)
	return store.Pairs(s.cfg.DB.Query(ctx, `SELECT id, product FROM batch WHERE tenant = $1 AND id IN `+in, args...))
}
