// SPDX-License-Identifier: AGPL-3.0-only

package identity_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/identity/status"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

const public = "https://things.example:8443"

// makeNode starts one more register on a database: a handle and a journal of its own, the same issuer.
type makeNode func(change func(*identity.Config)) *world

// nodes runs fn on each engine with a world, which makes the first register, and what makes more.
func nodes(t *testing.T, fn func(t *testing.T, w *world, node makeNode)) {
	storetest.EachURL(t, func(t *testing.T, url string) { onURL(t, url, fn) })
}

func onURL(t *testing.T, url string, fn func(t *testing.T, w *world, node makeNode)) {
	hand := clock.NewHand(t0)
	open := func() *store.DB {
		db, err := store.Open(t.Context(), store.Config{URL: url, Schema: schema, Clock: hand})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		return db
	}
	w := newWorld(t, open(), hand)
	fn(t, w, func(change func(*identity.Config)) *world {
		t.Helper()
		n := &world{t: t, db: open(), clock: hand, issuer: w.issuer, dir: t.TempDir()}
		c := identity.Config{DB: n.db, Issuer: w.issuer, Clock: hand, Journal: filepath.Join(n.dir, "journal"), PublicURL: public, Cut: func(id, _ string) int {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.cuts = append(n.cuts, id)
			return 1
		}}
		c.CutGroup = c.Cut
		if change != nil {
			change(&c)
		}
		var err error
		if n.Service, err = identity.New(c); err != nil {
			t.Fatal(err)
		}
		return n
	})
}

// work runs the service's work until the test ends.
func (w *world) work() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Work(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
}

func (w *world) journalText() string {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.dir, "journal", "distrust.jsonl"))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// TestFeedReachesEveryNode: what two nodes write at the same time ends sessions on both, stands in both journals in the
// same order, and a node that starts later has it too.
func TestFeedReachesEveryNode(t *testing.T) {
	nodes(t, func(t *testing.T, first *world, node makeNode) {
		var ids []string
		for i := range 20 {
			d, _, _ := first.commissioned(fmt.Sprintf("S%d", i))
			ids = append(ids, d.ID)
		}
		a, b := node(nil), node(nil)
		errs := make(chan error, len(ids))
		for i, id := range ids {
			go func() {
				n := []*world{a, b}[i%2]
				errs <- n.Suspend(context.Background(), "ten_a", id, "per_a", "test")
			}()
		}
		for range ids {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range []*world{a, b} {
			n.work()
		}
		first.clock.WaitTimers(2)
		for name, n := range map[string]*world{"a": a, "b": b} {
			n.mu.Lock()
			seen := map[string]bool{}
			for _, id := range n.cuts {
				seen[id] = true
			}
			n.mu.Unlock()
			for _, id := range ids {
				if !seen[id] {
					t.Errorf("node %s did not hear of %s", name, id)
				}
			}
		}
		if a.journalText() != b.journalText() || strings.Count(a.journalText(), "\n") != len(ids) {
			t.Errorf("the journals differ:\n%s\n%s", a.journalText(), b.journalText())
		}
		if late := node(nil); late.journalText() != a.journalText() {
			t.Error("a node that starts later has another journal")
		}
	})
}

// TestDeafNode: a node that does not hear the feed admits nobody new, issues nothing, and in the end lets nobody stay.
func TestDeafNode(t *testing.T) {
	onURL(t, storetest.SQLiteURL(t), func(t *testing.T, w *world, node makeNode) {
		d, _, ldevid := w.commissioned("S1")
		n := node(func(c *identity.Config) {
			c.Stale, c.Sever = 5*time.Second, time.Minute
			c.Peers = func() []gateway.Peer { return []gateway.Peer{{Device: d.ID}} }
		})
		n.work()
		w.clock.WaitTimers(1)
		n.admits(ldevid)
		if err := n.db.Close(); err != nil { // it will not come back
			t.Fatal(err)
		}
		pass := func(turns int) {
			for range turns {
				w.clock.Advance(2 * time.Second)
				w.clock.WaitTimers(1)
			}
		}
		pass(4)
		if err := n.Ready(); !problem.Is(err, problem.KindUnavailable) {
			t.Errorf("after 8 s without the feed: %v", err)
		}
		if cuts := n.cutList(); len(cuts) != 0 {
			t.Errorf("cut at once: %v", cuts)
		}
		pass(40)
		if cuts := n.cutList(); len(cuts) != 1 || cuts[0] != d.ID {
			t.Errorf("after more than a minute: %v", cuts)
		}
	})
}

func (w *world) cutList() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.cuts...)
}

