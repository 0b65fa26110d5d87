// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// Somebody who learns of a faulty production order finds the units of it by what their line said, in whatever case, and
// nobody else's.
func TestTheUnitsOfAnOrderAreFound(t *testing.T) {
	houses(t, func(h *house) {
		ctx := t.Context()
		must(t, h.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			for i, m := range []enroll.Making{{Order: "PO-77", Line: "L1 Ост", Part: `4711<A>`}, {Order: "po-77", Line: "L2"}, {Order: "PO-770"}, {}} {
				text, err := json.Marshal(m)
				if err != nil {
					return err
				}
				d := identity.Device{Tenant: "ten", Product: "prd_a", Revision: "rev", Batch: "bat_7", Serial: fmt.Sprintf("S%d", i), Origin: "sta_3", Made: string(text)}
				if i == 3 {
					d.Made, d.Batch, d.Origin = "", "", "etk_1"
				}
				if _, err := h.cfg.Identity.Register(tx, d, "per_x"); err != nil {
					return err
				}
			}
			return nil
		}))
		for filter, want := range map[string]string{"order:PO-77": "S0 S1", "order:po-77*": "S0 S1 S2", "order:none": "S3", "-order:*": "S3", "order:PO-77,none": "S0 S1 S3", "order:PO-7": "", `line:"l1 Ост"`: "S0", "part:4711*": "S0",
			`part:"4711<a>"`: "S0", "order:PO-77 line:L2": "S1", `batch:"Lot 7"`: "S0 S1 S2", "batch:lot*": "S0 S1 S2", "batch:none": "S3", `station:"test bench 2"`: "S0 S1 S2", "station:sta_3 order:PO-770": "S2", "station:none": "S3"} {
			ds, err := h.Select(ctx, "ten", filter, "", 10)
			must(t, err)
			var got []string
			for _, d := range ds {
				got = append(got, d.Serial)
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s selects %v, want %s", filter, got, want)
			}
		}
		for filter, want := range map[string]string{`batch:"Lod 7"`: `Did you mean batch:"Lot 7"?`, `station:"test bench 3"`: `Did you mean station:"Test bench 2"?`} {
			if _, err := h.Select(ctx, "ten", filter, "", 1); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", filter, err)
			}
		}
	})
}

// What a line said of a device is an object in the API.
func TestTheMakingIsAnObject(t *testing.T) {
	h := newHouse(t)
	var d identity.Device
	must(t, h.cfg.DB.Write(t.Context(), func(tx *store.Tx) (err error) {
		d, err = h.cfg.Identity.Register(tx, identity.Device{Tenant: "ten", Product: h.prod.ID, Revision: "rev", Serial: "M1", Made: `{"station":"sta_3","order":"PO-77","line":"L1","part":"4711"}`}, "per_x")
		return err
	}))
	code, body := h.get(h.api, "owner", "/v1/devices/"+d.ID)
	var got DeviceOut
	must(t, json.Unmarshal([]byte(body), &got))
	if want := (enroll.Making{Station: "sta_3", Order: "PO-77", Line: "L1", Part: "4711"}); code != 200 || got.Making == nil || *got.Making != want || got.Lost != nil {
		t.Errorf("%d %s", code, body)
	}
}

// Beside the ids of a device's making stands what people call them, as filters take it.
func TestThePassportNamesTheMaking(t *testing.T) {
	h := newHouse(t)
	var d identity.Device
	must(t, h.cfg.DB.Write(t.Context(), func(tx *store.Tx) (err error) {
		d, err = h.cfg.Identity.Register(tx, identity.Device{Tenant: "ten", Product: h.prod.ID, Revision: "rev", Serial: "M1", Batch: "bat_7", Origin: "tca_9", Made: `{"station":"sta_3"}`}, "per_x")
		return err
	}))
	var got PassportOut
	code, body := h.get(h.api, "owner", "/v1/devices/"+d.ID)
	must(t, json.Unmarshal([]byte(body), &got))
	if want := map[string]string{"bat_7": "Lot 7", "sta_3": "Test bench 2"}; code != 200 || !maps.Equal(got.Names, want) {
		t.Errorf("%d %s", code, body)
	}
}

