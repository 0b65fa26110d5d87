// SPDX-License-Identifier: AGPL-3.0-only

package identity_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

var (
	schema = []store.Migrations{audit.Schema, identity.Schema}
	t0     = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
)

// world is a register with a real issuer on a database.
type world struct {
	*identity.Service
	t      *testing.T
	db     *store.DB
	clock  *clock.Hand
	issuer *embedded.Issuer
	dir    string

	mu   sync.Mutex
	cuts []string
}

func newWorld(t *testing.T, db *store.DB, hand *clock.Hand) *world {
	t.Helper()
	dir := t.TempDir()
	keys, err := seal.Open(filepath.Join(dir, "keys"), hand)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, db: db, clock: hand, dir: dir}
	if w.issuer, err = embedded.Open(embedded.Config{Dir: filepath.Join(dir, "ca"), Keys: keys, Name: "Test", Clock: hand}); err != nil {
		t.Fatal(err)
	}
	w.Service = w.open(db)
	return w
}

func (w *world) open(db *store.DB) *identity.Service {
	w.t.Helper()
	s, err := identity.New(identity.Config{DB: db, Issuer: w.issuer, Clock: w.clock, Journal: filepath.Join(w.dir, "journal"), Cut: func(id, reason string) int {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.cuts = append(w.cuts, id)
		return 1
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func each(t *testing.T, fn func(t *testing.T, w *world)) {
	hand := clock.NewHand(t0)
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		hand.Set(t0)
		fn(t, newWorld(t, db, hand))
	}, func(c *store.Config) { c.Clock = hand })
}

func (w *world) write(fn func(tx *store.Tx) error) {
	w.t.Helper()
	if err := w.db.WriteFirst(context.Background(), fn); err != nil {
		w.t.Fatal(err)
	}
}

func newCSR(t testing.TB, change func(*x509.CertificateRequest)) *identity.CSR {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "whatever"}}
	if change != nil {
		change(r)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, r, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := identity.ParseCSR(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// born registers a device and gives it its IDevID.
func (w *world) born(serial string) (identity.Device, identity.Certificate) {
	w.t.Helper()
	var d identity.Device
	w.write(func(tx *store.Tx) (err error) {
		d, err = w.Register(tx, identity.Device{Tenant: "ten_a", Product: "prd_a", Revision: "rev_a", Batch: "bat_a", Serial: serial}, "sta_a")
		return err
	})
	c := w.issue(d.ID, identity.IDevID, newCSR(w.t, nil))
	return d, c
}

// commissioned is a device with an active LDevID.
func (w *world) commissioned(serial string) (d identity.Device, idevid, ldevid identity.Certificate) {
	w.t.Helper()
	d, idevid = w.born(serial)
	w.write(func(tx *store.Tx) error { return w.SetState(tx, d.Tenant, d.ID, identity.Pending, "per_a", "") })
	ldevid = w.issue(d.ID, identity.LDevID, newCSR(w.t, nil))
	w.admits(ldevid)
	return d, idevid, ldevid
}

func (w *world) issue(subject string, k identity.Kind, csr *identity.CSR) identity.Certificate {
	w.t.Helper()
	c, fresh, err := w.Issue(context.Background(), identity.IssueRequest{Tenant: "ten_a", Subject: subject, Kind: k, CSR: csr, Actor: subject})
	if err != nil || !fresh {
		w.t.Fatalf("issue %s: fresh %v, %v", k, fresh, err)
	}
	return c
}

func (w *world) admit(c identity.Certificate) (gateway.Peer, error) {
	w.t.Helper()
	x, err := c.Parse()
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := w.Admit(context.Background(), x)
	if err == nil && p.Pending {
		err = w.Used(context.Background(), p)
	}
	return p, err
}

func (w *world) admits(c identity.Certificate) {
	w.t.Helper()
	if p, err := w.admit(c); err != nil || p.Device != c.Subject || string(p.Kind) != string(c.Kind) || p.Tenant != c.Tenant || p.Fingerprint != c.Fingerprint {
		w.t.Fatalf("%s is not admitted: %+v %v", c.Kind, p, err)
	}
}

func (w *world) refuses(c identity.Certificate, rule string) {
	w.t.Helper()
	if _, err := w.admit(c); problem.Of(err) == nil || problem.Of(err).Rule != rule {
		w.t.Fatalf("%s: %v, want refusal by %s", c.Kind, err, rule)
	}
}

func (w *world) phases(subject string, k identity.Kind) (out []identity.Phase) {
	w.t.Helper()
	cs, err := w.Certificates(context.Background(), "ten_a", subject)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range cs {
		if c.Kind == k {
			out = append(out, c.Phase)
		}
	}
	return out
}

func TestLife(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		d, idevid, ldevid := w.commissioned("S1")
		x, err := idevid.Parse()
		if err != nil {
			t.Fatal(err)
		}
		if !x.NotAfter.Equal(identity.Forever) || x.Subject.SerialNumber != "S1" || len(x.URIs) != 0 {
			t.Errorf("IDevID: until %s, serialNumber %q, %v", x.NotAfter, x.Subject.SerialNumber, x.URIs)
		}
		l, err := ldevid.Parse()
		if err != nil {
			t.Fatal(err)
		}
		if want := "urn:openthings:device:ten_a:" + d.ID; len(l.URIs) != 1 || l.URIs[0].String() != want {
			t.Errorf("LDevID names %v, want %s", l.URIs, want)
		}
		if got := l.NotAfter.Sub(t0); got != 60*24*time.Hour {
			t.Errorf("LDevID lives %s", got)
		}
		for k, c := range map[identity.Kind]*x509.Certificate{identity.IDevID: x, identity.LDevID: l} {
			chain, err := w.Chain(t.Context(), k)
			if err != nil {
				t.Fatal(err)
			}
			roots, between := x509.NewCertPool(), x509.NewCertPool()
			roots.AppendCertsFromPEM(w.Roots())
			between.AppendCertsFromPEM(chain)
			if _, err := c.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: t0, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
				t.Errorf("%s: %v", k, err)
			}
		}

		// Renewal: the old one works until the new one is used.
		next := w.issue(d.ID, identity.LDevID, newCSR(t, nil))
		w.admits(ldevid)
		w.admits(next)
		w.refuses(ldevid, "identity.superseded")
		w.admits(next)
		w.admits(idevid)

		w.clock.Set(next.NotAfter)
		w.refuses(next, "identity.expired")
		w.admits(idevid)
		back := w.issue(d.ID, identity.LDevID, newCSR(t, nil))
		w.admits(back)

		ctx := context.Background()
		if err := w.Suspend(ctx, d.Tenant, d.ID, "per_a", "clone"); err != nil {
			t.Fatal(err)
		}
		w.refuses(back, "identity.state")
		w.refuses(idevid, "identity.state")
		if err := w.Resume(ctx, d.Tenant, d.ID, "per_a", "it was not"); err != nil {
			t.Fatal(err)
		}
		w.admits(back)

		w.write(func(tx *store.Tx) error {
			return w.SetState(tx, d.Tenant, d.ID, identity.Decommissioning, "per_a", "end")
		})
		w.admits(back) // it still has to be told to wipe itself
		w.refuses(idevid, "identity.state")
		w.write(func(tx *store.Tx) error {
			return errors.Join(w.SetState(tx, d.Tenant, d.ID, identity.Decommissioned, "per_a", "end"), w.Revoke(tx, d.Tenant, d.ID, "per_a", "end"))
		})
		w.refuses(back, "identity.revoked")
		w.refuses(idevid, "identity.revoked")
		if !slices.Contains(w.cuts, d.ID) {
			t.Error("no live session was cut")
		}
		for _, k := range []identity.Kind{identity.IDevID, identity.LDevID} {
			_, _, err := w.Issue(ctx, identity.IssueRequest{Tenant: d.Tenant, Subject: d.ID, Kind: k, CSR: newCSR(t, nil), Actor: d.ID})
			if problem.Of(err) == nil || problem.Of(err).Rule != "enroll.state" {
				t.Errorf("a decommissioned device gets a new %s: %v", k, err)
			}
		}
		if key, err := w.IDevIDKey(ctx, d.Tenant, d.ID); err != nil || !key.(*ecdsa.PublicKey).Equal(x.PublicKey) {
			t.Errorf("the key of birth is gone: %v", err)
		}
	})
}

