// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"testing"

	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/identity"
)

// A device is told in the words that a filter takes, and one that was revoked with others says so beside its state.
func TestDeviceInWords(t *testing.T) {
	d := fleet.PassportOut{DeviceOut: fleet.DeviceOut{Device: identity.Device{State: identity.Commissioned}}}
	if how, now := howMade(d), stands(d.DeviceOut); how != "" || now != "commissioned" {
		t.Errorf("a device of which the factory said nothing: %q, %q", how, now)
	}
	d.Batch, d.Making, d.Lost = "bat_1", &enroll.Making{Station: "sta_1", Order: "PO-7731", Part: "4711"}, &identity.Lost{Scope: identity.ScopeCA}
	if how, now := howMade(d), stands(d.DeviceOut); how != "order PO-7731, part 4711, batch bat_1, station sta_1" || now != "commissioned, revoked with its trusted CA" {
		t.Errorf("%q, %q", how, now)
	}
	d.Names = map[string]string{"bat_1": "Lot 7", "sta_1": "Test bench 2"}
	if how := howMade(d); how != `order PO-7731, part 4711, batch "Lot 7" (bat_1), station "Test bench 2" (sta_1)` {
		t.Errorf("with names: %s", how)
	}
}
