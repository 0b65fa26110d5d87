// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/ceremony"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// TestI08_OfflinePastExpiryAndTwoRolloversComesBackWithoutAHuman: a unit is switched off for years. Meanwhile its LDevID
// ends, and every root and authority is replaced twice. It comes back by itself, as itself, and follows the bundles.
func TestI08_OfflinePastExpiryAndTwoRolloversComesBackWithoutAHuman(t *testing.T) {
	for name, bridged := range map[string]bool{"with bridges, the anchor changes too": true, "without bridges, by the anchor alone": false} {
		t.Run(name, func(t *testing.T) {
			h := newPlatform(t)
			d := h.born("SN-1").on()
			if inv := d.inventory(anyInventory); inv.Bundle != 1 {
				t.Fatalf("it goes by bundle %d", inv.Bundle)
			}
			d.off()
			for generation := int64(2); generation <= 3; generation++ {
				h.hand.Advance(400 * 24 * time.Hour)
				h.rollover(generation, bridged)
			}
			h.retired(bridged)
			h.forget()
			d.on()
			if inv := d.inventory(func(inv wire.Inventory) bool { return inv.Bundle == 3 }); inv.Boot != 2 {
				t.Errorf("it came back as %+v", inv)
			}
			if asked := h.forget(); !bridged && asked[identity.BootstrapName] == 0 {
				t.Errorf("it found the way without the bootstrap door: %v", asked)
			}
			if n := h.identities(); n != 1 {
				t.Errorf("there are %d devices now", n)
			}
			if got := d.certificates(); got["idevid active"] != 1 || got["ldevid active"] != 1 || got["ldevid superseded"] != 1 || len(got) != 3 {
				t.Errorf("its certificates: %v", got)
			}
			for _, c := range ok(h.identity.Certificates(t.Context(), ten, d.id))(t) {
				if c.Kind == identity.LDevID && c.Phase == identity.PhaseActive && c.Authority != "operational-3" {
					t.Errorf("its LDevID is from %s", c.Authority)
				}
			}
			d.off()
			d.on() // and it needs the bootstrap door no more
			d.inventory(func(inv wire.Inventory) bool { return inv.Boot == 3 && inv.Bundle == 3 })
			d.off()
			if asked := h.forget(); asked[identity.BootstrapName] != 0 {
				t.Errorf("it asked at the bootstrap door again: %v", asked)
			}
		})
	}
}

// retired ends the first generations as far as the platform permits: nothing is in service below them any more.
func (h *platform) retired(bridged bool) {
	h.t.Helper()
	roles := []identity.Role{identity.Operational, identity.Server}
	if bridged {
		roles = append(roles, identity.Bootstrap)
	}
	for _, role := range roles {
		for _, generation := range []int64{1, 2} {
			ok(h.identity.RetireAuthority(h.t.Context(), identity.AuthorityID(role, generation), "host"))(h.t)
		}
	}
}

