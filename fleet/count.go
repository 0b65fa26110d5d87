// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/store"
)

const (
	foldRows  = 500 // installations folded in one transaction: at most two counters each
	markEvery = 32  // events of a release between two marks
	// countEpoch is where moments are counted from, in ms since 1970 UTC: 2020. From 1970 on the sum over a large fleet
	// would come near the end of 64 bits.
	countEpoch = 1577836800000
)

// event is one end of an interval: from at on one device more, or one less, runs the release.
type event struct {
	tenant, release string
	change
}

// count is what is folded of a release.
type count struct {
	tenant, release string
	sum
	events   int64 // folded so far
	lastAt   int64 // when the latest of them was
	markedAt int64 // when the latest mark is; -1: there is none
}

// Fold counts all installations that are not counted yet, if the lease is ours. Work does so every two seconds.
func (s *Service) Fold(ctx context.Context) error {
	s.folding.Lock()
	defer s.folding.Unlock()
	s.pending.Store(0)
	if more, err := hasDeltas(ctx, s.cfg.DB); err != nil || !more {
		return err
	}
	lease, ok, err := s.cfg.DB.TakeLease(ctx, foldLease, s.holder, foldTTL)
	if err != nil || !ok {
		return err
	}
	for n := foldRows; n == foldRows; {
		if err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) (err error) {
			if err := tx.Fence(lease, foldTTL); err != nil {
				return err
			}
			n, err = fold(tx)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// fold moves some installations into counters and marks and returns how many.
func fold(tx *store.Tx) (int, error) {
	deltas, err := takeDeltas(tx, foldRows)
	if err != nil {
		return 0, err
	}
	var events []event
	for _, d := range deltas {
		events = append(events, d.events()...)
	}
	// In the order of keys: who else writes counters at the same time must not wait for us while we wait for it.
	slices.SortFunc(events, func(a, b event) int {
		return cmp.Or(strings.Compare(a.tenant, b.tenant), strings.Compare(a.release, b.release), cmp.Compare(a.at, b.at))
	})
	var counts []*count
	of := map[*count][]event{}
	for _, e := range events {
		if n := len(counts); n == 0 || counts[n-1].tenant != e.tenant || counts[n-1].release != e.release {
			counts = append(counts, &count{tenant: e.tenant, release: e.release, markedAt: -1})
		}
		c := counts[len(counts)-1]
		of[c] = append(of[c], e)
	}
	if err := readCounts(tx, counts); err != nil {
		return 0, err
	}
	var made []newMarks
	for _, c := range counts {
		for _, e := range of[c] {
			if e.at <= c.markedAt { // it came late
				if err := moveMarks(tx, e); err != nil {
					return 0, err
				}
			}
		}
		if m := c.fold(of[c]); len(m.marks) > 0 {
			made = append(made, m)
		}
	}
	if err := putMarks(tx, made); err != nil {
		return 0, err
	}
	return len(deltas), putCounts(tx, counts)
}

// newMarks are marks to be made of a release, which had its latest at after. What lies between is read from the intervals.
type newMarks struct {
	tenant, release string
	after           int64
	marks           []mark
}

// fold counts the events of the release, which are in the order of time, and says which marks to make on the way. A mark
// stands where nothing later is counted yet, and never within a millisecond.
func (c *count) fold(events []event) newMarks {
	out := newMarks{c.tenant, c.release, c.markedAt, nil}
	last, seen := c.lastAt, c.events
	for i, e := range events {
		c.sum = c.plus(e.change)
		c.events++
		c.lastAt = max(c.lastAt, e.at)
		if i+1 < len(events) && events[i+1].at == e.at {
			continue
		}
		if e.at >= last && e.at > c.markedAt && c.events/markEvery > seen/markEvery {
			out.marks = append(out.marks, mark{at: e.at, sum: c.sum})
			c.markedAt, seen = e.at, c.events
		}
	}
	return out
}

// Recount counts every release from the intervals alone, says in the log where counters or marks say something else, and
// puts those right; it also makes marks where there are few. It returns how many releases were wrong.
func (s *Service) Recount(ctx context.Context) (wrong int, err error) {
	tenant, release := "", ""
	for {
		tenant, release, err = nextRelease(ctx, s.cfg.DB, tenant, release)
		if err != nil || release == "" {
			return wrong, err
		}
		right, err := s.recount(ctx, tenant, release)
		if err != nil {
			return wrong, err
		}
		if !right {
			wrong++
			s.cfg.Log.ErrorContext(ctx, "the counters of a release were wrong and are counted again", slog.String("tenant", tenant), slog.String("release", release))
		}
	}
}

// recount looks at one release and writes it anew if need be. While we hold the lease nobody folds, so that what was read
// then stays so.
func (s *Service) recount(ctx context.Context, tenant, release string) (right bool, err error) {
	seen, err := s.look(ctx, tenant, release)
	if err != nil || seen.right && !seen.sparse {
		return seen.right, err
	}
	s.folding.Lock()
	defer s.folding.Unlock()
	lease, ok, err := s.cfg.DB.TakeLease(ctx, foldLease, s.holder, foldTTL)
	if err != nil || !ok {
		return seen.right, err // another process folds now: tomorrow is another day
	}
	if seen, err = s.look(ctx, tenant, release); err != nil {
		return false, err
	}
	return seen.right, s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
		if err := tx.Fence(lease, foldTTL); err != nil {
			return err
		}
		if err := deleteMarks(tx, tenant, release); err != nil {
			return err
		}
		if err := insertMarks(tx, tenant, release, seen.marks); err != nil {
			return err
		}
		return putCounts(tx, []*count{&seen.count})
	})
}

// looked is what a release ought to be counted as, and whether it is.
type looked struct {
	count
	marks         []mark
	right, sparse bool
}

// look counts a release from its intervals, on one snapshot with its counter and marks.
func (s *Service) look(ctx context.Context, tenant, release string) (l looked, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		have := count{tenant: tenant, release: release}
		if err := readCounts(tx, []*count{&have}); err != nil {
			return err
		}
		marks, err := readMarks(tx, tenant, release)
		if err != nil {
			return err
		}
		changes, err := readChanges(tx, tenant, release)
		if err != nil {
			return err
		}
		l.count = count{tenant: tenant, release: release, events: int64(len(changes)), markedAt: -1}
		for _, c := range changes {
			l.lastAt = max(l.lastAt, c.at)
		}
		changes = netted(changes)
		l.marks, l.sum = marked(changes)
		if n := len(l.marks); n > 0 {
			l.markedAt = l.marks[n-1].at
		}
		l.right, l.sparse = have.sum == l.sum && agree(marks, changes), len(marks) < len(l.marks)/2
		return nil
	})
	return l, err
}

// agree says whether marks tell what happened, all of it until the last of them; changes are netted.
func agree(marks []mark, changes []change) bool {
	var s sum
	for _, m := range marks {
		n := 0
		for n < len(changes) && changes[n].at <= m.at {
			s = s.plus(changes[n])
			n++
		}
		if m.sum != s || !slices.Equal(m.changes, changes[:n]) {
			return false
		}
		changes = changes[n:]
	}
	return true
}

// delta is an installation that is not folded yet.
type delta struct {
	tenant, from, to string // releases; empty: none
	at               int64
}

func (d delta) events() []event {
	var out []event
	if d.from != "" {
		out = append(out, event{d.tenant, d.from, change{d.at, -1}})
	}
	if d.to != "" {
		out = append(out, event{d.tenant, d.to, change{d.at, +1}})
	}
	return out
}

var errNoMark = errors.New("fleet: a mark is gone that the counter tells of")