// Nobody moves the devices of a batch, a station, a CA or an authority that is revoked as a whole; the list, the page and
// the API say it of each, and of no other.
func TestRevokedWithItsBatch(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	ids := map[string]string{}
	certificate := func(tx *store.Tx, device, kind, authority string) error {
		_, err := tx.Exec(`INSERT INTO certificate(fp, tenant, subject, kind, phase, serial, key_hash, der, not_before, not_after, created, revoked, reason, authority, origin, shard)
			VALUES ($1, 'ten', $2, $3, 'active', '1', $1, $4, 1, 2, 1, 0, '', $5, '', 0)`, device+kind+authority, device, kind, []byte{1}, authority)
		return err
	}
	must(t, h.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		for _, d := range []identity.Device{{Serial: "OF-BATCH", Batch: "bat_1", Origin: "sta_1"}, {Serial: "OF-STATION", Batch: "bat_2", Origin: "sta_2"}, {Serial: "OF-CA", Origin: "tca_1"}, {Serial: "OF-AUTHORITY"}, {Serial: "MOVED-ON"}, {Serial: "RETIRED", Batch: "bat_1"},
			{Serial: "SPARED", Batch: "bat_2", Origin: "sta_1"}} {
			d.Tenant, d.Product, d.Revision = "ten", h.prod.ID, "rev"
			d, err := h.cfg.Identity.Register(tx, d, "per_x")
			if err != nil {
				return err
			}
			ids[d.Serial] = d.ID
			for _, c := range [][2]string{{"idevid", "factory-1"}, {"ldevid", "operational-1"}, {"ldevid", "operational-2"}} {
				if c[1] == "operational-1" && !strings.Contains("OF-AUTHORITY MOVED-ON", d.Serial) || c[1] == "operational-2" && d.Serial == "OF-AUTHORITY" {
					continue
				}
				if err := certificate(tx, d.ID, c[0], c[1]); err != nil {
					return err
				}
			}
		}
		return h.cfg.Identity.SetState(tx, "ten", ids["RETIRED"], identity.Decommissioned, "per_x", "broken")
	}))
	_, before := h.get(h.pages, "owner", "/fleet?filter=-sn")
	if strings.Contains(before, "revoked with") {
		t.Fatal("a device lost its trust before anything was barred")
	}
	must(t, h.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error {
		for _, b := range []struct {
			tenant string
			scope  identity.Scope
			id     string
		}{{"ten", identity.ScopeBatch, "bat_1"}, {"ten", identity.ScopeStation, "sta_2"}, {"ten", identity.ScopeCA, "tca_1"}, {"ten", identity.ScopeAuthority, "operational-1"}, {"other", identity.ScopeBatch, "bat_2"}, {"other", identity.ScopeStation, "sta_1"}} {
			if err := h.cfg.Identity.Bar(tx, b.tenant, b.scope, b.id, "per_x", "leaked <keys>"); err != nil {
				return err
			}
		}
		return nil
	}))
	_, list := h.get(h.pages, "owner", "/fleet?filter=-sn")
	for serial, with := range map[string]string{"OF-BATCH": "batch", "OF-STATION": "line station", "OF-CA": "trusted CA", "OF-AUTHORITY": "authority", "MOVED-ON": "", "RETIRED": "", "SPARED": ""} {
		_, row, _ := strings.Cut(list, `<td id="s-`+ids[serial]+`">`)
		row, _, _ = strings.Cut(row, "</td>")
		_, page := h.get(h.pages, "owner", "/devices/"+ids[serial])
		_, body := h.get(h.api, "owner", "/v1/devices/"+ids[serial])
		for where, text := range map[string][2]string{"the list": {row, "revoked with its " + with}, "the page": {page, "Revoked with its " + with + ": leaked &lt;keys&gt;."}, "the API": {body, `"lost":{"scope":"`}} {
			if says := strings.Contains(strings.ToLower(text[0]), "revoked with") || strings.Contains(text[0], `"lost"`); says != (with != "") || says && !strings.Contains(text[0], text[1]) {
				t.Errorf("%s of %s: %s", where, serial, text[0])
			}
		}
	}
}