// A certificate that our own authority signed and the register does not know opens nothing: a stolen CA key is not enough.
func TestAdmitNeedsTheRegister(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		d, _, ldevid := w.commissioned("S1")
		x, err := ldevid.Parse()
		if err != nil {
			t.Fatal(err)
		}
		forged := *x
		forged.SerialNumber = forged.SerialNumber.Add(forged.SerialNumber, x.SerialNumber)
		der, err := w.issuer.Sign(t.Context(), identity.SignRequest{Authority: "operational-1", Profile: "ldevid", Template: &forged, Key: x.PublicKey})
		if err != nil {
			t.Fatal(err)
		}
		w.refuses(identity.Certificate{Subject: d.ID, Kind: identity.LDevID, DER: der}, "identity.unknown")
	})
}

// What cannot be checked is refused.
func TestAdmitFailsClosed(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		_, _, ldevid := w.commissioned("S1")
		x, err := ldevid.Parse()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if p, err := w.Admit(ctx, x); !problem.Is(err, problem.KindUnavailable) {
			t.Errorf("the register could not be read, and Admit says %+v, %v", p, err)
		}
	})
}

// TestAdmitChangesNothing: a certificate that is only shown, by whomever, does not become the active one.
func TestAdmitChangesNothing(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		d, _, old := w.commissioned("S1")
		renewed := w.issue(d.ID, identity.LDevID, newCSR(t, nil))
		x, err := renewed.Parse()
		if err != nil {
			t.Fatal(err)
		}
		p, err := w.Admit(t.Context(), x)
		if err != nil || !p.Pending {
			t.Fatalf("%+v, %v", p, err)
		}
		w.admits(old)
		if err := w.Used(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		w.refuses(old, "identity.superseded")
		if p, err := w.Admit(t.Context(), x); err != nil || p.Pending {
			t.Errorf("after its first use: %+v, %v", p, err)
		}
	})
}