// TestSweep: whoever the register would not admit any more does not stay, even if no entry of the feed said so.
func TestSweep(t *testing.T) {
	nodes(t, func(t *testing.T, w *world, node makeNode) {
		d, _, old := w.commissioned("S1")
		e, _, good := w.commissioned("S2")
		n := node(func(c *identity.Config) {
			c.Peers = func() []gateway.Peer {
				return []gateway.Peer{{Device: d.ID, Fingerprint: old.Fingerprint}, {Device: e.ID, Fingerprint: good.Fingerprint}, {Device: "dev_x", Fingerprint: "nowhere"}}
			}
		})
		w.admits(w.issue(d.ID, identity.LDevID, newCSR(t, nil))) // the old one is superseded
		if err := n.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if cuts := n.cutList(); len(cuts) != 2 || cuts[0] != d.ID || cuts[1] != "dev_x" {
			t.Errorf("cut %v", cuts)
		}
	})
}

// TestReplayIsTriedAgain: an error of the database while a lost revocation is applied keeps the doors shut and ends
// nothing; a later try goes on.
func TestReplayIsTriedAgain(t *testing.T) {
	hand := clock.NewHand(t0)
	dir := t.TempDir()
	opt := func(c *store.Config) { c.Clock = hand }
	w := newWorld(t, storetest.Open(t, "sqlite://"+filepath.Join(dir, "a.db"), schema, opt), hand)
	d, _, _ := w.commissioned("S1")
	backup(t, filepath.Join(dir, "a.db"), filepath.Join(dir, "b.db"))
	if err := w.Suspend(t.Context(), d.Tenant, d.ID, "per_a", "clone"); err != nil {
		t.Fatal(err)
	}
	w.db = storetest.Open(t, "sqlite://"+filepath.Join(dir, "b.db"), schema, opt)
	w.write(func(tx *store.Tx) error { // the disk is full, say
		_, err := tx.Exec(`CREATE TRIGGER full BEFORE UPDATE ON device BEGIN SELECT RAISE(ABORT, 'the disk is full'); END`)
		return err
	})
	w.Service = w.open(w.db)
	w.work()
	hand.WaitTimers(1)
	if err := w.Ready(); !problem.Is(err, problem.KindUnavailable) {
		t.Fatalf("the doors are open: %v", err)
	}
	w.write(func(tx *store.Tx) error { _, err := tx.Exec(`DROP TRIGGER full`); return err })
	hand.Advance(2 * time.Second)
	hand.WaitTimers(1)
	if err := w.Ready(); err != nil {
		t.Errorf("after the disk has room again: %v", err)
	}
	if got, err := w.Get(t.Context(), d.Tenant, d.ID); err != nil || got.State != identity.Suspended {
		t.Errorf("%s %v", got.State, err)
	}
}

