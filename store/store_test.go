// SPDX-License-Identifier: AGPL-3.0-only

package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

var thingSchema = []store.Migrations{{Stage: "thing", FS: fstest.MapFS{
	"migrations/0001_thing.sql": {Data: []byte("CREATE TABLE thing (id bigint PRIMARY KEY, body blob NOT NULL);\n-- +pg CREATE TABLE only_pg (id bigint);\n-- +sqlite CREATE TABLE only_sqlite (id bigint);\n")},
}}}

func insert(id int64) func(*store.Tx) error {
	return func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO thing(id, body) VALUES ($1, $2)`, id, []byte{byte(id)})
		return err
	}
}

func ids(t *testing.T, db *store.DB) []int64 {
	t.Helper()
	rows, err := db.Query(t.Context(), `SELECT id FROM thing ORDER BY id`)
	out, err := store.Collect(rows, err, func(r *sql.Rows) (n int64, err error) { return n, r.Scan(&n) })
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Callers that share a commit do not share their fate: errors, panics and unique violations stay with who caused them.
func TestGroupCommitIsolatesCallers(t *testing.T) {
	storetest.Each(t, thingSchema, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		if err := db.Write(ctx, insert(0)); err != nil {
			t.Fatal(err)
		}
		// Hold the writer so that the others gather behind it into one batch.
		hold, held := make(chan struct{}), make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = db.Write(ctx, func(*store.Tx) error { close(held); <-hold; return errors.New("hold") })
		})
		<-held
		boom := errors.New("boom")
		errs := make([]error, 40)
		var ready sync.WaitGroup
		for i := range errs {
			ready.Add(1)
			wg.Go(func() {
				fn := insert(int64(i))
				switch i % 4 {
				case 1:
					fn = func(tx *store.Tx) error { return errors.Join(insert(int64(i))(tx), boom) }
				case 2:
					fn = func(tx *store.Tx) error { _ = insert(int64(i))(tx); panic("boom") }
				case 3:
					fn = insert(0)
				}
				ready.Done()
				errs[i] = db.Write(ctx, fn)
			})
		}
		ready.Wait()
		close(hold)
		wg.Wait()
		for i, err := range errs {
			switch {
			case i%4 == 0 && i > 0 && err != nil:
				t.Errorf("caller %d: %v", i, err)
			case i%4 == 1 && !errors.Is(err, boom):
				t.Errorf("caller %d: %v, want its own error", i, err)
			case i%4 == 2 && (err == nil || !strings.Contains(err.Error(), "panic")):
				t.Errorf("caller %d: %v, want a panic", i, err)
			case i%4 == 3 && !store.IsUnique(err):
				t.Errorf("caller %d: %v, want a unique violation", i, err)
			}
		}
		got := fmt.Sprint(ids(t, db))
		if want := "[0 4 8 12 16 20 24 28 32 36]"; got != want {
			t.Errorf("rows %s, want %s", got, want)
		}
	})
}

// A statement error that the caller swallows must not be reported as success.
func TestSwallowedErrorIsNotSuccess(t *testing.T) {
	storetest.Each(t, thingSchema, func(t *testing.T, db *store.DB) {
		if err := db.Write(t.Context(), insert(1)); err != nil {
			t.Fatal(err)
		}
		err := db.Write(t.Context(), func(tx *store.Tx) error {
			_ = insert(1)(tx) // unique violation, ignored
			if db.Engine() == store.SQLite {
				return insert(2)(tx) // SQLite undoes the statement alone
			}
			return nil
		})
		if db.Engine() == store.Postgres && err == nil {
			t.Error("PostgreSQL rolled the transaction back and Write reported success")
		}
		if db.Engine() == store.SQLite && (err != nil || fmt.Sprint(ids(t, db)) != "[1 2]") {
			t.Errorf("err %v, rows %v", err, ids(t, db))
		}
	})
}

func TestCallerGivesUpWhileQueued(t *testing.T) {
	storetest.Each(t, thingSchema, func(t *testing.T, db *store.DB) {
		hold, held := make(chan struct{}), make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { _ = db.Write(t.Context(), func(*store.Tx) error { close(held); <-hold; return nil }) })
		<-held
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() {
			if err := db.Write(ctx, insert(7)); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		})
		cancel()
		// Whether it was queued before or after the cancel, it must not have run.
		close(hold)
		wg.Wait()
		if err := db.Write(t.Context(), func(*store.Tx) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if got := ids(t, db); len(got) != 0 {
			t.Errorf("an abandoned write ran: %v", got)
		}
	})
}

func TestAfterRunsOnceDurable(t *testing.T) {
	storetest.Each(t, thingSchema, func(t *testing.T, db *store.DB) {
		ran := 0
		if err := db.Write(t.Context(), func(tx *store.Tx) error {
			tx.After(func() { ran++ })
			return insert(1)(tx)
		}); err != nil || ran != 1 {
			t.Fatalf("err %v, ran %d", err, ran)
		}
		if err := db.Write(t.Context(), func(tx *store.Tx) error {
			tx.After(func() { ran++ })
			return errors.New("no")
		}); err == nil || ran != 1 {
			t.Fatalf("err %v, ran %d", err, ran)
		}
	})
}

func TestMigrationsAreAppendOnly(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		open := func(schema []store.Migrations) error {
			db, err := store.Open(t.Context(), store.Config{URL: url, Schema: schema})
			if err == nil {
				err = db.Close()
			}
			return err
		}
		if err := open(thingSchema); err != nil {
			t.Fatal(err)
		}
		if err := open(thingSchema); err != nil {
			t.Fatalf("second start: %v", err)
		}
		changed := []store.Migrations{{Stage: "thing", FS: fstest.MapFS{"migrations/0001_thing.sql": {Data: []byte("CREATE TABLE thing (id bigint);")}}}}
		if err := open(changed); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Fatalf("changed migration: %v", err)
		}
		broken := append(thingSchema[:1:1], store.Migrations{Stage: "late", FS: fstest.MapFS{"migrations/0001_late.sql": {Data: []byte("CREATE TABLE late (id bigint); CREATE TABLE late (id bigint);")}}})
		if err := open(broken); err == nil {
			t.Fatal("a broken migration was accepted")
		}
		fixed := append(thingSchema[:1:1], store.Migrations{Stage: "late", FS: fstest.MapFS{"migrations/0001_late.sql": {Data: []byte("CREATE TABLE late (id bigint);")}}})
		if err := open(fixed); err != nil {
			t.Fatalf("the broken migration left something behind: %v", err)
		}
	})
}

func TestJobs(t *testing.T) {
	hand := clock.NewHand(time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC))
	storetest.Each(t, nil, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		var mu sync.Mutex
		var seen []string
		fail := 2
		db.Handle("greet", func(_ context.Context, j store.Job) error {
			mu.Lock()
			defer mu.Unlock()
			var who string
			if err := j.Decode(&who); err != nil {
				return err
			}
			if who == "again" && fail > 0 {
				fail--
				return errors.New("not yet")
			}
			seen = append(seen, who)
			return nil
		})
		db.On("device.claimed", "mail", func(_ context.Context, e store.Event) error {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, "mail about "+e.Subject)
			return nil
		})
		run := func(want string) {
			t.Helper()
			if _, err := db.RunDue(ctx); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(seen, ", "); got != want {
				t.Fatalf("ran %q, want %q", got, want)
			}
			seen = nil
		}
		must := func(fn func(tx *store.Tx) error) {
			t.Helper()
			if err := db.Write(ctx, fn); err != nil {
				t.Fatal(err)
			}
		}
		must(func(tx *store.Tx) error { return db.Enqueue(tx, "greet", "k", hand.Now().Add(time.Hour), "later") })
		must(func(tx *store.Tx) error {
			return db.Enqueue(tx, "greet", "k", hand.Now().Add(2*time.Hour), "later")
		})
		run("")
		hand.Advance(time.Hour)
		run("later")
		run("") // done is done
		must(func(tx *store.Tx) error { return db.Enqueue(tx, "greet", "", hand.Now(), "again") })
		run("")
		hand.Advance(time.Second)
		run("")
		hand.Advance(2 * time.Second)
		run("again")
		must(func(tx *store.Tx) error { return db.Emit(tx, "device.claimed", "ten_1", "dev_1", nil) })
		if err := db.Write(ctx, func(tx *store.Tx) error {
			return errors.Join(db.Emit(tx, "device.claimed", "ten_1", "dev_2", nil), errors.New("rolled back"))
		}); err == nil {
			t.Fatal("no error")
		}
		run("mail about dev_1")
		// A runner that died: its lease runs out and the job is taken again.
		must(func(tx *store.Tx) error { return db.Enqueue(tx, "greet", "", hand.Now(), "orphan") })
		must(func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE job SET lease_until = $1`, store.Millis(hand.Now().Add(time.Minute)))
			return err
		})
		run("")
		hand.Advance(time.Minute + time.Second)
		run("orphan")
	}, func(c *store.Config) { c.Clock = hand })
}

