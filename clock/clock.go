// SPDX-License-Identifier: Apache-2.0

// Package clock makes time a dependency: System is the machine's clock, Hand one that a test turns.
package clock

import (
	"slices"
	"sync"
	"time"
)

// Clock tells the time and rings timers.
type Clock interface {
	Now() time.Time
	// NewTimer rings once after d; a d of zero or less rings at once.
	NewTimer(d time.Duration) *Timer
}

// Timer rings once on C, unless stopped before.
type Timer struct {
	C    <-chan time.Time
	stop func() bool
}

// Stop prevents the ring and says whether it did.
func (t *Timer) Stop() bool { return t.stop() }

// System is the machine's clock.
var System Clock = system{}

type system struct{}

func (system) Now() time.Time { return time.Now() }
func (system) NewTimer(d time.Duration) *Timer {
	t := time.NewTimer(d)
	return &Timer{C: t.C, stop: t.Stop}
}

// Hand is a clock that stands still until Advance or Set moves it.
type Hand struct {
	mu     sync.Mutex // guards the fields below
	now    time.Time
	timers []*handTimer
	waits  chan struct{} // closed and renewed whenever a timer is made
}

type handTimer struct {
	at time.Time
	c  chan time.Time
}

// NewHand starts a hand-turned clock at t.
func NewHand(t time.Time) *Hand { return &Hand{now: t, waits: make(chan struct{})} }

// Now returns the time that the clock was last set to.
func (h *Hand) Now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

// NewTimer makes a timer that rings when the clock is turned to or past now+d.
func (h *Hand) NewTimer(d time.Duration) *Timer {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := &handTimer{at: h.now.Add(d), c: make(chan time.Time, 1)}
	if d <= 0 {
		t.c <- h.now
	} else {
		h.timers = append(h.timers, t)
	}
	close(h.waits)
	h.waits = make(chan struct{})
	return &Timer{C: t.c, stop: func() bool { return h.drop(t) }}
}

func (h *Hand) drop(t *handTimer) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.Index(h.timers, t)
	if i < 0 {
		return false
	}
	h.timers = slices.Delete(h.timers, i, i+1)
	return true
}

// Advance turns the clock forward by d and rings what is due, in order.
func (h *Hand) Advance(d time.Duration) { h.Set(h.Now().Add(d)) }

// Set turns the clock to t, which may lie in the past, and rings what is due.
func (h *Hand) Set(t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = t
	slices.SortStableFunc(h.timers, func(a, b *handTimer) int { return a.at.Compare(b.at) })
	n := 0
	for n < len(h.timers) && !h.timers[n].at.After(t) {
		h.timers[n].c <- t
		n++
	}
	h.timers = slices.Delete(h.timers, 0, n)
}

// WaitTimers blocks until at least n timers wait on the clock, so that a test turns it only once its subject sleeps.
func (h *Hand) WaitTimers(n int) {
	for {
		h.mu.Lock()
		have, waits := len(h.timers), h.waits
		h.mu.Unlock()
		if have >= n {
			return
		}
		<-waits
	}
}
