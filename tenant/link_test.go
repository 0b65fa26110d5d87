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