// What is enqueued while the same job runs is run afterwards, and not before its time: a job may put itself off.
func TestJobsPutOff(t *testing.T) {
	hand := clock.NewHand(time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC))
	storetest.Each(t, nil, func(t *testing.T, db *store.DB) {
		ran := 0
		var next []time.Duration // of each run
		var fail bool
		db.Handle("look", func(ctx context.Context, j store.Job) error {
			if ran++; ran > 10 {
				return nil // it goes round and round
			}
			for _, d := range next {
				if err := db.Write(ctx, func(tx *store.Tx) error { return db.Enqueue(tx, "look", "k", hand.Now().Add(d), nil) }); err != nil {
					return err
				}
			}
			next = nil
			if fail {
				fail = false
				return errors.New("not yet")
			}
			return nil
		})
		after := func(d time.Duration, want int) {
			t.Helper()
			hand.Advance(d)
			ran = 0
			if _, err := db.RunDue(t.Context()); err != nil {
				t.Fatal(err)
			}
			if ran != want {
				t.Errorf("it ran %d times, want %d", ran, want)
			}
		}
		begin := func() {
			t.Helper()
			if err := db.Write(t.Context(), func(tx *store.Tx) error { return db.Enqueue(tx, "look", "k", time.Time{}, nil) }); err != nil {
				t.Fatal(err)
			}
		}
		next = []time.Duration{2 * time.Hour, time.Hour}
		begin()
		after(0, 1)
		after(time.Hour-time.Second, 0)
		after(time.Second, 1)
		after(2*time.Hour, 0)
		next = []time.Duration{0, time.Hour} // once more at once covers nothing of later
		begin()
		after(0, 2)
		next, fail = []time.Duration{time.Hour}, true // the failed run is repeated, and the later one still comes
		begin()
		after(0, 1)
		after(time.Minute, 1)
		after(time.Hour, 1)
		after(time.Hour, 0)
	}, func(c *store.Config) { c.Clock = hand })
}

