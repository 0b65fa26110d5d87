// SPDX-License-Identifier: AGPL-3.0-only

package identity_test

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/status"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// A platform that started with its clock years ahead, and was told the time then, shows certificates that are good now: at
// its doors and with its OCSP answers.
func TestAClockThatIsPutBack(t *testing.T) {
	onURL(t, storetest.SQLiteURL(t), func(t *testing.T, w *world, node makeNode) {
		n := node(nil)
		_, _, ldevid := n.commissioned("S1")
		authority, x := n.authorityOf(t, ldevid)
		w.clock.Set(t0.AddDate(0, 0, 59))
		get, err := n.ServerTLS([]string{"things.example"})
		if err != nil {
			t.Fatal(err)
		}
		n.ask(n.Service, authority, x.SerialNumber)
		w.clock.Set(t0)
		c, err := get(&tls.ClientHelloInfo{ServerName: "things.example"})
		if err != nil || c.Leaf.NotBefore.After(t0) {
			t.Errorf("the door shows a certificate from %s on (%v)", c.Leaf.NotBefore, err)
		}
		if r := n.ask(n.Service, authority, x.SerialNumber); r.Certificate.NotBefore.After(t0) || r.Status != ocsp.Good {
			t.Errorf("OCSP is answered (%d) under a certificate from %s on", r.Status, r.Certificate.NotBefore)
		}
	})
}

