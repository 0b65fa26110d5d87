// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// A chunk holds points of one stream, column by column, so that zstd sees likes beside likes:
//
//	version (1) · n · columns · times · column…
//	times:  the first, the first difference, then differences of differences
//	column: name · presence (0: every point has it, 1: a bitmap follows) · encoding · numbers
//	        encoding 0: a decimal scale, then differences of the values times ten to the scale, as whole numbers
//	        encoding 1: each value's bits XOR those of its predecessor, eight bytes
//
// All whole numbers are (zigzag) varints. Encoding 0 is taken only when it gives back every bit.
const (
	chunkVersion  = 1
	chunkPoints   = 4096 // most points in one chunk
	chunkColumns  = 4096 // most columns; a message brings at most maxValues
	chunkMaxBytes = 64 << 20
	maxScale      = 9
)

var errChunk = errors.New("telemetry: damaged chunk")

var pow10 = [maxScale + 1]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9}

// codec compresses and decompresses; its methods may be called at the same time.
type codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

func newCodec() codec {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(2))
	if err != nil {
		panic(err) // only wrong options can fail
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(chunkMaxBytes))
	if err != nil {
		panic(err)
	}
	return codec{enc, dec}
}

// encodeChunk packs at most chunkPoints points, sorted by time. Boot and seq are not kept: repeats are told apart before.
func (c codec) encodeChunk(points []point) []byte {
	b := []byte{chunkVersion}
	var names []string
	column := map[string]int{}
	for _, p := range points {
		for _, v := range p.values {
			if _, ok := column[v.name]; !ok {
				column[v.name] = 0
				names = append(names, v.name)
			}
		}
	}
	slices.Sort(names)
	for i, n := range names {
		column[n] = i
	}
	b = binary.AppendUvarint(b, uint64(len(points)))
	b = binary.AppendUvarint(b, uint64(len(names)))
	var last, delta int64
	for i, p := range points {
		d := p.t - last
		switch i {
		case 0:
			b = binary.AppendVarint(b, p.t)
			d = 0
		default:
			b = binary.AppendVarint(b, d-delta)
		}
		last, delta = p.t, d
	}
	values := make([][]float64, len(names))
	present := make([][]byte, len(names))
	for i, p := range points {
		for _, v := range p.values {
			j := column[v.name]
			if present[j] == nil {
				present[j] = make([]byte, (len(points)+7)/8)
			}
			present[j][i/8] |= 1 << (i % 8)
			values[j] = append(values[j], v.v)
		}
	}
	for j, name := range names {
		b = binary.AppendUvarint(b, uint64(len(name)))
		b = append(b, name...)
		if len(values[j]) == len(points) {
			b = append(b, 0)
		} else {
			b = append(append(b, 1), present[j]...)
		}
		b = appendColumn(b, values[j])
	}
	return c.enc.EncodeAll(b, nil)
}

func appendColumn(b []byte, vs []float64) []byte {
	if scale, ok := scaleOf(vs); ok {
		b = append(b, 0, byte(scale))
		var last int64
		for _, v := range vs {
			n := int64(math.Round(v * pow10[scale]))
			b = binary.AppendVarint(b, n-last)
			last = n
		}
		return b
	}
	b = append(b, 1)
	var last uint64
	for _, v := range vs {
		bits := math.Float64bits(v)
		b = binary.LittleEndian.AppendUint64(b, bits^last)
		last = bits
	}
	return b
}

// scaleOf finds the smallest decimal scale under which every value is a whole number and comes back bit for bit.
func scaleOf(vs []float64) (int, bool) {
	scale := 0
	for _, v := range vs {
		for !exact(v, scale) {
			if scale++; scale > maxScale {
				return 0, false
			}
		}
	}
	for _, v := range vs { // a larger scale may push an earlier value out of range
		if !exact(v, scale) {
			return 0, false
		}
	}
	return scale, true
}

func exact(v float64, scale int) bool {
	n := math.Round(v * pow10[scale])
	return math.Abs(n) < 1<<53 && math.Float64bits(float64(int64(n))/pow10[scale]) == math.Float64bits(v)
}

// decodeChunk is the inverse of encodeChunk; it refuses what encodeChunk cannot have made.
func (c codec) decodeChunk(body []byte) ([]point, error) {
	b, err := c.dec.DecodeAll(body, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errChunk, err)
	}
	r := reader{b: b}
	if v := r.byte(); v != chunkVersion {
		return nil, fmt.Errorf("%w: version %d", errChunk, v)
	}
	n, columns := r.count(chunkPoints), r.count(chunkColumns)
	points := make([]point, n)
	var last, delta int64
	for i := range points {
		switch i {
		case 0:
			last = r.varint()
		default:
			delta += r.varint()
			last += delta
		}
		points[i].t = last
	}
	for range columns {
		name := string(r.bytes(r.count(maxName)))
		var present []byte
		if r.byte() != 0 {
			present = r.bytes((n + 7) / 8)
		}
		next := r.column()
		for i := range points {
			if r.bad {
				return nil, errChunk
			}
			if present == nil || present[i/8]&(1<<(i%8)) != 0 {
				points[i].values = append(points[i].values, value{name, next()})
			}
		}
	}
	if r.bad || len(r.b) != 0 {
		return nil, errChunk
	}
	return points, nil
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

// column returns the function that reads a column's next number.
func (r *reader) column() func() float64 {
	switch r.byte() {
	case 0:
		scale := int(r.byte())
		if scale > maxScale {
			r.fail()
			scale = 0
		}
		var last int64
		return func() float64 {
			last += r.varint()
			return float64(last) / pow10[scale]
		}
	case 1:
		var last uint64
		return func() float64 {
			if b := r.bytes(8); b != nil {
				last ^= binary.LittleEndian.Uint64(b)
			}
			return math.Float64frombits(last)
		}
	default:
		r.fail()
		return func() float64 { return 0 }
	}
}
