// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"crypto/x509/pkix"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

//go:embed migrations/*.sql
var migrationsFS embed.FS

// Schema holds the device and certificate tables.
var Schema = store.Migrations{Stage: "identity", FS: migrationsFS}

const deviceColumns = `id, tenant, product, revision, batch, serial, solution, state, reason, resume, firmware, grade, origin, made, created, updated`

type scanner interface{ Scan(...any) error }

// scanDevice reads a device, and into more what was selected after its columns.
func scanDevice(r scanner, more ...any) (Device, error) {
	var d Device
	var created, updated int64
	err := r.Scan(append([]any{&d.ID, &d.Tenant, &d.Product, &d.Revision, &d.Batch, &d.Serial, &d.Solution, &d.State, &d.Reason, &d.Resume, &d.Firmware, &d.Grade, &d.Origin, &d.Made,
		&created, &updated}, more...)...)
	d.Created, d.Updated = store.Time(created), store.Time(updated)
	if errors.Is(err, store.ErrNoRows) {
		return Device{}, errNoDevice()
	}
	return d, err
}

func errNoDevice() error { return problem.NotFound("There is no such device.") }

// querier is what both a transaction and a handle offer once the context is bound.
type querier func(q string, args ...any) *sql.Row

func (s *Service) reads(ctx context.Context) querier {
	return func(q string, args ...any) *sql.Row { return s.cfg.DB.QueryRow(ctx, q, args...) }
}

func deviceByID(q querier, tenant, id string) (Device, error) {
	return scanDevice(q(`SELECT `+deviceColumns+` FROM device WHERE tenant = $1 AND id = $2`, tenant, id))
}

func deviceBySerial(q querier, tenant, product, serial string) (Device, error) {
	return scanDevice(q(`SELECT `+deviceColumns+` FROM device WHERE tenant = $1 AND product = $2 AND serial = $3`, tenant, product, serial))
}

// Filter narrows a list of devices. Empty fields do not narrow. Products and Solutions together are an "or": the
// scope that an actor's grants reach (see tenant.Scope).
type Filter struct {
	Product, Solution, Batch string
	State                    State
	Products, Solutions      []string
	IDs                      []string // these devices only; at most a few hundred
	After                    string   // id of the last device of the page before
	Limit                    int      // 0: 100
	// Where is a further condition, from a later stage. It writes SQL over the row "device", whose columns it names as
	// device.id; bind keeps a value and returns its placeholder. What else it asks lies in tables of that stage, by
	// device.id. Nil: none.
	Where func(bind func(any) string) string
}

func listDevices(ctx context.Context, db *store.DB, tenant string, f Filter) ([]Device, error) {
	where, args := f.where(tenant)
	query := `SELECT ` + deviceColumns + ` FROM device WHERE ` + where + ` ORDER BY id LIMIT ` + fmt.Sprintf("$%d", len(args)+1)
	args = append(args, f.limit())
	scan := func(r *sql.Rows) (Device, error) { return scanDevice(r) }
	if f.Where == nil {
		rows, err := db.Query(ctx, query, args...)
		return store.Collect(rows, err, scan)
	}
	var out []Device
	err := db.View(ctx, func(tx *store.Tx) (err error) { // not prepared: strangers make these texts
		rows, err := tx.Query(query, args...)
		out, err = store.Collect(rows, err, scan)
		return err
	})
	return out, err
}

func (f Filter) limit() int {
	if f.Limit <= 0 {
		return 100
	}
	return f.Limit
}

// where writes the filter, but for its limit, as a condition over the row "device".
func (f Filter) where(tenant string) (string, []any) {
	args := []any{tenant}
	where := []string{"device.tenant = $1"}
	arg := func(v any) string { args = append(args, v); return fmt.Sprintf("$%d", len(args)) }
	among := func(ids []string) (list string) {
		list, args = store.In(args, ids)
		return list
	}
	for _, c := range []struct{ column, value string }{{"product", f.Product}, {"solution", f.Solution}, {"batch", f.Batch}, {"state", string(f.State)}} {
		if c.value != "" {
			where = append(where, "device."+c.column+" = "+arg(c.value))
		}
	}
	var scope []string
	for _, p := range f.Products {
		scope = append(scope, "device.product = "+arg(p))
	}
	if len(f.Solutions) > 0 {
		scope = append(scope, "device.solution IN "+among(f.Solutions))
	}
	if len(scope) > 0 {
		where = append(where, "("+strings.Join(scope, " OR ")+")")
	}
	if len(f.IDs) > 0 {
		where = append(where, "device.id IN "+among(f.IDs))
	}
	if f.After != "" {
		where = append(where, "device.id > "+arg(f.After))
	}
	if f.Where != nil {
		where = append(where, "("+f.Where(arg)+")")
	}
	return strings.Join(where, " AND "), args
}

