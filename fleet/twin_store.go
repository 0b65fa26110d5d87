// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"crypto/cipher"
	"database/sql"
	"errors"
	"fmt"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

var (
	errNoTwin = errors.New("fleet: the device's key was destroyed")
	errMoved  = errors.New("fleet: the twin was changed meanwhile")
)

// bindTwin is what a sealed document is bound to, besides the device's key.
func bindTwin(what, tenant, device string, version int64) []byte {
	return fmt.Appendf(nil, "twin.%s\x00%s\x00%s\x00%d", what, tenant, device, version)
}

// twinKey returns the device's key; with create it is made if there is none. nil without an error: it has none.
func (s *Service) twinKey(ctx context.Context, tenant, device string, create bool) (cipher.AEAD, error) {
	key, err := s.cfg.Keys.Subject(ctx, s.cfg.DB, tenant, device)
	if problem.Is(err, problem.KindNotFound) {
		if !create {
			return nil, nil
		}
		if err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.cfg.Keys.NewSubject(tx, tenant, device) }); err != nil {
			return nil, err
		}
		key, err = s.cfg.Keys.Subject(ctx, s.cfg.DB, tenant, device)
	}
	if errors.Is(err, seal.ErrDestroyed) {
		return nil, errNoTwin
	}
	return key, err
}

// openTwin reads a twin; there is an empty one for a device without a row, and for one whose data was erased.
func (s *Service) openTwin(ctx context.Context, tenant, device string) (twin, error) {
	empty := twin{device: device, tenant: tenant, desired: wire.Doc{}, reported: wire.Doc{}}
	key, err := s.twinKey(ctx, tenant, device, false)
	if errors.Is(err, errNoTwin) || err == nil && key == nil {
		return empty, nil
	}
	if err != nil {
		return empty, err
	}
	t, err := s.readTwin(ctx, key, tenant, device)
	if errors.Is(err, store.ErrNoRows) {
		return empty, nil
	}
	return t, err
}

func (s *Service) readTwin(ctx context.Context, key cipher.AEAD, tenant, device string) (twin, error) {
	t := twin{device: device, tenant: tenant}
	var desired, reported []byte
	err := s.cfg.DB.QueryRow(ctx, `SELECT rev, desired, desired_version, desired_at, desired_by, reported, reported_version, reported_at, boot, seq, applied, behind_since, failed, error
		FROM twin WHERE tenant = $1 AND device_id = $2`, tenant, device).
		Scan(&t.rev, &desired, &t.version, &t.desiredAt, &t.desiredBy, &reported, &t.told, &t.reportedAt, &t.boot, &t.seq, &t.applied, &t.behindSince, &t.failed, &t.error)
	if err != nil {
		return t, err
	}
	if t.desired, err = openDoc(key, desired, bindTwin("desired", tenant, device, t.version)); err != nil {
		return t, fmt.Errorf("fleet: desired state of %s: %w", device, err)
	}
	if t.reported, err = openDoc(key, reported, bindTwin("reported", tenant, device, t.told)); err != nil {
		return t, fmt.Errorf("fleet: reported state of %s: %w", device, err)
	}
	return t, nil
}

func openDoc(key cipher.AEAD, sealed, bind []byte) (wire.Doc, error) {
	b, err := key.Open(nil, nil, sealed, bind)
	if err != nil {
		return nil, err
	}
	return wire.ParseDoc(b)
}

// alterTwin changes a twin: fn on what was read, then also on what is written, in the same transaction, with the sealed
// document of the version. Sealing happens outside the transaction, so whoever finds that another was faster begins again.
func (s *Service) alterTwin(ctx context.Context, tenant, device string, fn func(*twin) (bool, error), also func(tx *store.Tx, t twin, doc []byte) error) (twin, error) {
	key, err := s.twinKey(ctx, tenant, device, true)
	if err != nil {
		return twin{}, err
	}
	for range twinAttempts {
		before, err := s.openTwin(ctx, tenant, device)
		if err != nil {
			return twin{}, err
		}
		t := before
		if changed, err := fn(&t); err != nil || !changed {
			return t, err
		}
		t.rev++
		desired := key.Seal(nil, nil, t.desired.Bytes(), bindTwin("desired", tenant, device, t.version))
		reported := key.Seal(nil, nil, t.reported.Bytes(), bindTwin("reported", tenant, device, t.told))
		var doc []byte
		if t.version != before.version {
			doc = key.Seal(nil, nil, t.desired.Bytes(), bindTwin("version", tenant, device, t.version))
		}
		err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			if err := putTwin(tx, t, desired, reported); err != nil {
				return err
			}
			return also(tx, t, doc)
		})
		if !errors.Is(err, errMoved) {
			return t, err
		}
	}
	return twin{}, problem.Unavailable("The state of this device is being changed by many at once.").Hint("Try again.")
}

