// SPDX-License-Identifier: AGPL-3.0-only

package seal

import (
	"context"
	"crypto/cipher"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// NewSubject makes the key that seals what is kept about a subject (a device). A subject that has one keeps it; one
// whose key was destroyed never gets another.
func (k *Keys) NewSubject(tx *store.Tx, tenant, subject string) error {
	now := k.clock.Now()
	w := wrapped{realm: tenant, name: subject, epoch: epochAt(now)}
	a, err := k.epoch(epochID{tenant, w.epoch}, true)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO seal_subject(tenant, subject, epoch, wrapped, created, destroyed) VALUES ($1, $2, $3, $4, $5, 0)
		ON CONFLICT (tenant, subject) DO NOTHING`, tenant, subject, w.epoch, wrap(a, w.purpose(), newKey()), store.Millis(now))
	if err != nil {
		return fmt.Errorf("seal: subject %s: %w", subject, err)
	}
	return nil
}

// Subject returns the cipher of a subject: ErrDestroyed after its destruction, a not-found problem if it never had one.
// It makes its own nonces: Seal(dst, nil, plain, aad).
func (k *Keys) Subject(ctx context.Context, db *store.DB, tenant, subject string) (cipher.AEAD, error) {
	return k.subject(func(q string, args ...any) *sql.Row { return db.QueryRow(ctx, q, args...) }, tenant, subject)
}

// SubjectTx is Subject inside a transaction, which sees a key that was made in it. It is for what is short: whoever seals
// much does it before its transaction.
func (k *Keys) SubjectTx(tx *store.Tx, tenant, subject string) (cipher.AEAD, error) {
	return k.subject(tx.QueryRow, tenant, subject)
}

func (k *Keys) subject(queryRow func(string, ...any) *sql.Row, tenant, subject string) (cipher.AEAD, error) {
	w := wrapped{realm: tenant, name: subject}
	var destroyed int64
	err := queryRow(`SELECT epoch, wrapped, destroyed FROM seal_subject WHERE tenant = $1 AND subject = $2`, tenant, subject).
		Scan(&w.epoch, &w.bytes, &destroyed)
	switch {
	case errors.Is(err, store.ErrNoRows):
		return nil, problem.NotFound("%s has no key.", subject)
	case err != nil:
		return nil, fmt.Errorf("seal: subject %s: %w", subject, err)
	case destroyed > 0:
		return nil, fmt.Errorf("%w: %s", ErrDestroyed, subject)
	}
	return k.open(w)
}

// open unwraps one row.
func (k *Keys) open(w wrapped) (cipher.AEAD, error) {
	a, err := k.epoch(epochID{w.realm, w.epoch}, false)
	if err != nil {
		return nil, err
	}
	key, err := unwrap(a, w.purpose(), w.bytes)
	if err != nil {
		return nil, err
	}
	return newAEAD(key)
}

// DestroySubject destroys a subject's key for ever; the row stays as its tombstone. Doing it twice changes nothing.
func (k *Keys) DestroySubject(tx *store.Tx, tenant, subject string) error {
	now := k.clock.Now()
	_, err := tx.Exec(`INSERT INTO seal_subject(tenant, subject, epoch, wrapped, created, destroyed) VALUES ($1, $2, $3, $4, $5, $5)
		ON CONFLICT (tenant, subject) DO UPDATE SET wrapped = excluded.wrapped,
			destroyed = CASE WHEN seal_subject.destroyed = 0 THEN excluded.destroyed ELSE seal_subject.destroyed END`,
		tenant, subject, epochAt(now), []byte{}, store.Millis(now))
	if err != nil {
		return fmt.Errorf("seal: destroy %s: %w", subject, err)
	}
	return nil
}

// Destroyed says whether a subject's key was destroyed, and when.
func (k *Keys) Destroyed(ctx context.Context, db *store.DB, tenant, subject string) (at time.Time, ok bool, err error) {
	var ms int64
	err = db.QueryRow(ctx, `SELECT destroyed FROM seal_subject WHERE tenant = $1 AND subject = $2`, tenant, subject).Scan(&ms)
	if errors.Is(err, store.ErrNoRows) {
		return time.Time{}, false, nil
	}
	if err != nil {
		return time.Time{}, false, fmt.Errorf("seal: subject %s: %w", subject, err)
	}
	return store.Time(ms), ms > 0, nil
}
