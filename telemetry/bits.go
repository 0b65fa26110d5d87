// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"encoding/binary"
	"math/bits"
)

const (
	escape  = 24 // the quotient from which a number is written whole: few are that far from the others
	maxRice = 56 // bits below the cut
)

func zigzag(n int64) uint64   { return uint64(n<<1) ^ uint64(n>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// bitWriter appends whole bytes and, in between, bits, the lowest first.
type bitWriter struct {
	b    []byte
	bits uint64
	n    int // bits that wait, less than 8 between calls
}

func (w *bitWriter) uvarint(u uint64) { w.b = binary.AppendUvarint(w.b, u) }

// put writes the low n bits of u, at most 56.
func (w *bitWriter) put(u uint64, n int) {
	w.bits |= u << w.n
	for w.n += n; w.n >= 8; w.n -= 8 {
		w.b = append(w.b, byte(w.bits))
		w.bits >>= 8
	}
}

// flush fills the last byte with zeros.
func (w *bitWriter) flush() {
	if w.n > 0 {
		w.b = append(w.b, byte(w.bits))
	}
	w.bits, w.n = 0, 0
}

// numbers writes ns, which it uses up, as differences of an order: the first ones as varints, the others by rice.
func (w *bitWriter) numbers(ns []int64, order int) {
	for o := range order {
		for i := len(ns) - 1; i > o; i-- {
			ns[i] -= ns[i-1]
		}
	}
	for _, n := range ns[:order] {
		w.b = binary.AppendVarint(w.b, n)
	}
	w.rice(ns[order:])
}

// rice writes numbers in a Golomb-Rice code (S. Golomb 1966, R. Rice 1971): each is made positive by zigzag and cut at k
// bits; what is above is written as that many ones and a zero, what is below as it is. k suits their mean.
func (w *bitWriter) rice(ns []int64) {
	if len(ns) == 0 {
		return
	}
	digits := 0
	for _, n := range ns {
		digits += bits.Len64(zigzag(n))
	}
	k := min(max(digits/len(ns)-1, 0), maxRice-2)
	// Around the mean number of digits lies the best k; three are tried.
	best := w.riceBits(ns, k)
	for _, other := range []int{k + 1, k + 2} {
		if n := w.riceBits(ns, other); n < best {
			k, best = other, n
		}
	}
	w.b = append(w.b, byte(k))
	for _, n := range ns {
		u := zigzag(n)
		if q := u >> k; q < escape {
			w.put(1<<q-1, int(q)+1)
			w.put(u&(1<<k-1), k)
		} else {
			w.put(1<<escape-1, escape)
			w.put(u&(1<<32-1), 32)
			w.put(u>>32, 32)
		}
	}
	w.flush()
}

// riceBits is how long ns get with k.
func (w *bitWriter) riceBits(ns []int64, k int) (n int) {
	for _, x := range ns {
		if q := zigzag(x) >> k; q < escape {
			n += int(q) + 1 + k
		} else {
			n += escape + 64
		}
	}
	return n
}

// numbers reads what bitWriter.numbers wrote.
func (r *reader) numbers(ns []int64, order int) {
	if order > min(maxOrder, len(ns)) {
		r.fail()
		return
	}
	for i := range order {
		ns[i] = r.varint()
	}
	r.rice(ns[order:])
	for o := order; o > 0; o-- {
		for i := o; i < len(ns); i++ {
			ns[i] += ns[i-1]
		}
	}
}

// rice reads what bitWriter.rice wrote.
func (r *reader) rice(ns []int64) {
	if len(ns) == 0 {
		return
	}
	k := int(r.byte())
	if k > maxRice {
		r.fail()
		return
	}
	var have uint64 // bits at hand, the lowest first; n of them count
	n, at, b := 0, 0, r.b
	fill := func() {
		if at+8 <= len(b) {
			have |= binary.LittleEndian.Uint64(b[at:]) << n
			at += (63 - n) / 8
			n |= 56
			return
		}
		for ; n <= 56 && at < len(b); at++ {
			have |= uint64(b[at]) << n
			n += 8
		}
	}
	for i := range ns {
		fill()
		q := bits.TrailingZeros64(^have)
		ones, rest, u := q+1, k, uint64(q)<<k
		if q >= escape {
			ones, rest, u = escape, 64, 0
		}
		if n -= ones; n < 0 {
			r.fail()
			return
		}
		have >>= ones
		for got := 0; got < rest; {
			if n < rest-got {
				fill()
			}
			m := min(rest-got, n, 56)
			if m <= 0 {
				r.fail()
				return
			}
			u |= have & (1<<m - 1) << got
			have, n, got = have>>m, n-m, got+m
		}
		ns[i] = unzigzag(u)
	}
	r.b = b[at-n/8:] // whole bytes that were not needed go back
}
