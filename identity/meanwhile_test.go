// SPDX-License-Identifier: AGPL-3.0-only

package identity_test

import (
	"context"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// Whoever asked for the next certificate just before the one in hand was revoked does not get it just after.
func TestNothingIsIssuedOnARevokedCertificate(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		d, _, ldevid := w.commissioned("D1")
		r := identity.IssueRequest{Tenant: d.Tenant, Subject: d.ID, Kind: identity.LDevID, CSR: newCSR(t, nil), Actor: d.ID, With: ldevid.Fingerprint}
		var in identity.Intent
		w.write(func(tx *store.Tx) (err error) {
			in, err = w.Intend(tx, r)
			return err
		})
		w.write(func(tx *store.Tx) error { return w.Revoke(tx, d.Tenant, d.ID, "per_a", "its key was lost") })
		if _, _, err := w.Complete(context.Background(), r, in); problem.Of(err).Rule != "identity.revoked" {
			t.Errorf("issued: %v", err)
		}
		if got := w.phases(d.ID, identity.LDevID); len(got) != 1 || got[0] != identity.PhaseRevoked {
			t.Errorf("the register has %v", got)
		}
	})
}

// Only a resumption ends a suspension, and only into the state that was left.
func TestASuspensionEndsWhereItBegan(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		d, _ := w.born("D1")
		ctx := context.Background()
		if err := w.Suspend(ctx, d.Tenant, d.ID, "per_a", "stolen"); err != nil {
			t.Fatal(err)
		}
		err := w.db.Write(ctx, func(tx *store.Tx) error { return w.SetState(tx, d.Tenant, d.ID, identity.Pending, "per_b", "") })
		if !problem.Is(err, problem.KindConflict) {
			t.Errorf("claimed: %v", err)
		}
		if err := w.Resume(ctx, d.Tenant, d.ID, "per_a", "found"); err != nil {
			t.Error(err)
		}
	})
}

// Two certificates of a device that are used for the first time at the very same time, on two nodes, do not both stay: a
// clone that asked beside the device would live on beside it.
func TestTwoFirstUsesAtOnceLeaveOneInService(t *testing.T) {
	nodes(t, func(t *testing.T, w *world, node makeNode) {
		n := node(nil)
		d, _ := w.born("D1")
		w.write(func(tx *store.Tx) error { return w.SetState(tx, d.Tenant, d.ID, identity.Pending, "per_a", "") })
		one := w.issue(d.ID, identity.LDevID, newCSR(t, nil))
		w.clock.Advance(time.Second)
		two := w.issue(d.ID, identity.LDevID, newCSR(t, nil))
		done := make(chan error, 1)
		w.write(func(tx *store.Tx) error {
			if err := identity.Activate(tx, d.Tenant, d.ID, one.Fingerprint); err != nil {
				return err
			}
			go func() {
				done <- n.db.Write(context.Background(), func(tx *store.Tx) error { return identity.Activate(tx, d.Tenant, d.ID, two.Fingerprint) })
			}()
			for tx.Engine() == store.Postgres && len(done) == 0 { // until the other one is over, or waits for this one
				var waits int
				if err := tx.QueryRow(`SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid WHERE NOT l.granted AND a.datname = current_database()`).Scan(&waits); err != nil || waits > 0 {
					return err
				}
			}
			return nil
		})
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		active := 0
		for _, p := range w.phases(d.ID, identity.LDevID) {
			if p == identity.PhaseActive {
				active++
			}
		}
		if active != 1 {
			t.Errorf("%d certificates are in service", active)
		}
	})
}

// A request that the platform decided about long ago and never answered, since its issuer was away or it died, is decided
// about anew: the certificate is good from now on, and who signs now has signed it.
func TestAnOldDecisionIsMadeAnew(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		d, _, _ := w.commissioned("D1")
		request := func() identity.IssueRequest {
			r := identity.IssueRequest{Tenant: d.Tenant, Subject: d.ID, Kind: identity.LDevID, CSR: newCSR(t, nil), Actor: d.ID}
			w.write(func(tx *store.Tx) error {
				_, err := w.Intend(tx, r)
				return err
			})
			return r
		}
		old := request()
		w.clock.Advance(70 * 24 * time.Hour)
		c, fresh, err := w.Issue(t.Context(), old)
		if err != nil || !fresh {
			t.Fatalf("new %v, %v", fresh, err)
		}
		if left := c.NotAfter.Sub(w.clock.Now()); left != 60*24*time.Hour {
			t.Errorf("it ends in %s", left)
		}
		w.admits(c)
		if again, fresh, err := w.Issue(t.Context(), old); err != nil || fresh || again.Fingerprint != c.Fingerprint {
			t.Errorf("the repeat: new %v, %v", fresh, err)
		}

		waiting := request()
		w.promote(w.next(identity.Operational, identity.AlgP256, w.held()).ID)
		if c, _, err = w.Issue(t.Context(), waiting); err != nil || c.Authority != "operational-2" {
			t.Errorf("signed by %s, which signs nothing new (%v)", c.Authority, err)
		}
		w.admits(c)
	})
}
