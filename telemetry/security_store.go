// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"database/sql"
	"errors"

	"github.com/openthings-platform/openthings/store"
)

type securityRow struct {
	tenant, device string
	seq            uint64
	id             string
	at, received   int64
	kind           string
	body           []byte // sealed
}

// bind is what the body is bound to, besides its key.
func (r securityRow) bind() []byte {
	return streamKey{r.tenant, r.device, r.kind}.bind("security", r.id)
}

const securityColumns = `tenant, device, seq, id, at, received, kind, body`

func scanSecurity(r *sql.Rows) (x securityRow, err error) {
	var seq int64
	err = r.Scan(&x.tenant, &x.device, &seq, &x.id, &x.at, &x.received, &x.kind, &x.body)
	x.seq = uint64(seq)
	return x, err
}

type chainRow struct {
	head, checked    uint64
	since, checkedAt int64
	rev              int64 // 0: there is none yet
}

type breakRow struct {
	id, kind   string
	lo, hi     uint64
	at, healed int64
	told       bool
}

func (b breakRow) out() ChainBreak {
	out := ChainBreak{Kind: b.kind, From: b.lo, To: b.hi, At: store.Time(b.at)}
	if b.healed != 0 {
		at := store.Time(b.healed)
		out.Healed = &at
	}
	return out
}

// putLink writes a link, how its chain stands with it, and what it shows of breaks, of which room may be new; or fails with
// errMoved if the chain has changed since it was read.
func putLink(tx *store.Tx, l securityRow, c chainRow, breaks []breakRow, room int) error {
	err := all(1)(tx.Exec(`INSERT INTO telemetry_chain(tenant, device, head, since, checked, checked_at, rev) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (device) DO UPDATE SET head = excluded.head, checked = excluded.checked, checked_at = excluded.checked_at, rev = excluded.rev
			WHERE telemetry_chain.rev = excluded.rev - 1 AND telemetry_chain.tenant = excluded.tenant`,
		l.tenant, l.device, int64(c.head), c.since, int64(c.checked), c.checkedAt, c.rev+1))
	if err != nil {
		return err
	}
	if _, err := tx.Exec(`INSERT INTO telemetry_security(`+securityColumns+`) VALUES `+values(1, 8),
		l.tenant, l.device, int64(l.seq), l.id, l.at, l.received, l.kind, l.body); err != nil {
		return err
	}
	for _, b := range breaks {
		n, err := tx.Exec(`UPDATE telemetry_chain_break SET lo = $4, hi = $5, healed = $6 WHERE tenant = $1 AND device = $2 AND id = $3`,
			l.tenant, l.device, b.id, int64(b.lo), int64(b.hi), b.healed)
		if err != nil {
			return err
		}
		if n > 0 {
			continue
		}
		if room--; room < 0 {
			continue
		}
		told := int64(0)
		if b.told { // the rest of a gap that was announced
			told = 1
		}
		if _, err := tx.Exec(`INSERT INTO telemetry_chain_break(tenant, device, id, kind, lo, hi, at, healed, told) VALUES `+values(1, 9),
			l.tenant, l.device, b.id, b.kind, int64(b.lo), int64(b.hi), b.at, b.healed, told); err != nil {
			return err
		}
	}
	return nil
}

func readChain(ctx context.Context, db *store.DB, tenant, device string) (c chainRow, err error) {
	var head, checked int64
	err = db.QueryRow(ctx, `SELECT head, since, checked, checked_at, rev FROM telemetry_chain WHERE tenant = $1 AND device = $2`, tenant, device).
		Scan(&head, &c.since, &checked, &c.checkedAt, &c.rev)
	if errors.Is(err, store.ErrNoRows) {
		return chainRow{}, nil
	}
	c.head, c.checked = uint64(head), uint64(checked)
	return c, err
}

// readBreaks returns breaks of a chain, the newest first.
func readBreaks(ctx context.Context, db *store.DB, tenant, device string, limit int) ([]breakRow, error) {
	rows, err := db.Query(ctx, `SELECT id, kind, lo, hi, at, healed, told FROM telemetry_chain_break WHERE tenant = $1 AND device = $2
		ORDER BY at DESC, id DESC LIMIT $3`, tenant, device, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (b breakRow, err error) {
		var lo, hi, told int64
		err = r.Scan(&b.id, &b.kind, &lo, &hi, &b.at, &b.healed, &told)
		b.lo, b.hi, b.told = uint64(lo), uint64(hi), told != 0
		return b, err
	})
}

// maxVersions bounds the versions of links that are looked at together.
const maxVersions = 64

// readLinks returns the links with numbers in [lo, hi].
func readLinks(ctx context.Context, db *store.DB, tenant, device string, lo, hi uint64) ([]securityRow, error) {
	rows, err := db.Query(ctx, `SELECT `+securityColumns+` FROM telemetry_security WHERE tenant = $1 AND device = $2 AND seq >= $3 AND seq <= $4
		ORDER BY seq, id LIMIT $5`, tenant, device, int64(lo), int64(hi), maxVersions)
	return store.Collect(rows, err, scanSecurity)
}

// listLinks returns n links after the place given, the highest number first.
func listLinks(ctx context.Context, db *store.DB, tenant, device string, seq uint64, id string, n int) ([]securityRow, error) {
	rows, err := db.Query(ctx, `SELECT `+securityColumns+` FROM telemetry_security WHERE tenant = $1 AND device = $2
		AND (seq < $3 OR seq = $3 AND id < $4) ORDER BY seq DESC, id DESC LIMIT $5`, tenant, device, int64(seq), id, n)
	return store.Collect(rows, err, scanSecurity)
}
