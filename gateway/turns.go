// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"context"
	"sync"
)

// Turns hands out devices to look at, one worker to a device: a device waits at most once, and one that is added while it
// is being looked at is looked at again afterwards, never twice at the same time. Downlinks of a stage go through it, so
// that they stay in order. Its methods are safe for concurrent use.
type Turns struct {
	mu      sync.Mutex // guards the fields below
	order   []string
	waiting map[string]bool
	busy    map[string]bool
	wake    chan struct{} // closed and renewed when order grows
}

// NewTurns makes an empty one.
func NewTurns() *Turns {
	return &Turns{waiting: map[string]bool{}, busy: map[string]bool{}, wake: make(chan struct{})}
}

// Add has the device looked at.
func (t *Turns) Add(device string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting[device] {
		return
	}
	t.waiting[device] = true
	if !t.busy[device] {
		t.push(device)
	}
}

func (t *Turns) push(device string) {
	t.order = append(t.order, device)
	close(t.wake)
	t.wake = make(chan struct{})
}

// Serve has look look at the devices, so many at the same time, until ctx ends.
func (t *Turns) Serve(ctx context.Context, workers int, look func(device string)) {
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				device, ok := t.take(ctx)
				if !ok {
					return
				}
				look(device)
				t.done(device)
			}
		})
	}
	wg.Wait()
}

// take waits for a device; false when ctx ended.
func (t *Turns) take(ctx context.Context) (string, bool) {
	for {
		t.mu.Lock()
		if len(t.order) > 0 && ctx.Err() == nil {
			d := t.order[0]
			t.order = t.order[1:]
			delete(t.waiting, d)
			t.busy[d] = true
			t.mu.Unlock()
			return d, true
		}
		wake := t.wake
		t.mu.Unlock()
		select {
		case <-ctx.Done():
			return "", false
		case <-wake:
		}
	}
}

func (t *Turns) done(device string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.busy, device)
	if t.waiting[device] {
		t.push(device)
	}
}
