// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
	"sync"
)

// queue holds devices to look at, each at most once. A device that is added while it is being looked at is looked at
// again afterwards, never twice at the same time.
type queue struct {
	mu      sync.Mutex // guards the fields below
	order   []string
	waiting map[string]bool
	busy    map[string]bool
	wake    chan struct{} // closed and renewed when order grows
}

func newQueue() *queue {
	return &queue{waiting: map[string]bool{}, busy: map[string]bool{}, wake: make(chan struct{})}
}

func (q *queue) add(device string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting[device] {
		return
	}
	q.waiting[device] = true
	if !q.busy[device] {
		q.push(device)
	}
}

func (q *queue) push(device string) {
	q.order = append(q.order, device)
	close(q.wake)
	q.wake = make(chan struct{})
}

// take waits for a device; false when ctx ended. Call done afterwards.
func (q *queue) take(ctx context.Context) (string, bool) {
	for {
		q.mu.Lock()
		if len(q.order) > 0 && ctx.Err() == nil {
			d := q.order[0]
			q.order = q.order[1:]
			delete(q.waiting, d)
			q.busy[d] = true
			q.mu.Unlock()
			return d, true
		}
		wake := q.wake
		q.mu.Unlock()
		select {
		case <-ctx.Done():
			return "", false
		case <-wake:
		}
	}
}

func (q *queue) done(device string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.busy, device)
	if q.waiting[device] {
		q.push(device)
	}
}
