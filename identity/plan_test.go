// SPDX-License-Identifier: AGPL-3.0-only

package identity_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// What the platform asks every second, at every handshake and at each step of a large revocation costs what the question is
// about, never what the fleet is.
func TestNoQuestionReadsTheRegister(t *testing.T) {
	plans := &storetest.Plans{Big: []string{"certificate", "device", "issue_intent", "bundle_ack", "distrust"}, Few: []string{"crl_touched"}}
	hand := clock.NewHand(t0)
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		hand.Set(t0)
		w := &world{t: t, db: db, clock: hand, dir: t.TempDir()}
		keys, err := seal.Open(filepath.Join(w.dir, "keys"), hand)
		if err != nil {
			t.Fatal(err)
		}
		if w.issuer, err = embedded.Open(embedded.Config{Dir: filepath.Join(w.dir, "ca"), Keys: keys, Name: "Test", Clock: hand}); err != nil {
			t.Fatal(err)
		}
		if w.Service, err = identity.New(identity.Config{DB: db, Issuer: w.issuer, Clock: hand, PublicURL: public}); err != nil {
			t.Fatal(err)
		}
		w.fill(t)
		plans.Analyze(t, db)
		d, _, ldevid := w.commissioned("S1")
		x, err := ldevid.Parse()
		if err != nil {
			t.Fatal(err)
		}
		bar := func(scope identity.Scope, id string) func(ctx context.Context) error {
			return func(ctx context.Context) error {
				w.write(func(tx *store.Tx) error { return w.Bar(tx, "ten_a", scope, id, "per_a", "lost") })
				_, err := w.BarStep(ctx, "ten_a", scope, id)
				return err
			}
		}
		for _, q := range []struct {
			what string
			rows int
			ask  func(ctx context.Context) error
		}{
			{"the lists and their alarm", 50, func(ctx context.Context) error {
				if _, err := w.SignLists(ctx); err != nil {
					return err
				}
				_, err := w.Overdue(ctx)
				return err
			}},
			{"how the lists stand, for who looks", 3000, func(ctx context.Context) error { _, err := w.ListState(ctx, "ten_a"); return err }},
			{"a handshake", 20, func(ctx context.Context) error { _, err := w.Admit(ctx, x); return err }},
			{"a renewal and its first use", 50, func(ctx context.Context) error {
				c, _, err := w.Issue(ctx, identity.IssueRequest{Tenant: d.Tenant, Subject: d.ID, Kind: identity.LDevID, CSR: newCSR(t, nil), Actor: d.ID})
				if err == nil {
					w.admits(c)
				}
				return err
			}},
			{"an OCSP request", 20, func(ctx context.Context) error {
				_, err := w.Standing(ctx, "operational-1", x.SerialNumber)
				return err
			}},
			{"the feed of revocations", 50, func(ctx context.Context) error {
				w.write(func(tx *store.Tx) error { return w.Bar(tx, "ten_a", identity.ScopeBatch, "bat_none", "per_a", "lost") })
				return w.Look(ctx, hand.Now())
			}},
			{"the end of a device", 50, func(ctx context.Context) error {
				return w.db.WriteFirst(ctx, func(tx *store.Tx) error { return w.Revoke(tx, d.Tenant, d.ID, "per_a", "lost") })
			}},
			{"what a station brought", 200, func(ctx context.Context) error {
				_, err := w.ReachOf(ctx, "ten_a", identity.ScopeStation, "sta_3")
				return err
			}},
			{"a page of what a station made", 200, func(ctx context.Context) error {
				_, err := w.Made(ctx, "ten_a", identity.ScopeStation, "sta_3", "", 100)
				return err
			}},
			{"a page of a batch", 200, func(ctx context.Context) error {
				_, err := w.Made(ctx, "ten_a", identity.ScopeBatch, "bat_3", "", 100)
				return err
			}},
			{"a step of a station's end", 200, bar(identity.ScopeStation, "sta_3")},
			{"a step of a batch's end", 200, bar(identity.ScopeBatch, "bat_3")},
			{"a step of a trusted CA's end", 200, bar(identity.ScopeCA, "sta_4")},
			{"a step of an authority's end", 3000, bar(identity.ScopeAuthority, "operational-9")},
		} {
			plans.Check(t, db, q.what, q.rows, q.ask)
		}
		// Step by step, each certificate of the authority is reached, over all its lists and those without one.
		for {
			done, err := w.BarStep(t.Context(), "", identity.ScopeAuthority, "operational-9")
			if err != nil {
				t.Fatal(err)
			}
			if done {
				break
			}
		}
		var left int
		if err := db.QueryRow(t.Context(), `SELECT count(*) FROM certificate WHERE authority = 'operational-9' AND phase <> 'revoked'`).Scan(&left); err != nil || left != 0 {
			t.Errorf("%d certificates are left (%v)", left, err)
		}
		var spared int
		if err := db.QueryRow(t.Context(), `SELECT count(*) FROM certificate WHERE authority = 'operational-8' AND tenant = 'ten_b' AND phase = 'active'`).Scan(&spared); err != nil || spared != fillSize/4 {
			t.Errorf("%d of another authority and tenant are in service (%v)", spared, err)
		}
	}, func(c *store.Config) { c.Clock = hand }, plans.Config)
}

// fillSize is how many devices fill makes.
const fillSize = 8000

// fill makes a fleet in rows: two tenants, 400 stations and as many batches, two authorities with 40 lists each, and a fifth of
// the certificates in none.
func (w *world) fill(t *testing.T) {
	var devices, certificates, lists [][]any
	until, now := store.Millis(t0.Add(60*24*time.Hour)), store.Millis(t0)
	for i := range fillSize {
		id, tenant := fmt.Sprintf("dev_%05d", i), []string{"ten_a", "ten_a", "ten_a", "ten_b"}[i%4]
		group := i / 20
		devices = append(devices, []any{id, tenant, "prd_a", "rev_a", fmt.Sprintf("bat_%d", group), fmt.Sprintf("F%05d", i), "sol_a", "commissioned", "", "", "", "", fmt.Sprintf("sta_%d", group), "", now, now})
		shard, authority := int64(group%40+1), "operational-9"
		if i%5 == 0 {
			shard = 0
		}
		if tenant == "ten_b" {
			authority = "operational-8"
		}
		origin := ""
		if i%2 == 0 {
			origin = fmt.Sprintf("sta_%d", group)
		}
		// The fingerprints are in no order of the lists.
		certificates = append(certificates, []any{fmt.Sprintf("%08x", uint32(i)*2654435761), tenant, id, "ldevid", "active", fmt.Sprintf("%x", 1<<40+i), "key" + id, []byte{1}, now, until, now, int64(0), "", authority, origin, shard})
	}
	for _, authority := range []string{"operational-8", "operational-9"} {
		for shard := range 40 {
			lists = append(lists, []any{authority, int64(shard + 1), public, int64(1), int64(1), int64(1), now, until, until, until})
		}
	}
	for _, rows := range []struct {
		head string
		rows [][]any
	}{
		{`INSERT INTO device(id, tenant, product, revision, batch, serial, solution, state, reason, resume, firmware, grade, origin, made, created, updated)`, devices},
		{`INSERT INTO certificate(fp, tenant, subject, kind, phase, serial, key_hash, der, not_before, not_after, created, revoked, reason, authority, origin, shard)`, certificates},
		{`INSERT INTO crl(authority, shard, url, touched, signed, number, updated, until, refresh, ends)`, lists},
	} {
		w.bulk(func(tx *store.Tx) error { return tx.InsertMany(rows.head, rows.rows, ``) })
	}
}