func TestOneKeyOneCertificate(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		d, _ := w.born("S1")
		w.write(func(tx *store.Tx) error { return w.SetState(tx, d.Tenant, d.ID, identity.Pending, "per_a", "") })
		csr := newCSR(t, nil)
		ask := func(subject string, k identity.Kind) (identity.Certificate, bool, error) {
			return w.Issue(ctx, identity.IssueRequest{Tenant: "ten_a", Subject: subject, Kind: k, CSR: csr, Actor: subject})
		}
		// The answer is lost a hundred times, eight at once: still one certificate, one of them fresh.
		var wg sync.WaitGroup
		var mu sync.Mutex
		seen, freshes := map[string]int{}, 0
		for range 8 {
			wg.Go(func() {
				for range 13 {
					c, fresh, err := ask(d.ID, identity.LDevID)
					mu.Lock()
					if err != nil {
						t.Error(err)
					}
					seen[c.Fingerprint]++
					if fresh {
						freshes++
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if len(seen) != 1 || freshes != 1 {
			t.Errorf("%d certificates, %d fresh", len(seen), freshes)
		}
		if _, _, err := ask(d.ID, identity.IDevID); err == nil {
			t.Error("one key serves two purposes")
		}
		other, _ := w.born("S2")
		w.write(func(tx *store.Tx) error { return w.SetState(tx, d.Tenant, other.ID, identity.Pending, "per_a", "") })
		if _, _, err := ask(other.ID, identity.LDevID); !problem.Is(err, problem.KindConflict) {
			t.Errorf("a clone's key: %v", err)
		}
		// A key whose certificate is revoked never gets another.
		w.write(func(tx *store.Tx) error { return w.Revoke(tx, d.Tenant, d.ID, "per_a", "lost") })
		if _, _, err := ask(d.ID, identity.LDevID); problem.Of(err) == nil || problem.Of(err).Rule != "identity.key-spent" {
			t.Errorf("a revoked key: %v", err)
		}
	})
}

// A device that never manages to use its new certificate leaves a bounded number behind.
func TestPendingIsBounded(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		d, _, _ := w.commissioned("S1")
		for range 6 {
			w.clock.Advance(time.Second)
			w.issue(d.ID, identity.LDevID, newCSR(t, nil))
		}
		want := []identity.Phase{"pending", "pending", "pending", "superseded", "superseded", "superseded", "active"}
		if got := w.phases(d.ID, identity.LDevID); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

// No device makes us issue without end.
func TestIssuesPerDay(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		d, _, _ := w.commissioned("S1")
		csr := newCSR(t, nil)
		ask := func(csr *identity.CSR) error {
			_, _, err := w.Issue(context.Background(), identity.IssueRequest{Tenant: d.Tenant, Subject: d.ID, Kind: identity.LDevID, CSR: csr, Actor: d.ID})
			return err
		}
		for range 48 {
			w.issue(d.ID, identity.LDevID, csr)
			csr = newCSR(t, nil)
		}
		if err := ask(csr); err != nil {
			t.Errorf("the fiftieth of the day: %v", err)
		}
		if err := ask(newCSR(t, nil)); !problem.Is(err, problem.KindLimited) {
			t.Errorf("one more: %v", err)
		}
		if err := ask(csr); err != nil {
			t.Errorf("a repeat: %v", err)
		}
		w.clock.Advance(25 * time.Hour)
		if err := ask(newCSR(t, nil)); err != nil {
			t.Errorf("the next day: %v", err)
		}
	})
}

// A tenant sees and touches its own devices only.
func TestTenantWall(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		d, _, _ := w.commissioned("S1")
		if _, err := w.Get(ctx, "ten_b", d.ID); !problem.Is(err, problem.KindNotFound) {
			t.Error(err)
		}
		if _, err := w.BySerial(ctx, "ten_b", d.Product, d.Serial); !problem.Is(err, problem.KindNotFound) {
			t.Error(err)
		}
		if err := w.Suspend(ctx, "ten_b", d.ID, "per_b", "x"); !problem.Is(err, problem.KindNotFound) {
			t.Error(err)
		}
		if err := w.db.Write(ctx, func(tx *store.Tx) error { return w.Revoke(tx, "ten_b", d.ID, "per_b", "x") }); !problem.Is(err, problem.KindNotFound) {
			t.Error(err)
		}
		if cs, err := w.Certificates(ctx, "ten_b", d.ID); err != nil || len(cs) != 0 {
			t.Error(cs, err)
		}
		if ds, err := w.List(ctx, "ten_b", identity.Filter{}); err != nil || len(ds) != 0 {
			t.Error(ds, err)
		}
	})
}

