// SPDX-License-Identifier: AGPL-3.0-only

package identity_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/ceremony"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/wire"
)

// held reads the keys that still lie with the embedded issuer, as the first recovery file holds them.
func (w *world) held() ceremony.Recovery {
	w.t.Helper()
	keys, err := w.RootKeys(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	var r ceremony.Recovery
	for _, k := range keys {
		c, err := k.Certificate()
		if err != nil {
			w.t.Fatal(err)
		}
		r.Held = append(r.Held, ceremony.Held{ID: k.ID, Role: k.Role, Cert: c, Key: k.Key})
	}
	return r
}

func (w *world) install(certs ...*x509.Certificate) {
	w.t.Helper()
	for _, c := range certs {
		if _, err := w.InstallAuthority(context.Background(), c.Raw, "host"); err != nil {
			w.t.Fatalf("%s: %v", c.Subject, err)
		}
	}
}

// ceremony makes the next root and anchor, installs them with the bridges, and publishes the bundle that names both.
func (w *world) ceremony(before ceremony.Recovery, generation int64, alg identity.Algorithm) ceremony.Recovery {
	w.t.Helper()
	after, err := ceremony.Make(ceremony.Options{Organization: "Test", Generation: generation, Algorithm: alg, Now: w.clock.Now()})
	if err != nil {
		w.t.Fatal(err)
	}
	for i := range after.Held {
		w.install(after.Held[i].Cert)
		old, err := before.Of(after.Held[i].Role)
		if err != nil {
			w.t.Fatal(err)
		}
		bridges, err := ceremony.CrossSign(old, after.Held[i], w.clock.Now())
		if err != nil {
			w.t.Fatal(err)
		}
		w.install(bridges...)
	}
	w.publish(before, after)
	return after
}

func (w *world) publish(by ...ceremony.Recovery) {
	w.t.Helper()
	draft, err := w.DraftBundle(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	signed, err := ceremony.SignBundle(draft.Bytes(), by...)
	if err == nil {
		err = w.PublishBundle(context.Background(), signed, "host")
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// next makes the role's next authority below r.
func (w *world) next(role identity.Role, alg identity.Algorithm, r ceremony.Recovery) identity.Authority {
	w.t.Helper()
	a, csr, err := w.RequestAuthority(context.Background(), role, alg, "host")
	if err != nil {
		w.t.Fatal(err)
	}
	req, err := ceremony.ParseRequest(csr)
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := r.Certify(req, w.clock.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	w.install(c)
	return a
}

func (w *world) promote(id string) {
	w.t.Helper()
	if _, err := w.PromoteAuthority(context.Background(), id, identity.Gated, "", "host"); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) status(id string) identity.Status {
	w.t.Helper()
	a, err := w.Authority(context.Background(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return a.Status
}

func refused(t *testing.T, err error, rule string) {
	t.Helper()
	if err == nil || problem.Of(err).Rule != rule {
		t.Errorf("%v, want a refusal by %s", err, rule)
	}
}

func TestFirstBundle(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		b, raw, err := w.Bundle(t.Context(), 0)
		if err != nil || b.Version != 1 || b.Bootstrap != identity.BootstrapName || len(b.Roots) != 1 || len(b.Anchors) != 1 {
			t.Fatalf("%+v, %v", b, err)
		}
		s, err := wire.ParseSignedBundle(raw)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Pin(); err != nil {
			t.Error(err)
		}
		if list, err := w.Bundles(t.Context(), 0, 10); err != nil || len(list) != 1 {
			t.Errorf("%d bundles, %v", len(list), err)
		}
		if _, _, err := w.Bundle(t.Context(), 2); !problem.Is(err, problem.KindNotFound) {
			t.Error(err)
		}
	})
}

// An acknowledgement counts for what was published, for the device's own tenant, and never goes back.
func TestAcknowledgements(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a, _, _ := w.commissioned("S1")
		b, _, _ := w.commissioned("S2")
		w.born("S3") // not in service: it counts for nothing
		w.ceremony(w.held(), 2, identity.AlgP256)
		for _, x := range []struct {
			tenant, device string
			version        int64
		}{{"ten_a", a.ID, 2}, {"ten_a", a.ID, 1}, {"ten_a", b.ID, 0}, {"ten_a", b.ID, 3}, {"ten_a", b.ID, math.MaxInt64}, {"ten_b", b.ID, 2}, {"ten_a", b.ID, 1}, {"ten_a", "dev_x", 2}} {
			if err := w.AckBundle(t.Context(), x.tenant, x.device, x.version); err != nil {
				t.Error(err)
			}
		}
		p, err := w.Progress(t.Context(), "ten_a", 2)
		if err != nil || p.Devices != 2 || p.Acknowledged != 1 || p.Behind != 1 || p.Unknown != 0 || p.Percent() != 50 {
			t.Errorf("%+v, %v", p, err)
		}
		if p, err := w.Progress(t.Context(), "ten_b", 2); err != nil || p.Devices != 0 {
			t.Errorf("another tenant: %+v, %v", p, err)
		}
		c, _, _ := w.commissioned("S4")
		p, err = w.Progress(t.Context(), "", 2)
		if err != nil || p.Devices != 3 || p.Unknown != 1 || !p.UnknownSince.Equal(t0) {
			t.Errorf("%+v, %v", p, err)
		}
		lag, err := w.Lagging(t.Context(), "ten_a", 2, "", 10)
		if err != nil || len(lag) != 2 || lag[0].Device != b.ID || lag[0].Version != 1 || lag[1].Device != c.ID || lag[1].Version != 0 {
			t.Errorf("%+v, %v", lag, err)
		}
		if lag, err = w.Lagging(t.Context(), "ten_a", 2, b.ID, 10); err != nil || len(lag) != 1 {
			t.Errorf("second page %+v, %v", lag, err)
		}
		if lag, err = w.Lagging(t.Context(), "ten_b", 2, "", 10); err != nil || len(lag) != 0 {
			t.Errorf("another tenant: %+v, %v", lag, err)
		}
	})
}

// A whole rollover: nothing below the new root signs before the devices know it, or before somebody answers for it.
func TestRollover(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		d, idevid, ldevid := w.commissioned("S1")
		other, _, _ := w.commissioned("S2")
		before := w.held()
		// Without a bundle that names the new root nobody can know it.
		after, err := ceremony.Make(ceremony.Options{Organization: "Test", Generation: 2, Algorithm: identity.AlgP384, Now: t0})
		if err != nil {
			t.Fatal(err)
		}
		w.install(after.Held[0].Cert, after.Held[1].Cert)
		op := w.next(identity.Operational, identity.AlgP384, after)
		_, err = w.PromoteAuthority(t.Context(), op.ID, identity.Gated, "", "host")
		refused(t, err, "ca.gate")
		for i, h := range before.Held {
			bridges, err := ceremony.CrossSign(h, after.Held[1-i], t0) // anchor-1 comes before root-1
			if err != nil {
				t.Fatal(err)
			}
			w.install(bridges...)
		}
		w.publish(before, after)

		if err := w.AckBundle(t.Context(), "ten_a", d.ID, 2); err != nil {
			t.Fatal(err)
		}
		_, err = w.PromoteAuthority(t.Context(), op.ID, identity.Gated, "", "host")
		refused(t, err, "ca.gate")
		if w.status("operational-1") != identity.Active || w.status(op.ID) != identity.Standby {
			t.Fatal("the gate moved something")
		}
		if _, err = w.PromoteAuthority(t.Context(), op.ID, 50, "", "host"); err != nil {
			t.Errorf("50 per cent are enough: %v", err)
		}
		srv := w.next(identity.Server, identity.AlgP256, after)
		if err := w.AckBundle(t.Context(), "ten_a", other.ID, 2); err != nil {
			t.Fatal(err)
		}
		w.promote(srv.ID)
		w.promote("root-2")
		w.promote("anchor-2")
		for id, want := range map[string]identity.Status{"operational-1": identity.Retiring, "operational-2": identity.Active, "server-1": identity.Retiring,
			"root-1": identity.Retiring, "root-2": identity.Active, "anchor-2": identity.Active} {
			if got := w.status(id); got != want {
				t.Errorf("%s is %s, want %s", id, got, want)
			}
		}

		// The old certificates are good, new ones come from the new authority, and EST clients learn of both roots.
		w.admits(ldevid)
		w.admits(idevid)
		renewed := w.issue(d.ID, identity.LDevID, newCSR(t, nil))
		if renewed.Authority != op.ID {
			t.Errorf("signed by %s", renewed.Authority)
		}
		w.admits(renewed)
		certs, err := w.CACerts(t.Context())
		if err != nil || !certs[1].Equal(after.Held[0].Cert) {
			t.Fatalf("%v, %v", certs, err)
		}
		want := map[string]int{"root-1": 1, "root-2": 1, "operational-1": 1, "operational-2": 1, "bridge": 2} // RFC 7030 4.1.3
		for _, c := range certs {
			name := ""
			for id := range want {
				if a, err := w.Authority(t.Context(), id); err == nil && bytes.Equal(a.Cert, c.Raw) {
					name = id
				}
			}
			if name == "" {
				name = "bridge"
			}
			want[name]--
		}
		for name, left := range want {
			if left != 0 {
				t.Errorf("%s: %d are missing", name, left)
			}
		}

		// Nothing retires that is in use.
		_, err = w.RetireAuthority(t.Context(), "operational-1", "host")
		refused(t, err, "ca.in-use")
		_, err = w.RetireAuthority(t.Context(), "root-1", "host")
		refused(t, err, "ca.in-use")
		w.clock.Advance(61 * 24 * time.Hour)
		for _, id := range []string{"operational-1", "server-1"} {
			if _, err := w.RetireAuthority(t.Context(), id, "host"); err != nil {
				t.Error(err)
			}
		}
		_, err = w.RetireAuthority(t.Context(), "root-1", "host")
		refused(t, err, "ca.in-use") // factory-1 is below it
		if out := auditOf(t, w.db, "authority.promoted"); len(out) != 4 {
			t.Errorf("%d entries about promotions", len(out))
		}
	})
}

// auditOf lists what the entries of a kind are about.
func auditOf(t *testing.T, db *store.DB, kind string) []string {
	t.Helper()
	rows, err := db.Query(t.Context(), `SELECT subject FROM audit_entry WHERE kind = $1 ORDER BY id`, kind)
	out, err := store.Collect(rows, err, func(r *sql.Rows) (s string, err error) { return s, r.Scan(&s) })
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// alone is a world on SQLite only, for what no database has a part in.
func alone(t *testing.T) *world { return aloneAt(t, t0) }

func aloneAt(t *testing.T, at time.Time) *world {
	t.Helper()
	hand := clock.NewHand(at)
	return newWorld(t, storetest.Open(t, storetest.SQLiteURL(t), schema, func(c *store.Config) { c.Clock = hand }), hand)
}

// Devices that were revoked as a whole acknowledge nothing any more: the gate does not wait for them, and nobody is sent after them.
func TestTheGateDoesNotWaitForTheBarred(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		d, _, _ := w.commissioned("S1")
		var out identity.Device
		w.write(func(tx *store.Tx) (err error) {
			out, err = w.Register(tx, identity.Device{Tenant: "ten_a", Product: "prd_a", Revision: "rev_a", Batch: "bat_leaked", Serial: "S2"}, "sta_a")
			return err
		})
		w.issue(out.ID, identity.IDevID, newCSR(t, nil))
		w.write(func(tx *store.Tx) error { return w.SetState(tx, "ten_a", out.ID, identity.Pending, "per_a", "") })
		w.admits(w.issue(out.ID, identity.LDevID, newCSR(t, nil)))
		op := w.next(identity.Operational, identity.AlgP256, w.ceremony(w.held(), 2, identity.AlgP256))
		if err := w.AckBundle(t.Context(), "ten_a", d.ID, 2); err != nil {
			t.Fatal(err)
		}
		_, err := w.PromoteAuthority(t.Context(), op.ID, identity.Gated, "", "host")
		refused(t, err, "ca.gate")
		w.write(func(tx *store.Tx) error {
			return errors.Join(w.Bar(tx, "ten_b", identity.ScopeBatch, "bat_leaked", "per_b", "envy"), w.Bar(tx, "ten_a", identity.ScopeBatch, "bat_other", "per_a", "leaked"))
		})
		if late, err := w.Lagging(t.Context(), "ten_a", 2, "", 10); err != nil || len(late) != 1 || late[0].Device != out.ID {
			t.Fatalf("a bar on another tenant's or another batch took it out: %+v, %v", late, err)
		}
		w.write(func(tx *store.Tx) error {
			return w.Bar(tx, "ten_a", identity.ScopeBatch, "bat_leaked", "per_a", "leaked")
		})
		if late, err := w.Lagging(t.Context(), "ten_a", 2, "", 10); err != nil || len(late) != 0 {
			t.Errorf("a revoked device lags: %+v, %v", late, err)
		}
		if _, err := w.PromoteAuthority(t.Context(), op.ID, identity.Gated, "", "host"); err != nil {
			t.Errorf("the gate waits for a revoked device: %v", err)
		}
	})
}