func TestLeaseIsFenced(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		hand := clock.NewHand(time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC))
		db := storetest.Open(t, url, nil, func(c *store.Config) { c.Clock = hand })
		ctx := t.Context()
		old, ok, err := db.TakeLease(ctx, "sequencer", "a", time.Minute)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		if _, ok, err := db.TakeLease(ctx, "sequencer", "b", time.Minute); err != nil || ok {
			t.Fatal("two holders", ok, err)
		}
		if err := db.Write(ctx, func(tx *store.Tx) error { return tx.Fence(old, time.Minute) }); err != nil {
			t.Fatal(err)
		}
		hand.Advance(2 * time.Minute)
		young, ok, err := db.TakeLease(ctx, "sequencer", "b", time.Minute)
		if err != nil || !ok || young.Epoch <= old.Epoch {
			t.Fatal(young, ok, err)
		}
		if err := db.Write(ctx, func(tx *store.Tx) error { return tx.Fence(old, time.Minute) }); !errors.Is(err, store.ErrFenced) {
			t.Fatalf("the former holder wrote: %v", err)
		}
	})
}

func TestRemoteDatabaseNeedsTLS(t *testing.T) {
	_, err := store.Open(t.Context(), store.Config{URL: "postgres://openthings:planted-secret@192.0.2.7/db?sslmode=require"})
	if err == nil || !strings.Contains(err.Error(), "verify-full") || strings.Contains(err.Error(), "planted-secret") {
		t.Errorf("got %v", err)
	}
}

