// SPDX-License-Identifier: AGPL-3.0-only

package identity_test

import (
	"context"
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// Devices that were made before a filter could ask for their order are found by it after the upgrade, in the same letters
// as those made later.
func TestOldDevicesAreFoundByTheirMaking(t *testing.T) {
	const upgrade = "migrations/0012_making.sql"
	before := fstest.MapFS{}
	entries, err := fs.ReadDir(identity.Schema.FS, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := "migrations/" + e.Name(); name < upgrade {
			text, err := fs.ReadFile(identity.Schema.FS, name)
			if err != nil {
				t.Fatal(err)
			}
			before[name] = &fstest.MapFile{Data: text}
		}
	}
	storetest.EachURL(t, func(t *testing.T, url string) {
		ctx := context.Background()
		old, err := store.Open(ctx, store.Config{URL: url, Schema: []store.Migrations{{Stage: "identity", FS: before}}})
		if err != nil {
			t.Fatal(err)
		}
		made := map[string]string{"dev_1": `{"station":"sta_1","order":"PO-77 Ä","line":"L1","part":"4711\u003cA\u003e","time":1}`, "dev_2": `{"station":"sta_1"}`, "dev_3": "", "dev_4": "not JSON"}
		err = old.Write(ctx, func(tx *store.Tx) error {
			for id, m := range made {
				if _, err := tx.Exec(`INSERT INTO device(id, tenant, product, revision, batch, serial, solution, state, reason, resume, firmware, created, updated, made)
					VALUES ($1, 'ten', 'prd', '', '', $1, '', 'provisioned', '', '', '', 1, 1, $2)`, id, m); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := old.Close(); err != nil {
			t.Fatal(err)
		}
		db := storetest.Open(t, url, []store.Migrations{identity.Schema})
		for id, want := range map[string][3]string{"dev_1": {"PO-77 Ä", "L1", "4711<A>"}, "dev_2": {}, "dev_3": {}, "dev_4": {}} {
			var got [3]string
			if err := db.QueryRow(ctx, `SELECT made_order, made_line, made_part FROM device WHERE id = $1`, id).Scan(&got[0], &got[1], &got[2]); err != nil {
				t.Fatal(err)
			}
			for i := range want {
				if got[i] != identity.FoldMade(want[i]) {
					t.Errorf("%s: %q, want %q", id, got, want)
				}
			}
		}
	})
}
