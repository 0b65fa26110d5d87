// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"slices"

	"github.com/openthings-platform/openthings/wire"
)

// trim gives up the oldest of what is beyond the bound: whole segments, measurements first.
func (b *buffer) trim() error {
	for {
		lasting := b.security.bytes() + b.events.bytes()
		measured := b.backlog.bytes()
		if lasting+measured+b.weight <= b.limits.Bytes {
			break
		}
		var s *spool
		switch spare := lasting > b.limits.Bytes*3/4; {
		case spare && len(b.events.segs) > 0:
			s = b.events
		case spare && len(b.security.segs) > 1:
			s = b.security
		case len(b.backlog.segs) > 0:
			s = b.backlog
		}
		if s == nil {
			break
		}
		if err := b.give(s, s.segs[0], wire.LostSpace); err != nil {
			return err
		}
	}
	dropped := false
	for b.weight > mostFresh {
		b.note(wire.LostSpace, b.fresh[0])
		b.weight -= frameBytes(b.fresh[0])
		b.fresh, dropped = b.fresh[1:], true
	}
	if dropped {
		return b.save()
	}
	return nil
}

// trimAge gives up the segments of measurements the last of which is older than the time given (ms).
func (b *buffer) trimAge(before int64) error {
	for len(b.backlog.segs) > 0 {
		g := b.backlog.segs[0]
		if g.newest == 0 || g.newest >= before {
			return nil
		}
		if err := b.give(b.backlog, g, wire.LostAge); err != nil {
			return err
		}
	}
	return nil
}

// give gives a segment up. What was in it is on disk as lost before it goes, and the number up to which that holds, so that
// a power cut in between neither sends it after all nor forgets it.
func (b *buffer) give(s *spool, g *segment, why string) error {
	entries, err := s.entries(g)
	if err != nil {
		why, entries = wire.LostDamaged, nil
	}
	for _, e := range entries {
		if !g.done[e.no] {
			b.note(why, e)
		}
	}
	b.lost.Floor[s.class], b.unsaved = g.last, true
	return errors.Join(b.save(), s.remove(g)) // on a full disk the removal makes room for the next save
}

// note counts a loss: in the last report if it goes on from there, as long as that is not being told.
func (b *buffer) note(why string, e entry) {
	b.unsaved = true
	n := len(b.lost.Reports)
	open := n > 1 || n == 1 && len(b.busy[lostClass]) == 0
	if open {
		r := &b.lost.Reports[n-1]
		if r.Why == why && r.Boot == e.boot || n >= mostReports {
			r.add(e)
			return
		}
	}
	r := lostReport{TS: e.ts, Lost: wire.Lost{Why: why, Boot: e.boot}}
	r.add(e)
	b.lost.Reports = append(b.lost.Reports, r)
}

func (r *lostReport) add(e entry) {
	r.Count++
	switch {
	case e.seq == 0:
		r.Events++
	case e.boot != r.Boot: // there was no room for another report: it ends with the start that it began with
	case r.From == 0:
		r.From, r.To = e.seq, e.seq
	default:
		r.From, r.To = min(r.From, e.seq), max(r.To, e.seq)
	}
}

// save writes what was given up, if that has changed.
func (b *buffer) save() error {
	if !b.unsaved || b.shut {
		return nil
	}
	if err := b.disk.writeJSON(lostName, b.lost); err != nil {
		return err
	}
	b.unsaved = false
	return nil
}

// giveUp removes what was given up before a power cut, and counts on from there.
func (s *spool) giveUp(floor uint64) error {
	s.next = max(s.next, floor+1)
	var failed error
	for _, g := range slices.Clone(s.segs) {
		if g.last <= floor {
			failed = errors.Join(failed, s.remove(g))
		}
	}
	return failed
}
