// SPDX-License-Identifier: AGPL-3.0-only

package audit

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/wire"
)

// TestS11_OlderSequencerIsFenced pauses a sequencer past its lease: it writes nothing, and there is one root per size.
func TestS11_OlderSequencerIsFenced(t *testing.T) {
	hand := clock.NewHand(time.Unix(1_800_000_000, 0))
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		keys := openKeys(t)
		older, newer := openLog(t, db, keys), openLog(t, db, keys)
		some(t, db, "ten_a", "dev_1", 3)
		drain(t, older)
		some(t, db, "ten_a", "dev_1", 3)
		drain(t, newer)
		if n := count(t, db, `SELECT count(*) FROM audit_entry WHERE pos IS NULL`); n != 3 {
			t.Fatal("a second sequencer worked while the lease was held")
		}
		hand.Advance(leaseTime + time.Second)
		drain(t, newer)
		some(t, db, "ten_a", "dev_1", 3)
		paused, lease := older.tree, older.lease
		if _, err := older.sequence(t.Context()); !errors.Is(err, store.ErrFenced) {
			t.Fatalf("the older sequencer after its lease: %v", err)
		}
		if n := count(t, db, `SELECT count(*) FROM audit_entry WHERE pos IS NULL`); n != 3 {
			t.Fatal("the older sequencer wrote")
		}
		drain(t, older) // it notices and stands back
		if older.lease.Epoch != 0 {
			t.Error("it still believes that it holds the lease")
		}
		drain(t, newer)
		verify(t, db, newer.VerifierKey())

		// Each of the three protections holds by itself. First the unique positions, with the fence out of the way.
		some(t, db, "ten_a", "dev_1", 3)
		older.lease, older.tree = newer.lease, paused
		if _, err := older.sequence(t.Context()); !store.IsUnique(err) {
			t.Fatalf("a stale tree under a good lease: %v", err)
		}
		// Then the condition on the tip, without the unique positions.
		mustExec(t, db, `DROP INDEX audit_entry_pos`)
		older.tree = paused
		if _, err := older.sequence(t.Context()); err == nil || !strings.Contains(err.Error(), "has grown past") {
			t.Fatalf("a stale tree without unique positions: %v", err)
		}
		older.lease, older.tree = lease, nil
		verify(t, db, newer.VerifierKey())

		// The control: with none of them, positions double and the check finds it.
		mustExec(t, db, `UPDATE audit_tip SET size = 3`)
		mustExec(t, db, `DELETE FROM audit_head WHERE size > 3`)
		older.lease, older.tree = newer.lease, paused
		if _, err := older.sequence(t.Context()); err != nil {
			t.Fatal(err)
		}
		r, err := VerifyDB(t.Context(), db, newer.VerifierKey(), nil)
		if err != nil || r.OK() {
			t.Fatalf("double positions went unnoticed: %+v, %v", r, err)
		}
	}, func(c *store.Config) { c.Clock = hand })
}

// TestRestartUnderTheSameName: a killed process takes its own lease again at once, and whoever still runs is fenced out.
func TestRestartUnderTheSameName(t *testing.T) {
	hand := clock.NewHand(time.Unix(1_800_000_000, 0))
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		keys, named := openKeys(t), func(c *Config) { c.Holder = "host-1" }
		killed := openLog(t, db, keys, named)
		some(t, db, "ten_a", "dev_1", 3)
		drain(t, killed)
		some(t, db, "ten_a", "dev_1", 3)
		drain(t, openLog(t, db, keys, named)) // the clock stands still: the lease has not run out
		if r := verify(t, db, killed.VerifierKey()); r.Size != 6 || r.Pending != 0 {
			t.Fatalf("%+v", r)
		}
		some(t, db, "ten_a", "dev_1", 3)
		if _, err := killed.sequence(t.Context()); !errors.Is(err, store.ErrFenced) {
			t.Fatalf("the one before: %v", err)
		}
	}, func(c *store.Config) { c.Clock = hand })
}

