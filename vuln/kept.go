// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"maps"
	"strings"
	"sync"
	"time"
)

// An answer that many ask for is kept in memory for so many times as long as it took to work out, so that working it out
// takes a twentieth of the time at most.
const (
	keptShare = 20
	keptLeast = time.Second
	keptMost  = 256 // answers
)

// kept remembers answers for a while. What an answer depends on belongs into its key, above all the tenant; rights too,
// unless the answer is cut to them afterwards.
type kept[V any] struct {
	mu sync.Mutex // guards by
	by map[string]*keptAnswer[V]
	// took says how long the work took that began then; nil: the time of the machine, which is not the platform's clock
	took func(began time.Time) time.Duration
}

type keptAnswer[V any] struct {
	mu        sync.Mutex // held while one works it out for all who wait
	value     V
	at, until time.Time
}

// get returns the answer for the key and the instant that it is told for.
func (k *kept[V]) get(now func() time.Time, key string, work func() (V, error)) (V, time.Time, error) {
	k.mu.Lock()
	a := k.by[key]
	if a == nil {
		if k.by == nil || len(k.by) >= keptMost {
			k.by = map[string]*keptAnswer[V]{}
		}
		a = &keptAnswer[V]{}
		k.by[key] = a
	}
	k.mu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	at := now()
	if at.Before(a.until) {
		return a.value, a.at, nil
	}
	took := time.Since
	if k.took != nil {
		took = k.took
	}
	began := time.Now() // what it costs, not what time it is
	value, err := work()
	if err != nil {
		return value, at, err
	}
	a.value, a.at = value, at
	a.until = at.Add(max(keptLeast, keptShare*took(began)))
	return a.value, a.at, nil
}

// forget drops the answer for the key, and those whose key goes on after it with a zero byte: whoever changed something
// sees the change.
func (k *kept[V]) forget(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	maps.DeleteFunc(k.by, func(other string, _ *keptAnswer[V]) bool { return other == key || strings.HasPrefix(other, key+"\x00") })
}

// changed drops what is kept in memory about a tenant, after something was written that it depends on.
func (s *Service) changed(tenant string) {
	s.lists.forget(tenant)
	s.told.forget(tenant)
}
