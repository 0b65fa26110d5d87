// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
)

// entry is one message on its way to the platform.
type entry struct {
	no    uint64 // grows by one with each message of its spool, also across starts
	topic string // below the device's root
	body  []byte
	ts    int64 // ms, when it was put; 0: the device did not know

	boot, seq uint64 // of a measurement, to tell it apart when it is lost; of an event seq is 0
}

// spool keeps messages on disk in the order in which they were put: in segments, files that are only appended to and
// removed as a whole. One append is one write and one sync, however many messages it takes, and what was acknowledged
// costs no write of its own: how far that is stands in the frames that follow. A frame is
//
//	length u32 | CRC-32C of what follows u32 | no, acked, ts, boot, seq, length of topic (uvarints) | topic | body
//
// A power cut may tear the end of the last segment, which was then told to nobody. What it tears is left alone, and the
// next append begins another segment.
type spool struct {
	disk  disk
	class string // "t", "e" or "s": the first letter of its files' names
	size  int64  // a segment that is this long, in bytes, is not appended to any more
	whole bool   // every number is on disk once. The last segment stays when all in it is acknowledged, since it tells what was last

	segs []*segment // oldest first
	next uint64     // number of the next entry
	// hole is how many entries could not be read back that were on disk for certain.
	hole uint64
}

// segment is a file of a spool.
type segment struct {
	name    string
	bytes   int64
	first   uint64
	last    uint64
	waiting int             // entries that are not acknowledged
	done    map[uint64]bool // entries that are
	newest  int64           // ts of the last entry
	shut    bool            // not appended to any more: it is torn, or an append failed
	read    []entry         // of the segment that is being sent; nil: not at hand
}

const (
	frameHead = 8
	maxFrame  = 256 << 10 // bytes of a frame; no message is longer
)

// openSpool reads what is on disk. What was removed and a power cut brought back is known as acknowledged by the frames
// after it.
func openSpool(d disk, class string, size int64, whole bool) (*spool, error) {
	s := &spool{disk: d, class: class, size: size, whole: whole, next: 1}
	files, err := filepath.Glob(d.path(filepath.Join("buffer", class+"-*.log")))
	if err != nil {
		return nil, err
	}
	slices.Sort(files) // by the number of their first entry
	var acked uint64
	var prev []entry
	for _, f := range files {
		name := filepath.Join("buffer", filepath.Base(f))
		b, err := d.read(name)
		if err != nil {
			return nil, err
		}
		entries, upto, whole := readFrames(b)
		if len(entries) == 0 {
			if err := d.remove(name); err != nil {
				return nil, err
			}
			continue
		}
		g := &segment{name: name, bytes: int64(len(b)), shut: !whole, done: map[uint64]bool{}, waiting: len(entries),
			first: entries[0].no, last: entries[len(entries)-1].no, newest: entries[len(entries)-1].ts}
		if n := len(s.segs); n > 0 {
			old := s.segs[n-1]
			if g.first <= old.last { // an append failed, and was done again here
				keep := slices.DeleteFunc(prev, func(e entry) bool { return e.no >= g.first })
				old.last, old.waiting = g.first-1, len(keep)
			}
			if s.whole {
				s.hole += g.first - old.last - 1
			}
		}
		acked, s.next, prev = max(acked, upto), g.last+1, entries
		s.segs = append(s.segs, g)
	}
	for _, g := range slices.Clone(s.segs) {
		if g.last <= acked {
			g.waiting = 0
			if err := s.sweep(g); err != nil {
				return nil, err
			}
			continue
		}
		if g.first > acked {
			continue
		}
		entries, err := s.entries(g)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e.no <= acked {
				g.done[e.no], g.waiting = true, g.waiting-1
			}
		}
	}
	return s, nil
}

// readFrames returns the entries of a segment up to the first frame that is not whole, and up to which number all was
// acknowledged when the last of them was written.
func readFrames(b []byte) (out []entry, acked uint64, whole bool) {
	for len(b) > 0 {
		if len(b) < frameHead {
			return out, acked, false
		}
		n, sum := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
		if n > maxFrame || int(n) > len(b)-frameHead {
			return out, acked, false
		}
		frame := b[frameHead : frameHead+int(n)]
		if crc32.Checksum(frame, castagnoli) != sum {
			return out, acked, false
		}
		b = b[frameHead+int(n):]
		var v [6]uint64
		for i := range v {
			x, k := binary.Uvarint(frame)
			if k <= 0 {
				return out, acked, false
			}
			v[i], frame = x, frame[k:]
		}
		if v[5] > uint64(len(frame)) {
			return out, acked, false
		}
		acked = max(acked, v[1])
		out = append(out, entry{no: v[0], ts: int64(v[2]), boot: v[3], seq: v[4], topic: string(frame[:v[5]]), body: frame[v[5]:]})
	}
	return out, acked, true
}

func appendFrame(b []byte, e entry, acked uint64) []byte {
	at := len(b)
	b = append(b, make([]byte, frameHead)...)
	for _, v := range []uint64{e.no, acked, uint64(e.ts), e.boot, e.seq, uint64(len(e.topic))} {
		b = binary.AppendUvarint(b, v)
	}
	b = append(append(b, e.topic...), e.body...)
	frame := b[at+frameHead:]
	binary.LittleEndian.PutUint32(b[at:], uint32(len(frame)))
	binary.LittleEndian.PutUint32(b[at+4:], crc32.Checksum(frame, castagnoli))
	return b
}

