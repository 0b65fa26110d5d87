// SPDX-License-Identifier: AGPL-3.0-only

package identity_test

import (
	"context"
	"testing"

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
