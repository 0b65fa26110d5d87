// SPDX-License-Identifier: AGPL-3.0-only

package seal

import (
	"bytes"
	"crypto/cipher"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

var t0 = time.UnixMilli(700 * Epoch.Milliseconds()).UTC().Add(time.Hour)

func open(t *testing.T, dir string, clk clock.Clock) *Keys {
	t.Helper()
	k, err := Open(dir, clk)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newDir(t *testing.T) string { return filepath.Join(t.TempDir(), "keys") }

func TestWrap(t *testing.T) {
	dir := newDir(t)
	k := open(t, dir, clock.NewHand(t0))
	plain := []byte("an issuing key")
	sealed, err := k.Wrap("ca", plain)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, plain) {
		t.Fatal("the sealed bytes show what they hold")
	}
	if got, err := open(t, dir, clock.NewHand(t0)).Unwrap("ca", sealed); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("after a restart: %q, %v", got, err)
	}
	if _, err := k.Unwrap("log-key", sealed); !errors.Is(err, ErrSealed) {
		t.Errorf("another purpose opened it: %v", err)
	}
	if _, err := open(t, newDir(t), clock.NewHand(t0)).Unwrap("ca", sealed); !errors.Is(err, ErrSealed) {
		t.Errorf("another platform key opened it: %v", err)
	}
	for i := range sealed {
		bent := bytes.Clone(sealed)
		bent[i] ^= 1
		if _, err := k.Unwrap("ca", bent); !errors.Is(err, ErrSealed) {
			t.Fatalf("flipped byte %d went unnoticed: %v", i, err)
		}
		if _, err := k.Unwrap("ca", sealed[:i]); !errors.Is(err, ErrSealed) {
			t.Fatalf("cut at %d went unnoticed: %v", i, err)
		}
	}
}

func TestKeyFilesAreForTheirOwnerAlone(t *testing.T) {
	dir := newDir(t)
	k := open(t, dir, clock.NewHand(t0))
	if _, err := k.epoch(epochID{"ten_a", 700}, true); err != nil {
		t.Fatal(err)
	}
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %04o", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path       string
		open, back os.FileMode
	}{{dir, 0o750, 0o700}, {filepath.Join(dir, "epochs"), 0o701, 0o700}, {filepath.Join(dir, "platform.key"), 0o640, 0o600}} {
		if err := os.Chmod(c.path, c.open); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, clock.NewHand(t0)); err == nil {
			t.Errorf("opened with %s at mode %04o", c.path, c.open)
		}
		if err := os.Chmod(c.path, c.back); err != nil {
			t.Fatal(err)
		}
	}
	open(t, dir, clock.NewHand(t0))
}

func TestLostPlatformKeyIsNotReplaced(t *testing.T) {
	dir := newDir(t)
	k := open(t, dir, clock.NewHand(t0))
	if _, err := k.epoch(epochID{"ten_a", 700}, true); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "platform.key")
	key, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, clock.NewHand(t0)); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a second platform key was made beside keys of the first: %v", err)
	}
	for _, bad := range [][]byte{nil, key[:31], append(bytes.Clone(key), 0)} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, clock.NewHand(t0)); err == nil {
			t.Errorf("a platform key of %d bytes was taken", len(bad))
		}
	}
}

func TestEpochNamesStayInTheirFolder(t *testing.T) {
	k := open(t, newDir(t), clock.NewHand(t0))
	for _, realm := range []string{"", "..", "a/b", "ten.a", "a\x00"} {
		if _, err := k.epoch(epochID{realm, 1}, true); err == nil {
			t.Errorf("a key was made for tenant %q", realm)
		}
	}
}