func insertDevice(tx *store.Tx, d Device) error {
	m := makingOf(d.Made)
	_, err := tx.Exec(`INSERT INTO device(`+deviceColumns+`, made_order, made_line, made_part) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15, $16, $17, $18)`,
		d.ID, d.Tenant, d.Product, d.Revision, d.Batch, d.Serial, d.Solution, d.State, d.Reason, d.Resume, d.Firmware, d.Grade, d.Origin, d.Made, store.Millis(d.Created), m.Order, m.Line, m.Part)
	if store.IsUnique(err) {
		return problem.Conflict("The serial number %s is already taken in this product.", d.Serial).At("serial")
	}
	return err
}

// moveDevice writes the new state only while the old one still holds; false means that somebody else was faster.
func moveDevice(tx *store.Tx, d Device, to State, resume State, reason string, at time.Time) (bool, error) {
	n, err := tx.Exec(`UPDATE device SET state = $1, resume = $2, reason = $3, updated = $4 WHERE tenant = $5 AND id = $6 AND state = $7`,
		to, resume, reason, store.Millis(at), d.Tenant, d.ID, d.State)
	return n == 1, err
}

// lockDevice keeps a loss of trust in the device's certificates and the issue of its next one apart, on all nodes. It
// returns the state as it is then, empty for a line station.
func lockDevice(tx *store.Tx, tenant, id string) (st State, err error) {
	err = tx.QueryRow(`UPDATE device SET updated = updated WHERE tenant = $1 AND id = $2 RETURNING state`, tenant, id).Scan(&st)
	if errors.Is(err, store.ErrNoRows) {
		return "", nil
	}
	return st, err
}

func setSolution(tx *store.Tx, tenant, id, solution string, at time.Time) error {
	_, err := tx.Exec(`UPDATE device SET solution = $1, updated = $2 WHERE tenant = $3 AND id = $4`, solution, store.Millis(at), tenant, id)
	return err
}

// Intent is what was decided about a certificate before it was signed.
type Intent struct {
	keyHash, tenant, subject string
	kind                     Kind
	authority                string // id of the one that signs
	shard                    int64  // of its revocation lists; 0: none
	serial                   *big.Int
	notBefore, notAfter      time.Time

	name  pkix.Name // not stored: the register knows it
	uri   *url.URL
	state State // not stored: of the device, when the intent was written
	fresh bool  // not stored: this call wrote it, so there is no certificate yet
}

// recordIntent writes want, or returns the intent that this key already has.
func recordIntent(tx *store.Tx, want Intent, at time.Time) (Intent, error) {
	n, err := tx.Exec(`INSERT INTO issue_intent(key_hash, tenant, subject, kind, authority, serial, not_before, not_after, created, shard)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (key_hash) DO NOTHING`,
		want.keyHash, want.tenant, want.subject, want.kind, want.authority, want.serial.Text(16), store.Millis(want.notBefore), store.Millis(want.notAfter), store.Millis(at), want.shard)
	if err != nil || n == 1 {
		want.fresh = true
		return want, err
	}
	have := Intent{keyHash: want.keyHash}
	var serial string
	var from, until int64
	err = tx.QueryRow(`SELECT tenant, subject, kind, authority, shard, serial, not_before, not_after FROM issue_intent WHERE key_hash = $1`, want.keyHash).
		Scan(&have.tenant, &have.subject, &have.kind, &have.authority, &have.shard, &serial, &from, &until)
	if err != nil {
		return Intent{}, err
	}
	var ok bool
	if have.serial, ok = new(big.Int).SetString(serial, 16); !ok {
		return Intent{}, fmt.Errorf("identity: intent %s has the serial number %q", want.keyHash, serial)
	}
	have.notBefore, have.notAfter = store.Time(from), store.Time(until)
	return have, nil
}

// renewIntent decides anew about a key that has no certificate yet, for the same subject and kind. If one is being made by
// the old decision at this moment, the first of both that is known stays, since a key has one.
func renewIntent(tx *store.Tx, have, want Intent, at time.Time) (Intent, error) {
	n, err := tx.Exec(`UPDATE issue_intent SET authority = $1, serial = $2, not_before = $3, not_after = $4, created = $5, shard = $6
		WHERE key_hash = $7 AND tenant = $8 AND subject = $9 AND kind = $10 AND NOT EXISTS (SELECT 1 FROM certificate c WHERE c.key_hash = issue_intent.key_hash)`,
		want.authority, want.serial.Text(16), store.Millis(want.notBefore), store.Millis(want.notAfter), store.Millis(at), want.shard, want.keyHash, want.tenant, want.subject, want.kind)
	if err != nil || n == 0 {
		return have, err
	}
	want.fresh = true
	return want, nil
}

func countIntents(tx *store.Tx, subject string, k Kind, since time.Time) (n int64, err error) {
	return n, tx.QueryRow(`SELECT count(*) FROM issue_intent WHERE subject = $1 AND kind = $2 AND created > $3`, subject, k, store.Millis(since)).Scan(&n)
}

const certificateColumns = `fp, tenant, subject, kind, phase, serial, key_hash, der, not_before, not_after, revoked, reason, authority, origin, shard`

func scanCertificate(r scanner) (Certificate, error) {
	var c Certificate
	var from, until, revoked int64
	err := r.Scan(&c.Fingerprint, &c.Tenant, &c.Subject, &c.Kind, &c.Phase, &c.Serial, &c.KeyHash, &c.DER, &from, &until, &revoked, &c.Reason, &c.Authority, &c.Origin, &c.Shard)
	c.NotBefore, c.NotAfter, c.Revoked = store.Time(from), store.Time(until), store.Time(revoked)
	return c, err
}

