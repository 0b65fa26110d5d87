// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// made registers a device that is in service and away.
func (y *yard) made(d identity.Device) string {
	y.t.Helper()
	d.Tenant, d.Product = "ten", "prd"
	y.must(y.cfg.DB.Write(y.t.Context(), func(tx *store.Tx) (err error) {
		if d, err = y.ids.Register(tx, d, "per_x"); err != nil {
			return err
		}
		for _, st := range []identity.State{identity.Provisioned, identity.Pending, identity.Commissioned} {
			if err := y.ids.SetState(tx, "ten", d.ID, st, "per_x", "test"); err != nil {
				return err
			}
		}
		return nil
	}))
	y.mu.Lock()
	defer y.mu.Unlock()
	y.away[d.ID] = true
	return d.ID
}

// open is how many commands to the device have not ended.
func (y *yard) open(device string) (n int) {
	y.t.Helper()
	y.must(y.cfg.DB.QueryRow(y.t.Context(), `SELECT count(*) FROM command WHERE device = $1 AND ended = 0`, device).Scan(&n))
	return n
}

// What one act bars for ever is asked nothing any more, as one device that is decommissioned: what waits for it is ended, in
// steps, and nothing new is asked. What loses a certificate with its authority comes back with another, and gets what waits.
func TestNothingWaitsForWhatWasBarredTogether(t *testing.T) {
	eachYard(t, func(y *yard) {
		ctx := tenant.WithActor(y.t.Context(), tenant.Actor{ID: "per_x", Tenant: "ten", Grants: y.rights})
		ask := func(device string) error {
			_, err := y.ask(ctx, device, Request{Name: "reboot", Args: json.RawMessage(`{}`)}, nil)
			return err
		}
		many, few := y.made(identity.Device{Serial: "B1", Batch: "bat_1"}), y.made(identity.Device{Serial: "B2", Batch: "bat_1"})
		station, ca := y.made(identity.Device{Serial: "S1", Origin: "sta_1"}), y.made(identity.Device{Serial: "C1", Origin: "tca_1"})
		other := y.made(identity.Device{Serial: "O1", Batch: "bat_2", Origin: "sta_2"})
		y.must(y.cfg.DB.Write(ctx, func(tx *store.Tx) error { // more than one step
			for range endBatch + 1 {
				if _, err := y.Send(tx, "ten", many, "reboot", nil, t0.Add(time.Hour), "per_x"); err != nil {
					return err
				}
			}
			return nil
		}))
		waits := map[string]string{}
		for _, d := range []string{station, ca, other} {
			waits[d] = y.send(d, "reboot", nil)
			for y.get(waits[d]).Reason == "" { // handed over, and the device is not there
			}
		}
		y.mu.Lock()
		y.away[few] = false
		y.mu.Unlock()
		has := y.send(few, "reboot", nil)
		y.until(has, Received)
		job := y.create(Job{Filter: "serial:C1"})
		y.turn()
		y.counts(job, Counts{Devices: 1, Away: 1})

		bar := func(tenant string, scope identity.Scope, id string) {
			y.t.Helper()
			y.must(y.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error { return y.ids.Bar(tx, tenant, scope, id, "per_z", "its key leaked") }))
			y.turn()
		}
		bar("", identity.ScopeAuthority, "operational-1")
		if n := y.open(many); n != endBatch+1 {
			y.t.Errorf("%d commands wait for a device that comes back with another certificate", n)
		}
		bar("ten", identity.ScopeBatch, "bat_1")
		bar("ten", identity.ScopeStation, "sta_1")
		bar("ten", identity.ScopeCA, "tca_1")
		for _, d := range []string{many, few, station, ca} {
			if n := y.open(d); n != 0 {
				y.t.Errorf("%d commands still wait for %s", n, d)
			}
			if err := ask(d); !problem.Is(err, problem.KindConflict) {
				y.t.Errorf("%s takes another one: %v", d, err)
			}
		}
		if c := y.get(waits[station]); c.State != Cancelled || c.Reason != "the device lost its trust with its line station: its key leaked" {
			y.t.Errorf("what waited is %s: %s", c.State, c.Reason)
		}
		if c := y.get(has); c.State != Expired {
			y.t.Errorf("what it may have begun is %s", c.State)
		}
		if n := y.open(other); n != 1 {
			y.t.Errorf("%d commands wait for a device of another batch", n)
		}
		y.clk.Advance(awayEvery)
		y.turn()
		y.counts(job, Counts{Devices: 1, Cancelled: 1})
		later := y.create(Job{Filter: "serial:C1 or serial:O1"})
		y.turn()
		y.counts(later, Counts{Devices: 1, Away: 1})
	})
}