func TestList(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		for i := range 5 {
			w.clock.Advance(time.Millisecond)
			w.born(fmt.Sprintf("LAMP_%d%%", i)[:6])
		}
		var got []string
		for after := ""; ; {
			ds, err := w.List(ctx, "ten_a", identity.Filter{Product: "prd_a", State: identity.Provisioned, After: after, Limit: 2})
			if err != nil {
				t.Fatal(err)
			}
			if len(ds) == 0 {
				break
			}
			for _, d := range ds {
				got = append(got, d.Serial)
			}
			after = ds[len(ds)-1].ID
		}
		if want := []string{"LAMP_0", "LAMP_1", "LAMP_2", "LAMP_3", "LAMP_4"}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		last := identity.Filter{Where: func(bind func(any) string) string { return "1 = 0 OR device.serial = " + bind("LAMP_4") }}
		if ds, err := w.List(ctx, "ten_a", last); err != nil || len(ds) != 1 || ds[0].Serial != "LAMP_4" {
			t.Errorf("a condition of a later stage finds %v, %v", ds, err)
		}
		if ds, err := w.List(ctx, "ten_b", last); err != nil || len(ds) != 0 {
			t.Errorf("a condition of a later stage reaches into another tenant: %v, %v", ds, err)
		}
		if got, err := w.Tally(ctx, "ten_a", identity.Filter{Limit: 3}, "device.state"); err != nil || len(got) != 1 || got[0].Devices != 3 || got[0].Keys[0] != "provisioned" {
			t.Errorf("the first three by state: %v, %v", got, err)
		}
		if ds, err := w.List(ctx, "ten_a", identity.Filter{Products: []string{"prd_b"}, Solutions: []string{"sol_b"}}); err != nil || len(ds) != 0 {
			t.Errorf("outside the scope: %v %v", ds, err)
		}
	})
}

// What a device held for its last owner opens nothing for the next.
func TestRelease(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		d, idevid, ldevid := w.commissioned("S1")
		for _, to := range []identity.State{identity.Provisioned, identity.Pending} {
			w.write(func(tx *store.Tx) error { return w.SetState(tx, d.Tenant, d.ID, to, "per_a", "sold") })
		}
		w.refuses(ldevid, "identity.revoked")
		w.admits(idevid)
		w.admits(w.issue(d.ID, identity.LDevID, newCSR(t, nil)))
	})
}