// putTwin writes t over the row whose rev is one less, or makes the row.
func putTwin(tx *store.Tx, t twin, desired, reported []byte) error {
	args := []any{t.device, t.tenant, t.rev, desired, t.version, t.desiredAt, t.desiredBy, reported, t.told, t.reportedAt, t.boot, t.seq, t.applied, t.behindSince, t.failed, t.error}
	query := `UPDATE twin SET rev = $3, desired = $4, desired_version = $5, desired_at = $6, desired_by = $7, reported = $8, reported_version = $9, reported_at = $10,
		boot = $11, seq = $12, applied = $13, behind_since = $14, failed = $15, error = $16 WHERE device_id = $1 AND tenant = $2 AND rev = $3 - 1`
	if t.rev == 1 {
		query = `INSERT INTO twin(device_id, tenant, rev, desired, desired_version, desired_at, desired_by, reported, reported_version, reported_at, boot, seq, applied, behind_since, failed, error)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) ON CONFLICT (device_id) DO NOTHING`
	}
	n, err := tx.Exec(query, args...)
	if err == nil && n != 1 {
		err = errMoved
	}
	return err
}

// putVersion keeps what was desired, and forgets what is too old.
func putVersion(tx *store.Tx, t twin, doc []byte, actor, job string) error {
	if _, err := tx.Exec(`INSERT INTO twin_version(device_id, version, tenant, doc, actor, job, at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		t.device, t.version, t.tenant, doc, actor, job, t.desiredAt); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM twin_version WHERE device_id = $1 AND version <= $2`, t.device, t.version-twinVersions)
	return err
}

// twinVersion is one version of what was desired, opened.
type twinVersion struct {
	version, at int64
	actor, job  string
	doc         wire.Doc
}

// openVersions returns versions below before (0: all), the newest first.
func (s *Service) openVersions(ctx context.Context, tenant, device string, before int64, limit int) ([]twinVersion, error) {
	key, err := s.twinKey(ctx, tenant, device, false)
	if errors.Is(err, errNoTwin) || err == nil && key == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	rows, err := s.cfg.DB.Query(ctx, `SELECT version, doc, actor, job, at FROM twin_version WHERE tenant = $1 AND device_id = $2 AND ($3 = 0 OR version < $3) ORDER BY version DESC LIMIT $4`,
		tenant, device, before, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (v twinVersion, err error) {
		var doc []byte
		if err := r.Scan(&v.version, &doc, &v.actor, &v.job, &v.at); err != nil {
			return v, err
		}
		v.doc, err = openDoc(key, doc, bindTwin("version", tenant, device, v.version))
		return v, err
	})
}

func deleteTwin(tx *store.Tx, tenant, device string) error {
	for _, table := range []string{"twin", "twin_version"} {
		if _, err := tx.Exec(`DELETE FROM `+table+` WHERE tenant = $1 AND device_id = $2`, tenant, device); err != nil {
			return err
		}
	}
	return nil
}

// behind is a device that does not go by what is desired of it.
type behind struct {
	tenant, device  string
	version, since  int64
	applied, failed int64
	error           string
	asked           int64 // when the newest version was desired
}

const behindColumns = `tenant, device_id, desired_version, behind_since, applied, failed, error, desired_at`

func scanBehind(r *sql.Rows) (b behind, err error) {
	return b, r.Scan(&b.tenant, &b.device, &b.version, &b.since, &b.applied, &b.failed, &b.error, &b.asked)
}

// behindIn returns devices of the tenant that are behind, in the order of their ids.
func behindIn(ctx context.Context, db *store.DB, tenant, after string, limit int) ([]behind, error) {
	rows, err := db.Query(ctx, `SELECT `+behindColumns+` FROM twin WHERE tenant = $1 AND behind_since > 0 AND device_id > $2 ORDER BY device_id LIMIT $3`, tenant, after, limit)
	return store.Collect(rows, err, scanBehind)
}

// behindSince returns devices of all tenants of which something was desired since a time, the oldest change first.
func behindSince(ctx context.Context, db *store.DB, since int64, limit int) ([]behind, error) {
	rows, err := db.Query(ctx, `SELECT `+behindColumns+` FROM twin WHERE behind_since > 0 AND desired_at >= $1 ORDER BY desired_at LIMIT $2`, since, limit)
	return store.Collect(rows, err, scanBehind)
}

// behindOne returns the row of a device of any tenant if it is behind.
func behindOne(ctx context.Context, db *store.DB, device string) (b behind, is bool, err error) {
	rows, err := db.Query(ctx, `SELECT `+behindColumns+` FROM twin WHERE behind_since > 0 AND device_id = $1`, device)
	found, err := store.Collect(rows, err, scanBehind)
	if err != nil || len(found) == 0 {
		return b, false, err
	}
	return found[0], true, nil
}
