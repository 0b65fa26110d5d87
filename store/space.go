// SPDX-License-Identifier: AGPL-3.0-only

package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Space is how many bytes the disk under an SQLite file holds, and how many of them are free for this process. ok is false
// on PostgreSQL, whose disk is another machine's and cannot be asked for.
func (db *DB) Space() (free, total int64, ok bool, err error) {
	if db.engine != SQLite {
		return 0, 0, false, nil
	}
	var s syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(db.path), &s); err != nil {
		return 0, 0, false, fmt.Errorf("store: the disk of %s: %w", db.path, err)
	}
	return int64(s.Bavail) * s.Bsize, int64(s.Blocks) * s.Bsize, true, nil
}

// IsFull reports whether err says that the disk is full. Nothing of the write that it ended is kept.
func IsFull(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code == "53100"
	}
	var lite *sqlite.Error
	return errors.As(err, &lite) && lite.Code()&0xff == sqlite3.SQLITE_FULL || errors.Is(err, syscall.ENOSPC)
}
