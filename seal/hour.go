// SPDX-License-Identifier: AGPL-3.0-only

package seal

import (
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"time"

	"github.com/openthings-platform/openthings/store"
)

// Hour returns the inbox key of the hour in which at lies, made at first use, and the id to keep beside what it seals.
// It makes its own nonces: Seal(dst, nil, plain, aad).
func (k *Keys) Hour(ctx context.Context, db *store.DB, at time.Time) (id string, a cipher.AEAD, err error) {
	hour := store.Millis(at.Truncate(time.Hour))
	err = db.QueryRow(ctx, `SELECT id FROM seal_hour WHERE hour = $1`, hour).Scan(&id)
	if errors.Is(err, store.ErrNoRows) {
		w := wrapped{realm: hoursRealm, name: store.NewID("hour"), epoch: epochAt(k.clock.Now())}
		wrapper, err := k.epoch(epochID{hoursRealm, w.epoch}, true)
		if err != nil {
			return "", nil, err
		}
		w.bytes = wrap(wrapper, w.purpose(), newKey())
		err = db.Write(ctx, func(tx *store.Tx) error {
			if _, err := tx.Exec(`INSERT INTO seal_hour(id, hour, epoch, wrapped) VALUES ($1, $2, $3, $4) ON CONFLICT (hour) DO NOTHING`,
				w.name, hour, w.epoch, w.bytes); err != nil {
				return err
			}
			return tx.QueryRow(`SELECT id FROM seal_hour WHERE hour = $1`, hour).Scan(&id)
		})
		if err != nil {
			return "", nil, fmt.Errorf("seal: hour key: %w", err)
		}
	} else if err != nil {
		return "", nil, fmt.Errorf("seal: hour key: %w", err)
	}
	a, err = k.HourByID(ctx, db, id)
	return id, a, err
}

// HourByID returns the hour key that Hour named, or ErrDestroyed.
func (k *Keys) HourByID(ctx context.Context, db *store.DB, id string) (cipher.AEAD, error) {
	w := wrapped{realm: hoursRealm, name: id}
	err := db.QueryRow(ctx, `SELECT epoch, wrapped FROM seal_hour WHERE id = $1`, id).Scan(&w.epoch, &w.bytes)
	if errors.Is(err, store.ErrNoRows) {
		return nil, fmt.Errorf("%w: %s", ErrDestroyed, id)
	}
	if err != nil {
		return nil, fmt.Errorf("seal: hour key: %w", err)
	}
	k.mu.Lock()
	a := k.hours[id]
	k.mu.Unlock()
	if a != nil {
		return a, nil
	}
	if a, err = k.open(w); err != nil {
		return nil, err
	}
	k.mu.Lock()
	k.hours[id] = a
	k.mu.Unlock()
	return a, nil
}

// DestroyHours destroys the keys of all hours that ended by before. Call it only for hours whose inbox is compacted.
func (k *Keys) DestroyHours(tx *store.Tx, before time.Time) error {
	if _, err := tx.Exec(`DELETE FROM seal_hour WHERE hour <= $1`, store.Millis(before.Add(-time.Hour))); err != nil {
		return fmt.Errorf("seal: destroy hour keys: %w", err)
	}
	tx.After(func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		clear(k.hours)
	})
	return nil
}