// TestTrustIsNotMovedOffTheAnchor: a platform that holds every key but the anchor's, or a stranger, offers bundles to a
// unit that has to ask. It takes none of them, keeps the one it has, and comes back as soon as the real one is offered.
func TestTrustIsNotMovedOffTheAnchor(t *testing.T) {
	h := newPlatform(t)
	d := h.born("SN-1").on()
	d.inventory(anyInventory)
	d.off()
	h.hand.Advance(24 * time.Hour)
	pinned := ok(os.ReadFile(filepath.Join(d.dir, "pin.json")))(t)
	h.rollover(2, false)
	real, signed, err := h.identity.Bundle(t.Context(), 2)
	h.must(err)
	var own wire.SignedBundle
	own, err = wire.ParseSignedBundle(signed)
	h.must(err)
	evil := ownPlatform(t)
	for name, raw := range map[string][]byte{
		"signed by a stranger's anchor":      evil.sign(wire.Bundle{Version: 2, Created: real.Created, Roots: evil.roots, Anchors: evil.anchors, Bootstrap: real.Bootstrap}),
		"its roots, the right anchor's name": evil.sign(wire.Bundle{Version: 2, Created: real.Created, Roots: evil.roots, Anchors: real.Anchors, Bootstrap: real.Bootstrap}),
		"unsigned":                           asJSON(t, wire.SignedBundle{Bundle: own.Bundle}),
		"an older one":                       pinned,
		"from the future":                    evil.sign(wire.Bundle{Version: 9, Created: real.Created, Roots: real.Roots, Anchors: real.Anchors, Bootstrap: real.Bootstrap}),
		"tampered with":                      asJSON(t, wire.SignedBundle{Bundle: replaced(own.Bundle, real.Roots[0], evil.roots[0]), Signatures: own.Signatures}),
		"not a bundle":                       []byte("<html>"),
	} {
		h.serveBundle(2, raw)
		h.forget()
		d.on()
		for asked := 0; asked < 4; { // it goes on asking, and gets no further
			if <-h.shown == identity.BootstrapName {
				asked++
			}
		}
		d.off()
		if _, err := os.Stat(filepath.Join(d.dir, "bundle.json")); err == nil {
			t.Fatalf("%s: it took the bundle", name)
		}
		for len(h.heard) > 0 {
			if r := <-h.heard; r.Topic == "inv" {
				t.Fatalf("%s: it connected", name)
			}
		}
	}
	h.serveBundle(2, signed)
	d.on()
	d.inventory(func(inv wire.Inventory) bool { return inv.Bundle == 2 })
	d.off()
	if got := d.certificates(); got["ldevid active"] != 1 || len(got) != 2 {
		t.Errorf("its certificates: %v", got)
	}
	if err := os.WriteFile(filepath.Join(d.dir, "bundle.json"), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.on() // a damaged bundle is walked to again from the one of the line
	d.inventory(func(inv wire.Inventory) bool { return inv.Bundle == 2 })
}

// serveBundle lets the platform offer raw as that version from now on.
func (h *platform) serveBundle(version int64, raw []byte) {
	h.t.Helper()
	h.must(h.db.Write(h.t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE trust_bundle SET bytes = $1 WHERE version = $2`, raw, version)
		return err
	}))
}

// stranger has a root and an anchor of its own.
type stranger struct {
	t              *testing.T
	key            *ecdsa.PrivateKey
	roots, anchors [][]byte
}

func ownPlatform(t *testing.T) stranger {
	made := ok(ceremony.Make(ceremony.Options{Organization: "Test", Generation: 2, Algorithm: identity.AlgP256, Now: time.Now()}))(t)
	s := stranger{t: t}
	for _, x := range made.Held {
		if x.Role == identity.Root {
			s.roots = append(s.roots, x.Cert.Raw)
		} else {
			s.anchors = append(s.anchors, x.Cert.Raw)
		}
		s.key = x.Key.(*ecdsa.PrivateKey) // of the anchor, which comes last
	}
	return s
}

func (s stranger) sign(b wire.Bundle) []byte {
	return asJSON(s.t, ok(wire.SignBundle(rand.Reader, b, s.key))(s.t))
}

func asJSON(t *testing.T, v any) []byte { return ok(json.Marshal(v))(t) }

// replaced puts another certificate into a bundle's bytes.
func replaced(raw []byte, old, new []byte) []byte {
	e := base64.StdEncoding.EncodeToString
	return bytes.Replace(raw, []byte(e(old)), []byte(e(new)), 1)
}

// TestCACertsAddNoTrust: EST's cacerts name an authority that no bundle vouches for; neither the door nor a certificate
// below it is believed.
func TestCACertsAddNoTrust(t *testing.T) {
	h := newHouse(t)
	u := h.born("dev_1")
	evil := newKey(t)
	tmpl := &x509.Certificate{Subject: pkix.Name{CommonName: "test root"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	root := h.signBy(evil, tmpl, nil, evil.Public(), time.Hour)
	h.set(func() { h.cacerts, h.issuer, h.issuerKey = root, root, evil })
	u.on()
	eventually(t, func() bool { h.mu.Lock(); defer h.mu.Unlock(); return h.enrolled >= 3 })
	u.off()
	if _, err := os.Stat(filepath.Join(u.dir, "next.pem")); err == nil {
		t.Error("it keeps a certificate of a stranger's authority")
	}
	h.set(func() { h.issuer, h.issuerKey = h.ca, h.caKey })
	u.on() // and cacerts that lie take nothing away either
	await(h, "inv", anyInventory)
}
