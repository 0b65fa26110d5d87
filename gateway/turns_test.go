// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"context"
	"sync"
	"testing"
)

// A device is never looked at twice at the same time, and what was added meanwhile is not forgotten.
func TestTurns(t *testing.T) {
	turns := NewTurns()
	ctx, stop := context.WithCancel(t.Context())
	var mu sync.Mutex
	looks, busy := map[string]int{}, map[string]bool{}
	held := make(chan chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		turns.Serve(ctx, 4, func(device string) {
			mu.Lock()
			if busy[device] {
				t.Errorf("%s is looked at twice at the same time", device)
			}
			busy[device] = true
			looks[device]++
			mu.Unlock()
			goOn := make(chan struct{})
			held <- goOn
			<-goOn
			mu.Lock()
			busy[device] = false
			mu.Unlock()
		})
	}()
	turns.Add("a")
	first := <-held
	for range 3 {
		turns.Add("a") // while it is being looked at: once more, not three times
	}
	turns.Add("b")
	second := <-held // b does not wait for a
	close(first)
	third := <-held // a again
	close(second)
	close(third)
	turns.Add("c")
	close(<-held)
	stop()
	<-ended
	if looks["a"] != 2 || looks["b"] != 1 || looks["c"] != 1 {
		t.Errorf("looked at %v", looks)
	}
}