// A forced promotion carries its reason into the log.
func TestForcedPromotion(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.commissioned("S1")
		op := w.next(identity.Operational, identity.AlgP256, w.ceremony(w.held(), 2, identity.AlgP256))
		_, err := w.PromoteAuthority(t.Context(), op.ID, identity.Gated, "", "host")
		refused(t, err, "ca.gate")
		if _, err := w.PromoteAuthority(t.Context(), op.ID, identity.Gated, "the old key leaked", "host"); err != nil {
			t.Error(err)
		}
		if _, err := w.PromoteAuthority(t.Context(), op.ID, math.NaN(), "", "host"); err != nil {
			t.Errorf("a repeat: %v", err)
		}
		if out := auditOf(t, w.db, "authority.promoted"); !slices.Equal(out, []string{op.ID}) {
			t.Error(out)
		}
		_, err = w.PromoteAuthority(t.Context(), "operational-1", identity.Gated, "", "host")
		if !problem.Is(err, problem.KindConflict) {
			t.Errorf("a retiring authority was promoted: %v", err)
		}
	})
}

// A bundle that forgets a root in use, names a stranger or is not signed by the anchor of the one before is not published.
func TestPublishRefuses(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		before := w.held()
		stranger, err := ceremony.Make(ceremony.Options{Organization: "Mallory", Generation: 2, Algorithm: identity.AlgP256, Now: t0})
		if err != nil {
			t.Fatal(err)
		}
		good, err := w.DraftBundle(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		try := func(what string, change func(*wire.Bundle), by ...ceremony.Recovery) {
			t.Helper()
			b := good
			change(&b)
			signed, err := ceremony.SignBundle(b.Bytes(), by...)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.PublishBundle(t.Context(), signed, "host"); problem.Of(err) == nil || problem.Of(err).Rule != "ca.bundle" {
				t.Errorf("%s: %v", what, err)
			}
		}
		try("by a stranger", func(*wire.Bundle) {}, stranger)
		try("another root only", func(b *wire.Bundle) { b.Roots = [][]byte{stranger.Held[0].Cert.Raw} }, before)
		try("a root too many", func(b *wire.Bundle) { b.Roots = append(slices.Clone(b.Roots), stranger.Held[0].Cert.Raw) }, before)
		try("another anchor", func(b *wire.Bundle) { b.Anchors = [][]byte{stranger.Held[1].Cert.Raw} }, before, stranger)
		try("version 1 again", func(b *wire.Bundle) { b.Version = 1 }, before)
		try("version 3", func(b *wire.Bundle) { b.Version = 3 }, before)
		w.publish(before)
		if b, _, err := w.Bundle(t.Context(), 0); err != nil || b.Version != 2 {
			t.Errorf("%+v, %v", b, err)
		}
	})
}

