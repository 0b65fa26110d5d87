// SPDX-License-Identifier: AGPL-3.0-only

package tenant_test

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

// BenchmarkTenThousandSolutions: who is held to the top of 10,000 solutions asks, decides and lists.
func BenchmarkTenThousandSolutions(b *testing.B) {
	db := storetest.Open(b, storetest.SQLiteURL(b), schema)
	h, err := tenant.New(tenant.Config{DB: db, Clock: clock.System, Log: slog.New(slog.DiscardHandler), Origins: []string{"https://localhost"}})
	if err != nil {
		b.Fatal(err)
	}
	const ten = "ten_1"
	ids := []string{"sol_top"}
	if err := db.Write(b.Context(), func(tx *store.Tx) error {
		put := func(id, parent string) error {
			_, err := tx.Exec(`INSERT INTO solution (id, tenant, parent, name, owner, at) VALUES ($1, $2, $3, $1, '', 0)`, id, ten, parent)
			return err
		}
		if _, err := tx.Exec(`INSERT INTO tenant (id, name, at) VALUES ($1, 'Acme', 0)`, ten); err != nil {
			return err
		}
		if err := put("sol_top", ""); err != nil {
			return err
		}
		for i := 1; i < tenant.MaxBelow; i++ {
			id := fmt.Sprintf("sol_%05d", i)
			p := ids[0]
			if i >= 100 {
				p = ids[1+i%99]
			}
			if err := put(id, p); err != nil {
				return err
			}
			ids = append(ids, id)
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	who := tenant.Actor{ID: "tok_1", Tenant: ten, Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: ten, Solution: "sol_top"}}}
	b.Run("tree loaded", func(b *testing.B) {
		for b.Loop() {
			if err := db.Write(b.Context(), func(tx *store.Tx) error {
				_, err := tx.Exec(`UPDATE tenant SET tree = tree + 1 WHERE id = $1`, ten)
				return err
			}); err != nil {
				b.Fatal(err)
			}
			if _, err := h.Tree(b.Context(), ten); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("actor let in", func(b *testing.B) {
		for b.Loop() {
			if _, err := h.Rooted(b.Context(), who); err != nil {
				b.Fatal(err)
			}
		}
	})
	who, err = h.Rooted(b.Context(), who)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Can", func(b *testing.B) {
		for b.Loop() {
			if !tenant.Can(who, tenant.DeviceRead, tenant.Thing{Tenant: ten, Solution: "sol_09999"}) {
				b.Fatal("no right below")
			}
		}
	})
	b.Run("Scope", func(b *testing.B) {
		for b.Loop() {
			if _, _, sols := tenant.Scope(who, tenant.DeviceRead); len(sols) != tenant.MaxBelow {
				b.Fatal(len(sols))
			}
		}
	})
}
