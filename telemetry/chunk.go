// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"

	"github.com/klauspost/compress/zstd"
)

// A chunk holds points of one stream, column by column:
//
//	version (2) · n · columns · times · column…
//	times:   order · numbers
//	column:  name · presence (0: every point has it, 1: a bitmap follows) · encoding · length of the rest · the rest
//	         encoding 0: a decimal scale and an order, then the values times ten to the scale, as numbers
//	         encoding 1: each value's bits XOR those of its predecessor, in planes: first all lowest bytes, last all highest
//	numbers: as many of the first ones as the order says, then the rest as differences of that order (0: themselves,
//	         1: differences, 2: differences of differences) in a Golomb-Rice code, see bitWriter.rice
//
// Whole numbers outside of the code are (zigzag) varints. Encoding 0 is taken only when it gives back every bit. The length
// lets a reader pass over a column without looking at it. What remains alike (silent counters, two that count the same)
// is left to zstd. Version 1 knew neither orders nor lengths, and wrote varints throughout; it is still read.
const (
	chunkVersion  = 2
	chunkPoints   = 4096 // most points in one chunk
	chunkColumns  = 4096 // most columns; a message brings at most maxValues
	chunkMaxBytes = 64 << 20
	maxScale      = 9
	maxOrder      = 2
	smallChunk    = 256 // points below which a chunk waits to be merged with others
)

var errChunk = errors.New("telemetry: damaged chunk")

var pow10 = [maxScale + 1]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9}

// codec compresses and decompresses; its methods may be called at the same time.
type codec struct {
	enc  *zstd.Encoder
	fast *zstd.Encoder // for what is soon replaced
	dec  *zstd.Decoder
}

func newCodec() codec {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(2))
	if err != nil {
		panic(err) // only wrong options can fail
	}
	fast, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(2), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(64<<10))
	if err != nil {
		panic(err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(chunkMaxBytes))
	if err != nil {
		panic(err)
	}
	return codec{enc, fast, dec}
}

// encodeChunk packs at most chunkPoints points, sorted by time. Boot and seq are not kept: repeats are told apart before.
func (c codec) encodeChunk(points []point) []byte { return c.encodeTable(tableOf(points)) }

// encodeTable packs at most chunkPoints points and chunkColumns columns. What is short is compressed in haste: it will be merged.
func (c codec) encodeTable(t table) []byte {
	w := &bitWriter{b: make([]byte, 0, 64+t.len()*(2+len(t.names)*3))}
	w.b = append(w.b, chunkVersion)
	w.uvarint(uint64(t.len()))
	w.uvarint(uint64(len(t.names)))
	ns := make([]int64, t.len())
	copy(ns, t.at)
	order := bestOrder(ns)
	w.b = append(w.b, byte(order))
	w.numbers(ns, order)
	vs := make([]float64, 0, t.len())
	rest := &bitWriter{}
	for j, name := range t.names {
		w.uvarint(uint64(len(name)))
		w.b = append(w.b, name...)
		vs = vs[:0]
		for _, v := range t.columns[j] {
			if !math.IsNaN(v) {
				vs = append(vs, v)
			}
		}
		if w.b = append(w.b, 0); len(vs) < t.len() {
			w.b[len(w.b)-1] = 1
			w.presence(t.columns[j])
		}
		rest.b = rest.b[:0]
		encoding := rest.column(vs, ns)
		w.b = append(w.b, encoding)
		w.uvarint(uint64(len(rest.b)))
		w.b = append(w.b, rest.b...)
	}
	if t.len() < smallChunk {
		return c.fast.EncodeAll(w.b, nil)
	}
	return c.enc.EncodeAll(w.b, nil)
}

// presence writes one bit per point, 1 where the column has a value.
func (w *bitWriter) presence(column []float64) {
	for i, v := range column {
		if i%8 == 0 {
			w.b = append(w.b, 0)
		}
		if !math.IsNaN(v) {
			w.b[len(w.b)-1] |= 1 << (i % 8)
		}
	}
}

// column writes values and returns their encoding. ns is room for as many numbers.
func (w *bitWriter) column(vs []float64, ns []int64) byte {
	if scale, ok := scaleOf(vs); ok {
		ns = ns[:len(vs)]
		for i, v := range vs {
			ns[i] = int64(math.Round(v * pow10[scale]))
		}
		order := bestOrder(ns)
		w.b = append(w.b, byte(scale), byte(order))
		w.numbers(ns, order)
		return 0
	}
	at := len(w.b)
	w.b = append(w.b, make([]byte, 8*len(vs))...)
	var last uint64
	for i, v := range vs {
		x := math.Float64bits(v)
		for plane := range 8 {
			w.b[at+plane*len(vs)+i] = byte((x ^ last) >> (8 * plane))
		}
		last = x
	}
	return 1
}

// bestOrder is the order of differences that leaves the fewest digits.
func bestOrder(ns []int64) int {
	var size [maxOrder + 1]int
	var last, delta int64
	for i, n := range ns {
		d := n - last
		if i >= maxOrder {
			size[0] += bits.Len64(zigzag(n))
			size[1] += bits.Len64(zigzag(d))
			size[2] += bits.Len64(zigzag(d - delta))
		}
		last, delta = n, d
	}
	if len(ns) <= maxOrder {
		return len(ns)
	}
	order := 0
	for o, s := range size {
		if s < size[order] {
			order = o
		}
	}
	return order
}

