// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
)

// Limits of what a stream remembers to recognise repeats. What falls out is taken as new if it comes again: a value
// kept twice is the lesser harm.
const (
	maxBoots = 8
	maxSpans = 256
)

// span is a run of sequence numbers, both ends included.
type span struct{ lo, hi uint64 }

// spans are sorted and neither touch nor overlap.
type spans []span

// add reports whether n was not in the set, and adds it.
func (s *spans) add(n uint64) bool {
	i, _ := slices.BinarySearchFunc(*s, n, func(e span, n uint64) int { return cmp.Compare(e.hi, n) })
	if i < len(*s) && (*s)[i].lo <= n {
		return false
	}
	s.insert(span{n, n})
	return true
}

// insert adds a run, joining what it touches.
func (s *spans) insert(a span) {
	i := 0
	for i < len(*s) && (*s)[i].hi+1 < a.lo && (*s)[i].hi < a.lo {
		i++
	}
	j := i
	for j < len(*s) && ((*s)[j].lo <= a.hi || (*s)[j].lo-1 == a.hi) {
		a = span{min(a.lo, (*s)[j].lo), max(a.hi, (*s)[j].hi)}
		j++
	}
	*s = slices.Replace(*s, i, j, a)
	if len(*s) > maxSpans {
		*s = slices.Delete(*s, 0, len(*s)-maxSpans)
	}
}

// seen is which messages of a stream have arrived, per boot, the newest boot first.
type seen []bootSpans

type bootSpans struct {
	boot uint64
	set  spans
}

// add reports whether the message is new. One that does not count its messages (boot or seq 0) always is.
func (s *seen) add(boot, seq uint64) bool {
	if boot == 0 || seq == 0 {
		return true
	}
	i, found := slices.BinarySearchFunc(*s, boot, func(e bootSpans, b uint64) int { return cmp.Compare(b, e.boot) })
	if !found {
		*s = slices.Insert(*s, i, bootSpans{boot: boot})
	}
	fresh := (*s)[i].set.add(seq)
	if len(*s) > maxBoots {
		*s = (*s)[:maxBoots]
	}
	return fresh
}

// takes reports whether a point is new. All points of one message share its count: they stay or go with the first.
func (s *seen) takes(p point, before bool) bool {
	if p.same {
		return before
	}
	return s.add(p.boot, p.seq)
}

// missing counts the messages of the device's newest boot that are known to be lost or still under way: the holes in
// the union of its streams. A device that counts per stream instead shows fewer holes, never false ones.
func missing(streams []seen) uint64 {
	var boot uint64
	for _, s := range streams {
		if len(s) > 0 {
			boot = max(boot, s[0].boot)
		}
	}
	var union spans
	full := false
	for _, s := range streams {
		if len(s) > 0 && s[0].boot == boot {
			full = full || len(s[0].set) == maxSpans
			for _, r := range s[0].set {
				union.insert(r)
			}
		}
	}
	var holes, end uint64
	for i, r := range union {
		if i > 0 || !full { // of a full set the beginning was forgotten, not lost
			holes += r.lo - end - 1
		}
		end = r.hi
	}
	return holes
}

var errSeen = errors.New("telemetry: damaged set of arrived messages")

// encode packs the set into varints: boots, then per boot its number, its spans and their distances.
func (s seen) encode() []byte {
	b := binary.AppendUvarint(nil, uint64(len(s)))
	for _, e := range s {
		b = binary.AppendUvarint(b, e.boot)
		b = binary.AppendUvarint(b, uint64(len(e.set)))
		var at uint64
		for _, r := range e.set {
			b = binary.AppendUvarint(b, r.lo-at)
			b = binary.AppendUvarint(b, r.hi-r.lo)
			at = r.hi
		}
	}
	return b
}

func decodeSeen(b []byte) (seen, error) {
	r := reader{b: b}
	s := make(seen, r.count(maxBoots))
	for i := range s {
		s[i].boot = r.uvarint()
		s[i].set = make(spans, r.count(maxSpans))
		var at uint64
		for j := range s[i].set {
			lo := at + r.uvarint()
			at = lo + r.uvarint()
			s[i].set[j] = span{lo, at}
		}
	}
	if r.bad || len(r.b) != 0 {
		return nil, errSeen
	}
	return s, nil
}
