// SPDX-License-Identifier: AGPL-3.0-only

package store_test

import (
	"testing"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// TestTextThatCannotBeKept is refused the same on both engines, in every way to pass it, and harms nobody in the same
// transaction.
func TestTextThatCannotBeKept(t *testing.T) {
	type name string
	storetest.Each(t, nil, func(t *testing.T, db *store.DB) {
		const one = `SELECT count(*) FROM lease WHERE name = $1`
		for _, bad := range []any{"a\x00b", "\xff", name("a\x00b"), name("\xc0\x80")} {
			var n int
			if err := db.QueryRow(t.Context(), one, bad).Scan(&n); !problem.Is(err, problem.KindInvalid) {
				t.Errorf("QueryRow %q: %v", bad, err)
			}
			if _, err := db.Query(t.Context(), one, bad); !problem.Is(err, problem.KindInvalid) {
				t.Errorf("Query %q: %v", bad, err)
			}
			err := db.Write(t.Context(), func(tx *store.Tx) error {
				if _, err := tx.Exec(`UPDATE lease SET until = 1 WHERE name = $1`, bad); !problem.Is(err, problem.KindInvalid) {
					t.Errorf("Exec %q: %v", bad, err)
				}
				if err := tx.QueryRow(one, bad).Scan(&n); !problem.Is(err, problem.KindInvalid) {
					t.Errorf("QueryRow in a transaction %q: %v", bad, err)
				}
				return tx.QueryRow(one, "ünïcode").Scan(&n)
			})
			if err != nil {
				t.Errorf("the transaction of %q: %v", bad, err)
			}
		}
	})
}
