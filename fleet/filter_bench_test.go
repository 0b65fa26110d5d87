// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"fmt"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// BenchmarkFilter is one page of 50 out of 100,000 devices, for filters that many match, that few match and that none
// does:
//
//	go test ./fleet -run - -bench Filter
func BenchmarkFilter(b *testing.B) {
	for name, url := range map[string]func(testing.TB) string{"sqlite": storetest.SQLiteURL, "postgres": storetest.PostgresURL} {
		b.Run(name, func(b *testing.B) {
			h := openHouse(b, url(b))
			fill(b, h, 100_000)
			for _, text := range []string{"", "state:commissioned", "state:suspended", "state:decommissioned", "online:yes", "online:no", "online:no state:suspended", "seen:>1d", "serial:SN-099999",
				"serial:SN-0999*", "SN-099999", "zzz", "batch:bat_19 online:no", "product:prd_1", "solution:sol_199 online:no", "label.site:s42", "label.site:s42 online:no", "label.site:*", "-label.site:* state:suspended",
				"release:vold", "release:vold online:no", "release:vnew", "release:vmid online:no", "release:none", "group:few", "group:dynamic", "grade:A", "state:commissioned or online:no"} {
				b.Run(text, func(b *testing.B) {
					for b.Loop() {
						if _, err := h.Select(b.Context(), "ten", text, "dev_00001", 51); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
			owner := h.as("owner")
			for what, do := range map[string]func() error{
				"page with what runs, presence and labels": func() error { _, err := h.list(owner, Filter{}, "dev_00001", 51); return err },
				"facets of the whole fleet":                func() error { _, err := h.tallyAll(owner, "ten"); return err },
				"facets of state:commissioned":             func() error { _, err := h.tallySome(owner, "ten", mustFilter(b, "state:commissioned")); return err },
			} {
				b.Run(what, func(b *testing.B) {
					for b.Loop() {
						must(b, do())
					}
				})
			}
		})
	}
}

func mustFilter(t testing.TB, text string) Filter {
	f, err := ParseFilter(text)
	must(t, err)
	return f
}

// fill makes n devices: one in 1,000 is suspended, one in 20 offline, one in 2,000 on the old release, a third has a label.
func fill(t testing.TB, h *house, n int) {
	begin := time.Now()
	exec := func(tx *store.Tx, q string, args ...any) {
		if _, err := tx.Exec(q, args...); err != nil {
			t.Fatal(err)
		}
	}
	for from := 0; from < n; from += 1000 {
		must(t, h.cfg.DB.WriteBulk(t.Context(), func(tx *store.Tx) error {
			for i := from; i < from+1000; i++ {
				id, state, release, online := fmt.Sprintf("dev_%08d", i), "commissioned", "rel_new", 1
				if i%1000 == 7 {
					state = "suspended"
				}
				if i%10 == 0 {
					release = "rel_mid"
				}
				if i%2000 == 1 {
					release = "rel_old"
				}
				if i%20 == 3 {
					online = 0
				}
				exec(tx, `INSERT INTO device(id, tenant, product, revision, batch, serial, solution, state, reason, resume, firmware, created, updated) VALUES ($1, 'ten', $2, 'rev', $3, $4, $5, $6, '', '', '', $7, $7)`,
					id, fmt.Sprintf("prd_%d", i%5), fmt.Sprintf("bat_%d", i/5000), fmt.Sprintf("SN-%06d", i), fmt.Sprintf("sol_%d", i%200), state, t0.UnixMilli())
				must(t, insertInstall(tx, "ten", "prd", id, release, t0.UnixMilli()))
				exec(tx, `INSERT INTO presence(device_id, tenant, online, since, seen, reason) VALUES ($1, 'ten', $2, $3, $3, '')`, id, online, t0.Add(-48*time.Hour).UnixMilli())
				if i%3 == 0 {
					exec(tx, `INSERT INTO label(tenant, device_id, name, value) VALUES ('ten', $1, 'site', $2)`, id, fmt.Sprintf("s%d", i%1000))
				}
			}
			return nil
		}))
	}
	must(t, h.cfg.DB.WriteBulk(t.Context(), func(tx *store.Tx) error {
		for i := range 5 {
			exec(tx, `INSERT INTO product(id, tenant, name, model, created) VALUES ($1, 'ten', $1, $1, 1)`, fmt.Sprintf("prd_%d", i))
		}
		for i := range 200 {
			exec(tx, `INSERT INTO solution(id, tenant, name, owner, at) VALUES ($1, 'ten', $1, '', 1)`, fmt.Sprintf("sol_%d", i))
		}
		for _, r := range []string{"rel_new", "rel_mid", "rel_old"} {
			must(t, addDelta(tx, delta{tenant: "ten", to: r, at: t0.UnixMilli()}))
		}
		must(t, insertGroup(tx, Group{ID: "grp_1", Tenant: "ten", Name: "few"}))
		for i := range 500 {
			_, err := setMember(tx, Group{ID: "grp_1", Tenant: "ten"}, fmt.Sprintf("dev_%08d", i*190), false)
			must(t, err)
		}
		must(t, insertGroup(tx, Group{ID: "grp_2", Tenant: "ten", Name: "dynamic", Filter: "state:suspended online:yes"}))
		return nil
	}))
	if h.cfg.DB.Engine() == store.Postgres { // its autovacuum does within a minute
		must(t, h.cfg.DB.WriteBulk(t.Context(), func(tx *store.Tx) error { exec(tx, "ANALYZE"); return nil }))
	}
	t.Logf("%d devices in %s", n, time.Since(begin).Round(time.Second))
}
