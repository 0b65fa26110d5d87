// SPDX-License-Identifier: AGPL-3.0-only

package seal

import (
	"context"
	"crypto/cipher"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/store"
)

// Epoch is how long an epoch key wraps new keys. Epochs are counted from 1970, the same for all tenants.
const Epoch = 30 * 24 * time.Hour

// hoursRealm is the realm of the hour keys, which belong to no single tenant.
const hoursRealm = "_hours"

// epochID names an epoch key: its realm (a tenant, or hoursRealm) and number.
type epochID struct {
	realm string
	n     int64
}

var realmName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,80}$`)

func epochAt(t time.Time) int64 { return t.UnixMilli() / Epoch.Milliseconds() }

// Horizon is when a key destroyed at t has become unreadable in every backup, provided that Rotate ran by then: the
// end of the epoch after t's. It is the date that an erasure certificate names.
func Horizon(t time.Time) time.Time {
	return time.UnixMilli((epochAt(t) + 2) * Epoch.Milliseconds()).UTC()
}

func (k *Keys) epochPath(id epochID) string {
	return filepath.Join(k.dir, "epochs", id.realm, strconv.FormatInt(id.n, 10)+".key")
}

func (id epochID) purpose() string { return fmt.Sprintf("seal.epoch/%s/%d", id.realm, id.n) }

// epoch returns an epoch key; with create it makes the key if there is none. A missing one is ErrDestroyed.
func (k *Keys) epoch(id epochID, create bool) (cipher.AEAD, error) {
	if !realmName.MatchString(id.realm) {
		return nil, fmt.Errorf("seal: %q is no tenant id", id.realm)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if a := k.epochs[id]; a != nil {
		return a, nil
	}
	path := k.epochPath(id)
	sealed, err := readSecret(path)
	if errors.Is(err, os.ErrNotExist) {
		if !create {
			return nil, fmt.Errorf("%w: epoch %d of %s", ErrDestroyed, id.n, id.realm)
		}
		if err := makeDir(filepath.Dir(path)); err != nil {
			return nil, err
		}
		err = writeOnce(path, wrap(k.platform, id.purpose(), newKey()))
		if err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		sealed, err = readSecret(path) // also when another process was faster
	}
	if err != nil {
		return nil, err
	}
	key, err := unwrap(k.platform, id.purpose(), sealed)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	a, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	k.epochs[id] = a
	return a, nil
}

// Rotate moves every living key to the current epoch and destroys epoch keys that ended a whole epoch ago. It is
// idempotent; run it daily, with every handle that has Schema. If anything fails, no epoch key is destroyed.
func (k *Keys) Rotate(ctx context.Context, dbs ...*store.DB) error {
	current := epochAt(k.clock.Now())
	for _, db := range dbs {
		if err := k.rewrap(ctx, db, current); err != nil {
			return err
		}
	}
	ended, err := k.ended(current)
	if err != nil {
		return err
	}
	for _, id := range ended {
		for _, db := range dbs {
			if err := unused(ctx, db, id); err != nil {
				return err
			}
		}
		if err := shred(k.epochPath(id)); err != nil && !errors.Is(err, os.ErrNotExist) { // another process was faster
			return err
		}
		k.mu.Lock()
		delete(k.epochs, id)
		k.mu.Unlock()
	}
	return nil
}

// wrapped is one row of either table.
type wrapped struct {
	realm, name string // name: subject, or id of the hour
	epoch       int64
	bytes       []byte
}

func (w wrapped) purpose() string {
	if w.realm == hoursRealm {
		return "seal.hour/" + w.name
	}
	return "seal.subject/" + w.realm + "/" + w.name // a realm has no slash
}

// rewrapBatch keeps a bulk write well below 1,000 rows.
const rewrapBatch = 500

func (k *Keys) rewrap(ctx context.Context, db *store.DB, current int64) error {
	for {
		rows, err := db.Query(ctx, `SELECT tenant, subject, epoch, wrapped FROM seal_subject WHERE destroyed = 0 AND epoch < $1
			UNION ALL SELECT $2, id, epoch, wrapped FROM seal_hour WHERE epoch < $1 LIMIT $3`, current, hoursRealm, rewrapBatch)
		old, err := store.Collect(rows, err, func(r *sql.Rows) (w wrapped, err error) {
			return w, r.Scan(&w.realm, &w.name, &w.epoch, &w.bytes)
		})
		if err != nil {
			return fmt.Errorf("seal: rotate: %w", err)
		}
		if len(old) == 0 {
			return nil
		}
		fresh := make([][]byte, len(old))
		for i, w := range old {
			if fresh[i], err = k.rewrapOne(w, current); err != nil {
				return fmt.Errorf("seal: rotate %s of %s: %w", w.name, w.realm, err)
			}
		}
		err = db.WriteBulk(ctx, func(tx *store.Tx) error {
			for i, w := range old {
				var err error
				if w.realm == hoursRealm {
					_, err = tx.Exec(`UPDATE seal_hour SET epoch = $1, wrapped = $2 WHERE id = $3 AND epoch = $4`, current, fresh[i], w.name, w.epoch)
				} else {
					_, err = tx.Exec(`UPDATE seal_subject SET epoch = $1, wrapped = $2 WHERE tenant = $3 AND subject = $4 AND epoch = $5 AND destroyed = 0`,
						current, fresh[i], w.realm, w.name, w.epoch)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("seal: rotate: %w", err)
		}
	}
}

func (k *Keys) rewrapOne(w wrapped, current int64) ([]byte, error) {
	from, err := k.epoch(epochID{w.realm, w.epoch}, false)
	if err != nil {
		return nil, err
	}
	key, err := unwrap(from, w.purpose(), w.bytes)
	if err != nil {
		return nil, err
	}
	to, err := k.epoch(epochID{w.realm, current}, true)
	if err != nil {
		return nil, err
	}
	return wrap(to, w.purpose(), key), nil
}

// ended lists the epoch keys to destroy: those that ended at least one epoch before the current one began.
func (k *Keys) ended(current int64) ([]epochID, error) {
	paths, err := filepath.Glob(filepath.Join(k.dir, "epochs", "*", "*.key"))
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	var out []epochID
	for _, p := range paths {
		n, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(p), ".key"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("seal: %s is not an epoch key", p)
		}
		if n <= current-2 {
			out = append(out, epochID{filepath.Base(filepath.Dir(p)), n})
		}
	}
	return out, nil
}

// unused makes sure that nothing alive depends on an epoch key about to be destroyed.
func unused(ctx context.Context, db *store.DB, id epochID) error {
	var n int64
	err := db.QueryRow(ctx, `SELECT (SELECT count(*) FROM seal_subject WHERE destroyed = 0 AND epoch = $1 AND tenant = $2)
		+ (SELECT count(*) FROM seal_hour WHERE epoch = $1 AND $2 = $3)`, id.n, id.realm, hoursRealm).Scan(&n)
	if err != nil {
		return fmt.Errorf("seal: rotate: %w", err)
	}
	if n > 0 {
		return fmt.Errorf("seal: rotate: %d living keys still depend on epoch %d of %s", n, id.n, id.realm)
	}
	return nil
}

// rotateEvery is how often Work looks; keys move at most once per Epoch.
const rotateEvery = 24 * time.Hour

// Work rotates at the start and daily, until ctx ends. Erasures reach backups only while it runs.
func (k *Keys) Work(ctx context.Context, log *slog.Logger, dbs ...*store.DB) error {
	for {
		if err := k.Rotate(ctx, dbs...); err != nil && ctx.Err() == nil {
			log.ErrorContext(ctx, "epoch keys cannot be rotated; erased data stays readable in old backups", slog.Any("error", err))
		}
		t := k.clock.NewTimer(rotateEvery)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
	}
}
