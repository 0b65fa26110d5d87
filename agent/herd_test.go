// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/wire/mqtt"
)

// TestHerdComesBackSpread: 10,000 devices lose their sessions in one second, for an outage of so long, and come back to a
// door that admits 400 a second and refuses the rest. In virtual time: how many knock in the busiest second, and when the
// last one is in.
func TestHerdComesBackSpread(t *testing.T) {
	const fleet, admits = 10_000, 400
	a := &agent{Config: Config{Retry: time.Second}}
	down := errors.New("connection refused")
	for _, row := range []struct {
		outage time.Duration
		knocks int           // in the busiest second after the outage, at most
		all    time.Duration // until everybody is in, at most
	}{{0, 1000, 90 * time.Second}, {10 * time.Second, 1400, 90 * time.Second}, {10 * time.Minute, 700, 120 * time.Second}, {8 * time.Hour, 700, 120 * time.Second}} {
		type knock struct {
			at time.Duration
			n  int
		}
		next := make([]knock, fleet)
		for i := range next {
			next[i] = knock{a.pause(0, down) + a.straggle(), stumbled + 1}
		}
		seconds, in, last := map[int]int{}, map[int]int{}, time.Duration(0)
		for len(next) > 0 {
			slices.SortFunc(next, func(x, y knock) int { return int(x.at - y.at) })
			again := next[:0:0]
			for _, k := range next {
				at := int(k.at / time.Second)
				if k.at >= row.outage {
					if seconds[at]++; in[at] < admits {
						in[at]++
						last = max(last, k.at-row.outage)
						continue
					}
				}
				again = append(again, knock{k.at + a.pause(k.n, down), k.n + 1})
			}
			next = again
		}
		most := 0
		for _, n := range seconds {
			most = max(most, n)
		}
		t.Logf("after %s: at most %d knock in a second, the last one is in after %s", row.outage, most, last.Round(time.Second))
		if most > row.knocks || last > row.all {
			t.Errorf("after %s: %d in a second (at most %d), all in after %s (at most %s)", row.outage, most, row.knocks, last, row.all)
		}
	}
}

// TestRoute: a device goes where the platform sends it, comes back when nobody answers there, and is not sent in circles.
func TestRoute(t *testing.T) {
	const home = "a.example:8883"
	sent := func(why mqtt.Reason, to string) error {
		return &mqtt.Redirect{Err: &mqtt.Error{Reason: why}, Server: to}
	}
	lost := errors.New("connection reset")
	var r route
	expect := func(want, moved string) {
		t.Helper()
		if got := r.next(home, moved); got != want {
			t.Errorf("it knocks at %s; want %s", got, want)
		}
	}
	expect(home, "")
	if !r.take(sent(mqtt.UseAnotherServer, "b.example"), true, home) {
		t.Error("it does not go")
	}
	expect("b.example:8883", "")
	r.take(lost, true, home) // a session there that ended
	expect("b.example:8883", "")
	r.take(lost, false, home) // and nobody there any more
	expect(home, "")
	r.take(lost, false, home)
	expect("c.example:1", "c.example:1") // moved for good
	r.take(lost, false, home)
	expect(home, "c.example:1")
	r.take(lost, false, home)
	expect("c.example:1", "c.example:1")
	r = route{}
	for hops := 0; ; hops++ {
		expect := r.next(home, "")
		if !r.take(sent(mqtt.ServerMoved, map[bool]string{true: "b:1", false: home}[expect == home]), false, home) {
			if hops != maxHops {
				t.Errorf("sent in a circle %d times", hops)
			}
			break
		}
	}
	expect(home, "")
	for _, nonsense := range []string{" ", "mqtt://x/y", "user@x"} {
		if r.take(sent(mqtt.UseAnotherServer, nonsense), false, home) {
			t.Errorf("it goes to %q", nonsense)
		}
	}
	if got := serverOf("[2001:db8::1]", home); got != "[2001:db8::1]:8883" {
		t.Error(got)
	}
}
