// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
)

func TestCalendar(t *testing.T) {
	day := 24 * time.Hour
	when := released.Add(100 * day)
	hand := clock.NewHand(time.Unix(0, 0))
	d := disk{dir: t.TempDir()}
	c := openCalendar(hand, d)
	is := func(what string, want time.Time, wantSure bool) {
		t.Helper()
		if now, sure := c.now(); !now.Equal(want) || sure != wantSure {
			t.Errorf("%s: it takes the time for %s (sure %v), want %s (%v)", what, now.UTC(), sure, want.UTC(), wantSure)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	is("at 1970, knowing nothing", released, false)
	do(c.seen(when))
	is("once a certificate was seen", when, false)
	do(c.seen(when.Add(-50 * day)))
	is("an older one takes nothing back", when, false)

	c = openCalendar(hand, d) // switched off and on
	is("after a restart", when, false)
	do(c.told(when.Add(day)))
	is("once the platform has spoken", when.Add(day), true)
	hand.Advance(time.Hour)
	is("an hour later", when.Add(day+time.Hour), true)
	hand.Set(when.Add(2 * day)) // somebody sets the clock right
	is("with a clock set right", when.Add(2*day), false)

	hand.Set(when.AddDate(73, 0, 0))
	is("a clock far ahead, unconfirmed", when.AddDate(73, 0, 0), false)
	do(c.told(when.Add(3 * day)))
	is("the platform's word counts in both directions", when.Add(3*day), true)
	hand.Advance(believed)
	is("for a day", when.Add(3*day+believed), true)
	hand.Advance(time.Second)
	is("and no longer", when.AddDate(73, 0, 0).Add(believed+time.Second), false)
	hand.Set(when.Add(-time.Hour))
	if c.lowest().Before(when.Add(2*day)) || c.lowest().After(when.Add(3*day)) {
		t.Errorf("the floor is %s: a clock that ran ahead must not raise it, the platform's word must", c.lowest())
	}
	is("never below the floor", c.lowest(), false)

	if err := os.WriteFile(d.path("time.json"), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	c = openCalendar(hand, d)
	if c.lowest() != released {
		t.Errorf("from a torn file the floor %s was made", c.lowest())
	}
}

// TestCalendarWithin: the certificate of the bootstrap door says what time it is where the clock cannot be right, and
// one that is certainly over says nothing.
func TestCalendarWithin(t *testing.T) {
	day := 24 * time.Hour
	floor := released.Add(100 * day)
	for _, row := range []struct {
		name             string
		own, from, until time.Time
		want             time.Time
		refused          bool
	}{
		{"right", floor.Add(5 * day), floor.Add(day), floor.Add(30 * day), floor.Add(5 * day), false},
		{"1970", time.Unix(0, 0), floor.Add(day), floor.Add(30 * day), floor.Add(day), false},
		{"2099", floor.AddDate(73, 0, 0), floor.Add(day), floor.Add(30 * day), floor.Add(30 * day), false},
		{"over before the floor", time.Unix(0, 0), floor.Add(-60 * day), floor.Add(-30 * day), time.Time{}, true},
	} {
		hand := clock.NewHand(row.own)
		c := openCalendar(hand, disk{dir: t.TempDir()})
		if err := c.seen(floor); err != nil {
			t.Fatal(err)
		}
		got, err := c.within(row.from, row.until)
		if (err != nil) != row.refused || !got.Equal(row.want) {
			t.Errorf("%s: %s, %v; want %s", row.name, got, err, row.want)
		}
	}
}
