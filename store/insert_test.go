// SPDX-License-Identifier: AGPL-3.0-only

package store_test

import (
	"database/sql"
	"testing"

	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

func TestManyRowsAndLists(t *testing.T) {
	storetest.Each(t, thingSchema, func(t *testing.T, db *store.DB) {
		for _, n := range []int{0, 1, 7, 8, 9, 64, 65, 200} {
			rows := make([][]any, n)
			for i := range rows {
				rows[i] = []any{int64(n*1000 + i), []byte{byte(i)}}
			}
			for range 2 { // the second time nothing is new
				if err := db.Write(t.Context(), func(tx *store.Tx) error {
					return tx.InsertMany(`INSERT INTO thing(id, body)`, rows, `ON CONFLICT DO NOTHING`)
				}); err != nil {
					t.Fatal(err)
				}
			}
			var have int64
			if err := db.QueryRow(t.Context(), `SELECT count(*) FROM thing WHERE id BETWEEN $1 AND $2`, n*1000, n*1000+999).Scan(&have); err != nil || have != int64(n) {
				t.Errorf("%d rows of %d, %v", have, n, err)
			}
		}
		for n := 1; n < 9; n++ {
			list, args := store.In([]any{int64(7)}, []string{"64007", "64009", "64011", "64013", "64015", "64017", "64019", "64021"}[:n])
			rows, err := db.Query(t.Context(), `SELECT id FROM thing WHERE id > $1 AND CAST(id AS text) IN `+list, args...)
			got, err := store.Collect(rows, err, func(r *sql.Rows) (id int64, err error) { return id, r.Scan(&id) })
			if err != nil || len(got) != n {
				t.Errorf("a list of %d found %v, %v", n, got, err)
			}
		}
	})
}
