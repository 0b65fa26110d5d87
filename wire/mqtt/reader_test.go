// SPDX-License-Identifier: Apache-2.0

package mqtt

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/iotest"
)

// endless is a peer that sends b again and again, up to n bytes in all.
type endless struct {
	b    byte
	n    int
	sent int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.sent >= e.n {
		return 0, io.EOF
	}
	p = p[:min(len(p), e.n-e.sent)]
	for i := range p {
		p[i] = e.b
	}
	e.sent += len(p)
	return len(p), nil
}

// allocated is how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestReaderHostileLengths(t *testing.T) {
	for _, h := range []struct {
		name  string
		src   io.Reader
		limit int
		want  Reason // Success: an unexpected end
	}{
		{"six bytes claim 1 GiB", bytes.NewReader([]byte{0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x03}), 1 << 30, MalformedPacket},
		{"five bytes claim 256 MiB beyond the limit", bytes.NewReader([]byte{0x30, 0xFF, 0xFF, 0xFF, 0x7F}), 256 << 10, PacketTooLarge},
		{"five bytes claim 256 MiB within the limit", bytes.NewReader([]byte{0x30, 0xFF, 0xFF, 0xFF, 0x7F}), 1 << 30, Success},
		{"continuation bytes without end", &endless{b: 0xFF, n: 16 << 20}, 1 << 30, MalformedPacket},
		{"CONNECT beyond its limit", bytes.NewReader([]byte{0x10, 0x80, 0x20}), 4096, PacketTooLarge},
	} {
		t.Run(h.name, func(t *testing.T) {
			var err error
			got := allocated(func() { _, _, err = NewReader(h.src, h.limit).Next() })
			var e *Error
			if errors.As(err, &e) != (h.want != Success) || e != nil && e.Reason != h.want || e == nil && err != io.ErrUnexpectedEOF {
				t.Errorf("Next: %v", err)
			}
			if got > 64<<10 {
				t.Errorf("%d bytes were allocated", got)
			}
			if s, ok := h.src.(*endless); ok && s.sent > 2*chunk {
				t.Errorf("%d bytes were read before the refusal", s.sent)
			}
		})
	}
}

// TestReaderGrowsWithArrival sends a third of a large packet: no more than twice of what arrived is held.
func TestReaderGrowsWithArrival(t *testing.T) {
	head := []byte{0x30, 0xFF, 0xFF, 0x3F} // 1 MiB - 1
	src := io.MultiReader(bytes.NewReader(head), &endless{b: 'x', n: 300 << 10})
	r := NewReader(src, 2<<20)
	if _, _, err := r.Next(); err != io.ErrUnexpectedEOF {
		t.Fatal(err)
	}
	if got := len(r.buf); got > 2*(300<<10+chunk) {
		t.Errorf("the buffer has %d bytes after 300 KiB arrived", got)
	}
}

func TestReaderCutsTheStream(t *testing.T) {
	var stream []byte
	var want []Packet
	for i := range 40 {
		p := &Publish{QoS: 1, ID: uint16(i + 1), Topic: "t", Payload: bytes.Repeat([]byte{byte(i)}, i*i*10)}
		b, err := Append(nil, V4, p)
		if err != nil {
			t.Fatal(err)
		}
		stream, want = append(stream, b...), append(want, p)
	}
	for name, src := range map[string]io.Reader{
		"whole":     bytes.NewReader(stream),
		"by byte":   iotest.OneByteReader(bytes.NewReader(stream)),
		"by halves": iotest.HalfReader(bytes.NewReader(stream)),
		"with EOF":  iotest.DataErrReader(bytes.NewReader(stream)),
	} {
		r := NewReader(src, 1<<20)
		for i, w := range want {
			h, body, err := r.Next()
			if err != nil {
				t.Fatalf("%s, packet %d: %v", name, i, err)
			}
			p, err := Decode(V4, h, body)
			if err != nil {
				t.Fatalf("%s, packet %d: %v", name, i, err)
			}
			if got := p.(*Publish); got.ID != w.(*Publish).ID || !bytes.Equal(got.Payload, w.(*Publish).Payload) {
				t.Fatalf("%s: packet %d came back as %d", name, i, got.ID)
			}
		}
		if _, _, err := r.Next(); err != io.EOF {
			t.Errorf("%s: end = %v, want io.EOF", name, err)
		}
		if r.buf != nil {
			t.Errorf("%s: an idle reader holds a buffer", name)
		}
	}
}

func TestReaderSaysWhenAPacketIsPartial(t *testing.T) {
	b, _ := Append(nil, V4, &Publish{Topic: "t", Payload: make([]byte, 100)})
	for _, c := range []struct {
		src  io.Reader
		want int
	}{{bytes.NewReader(b), 0}, {iotest.OneByteReader(bytes.NewReader(b)), 1}} {
		calls := 0
		r := NewReader(c.src, 1<<20)
		r.OnPartial = func() { calls++ }
		if _, _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		if calls != c.want {
			t.Errorf("OnPartial was called %d times, want %d", calls, c.want)
		}
	}
}
