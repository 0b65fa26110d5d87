// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"database/sql"
	"errors"
	"math/big"
	"time"

	"github.com/openthings-platform/openthings/identity/status"
	"github.com/openthings-platform/openthings/store"
)

// trust is what the register knows about a certificate that others ask for. Revocation lists and OCSP both read it, so
// they cannot differ.
type trust struct {
	serial   string // hex
	phase    Phase
	revoked  time.Time
	state    State     // of the device; empty for a station
	since    time.Time // of that state
	barred   time.Time
	scope    Scope // of the bar
	notAfter time.Time
}

// standing says what third parties are told. A superseded certificate is good until it ends: its device is, and only our
// own doors insist on its successor. A suspended device's certificates are on hold.
func (t trust) standing() status.Standing {
	held := status.Standing{State: status.Revoked, At: t.revoked, Reason: status.Unspecified}
	switch {
	case !t.barred.IsZero() && (t.phase != PhaseRevoked || !t.revoked.Before(t.barred)):
		held.At, held.Reason = t.barred, status.PrivilegeWithdrawn
		if t.scope == ScopeAuthority {
			held.Reason = status.CACompromise
		}
	case t.phase == PhaseRevoked:
		if t.state.Barred() {
			held.Reason = status.CessationOfOperation
		}
	case t.state.Barred():
		held.At, held.Reason = t.since, status.CessationOfOperation
	case t.state == Suspended:
		held.At, held.Reason = t.since, status.CertificateHold
	default:
		return status.Standing{State: status.Good}
	}
	return held
}

const trustQuery = `SELECT c.serial, c.phase, c.revoked, coalesce(d.state, ''), coalesce(d.updated, 0), c.not_after,
	coalesce((SELECT b.at FROM bar b WHERE ` + barred + ` ORDER BY b.at LIMIT 1), 0), coalesce((SELECT b.scope FROM bar b WHERE ` + barred + ` ORDER BY b.at LIMIT 1), '')
	FROM certificate c LEFT JOIN device d ON d.id = c.subject AND d.tenant = c.tenant WHERE c.authority = $1 AND `

func scanTrust(r scanner) (t trust, err error) {
	var revoked, since, until, at int64
	err = r.Scan(&t.serial, &t.phase, &revoked, &t.state, &since, &until, &at, &t.scope)
	t.revoked, t.since, t.notAfter, t.barred = store.Time(revoked), store.Time(since), store.Time(until), store.Time(at)
	return t, err
}

// Standing says whether a certificate of the authority is good. What is not in the register is unknown.
func (s *Service) Standing(ctx context.Context, authority string, serial *big.Int) (status.Standing, error) {
	if serial.Sign() <= 0 {
		return status.Standing{}, nil
	}
	t, err := scanTrust(s.cfg.DB.QueryRow(ctx, trustQuery+`c.serial = $2`, authority, serial.Text(16)))
	if errors.Is(err, store.ErrNoRows) {
		return status.Standing{}, nil
	}
	if err != nil {
		return status.Standing{}, err
	}
	return t.standing(), nil
}

// shardTrust reads the whole of a shard.
func shardTrust(tx *store.Tx, authority string, shard int64) ([]trust, error) {
	rows, err := tx.Query(trustQuery+`c.shard = $2`, authority, shard)
	return store.Collect(rows, err, func(r *sql.Rows) (trust, error) { return scanTrust(r) })
}