func TestConcurrentOpenMakesOneKey(t *testing.T) {
	dir := newDir(t)
	const n = 8
	got := make(chan []byte, n)
	for range n {
		go func() {
			k, err := Open(dir, clock.NewHand(t0))
			if err != nil {
				t.Error(err)
				got <- nil
				return
			}
			sealed, _ := k.Wrap("x", []byte("y"))
			got <- sealed
		}()
	}
	for range n {
		sealed := <-got
		if _, err := open(t, dir, clock.NewHand(t0)).Unwrap("x", sealed); err != nil {
			t.Errorf("a concurrent Open used another key: %v", err)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, ".new-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func write(t *testing.T, db *store.DB, fn func(tx *store.Tx) error) {
	t.Helper()
	if err := db.Write(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

func subject(t *testing.T, k *Keys, db *store.DB, id string) cipher.AEAD {
	t.Helper()
	a, err := k.Subject(t.Context(), db, "ten_a", id)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestSubjectKeys(t *testing.T) {
	storetest.Each(t, []store.Migrations{Schema}, func(t *testing.T, db *store.DB) {
		hand := clock.NewHand(t0)
		k := open(t, newDir(t), hand)
		make1 := func(tx *store.Tx) error { return k.NewSubject(tx, "ten_a", "dev_1") }
		if _, err := k.Subject(t.Context(), db, "ten_a", "dev_1"); !problem.Is(err, problem.KindNotFound) {
			t.Fatalf("before it was made: %v", err)
		}
		write(t, db, make1)
		sealed := subject(t, k, db, "dev_1").Seal(nil, nil, []byte("36.6"), nil)
		write(t, db, make1) // again: the same key
		if got, err := subject(t, k, db, "dev_1").Open(nil, nil, sealed, nil); err != nil || string(got) != "36.6" {
			t.Fatalf("%q, %v", got, err)
		}
		if _, err := k.Subject(t.Context(), db, "ten_b", "dev_1"); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("another tenant got the key: %v", err)
		}
		if _, ok, err := k.Destroyed(t.Context(), db, "ten_a", "dev_1"); ok || err != nil {
			t.Errorf("destroyed before it was: %v %v", ok, err)
		}
		hand.Advance(time.Minute)
		destroy := func(tx *store.Tx) error { return k.DestroySubject(tx, "ten_a", "dev_1") }
		write(t, db, destroy)
		hand.Advance(time.Minute)
		write(t, db, destroy) // the first time counts
		write(t, db, make1)   // never again
		if _, err := k.Subject(t.Context(), db, "ten_a", "dev_1"); !errors.Is(err, ErrDestroyed) {
			t.Errorf("after the destruction: %v", err)
		}
		at, ok, err := k.Destroyed(t.Context(), db, "ten_a", "dev_1")
		if err != nil || !ok || !at.Equal(t0.Add(time.Minute)) {
			t.Errorf("destroyed at %v, %v, %v", at, ok, err)
		}
	})
}

// copyRows puts the wrapped keys of db back as they are now: what a restored backup does.
func copyRows(t *testing.T, db *store.DB) (restore func()) {
	t.Helper()
	type row struct {
		tenant, subject           string
		epoch, created, destroyed int64
		wrapped                   []byte
	}
	rows, err := db.Query(t.Context(), `SELECT tenant, subject, epoch, wrapped, created, destroyed FROM seal_subject`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all []row
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.tenant, &r.subject, &r.epoch, &r.wrapped, &r.created, &r.destroyed); err != nil {
			t.Fatal(err)
		}
		r.wrapped = append([]byte{}, r.wrapped...) // an empty blob may be read as nil, which would be NULL
		all = append(all, r)
	}
	return func() {
		write(t, db, func(tx *store.Tx) error {
			if _, err := tx.Exec(`DELETE FROM seal_subject`); err != nil {
				return err
			}
			for _, r := range all {
				if _, err := tx.Exec(`INSERT INTO seal_subject(tenant, subject, epoch, wrapped, created, destroyed) VALUES ($1, $2, $3, $4, $5, $6)`,
					r.tenant, r.subject, r.epoch, r.wrapped, r.created, r.destroyed); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// TestErasureReachesBackups destroys a subject, restores the database of before, and asks again once the horizon has passed.
func TestErasureReachesBackups(t *testing.T) {
	storetest.Each(t, []store.Migrations{Schema}, func(t *testing.T, db *store.DB) {
		ctx, dir, hand := t.Context(), newDir(t), clock.NewHand(t0)
		k := open(t, dir, hand)
		write(t, db, func(tx *store.Tx) error {
			return errors.Join(k.NewSubject(tx, "ten_a", "dev_erased"), k.NewSubject(tx, "ten_a", "dev_alive"))
		})
		sealed := subject(t, k, db, "dev_alive").Seal(nil, nil, []byte("alive"), nil)
		restore := copyRows(t, db)
		write(t, db, func(tx *store.Tx) error { return k.DestroySubject(tx, "ten_a", "dev_erased") })
		horizon := Horizon(hand.Now())

		hand.Advance(Epoch) // one epoch on, the backup still works as a backup
		if err := k.Rotate(ctx, db); err != nil {
			t.Fatal(err)
		}
		after := copyRows(t, db)
		restore()
		if _, err := open(t, dir, hand).Subject(ctx, db, "ten_a", "dev_alive"); err != nil {
			t.Fatalf("a backup of the epoch before cannot be restored: %v", err)
		}
		after()

		if hand.Set(horizon); hand.Now().Sub(t0) > 2*Epoch {
			t.Fatalf("the horizon is %v away", hand.Now().Sub(t0))
		}
		if err := k.Rotate(ctx, db); err != nil {
			t.Fatal(err)
		}
		if err := k.Rotate(ctx, db); err != nil {
			t.Fatalf("a second time: %v", err)
		}
		if got, err := subject(t, k, db, "dev_alive").Open(nil, nil, sealed, nil); err != nil || string(got) != "alive" {
			t.Fatalf("the living subject: %q, %v", got, err)
		}
		restore()
		for _, keys := range []*Keys{k, open(t, dir, hand)} {
			if _, err := keys.Subject(ctx, db, "ten_a", "dev_erased"); !errors.Is(err, ErrDestroyed) {
				t.Errorf("the erased subject came back with the backup: %v", err)
			}
		}
		left, err := filepath.Glob(filepath.Join(dir, "epochs", "ten_a", "*.key"))
		if err != nil || len(left) != 2 { // 701 and 702: those of the last epoch and of this one
			t.Errorf("epoch keys left: %v %v", left, err)
		}
	})
}

// TestRotateDestroysNothingItNeeds breaks one row: the epoch key that it depends on must stay.
func TestRotateDestroysNothingItNeeds(t *testing.T) {
	storetest.Each(t, []store.Migrations{Schema}, func(t *testing.T, db *store.DB) {
		dir, hand := newDir(t), clock.NewHand(t0)
		k := open(t, dir, hand)
		write(t, db, func(tx *store.Tx) error { return k.NewSubject(tx, "ten_a", "dev_1") })
		write(t, db, func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE seal_subject SET subject = 'dev_2'`) // does not open under its new name
			return err
		})
		hand.Advance(3 * Epoch)
		if err := k.Rotate(t.Context(), db); !errors.Is(err, ErrSealed) {
			t.Fatalf("a row that does not open went unnoticed: %v", err)
		}
		if _, err := os.Stat(k.epochPath(epochID{"ten_a", 700})); err != nil {
			t.Errorf("its epoch key is gone: %v", err)
		}
	})
}

func TestHourKeys(t *testing.T) {
	storetest.Each(t, []store.Migrations{Schema}, func(t *testing.T, db *store.DB) {
		ctx, hand := t.Context(), clock.NewHand(t0)
		k := open(t, newDir(t), hand)
		id, a, err := k.Hour(ctx, db, hand.Now())
		if err != nil {
			t.Fatal(err)
		}
		sealed := a.Seal(nil, nil, []byte("inbox"), []byte("row 1"))
		again, _, err := k.Hour(ctx, db, hand.Now().Add(59*time.Minute))
		if err != nil || again != id {
			t.Fatalf("the same hour has two keys: %s %s %v", id, again, err)
		}
		hand.Advance(time.Hour)
		next, _, err := k.Hour(ctx, db, hand.Now())
		if err != nil || next == id {
			t.Fatalf("the next hour has the same key: %v", err)
		}
		hand.Advance(2 * Epoch) // the inbox was not compacted: its keys live on
		if err := k.Rotate(ctx, db); err != nil {
			t.Fatal(err)
		}
		b, err := open(t, k.dir, hand).HourByID(ctx, db, id)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := b.Open(nil, nil, sealed, []byte("row 1")); err != nil || string(got) != "inbox" {
			t.Fatalf("%q, %v", got, err)
		}
		write(t, db, func(tx *store.Tx) error { return k.DestroyHours(tx, t0.Add(time.Hour)) })
		if _, err := k.HourByID(ctx, db, id); !errors.Is(err, ErrDestroyed) {
			t.Errorf("after its destruction: %v", err)
		}
		if _, err := k.HourByID(ctx, db, next); err != nil {
			t.Errorf("the hour after it: %v", err)
		}
	})
}

// TestDerive: the same purpose gives the same bytes to every process of a platform, and to no other platform.
func TestDerive(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	derive := func(dir, purpose string) []byte {
		k, err := Open(dir, clock.System)
		if err != nil {
			t.Fatal(err)
		}
		b, err := k.Derive(purpose)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	a := derive(dir, "api.page-token")
	if len(a) != keySize || !bytes.Equal(a, derive(dir, "api.page-token")) {
		t.Error("a restart changes what is derived")
	}
	platform, err := os.ReadFile(filepath.Join(dir, "platform.key"))
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"another purpose": derive(dir, "other"), "another platform": derive(filepath.Join(t.TempDir(), "keys"), "api.page-token"), "the platform key": platform,
	} {
		if bytes.Equal(a, b) {
			t.Errorf("%s gives the same bytes", name)
		}
	}
}
