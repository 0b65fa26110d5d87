// SPDX-License-Identifier: AGPL-3.0-only

package store_test

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// withParam opens a node on the database whose session asks for the setting.
func withParam(t *testing.T, base, name, value string) *store.DB {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20") // what pgx reads as a space
	return storetest.Open(t, u.String(), thingSchema)
}

// touch adds to a row, and holds its lock from then on.
func touch(tx *store.Tx, id int64) error {
	n, err := tx.Exec(`UPDATE thing SET body = body || $2 WHERE id = $1`, id, []byte{1})
	if err == nil && n != 1 {
		err = errors.New("there is no such row")
	}
	return err
}

// touched is how often rows were.
func touched(t *testing.T, db *store.DB, id int64) (n int64) {
	t.Helper()
	if err := db.QueryRow(t.Context(), `SELECT length(body) - 1 FROM thing WHERE id = $1`, id).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Two nodes lock two rows in the opposite order. The server ends one of them, and neither caller hears of it: not when each
// is alone, and not when one of them shares its transaction with others, which are not run again for it.
func TestDeadlockIsRunAgain(t *testing.T) {
	for _, c := range []struct {
		name   string
		shared bool
	}{{"alone", false}, {"shared", true}} {
		t.Run(c.name, func(t *testing.T) {
			base := storetest.PostgresURL(t)
			a, b := withParam(t, base, "deadlock_timeout", "20ms"), withParam(t, base, "deadlock_timeout", "20ms")
			for id := range int64(3) {
				if err := a.Write(t.Context(), insert(id)); err != nil {
					t.Fatal(err)
				}
			}
			var runs, after, others atomic.Int64
			var aOnce, bOnce sync.Once
			aHas, bHas := make(chan struct{}), make(chan struct{})
			cross := func(db *store.DB, first, second int64, has *sync.Once, mine, theirs chan struct{}) error {
				return db.WriteFirst(t.Context(), func(tx *store.Tx) error {
					runs.Add(1)
					tx.After(func() { after.Add(1) })
					if err := touch(tx, first); err != nil {
						return err
					}
					has.Do(func() { close(mine) })
					<-theirs
					return touch(tx, second)
				})
			}
			var wg sync.WaitGroup
			hold, held := make(chan struct{}), make(chan struct{})
			wg.Go(func() {
				_ = a.Write(t.Context(), func(*store.Tx) error { close(held); <-hold; return errors.New("hold") })
			})
			<-held
			queued := 1
			if c.shared {
				queued++
				wg.Go(func() { // behind cross, which is first, and in its transaction
					err := a.Write(t.Context(), func(tx *store.Tx) error { others.Add(1); return touch(tx, 0) })
					if err != nil {
						t.Errorf("a caller beside it: %v", err)
					}
				})
			}
			for _, x := range []func() error{
				func() error { return cross(a, 1, 2, &aOnce, aHas, bHas) },
				func() error { return cross(b, 2, 1, &bOnce, bHas, aHas) },
			} {
				wg.Go(func() {
					if err := x(); err != nil {
						t.Errorf("a node: %v", err)
					}
				})
			}
			a.Queued(queued)
			close(hold)
			wg.Wait()
			if runs.Load() < 3 {
				t.Errorf("%d runs of two functions: they did not deadlock", runs.Load())
			}
			if after.Load() != 2 {
				t.Errorf("%d of 2 were told that they are durable", after.Load())
			}
			if n := []int64{touched(t, a, 1), touched(t, a, 2)}; !slices.Equal(n, []int64{2, 2}) {
				t.Errorf("the rows were touched %v times, want twice each", n)
			}
			if c.shared && (others.Load() != 1 || touched(t, a, 0) != 1) {
				t.Errorf("the caller beside it ran %d times", others.Load())
			}
		})
	}
}

// A database whose transactions see one snapshot refuses to change a row that another node changed since: the function is
// run again on a new one, alone, also when it shared the old one with others. What never works ends with the server's error.
func TestSerializationFailureIsRunAgain(t *testing.T) {
	base := storetest.PostgresURL(t)
	a, b := withParam(t, base, "default_transaction_isolation", "repeatable read"), storetest.Open(t, base, thingSchema)
	for id := range int64(2) {
		if err := a.Write(t.Context(), insert(id)); err != nil {
			t.Fatal(err)
		}
	}
	runs := 0
	between := func(times int) func(tx *store.Tx) error {
		runs = 0
		return func(tx *store.Tx) error {
			runs++
			var n int64
			if err := tx.QueryRow(`SELECT count(*) FROM thing`).Scan(&n); err != nil {
				return err
			}
			if runs <= times {
				if err := b.Write(t.Context(), func(tx *store.Tx) error { return touch(tx, 1) }); err != nil {
					return err
				}
			}
			return touch(tx, 1)
		}
	}
	if err := a.Write(t.Context(), between(2)); err != nil || runs != 3 || touched(t, a, 1) != 3 {
		t.Errorf("alone: %v after %d runs; touched %d times", err, runs, touched(t, a, 1))
	}

	hold, held := make(chan struct{}), make(chan struct{})
	fn := between(1)
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = a.Write(t.Context(), func(*store.Tx) error { close(held); <-hold; return errors.New("hold") })
	})
	<-held
	for _, fn := range []func(*store.Tx) error{fn, func(tx *store.Tx) error { return touch(tx, 0) }} {
		wg.Go(func() {
			if err := a.Write(t.Context(), fn); err != nil {
				t.Errorf("shared: %v", err)
			}
		})
	}
	a.Queued(2)
	close(hold)
	wg.Wait()
	if runs != 2 || touched(t, a, 1) != 5 || touched(t, a, 0) != 1 {
		t.Errorf("shared: %d runs; touched %d and %d times", runs, touched(t, a, 1), touched(t, a, 0))
	}

	var pg *pgconn.PgError
	if err := a.Write(t.Context(), between(1000)); !errors.As(err, &pg) || pg.Code != "40001" || runs > 10 {
		t.Errorf("what never works: %v after %d runs", err, runs)
	}
}
