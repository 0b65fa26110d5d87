// SPDX-License-Identifier: AGPL-3.0-only

// Package storetest runs a store test on every engine: SQLite in a temporary folder and a real PostgreSQL that it
// starts itself on a free loopback port, unless OPENTHINGS_TEST_POSTGRES names one.
package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/testpeers"
)

// Each runs fn once per engine, on an empty database with the schema applied. Options may set the clock.
func Each(t *testing.T, schema []store.Migrations, fn func(t *testing.T, db *store.DB), opts ...func(*store.Config)) {
	t.Helper()
	EachURL(t, func(t *testing.T, url string) { fn(t, Open(t, url, schema, opts...)) })
}

// EachURL runs fn once per engine with the URL of an empty database, for tests that open it themselves.
func EachURL(t *testing.T, fn func(t *testing.T, url string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { fn(t, SQLiteURL(t)) })
	t.Run("postgres", func(t *testing.T) { fn(t, PostgresURL(t)) })
}

// Open opens url for the length of the test.
func Open(t testing.TB, url string, schema []store.Migrations, opts ...func(*store.Config)) *store.DB {
	t.Helper()
	cfg := store.Config{URL: url, Schema: schema}
	for _, o := range opts {
		o(&cfg)
	}
	if path, ok := strings.CutPrefix(url, "sqlite://"); ok {
		if err := beginMigrated(path, cfg.Schema); err != nil {
			t.Fatal(err)
		}
	}
	db, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// migrated are SQLite files with a schema and no rows, by the schema: to migrate every test's anew takes half of the time
// of most tests, and far more under the race detector.
var migrated struct {
	sync.Mutex
	files map[[sha256.Size]byte][]byte
}

// beginMigrated makes the file at path, unless there is one, with the schema applied: store.Open finds nothing left to do.
func beginMigrated(path string, schema []store.Migrations) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	sum := sha256.New()
	for _, m := range schema {
		fmt.Fprintf(sum, "stage %s\n", m.Stage)
		names, err := fs.Glob(m.FS, "migrations/*.sql")
		if err != nil {
			return err
		}
		slices.Sort(names)
		for _, name := range names {
			text, err := fs.ReadFile(m.FS, name)
			if err != nil {
				return err
			}
			fmt.Fprintf(sum, "%s %x\n", name, sha256.Sum256(text))
		}
	}
	key := [sha256.Size]byte(sum.Sum(nil))
	migrated.Lock()
	defer migrated.Unlock()
	file := migrated.files[key]
	if file == nil {
		dir, err := os.MkdirTemp("", "openthings-migrated-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		db, err := store.Open(context.Background(), store.Config{URL: "sqlite://" + filepath.Join(dir, "db"), Schema: schema})
		if err != nil {
			return err
		}
		if err := db.Close(); err != nil { // the last connection leaves one whole file
			return err
		}
		if file, err = os.ReadFile(filepath.Join(dir, "db")); err != nil {
			return err
		}
		if migrated.files == nil {
			migrated.files = map[[sha256.Size]byte][]byte{}
		}
		migrated.files[key] = file
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, file, 0o600)
}

// SQLiteURL names a file that does not exist yet.
func SQLiteURL(t testing.TB) string {
	return "sqlite://" + filepath.Join(t.TempDir(), "test.db")
}

// PostgresURL names an empty schema of a real PostgreSQL, dropped when the test ends.
func PostgresURL(t testing.TB) string {
	t.Helper()
	base, err := server()
	if err != nil {
		t.Fatalf("PostgreSQL is needed and could not be started: %v", err)
	}
	name := "t_" + strings.ToLower(rand.Text()[:20]) // search_path folds case
	admin, err := sql.Open("pgx", base)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Exec(`CREATE SCHEMA "` + name + `"`); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer admin.Close()
		if _, err := admin.Exec(`DROP SCHEMA "` + name + `" CASCADE`); err != nil {
			t.Errorf("drop schema: %v", err)
		}
	})
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("search_path", name)
	u.RawQuery = q.Encode()
	return u.String()
}

// server starts one PostgreSQL per test process.
var server = sync.OnceValues(func() (string, error) {
	if u := os.Getenv("OPENTHINGS_TEST_POSTGRES"); u != "" {
		return u, nil
	}
	u, _, err := StartPostgres()
	return u, err
})

// The wrapper owns the server: when its standard input ends, however the test process ended, it stops the server and
// removes its files.
const wrapper = `
set -e
cd /
"$1/initdb" -D "$2/data" -U openthings --pwfile="$2/password" --auth=scram-sha-256 -E UTF8 --locale=C >"$2/log" 2>&1
# fsync off: these tests kill processes, not machines, and the page cache survives that.
"$1/postgres" -D "$2/data" -p "$3" -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c max_connections=200 >>"$2/log" 2>&1 &
pid=$!
cat >/dev/null || true
kill -INT $pid
wait $pid || true
rm -rf "$2"
`

// StartPostgres starts a server of its own and returns its URL and what stops it. It needs Debian's postgresql.
func StartPostgres() (dbURL string, stop func(), err error) {
	bin, err := postgresBin()
	if err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("", "openthings-postgres-")
	if err != nil {
		return "", nil, err
	}
	password := rand.Text()
	if err := os.WriteFile(filepath.Join(dir, "password"), []byte(password), 0o600); err != nil {
		return "", nil, err
	}
	port, err := testpeers.FreePort()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.Command("/bin/sh", "-c", wrapper, "sh", bin, dir, strconv.Itoa(port))
	if os.Geteuid() == 0 { // PostgreSQL refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			return "", nil, err
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		for _, p := range []string{dir, filepath.Join(dir, "password")} {
			if err := os.Chown(p, uid, gid); err != nil {
				return "", nil, err
			}
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop = func() { stdin.Close(); <-ended }
	dbURL = fmt.Sprintf("postgres://openthings:%s@127.0.0.1:%d/postgres?sslmode=disable", password, port)
	for { // until it answers or the wrapper ends
		if answers(dbURL) {
			return dbURL, stop, nil
		}
		select {
		case err := <-ended:
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			return "", nil, fmt.Errorf("PostgreSQL did not start (%v): %s%s", err, stderr.String(), log)
		case <-time.NewTimer(10 * time.Millisecond).C:
		}
		if log, taken := portTaken(dir); taken {
			stop()
			return "", nil, fmt.Errorf("PostgreSQL did not start on port %d: %s", port, log)
		}
	}
}
