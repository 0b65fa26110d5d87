// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// What is asked about some releases or devices costs what those are, not what the fleet is, on both engines: neither reads
// intervals, marks or who is online that the question is not about.
func TestNoQuestionReadsTheFleet(t *testing.T) {
	plans := &storetest.Plans{Big: []string{"install", "fleet_mark", "presence", "connection", "label", "group_member"}}
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		s := New(Config{DB: db})
		fillFleet(t, db)
		if _, err := s.Recount(t.Context()); err != nil {
			t.Fatal(err)
		}
		plans.Analyze(t, db)
		at := func(part float64) time.Time { return time.UnixMilli(planBegin + int64(part*planLength)) }
		devices := []string{"dev_0_00010", "dev_0_00020", "dev_0_00030"}
		small := []string{"rel_0_03", "rel_0_04"}
		everything := []string{"rel_0_00"}
		for i := 1; i < planReleases; i++ {
			everything = append(everything, fmt.Sprintf("rel_0_%02d", i))
		}
		for _, q := range []struct {
			what string
			rows int
			ask  func(ctx context.Context) error
		}{
			{"counts now", 10, func(ctx context.Context) error { return of(s.CountOf(ctx, "ten_0", small, time.Time{})) }},
			{"counts of a time long past, of one large release", 10, func(ctx context.Context) error { return of(s.CountOf(ctx, "ten_0", []string{"rel_0_00"}, at(0.1))) }},
			{"counts of a time long past", 10, func(ctx context.Context) error { return of(s.CountOf(ctx, "ten_0", everything[:4], at(0.1))) }},
			{"counts of a time long past, of all releases", 4 * planReleases, func(ctx context.Context) error { return of(s.CountOf(ctx, "ten_0", everything, at(0.1))) }},
			{"counts after the last mark", 2 * planReleases * markEvery, func(ctx context.Context) error { return of(s.CountOf(ctx, "ten_0", everything, at(0.999))) }},
			{"a page of who runs it", 150, func(ctx context.Context) error {
				return of(s.Devices(ctx, "ten_0", everything, time.Time{}, Page{"rel_0_00 dev_0_00500", 100}))
			}},
			{"a page of who ran it", 700, func(ctx context.Context) error {
				return of(s.Devices(ctx, "ten_0", small, at(0.5), Page{"", 100}))
			}},
			{"exposure-days", 20, func(ctx context.Context) error {
				return of(s.DeviceTime(ctx, "ten_0", []Span{{"rel_0_00", planBegin, Forever}, {"rel_0_01", planBegin, Forever}}, at(0.4)))
			}},
			{"who ever ran a small release", 700, func(ctx context.Context) error {
				_, _, err := s.Ever(ctx, "ten_0", []Span{{"rel_0_03", planBegin, Forever}}, at(1))
				return err
			}},
			{"who of a small release is silent", 700, func(ctx context.Context) error {
				_, _, err := s.Silent(ctx, "ten_0", []string{"rel_0_03"}, at(1))
				return err
			}},
			{"what a device ran", 5, func(ctx context.Context) error { return of(s.History(ctx, "ten_0", devices[0])) }},
			{"what devices run", 20, func(ctx context.Context) error { return of(s.Running(ctx, "ten_0", devices)) }},
			{"whether devices are online", 10, func(ctx context.Context) error { return of(s.Presence(ctx, "ten_0", devices)) }},
			{"the connections of a device", 5, func(ctx context.Context) error { return of(s.Connections(ctx, "ten_0", devices[0])) }},
			{"an installation", 5, func(ctx context.Context) error {
				return db.Write(ctx, func(tx *store.Tx) error {
					for i, d := range devices {
						if err := s.Installed(tx, "ten_0", "prd", d, "rel_0_05", at(1).Add(time.Duration(i)*time.Second)); err != nil {
							return err
						}
					}
					return nil
				})
			}},
			{"the folding of installations", 2 * markEvery, s.Fold},
		} {
			plans.Check(t, db, q.what, q.rows, q.ask)
		}
	}, plans.Config)
}

func of[T any](_ T, err error) error { return err }

const (
	planBegin    = 1_790_000_000_000
	planLength   = 20 * 24 * 3600 * 1000
	planTenants  = 10
	planReleases = 20 // of a tenant
)

// fillFleet makes ten tenants, the first ten times as large as the others. Half of all installations are of the first
// release; each device ran two.
func fillFleet(t *testing.T, db *store.DB) {
	var installs, online, connections, labels [][]any
	for n := range planTenants {
		tenant, devices := fmt.Sprintf("ten_%d", n), 400
		if n == 0 {
			devices *= 10
		}
		for i := range devices {
			device := fmt.Sprintf("dev_%d_%05d", n, i)
			from := int64(planBegin + i*planLength/devices)
			moved := from + planLength/100
			first, second := fmt.Sprintf("rel_%d_00", n), fmt.Sprintf("rel_%d_%02d", n, 1+i%(planReleases-1))
			if i%2 == 0 {
				first, second = second, first
			}
			installs = append(installs, []any{tenant, "prd", device, first, from, moved}, []any{tenant, "prd", device, second, moved, int64(Forever)})
			online = append(online, []any{device, tenant, int64(i % 2), from, moved, ""})
			connections = append(connections, []any{device, int64(1), tenant, "node", from, moved, ""})
			labels = append(labels, []any{tenant, device, "site", fmt.Sprint(i % 50)})
		}
	}
	if err := db.WriteBulk(t.Context(), func(tx *store.Tx) error {
		for _, rows := range []struct {
			head string
			rows [][]any
		}{
			{`INSERT INTO install(tenant, product, device_id, release_id, from_ts, to_ts)`, installs},
			{`INSERT INTO presence(device_id, tenant, online, since, seen, reason)`, online},
			{`INSERT INTO connection(device_id, slot, tenant, node, from_ts, to_ts, reason)`, connections},
			{`INSERT INTO label(tenant, device_id, name, value)`, labels},
		} {
			if err := tx.InsertMany(rows.head, rows.rows, ``); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
