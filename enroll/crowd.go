// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// RuleBusy asks a device to come again: there are more of them now than the platform can certify at once.
const RuleBusy = "enroll.busy"

// Bounds of a crowd.
const (
	defaultWork = 64                    // enrolments at a time
	firstTurn   = 20 * time.Millisecond // what one is taken to last before any was seen
	leastTurn   = 5 * time.Millisecond
	longestTurn = 5 * time.Second
	newQueue    = 4                // newcomers that may stand in line, for each place in work
	dueQueue    = 64               // the same for those whose turn has come: a whole second of them
	longestWait = time.Hour        // what a device is asked to wait at most
	late        = 10 * time.Minute // how long after its turn a device may still take it
	maxPromises = 1 << 20          // devices that have been given a turn
	spare       = 0.8              // part of the capacity that is promised
)

// crowd bounds the enrolments in work and spreads those beyond over the time to come. Whoever does not fit gets a turn:
// the next free place in a calendar that is filled at the speed at which enrolments are served. A device that comes back
// early is told the rest of its wait and keeps its place, so that hammering gains nothing; one that comes at its turn
// goes before everybody who has none. So a herd of any size arrives as an even stream, each device needs two requests
// or hardly more, and none starves.
//
// Retry-After counts in whole seconds, so those of one second may come at one moment: they stand in line for it.
//
// The calendar is in memory and of one node: after a restart devices get new turns, in the order in which they come.
type crowd struct {
	now func() time.Time

	mu       sync.Mutex // guards the fields below
	work     int        // enrolments at a time
	working  int
	line     []*spot       // those who stand in line, the first first
	turn     time.Duration // how long one has lasted of late
	tail     time.Time     // up to here the calendar is full
	promised map[string]time.Time
	swept    time.Time
}

// spot is a place in work, or in the line for one.
type spot struct {
	let   chan struct{} // closed when it is in work
	began time.Time
}

func newCrowd(now func() time.Time) *crowd {
	return &crowd{now: now, work: defaultWork, turn: firstTurn, promised: map[string]time.Time{}}
}

// enter waits in line for a place, if there is one to wait for, and returns what gives it back. If there is none it
// returns a refusal that says how long to stay away.
func (c *crowd) enter(ctx context.Context, device string) (leave func(), err error) {
	p, wait := c.ask(device)
	if p == nil {
		return nil, busy(wait)
	}
	select {
	case <-p.let:
		return func() { c.leave(p) }, nil
	case <-ctx.Done():
		c.leave(p)
		return nil, ctx.Err()
	}
}

// ask gives the device a place or a turn later.
func (c *crowd) ask(device string) (p *spot, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	c.sweep(now)
	due, has := c.promised[device]
	length := newQueue
	switch {
	case has && now.Before(due):
		return nil, due.Sub(now)
	case has:
		length = dueQueue
	case c.tail.After(now):
		length = 0 // others have turns: there is no place in line before theirs
	}
	if len(c.line) < length*c.work || length > 0 && c.working < c.work {
		delete(c.promised, device)
		p := &spot{let: make(chan struct{})}
		c.line = append(c.line, p)
		c.fill(now)
		return p, 0
	}
	if !has && len(c.promised) >= maxPromises {
		return nil, longestWait
	}
	if c.tail.Before(now) {
		c.tail = now
	}
	tail := c.tail.Add(c.step())
	due = tail.Add(jitter(device, c.step()))
	if due.Sub(now) > longestWait {
		return nil, longestWait/2 + jitter(device, longestWait/2) // no place is kept so far ahead
	}
	c.tail, c.promised[device] = tail, due
	return nil, due.Sub(now)
}

// fill puts those first in line to work.
func (c *crowd) fill(now time.Time) {
	for ; c.working < c.work && len(c.line) > 0; c.working++ {
		c.line[0].began = now
		close(c.line[0].let)
		c.line = c.line[1:]
	}
}

// leave ends work, or leaves the line.
func (c *crowd) leave(p *spot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.line, p); i >= 0 {
		c.line = slices.Delete(c.line, i, i+1)
		return
	}
	c.working--
	now := c.now()
	took := min(max(now.Sub(p.began), leastTurn), longestTurn)
	c.turn += (took - c.turn) / 8
	c.fill(now)
}

// step is the time between two places of the calendar.
func (c *crowd) step() time.Duration {
	return time.Duration(float64(c.turn) / (float64(c.work) * spare))
}

// sweep forgets turns that nobody took.
func (c *crowd) sweep(now time.Time) {
	if now.Before(c.swept.Add(late / 4)) {
		return
	}
	c.swept = now
	for device, due := range c.promised {
		if now.After(due.Add(late)) {
			delete(c.promised, device)
		}
	}
}

// jitter is 0 to span, the same for a device each time: devices that were switched on by the same event, or count in
// whole seconds, are told apart.
func jitter(device string, span time.Duration) time.Duration {
	h := sha256.Sum256([]byte(device))
	return time.Duration(float64(span) * float64(binary.BigEndian.Uint64(h[:])>>11) / (1 << 53))
}

// busy is the refusal that asks a device to wait.
func busy(wait time.Duration) error {
	return &later{problem.Limited("Too many devices enrol at this moment."), wait}
}

// later is a refusal that holds for some time only: the same request may succeed after it (RFC 7030 4.2.3).
type later struct {
	why  *problem.Error
	wait time.Duration
}

func (l *later) Error() string { return l.why.Error() }
func (l *later) Unwrap() error { return l.why }

// RetryAfter is for gateway.WriteProblem: a door that is not EST's says it too.
func (l *later) RetryAfter() time.Duration { return l.wait }

// seconds is a wait as Retry-After says it, at least one.
func seconds(wait time.Duration) int64 { return int64(math.Ceil(max(wait, time.Second).Seconds())) }
