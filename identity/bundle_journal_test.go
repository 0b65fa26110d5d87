// SPDX-License-Identifier: AGPL-3.0-only

package identity_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/ceremony"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

func (w *world) bundleFile() string { return filepath.Join(w.dir, "journal", "bundles.jsonl") }

// bundleIs wants the newest bundle to be that one.
func (w *world) bundleIs(version int64, raw []byte) {
	w.t.Helper()
	b, have, err := w.Bundle(w.t.Context(), 0)
	if err != nil || b.Version != version || raw != nil && !bytes.Equal(have, raw) {
		w.t.Fatalf("the newest bundle is %d (the same bytes: %v), %v; want %d", b.Version, bytes.Equal(have, raw), err, version)
	}
}

// kept wants the file to hold so many bundles.
func (w *world) kept(n int) {
	w.t.Helper()
	b, err := os.ReadFile(w.bundleFile())
	if err != nil || bytes.Count(b, []byte("\n")) != n {
		w.t.Fatalf("the journal holds %d bundles, %v; want %d", bytes.Count(b, []byte("\n")), err, n)
	}
}

// TestI12_BundlesAfterARestore: yesterday's database does not know the bundle that devices have followed since. It comes back
// from the journal as it was, so its number is never given to another one, and a device that went by it does not open the
// gate of a root that it never saw.
func TestI12_BundlesAfterARestore(t *testing.T) {
	w, restore := restorable(t)
	d, _, _ := w.commissioned("S1")
	first := w.held()
	back := restore()
	w.ceremony(first, 2, identity.AlgP256)
	_, lost, err := w.Bundle(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.AckBundle(t.Context(), "ten_a", d.ID, 2); err != nil {
		t.Fatal(err)
	}
	back(nil)
	w.bundleIs(2, lost)

	// The next root comes with the next version, also when the restored register has to hear of the one before from its issuer.
	op := w.next(identity.Operational, identity.AlgP256, w.ceremony(first, 3, identity.AlgP256))
	w.bundleIs(3, nil)
	if err := w.AckBundle(t.Context(), "ten_a", d.ID, 2); err != nil {
		t.Fatal(err)
	}
	_, err = w.PromoteAuthority(t.Context(), op.ID, identity.Gated, "", "host")
	refused(t, err, "ca.gate")
	if err := w.AckBundle(t.Context(), "ten_a", d.ID, 3); err != nil {
		t.Fatal(err)
	}
	w.promote(op.ID)
	w.kept(3)
}

// TestBundleJournal: every node keeps what any of them published, also when a crash tore its last line; a bundle that no
// anchor of the version before signed does not come back, and neither does the past of another platform.
func TestBundleJournal(t *testing.T) {
	nodes(t, func(t *testing.T, w *world, node makeNode) {
		n := node(nil)
		n.kept(1)
		reopen := func() { // the same node, started again
			t.Helper()
			dir := n.dir
			n = node(func(c *identity.Config) { c.Journal = filepath.Join(dir, "journal") })
			n.dir = dir
		}
		second := w.ceremony(w.held(), 2, identity.AlgP256)
		w.kept(2)
		if err := n.KeepBundles(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.kept(2)
		torn, err := os.ReadFile(n.bundleFile())
		if err != nil {
			t.Fatal(err)
		}
		n.writeBundles(torn[:len(torn)-20])
		reopen()
		n.kept(2)
		n.writeBundles(append(bytes.Clone(torn), []byte("{}\n")...))
		if _, err := identity.New(identity.Config{DB: n.db, Issuer: n.issuer, Clock: n.clock, Journal: filepath.Dir(n.bundleFile())}); err == nil {
			t.Error("a damaged journal was taken")
		}

		evil, err := ceremony.Make(ceremony.Options{Organization: "Evil", Generation: 3, Algorithm: identity.AlgP256, Now: w.clock.Now()})
		if err != nil {
			t.Fatal(err)
		}
		draft, err := w.DraftBundle(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range evil.Held {
			if h.Role == identity.Root {
				draft.Roots = append(draft.Roots, h.Cert.Raw)
			} else {
				draft.Anchors = append(draft.Anchors, h.Cert.Raw)
			}
		}
		signed, err := ceremony.SignBundle(draft.Bytes(), evil)
		if err != nil {
			t.Fatal(err)
		}
		line, err := json.Marshal(signed)
		if err != nil {
			t.Fatal(err)
		}
		n.writeBundles(append(append(bytes.Clone(torn), line...), '\n'))
		reopen()
		n.bundleIs(2, nil)
		w.publish(second)
		n.bundleIs(3, nil)
	})
}

// TestBundlesOfAnotherPlatform: a journal that was left lying about does not move the trust of a new platform.
func TestBundlesOfAnotherPlatform(t *testing.T) {
	old := aloneAt(t, t0)
	old.ceremony(old.held(), 2, identity.AlgP256)
	raw, err := os.ReadFile(old.bundleFile())
	if err != nil {
		t.Fatal(err)
	}
	hand := clock.NewHand(t0)
	w := newWorld(t, storetest.Open(t, storetest.SQLiteURL(t), schema, func(c *store.Config) { c.Clock = hand }), hand)
	w.db = storetest.Open(t, storetest.SQLiteURL(t), schema, func(c *store.Config) { c.Clock = hand })
	w.writeBundles(raw)
	w.Service = w.open(w.db)
	w.bundleIs(1, nil)
	b, _, err := w.Bundle(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range w.held().Held {
		if r.Role == identity.Root {
			if c, err := x509.ParseCertificate(b.Roots[0]); err != nil || !c.Equal(r.Cert) {
				t.Errorf("the first bundle names %s, %v", c.Subject, err)
			}
		}
	}
}

func (w *world) writeBundles(b []byte) {
	w.t.Helper()
	if err := os.WriteFile(w.bundleFile(), b, 0o600); err != nil {
		w.t.Fatal(err)
	}
}
