// SPDX-License-Identifier: Apache-2.0

package clock

import (
	"testing"
	"time"
)

func TestHand(t *testing.T) {
	t0 := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	h := NewHand(t0)
	late, soon, never := h.NewTimer(2*time.Hour), h.NewTimer(time.Hour), h.NewTimer(time.Hour)
	if at := <-h.NewTimer(0).C; !at.Equal(t0) {
		t.Errorf("a timer of zero rang at %s", at)
	}
	if !never.Stop() || never.Stop() {
		t.Error("stopping once must work, twice must not")
	}
	h.Advance(time.Hour - 1)
	select {
	case <-soon.C:
		t.Error("rang a nanosecond early")
	default:
	}
	h.Advance(1)
	if at := <-soon.C; !at.Equal(t0.Add(time.Hour)) {
		t.Errorf("rang at %s", at)
	}
	if soon.Stop() {
		t.Error("a timer that rang was stopped")
	}
	h.Set(t0.Add(-time.Hour)) // a clock that is put back rings nothing
	select {
	case <-late.C:
		t.Error("rang in the past")
	case <-never.C:
		t.Error("a stopped timer rang")
	default:
	}
	h.Set(t0.Add(3 * time.Hour))
	<-late.C
}

func TestWaitTimers(t *testing.T) {
	h := NewHand(time.Time{}.AddDate(2026, 0, 0))
	rang := make(chan time.Time)
	go func() { rang <- <-h.NewTimer(time.Minute).C }()
	h.WaitTimers(1) // without it the clock could be turned before the timer exists
	h.Advance(time.Minute)
	<-rang
}
