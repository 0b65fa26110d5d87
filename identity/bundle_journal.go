// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// bundleJournal is the append-only file bundles.jsonl beside the revocation journal: the published trust bundles whole, one
// a line in the order of their versions. Devices go by a bundle from the moment it is published, so a restored database must
// not publish another one under the same version: who followed the first would acknowledge the second by its number.
type bundleJournal struct {
	mu   sync.Mutex // guards the file and kept
	path string     // empty: no journal
	kept int64      // newest version of the database when both were last compared
}

// keepBundles gives the database the bundles that it lost with a restore, and the file those that it does not have yet:
// what another node published, or what was cut off between commit and append. The usual case costs one question.
func (s *Service) keepBundles(ctx context.Context) error {
	j := &s.bundles
	if j.path == "" {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	var newest int64
	if err := s.cfg.DB.QueryRow(ctx, `SELECT coalesce(max(version), 0) FROM trust_bundle`).Scan(&newest); err != nil {
		return err
	}
	if newest == j.kept && newest > 0 {
		return nil
	}
	lines, err := j.read()
	if err != nil {
		return fmt.Errorf("identity: %s: %w", j.path, err)
	}
	for _, raw := range lines {
		if err := s.restoreBundle(ctx, raw); errors.Is(err, errOtherBundle) {
			s.cfg.Log.Error("the trust bundles of the journal and of the database go different ways; devices that go by one of the journal acknowledge the database's by its number until the next version is out",
				slog.String("journal", j.path), slog.Any("error", err))
			break
		} else if err != nil {
			return err
		}
	}
	rows, err := s.cfg.DB.Query(ctx, `SELECT version, bytes FROM trust_bundle WHERE version > $1 ORDER BY version`, int64(len(lines)))
	var more []byte
	var version int64
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var raw []byte
		err := r.Scan(&version, &raw)
		more = append(append(more, raw...), '\n')
		return struct{}{}, err
	})
	if err == nil && len(more) > 0 {
		err = j.append(more)
	}
	if err != nil {
		return fmt.Errorf("identity: trust bundles are not in their journal %s: %w", j.path, err)
	}
	return s.cfg.DB.QueryRow(ctx, `SELECT coalesce(max(version), 0) FROM trust_bundle`).Scan(&j.kept)
}

// errOtherBundle is a line of the journal that does not fit the database.
var errOtherBundle = errors.New("identity: another trust bundle")

// restoreBundle publishes again what the journal has and the database has not, under the rules of any other one: an anchor of
// the version before signed it. Roots that the restored register does not know are no reason to refuse it, since devices
// trust them by now; the next bundle leaves them out, or they are installed again.
func (s *Service) restoreBundle(ctx context.Context, raw []byte) error {
	signed, err := wire.ParseSignedBundle(raw)
	if err != nil {
		return fmt.Errorf("%w: %w", errOtherBundle, err)
	}
	b, err := wire.ParseBundle(signed.Bundle)
	if err != nil {
		return fmt.Errorf("%w: %w", errOtherBundle, err)
	}
	switch _, have, err := s.Bundle(ctx, b.Version); {
	case err == nil && !bytes.Equal(have, raw):
		return fmt.Errorf("%w: version %d is %s here and %s there", errOtherBundle, b.Version, wire.Digest(have), wire.Digest(raw))
	case err == nil:
		return nil
	case !problem.Is(err, problem.KindNotFound):
		return err
	}
	before, _, err := s.Bundle(ctx, 0)
	switch {
	case err == nil:
		_, err = signed.Verify(before)
	case problem.Is(err, problem.KindNotFound): // the first one must be about the authorities that are here
		if _, err = signed.Pin(); err == nil {
			err = s.covers(ctx, b)
		}
	default:
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errOtherBundle, err)
	}
	s.cfg.Log.Warn("a trust bundle that the database had lost is published again", slog.Int64("version", b.Version))
	if err := s.putBundle(ctx, b, raw, "system", "bundle.restored"); !problem.Is(err, problem.KindConflict) { // another node was faster
		return err
	}
	return nil
}

// read returns the whole lines of the file, which are the versions from 1 on, and cuts off one that a crash tore: its row is
// in the database.
func (j *bundleJournal) read() (lines [][]byte, err error) {
	b, err := os.ReadFile(j.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	whole := bytes.LastIndexByte(b, '\n') + 1
	if whole < len(b) {
		if err := os.Truncate(j.path, int64(whole)); err != nil {
			return nil, err
		}
	}
	for line := range bytes.Lines(b[:whole]) {
		lines = append(lines, bytes.TrimSuffix(line, []byte("\n")))
		var v struct {
			Bundle wire.Bundle `json:"bundle"`
		}
		if err := json.Unmarshal(line, &v); err != nil || v.Bundle.Version != int64(len(lines)) {
			return nil, errors.Join(fmt.Errorf("line %d is not trust bundle %d; put back a copy of the file, or move it away: it is made anew from the database", len(lines), len(lines)), err)
		}
	}
	return lines, nil
}

// append writes lines and syncs, the folder too when the file is new; all of them, or none.
func (j *bundleJournal) append(lines []byte) error {
	_, err := os.Stat(j.path)
	fresh := errors.Is(err, os.ErrNotExist)
	f, err := os.OpenFile(j.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		if _, err = f.Write(lines); err == nil {
			err = f.Sync()
		}
		if err != nil {
			err = errors.Join(err, f.Truncate(end))
		}
	}
	if err = errors.Join(err, f.Close()); err != nil || !fresh {
		return err
	}
	d, err := os.Open(filepath.Dir(j.path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// putBundle writes a checked bundle as the newest one.
func (s *Service) putBundle(ctx context.Context, b wire.Bundle, raw []byte, actor, kind string) error {
	now := s.cfg.Clock.Now()
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		n, err := tx.Exec(`INSERT INTO trust_bundle(version, bytes, created) VALUES ($1, $2, $3) ON CONFLICT (version) DO NOTHING`, b.Version, raw, store.Millis(now))
		if err != nil {
			return err
		}
		if n == 0 {
			return problem.Conflict("Version %d of the trust bundle exists already.", b.Version)
		}
		data := map[string]any{"digest": wire.Digest(raw), "roots": len(b.Roots), "anchors": len(b.Anchors), "bridges": len(b.Bridges)}
		if err := audit.Append(tx, audit.Entry{Actor: actor, Kind: kind, Subject: fmt.Sprintf("bundle-%d", b.Version), Data: data}); err != nil {
			return err
		}
		return s.cfg.DB.Emit(tx, "bundle.published", "", fmt.Sprintf("bundle-%d", b.Version), data)
	})
}
