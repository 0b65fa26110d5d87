// SPDX-License-Identifier: AGPL-3.0-only

package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

//go:embed migrations/*.sql
var migrationsFS embed.FS

// Schema holds the store's own tables: jobs and leases. Open applies it before any stage's.
var Schema = Migrations{Stage: "store", FS: migrationsFS}

const migrationTable = `CREATE TABLE IF NOT EXISTS schema_migration(
	stage text NOT NULL, name text NOT NULL, checksum text NOT NULL, at bigint NOT NULL, PRIMARY KEY (stage, name))`

var blobType = regexp.MustCompile(`\bblob\b`)

// dialect turns the one SQL text into the engine's: "blob" becomes bytea on PostgreSQL, and lines that begin with
// "-- +pg " or "-- +sqlite " count on that engine only.
func (db *DB) dialect(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "-- +pg "); ok && db.engine == Postgres {
			line = rest
		} else if rest, ok := strings.CutPrefix(line, "-- +sqlite "); ok && db.engine == SQLite {
			line = rest
		}
		b.WriteString(line)
	}
	if db.engine == Postgres {
		return blobType.ReplaceAllString(b.String(), "bytea")
	}
	return b.String()
}

// migrate applies what is missing, each file in its own transaction. A file that was applied and has changed since is
// refused: migrations are append-only.
func (db *DB) migrate(ctx context.Context, schema []Migrations) error {
	conn, err := db.write.Conn(ctx)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer conn.Close()
	if db.engine == Postgres { // two processes may start at once
		if _, err := conn.ExecContext(ctx, `SELECT pg_advisory_lock(7305712381)`); err != nil {
			return fmt.Errorf("store: %w", err)
		}
		defer conn.ExecContext(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock(7305712381)`) //nolint:errcheck // the session ends anyway
	}
	if _, err := conn.ExecContext(ctx, migrationTable); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	for _, m := range schema {
		names, err := fs.Glob(m.FS, "migrations/*.sql")
		if err != nil {
			return fmt.Errorf("store: migrations of %s: %w", m.Stage, err)
		}
		slices.Sort(names)
		for _, name := range names {
			if err := db.migrateOne(ctx, conn, m, name); err != nil {
				return fmt.Errorf("store: %s of %s: %w", path.Base(name), m.Stage, err)
			}
		}
	}
	return nil
}

func (db *DB) migrateOne(ctx context.Context, conn *sql.Conn, m Migrations, name string) error {
	text, err := fs.ReadFile(m.FS, name)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	want := hex.EncodeToString(sum[:])
	var have string
	err = conn.QueryRowContext(ctx, `SELECT checksum FROM schema_migration WHERE stage = $1 AND name = $2`, m.Stage, path.Base(name)).Scan(&have)
	if err == nil {
		if have != want {
			return fmt.Errorf("it was applied with other content; migrations are append-only, add a new file instead")
		}
		return nil
	}
	if err != sql.ErrNoRows {
		return err
	}
	t, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer t.Rollback() //nolint:errcheck // after Commit it does nothing
	script := db.dialect(string(text))
	if db.engine == Postgres {
		err = conn.Raw(func(c any) error { _, err := pgExec(c, script); return err })
	} else {
		_, err = t.ExecContext(ctx, script)
	}
	if err != nil {
		return err
	}
	if _, err := t.ExecContext(ctx, `INSERT INTO schema_migration(stage, name, checksum, at) VALUES ($1, $2, $3, $4)`, m.Stage, path.Base(name), want, Millis(db.clock.Now())); err != nil {
		return err
	}
	return t.Commit()
}
