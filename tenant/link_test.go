// SPDX-License-Identifier: AGPL-3.0-only

package tenant

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// TestLinkIsUsedOnce holds a link open twice, as two browsers do at the same moment: the transaction decides.
func TestLinkIsUsedOnce(t *testing.T) {
	storetest.Each(t, []store.Migrations{audit.Schema, Schema}, func(t *testing.T, db *store.DB) {
		s, err := New(Config{DB: db, Clock: clock.NewHand(time.Unix(1e9, 0)), Log: slog.New(slog.DiscardHandler), Origins: []string{"https://localhost"}})
		if err != nil {
			t.Fatal(err)
		}
		var path string
		err = db.Write(t.Context(), func(tx *store.Tx) error {
			ten, err := s.ensureTenant(tx, "Acme", KindHost, true)
			if err != nil {
				return err
			}
			path, err = s.Invite(tx, KindHost, "Ada", Grant{Role: Auditor, Tenant: ten.ID})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		var links [2]link
		for i := range links {
			if links[i], err = s.openLink(t.Context(), strings.TrimPrefix(path, "/enter/")); err != nil {
				t.Fatal(err)
			}
		}
		enter := func(l link, handle byte) error {
			return db.Write(t.Context(), func(tx *store.Tx) error {
				_, err := s.join(tx, l, "", Person{Name: "Ada", handle: []byte{handle}})
				return err
			})
		}
		if err := enter(links[0], 1); err != nil {
			t.Fatal(err)
		}
		if err := enter(links[1], 2); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("a second person came in: %v", err)
		}
		if n, err := count(s.reading(t.Context()), `SELECT COUNT(*) FROM person`); err != nil || n != 1 {
			t.Errorf("%d people (%v)", n, err)
		}
	})
}

// TestNoWayBackIn: an invitation that somebody made ends when they are removed, get other roles, or their token is
// revoked.
func TestNoWayBackIn(t *testing.T) {
	storetest.Each(t, []store.Migrations{audit.Schema, Schema}, func(t *testing.T, db *store.DB) {
		clk := clock.NewHand(time.Unix(1e9, 0))
		s, err := New(Config{DB: db, Clock: clk, Log: slog.New(slog.DiscardHandler), Origins: []string{"https://localhost"}})
		if err != nil {
			t.Fatal(err)
		}
		var ten Tenant
		owner := func(tx *store.Tx, id string) error {
			if err := insertPerson(tx, Person{ID: id, Tenant: ten.ID, Name: id, At: clk.Now(), handle: []byte(id)}); err != nil {
				return err
			}
			return insertGrant(tx, id, Grant{Role: Owner, Tenant: ten.ID})
		}
		var tok Token
		err = db.Write(t.Context(), func(tx *store.Tx) (err error) {
			if ten, err = s.ensureTenant(tx, "Acme", KindHost, true); err != nil {
				return err
			}
			for _, id := range []string{"per_stays", "per_goes", "per_sinks"} {
				if err := owner(tx, id); err != nil {
					return err
				}
			}
			tok, _, err = s.CreateToken(tx, "per_stays", "robot", Grant{Role: Owner, Tenant: ten.ID}, clk.Now().Add(time.Hour))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		links := map[string]string{}
		err = db.Write(t.Context(), func(tx *store.Tx) (err error) {
			for _, by := range []string{"per_stays", "per_goes", "per_sinks", tok.ID} {
				if links[by], err = s.Invite(tx, by, "Eve", Grant{Role: Owner, Tenant: ten.ID}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for by, path := range links {
			if _, err := s.openLink(t.Context(), strings.TrimPrefix(path, "/enter/")); err != nil {
				t.Fatalf("the invitation by %s: %v", by, err)
			}
		}
		err = db.Write(t.Context(), func(tx *store.Tx) error {
			if err := s.RemovePerson(tx, ten.ID, "per_goes", "per_stays"); err != nil {
				return err
			}
			if err := s.SetGrants(tx, ten.ID, "per_sinks", "per_stays", []Grant{{Role: Auditor, Tenant: ten.ID}}); err != nil {
				return err
			}
			return s.RevokeToken(tx, ten.ID, tok.ID, "per_stays")
		})
		if err != nil {
			t.Fatal(err)
		}
		for by, path := range links {
			_, err := s.openLink(t.Context(), strings.TrimPrefix(path, "/enter/"))
			if (err == nil) != (by == "per_stays") {
				t.Errorf("the invitation by %s: %v", by, err)
			}
		}
	})
}
