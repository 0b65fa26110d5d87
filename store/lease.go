// SPDX-License-Identifier: AGPL-3.0-only

package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Lease is the right of one holder to do what only one may do. Epoch is the fencing token: it grows with every change
// of hands.
type Lease struct {
	Name, Holder string
	Epoch        int64
}

// ErrFenced is returned to a former holder whose lease has passed on.
var ErrFenced = errors.New("store: the lease has passed to another holder")

// TakeLease takes or renews a lease for ttl; false says that another holder has it.
func (db *DB) TakeLease(ctx context.Context, name, holder string, ttl time.Duration) (Lease, bool, error) {
	l, ok := Lease{Name: name, Holder: holder}, false
	err := db.Write(ctx, func(tx *Tx) error {
		now := db.clock.Now()
		if _, err := tx.Exec(`INSERT INTO lease(name, holder, epoch, until) VALUES ($1, '', 0, 0) ON CONFLICT (name) DO NOTHING`, name); err != nil {
			return err
		}
		err := tx.QueryRow(`UPDATE lease SET holder = $1, epoch = epoch + 1, until = $2 WHERE name = $3 AND (until < $4 OR holder = $1) RETURNING epoch`,
			holder, Millis(now.Add(ttl)), name, Millis(now)).Scan(&l.Epoch)
		ok = err == nil
		if errors.Is(err, ErrNoRows) {
			return nil
		}
		return err
	})
	if err != nil {
		return Lease{}, false, fmt.Errorf("store: lease %s: %w", name, err)
	}
	return l, ok, nil
}

// Fence renews l inside the holder's transaction and locks it until the end, or fails with ErrFenced. What a holder
// writes without it is not protected.
func (tx *Tx) Fence(l Lease, ttl time.Duration) error {
	n, err := tx.Exec(`UPDATE lease SET until = $1 WHERE name = $2 AND holder = $3 AND epoch = $4`, Millis(tx.db.clock.Now().Add(ttl)), l.Name, l.Holder, l.Epoch)
	if err != nil {
		return err
	}
	if n != 1 {
		return ErrFenced
	}
	return nil
}

// ReleaseLease lets the next holder take over at once.
func (db *DB) ReleaseLease(ctx context.Context, l Lease) error {
	return db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`UPDATE lease SET until = 0 WHERE name = $1 AND holder = $2 AND epoch = $3`, l.Name, l.Holder, l.Epoch)
		return err
	})
}