// What a ceremony brings is looked at before it is believed.
func TestInstallRefuses(t *testing.T) {
	w := alone(t)
	stranger, err := ceremony.Make(ceremony.Options{Organization: "Mallory", Generation: 2, Algorithm: identity.AlgP256, Now: t0})
	if err != nil {
		t.Fatal(err)
	}
	_, csr, err := w.RequestAuthority(t.Context(), identity.Operational, identity.AlgP256, "host")
	if err != nil {
		t.Fatal(err)
	}
	req, err := ceremony.ParseRequest(csr)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := stranger.Certify(req, t0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.InstallAuthority(t.Context(), foreign.Raw, "host")
	refused(t, err, "ca.parent")
	bridges, err := ceremony.CrossSign(w.held().Held[1], stranger.Held[0], t0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.InstallAuthority(t.Context(), bridges[0].Raw, "host") // root-1 certified by a stranger
	refused(t, err, "ca.parent")
	third, err := ceremony.Make(ceremony.Options{Organization: "Test", Generation: 3, Algorithm: identity.AlgP256, Now: t0})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.InstallAuthority(t.Context(), third.Held[0].Cert.Raw, "host"); !problem.Is(err, problem.KindConflict) {
		t.Errorf("a generation was skipped: %v", err)
	}
	_, err = w.InstallAuthority(t.Context(), third.Held[0].Cert.Raw[1:], "host")
	if !problem.Is(err, problem.KindInvalid) {
		t.Error(err)
	}
	late, err := ceremony.Make(ceremony.Options{Organization: "Test", Generation: 2, Algorithm: identity.AlgP256, Now: t0.AddDate(1, 0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.InstallAuthority(t.Context(), late.Held[0].Cert.Raw, "host")
	refused(t, err, "ca.validity")
	_, leaf := w.born("S1")
	_, err = w.InstallAuthority(t.Context(), leaf.DER, "host")
	refused(t, err, "ca.profile")
}

// Whoever holds a root's key can be every authority below it: all of them end at once, and a standby one of elsewhere takes over.
func TestCompromise(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		d, idevid, ldevid := w.commissioned("S1")
		after := w.ceremony(w.held(), 2, identity.AlgP256)
		op := w.next(identity.Operational, identity.AlgP256, after)
		if _, err := w.CompromiseAuthority(t.Context(), "operational-1", "host", ""); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("without a reason: %v", err)
		}
		if _, err := w.CompromiseAuthority(t.Context(), "operational-1", "host", "stolen"); err != nil {
			t.Fatal(err)
		}
		w.refuses(ldevid, "identity.barred")
		w.admits(idevid)
		if w.status(op.ID) != identity.Active {
			t.Error("the standby authority did not take over")
		}
		w.admits(w.issue(d.ID, identity.LDevID, newCSR(t, nil)))
		if _, err := w.CompromiseAuthority(t.Context(), "root-1", "host", "stolen too"); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"root-1", "factory-1", "server-1", "operational-1"} {
			if w.status(id) != identity.Compromised {
				t.Errorf("%s is %s", id, w.status(id))
			}
		}
		w.refuses(idevid, "identity.barred")
		b, err := w.DraftBundle(t.Context())
		if err != nil || len(b.Roots) != 1 || !bytes.Equal(b.Roots[0], after.Held[0].Cert.Raw) || len(b.Bridges) != 2 {
			t.Errorf("the draft still names it: %d roots, %d bridges, %v", len(b.Roots), len(b.Bridges), err)
		}
	})
}

// The keys leave the machine only after somebody has shown that the recovery file opens; then the platform runs without.
func TestRootKeysLeave(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		keys, err := w.RootKeys(t.Context())
		if err != nil || len(keys) != 2 {
			t.Fatal(keys, err)
		}
		r := w.held()
		if r.Challenge, err = w.HandOut(t.Context(), keys, "host"); err != nil {
			t.Fatal(err)
		}
		id, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := r.Seal([]age.Recipient{id.Recipient()})
		if err != nil {
			t.Fatal(err)
		}
		opened, err := ceremony.Open(sealed, strings.NewReader(id.String()))
		if err != nil {
			t.Fatal(err)
		}
		proof, err := opened.Prove()
		if err != nil {
			t.Fatal(err)
		}
		// Proofs that prove nothing: of another challenge, without one of the keys, and under other keys.
		stranger, err := ceremony.Make(ceremony.Options{Organization: "Test", Generation: 1, Algorithm: identity.AlgP256, Now: t0})
		if err != nil {
			t.Fatal(err)
		}
		stranger.Challenge = r.Challenge
		forged, err := stranger.Prove()
		if err != nil {
			t.Fatal(err)
		}
		for what, bad := range map[string]identity.Proof{
			"another challenge": {Challenge: bytes.Repeat([]byte{1}, 32), Signatures: proof.Signatures},
			"one key only":      {Challenge: proof.Challenge, Signatures: map[string][]byte{"root-1": proof.Signatures["root-1"]}},
			"other keys":        forged,
			"nothing":           {},
		} {
			if _, err := w.RemoveRootKeys(t.Context(), bad, "host"); problem.Of(err) == nil || problem.Of(err).Rule != "ca.proof" {
				t.Errorf("%s: %v", what, err)
			}
		}
		if keys, err := w.RootKeys(t.Context()); err != nil || len(keys) != 2 {
			t.Fatalf("%d keys are left, %v", len(keys), err)
		}
		gone, err := w.RemoveRootKeys(t.Context(), proof, "host")
		if err != nil || len(gone) != 2 {
			t.Fatal(gone, err)
		}
		for _, name := range []string{"root-1.key", "anchor-1.key"} {
			if _, err := os.Stat(filepath.Join(w.dir, "ca", name)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := w.SignBundle(t.Context()); problem.Of(err) == nil || problem.Of(err).Rule != "ca.anchor-away" {
			t.Errorf("a bundle was signed without the anchor: %v", err)
		}
		o, err := w.Overview(t.Context(), "")
		if err != nil || strings.Contains(strings.Join(o.Warnings, " "), "ca root export") {
			t.Errorf("%q, %v", o.Warnings, err)
		}
		d, _, _ := w.commissioned("S1") // the authorities go on
		w.publish(opened)               // and the anchor signs where the file is
		w.promote(w.next(identity.Operational, identity.AlgP256, opened).ID)
		w.admits(w.issue(d.ID, identity.LDevID, newCSR(t, nil)))
	})
}

// A device that knows only the old root, or only the new one, reaches the platform before, during and after the
// rollover, over a real handshake; the bootstrap door shows a certificate below the anchor, and nothing else does.
func TestDoorsSendBridges(t *testing.T) {
	w := alone(t)
	get, err := w.ServerTLS([]string{"things.example"})
	if err != nil {
		t.Fatal(err)
	}
	shake := func(name string, roots ...*x509.Certificate) error {
		pool := x509.NewCertPool()
		for _, r := range roots {
			pool.AddCert(r)
		}
		client, server := net.Pipe()
		defer client.Close()
		defer server.Close()
		go tls.Server(server, &tls.Config{GetCertificate: get}).Handshake() //nolint:errcheck // the client judges
		return tls.Client(client, &tls.Config{ServerName: name, RootCAs: pool, Time: w.clock.Now}).Handshake()
	}
	first := w.held()
	oldRoot, oldAnchor := first.Held[1].Cert, first.Held[0].Cert
	expect := func(what, name string, ok bool, roots ...*x509.Certificate) {
		t.Helper()
		if err := shake(name, roots...); (err == nil) != ok {
			t.Errorf("%s: %v", what, err)
		}
	}
	expect("before", "things.example", true, oldRoot)
	expect("before, bootstrap", identity.BootstrapName, true, oldAnchor)
	expect("the door is not below the anchor", "things.example", false, oldAnchor)
	expect("the bootstrap door is not below the root", identity.BootstrapName, false, oldRoot)
	last := first
	for generation := int64(2); generation <= 3; generation++ {
		next := w.ceremony(last, generation, identity.AlgP384)
		expect("during, new root", "things.example", true, next.Held[0].Cert)
		w.promote(w.next(identity.Server, identity.AlgP256, next).ID)
		w.promote(w.next(identity.Bootstrap, identity.AlgP256, next).ID)
		w.promote(identity.AuthorityID(identity.Root, generation))
		w.promote(identity.AuthorityID(identity.Anchor, generation))
		for _, r := range []ceremony.Recovery{first, last, next} {
			root, _ := r.Of(identity.Root)
			anchor, _ := r.Of(identity.Anchor)
			expect(fmt.Sprintf("after rollover %d, %s", generation, root.ID), "things.example", true, root.Cert)
			expect(fmt.Sprintf("after rollover %d, %s", generation, anchor.ID), identity.BootstrapName, true, anchor.Cert)
		}
		last = next
	}
	stranger, err := ceremony.Make(ceremony.Options{Organization: "Test", Generation: 1, Algorithm: identity.AlgP256, Now: t0})
	if err != nil {
		t.Fatal(err)
	}
	expect("a stranger's root", "things.example", false, stranger.Held[0].Cert)
}

// The doors hand bundles to whoever asks, and say no in words.
func TestTrustDoors(t *testing.T) {
	w := alone(t)
	w.ceremony(w.held(), 2, identity.AlgP256)
	get, err := w.ServerTLS([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(gateway.Config{Admit: w.Admit, Append: func(context.Context, []gateway.Record) error { return nil }, TLS: &tls.Config{GetCertificate: get}})
	if err != nil {
		t.Fatal(err)
	}
	w.TrustDoors(g)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() { done <- g.ServeHTTPS(ctx, l) }()
	defer func() { stop(); <-done }()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.Roots())
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Time: w.clock.Now}, DisableKeepAlives: true}}
	ask := func(path, tag string) (*httptest.ResponseRecorder, []byte) {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+l.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tag != "" {
			req.Header.Set("If-None-Match", tag)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		rec := httptest.NewRecorder()
		rec.Code = resp.StatusCode
		for k, v := range resp.Header {
			rec.Header()[k] = v
		}
		if _, err := rec.Body.ReadFrom(resp.Body); err != nil {
			t.Fatal(err)
		}
		return rec, rec.Body.Bytes()
	}
	_, raw := ask("/d/1/trust/1", "")
	one, err := wire.ParseSignedBundle(raw)
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := one.Pin()
	if err != nil {
		t.Fatal(err)
	}
	newest, raw := ask("/d/1/trust", "")
	two, err := wire.ParseSignedBundle(raw)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := wire.Walk(trusted, two); err != nil || b.Version != 2 {
		t.Errorf("%+v, %v", b, err)
	}
	for path, want := range map[string]int{"/d/1/trust/2": 200, "/d/1/trust/3": 404, "/d/1/trust/0": 400, "/d/1/trust/-1": 400, "/d/1/trust/x": 400, "/d/1/trust/99999999999999999999": 400} {
		if r, _ := ask(path, ""); r.Code != want {
			t.Errorf("%s: %d, want %d", path, r.Code, want)
		}
	}
	if r, body := ask("/d/1/trust", newest.Header().Get("ETag")); r.Code != http.StatusNotModified || len(body) != 0 {
		t.Errorf("%d, %d bytes", r.Code, len(body))
	}
}