// What a clock that was ahead has signed is no list that others take. Once the clock is right the lists are signed again, with
// the next number; a base of the future stays no base. Clocks of nodes that differ a little sign nothing for it, and one that
// begins at 1970 spoils no list.
func TestListsOfAClockThatWasAhead(t *testing.T) {
	nodes(t, func(t *testing.T, w *world, node makeNode) {
		n := node(nil)
		d, _, ldevid := n.commissioned("S1")
		authority, x := n.authorityOf(t, ldevid)
		path := strings.TrimPrefix(x.CRLDistributionPoints[0], public)
		sign := func() int {
			t.Helper()
			signed, err := n.SignLists(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return signed
		}
		sign()
		first := n.list(n.Service, authority, path)
		number, seen := first.Number, map[int64]time.Time{first.Number.Int64(): first.ThisUpdate}
		good := func(what string) {
			t.Helper()
			if sign() == 0 {
				t.Errorf("%s: nothing was signed", what)
			}
			now, full := n.clock.Now(), n.list(n.Service, authority, path)
			delta := n.list(n.Service, authority, strings.Replace(path, ".crl", ".delta.crl", 1))
			if full.Number.Cmp(number) <= 0 || delta.Number.Cmp(full.Number) != 0 {
				t.Errorf("%s: from number %v to %v, the delta %v", what, number, full.Number, delta.Number)
			}
			for _, l := range []*x509.RevocationList{full, delta} {
				if l.ThisUpdate.After(now) || l.NextUpdate.Before(now) || l.NextUpdate.After(now.Add(72*time.Hour)) {
					t.Errorf("%s: at %s there is a list from %s to %s", what, now, l.ThisUpdate, l.NextUpdate)
				}
			}
			number, seen[full.Number.Int64()] = full.Number, full.ThisUpdate
			if _, on, err := status.Point(delta); err != nil || seen[on.Int64()].IsZero() || seen[on.Int64()].After(now) {
				t.Errorf("%s: the delta is on %v of %s, %v", what, on, seen[on.Int64()], err)
			}
			if again := sign(); again != 0 {
				t.Errorf("%s: %d lists are signed again for nothing", what, again)
			}
		}
		n.clock.Advance(30 * 24 * time.Hour)
		good("a month ahead")
		n.clock.Set(t0)
		if signed, err := n.SignLists(t.Context()); err == nil || signed != 0 { // it may be behind now
			t.Errorf("%d lists are signed at once, %v", signed, err)
		}
		n.clock.Advance(time.Hour)
		good("an hour after a month ahead")
		n.clock.Advance(10 * time.Hour) // no list is a day old, but one has changed
		n.write(func(tx *store.Tx) error { return n.Revoke(tx, d.Tenant, d.ID, "per_a", "lost") })
		good("ten hours ahead")
		n.clock.Set(t0)
		good("after ten hours ahead")
		n.clock.Advance(-time.Minute)
		if signed := sign(); signed != 0 {
			t.Errorf("a clock that is a minute behind signs %d lists", signed)
		}
		n.clock.Set(time.Unix(0, 0))
		if signed, err := n.SignLists(t.Context()); err == nil || signed != 0 {
			t.Errorf("in 1970 %d lists are signed, %v", signed, err)
		}
	})
}

// A machine that starts with a clock days behind, until somebody tells it the time, replaces no list that is good by one that
// has ended for everybody else: it signs none, says so, and goes on once its clock is right.
func TestAClockThatIsBehindForAWhileSpoilsNoList(t *testing.T) {
	nodes(t, func(t *testing.T, w *world, node makeNode) {
		n := node(nil)
		d, _, ldevid := n.commissioned("S1")
		authority, x := n.authorityOf(t, ldevid)
		path := strings.TrimPrefix(x.CRLDistributionPoints[0], public)
		alarm := func() string {
			t.Helper()
			st, err := n.Overdue(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return st.Alarm
		}
		n.clock.Set(t0.AddDate(0, 1, 0))
		right := n.clock.Now()
		if _, err := n.SignLists(t.Context()); err != nil {
			t.Fatal(err)
		}
		good := n.list(n.Service, authority, path)
		n.clock.Set(right.AddDate(0, 0, -3))
		n.write(func(tx *store.Tx) error { return n.Revoke(tx, d.Tenant, d.ID, "per_a", "lost") })
		for range 30 {
			if signed, err := n.SignLists(t.Context()); err == nil || signed != 0 {
				t.Fatalf("three days behind %d lists are signed, %v", signed, err)
			}
			n.clock.Advance(2 * time.Minute) // not long enough that it must be right
		}
		n.clock.Advance(-5 * time.Minute)
		first := alarm()
		if l := n.list(n.Service, authority, path); l.Number.Cmp(good.Number) != 0 || !strings.Contains(first, "behind") {
			t.Errorf("the list has number %v, the alarm is %q", l.Number, first)
		}
		n.clock.Advance(time.Minute)
		if again := alarm(); again != first {
			t.Errorf("it is told anew: %q", again)
		}
		n.clock.Set(right.Add(2 * time.Hour))
		if signed, err := n.SignLists(t.Context()); err != nil || signed == 0 || alarm() != "" {
			t.Errorf("with the right time %d are signed, %v, %q", signed, err, alarm())
		}
		if l := n.list(n.Service, authority, path); !l.ThisUpdate.After(good.ThisUpdate) || len(l.RevokedCertificateEntries) == len(good.RevokedCertificateEntries) {
			t.Errorf("from %s, %d entries", l.ThisUpdate, len(l.RevokedCertificateEntries))
		}
		n.clock.Set(right.Add(-20 * time.Hour)) // a list of then is good for everybody: it is not held back
		if signed, err := n.SignLists(t.Context()); err != nil || signed == 0 {
			t.Errorf("less than a day behind %d are signed, %v", signed, err)
		}
	})
}

// In the last week of an authority others still learn which of its certificates are good.
func TestOCSPInTheLastWeekOfAnAuthority(t *testing.T) {
	onURL(t, storetest.SQLiteURL(t), func(t *testing.T, w *world, node makeNode) {
		a, err := w.ActiveAuthority(t.Context(), identity.Operational)
		if err != nil {
			t.Fatal(err)
		}
		w.clock.Set(a.NotAfter.Add(-61 * 24 * time.Hour))
		_, _, ldevid := w.commissioned("S1")
		authority, x := w.authorityOf(t, ldevid)
		w.clock.Set(a.NotAfter.Add(-3 * 24 * time.Hour))
		n := node(nil)
		if r := n.ask(n.Service, authority, x.SerialNumber); r.Status != ocsp.Good || r.Certificate.NotAfter.After(a.NotAfter) {
			t.Errorf("%d, under a certificate until %s", r.Status, r.Certificate.NotAfter)
		}
	})
}

// authorityOf parses a certificate and the one that signed it.
func (w *world) authorityOf(t *testing.T, c identity.Certificate) (authority, x *x509.Certificate) {
	t.Helper()
	a, err := w.Authority(t.Context(), c.Authority)
	if err != nil {
		t.Fatal(err)
	}
	if authority, err = a.Certificate(); err != nil {
		t.Fatal(err)
	}
	if x, err = c.Parse(); err != nil {
		t.Fatal(err)
	}
	return authority, x
}

// The door of a node shows within a minute what another node has decided about the platform's own authorities: a successor,
// and that one is no longer trusted.
func TestADoorFollowsWhatAnotherNodeDecided(t *testing.T) {
	nodes(t, func(t *testing.T, w *world, node makeNode) {
		n := node(nil)
		get, err := n.ServerTLS([]string{"things.example"})
		if err != nil {
			t.Fatal(err)
		}
		shows := func(want string) {
			t.Helper()
			c, err := get(&tls.ClientHelloInfo{ServerName: "things.example"})
			if err != nil {
				t.Fatal(err)
			}
			a, err := w.Authority(t.Context(), want)
			if err != nil || identity.Fingerprint(c.Certificate[1]) != identity.Fingerprint(a.Cert) {
				t.Errorf("the door stands below %s, not below %s (%v)", c.Leaf.Issuer, want, err)
			}
		}
		shows("server-1")
		w.promote(w.next(identity.Server, identity.AlgP256, w.held()).ID)
		w.clock.Advance(time.Minute)
		shows("server-2")
		w.next(identity.Server, identity.AlgP256, w.held())
		if _, err := w.CompromiseAuthority(t.Context(), "server-2", "per_a", "its key leaked"); err != nil {
			t.Fatal(err)
		}
		w.clock.Advance(time.Minute)
		shows("server-3")
	})
}