// TestS12_LateCommitOfALowerID commits an entry whose id lies below those already sequenced.
func TestS12_LateCommitOfALowerID(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		db := storetest.Open(t, url, schema)
		l := openLog(t, db, openKeys(t))
		leaf, data, err := Entry{Tenant: "ten_a", Actor: "per_1", Kind: "device.claimed", Subject: "dev_late"}.leaf("aud_0", 1)
		if err != nil {
			t.Fatal(err)
		}
		if db.Engine() == store.SQLite { // one writer: the order of ids and commits can differ only by the clock
			some(t, db, "ten_a", "dev_1", 5)
			drain(t, l)
			if err := db.Write(t.Context(), func(tx *store.Tx) error { return insert(tx, leaf, data) }); err != nil {
				t.Fatal(err)
			}
		} else { // another process holds its transaction open meanwhile
			other := storetest.Open(t, url, schema)
			inserted, commit, done := make(chan bool), make(chan bool), make(chan error, 1)
			go func() {
				done <- other.Write(context.Background(), func(tx *store.Tx) error {
					err := insert(tx, leaf, data)
					inserted <- true
					<-commit
					return err
				})
			}()
			<-inserted
			some(t, db, "ten_a", "dev_1", 5)
			drain(t, l)
			close(commit)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		drain(t, l)
		set, err := l.Prove(t.Context(), "ten_a", "dev_late")
		if err != nil {
			t.Fatal(err)
		}
		if len(set.Entries) != 1 || set.Entries[0].Pos != 5 {
			t.Fatalf("the late entry: %+v", set.Entries)
		}
		verify(t, db, l.VerifierKey())
	})
}

// TestS13_RolledBack: a business transaction that fails leaves no entry, and its neighbours in the same commit keep theirs.
func TestS13_RolledBack(t *testing.T) {
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		l := openLog(t, db, openKeys(t))
		const n = 40
		errs := make(chan error, n)
		for i := range n {
			go func() {
				errs <- db.Write(context.Background(), func(tx *store.Tx) error {
					e := Entry{Tenant: "ten_a", Actor: "per_1", Kind: "device.claimed", Subject: fmt.Sprintf("dev_%d", i)}
					if err := Append(tx, e); err != nil || i%4 > 0 {
						return err
					}
					return errors.New("refused")
				})
			}()
		}
		failed := 0
		for range n {
			if err := <-errs; err != nil {
				failed++
			}
		}
		drain(t, l)
		if r := verify(t, db, l.VerifierKey()); failed != n/4 || r.Size != n-n/4 {
			t.Errorf("%d failed, %d entries", failed, r.Size)
		}
	})
}

// victim is the child process of TestS13_Killed: it appends, sequences, and prints what was acknowledged.
func victim(url, dir string) {
	ctx := context.Background()
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	db, err := store.Open(ctx, store.Config{URL: url, Schema: schema})
	fail(err)
	keys, err := seal.Open(dir, clock.System)
	fail(err)
	l, err := New(Config{DB: db, Keys: keys, Origin: origin})
	fail(err)
	go func() { fail(l.Run(ctx)) }()
	go func() {
		for {
			fail(l.Wait(ctx)) // no pause: as many batches as there can be
		}
	}()
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				subject := fmt.Sprintf("dev_%d_%d_%d", os.Getpid(), w, i)
				fail(db.Write(ctx, func(tx *store.Tx) error {
					return Append(tx, Entry{Tenant: "ten_a", Actor: "per_1", Kind: "device.claimed", Subject: subject})
				}))
				fmt.Println(subject)
			}
		}()
	}
	select {}
}

// TestS13_Killed kills the process that appends and sequences, at random moments: what it acknowledged is there once.
func TestS13_Killed(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes")
	}
	storetest.EachURL(t, func(t *testing.T, url string) {
		db := storetest.Open(t, url, schema)
		dir := t.TempDir() + "/keys"
		acked := map[string]bool{}
		for range 4 {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "AUDIT_TEST_VICTIM="+url, "AUDIT_TEST_KEYS="+dir)
			cmd.Stderr = t.Output()
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines, stop := bufio.NewScanner(out), 50+rand.IntN(300)
			for i := 0; lines.Scan(); i++ {
				acked[lines.Text()] = true
				if i == stop {
					if err := cmd.Process.Kill(); err != nil {
						t.Fatal(err)
					}
				}
			}
			cmd.Wait() //nolint:errcheck // it was killed
		}
		endLease(t, db)
		keys, err := seal.Open(dir, clock.System)
		if err != nil {
			t.Fatal(err)
		}
		l := openLog(t, db, keys)
		drain(t, l)
		r := verify(t, db, l.VerifierKey())
		if r.Pending != 0 || r.Unsigned != 0 || r.Size < int64(len(acked)) || len(acked) < 200 {
			t.Fatalf("%d acknowledged: %+v", len(acked), r)
		}
		rows, err := db.Query(t.Context(), `SELECT subject, count(*) FROM audit_entry WHERE tenant = 'ten_a' GROUP BY subject`)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var subject string
			var n int
			if err := rows.Scan(&subject, &n); err != nil {
				t.Fatal(err)
			}
			if n != 1 {
				t.Errorf("%s stands %d times", subject, n)
			}
			delete(acked, subject)
		}
		if len(acked) > 0 {
			t.Errorf("%d acknowledged entries are missing", len(acked))
		}
	})
}