// Yesterday's backup knows nothing of today's revocations; the journal does.
func TestRestoredBackupRevokesAgain(t *testing.T) {
	hand := clock.NewHand(t0)
	opt := func(c *store.Config) { c.Clock = hand }
	dir := t.TempDir()
	path := filepath.Join(dir, "platform.db")
	db, err := store.Open(t.Context(), store.Config{URL: "sqlite://" + path, Schema: schema, Clock: hand})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, db, hand)
	dead, deadID, deadL := w.commissioned("DEAD")
	_, _, fine := w.commissioned("FINE")
	held, _, heldL := w.commissioned("HELD")
	freed, _, freedL := w.commissioned("FREED")
	ctx := context.Background()
	if err := w.Suspend(ctx, freed.Tenant, freed.ID, "per_a", "clone"); err != nil {
		t.Fatal(err)
	}

	backup := filepath.Join(dir, "backup.db")
	raw, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Exec(`VACUUM INTO '` + backup + `'`); err != nil {
		t.Fatal(err)
	}
	raw.Close()
	w.write(func(tx *store.Tx) error {
		return errors.Join(w.SetState(tx, dead.Tenant, dead.ID, identity.Decommissioned, "per_a", "end"), w.Revoke(tx, dead.Tenant, dead.ID, "per_a", "end"))
	})
	if err := errors.Join(w.Suspend(ctx, held.Tenant, held.ID, "per_a", "clone"), w.Resume(ctx, freed.Tenant, freed.ID, "per_a", "no clone")); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	w.db = storetest.Open(t, "sqlite://"+backup, schema, opt)
	w.Service = w.open(w.db)
	for _, c := range []identity.Certificate{deadL, deadID, fine, heldL} { // shut for all until it is replayed
		x, err := c.Parse()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Admit(ctx, x); !problem.Is(err, problem.KindUnavailable) {
			t.Fatalf("the doors are open before the replay: %v", err)
		}
	}
	if err := w.Recover(ctx); err != nil {
		t.Fatal(err)
	}
	w.refuses(deadL, "identity.revoked")
	w.refuses(deadID, "identity.revoked")
	w.refuses(heldL, "identity.state")
	w.admits(fine)
	w.admits(freedL)
	if d, err := w.Get(ctx, dead.Tenant, dead.ID); err != nil || d.State != identity.Decommissioned {
		t.Errorf("%s %v", d.State, err)
	}
	if err := w.Resume(ctx, held.Tenant, held.ID, "per_a", "no clone"); err != nil {
		t.Error(err)
	}
	w.admits(heldL)
	var n int
	if err := w.db.QueryRow(ctx, `SELECT count(*) FROM audit_entry WHERE kind = 'distrust.replayed'`).Scan(&n); err != nil || n != 4 {
		t.Errorf("%d replays in the audit log (%v)", n, err)
	}
	w.db = storetest.Open(t, "sqlite://"+backup, schema, opt) // now file and database agree
	w.Service = w.open(w.db)
	w.admits(fine)
}

// A crash between commit and append loses nothing: the row is written to the file at the next start. A torn line is cut.
func TestJournalCatchesUp(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		w := newWorld(t, storetest.Open(t, url, schema), clock.NewHand(t0))
		d, _, _ := w.commissioned("S1")
		w.write(func(tx *store.Tx) error { return w.Revoke(tx, d.Tenant, d.ID, "per_a", "lost") })
		path := filepath.Join(w.dir, "journal", "distrust.jsonl")
		whole, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(whole), d.ID) {
			t.Fatalf("the journal lacks the revocation: %s %v", whole, err)
		}
		if err := os.WriteFile(path, whole[:len(whole)-7], 0o600); err != nil {
			t.Fatal(err)
		}
		again := storetest.Open(t, url, schema)
		w.open(again)
		if got, err := os.ReadFile(path); err != nil || string(got) != string(whole) {
			t.Errorf("the journal is %q, want %q (%v)", got, whole, err)
		}
	})
}

// flaky is an issuer whose answers are lost, and that keeps what it was told.
type flaky struct {
	*embedded.Issuer
	lose bool
	lost [][]byte

	mu      sync.Mutex // guards revoked
	revoked []string
}

func (f *flaky) Sign(ctx context.Context, r identity.SignRequest) ([]byte, error) {
	der, err := f.Issuer.Sign(ctx, r)
	if f.lose && err == nil {
		f.lost = append(f.lost, der)
		return nil, errors.New("the power went")
	}
	return der, err
}

