// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
)

// change is what happened to a release within one millisecond: so many devices more run it, or less. It is never 0.
type change struct{ at, n int64 }

// sum is what happened to a release until a point in time: how many devices ran it then, and the moment of its events: the
// sum of the times, in ms since countEpoch, at which devices began to run it, less those at which they ended.
type sum struct{ n, moment int64 }

func (s sum) plus(c change) sum  { return sum{s.n + c.n, s.moment + c.n*(c.at-countEpoch)} }
func (s sum) minus(c change) sum { return s.plus(change{c.at, -c.n}) }

// ran is how long the release ran until at, summed over devices, in ms.
func (s sum) ran(at int64) int64 { return s.n*(at-countEpoch) - s.moment }

// mark is what was folded of a release until an instant, that instant included, and how it came to that since the mark
// before.
type mark struct {
	at int64
	sum
	changes []change // in the order of time; the last is at the mark or before it
}

// until is the sum at an instant between the mark before and this one.
func (m mark) until(at int64) sum {
	s := m.sum
	for _, c := range slices.Backward(m.changes) {
		if c.at <= at {
			break
		}
		s = s.minus(c)
	}
	return s
}

// packed writes changes from the last to the first: how long before the one after it (the mark itself for the last), and
// how many devices. Most take four bytes.
func (m mark) packed() []byte {
	var b []byte
	at := m.at
	for _, c := range slices.Backward(m.changes) {
		b = binary.AppendUvarint(b, uint64(at-c.at))
		b = binary.AppendVarint(b, c.n)
		at = c.at
	}
	return b
}

var errBlock = errors.New("fleet: what a mark says of the time before it cannot be read")

// unpacked reads what packed wrote.
func unpacked(at int64, b []byte) ([]change, error) {
	var out []change
	for len(b) > 0 {
		gap, k := binary.Uvarint(b)
		if k <= 0 {
			return nil, errBlock
		}
		n, l := binary.Varint(b[k:])
		if l <= 0 {
			return nil, errBlock
		}
		at -= int64(gap)
		out = append(out, change{at, n})
		b = b[k+l:]
	}
	slices.Reverse(out)
	return out, nil
}

// netted puts changes in the order of time, one for each millisecond, and drops those that come to nothing.
func netted(changes []change) []change {
	slices.SortFunc(changes, func(a, b change) int { return cmp.Compare(a.at, b.at) })
	out := changes[:0]
	for _, c := range changes {
		if n := len(out); n > 0 && out[n-1].at == c.at {
			c.n += out[n-1].n
			out = out[:n-1]
		}
		if c.n != 0 {
			out = append(out, c)
		}
	}
	return out
}

// marked makes the marks of a release from all that ever happened to it, netted, and tells what it has come to.
func marked(changes []change) (marks []mark, now sum) {
	for part := range slices.Chunk(changes, markEvery) {
		for _, c := range part {
			now = now.plus(c)
		}
		if len(part) == markEvery {
			marks = append(marks, mark{part[len(part)-1].at, now, part})
		}
	}
	return marks, now
}
