// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"context"
	"embed"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/blob"
	"github.com/openthings-platform/openthings/store/storetest"
)

//go:embed migrations/0001_sbom.sql
var firstMigration embed.FS

// TestOldRowsAreMovedAndReadAgain opens what the first version left behind: what it matched is matched at once under the
// same ids, and what it could not read is read from the kept original.
func TestOldRowsAreMovedAndReadAgain(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		const doc = `{"bomFormat":"CycloneDX","specVersion":"1.6","components":[
			{"type":"library","name":"new","version":"1","purl":"pkg:npm/new@1","supplier":{"name":"ACME"}},
			{"type":"library","name":"curl","version":"8.4.0","cpe":"cpe:2.3:a:haxx:curl:8.4.0:*:*:*:*:*:*:*"}]}`
		ctx := t.Context()
		blobs, err := blob.NewDir(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		npm := componentID(Component{Identities: []Identity{{"npm", "new", "1", ""}}})
		old := storetest.Open(t, url, []store.Migrations{audit.Schema, {Stage: "sbom", FS: firstMigration}})
		kept, err := New(Config{DB: old, Blobs: blobs}).Keep(ctx, []byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		at := store.Millis(begin)
		if err := old.Write(ctx, func(tx *store.Tx) error {
			for _, q := range []struct {
				sql  string
				args []any
			}{
				{`INSERT INTO sbom (id, tenant, release_id, format, spec_version, digest, sha512, size, name, version, quality, at)
					VALUES ('bom_1', 'ten_a', 'rel_1', 'CycloneDX', '1.6', $1, $2, $3, '', '', '{}', $4)`, []any{kept.Blob, kept.SHA512, kept.Size, at}},
				{`INSERT INTO component (id, ecosystem, name_key, version) VALUES ($1, 'npm', 'new', '1'), ('cmp_curl', '', 'curl', '8.4.0')`, []any{npm}},
				{`INSERT INTO release_component (release_id, component_id, tenant, ecosystem, name, version, purl, cpe, kind)
					VALUES ('rel_1', $1, 'ten_a', 'npm', 'new', '1', 'pkg:npm/new@1', '', 'library'), ('rel_1', 'cmp_curl', 'ten_a', '', 'curl', '8.4.0', '', '', 'library')`, []any{npm}},
			} {
				if _, err := tx.Exec(q.sql, q.args...); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := old.Close(); err != nil {
			t.Fatal(err)
		}

		hand := clock.NewHand(begin.Add(time.Hour))
		db := storetest.Open(t, url, []store.Migrations{audit.Schema, Schema}, func(c *store.Config) { c.Clock = hand })
		s := New(Config{DB: db, Blobs: blobs, Clock: hand})
		keys := func() (list []Key) {
			t.Helper()
			if err := db.View(ctx, func(tx *store.Tx) (err error) {
				list, err = s.Keys(tx, "ten_a", "rel_1")
				return err
			}); err != nil {
				t.Fatal(err)
			}
			return list
		}
		if got := keys(); len(got) != 1 || got[0].Component != npm || got[0].Name != "new" {
			t.Fatalf("after the migration %+v", got)
		}
		work, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- s.Work(work) }()
		for read := int64(0); read == 0; {
			if _, err := db.RunDue(ctx); err != nil {
				t.Fatal(err)
			}
			if err := db.QueryRow(ctx, `SELECT count(*) FROM sbom WHERE reader = $1`, Reader).Scan(&read); err != nil {
				t.Fatal(err)
			}
		}
		if got := keys(); len(got) != 3 { // curl's CPE name and its product
			t.Fatalf("read again: %+v", got)
		}
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		parts, err := s.Components(ctx, "ten_a", "rel_1", "", 10)
		if err != nil || len(parts) != 2 || parts[1].Supplier != "ACME" || parts[1].Component != npm {
			t.Fatalf("parts %+v, %v", parts, err)
		}
		rec, err := s.Current(ctx, "ten_a", "rel_1")
		if err != nil || len(rec.Quality.Facts) == 0 || rec.Quality.Matchable != 2 {
			t.Fatalf("quality %+v, %v", rec.Quality, err)
		}
		if err := db.View(ctx, func(tx *store.Tx) error {
			uses, err := s.Uses(tx, "ten_a", []string{npm}, -1)
			if err != nil || len(uses) != 1 || uses[0] != (Use{npm, "rel_1", at, forever}) {
				t.Errorf("uses %+v, %v; it was listed since the document came", uses, err)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	})
}