func (f *flaky) Revoke(_ context.Context, _ string, serial *big.Int, _ time.Time) error {
	if f.lose {
		return errors.New("out of reach")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revoked = append(f.revoked, serial.Text(16))
	return nil
}

// A crash between signing and storing leaves no certificate that opens anything, and the same request has the same
// outcome afterwards. The issuer hears of revocations, however late.
func TestIssuerFails(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		hand := clock.NewHand(t0)
		old := newWorld(t, storetest.Open(t, url, schema), hand)
		d, _, _ := old.commissioned("S1")
		w := &world{t: t, db: storetest.Open(t, url, schema, func(c *store.Config) { c.Clock = hand }), clock: hand, issuer: old.issuer, dir: t.TempDir()}
		is := &flaky{Issuer: old.issuer, lose: true}
		var err error
		if w.Service, err = identity.New(identity.Config{DB: w.db, Issuer: is, Clock: hand}); err != nil {
			t.Fatal(err)
		}
		ctx, csr := context.Background(), newCSR(t, nil)
		ask := identity.IssueRequest{Tenant: d.Tenant, Subject: d.ID, Kind: identity.LDevID, CSR: csr, Actor: d.ID}
		if _, _, err := w.Issue(ctx, ask); !problem.Is(err, problem.KindUnavailable) {
			t.Fatalf("%v", err)
		}
		w.refuses(identity.Certificate{Kind: identity.LDevID, DER: is.lost[0]}, "identity.unknown")
		hand.Advance(time.Hour)
		is.lose = false
		c := w.issue(d.ID, identity.LDevID, csr)
		lost, err := x509.ParseCertificate(is.lost[0])
		if err != nil {
			t.Fatal(err)
		}
		if c.Serial != lost.SerialNumber.Text(16) || !c.NotAfter.Equal(lost.NotAfter) {
			t.Errorf("after the crash the certificate is %s until %s, was %s until %s", c.Serial, c.NotAfter, lost.SerialNumber.Text(16), lost.NotAfter)
		}
		w.admits(c)

		is.lose = true
		w.write(func(tx *store.Tx) error { return w.Revoke(tx, d.Tenant, d.ID, "per_a", "lost") })
		w.refuses(c, "identity.revoked")
		if _, err := w.db.RunDue(ctx); err != nil {
			t.Fatal(err)
		}
		is.lose = false
		hand.Advance(time.Hour)
		if _, err := w.db.RunDue(ctx); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(is.revoked, c.Serial) {
			t.Errorf("the issuer was told of %v, not of %s", is.revoked, c.Serial)
		}
	})
}

func TestServerCertificate(t *testing.T) {
	w := newWorld(t, storetest.Open(t, storetest.SQLiteURL(t), schema), clock.NewHand(t0))
	get, err := w.ServerTLS([]string{"things.example", "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(w.Roots()) {
		t.Fatal("no root")
	}
	check := func() string {
		c, err := get(&tls.ClientHelloInfo{ServerName: "things.example"})
		if err != nil {
			t.Fatal(err)
		}
		between := x509.NewCertPool()
		x, err := x509.ParseCertificate(c.Certificate[1])
		if err != nil {
			t.Fatal(err)
		}
		between.AddCert(x)
		for _, host := range []string{"things.example", "127.0.0.1"} {
			if _, err := c.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: between, CurrentTime: w.clock.Now()}); err != nil {
				t.Error(err)
			}
		}
		return identity.Fingerprint(c.Certificate[0])
	}
	first := check()
	w.clock.Advance(19 * 24 * time.Hour)
	if check() != first {
		t.Error("renewed before two thirds of its life")
	}
	w.clock.Advance(2 * 24 * time.Hour)
	if check() == first {
		t.Error("not renewed after two thirds of its life")
	}
}

// What an authority, a station or a batch brought is refused as a whole from the commit of the bar on, and all else is not.
func TestBar(t *testing.T) {
	for _, scope := range []identity.Scope{identity.ScopeAuthority, identity.ScopeBatch} {
		each(t, func(t *testing.T, w *world) {
			d, idevid, ldevid := w.commissioned("S1")
			w.admits(idevid)
			w.admits(ldevid)
			id := map[identity.Scope]string{identity.ScopeAuthority: ldevid.Authority, identity.ScopeBatch: d.Batch}[scope]
			w.write(func(tx *store.Tx) error {
				return errors.Join(w.Bar(tx, "ten_a", scope, id, "per_1", "stolen"), w.Bar(tx, "ten_a", identity.ScopeStation, "sta_other", "per_1", "stolen"))
			})
			w.refuses(ldevid, "identity.barred")
			if scope == identity.ScopeBatch {
				w.refuses(idevid, "identity.barred")
			} else {
				w.admits(idevid)
			}
		})
	}
}