func TestNewIDSorts(t *testing.T) {
	last := ""
	for range 100_000 { // thousands fall into each millisecond
		id := store.NewID("dev")
		if len(id) != 30 || id <= last {
			t.Fatalf("%q after %q", id, last)
		}
		last = id
	}
}

// The server ends the transaction of a node that froze inside it: its locks are free for the others.
func TestFrozenNodeLosesItsLocks(t *testing.T) {
	base := storetest.PostgresURL(t)
	db := storetest.Open(t, base, thingSchema)
	for what, c := range map[string]struct {
		want string
		read func(into *string) error
	}{
		"write": {"10s", func(into *string) error {
			return db.Write(t.Context(), func(tx *store.Tx) error {
				return tx.QueryRow(`SHOW idle_in_transaction_session_timeout`).Scan(into)
			})
		}},
		"read": {"5min", func(into *string) error {
			return db.QueryRow(t.Context(), `SHOW idle_in_transaction_session_timeout`).Scan(into)
		}},
	} {
		var got string
		if err := c.read(&got); err != nil || got != c.want {
			t.Errorf("%s: %q %v", what, got, err)
		}
	}

	// A node with a shorter limit, which freezes with a row locked until another node has written that row.
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("idle_in_transaction_session_timeout", "100")
	u.RawQuery = q.Encode()
	frozen := storetest.Open(t, u.String(), thingSchema)
	if err := db.Write(t.Context(), insert(1)); err != nil {
		t.Fatal(err)
	}
	locked, written, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- frozen.Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE thing SET id = 2 WHERE id = 1`)
			close(locked)
			<-written
			return err
		})
	}()
	<-locked
	err = db.Write(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE thing SET id = id + 10 WHERE id = 1`)
		return err
	})
	close(written)
	if err != nil {
		t.Errorf("the other node: %v", err)
	}
	if err := <-ended; err == nil {
		t.Error("the frozen node's write is said to exist")
	}
	if got := ids(t, db); !slices.Equal(got, []int64{11}) {
		t.Errorf("the row is %v", got)
	}
}

// A lost connection to the server costs the write at hand, never the writer.
func TestWriterSurvivesLostConnection(t *testing.T) {
	url := storetest.PostgresURL(t)
	db := storetest.Open(t, url, thingSchema)
	var pid int64
	if err := db.Write(t.Context(), func(tx *store.Tx) error { return tx.QueryRow(`SELECT pg_backend_pid()`).Scan(&pid) }); err != nil {
		t.Fatal(err)
	}
	err := db.Write(t.Context(), func(tx *store.Tx) error {
		if err := insert(1)(tx); err != nil {
			return err
		}
		// Another connection ends the writer's in the middle of its transaction.
		var ok bool
		if err := db.QueryRow(t.Context(), `SELECT pg_terminate_backend($1)`, pid).Scan(&ok); err != nil || !ok {
			return fmt.Errorf("terminate: %v %w", ok, err)
		}
		return insert(2)(tx)
	})
	if err == nil {
		t.Fatal("a write on a dead connection was reported as durable")
	}
	if got := ids(t, db); len(got) != 0 {
		t.Fatalf("half a transaction is there: %v", got)
	}
	if err := db.Write(t.Context(), insert(3)); err != nil {
		t.Fatalf("the writer did not recover: %v", err)
	}
	if got := fmt.Sprint(ids(t, db)); got != "[3]" {
		t.Errorf("rows %s", got)
	}
}
