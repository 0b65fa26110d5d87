// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/clock"
)

// released is the day on which this version was written: no clock that is right says an earlier one.
var released = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

const (
	// believed is how long the platform's word on the time is carried on by the device's own clock.
	believed = 25 * time.Hour
	// remembered is how much later than the floor on disk a time must be before it is written again: flash wears out.
	remembered = 24 * time.Hour
)

// calendar is what the device knows of the date. Its clock may have lost its battery and stand at 1970, or run far
// ahead. So there is a floor that only rises: the newest moment that is proven to have been. And there is the platform's
// word, given inside TLS to its anchor, which the clock only carries on.
type calendar struct {
	clock clock.Clock
	disk  disk

	mu    sync.Mutex // guards the fields below
	floor time.Time
	word  time.Time // what the platform said; zero: nothing in this power cycle
	given time.Time // what the device's clock said then
}

// floorFile is time.json.
type floorFile struct {
	Floor int64 `json:"floor"` // ms since 1970 UTC
}

// openCalendar reads the floor. A file that cannot be read is as good as none: the certificates raise it again.
func openCalendar(c clock.Clock, d disk) *calendar {
	var f floorFile
	if err := d.readJSON("time.json", &f); err != nil {
		f.Floor = 0
	}
	floor := time.UnixMilli(f.Floor)
	if floor.Before(released) {
		floor = released
	}
	return &calendar{clock: c, disk: d, floor: floor}
}

// now is the best knowledge of the time, never before the floor unless the platform said so. Sure says that the
// platform gave its word within a day: only then may an end that has passed count as passed.
func (c *calendar) now() (t time.Time, sure bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	own := c.clock.Now()
	if since := own.Sub(c.given); !c.word.IsZero() && since >= 0 && since <= believed {
		return c.word.Add(since), true
	}
	if own.Before(c.floor) {
		return c.floor, false
	}
	return own, false
}

// told takes the platform's word. It replaces what the clock says, in both directions; the caller has checked that it
// lies within the life of the certificate under which it was given.
func (c *calendar) told(t time.Time) error {
	c.mu.Lock()
	c.word, c.given = t, c.clock.Now()
	c.mu.Unlock()
	return c.seen(t)
}

// seen raises the floor to a moment that is proven to have been.
func (c *calendar) seen(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.Sub(c.floor) < remembered {
		return nil
	}
	if err := c.disk.writeJSON("time.json", floorFile{t.UnixMilli()}); err != nil {
		return fmt.Errorf("the floor of the time: %w", err)
	}
	c.floor = t
	return nil
}

// lowest is the floor.
func (c *calendar) lowest() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.floor
}

// within is now for a certificate that is to prove the time itself: what the clock says if that lies in the
// certificate's life, else the nearer end of it. A life that ended before the floor is over whatever the clock says.
func (c *calendar) within(from, until time.Time) (time.Time, error) {
	if !until.After(c.lowest()) {
		return time.Time{}, fmt.Errorf("the certificate ended on %s, which is certainly over", until.UTC().Format(time.DateOnly))
	}
	t, _ := c.now()
	switch {
	case t.Before(from):
		return from, nil
	case t.After(until):
		return until, nil
	}
	return t, nil
}

// now is the best knowledge of the time.
func (a *agent) now() time.Time {
	t, _ := a.time.now()
	return t
}

// stamp is now for a message, in ms; 0 is the time of receipt, for a device whose clock is certainly wrong.
func (a *agent) stamp() int64 {
	t, sure := a.time.now()
	if !sure && !t.After(a.time.lowest()) {
		return 0
	}
	return t.UnixMilli()
}