// scaleOf finds the smallest decimal scale under which every value is a whole number and comes back bit for bit.
func scaleOf(vs []float64) (int, bool) {
	scale, from := 0, 0
	for i, v := range vs {
		for !exact(v, scale) {
			if scale++; scale > maxScale {
				return 0, false
			}
			from = i
		}
	}
	for _, v := range vs[:from] { // a larger scale may push an earlier value out of range
		if !exact(v, scale) {
			return 0, false
		}
	}
	return scale, true
}

func exact(v float64, scale int) bool {
	if scale == 0 {
		n := int64(v)
		return math.Abs(v) < 1<<53 && float64(n) == v && (n != 0 || !math.Signbit(v))
	}
	n := math.Round(v * pow10[scale])
	return math.Abs(n) < 1<<53 && math.Float64bits(float64(int64(n))/pow10[scale]) == math.Float64bits(v)
}

// decodeChunk is the inverse of encodeChunk.
func (c codec) decodeChunk(body []byte) ([]point, error) {
	t, err := c.decodeTable(body, nil)
	return t.points(), err
}

// decodeTable is the inverse of encodeTable, of the columns that are wanted (nil: all); it refuses what encodeTable cannot have made.
func (c codec) decodeTable(body []byte, want func(name string) bool) (table, error) {
	b, err := c.dec.DecodeAll(body, nil)
	if err != nil {
		return table{}, fmt.Errorf("%w: %w", errChunk, err)
	}
	r := &reader{b: b}
	version := r.byte()
	if version != 1 && version != chunkVersion {
		return table{}, fmt.Errorf("%w: version %d", errChunk, version)
	}
	n, columns := r.count(chunkPoints), r.count(chunkColumns)
	t := table{at: make([]int64, n)}
	if version == 1 {
		r.varints(t.at, maxOrder)
	} else {
		r.numbers(t.at, int(r.byte()))
	}
	var present []byte
	for range columns {
		name := string(r.bytes(r.count(maxName)))
		present = nil
		if r.byte() != 0 {
			present = r.bytes((n + 7) / 8)
		}
		have := n
		if present != nil {
			have = 0
			for i, p := range present {
				if i == len(present)-1 && n%8 != 0 {
					p &= 1<<(n%8) - 1
				}
				have += bits.OnesCount8(p)
			}
		}
		wanted := want == nil || want(name)
		encoding := r.byte()
		from := r
		if version > 1 {
			if from = (&reader{b: r.bytes(r.count(chunkMaxBytes))}); !wanted {
				continue
			}
		}
		vs := make([]float64, have)
		from.column(vs, encoding, version)
		if version > 1 && len(from.b) != 0 {
			from.fail()
		}
		if r.bad = r.bad || from.bad; r.bad {
			return table{}, errChunk
		}
		if wanted {
			t.names = append(t.names, name)
			t.columns = append(t.columns, spread(vs, present, n))
		}
	}
	if r.bad || len(r.b) != 0 {
		return table{}, errChunk
	}
	return t, nil
}

// spread puts values where a bitmap says; nil says everywhere.
func spread(vs []float64, present []byte, n int) []float64 {
	if present == nil {
		return vs
	}
	out := make([]float64, n)
	for i := range out {
		if out[i] = math.NaN(); present[i/8]&(1<<(i%8)) != 0 {
			out[i], vs = vs[0], vs[1:]
		}
	}
	return out
}

// column reads a column's values.
func (r *reader) column(vs []float64, encoding, version byte) {
	switch encoding {
	case 0:
		scale := int(r.byte())
		if scale > maxScale {
			r.fail()
			return
		}
		ns := make([]int64, len(vs))
		if version == 1 {
			r.varints(ns, 1)
		} else {
			r.numbers(ns, int(r.byte()))
		}
		for i, n := range ns {
			vs[i] = float64(n) / pow10[scale]
		}
	case 1:
		b := r.bytes(8 * len(vs))
		if b == nil {
			return
		}
		var last uint64
		for i := range vs {
			if version == 1 {
				last ^= binary.LittleEndian.Uint64(b[8*i:])
			} else {
				for plane := range 8 {
					last ^= uint64(b[plane*len(vs)+i]) << (8 * plane)
				}
			}
			vs[i] = math.Float64frombits(last)
		}
	default:
		r.fail()
	}
}

// varints reads numbers as version 1 wrote them: the first whole, then differences of the order, which begins at 1.
func (r *reader) varints(ns []int64, order int) {
	var last, delta int64
	for i := range ns {
		d := r.varint()
		if order == 2 && i > 0 {
			delta += d
			d = delta
		}
		last += d
		ns[i] = last
	}
}

// reader takes a chunk apart; after the first fault bad is set and everything it returns is zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() { r.bad, r.b = true, nil }

func (r *reader) bytes(n int) []byte {
	if n > len(r.b) {
		r.fail()
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count reads a length of at most limit.
func (r *reader) count(limit int) int {
	v := r.uvarint()
	if v > uint64(limit) {
		r.fail()
		return 0
	}
	return int(v)
}