// insertCertificate says false when the key already has its certificate.
func insertCertificate(tx *store.Tx, c Certificate, at time.Time) (bool, error) {
	n, err := tx.Exec(`INSERT INTO certificate(`+certificateColumns+`, created) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, '', $11, $12, $13, $14)
		ON CONFLICT (key_hash) DO NOTHING`,
		c.Fingerprint, c.Tenant, c.Subject, c.Kind, c.Phase, c.Serial, c.KeyHash, c.DER, store.Millis(c.NotBefore), store.Millis(c.NotAfter), c.Authority, c.Origin, c.Shard, store.Millis(at))
	return n == 1, err
}

func certificateByKey(q querier, tenant, keyHash string) (Certificate, error) {
	return scanCertificate(q(`SELECT `+certificateColumns+` FROM certificate WHERE tenant = $1 AND key_hash = $2`, tenant, keyHash))
}

func certificatesOf(ctx context.Context, db *store.DB, tenant, subject string) ([]Certificate, error) {
	rows, err := db.Query(ctx, `SELECT `+certificateColumns+` FROM certificate WHERE tenant = $1 AND subject = $2 ORDER BY created DESC, fp`, tenant, subject)
	return store.Collect(rows, err, func(r *sql.Rows) (Certificate, error) { return scanCertificate(r) })
}

// keepPending bounds how many unused LDevIDs a device can hold: a device whose storage fails before each first use
// asks again and again, and its latest requests are the ones that it may still use.
const keepPending = 3

// keptBeside is how many stay beside the newest. It is text: with an argument there SQLite parses the statement at each use.
var keptBeside = strconv.Itoa(keepPending - 1)

// trimPending supersedes all but the latest; newest is the one that was just added.
func trimPending(tx *store.Tx, tenant, device, newest string) error {
	_, err := tx.Exec(`UPDATE certificate SET phase = $1 WHERE fp IN (
		SELECT fp FROM certificate WHERE tenant = $2 AND subject = $3 AND kind = $4 AND phase = $5 AND fp <> $6 ORDER BY created DESC, fp LIMIT 1000 OFFSET `+keptBeside+`)`,
		PhaseSuperseded, tenant, device, LDevID, PhasePending, newest)
	return err
}

// activate makes a pending certificate the active one and supersedes those before it. The device's row is held meanwhile:
// two certificates that are used for the first time at once, on two nodes, would each miss the other, and both stay.
func activate(tx *store.Tx, tenant, device, fp string) error {
	if _, err := lockDevice(tx, tenant, device); err != nil {
		return err
	}
	n, err := tx.Exec(`UPDATE certificate SET phase = $1 WHERE fp = $2 AND phase = $3`, PhaseActive, fp, PhasePending)
	if err != nil || n == 0 {
		return err
	}
	if _, err = tx.Exec(`UPDATE certificate SET phase = $1 WHERE tenant = $2 AND subject = $3 AND kind = $4 AND phase = $5 AND fp <> $6`,
		PhaseSuperseded, tenant, device, LDevID, PhaseActive, fp); err != nil {
		return err
	}
	_, err = tx.Exec(`UPDATE certificate SET phase = $1 WHERE tenant = $2 AND subject = $3 AND kind = $4 AND phase = $5
		AND created <= (SELECT created FROM certificate WHERE fp = $6)`,
		PhaseSuperseded, tenant, device, LDevID, PhasePending, fp)
	return err
}

// revokeCertificates revokes those of subject that are of one of the kinds and returns them (fingerprint, kind, serial,
// authority, end).
func revokeCertificates(tx *store.Tx, tenant, subject, reason string, at time.Time, kinds ...Kind) (revoked []Certificate, err error) {
	for _, k := range kinds {
		rows, err := tx.Query(`UPDATE certificate SET phase = $1, revoked = $2, reason = $3
			WHERE tenant = $4 AND subject = $5 AND kind = $6 AND phase <> $1 RETURNING fp, serial, authority, not_after`, PhaseRevoked, store.Millis(at), reason, tenant, subject, k)
		cs, err := store.Collect(rows, err, func(r *sql.Rows) (Certificate, error) {
			c := Certificate{Kind: k, Phase: PhaseRevoked}
			var until int64
			err := r.Scan(&c.Fingerprint, &c.Serial, &c.Authority, &until)
			c.NotAfter = store.Time(until)
			return c, err
		})
		if err != nil {
			return nil, err
		}
		revoked = append(revoked, cs...)
	}
	return revoked, nil
}

// ProductsOf is the product of each of these devices of the tenant, by id.
func (s *Service) ProductsOf(ctx context.Context, tenant string, ids []string) (map[string]string, error) {
	in, args := store.In([]any{tenant}, ids)
	return store.Pairs(s.cfg.DB.Query(ctx, `SELECT id, product FROM device WHERE tenant = $1 AND id IN `+in, args...))
}
