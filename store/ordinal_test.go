// SPDX-License-Identifier: AGPL-3.0-only

package store

import "testing"

func TestOrdinal(t *testing.T) {
	for query, want := range map[string]string{
		`SELECT 1`:                               "SELECT 1",
		`VALUES ($1, $2), ($3, $4)`:              "VALUES (?, ?), (?, ?)",
		`UPDATE a SET b = $2 WHERE c = $1`:       "UPDATE a SET b = $2 WHERE c = $1", // not in order
		`SELECT $1 WHERE a = $1`:                 "SELECT $1 WHERE a = $1",           // twice
		`SELECT $10`:                             "SELECT $10",
		`SELECT a FROM b WHERE c = '$1' OR d=$1`: `SELECT a FROM b WHERE c = '$1' OR d=$1`, // a text may hold anything
		`SELECT a FROM b WHERE a || '' = $1`:     "SELECT a FROM b WHERE a || '' = ?",
		"SELECT ''''$1''''":                      "SELECT ''''?''''", // two texts of a quote each
		"SELECT '''$1'''":                        "SELECT '''$1'''",
		`SELECT $1,$2,$3,$4,$5,$6,$7,$8,$9,$10;`: "SELECT ?,?,?,?,?,?,?,?,?,?;",
		`SELECT $1, $2 FROM x WHERE z = $12`:     "SELECT $1, $2 FROM x WHERE z = $12",
	} {
		if got := ordinal(query); got != want {
			t.Errorf("%s became %s, want %s", query, got, want)
		}
	}
}
