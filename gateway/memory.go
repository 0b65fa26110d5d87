// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"slices"
	"sync"
	"time"
)

// memory bounds what all connections together make the gateway hold beyond the few kilobytes of each: packets larger
// than the first read buffer, request bodies, output that its peer has not read. Small messages need none of it, so
// whoever fills it up does not hold up theirs.
type memory struct {
	limit int64

	mu      sync.Mutex // guards the fields below
	used    int64
	line    []*claim // who waits, the first to come first
	starved int64
}

type claim struct {
	n  int64
	ok chan struct{}
}

// try takes n bytes if at most the given part of all would be in use then, in parts of four.
func (m *memory) try(n, quarters int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.line) > 0 || m.used+n > m.limit/4*quarters {
		m.starved++
		return false
	}
	m.used += n
	return true
}

// wait takes n bytes as soon as there is room; false: there was none for that long.
func (m *memory) wait(n int64, patience time.Duration) bool {
	m.mu.Lock()
	if len(m.line) == 0 && m.used+n <= m.limit {
		m.used += n
		m.mu.Unlock()
		return true
	}
	c := &claim{n, make(chan struct{})}
	m.line = append(m.line, c)
	m.mu.Unlock()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-c.ok:
		return true
	case <-t.C:
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.Index(m.line, c)
	if i < 0 {
		return true // it came at the last moment
	}
	m.line = slices.Delete(m.line, i, i+1)
	m.starved++
	m.serve() // it may have stood before smaller ones
	return false
}

// give returns n bytes.
func (m *memory) give(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used -= n
	m.serve()
}

func (m *memory) serve() {
	for len(m.line) > 0 && m.used+m.line[0].n <= m.limit {
		m.used += m.line[0].n
		close(m.line[0].ok)
		m.line = m.line[1:]
	}
}

func (m *memory) numbers() (used, starved int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used, m.starved
}
