// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"context"
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/store"
)

// What a trusted CA's devices are refused for reaches whoever listens, once an hour for each reason, however many knock:
// people find out from it that a list has ended or a quota is used. What the tenant decided itself, what a stranger made
// up and what may be another tenant's is told to nobody.
func TestRefusalsOfATrustedCAAreTold(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx := context.Background()
		var told []string
		h.db.On("trusted-ca.refused", "test", func(_ context.Context, e store.Event) error {
			var x struct{ CA, Serial, Rule string }
			if err := e.Decode(&x); err != nil {
				return err
			}
			if e.Tenant != ten || e.Subject != x.CA {
				t.Errorf("told %+v", e)
			}
			told = append(told, x.Rule+" "+x.Serial)
			return nil
		})
		knock := func(c credential) {
			t.Helper()
			if code, body := h.do(&c, "GET", "/.well-known/est/cacerts", "", ""); code == 200 {
				t.Errorf("let in: %s", body)
			}
		}
		hears := func(what string, want ...string) {
			t.Helper()
			_, err := h.db.RunDue(ctx)
			h.must(err)
			if slices.Sort(told); !slices.Equal(told, want) {
				t.Errorf("%s: told %q, want %q", what, told, want)
			}
			told = nil
		}
		m := newMaker(h, "Maker")
		ca := h.trust(m, func(c *enroll.TrustedCA) { c.Quota, c.Policy.CRL.Required = 2, true })
		list := func(number int64, life time.Duration) {
			_, err := h.enroll.ImportCRL(ctx, ten, ca.ID, m.crl(number, life), owner.ID)
			h.must(err)
		}
		list(1, 48*time.Hour)
		in := m.born("J-1")
		if code, body := h.do(&in, "GET", "/.well-known/est/cacerts", "", ""); code != 200 {
			t.Fatal(code, body)
		}
		hears("one comes in")
		knock(newMaker(h, "Maker").born("F-1")) // the same name, another key
		hears("a forgery")
		h.clock.Advance(49 * time.Hour)
		for range 3 {
			knock(in)
			knock(m.born("J-2"))
		}
		hears("the list has ended", enroll.RuleCAStale+" J-1")
		h.clock.Advance(time.Hour)
		knock(m.born("J-2"))
		hears("an hour later", enroll.RuleCAStale+" J-2")
		list(2, 480*time.Hour)
		second := m.born("J-2")
		if code, body := h.do(&second, "GET", "/.well-known/est/cacerts", "", ""); code != 200 {
			t.Fatal(code, body)
		}
		knock(m.born("J-3"))
		hears("its quota is used", enroll.RuleCAClosed+" J-3")
		_, err := h.enroll.LimitTrustedCA(ctx, ten, ca.ID, 9, "more lamps", owner.ID)
		h.must(err)
		gone := h.device("J-2").ID
		h.write(func(tx *store.Tx) error {
			return h.identity.SetState(tx, ten, gone, identity.Decommissioned, owner.ID, "lost")
		})
		again := m.born("J-2") // born anew: it proves to hold its key
		knock(again)
		hears("one that was taken out of service", enroll.RuleTombstone+" J-2")
		_, err = h.enroll.MoveTrustedCA(ctx, ten, ca.ID, enroll.CASuspended, "an audit", owner.ID)
		h.must(err)
		h.clock.Advance(time.Hour)
		knock(m.born("J-4"))
		hears("the tenant suspended it")

		shared := newMaker(h, "Chip maker")
		h.trust(shared, func(c *enroll.TrustedCA) { c.Policy.Shared = true })
		knock(shared.born("X-1"))
		hears("a device that may be another tenant's")
		if n := h.count(`SELECT count(*) FROM audit_entry WHERE kind = 'trusted-ca.refused' AND subject = $1`, ca.ID); n != 1 {
			t.Errorf("%d leaves: who has not proven to hold a key leaves none", n)
		}
	})
}

// A certificate whose chain is right and that names nothing sensible is told as well, in words of its own.
func TestARefusalIsToldInItsWords(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		var text string
		h.db.On("trusted-ca.refused", "test", func(_ context.Context, e store.Event) error {
			var x struct{ Text string }
			err := e.Decode(&x)
			text = x.Text
			return err
		})
		m := newMaker(h, "Maker")
		h.trust(m, nil)
		if _, err := h.enroll.Vouch(t.Context(), []*x509.Certificate{m.born("a b").cert.Leaf}); err == nil {
			t.Error("vouched for")
		}
		if _, err := h.db.RunDue(t.Context()); err != nil || !strings.Contains(text, "serial") {
			t.Errorf("told %q (%v)", text, err)
		}
	})
}
