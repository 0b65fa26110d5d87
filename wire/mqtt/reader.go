// SPDX-License-Identifier: Apache-2.0

package mqtt

import (
	"fmt"
	"io"
	"sync"
)

// chunk is the read buffer that a Reader borrows; a packet beyond it gets a buffer of its own.
const chunk = 4096

var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// Reader cuts a stream into packets. While it waits for the next packet it holds one byte; while bytes flow it borrows
// a buffer, which grows only as fast as bytes arrive.
type Reader struct {
	// Limit is how many bytes a whole packet may have. It may be changed between packets.
	Limit int
	// OnPartial, if set, is called when a packet is still incomplete after its first bytes were read, once per packet:
	// the place to set a shorter deadline.
	OnPartial func()
	// OnGrow, if set, is asked before the Reader holds n bytes beyond its first buffer, the whole of a packet at once, and
	// told with a negative n when it has given them back. It may wait; its error ends Next.
	OnGrow func(n int) error

	src  io.Reader
	buf  []byte // nil while idle
	lent *[chunk]byte
	held int // what OnGrow granted
	r, w int // buf[r:w] holds bytes not yet returned
	one  [1]byte
}

// NewReader makes a Reader of packets of at most limit bytes.
func NewReader(src io.Reader, limit int) *Reader { return &Reader{src: src, Limit: limit} }

// Buffered says whether bytes of a next packet arrived already.
func (r *Reader) Buffered() bool { return r.r < r.w }

// Release gives the buffer back; the bytes returned by Next are no longer valid.
func (r *Reader) Release() {
	if r.lent != nil {
		chunks.Put(r.lent)
	}
	if r.held > 0 {
		_ = r.OnGrow(-r.held) // nothing can fail in taking back
		r.held = 0
	}
	r.buf, r.lent, r.r, r.w = nil, nil, 0, 0
}

// Next returns the first byte and the body of the next packet, ready for Decode. The body is valid until the following
// call. It returns io.EOF at the end between two packets, io.ErrUnexpectedEOF inside one, and an *Error for a packet
// that is refused by its length.
func (r *Reader) Next() (header byte, body []byte, err error) {
	if r.r == r.w {
		r.Release()
		if _, err := io.ReadFull(r.src, r.one[:]); err != nil {
			return 0, nil, err
		}
		r.lent = chunks.Get().(*[chunk]byte)
		r.buf = r.lent[:]
		r.buf[0], r.w = r.one[0], 1
	}
	for reads := 0; ; reads++ {
		head, total, err := r.measure()
		if err != nil {
			return 0, nil, err
		}
		if total > 0 && r.w-r.r >= total {
			b := r.buf[r.r : r.r+total : r.r+total]
			r.r += total
			return b[0], b[head:], nil
		}
		if reads == 1 && r.OnPartial != nil {
			r.OnPartial()
		}
		if err := r.fill(total); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return 0, nil, err
		}
	}
}

// measure reads the fixed header. total is 0 while its length is incomplete.
func (r *Reader) measure() (head, total int, err error) {
	n := 0
	for i, b := range r.buf[r.r+1 : r.w] {
		n |= int(b&0x7F) << (7 * i)
		if b < 0x80 {
			if b == 0 && i > 0 { // [MQTT-1.5.5-1]
				return 0, 0, malformed("the length of a packet is longer than it needs to be")
			}
			total = 2 + i + n
			if total > r.Limit {
				return 0, 0, &Error{PacketTooLarge, fmt.Sprintf("a packet of %d bytes, the limit is %d", total, r.Limit)}
			}
			return 2 + i, total, nil
		}
		if i == 3 {
			return 0, 0, malformed("the length of a packet has more than four bytes")
		}
	}
	return 0, 0, nil
}

// fill reads once, after making room: the buffer doubles when it is full of bytes that arrived.
func (r *Reader) fill(total int) error {
	if r.w == len(r.buf) {
		if r.r > 0 {
			r.w = copy(r.buf, r.buf[r.r:r.w])
			r.r = 0
		} else {
			if r.OnGrow != nil && total > r.held {
				if err := r.OnGrow(total - r.held); err != nil {
					return err
				}
				r.held = total
			}
			grown := make([]byte, min(2*len(r.buf), max(total, len(r.buf)+1)))
			copy(grown, r.buf)
			r.buf = grown
		}
	}
	n, err := r.src.Read(r.buf[r.w:])
	r.w += n
	if n > 0 {
		return nil
	}
	return err
}
