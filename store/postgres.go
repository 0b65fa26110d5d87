// SPDX-License-Identifier: AGPL-3.0-only

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/openthings-platform/openthings/problem"
)

// How long the server keeps a transaction open whose process says nothing. A node that freezes, or whose machine goes
// away, holds its locks no longer than idleWrite, so the others wait that long at most; on waking its write fails and
// nothing of it exists. A View holds no lock, but keeps the server from cleaning up. Statements have no limit of time of
// their own: migrations and indexes take as long as they take, and a wait for a lock ends with the holder's transaction.
const (
	idleWrite = 10 * time.Second
	idleRead  = 5 * time.Minute
)

// commits is what synchronous_commit may be: COMMIT is answered when the server has flushed it and, where it names
// synchronous standbys, they have too. With off it is answered from memory; with local a failover loses what the standby
// had not received; with remote_write a standby has it in memory only.
var commits = []string{"on", "remote_apply"}

const commitMode = "on" // unless the URL asks for another of commits

// connectTimeout is how long one host may take to answer, unless the URL says otherwise: after a failover the next one is
// asked.
const connectTimeout = 5 * time.Second

func (db *DB) openPostgres(ctx context.Context, rawURL string) error {
	cfg, err := pgx.ParseConfig(rawURL)
	if err != nil {
		return errors.New("store: the database URL cannot be parsed") // the cause would print the password
	}
	hosts := append([]*pgconn.FallbackConfig{{Host: cfg.Host, TLSConfig: cfg.TLSConfig}}, cfg.Fallbacks...)
	for _, h := range hosts {
		if !loopback(h.Host) && (h.TLSConfig == nil || h.TLSConfig.InsecureSkipVerify) {
			return fmt.Errorf("store: the database at %s is beyond loopback and the URL does not say sslmode=verify-full", h.Host)
		}
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	if len(hosts) > 1 && cfg.ValidateConnect == nil {
		cfg.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	if err := db.checkServer(ctx, cfg); err != nil {
		return err
	}
	db.engine = Postgres
	db.write = openPool(cfg, idleWrite, func(c *pgx.ConnConfig) {
		c.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
			if n.SeverityUnlocalized == "WARNING" {
				db.warned.Store(&n.Message)
			}
		}
	})
	db.write.SetMaxOpenConns(1)
	db.read = openPool(cfg, idleRead, func(*pgx.ConnConfig) {})
	db.read.SetMaxOpenConns(16)
	db.read.SetMaxIdleConns(8)
	return nil
}

// openPool makes connections as cfg says, with our limit for idle transactions unless the operator has one of their own.
func openPool(cfg *pgx.ConnConfig, idle time.Duration, with func(*pgx.ConnConfig)) *sql.DB {
	c := cfg.Copy()
	// Both are read by the server at connect. A write is acknowledged only when it is flushed, whatever the server's default.
	for name, value := range map[string]string{
		"synchronous_commit":                  commitMode,
		"idle_in_transaction_session_timeout": strconv.FormatInt(idle.Milliseconds(), 10), // in milliseconds
	} {
		if c.RuntimeParams[name] == "" {
			c.RuntimeParams[name] = value
		}
	}
	with(c)
	return stdlib.OpenDB(*c)
}

// checkServer asks for the settings that the database gives to those who ask for nothing. Our own sessions ask, but a
// database that answers COMMIT too early loses what everybody else writes to it, and a URL may ask for too little.
func (db *DB) checkServer(ctx context.Context, cfg *pgx.ConnConfig) error {
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer c.Close(ctx)
	var commit, fsync, pages string
	if err := c.QueryRow(ctx, `SELECT current_setting('synchronous_commit'), current_setting('fsync'), current_setting('full_page_writes')`).Scan(&commit, &fsync, &pages); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if fsync != "on" || pages != "on" {
		db.log.Warn("this PostgreSQL is set up to lose what it acknowledged when its machine fails", slog.String("fsync", fsync), slog.String("full_page_writes", pages))
	}
	return checkCommit(commit)
}

// checkCommit refuses a setting under which an acknowledged write can be lost.
func checkCommit(setting string) error {
	if slices.Contains(commits, setting) {
		return nil
	}
	return problem.Forbidden("store.synchronous-commit", "The database has synchronous_commit = %s: it says that a write is kept before it is, and a failover or a power cut loses it.", setting).
		Hint("ALTER SYSTEM SET synchronous_commit = on; SELECT pg_reload_conf(); look into the settings of the role and the database too, and at synchronous_commit in the URL")
}

// checkSession makes sure that a new writing connection has the setting that it asked for: a pooler in between may have
// dropped it.
func checkSession(ctx context.Context, conn *sql.Conn) error {
	var commit string
	if err := conn.QueryRowContext(ctx, `SHOW synchronous_commit`).Scan(&commit); err != nil {
		return err
	}
	return checkCommit(commit)
}

func loopback(host string) bool {
	if host == "localhost" || strings.HasPrefix(host, "/") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// pgExec runs text without arguments, several statements if need be, and returns the last command tag.
func pgExec(driverConn any, text string) (string, error) {
	c, ok := driverConn.(*stdlib.Conn)
	if !ok {
		return "", fmt.Errorf("store: %T is not a PostgreSQL connection", driverConn)
	}
	res, err := c.Conn().PgConn().Exec(context.Background(), text).ReadAll()
	if err != nil || len(res) == 0 {
		return "", err
	}
	return res[len(res)-1].CommandTag.String(), nil
}
