// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/wire"
)

// skewed is a device's clock that is wrong by as much as the test says, and goes on.
type skewed struct{ by atomic.Int64 }

func (c *skewed) Now() time.Time { return time.Now().Add(time.Duration(c.by.Load())) }

func (c *skewed) NewTimer(d time.Duration) *clock.Timer { return clock.System.NewTimer(d) }

// shows lets the clock show t from now on.
func (c *skewed) shows(t time.Time) { c.by.Store(int64(t.Sub(time.Now()))) }

// TestI09_ClockAt1970And2099: a unit whose clock stands at 1970 or 2099 when it is first switched on, or from some day
// on, or jumps while it is connected, enrols, stays who it is, and renews when the platform's time says so and not
// again and again. Once the clock is right, all is as ever.
func TestI09_ClockAt1970And2099(t *testing.T) {
	for _, wrong := range []time.Time{time.Unix(0, 0), time.Date(2099, 12, 31, 23, 0, 0, 0, time.UTC)} {
		t.Run(fmt.Sprint(wrong.UTC().Year()), func(t *testing.T) {
			h := newPlatform(t)
			d := h.born("SN-1")
			own := &skewed{}
			d.cfg.Clock = own
			connected := func(what string) {
				t.Helper()
				inv := d.inventory(anyInventory)
				if got := d.certificates(); inv.Bundle != 1 || got["ldevid active"] != 1 || got["idevid active"] != 1 || len(got) != 2 {
					t.Errorf("%s: bundle %d, certificates %v", what, inv.Bundle, got)
				}
			}
			own.shows(wrong)
			d.on()
			connected("switched on for the first time")
			own.shows(h.hand.Now()) // set right while it is connected
			d.off()
			d.on()
			connected("with the right time")
			own.shows(wrong) // and wrong again
			d.off()
			d.on()
			connected("the battery died")
			d.off()
			own.shows(h.hand.Now())
			d.on()
			connected("the battery was replaced")
			d.off()

			// Under the wrong clock it renews once, when two thirds are over by the platform's time.
			own.shows(wrong)
			h.hand.Advance(30 * 24 * time.Hour)
			d.on()
			connected("30 days later")
			d.off()
			h.hand.Advance(17 * 24 * time.Hour)
			d.on()
			eventually(t, func() bool { return d.certificates()["ldevid superseded"] == 1 })
			d.inventory(anyInventory)
			d.off()
			d.on()
			d.inventory(anyInventory)
			d.off()
			if got := d.certificates(); got["ldevid active"] != 1 || got["ldevid superseded"] != 1 || len(got) != 3 {
				t.Errorf("after one renewal: %v", got)
			}
			// After years in a drawer the wrong clock does not keep it away either, nor does it make another device.
			h.hand.Advance(5 * 365 * 24 * time.Hour)
			h.rollover(2, false)
			d.on()
			d.inventory(func(inv wire.Inventory) bool { return inv.Bundle == 2 })
			d.off()
			if got := d.certificates(); got["ldevid active"] != 1 || got["ldevid superseded"] != 2 || h.identities() != 1 {
				t.Errorf("after years: %v, %d devices", got, h.identities())
			}
		})
	}
}

// TestI09_ThePlatformGivesSlack: a device whose clock is less than an hour behind takes what the platform has just made.
func TestI09_ThePlatformGivesSlack(t *testing.T) {
	h := newPlatform(t)
	d := h.born("SN-1")
	own := &skewed{}
	own.shows(h.hand.Now().Add(-55 * time.Minute))
	d.cfg.Clock = own
	d.on()
	d.inventory(anyInventory)
	if asked := h.forget(); asked[identity.BootstrapName] != 0 {
		t.Errorf("it had to ask for the time: %v", asked)
	}
}

// TestI09_WithoutThePlatformNothingIsThrownAway: a unit under a clock at 2099 that reaches nobody keeps its identity.
func TestI09_WithoutThePlatformNothingIsThrownAway(t *testing.T) {
	h := newPlatform(t)
	d := h.born("SN-1").on()
	d.inventory(anyInventory)
	d.off()
	own := &skewed{}
	own.shows(time.Date(2099, 12, 31, 0, 0, 0, 0, time.UTC))
	d.cfg.Clock = own
	doors := d.cfg
	d.cfg.HTTPS, d.cfg.MQTT = "127.0.0.1:1", "127.0.0.1:1"
	before := names(t, d.dir)
	d.on()
	eventually(t, func() bool { return boots(t, d.dir) >= 2 })
	d.off()
	after := map[string]bool{}
	for _, f := range names(t, d.dir) {
		after[f.Name()] = true
	}
	for _, f := range before {
		if !after[f.Name()] {
			t.Errorf("%s is gone", f.Name())
		}
	}
	d.cfg.HTTPS, d.cfg.MQTT = doors.HTTPS, doors.MQTT
	d.on()
	d.inventory(anyInventory)
	d.off()
	if got := d.certificates(); got["ldevid active"] != 1 || len(got) != 2 {
		t.Errorf("certificates %v", got)
	}
}
