// SPDX-License-Identifier: AGPL-3.0-only

package store_test

import (
	"database/sql"
	"net/url"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// S08: a database that says "kept" before it is, is refused at start with the rule and the way out, whether its own settings
// say so or the URL; and a session never has less than on.
func TestCommitTooEarlyIsRefused(t *testing.T) {
	base := storetest.PostgresURL(t)
	admin, err := sql.Open("pgx", base)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	run := func(q string) {
		t.Helper()
		if _, err := admin.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	schema := u.Query().Get("search_path")
	for setting, accepted := range map[string]bool{"on": true, "remote_apply": true, "remote_write": false, "local": false, "off": false} {
		role := schema + "_" + setting
		run(`CREATE ROLE "` + role + `" SUPERUSER LOGIN PASSWORD 'x'`)
		t.Cleanup(func() { admin.Exec(`DROP ROLE "` + role + `"`) })
		run(`ALTER ROLE "` + role + `" SET synchronous_commit = ` + setting)
		theirs := *u
		theirs.User = url.UserPassword(role, "x")
		ours := *u
		q := ours.Query()
		q.Set("synchronous_commit", setting)
		ours.RawQuery = q.Encode()
		for from, dsn := range map[string]string{"the role": theirs.String(), "the URL": ours.String()} {
			db, err := store.Open(t.Context(), store.Config{URL: dsn})
			if !accepted {
				if !problem.Is(err, problem.KindForbidden) || !strings.Contains(err.Error(), "store.synchronous-commit") || !strings.Contains(err.Error(), "= "+setting) {
					t.Errorf("%s of %s: %v", setting, from, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s of %s: %v", setting, from, err)
				continue
			}
			var has string
			if err := db.Write(t.Context(), func(tx *store.Tx) error { return tx.QueryRow(`SHOW synchronous_commit`).Scan(&has) }); err != nil {
				t.Error(err)
			}
			if want := map[string]string{"the role": "on", "the URL": setting}[from]; has != want {
				t.Errorf("%s of %s: the session has %s", setting, from, has)
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// Also a host that stands in the query, or behind another, is reached with TLS that is verified, or not at all.
func TestEveryHostNeedsTLS(t *testing.T) {
	for _, u := range []string{
		"postgres://u:planted@/db?host=192.0.2.7", "postgres://u:planted@127.0.0.1:1,192.0.2.7:5432/db?sslmode=disable",
		"postgres://u:planted@192.0.2.7/db", "postgres://u:planted@192.0.2.7/db?sslmode=prefer", "postgres://u:planted@192.0.2.7/db?sslmode=allow",
	} {
		_, err := store.Open(t.Context(), store.Config{URL: u})
		if err == nil || !strings.Contains(err.Error(), "verify-full") || !strings.Contains(err.Error(), "192.0.2.7") || strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: %v", u, err)
		}
	}
}