// frameBytes is what an entry takes on disk, nearly.
func frameBytes(e entry) int64 { return int64(frameHead + 24 + len(e.topic) + len(e.body)) }

// bytes is what the spool takes on disk.
func (s *spool) bytes() (n int64) {
	for _, g := range s.segs {
		n += g.bytes
	}
	return n
}

// append makes entries durable, in their order and under their numbers, which must be beyond all that are there. before
// is up to where all is acknowledged besides what is in the spool. On an error none of them is in it.
func (s *spool) append(entries []entry, before uint64) error {
	acked := before
	if g := s.oldest(); g != nil {
		no := g.first
		for g.done[no] {
			no++
		}
		acked = min(acked, no-1)
	}
	var b []byte
	for _, e := range entries {
		b = appendFrame(b, e, acked)
	}
	var g *segment
	if n := len(s.segs); n > 0 && !s.segs[n-1].shut && s.segs[n-1].bytes < s.size {
		g = s.segs[n-1]
	}
	fresh := g == nil
	if fresh {
		g = &segment{name: filepath.Join("buffer", fmt.Sprintf("%s-%016x.log", s.class, entries[0].no)), first: entries[0].no, done: map[uint64]bool{}}
	}
	if err := s.disk.extend(g.name, g.bytes, b); err != nil {
		g.shut = true // its end may be torn
		return err
	}
	if fresh {
		s.segs = append(s.segs, g)
	}
	last := entries[len(entries)-1]
	s.next = max(s.next, last.no+1)
	g.bytes, g.last, g.newest, g.waiting = g.bytes+int64(len(b)), last.no, last.ts, g.waiting+len(entries)
	if g.read != nil {
		g.read = append(g.read, entries...)
	}
	for _, old := range slices.Clone(s.segs[:len(s.segs)-1]) {
		if old.waiting == 0 { // it stayed to tell what was last, and is not needed for that any more
			_ = s.remove(old) // if it comes back, the frames after it say that it is done with
		}
	}
	return nil
}

// oldest is the first segment with an entry that waits, or nil.
func (s *spool) oldest() *segment {
	for _, g := range s.segs {
		if g.waiting > 0 {
			return g
		}
	}
	return nil
}

// entries reads a segment, or takes it from memory. What of it cannot be read any more is counted as a hole.
func (s *spool) entries(g *segment) ([]entry, error) {
	if g.read != nil {
		return g.read, nil
	}
	b, err := s.disk.read(g.name)
	if err != nil {
		return nil, err
	}
	entries, _, _ := readFrames(b)
	g.read = slices.DeleteFunc(entries, func(e entry) bool { return e.no < g.first || e.no > g.last })
	return g.read, nil
}

// first returns the oldest entry that is not acknowledged and that busy does not name.
func (s *spool) first(busy func(no uint64) bool) (e entry, ok bool, err error) {
	for _, g := range slices.Clone(s.segs) {
		if g.waiting == 0 {
			continue
		}
		entries, err := s.entries(g)
		if err != nil {
			return e, false, err
		}
		left := 0
		for _, e := range entries {
			if g.done[e.no] {
				continue
			}
			if left++; !busy(e.no) {
				return e, true, nil
			}
		}
		if left == 0 { // what waits in it is not there any more
			s.hole += uint64(g.waiting)
			g.waiting = 0
			if err := s.sweep(g); err != nil {
				return e, false, err
			}
		}
	}
	return entry{}, false, nil
}

// ack notes that the platform has an entry.
func (s *spool) ack(no uint64) error {
	i := slices.IndexFunc(s.segs, func(g *segment) bool { return g.first <= no && no <= g.last })
	if i < 0 || s.segs[i].done[no] {
		return nil // it was given up meanwhile
	}
	g := s.segs[i]
	g.done[no] = true
	if g.waiting--; g.waiting > 0 {
		return nil
	}
	return s.sweep(g)
}

// sweep removes a segment in which nothing waits.
func (s *spool) sweep(g *segment) error {
	g.read = nil
	if s.whole && g == s.segs[len(s.segs)-1] {
		return nil
	}
	return s.remove(g)
}

func (s *spool) remove(g *segment) error {
	s.segs = slices.DeleteFunc(s.segs, func(x *segment) bool { return x == g })
	return s.disk.remove(g.name)
}

// extend appends to a file of so many bytes, makes it if it has none, and returns when all of it is certain. On an error
// the file is cut back as well as that goes.
func (d disk) extend(name string, have int64, b []byte) error {
	if err := d.powered("write " + name); err != nil {
		return err
	}
	how := os.O_WRONLY | os.O_CREATE
	if have == 0 {
		how |= os.O_TRUNC // of a first append that failed
	}
	f, err := os.OpenFile(d.path(name), how, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, have)
	if err == nil {
		err = d.powered("sync " + name)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil && have == 0 {
		if err = d.powered("syncdir " + filepath.Dir(name) + " " + name); err == nil {
			err = syncDir(filepath.Dir(d.path(name)))
		}
	}
	if err != nil && d.powered("truncate "+name) == nil {
		err = errors.Join(err, f.Truncate(have))
	}
	return errors.Join(err, f.Close())
}