// TestDamagedJournal: a line that cannot be read is nothing to worry about while the database goes on after it, and stops
// the start when the database may have lost it.
func TestDamagedJournal(t *testing.T) {
	hand := clock.NewHand(t0)
	dir := t.TempDir()
	opt := func(c *store.Config) { c.Clock = hand }
	w := newWorld(t, storetest.Open(t, "sqlite://"+filepath.Join(dir, "a.db"), schema, opt), hand)
	d, _, _ := w.commissioned("S1")
	backup(t, filepath.Join(dir, "a.db"), filepath.Join(dir, "b.db"))
	for range 3 {
		if err := errors.Join(w.Suspend(t.Context(), d.Tenant, d.ID, "per_a", "a"), w.Resume(t.Context(), d.Tenant, d.ID, "per_a", "b")); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(w.dir, "journal", "distrust.jsonl")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(bytes.TrimSpace(whole), []byte("\n"))
	for _, x := range []struct {
		name string
		hurt []int
		db   string
		ok   bool
	}{
		{"a line in the middle", []int{2}, "a.db", true},
		{"the last lines, which the database has", []int{4, 5}, "a.db", true},
		{"the last line, and the database was restored", []int{5}, "b.db", false},
	} {
		var text []byte
		for i, l := range lines {
			for _, h := range x.hurt {
				if i == h {
					l = append(bytes.Repeat([]byte("x"), 20), '\n')
				}
			}
			text = append(text, l...)
		}
		if err := os.WriteFile(path, append(bytes.TrimSpace(text), '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
		db := storetest.Open(t, "sqlite://"+filepath.Join(dir, x.db), schema, opt)
		_, err := identity.New(identity.Config{DB: db, Issuer: w.issuer, Clock: hand, Journal: filepath.Dir(path)})
		if (err == nil) != x.ok {
			t.Errorf("%s: %v", x.name, err)
		}
	}
}

// TestDatabaseReplacedUnderARunningNode: a node notices that the database lost what it has followed already, shuts its
// doors, and applies it again.
func TestDatabaseReplacedUnderARunningNode(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		d, _, ldevid := w.commissioned("S1")
		w.write(func(tx *store.Tx) error { return w.Revoke(tx, d.Tenant, d.ID, "per_a", "lost") })
		w.work()
		w.clock.WaitTimers(1)
		w.write(func(tx *store.Tx) error { // what a restore does
			_, err := tx.Exec(`DELETE FROM distrust`)
			_, err2 := tx.Exec(`UPDATE feed SET n = 0, hash = ''`)
			_, err3 := tx.Exec(`UPDATE certificate SET phase = 'active', revoked = 0`)
			return errors.Join(err, err2, err3)
		})
		for range 3 { // it looks, finds out, and recovers
			w.clock.Advance(2 * time.Second)
			w.clock.WaitTimers(1)
		}
		w.refuses(ldevid, "identity.revoked")
	})
}

// ask is an OCSP client.
func (w *world) ask(s *identity.Service, authority *x509.Certificate, serial *big.Int) *ocsp.Response {
	w.t.Helper()
	der, err := ocsp.CreateRequest(&x509.Certificate{SerialNumber: serial}, authority, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/ocsp/x", nil)
	r.URL.Path = "/ocsp/" + base64.StdEncoding.EncodeToString(der)
	s.Public(http.NotFoundHandler()).ServeHTTP(rec, r)
	resp, err := ocsp.ParseResponse(rec.Body.Bytes(), authority)
	if err != nil {
		w.t.Fatalf("serial %x: %d %x: %v", serial, rec.Code, rec.Body.Bytes(), err)
	}
	return resp
}

// list fetches a revocation list and checks its signature.
func (w *world) list(s *identity.Service, authority *x509.Certificate, path string) *x509.RevocationList {
	w.t.Helper()
	rec := httptest.NewRecorder()
	s.Public(http.NotFoundHandler()).ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
	l, err := x509.ParseRevocationList(rec.Body.Bytes())
	if err == nil {
		err = l.CheckSignatureFrom(authority)
	}
	if err != nil {
		w.t.Fatalf("%s: %d %v", path, rec.Code, err)
	}
	return l
}

// TestI20_ListsAndOCSPAgreeWithTheRegister: over a random life of devices with restarts, clocks that go back, suspensions,
// bars and changes of the day, the number of each list only grows, each is good now, and complete lists, base with delta, and
// OCSP say of every certificate what the register says.
func TestI20_ListsAndOCSPAgreeWithTheRegister(t *testing.T) {
	nodes(t, func(t *testing.T, base *world, node makeNode) {
		w, hand := node(nil), base.clock
		chain, err := w.ActiveAuthority(t.Context(), identity.Operational)
		if err != nil {
			t.Fatal(err)
		}
		authority, err := chain.Certificate()
		if err != nil {
			t.Fatal(err)
		}
		rnd := rand.New(rand.NewPCG(20, 2026))
		type unit struct {
			d      identity.Device
			ldevid identity.Certificate
		}
		var units []unit
		last := map[string]*x509.RevocationList{}
		bases := map[string]*x509.RevocationList{}
		// collect is the client that fetches every complete list that was ever a base.
		collect := func() {
			for shard := 1; ; shard++ {
				path := fmt.Sprintf("/crl/%s/%d.crl", chain.ID, shard)
				rec := httptest.NewRecorder()
				if w.Public(http.NotFoundHandler()).ServeHTTP(rec, httptest.NewRequest("GET", path, nil)); rec.Code != 200 {
					return
				}
				full, delta := w.list(w.Service, authority, path), w.list(w.Service, authority, strings.Replace(path, ".crl", ".delta.crl", 1))
				if _, on, err := status.Point(delta); err == nil && on.Cmp(full.Number) == 0 {
					bases[path] = full
				}
			}
		}
		check := func() {
			t.Helper()
			for {
				n, err := w.SignLists(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if n == 0 {
					break
				}
				collect()
			}
			revoked := map[string]map[string]int{}
			for _, u := range units {
				x, err := u.ldevid.Parse()
				if err != nil {
					t.Fatal(err)
				}
				path := strings.TrimPrefix(x.CRLDistributionPoints[0], public)
				if revoked[path] != nil {
					continue
				}
				full := w.list(w.Service, authority, path)
				delta := w.list(w.Service, authority, strings.Replace(path, ".crl", ".delta.crl", 1))
				if before := last[path]; before != nil && (full.Number.Cmp(before.Number) < 0 ||
					full.Number.Cmp(before.Number) == 0 && !bytes.Equal(full.Raw, before.Raw)) {
					t.Fatalf("%s went from %v at %s to %v at %s", path, before.Number, before.ThisUpdate, full.Number, full.ThisUpdate)
				}
				if now := hand.Now(); full.ThisUpdate.After(now.Add(5*time.Minute)) || !full.NextUpdate.After(now.Add(12*time.Hour)) {
					t.Fatalf("%s is good from %s to %s, and it is %s", path, full.ThisUpdate, full.NextUpdate, now)
				}
				last[path] = full
				point, on, err := status.Point(delta)
				if err != nil || point != x.CRLDistributionPoints[0] || delta.Number.Cmp(full.Number) != 0 {
					t.Fatalf("the delta of %s: about %s, number %v of %v, %v", path, point, delta.Number, full.Number, err)
				}
				revoked[path] = entries(full)
				merged := entries(bases[path])
				if bases[path].Number.Cmp(on) != 0 {
					t.Fatalf("the delta of %s is on %v, the last base was %v", path, on, bases[path].Number)
				}
				for serial, reason := range entries(delta) {
					if merged[serial] = reason; reason == int(status.RemoveFromCRL) {
						delete(merged, serial)
					}
				}
				if fmt.Sprint(merged) != fmt.Sprint(revoked[path]) {
					t.Fatalf("base and delta say %v, the complete list %v", merged, revoked[path])
				}
			}
			for _, u := range units {
				d, err := w.Get(t.Context(), u.d.Tenant, u.d.ID)
				if err != nil {
					t.Fatal(err)
				}
				cs, err := w.Certificates(t.Context(), u.d.Tenant, u.d.ID)
				if err != nil {
					t.Fatal(err)
				}
				for _, c := range cs {
					if c.Kind != identity.LDevID {
						continue
					}
					x, err := c.Parse()
					if err != nil {
						t.Fatal(err)
					}
					_, aerr := w.Admit(t.Context(), x)
					barred := problem.Of(aerr) != nil && problem.Of(aerr).Rule == identity.RuleBarred
					want := c.Phase == identity.PhaseRevoked || d.State == identity.Suspended || d.State.Barred() || barred
					_, listed := revoked[strings.TrimPrefix(x.CRLDistributionPoints[0], public)][c.Serial]
					r := w.ask(w.Service, authority, x.SerialNumber)
					if listed != want || (r.Status == ocsp.Revoked) != want || !want && r.Status != ocsp.Good {
						t.Fatalf("%s %s, device %s: listed %v, OCSP %d, want revoked %v", c.Serial, c.Phase, d.State, listed, r.Status, want)
					}
				}
			}
			for range 3 { // whatever is not in the register is unknown, never good
				if r := w.ask(w.Service, authority, new(big.Int).SetUint64(rnd.Uint64())); r.Status != ocsp.Unknown {
					t.Fatalf("a serial number that was never issued: %d", r.Status)
				}
			}
		}
		for step := range 60 {
			var u unit
			if len(units) > 0 {
				u = units[rnd.IntN(len(units))]
			}
			switch k := rnd.IntN(12); {
			case k < 4 || u.d.ID == "":
				d, _, l := w.commissioned(fmt.Sprintf("S%d", step))
				units = append(units, unit{d, l})
			case k < 6:
				err = w.Suspend(t.Context(), u.d.Tenant, u.d.ID, "per_a", "x")
			case k < 8:
				err = w.Resume(t.Context(), u.d.Tenant, u.d.ID, "per_a", "x")
			case k == 8:
				w.write(func(tx *store.Tx) error { return w.Revoke(tx, u.d.Tenant, u.d.ID, "per_a", "x") })
			case k == 9:
				hand.Advance(time.Duration(rnd.IntN(30)-3) * time.Hour) // now and then backwards
			case k == 10:
				w = node(nil) // a restart, or another node
			case k == 11:
				hand.Advance(time.Second)
			}
			if err != nil && !problem.Is(err, problem.KindConflict) {
				t.Fatal(err)
			}
			err = nil
			if step%6 == 5 {
				check()
			}
		}
		hand.Advance(-3 * time.Hour) // and every list is signed again by a clock that is behind
		w.write(func(tx *store.Tx) error {
			return w.Bar(tx, "", identity.ScopeAuthority, chain.ID, "host", "its key leaked")
		})
		for {
			n, err := w.db.RunDue(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
		}
		check()
	})
}

func entries(l *x509.RevocationList) map[string]int {
	out := map[string]int{}
	for _, e := range l.RevokedCertificateEntries {
		out[e.SerialNumber.Text(16)] = e.ReasonCode
	}
	return out
}

// TestI20_AMillionCertificates: 1,000,000 rows in 500 shards; a few of them are revoked, exactly the touched shards are
// signed again, and every list and a sample of OCSP answers agree with the register. Set OPENTHINGS_MILLION=1 for the
// whole number (about two minutes); otherwise it is 40,000 in 20 shards.
func TestI20_AMillionCertificates(t *testing.T) {
	shards := 20
	if os.Getenv("OPENTHINGS_MILLION") != "" {
		shards = 500
	}
	onURL(t, storetest.SQLiteURL(t), func(t *testing.T, _ *world, node makeNode) { million(t, node(nil), shards) })
}

func million(t *testing.T, w *world, shards int) {
	a, err := w.ActiveAuthority(t.Context(), identity.Operational)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := a.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	serialOf := func(shard, i int) string {
		h := sha256.Sum256(fmt.Appendf(nil, "%d/%d", shard, i))
		return new(big.Int).SetBytes(h[:16]).Text(16)
	}
	const step = 500
	for shard := 1; shard <= shards; shard++ {
		w.bulk(func(tx *store.Tx) error {
			_, err := tx.Exec(`INSERT INTO crl(authority, shard, url, touched, signed, number, updated, until, refresh, ends) VALUES ($1, $2, $3, 1, 0, 0, 0, 0, 0, 0) ON CONFLICT DO NOTHING`,
				a.ID, shard, fmt.Sprintf("%s/crl/%s/%d", public, a.ID, shard))
			return err
		})
		for from := 0; from < status.PerShard; from += step {
			w.bulk(func(tx *store.Tx) error {
				for i := from; i < from+step; i++ {
					n := serialOf(shard, i)
					_, err := tx.Exec(`INSERT INTO certificate(fp, tenant, subject, kind, phase, serial, key_hash, der, not_before, not_after, created, revoked, reason, authority, origin, shard)
						VALUES ($1, 'ten_a', $2, 'ldevid', 'active', $3, $4, $5, 0, $6, 0, 0, '', $7, '', $8)`,
						"fp"+n, fmt.Sprintf("dev_%d_%d", shard, i), n, "key"+n, []byte{}, store.Millis(t0.AddDate(0, 0, 60)), a.ID, shard)
					if err != nil {
						return err
					}
				}
				return nil
			})
		}
	}
	sign := func() (n int) {
		t.Helper()
		for {
			k, err := w.SignLists(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if k == 0 {
				return n
			}
			n += k
		}
	}
	began := time.Now()
	first := sign()
	t.Logf("%d lists of %d certificates signed for the first time in %s", first, shards*status.PerShard, time.Since(began))
	if first < shards {
		t.Fatalf("%d lists", first)
	}
	rnd := rand.New(rand.NewPCG(20, 1))
	want := map[int]map[string]bool{}
	for range 30 {
		shard, i := 1+rnd.IntN(shards), rnd.IntN(status.PerShard)
		if want[shard] == nil {
			want[shard] = map[string]bool{}
		}
		want[shard][serialOf(shard, i)] = true
		w.write(func(tx *store.Tx) error { return w.RevokeRow(tx, "fp"+serialOf(shard, i)) })
	}
	began = time.Now()
	if n := sign(); n != len(want) {
		t.Errorf("%d lists were signed again, %d shards were touched", n, len(want))
	}
	t.Logf("%d touched lists signed again in %s", len(want), time.Since(began))
	total := 0
	for shard := 1; shard <= shards; shard++ {
		l := w.list(w.Service, authority, fmt.Sprintf("/crl/%s/%d.crl", a.ID, shard))
		total += len(l.RevokedCertificateEntries)
		if len(l.RevokedCertificateEntries) != len(want[shard]) || l.Number.Int64() != int64(1+min(1, len(want[shard]))) {
			t.Fatalf("shard %d lists %d of %d, number %v", shard, len(l.RevokedCertificateEntries), len(want[shard]), l.Number)
		}
		for _, e := range l.RevokedCertificateEntries {
			if !want[shard][e.SerialNumber.Text(16)] {
				t.Fatalf("shard %d lists %x", shard, e.SerialNumber)
			}
		}
	}
	for range 500 {
		shard, i := 1+rnd.IntN(shards), rnd.IntN(status.PerShard)
		serial, _ := new(big.Int).SetString(serialOf(shard, i), 16)
		if r := w.ask(w.Service, authority, serial); (r.Status == ocsp.Revoked) != want[shard][serial.Text(16)] || r.Status == ocsp.Unknown {
			t.Fatalf("OCSP says %d of %s", r.Status, serial.Text(16))
		}
	}
	t.Logf("%d revoked", total)
}

func (w *world) bulk(fn func(tx *store.Tx) error) {
	w.t.Helper()
	if err := w.db.WriteBulk(context.Background(), fn); err != nil {
		w.t.Fatal(err)
	}
}

// TestShardsStayBelowTheirSize: several nodes and restarts never put more certificates into one shard than it may have.
func TestShardsStayBelowTheirSize(t *testing.T) {
	nodes(t, func(t *testing.T, _ *world, node makeNode) {
		both := []*world{node(nil), node(nil)}
		type take struct {
			shard int64
			err   error
		}
		takes := make(chan take, 64)
		const each = 5300
		for _, n := range both {
			go func() {
				for range each {
					var k take
					k.err = n.db.Write(context.Background(), func(tx *store.Tx) (err error) {
						k.shard, err = n.TakeShard(tx, "operational-1")
						return err
					})
					takes <- k
				}
			}()
		}
		count := map[int64]int{}
		for range each * len(both) {
			k := <-takes
			if k.err != nil {
				t.Fatal(k.err)
			}
			count[k.shard]++
		}
		for shard, n := range count {
			if n > status.PerShard || shard == 0 {
				t.Errorf("shard %d has %d certificates", shard, n)
			}
		}
		if len(count) > 8 {
			t.Errorf("%d shards for %d certificates", len(count), each*len(both))
		}
	})
}

// TestI21_AlarmBeforeNextUpdate: when lists are not signed again, the alarm comes half a day before the first one ends;
// when they are, it does not come. The same holds for the OCSP responder.
func TestI21_AlarmBeforeNextUpdate(t *testing.T) {
	nodes(t, func(t *testing.T, w *world, node makeNode) {
		n := node(nil)
		n.commissioned("S1")
		sign := func() {
			t.Helper()
			if _, err := n.SignLists(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		alarm := func(want bool) {
			t.Helper()
			st, err := n.ListState(t.Context(), "ten_a")
			if err != nil || (st.Alarm != "") != want || want && !w.clock.Now().Before(st.Next) {
				t.Fatalf("at %s: %+v %v", w.clock.Now(), st, err)
			}
			toldOnToday(t, n, want)
		}
		sign()
		for range 30 { // while it is worked on, never
			w.clock.Advance(4 * time.Hour)
			sign()
			alarm(false)
		}
		w.clock.Advance(30 * time.Hour) // nobody signs any more
		alarm(false)
		w.clock.Advance(7 * time.Hour)
		alarm(true)
		sign()
		alarm(false)
	})
}

// toldOnToday wants the first page of who may read of issuers to say that the revocation lists need somebody.
func toldOnToday(t *testing.T, n *world, want bool) {
	t.Helper()
	_, pages := issuers(n.Service)
	if code, page := ask(pages, tenant.Owner, "/"); code != 200 || strings.Contains(page, "Revocation lists") != want {
		t.Errorf("Today at %s, want the alarm %v: %d %s", n.clock.Now(), want, code, page)
	}
}

// TestI21_ListsThatWereNeverSigned: a platform whose issuer does not sign from the first second on raises the alarm as soon
// as one whose issuer stopped then: on Today, and once in the log. So does one that was begun by a version that did not ask.
func TestI21_ListsThatWereNeverSigned(t *testing.T) {
	nodes(t, func(t *testing.T, w *world, node makeNode) {
		w.bulk(func(tx *store.Tx) error {
			_, err := tx.Exec(`INSERT INTO crl(authority, shard, url, touched, signed, number, updated, until, refresh, ends) VALUES ('operational-1', 4711, 'https://old.example/crl/operational-1/4711', 1, 0, 0, 0, 0, 0, 0)`)
			return err
		})
		is := &locked{Issuer: w.issuer, away: true}
		var log bytes.Buffer
		n := node(func(c *identity.Config) { c.Issuer, c.Log = is, slog.New(slog.NewTextHandler(&log, nil)) })
		var ageless int
		if err := n.db.QueryRow(t.Context(), `SELECT count(*) FROM crl WHERE until = 0`).Scan(&ageless); err != nil || ageless != 0 {
			t.Errorf("%d lists would never be missed, %v", ageless, err)
		}
		n.db.On(identity.TopicLists, "test", func(context.Context, store.Event) error { return nil })
		n.db.On(identity.TopicListsGood, "test", func(context.Context, store.Event) error { return nil })
		var said identity.ListNews
		at := func(after time.Duration, want bool) {
			t.Helper()
			w.clock.Advance(after)
			n.WorkLists(t.Context(), &said)
			st, err := n.ListState(t.Context(), "ten_a")
			if err != nil || strings.Contains(st.Alarm, "never signed") != want {
				t.Errorf("%+v %v", st, err)
			}
			toldOnToday(t, n, want)
			if strings.Contains(log.String(), "never signed") != want || want && strings.Count(log.String(), "never signed") != 1 {
				t.Errorf("the log, want the alarm once (%v): %s", want, log.String())
			}
		}
		at(0, false)
		at(35*time.Hour, false)
		at(90*time.Minute, true)
		at(time.Hour, true)
		is.away = false
		log.Reset()
		at(0, false)
		var told int
		if err := n.db.QueryRow(t.Context(), `SELECT count(*) FROM job WHERE kind = $1`, "event:"+identity.TopicLists+":test").Scan(&told); err != nil || told != 1 {
			t.Errorf("people are told %d times, %v", told, err)
		}
		n.WorkLists(t.Context(), &said)
		if err := n.db.QueryRow(t.Context(), `SELECT count(*) FROM job WHERE kind = $1`, "event:"+identity.TopicListsGood+":test").Scan(&told); err != nil || told != 1 {
			t.Errorf("people are told %d times that it is over, %v", told, err)
		}
	})
}

// locked is an issuer whose keys are out of reach for a while; its certificates and everything else are real.
type locked struct {
	*embedded.Issuer
	away bool
}

func (l *locked) Sign(ctx context.Context, r identity.SignRequest) ([]byte, error) {
	if l.away {
		return nil, errors.New("the token does not answer")
	}
	return l.Issuer.Sign(ctx, r)
}

func (l *locked) SignCRL(ctx context.Context, authority string, t *x509.RevocationList) ([]byte, error) {
	if l.away {
		return nil, errors.New("the token does not answer")
	}
	return l.Issuer.SignCRL(ctx, authority, t)
}

// TestI21_KeysOutOfReach: lists cannot be signed, and the OCSP responder raises the alarm before its
// certificate ends; meanwhile it goes on answering.
func TestI21_KeysOutOfReach(t *testing.T) {
	onURL(t, storetest.SQLiteURL(t), testKeysOutOfReach)
}

func testKeysOutOfReach(t *testing.T, w *world, node makeNode) {
	is, hand := &locked{Issuer: w.issuer}, w.clock
	n := node(func(c *identity.Config) { c.Issuer = is })
	_, _, ldevid := n.commissioned("S1")
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
	if r := n.ask(n.Service, authority, x.SerialNumber); r.Status != ocsp.Good {
		t.Fatal(r.Status)
	}
	is.away = true
	if _, err := n.SignLists(t.Context()); err == nil {
		t.Error("lists are signed without a key")
	}
	hand.Advance(5 * 24 * time.Hour) // past two thirds of its life
	if r := n.ask(n.Service, authority, x.SerialNumber); r.Status != ocsp.Good {
		t.Fatal(r.Status)
	}
	if st, err := n.ListState(t.Context(), "ten_a"); err != nil || !strings.Contains(st.Alarm, "OCSP") {
		t.Errorf("%+v %v", st, err)
	}
	is.away = false
	hand.Advance(time.Minute)
	n.ask(n.Service, authority, x.SerialNumber)
	if _, err := n.SignLists(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st, err := n.ListState(t.Context(), "ten_a"); err != nil || st.Alarm != "" {
		t.Errorf("%+v %v", st, err)
	}
}

// TestBarRevokesOneByOne: a bar is effective before its job has begun; the job goes on where it was interrupted, counts
// each certificate once and ends with one leaf; no device of the batch gets another certificate, and other tenants' are not
// touched.
func TestBarRevokesOneByOne(t *testing.T) {
	nodes(t, func(t *testing.T, w *world, node makeNode) {
		n := node(nil)
		var in []identity.Certificate
		var one identity.Device
		for i := range 4 {
			d, idevid, ldevid := n.commissioned(fmt.Sprintf("S%d", i))
			w.write(func(tx *store.Tx) error {
				_, err := tx.Exec(`UPDATE device SET batch = 'bat_1' WHERE id = $1`, d.ID)
				return err
			})
			in, one = append(in, idevid, ldevid), d
		}
		_, _, other := n.commissioned("OTHER")
		if r, err := n.ReachOf(t.Context(), "ten_a", identity.ScopeBatch, "bat_1"); err != nil || r != (identity.Reach{Devices: 4, Certificates: 8}) {
			t.Errorf("%+v %v", r, err)
		}
		if r, err := n.ReachOf(t.Context(), "ten_b", identity.ScopeBatch, "bat_1"); err != nil || r != (identity.Reach{}) {
			t.Errorf("another tenant reaches %+v %v", r, err)
		}
		n.write(func(tx *store.Tx) error { return n.Bar(tx, "ten_b", identity.ScopeBatch, "bat_1", "per_b", "envy") })
		for _, c := range in {
			n.admits(c)
		}
		before := strings.Count(n.journalText(), "\n")
		n.write(func(tx *store.Tx) error { return n.Bar(tx, "ten_a", identity.ScopeBatch, "bat_1", "per_a", "stolen") })
		for _, c := range in {
			n.refuses(c, identity.RuleBarred)
		}
		n.admits(other)
		if _, _, err := n.Issue(t.Context(), identity.IssueRequest{Tenant: one.Tenant, Subject: one.ID, Kind: identity.LDevID, CSR: newCSR(t, nil), Actor: one.ID}); problem.Of(err) == nil || problem.Of(err).Rule != identity.RuleBarred {
			t.Errorf("a barred device gets a certificate: %v", err)
		}
		for range 2 {
			if _, err := n.db.RunDue(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		b, err := n.BarOf(t.Context(), "ten_a", identity.ScopeBatch, "bat_1")
		if err != nil || b.Certificates != 8 || b.Finished.IsZero() {
			t.Errorf("%+v %v", b, err)
		}
		var leaves int
		if err := w.db.QueryRow(t.Context(), `SELECT count(*) FROM audit_entry WHERE kind = 'trust.revoked' AND tenant = 'ten_a'`).Scan(&leaves); err != nil || leaves != 1 {
			t.Errorf("%d leaves, %v", leaves, err)
		}
		if after := strings.Count(n.journalText(), "\n"); after != before+1 {
			t.Errorf("the bar has %d lines in the journal", after-before)
		}
		if bs, err := n.Bars(t.Context(), "ten_a", "", 10); err != nil || len(bs) != 1 {
			t.Errorf("%+v %v", bs, err)
		}
	})
}

// TestHostileOCSP: whatever comes to the public door is answered, briefly.
func TestHostileOCSP(t *testing.T) {
	w := newWorld(t, storetest.Open(t, storetest.SQLiteURL(t), schema), clock.NewHand(t0))
	door := w.Public(http.NotFoundHandler())
	for name, r := range map[string]*http.Request{
		"empty":     httptest.NewRequest("POST", "/ocsp", nil),
		"too long":  httptest.NewRequest("POST", "/ocsp", io.LimitReader(neverending('0'), 1<<20)),
		"no base64": httptest.NewRequest("GET", "/ocsp/%21", nil),
		"long path": httptest.NewRequest("GET", "/ocsp/"+strings.Repeat("A", 1<<17), nil),
	} {
		r.Header.Set("Content-Type", "application/ocsp-request")
		rec := httptest.NewRecorder()
		door.ServeHTTP(rec, r)
		if rec.Code != 200 || !bytes.Equal(rec.Body.Bytes(), status.Malformed) {
			t.Errorf("%s: %d %s", name, rec.Code, hex.EncodeToString(rec.Body.Bytes()))
		}
	}
	for _, r := range []*http.Request{httptest.NewRequest("PUT", "/ocsp", nil), httptest.NewRequest("POST", "/ocsp", nil)} {
		rec := httptest.NewRecorder()
		door.ServeHTTP(rec, r)
		if rec.Code < 400 {
			t.Errorf("%s: %d", r.Method, rec.Code)
		}
	}
}

type neverending byte

func (n neverending) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(n)
	}
	return len(b), nil
}

// backup copies a SQLite database as an operator does while it is in use.
func backup(t *testing.T, from, to string) {
	t.Helper()
	db, err := sql.Open("sqlite", from)
	if err == nil {
		_, err = db.Exec(`VACUUM INTO '` + to + `'`)
		err = errors.Join(err, db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}
