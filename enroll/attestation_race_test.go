// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/enroll/attest"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// Two devices that show the same TPM for the first time at the very same time, at two nodes: one of them has it, and the
// other one is refused.
func TestTwoFirstProofsAtOnceLeaveTheTPMToOne(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		open := func() (*Service, *store.DB) {
			db := storetest.Open(t, url, []store.Migrations{audit.Schema, Schema})
			return &Service{cfg: Config{DB: db, Clock: clock.System}}, db
		}
		proof := func(device string) Attestation {
			return Attestation{Device: device, KeyHash: "key of " + device, Evidence: attest.Evidence{Grade: identity.GradeA, EK: "one and the same"}}
		}
		one, here := open()
		two, there := open()
		other := make(chan error, 1)
		err := here.Write(t.Context(), func(tx *store.Tx) error {
			if err := one.attested(tx, "ten_a", proof("dev_1")); err != nil {
				return err
			}
			go func() {
				other <- there.Write(t.Context(), func(tx *store.Tx) error { return two.attested(tx, "ten_a", proof("dev_2")) })
			}()
			for tx.Engine() == store.Postgres && len(other) == 0 { // until the other one is over, or waits for this one
				var waits int
				if err := tx.QueryRow(`SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid WHERE NOT l.granted AND a.datname = current_database()`).Scan(&waits); err != nil || waits > 0 {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := <-other; err == nil || problem.Of(err).Rule != RuleTPMUsed {
			t.Errorf("the other one: %v", err)
		}
		holders, err := two.Attestations(t.Context(), "ten_a", "dev_2")
		if err != nil || len(holders) != 0 {
			t.Errorf("the other one has %v (%v)", holders, err)
		}
		// Whoever has it goes on with it, with as many keys as it likes, and another tenant knows nothing of it.
		again := proof("dev_1")
		again.KeyHash = "the next key"
		if err := there.Write(t.Context(), func(tx *store.Tx) error { return two.attested(tx, "ten_a", again) }); err != nil {
			t.Error(err)
		}
		if err := there.Write(t.Context(), func(tx *store.Tx) error { return two.attested(tx, "ten_b", proof("dev_3")) }); err != nil {
			t.Error(err)
		}
	})
}

// A TPM that several devices had shown before the database held the rule stays with the first of them.
func TestATPMShownBeforeTheRuleStaysWithTheFirst(t *testing.T) {
	const rule = "migrations/0008_endorsed.sql"
	old := fstest.MapFS{}
	paths, err := fs.Glob(Schema.FS, "migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		if p != rule {
			if b, err := fs.ReadFile(Schema.FS, p); err != nil {
				t.Fatal(err)
			} else {
				old[p] = &fstest.MapFile{Data: b}
			}
		}
	}
	if len(old) != len(paths)-1 {
		t.Fatalf("%s is not among %v", rule, paths)
	}
	storetest.EachURL(t, func(t *testing.T, url string) {
		before, err := store.Open(t.Context(), store.Config{URL: url, Schema: []store.Migrations{audit.Schema, {Stage: Schema.Stage, FS: old}}})
		if err != nil {
			t.Fatal(err)
		}
		err = before.Write(t.Context(), func(tx *store.Tx) error {
			for _, a := range []struct {
				tenant, ek, device, key string
				at                      int
			}{
				{"ten_a", "lent", "dev_1", "k1", 30}, {"ten_a", "lent", "dev_2", "k2", 10}, {"ten_a", "lent", "dev_2", "k3", 40},
				{"ten_a", "own", "dev_1", "k4", 20}, {"ten_b", "lent", "dev_9", "k5", 50},
			} {
				if _, err := tx.Exec(`INSERT INTO attestation(tenant, device, key_hash, grade, ek, evidence, policy, at) VALUES ($1, $2, $3, 'A', $4, '{}', '', $5)`,
					a.tenant, a.device, a.key, a.ek, a.at); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil {
			err = before.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		after, err := store.Open(t.Context(), store.Config{URL: url, Schema: []store.Migrations{audit.Schema, Schema}})
		if err != nil {
			t.Fatal(err)
		}
		defer after.Close()
		got := ""
		rows, err := after.Query(t.Context(), `SELECT tenant, ek, device FROM endorsed ORDER BY tenant, ek`)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var tenant, ek, device string
			if err := rows.Scan(&tenant, &ek, &device); err != nil {
				t.Fatal(err)
			}
			got += tenant + " " + ek + " " + device + "\n"
		}
		if want := "ten_a lent dev_2\nten_a own dev_1\nten_b lent dev_9\n"; rows.Err() != nil || got != want {
			t.Errorf("%v, and\n%swant\n%s", rows.Err(), got, want)
		}
	})
}
