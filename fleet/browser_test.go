// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console/browsertest"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// town furnishes the house with a fleet as a maker of lamps has it, and returns its devices.
func (h *house) town() []known {
	var fleet []known
	now := h.cfg.Clock.Now()
	for i := range 230 {
		d := known{Device: identity.Device{ID: fmt.Sprintf("dev_%03d", i), Tenant: "ten", Product: "prd_a", Serial: fmt.Sprintf("LMP-%05d", i+1), Solution: []string{"sol_1", "sol_2"}[i%2], State: identity.Commissioned, Created: now.AddDate(0, -3, 0)},
			release: []string{"v1", "v2", "v2", "v2"}[i%4], site: []string{"ghent", "antwerp", "bruges", ""}[i/7%4], online: i%9 != 4, seen: now.Add(-time.Duration(i) * time.Hour), static: i%11 == 0}
		if i%5 == 3 {
			d.Product, d.Serial, d.line = "prd_b", fmt.Sprintf("MTR-%05d", i+1), "one 1"
		}
		switch {
		case i%40 == 12:
			d.State, d.online = identity.Suspended, false
		case i%50 == 20:
			d.State, d.online, d.Solution, d.release, d.seen = identity.Provisioned, false, "", "", time.Time{}
		case i%60 == 33:
			d.State, d.online = identity.Decommissioned, false
		}
		fleet = append(fleet, d)
	}
	must(h.t, h.cfg.DB.Write(h.t.Context(), func(tx *store.Tx) error {
		if err := h.put(tx, fleet); err != nil {
			return err
		}
		for _, q := range []string{`UPDATE solution SET name = 'Harbour' WHERE id = 'sol_1'`, `UPDATE solution SET name = 'Old town' WHERE id = 'sol_2'`, `DELETE FROM fleet_count`,
			`UPDATE fleet_group SET note = 'first to get every release', members = 21 WHERE name = 'pilot'`, `UPDATE fleet_group SET note = 'somebody drives there' WHERE name = 'away'`} {
			if _, err := tx.Exec(q); err != nil {
				return err
			}
		}
		for _, d := range fleet {
			if d.release != "" {
				if err := addDelta(tx, delta{tenant: "ten", to: "rel_" + d.release[1:], at: t0.UnixMilli()}); err != nil {
					return err
				}
			}
		}
		return nil
	}))
	for _, d := range fleet {
		if d.online {
			h.Online(gateway.Peer{Tenant: "ten", Device: d.ID})
		}
	}
	must(h.t, h.flush(h.t.Context()))
	return fleet
}

// The pages of the fleet in a real browser: narrowed by a facet, by a group and by keyboard, live, refused with the place
// of the slip, on a telephone, in light and dark.
func TestFleetInABrowser(t *testing.T) {
	h := openHouse(t, storetest.SQLiteURL(t))
	fleet := h.town()
	l, origin := browsertest.Listen(t)
	browsertest.Serve(t, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("X-Test-Actor", "owner")
		h.pages.ServeHTTP(w, r)
	}))
	b := browsertest.Open(t, origin)
	look := func(name, path, want string) {
		t.Helper()
		b.Go(path)
		if text := b.Text("main"); !strings.Contains(text, want) {
			t.Errorf("%s does not say %q:\n%s", path, want, text)
		}
		b.Accessible()
		if browsertest.Value[bool](b, `document.documentElement.scrollWidth > innerWidth`) {
			t.Errorf("%s is wider than the screen", path)
		}
		b.Shots(name)
	}
	look("fleet", "/fleet", "At work, but offline")
	// Somebody goes: the number and the row move without a reload.
	online := browsertest.Value[string](b, `document.querySelector('#fleet-online').textContent`)
	gone := fleet[0]
	h.Offline(gateway.Peer{Tenant: "ten", Device: gone.ID}, "silent for too long")
	for _, pause := range []time.Duration{lookAgain, calmDown, lookAgain, calmDown} {
		h.cfg.Clock.(*clock.Hand).WaitTimers(2)
		h.cfg.Clock.(*clock.Hand).Advance(pause)
	}
	b.Until(fmt.Sprintf(`document.querySelector('#fleet-online').textContent !== %q && document.querySelector('#p-%s').textContent.includes('offline')`, online, gone.ID))
	// A facet, and a second one; the bar says the same in words.
	b.Click(`a[href="/fleet?filter=state%3Acommissioned"]`)
	b.Until(`document.querySelector('#f-filter').value === 'state:commissioned'`)
	b.Click(`nav .facet a[href$="online%3Ano"]`)
	b.Until(`document.querySelector('#f-filter').value === 'state:commissioned online:no'`)
	look("fleet-narrowed", "/fleet?filter=state:commissioned+online:no+label.site:ghent", "Devices that match")
	look("fleet-slip", "/fleet?filter=group:pilot+state:comissioned", "Did you mean state:commissioned?")
	// By keyboard alone: what was typed is completed from what there is.
	b.Go("/fleet")
	b.Type("#f-filter", "lmp state:sus")
	b.Until(`[...document.querySelector('#filters').options].some(o => o.value === 'lmp state:suspended')`)
	b.Press("pended\r")
	b.Until(`location.search.includes('suspended') && document.querySelectorAll('#devices tbody tr').length > 0`)
	// Ticked devices go along to what can be done with them.
	b.Click(`input[data-all]`)
	b.Click(`form[action="/fleet/selection"] button`)
	b.UntilPath("/fleet/selection")
	b.Accessible()
	b.Shots("selection")
	look("groups", "/groups", "state:commissioned -online:yes")
	look("group", "/groups/grp_p", "first to get every release")
	look("device", "/devices/"+gone.ID, "silent for too long")
	b.Size(390, 844)
	look("narrow-fleet", "/fleet?filter=label.site:ghent", "Devices that match")
	look("narrow-slip", "/fleet?filter=group:pilot+state:comissioned", "Did you mean")
	look("narrow-groups", "/groups", "pilot")
	look("narrow-selection", "/fleet/selection?filter=label.site:ghent", "Keep as a group")
}
