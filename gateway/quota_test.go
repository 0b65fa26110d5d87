// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"fmt"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
)

func TestQuotas(t *testing.T) {
	clk := clock.NewHand(time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC))
	q := newQuotas(Limits{
		Device: Quota{Messages: 10, Bytes: 1000, Burst: 2 * time.Second},
		Tenant: Quota{Messages: 15, Bytes: 100_000, Burst: 2 * time.Second},
	}.withDefaults(), clk)
	a, b, other := Peer{Tenant: "t", Device: "a"}, Peer{Tenant: "t", Device: "b"}, Peer{Tenant: "u", Device: "c"}
	send := func(p Peer, n, bytes int, want string) {
		t.Helper()
		for i := range n {
			if o := q.spend(p, 1, bytes); o != nil {
				t.Fatalf("message %d of %s is refused by %s", i, p.Device, o.rule)
			}
		}
		o := q.spend(p, 1, bytes)
		switch {
		case want == "" && o != nil:
			t.Errorf("%s is refused by %s", p.Device, o.rule)
		case want != "" && (o == nil || o.rule != want || o.wait <= 0 || o.problem().Rule != want):
			t.Errorf("%s: %+v, want %s", p.Device, o, want)
		}
	}
	send(a, 20, 1, RuleDeviceQuota) // two seconds' worth at once
	send(b, 10, 1, RuleTenantQuota) // the tenant's thirty are gone
	send(other, 5, 1, "")           // another tenant feels nothing of it
	clk.Advance(time.Second)
	send(a, 10, 1, RuleDeviceQuota) // a second's worth
	clk.Advance(time.Hour)
	send(a, 1, 1999, "") // bytes count too, and a message that is too large by itself passes once
	send(a, 0, 1, RuleDeviceQuota)
	o := q.spend(a, 1, 1)
	clk.Advance(o.wait)
	send(a, 0, 1, "") // after the wait that was told there is room
	clk.Advance(time.Hour)
	if o := q.spend(b, 1, 0); o != nil {
		t.Fatal(o.rule)
	}
	q.charge(b, 29, 0) // known only when the request was read
	clk.Advance(500 * time.Millisecond)
	send(b, 0, 1, RuleDeviceQuota)
}

// Whoever was silent for a while is forgotten, so that devices that come and go leave nothing behind.
func TestQuotasForget(t *testing.T) {
	clk := clock.NewHand(time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC))
	q := newQuotas(Limits{}.withDefaults(), clk)
	for i := range 20 * leastSweep {
		clk.Advance(time.Second)
		if o := q.spend(Peer{Tenant: "t", Device: fmt.Sprint(i)}, 1, 100); o != nil {
			t.Fatal(o.rule)
		}
		if len(q.buckets) > leastSweep {
			t.Fatalf("%d buckets after %d devices", len(q.buckets), i)
		}
	}
}