// endLease ends the lease of a killed holder, in place of waiting for it to run out.
func endLease(t *testing.T, db *store.DB) {
	t.Helper()
	if err := db.Write(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE lease SET until = 0 WHERE name = $1`, leaseName)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// TestS14_Proofs checks consistency between any two checkpoints and inclusion of every entry, against a tree that is
// computed the slow way.
func TestS14_Proofs(t *testing.T) {
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		l := openLog(t, db, openKeys(t))
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		rnd := rand.New(rand.NewPCG(seed, 0))
		for size := 0; size < 700; {
			n := 1 + rnd.IntN(60)
			some(t, db, "ten_a", "dev_1", n)
			size += n
			drain(t, l)
		}
		set, err := l.Prove(t.Context(), "ten_a", "dev_1")
		if err != nil {
			t.Fatal(err)
		}
		// The oracle: every stored hash of tlog, one by one.
		var all []tlog.Hash
		oracle := tlog.HashReaderFunc(func(want []int64) ([]tlog.Hash, error) {
			out := make([]tlog.Hash, len(want))
			for i, x := range want {
				out[i] = all[x]
			}
			return out, nil
		})
		for i, e := range set.Entries {
			hs, err := tlog.StoredHashes(int64(i), e.Leaf.Bytes(), oracle)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, hs...)
			if err := tlog.CheckRecord(e.Proof, set.Checkpoint.Size, set.Checkpoint.Root, int64(i), tlog.RecordHash(e.Leaf.Bytes())); err != nil {
				t.Fatalf("entry %d: %v", i, err)
			}
			if e.Data == nil || e.Data.Digest() != e.Leaf.Data {
				t.Fatalf("entry %d: its data is not what the leaf says", i)
			}
		}
		rows, err := db.Query(t.Context(), `SELECT size FROM audit_head ORDER BY size`)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		var sizes []int64
		for rows.Next() {
			var n int64
			if err := rows.Scan(&n); err != nil {
				t.Fatal(err)
			}
			sizes = append(sizes, n)
		}
		rows.Close()
		roots := map[int64]tlog.Hash{}
		for _, n := range sizes {
			if roots[n], err = tlog.TreeHash(n, oracle); err != nil {
				t.Fatal(err)
			}
		}
		for i, from := range sizes {
			for _, to := range sizes[i:] {
				c, proof, err := l.Consistency(t.Context(), from, to)
				if err != nil {
					t.Fatal(err)
				}
				if c.Root != roots[to] {
					t.Fatalf("the root at %d differs from the oracle's", to)
				}
				if err := tlog.CheckTree(proof, to, c.Root, from, roots[from]); err != nil {
					t.Fatalf("%d to %d: %v", from, to, err)
				}
				if from < to {
					fork := roots[from]
					fork[0] ^= 1
					if tlog.CheckTree(proof, to, c.Root, from, fork) == nil {
						t.Fatalf("%d to %d: a fork passes", from, to)
					}
				}
			}
		}
		verify(t, db, l.VerifierKey())
	})
}

// TestS14_TamperingIsFound changes one thing after the other behind the log's back.
func TestS14_TamperingIsFound(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		db := storetest.Open(t, url, schema)
		keys := openKeys(t)
		l := openLog(t, db, keys)
		for range 3 {
			some(t, db, "ten_a", "dev_1", 150)
			drain(t, l)
		}
		victimID := func(pos int64) (id string) {
			if err := db.QueryRow(t.Context(), `SELECT id FROM audit_entry WHERE pos = $1`, pos).Scan(&id); err != nil {
				t.Fatal(err)
			}
			return id
		}
		leaf := tlog.RecordHash([]byte("forged"))
		for _, c := range []struct {
			name, do string
			args     []any
			undo     string
		}{
			{"actor", `UPDATE audit_entry SET actor = 'per_2' WHERE pos = 7`, nil, `UPDATE audit_entry SET actor = 'per_1' WHERE pos = 7`},
			{"time", `UPDATE audit_entry SET at = at + 1 WHERE pos = 0`, nil, `UPDATE audit_entry SET at = at - 1 WHERE pos = 0`},
			{"tenant", `UPDATE audit_entry SET tenant = 'ten_b' WHERE pos = 449`, nil, `UPDATE audit_entry SET tenant = 'ten_a' WHERE pos = 449`},
			{"gap", `UPDATE audit_entry SET pos = 1000 WHERE pos = 300`, nil, `UPDATE audit_entry SET pos = 300 WHERE pos = 1000`},
			{"taken back", `UPDATE audit_entry SET pos = NULL WHERE id = $1`, []any{victimID(5)}, `UPDATE audit_entry SET pos = 5 WHERE pos IS NULL`},
			{"tip", `UPDATE audit_tip SET size = 449`, nil, `UPDATE audit_tip SET size = 450`},
			{"head", `UPDATE audit_head SET root = (SELECT root FROM audit_head WHERE size = 300) WHERE size = 150`, nil, ""},
			{"note", `UPDATE audit_head SET note = (SELECT note FROM audit_head WHERE size = 300) WHERE size = 450`, nil, ""},
			{"tile", `UPDATE audit_tile SET hashes = (SELECT hashes FROM audit_tile WHERE level = 0 AND tile = 1) WHERE level = 0 AND tile = 0`, nil, ""},
			{"payload gone", `UPDATE audit_entry SET payload = $1 WHERE pos = 9`, []any{[]byte{}}, ""},
			{"payload of another", `UPDATE audit_entry SET payload = (SELECT payload FROM audit_entry WHERE pos = 11) WHERE pos = 10`, nil, ""},
			{"leaf hash", `UPDATE audit_entry SET leaf_hash = $1 WHERE pos = 12`, []any{leaf[:]}, ""},
			{"deleted", `DELETE FROM audit_entry WHERE pos = 200`, nil, ""},
		} {
			before, err := VerifyDB(t.Context(), db, l.VerifierKey(), nil)
			if err != nil {
				t.Fatal(err)
			}
			mustExec(t, db, c.do, c.args...)
			after, err := VerifyDB(t.Context(), db, l.VerifierKey(), nil)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if slices.Equal(before.Faults, after.Faults) {
				t.Errorf("%s: not found", c.name)
			}
			if c.undo != "" {
				mustExec(t, db, c.undo)
			}
		}
		other := openLog(t, storetest.Open(t, storetest.SQLiteURL(t), schema), keys)
		if r, err := VerifyDB(t.Context(), db, other.VerifierKey(), nil); err != nil || len(r.Faults) < 3 {
			t.Errorf("the key of another log verifies: %+v, %v", r, err)
		}
		// What does not hash to the stored root is neither proven nor built upon.
		if _, err := l.Prove(t.Context(), "ten_a", "dev_1"); err == nil {
			t.Error("a proof was handed out over tampered tiles")
		}
		some(t, db, "ten_a", "dev_1", 1)
		l.tree = nil
		mustExec(t, db, `UPDATE audit_tile SET hashes = $1 WHERE level = 0 AND tile = 1`, joinHashes(make([]tlog.Hash, tileWidth)))
		if err := l.drain(t.Context()); err == nil {
			t.Error("the sequencer built upon tampered tiles")
		}
	})
}

func mustExec(t *testing.T, db *store.DB, query string, args ...any) {
	t.Helper()
	if err := db.Write(t.Context(), func(tx *store.Tx) error { _, err := tx.Exec(query, args...); return err }); err != nil {
		t.Fatal(err)
	}
}

// TestS19_Tenants: the same subject in two tenants; nothing of the other is seen.
func TestS19_Tenants(t *testing.T) {
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		l := openLog(t, db, openKeys(t))
		for _, tenant := range []string{"ten_a", "ten_b", "ten_a", ""} {
			some(t, db, tenant, "dev_1", 2)
		}
		drain(t, l)
		ids := map[string][]string{}
		for tenant, want := range map[string]int{"ten_a": 4, "ten_b": 2, "ten_c": 0} {
			items, err := l.List(t.Context(), tenant, Filter{Subject: "dev_1"}, 100)
			if err != nil || len(items) != want {
				t.Errorf("%s lists %d, %v", tenant, len(items), err)
			}
			for _, it := range items {
				ids[tenant] = append(ids[tenant], it.ID)
			}
			set, err := l.Prove(t.Context(), tenant, "dev_1")
			if err != nil || len(set.Entries) != want {
				t.Errorf("%s proves %d, %v", tenant, len(set.Entries), err)
			}
			for _, e := range set.Entries {
				if e.Leaf.Tenant != tenant {
					t.Errorf("%s was shown an entry of %s", tenant, e.Leaf.Tenant)
				}
			}
		}
		for _, id := range ids["ten_b"] {
			if _, err := l.ProveEntry(t.Context(), "ten_a", id); err == nil {
				t.Error("ten_a proved an entry of ten_b")
			}
		}
	})
}

// TestS19_PagesAreStable reads pages while entries are added: each that was there at the beginning is seen once.
func TestS19_PagesAreStable(t *testing.T) {
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		l := openLog(t, db, openKeys(t))
		some(t, db, "ten_a", "dev_1", 57)
		seen := map[string]int{}
		for before := ""; ; {
			items, err := l.List(t.Context(), "ten_a", Filter{Kind: "device.claimed", Before: before}, 10)
			if err != nil {
				t.Fatal(err)
			}
			if len(items) == 0 {
				break
			}
			for _, it := range items {
				seen[it.ID]++
				before = it.ID
			}
			some(t, db, "ten_a", "dev_1", 3)
			drain(t, l)
		}
		if len(seen) != 57 {
			t.Errorf("%d entries seen, not 57", len(seen))
		}
		for id, n := range seen {
			if n != 1 {
				t.Errorf("%s seen %d times", id, n)
			}
		}
	})
}

// released holds the checksum of every migration that was released; none may change. TestS20 migrates up from each.
var released = map[string]string{}

// TestS20_MigrationsUp fills a database at each released schema and opens it with today's.
func TestS20_MigrationsUp(t *testing.T) {
	names, err := fs.Glob(migrationsFS, "migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for i := range names {
		part := fstest.MapFS{}
		for _, name := range names[:i+1] {
			b, err := fs.ReadFile(migrationsFS, name)
			if err != nil {
				t.Fatal(err)
			}
			part[name] = &fstest.MapFile{Data: b}
			if want, ok := released[name]; ok && wire.Digest(b) != want {
				t.Errorf("%s was released as %s and has changed", name, want)
			}
		}
		storetest.EachURL(t, func(t *testing.T, url string) {
			keys := openKeys(t)
			old := storetest.Open(t, url, []store.Migrations{seal.Schema, {Stage: Schema.Stage, FS: part}})
			l := openLog(t, old, keys)
			some(t, old, "ten_a", "dev_1", 3)
			drain(t, l)
			l.release(t.Context())
			some(t, old, "ten_a", "dev_1", 1) // pending across the upgrade
			db := storetest.Open(t, url, schema)
			now := openLog(t, db, keys)
			drain(t, now)
			if r := verify(t, db, l.VerifierKey()); r.Size != 4 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestPlanAfterAnalyze: once PostgreSQL has statistics of a fully sequenced table, it expects no pending rows; the
// pending entries must still be read once and not again for every row.
func TestPlanAfterAnalyze(t *testing.T) {
	db := storetest.Open(t, storetest.PostgresURL(t), schema)
	l := openLog(t, db, openKeys(t))
	for range 8 {
		some(t, db, "ten_a", "dev_1", 500)
	}
	drain(t, l)
	mustExec(t, db, `ANALYZE audit_entry`)
	some(t, db, "ten_a", "dev_1", batch)
	undo := errors.New("undo")
	var plan []string
	err := db.Write(t.Context(), func(tx *store.Tx) error {
		rows, err := tx.Query(`EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) `+assign, 4000, batch)
		if plan, err = store.Collect(rows, err, func(r *sql.Rows) (s string, err error) { return s, r.Scan(&s) }); err != nil {
			return err
		}
		return undo
	})
	if !errors.Is(err, undo) {
		t.Fatal(err)
	}
	text := strings.Join(plan, "\n")
	t.Log(text)
	reads := 0
	for _, line := range plan {
		if strings.Contains(line, "WindowAgg") {
			reads++
			if !strings.Contains(line, "loops=1)") {
				t.Errorf("the pending entries are read again and again: %s", line)
			}
		}
	}
	if reads != 1 {
		t.Errorf("the plan numbers the pending entries %d times", reads)
	}
}
