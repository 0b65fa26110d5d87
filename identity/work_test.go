// SPDX-License-Identifier: AGPL-3.0-only

package identity_test

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// slowLists is an issuer that is asked for a list and says nothing for a long time; all else is real.
type slowLists struct {
	*embedded.Issuer
	asked   chan struct{} // closed at the first question
	once    sync.Once
	release chan struct{}
}

func (i *slowLists) SignCRL(ctx context.Context, authority string, l *x509.RevocationList) ([]byte, error) {
	i.once.Do(func() { close(i.asked) })
	select {
	case <-i.release:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return i.Issuer.SignCRL(ctx, authority, l)
}

// A node whose issuer lets it wait for a revocation list goes on to hear what other nodes revoke: it neither misses a cut
// nor takes itself for deaf.
func TestASlowIssuerDoesNotMakeANodeDeaf(t *testing.T) {
	onURL(t, storetest.SQLiteURL(t), func(t *testing.T, w *world, node makeNode) {
		d, _, ldevid := w.commissioned("S1")
		_, _, other := w.commissioned("S2")
		cut := make(chan string, 1)
		is := &slowLists{Issuer: w.issuer, asked: make(chan struct{}), release: make(chan struct{})}
		n := node(func(c *identity.Config) {
			c.Issuer, c.Stale = is, 5*time.Second
			c.Cut = func(id, _ string) int { cut <- id; return 1 }
		})
		n.work()
		<-is.asked
		if err := w.Suspend(t.Context(), d.Tenant, d.ID, "per_a", "stolen"); err != nil {
			t.Fatal(err)
		}
		go func() { // time goes on as long as the node looks at its clock
			for range 100 {
				w.clock.WaitTimers(1)
				w.clock.Advance(time.Second)
			}
		}()
		select {
		case id := <-cut:
			if id != d.ID {
				t.Errorf("cut %s", id)
			}
			n.refuses(ldevid, "identity.state")
			n.admits(other)
		case <-time.After(time.Minute):
			t.Error("the node waits for a list and hears of no revocation")
		}
		close(is.release)
	})
}

// noLists is an issuer that signs no list of one of its authorities.
type noLists struct {
	*embedded.Issuer
	authority string
	asked     int
}

func (i *noLists) SignCRL(ctx context.Context, authority string, l *x509.RevocationList) ([]byte, error) {
	if authority == i.authority {
		i.asked++
		return nil, problem.Unavailable("The engine does not answer.")
	}
	return i.Issuer.SignCRL(ctx, authority, l)
}

// However many lists of an authority wait whose issuer is away, those of the others are signed; and it is not asked for
// each of them.
func TestAnIssuerThatIsAwayHoldsUpItsOwnListsOnly(t *testing.T) {
	nodes(t, func(t *testing.T, w *world, node makeNode) {
		is := &noLists{Issuer: w.issuer, authority: "factory-1"}
		n := node(func(c *identity.Config) { c.Issuer = is })
		d, _, ldevid := n.commissioned("S1")
		n.bulk(func(tx *store.Tx) error {
			for shard := range 250 {
				_, err := tx.Exec(`INSERT INTO crl(authority, shard, url, touched, signed, number, updated, until, refresh, ends) VALUES ('factory-1', $1, $2, 1, 0, 0, 0, 0, 0, 0)`,
					shard+1000, public+"/crl/factory-1/x")
				if err != nil {
					return err
				}
			}
			return nil
		})
		n.write(func(tx *store.Tx) error { return n.Revoke(tx, d.Tenant, d.ID, "per_a", "lost") })
		if _, err := n.SignLists(t.Context()); !problem.Is(err, problem.KindUnavailable) {
			t.Errorf("nothing is said of the issuer that is away: %v", err)
		}
		if is.asked > 3 {
			t.Errorf("the issuer that is away was asked %d times in one turn", is.asked)
		}
		a, err := n.ActiveAuthority(t.Context(), identity.Operational)
		if err != nil {
			t.Fatal(err)
		}
		authority, err := a.Certificate()
		if err != nil {
			t.Fatal(err)
		}
		x, err := ldevid.Parse()
		if err != nil {
			t.Fatal(err)
		}
		if l := n.list(n.Service, authority, x.CRLDistributionPoints[0][len(public):]); len(entries(l)) != 1 || l.RevokedCertificateEntries[0].SerialNumber.Cmp(x.SerialNumber) != 0 {
			t.Errorf("the list has %v", entries(l))
		}
	})
}

// Whoever outlived its trust is found also after the clock of the platform was wrong by years and was put back.
func TestTheSweepSurvivesAClockThatIsPutBack(t *testing.T) {
	onURL(t, storetest.SQLiteURL(t), func(t *testing.T, w *world, node makeNode) {
		d, _, old := w.commissioned("S1")
		cut := make(chan string, 1)
		now := w.clock.Now()
		w.clock.Set(now.AddDate(40, 0, 0)) // it starts with a dead clock
		n := node(func(c *identity.Config) {
			c.Peers = func() []gateway.Peer { return []gateway.Peer{{Device: d.ID, Fingerprint: old.Fingerprint}} }
			c.Cut = func(id, _ string) int { cut <- id; return 1 }
		})
		dead := w.clock.Now()
		w.clock.Set(now) // and is told the time
		w.write(func(tx *store.Tx) error { return w.RevokeRow(tx, old.Fingerprint) })
		if err := n.Look(t.Context(), dead); err != nil {
			t.Fatal(err)
		}
		select {
		case <-cut:
		default:
			t.Error("no sweep")
		}
	})
}

// What a journal holds after it was made smaller brings a suspended device back to where its suspension can end.
func TestReplayOfASmallerJournal(t *testing.T) {
	w, restore := restorable(t)
	d, _, ldevid := w.commissioned("S1")
	if err := w.Suspend(t.Context(), d.Tenant, d.ID, "per_a", "clone"); err != nil {
		t.Fatal(err)
	}
	back := restore()
	if err := errors.Join(w.Resume(t.Context(), d.Tenant, d.ID, "per_a", "no clone"), w.Suspend(t.Context(), d.Tenant, d.ID, "per_a", "a clone after all")); err != nil {
		t.Fatal(err)
	}
	back(func(lines []string) []string { return slices.Delete(lines, 1, 2) }) // the end of the first suspension
	w.refuses(ldevid, "identity.state")
	if err := w.Resume(t.Context(), d.Tenant, d.ID, "per_a", "cleared"); err != nil {
		t.Fatalf("the device cannot be resumed: %v", err)
	}
	w.admits(ldevid)
}

// The end of a suspension that a restored database never saw gives a device no more trust than that database gave it.
func TestReplayGivesNoTrust(t *testing.T) {
	w, restore := restorable(t)
	d, _ := w.born("S1")
	back := restore()
	w.write(func(tx *store.Tx) error { return w.SetState(tx, d.Tenant, d.ID, identity.Pending, "per_a", "") })
	w.admits(w.issue(d.ID, identity.LDevID, newCSR(t, nil)))
	if err := errors.Join(w.Suspend(t.Context(), d.Tenant, d.ID, "per_a", "clone"), w.Resume(t.Context(), d.Tenant, d.ID, "per_a", "no clone")); err != nil {
		t.Fatal(err)
	}
	back(nil)
	if got, err := w.Get(t.Context(), d.Tenant, d.ID); err != nil || got.State != identity.Provisioned {
		t.Errorf("a device that nobody has claimed in this database is %s (%v)", got.State, err)
	}
}
