// SPDX-License-Identifier: AGPL-3.0-only

package store

import (
	"database/sql"
	"strconv"
	"strings"
)

// InsertMany inserts rows of equal length: head ends before VALUES, tail follows the rows ("ON CONFLICT DO NOTHING", or
// nothing). Many rows go in one statement: one by one costs six times as much on PostgreSQL. The rows of a statement are
// a power of eight, so that few texts have to be prepared.
func (tx *Tx) InsertMany(head string, rows [][]any, tail string) error {
	for len(rows) > 0 {
		width := len(rows[0])
		n := 64
		for n > len(rows) || n > 1 && n*width > tx.db.argsAtOnce() {
			n /= 8
		}
		args := make([]any, 0, n*width)
		for _, row := range rows[:n] {
			args = append(args, row...)
		}
		if _, err := tx.Exec(head+values(n, width)+tail, args...); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// argsAtOnce is how many arguments of rows one statement takes. SQLite's driver looks through all of them for each, so that
// the time grows with the square: 64 rows of 12 columns cost eight times as much as the same in eights.
func (db *DB) argsAtOnce() int {
	if db.engine == SQLite {
		return 128
	}
	return 64 * 64 // PostgreSQL itself takes 65,535
}

// values writes " VALUES ($1, $2), ($3, $4) ".
func values(rows, width int) string {
	var q strings.Builder
	q.WriteString(" VALUES ")
	for i := range rows * width {
		switch {
		case i > 0 && i%width == 0:
			q.WriteString("), (")
		case i > 0:
			q.WriteString(", ")
		default:
			q.WriteString("(")
		}
		q.WriteString("$" + strconv.Itoa(i+1))
	}
	q.WriteString(") ")
	return q.String()
}

// In writes "($2, $3, …)" for the ids, at least one, and appends them to args. The last is repeated up to a power of two, or a
// multiple of 1,024, so that lists of any length make few texts.
func In(args []any, ids []string) (string, []any) {
	n := 1
	for n < len(ids) && n < 1024 {
		n *= 2
	}
	n *= (len(ids) + n - 1) / n
	marks := make([]string, n)
	for i := range marks {
		args = append(args, ids[min(i, len(ids)-1)])
		marks[i] = "$" + strconv.Itoa(len(args))
	}
	return "(" + strings.Join(marks, ", ") + ")", args
}

// Pairs reads rows of two texts as a map from the first to the second.
func Pairs(rows *sql.Rows, err error) (map[string]string, error) {
	out := map[string]string{}
	_, err = Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var k, v string
		err := r.Scan(&k, &v)
		out[k] = v
		return struct{}{}, err
	})
	return out, err
}