// The units of an order, a line, a part, a batch or a station are a range of an index, on both engines, and so is what took
// the trust from the devices of a page.
func TestNoFilterOnTheMakingReadsTheFleet(t *testing.T) {
	plans := &storetest.Plans{Big: []string{"device", "certificate"}}
	storetest.EachURL(t, func(t *testing.T, url string) {
		h := openHouse(t, url, plans.Config)
		const n = 8000
		var devices, certificates [][]any
		for i := range n {
			group := i / 20 // an order is made in one go; its units are anywhere in the order of ids below
			id := fmt.Sprintf("dev_%05d", i*3571%n)
			devices = append(devices, []any{id, "ten", "prd", "rev", fmt.Sprintf("bat_%d", group), fmt.Sprintf("S%05d", i), "", "commissioned", "", "", "", fmt.Sprintf("sta_%d", group), int64(1), int64(1),
				fmt.Sprintf("po-%d", group), fmt.Sprintf("l%d", group), fmt.Sprintf("part-%d", group)})
			certificates = append(certificates, []any{id, "ten", id, "ldevid", "active", "1", "key" + id, []byte{1}, int64(1), int64(2), int64(1), int64(0), "", "operational-1", "", int64(0)})
		}
		must(t, h.cfg.DB.WriteBulk(t.Context(), func(tx *store.Tx) error {
			if err := tx.InsertMany(`INSERT INTO device(id, tenant, product, revision, batch, serial, solution, state, reason, resume, firmware, origin, created, updated, made_order, made_line, made_part)`, devices, ``); err != nil {
				return err
			}
			if err := tx.InsertMany(`INSERT INTO certificate(fp, tenant, subject, kind, phase, serial, key_hash, der, not_before, not_after, created, revoked, reason, authority, origin, shard)`, certificates, ``); err != nil {
				return err
			}
			for i := range 50 {
				if _, err := tx.Exec(`INSERT INTO bar(tenant, scope, id, reason, actor, at, certificates, after, finished) VALUES ('', 'authority', $1, 'x', 'x', 1, 0, '', 1)`, fmt.Sprintf("operational-%d", i)); err != nil {
					return err
				}
			}
			return nil
		}))
		plans.Analyze(t, h.cfg.DB)
		for _, filter := range []string{"order:PO-77", "order:PO-77 -state:suspended", "order:PO-77,PO-78", "order:PO-77*", "line:L7", "part:PART-9", "batch:bat_9", "station:sta_3 order:po-3"} {
			var whole []string
			if h.cfg.DB.Engine() == store.Postgres && strings.ContainsAny(filter, ",*") {
				// A plan for any values reads the ids of so small a fleet in order, beside the few: cheap here, not in a large one.
				whole = []string{"device"}
			}
			plans.Check(t, h.cfg.DB, filter, 300, func(ctx context.Context) error {
				return of(h.Select(ctx, "ten", filter, "dev_00001", 51))
			}, whole...)
			plans.Check(t, h.cfg.DB, filter+" counted", 300, func(ctx context.Context) error {
				return of(h.count(h.as("owner"), "ten", mustFilter(t, filter)))
			})
		}
		plans.Check(t, h.cfg.DB, "what took the trust from a page of devices", 300, func(ctx context.Context) error {
			return of(h.cfg.Identity.LostOf(ctx, "ten", []identity.Device{{ID: "dev_00001", Batch: "bat_1"}, {ID: "dev_00002", Origin: "sta_2"}, {ID: "dev_00003"}}))
		})
	})
}
