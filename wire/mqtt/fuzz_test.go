// SPDX-License-Identifier: Apache-2.0

package mqtt

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
)

// FuzzDecode: no input panics, an error has a reason, memory stays in proportion to the input, and what was read can be
// written and read again.
func FuzzDecode(f *testing.F) {
	for _, g := range golden {
		f.Add(byte(g.v), unhex(f, g.hex))
	}
	for _, m := range hostilePackets(f) {
		f.Add(byte(m.v), m.b)
	}
	f.Add(byte(V5), []byte{0x82, 6, 0, 1, 0, 0, 1, 'a'})                // mochi-mqtt issue 501
	f.Add(byte(V5), []byte{0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x03})         // claims 1 GiB
	f.Add(byte(V5), bytes.Repeat([]byte{0xFF}, 64))                     // a length without end
	f.Add(byte(V4), []byte{0x36, 7, 0, 1, 't', 0, 7, 'h', 'i'})         // QoS 3
	f.Add(byte(V5), []byte{0x30, 8, 0, 1, 't', 4, 1, 0, 1, 0})          // a property twice
	f.Add(byte(V5), []byte{0x30, 9, 0, 1, 't', 0xFF, 0xFF, 0xFF, 0xFF}) // property length without end
	f.Fuzz(func(t *testing.T, version byte, stream []byte) {
		v := V4
		if version&1 == 1 {
			v = V5
		}
		r := NewReader(bytes.NewReader(stream), 1<<20)
		for {
			h, body, err := r.Next()
			if err != nil {
				if len(r.buf) > 2*len(stream)+chunk {
					t.Fatalf("a buffer of %d bytes for an input of %d", len(r.buf), len(stream))
				}
				return
			}
			p, err := Decode(v, h, body)
			if err != nil {
				var e *Error
				if !errors.As(err, &e) || !e.Reason.Failed() {
					t.Fatalf("not an error with a reason: %v", err)
				}
				return
			}
			again(t, v, p)
		}
	})
}

func again(t *testing.T, v Version, p Packet) {
	if c, ok := p.(*Connect); ok {
		v = c.Version
	}
	b, err := Append(nil, v, p)
	if err != nil {
		t.Fatalf("read but not written: %+v: %v", p, err)
	}
	q, err := decodeAll(v, b)
	if err != nil {
		t.Fatalf("written but not read: %x: %v", b, err)
	}
	if !reflect.DeepEqual(p, q) {
		t.Fatalf("read    %+v\nread on %+v", p, q)
	}
	b2, err := Append(nil, v, q)
	if err != nil || !bytes.Equal(b, b2) {
		t.Fatalf("written %x\nthen    %x, %v", b, b2, err)
	}
}

// FuzzMatch compares Match with a definition by sets of levels.
func FuzzMatch(f *testing.F) {
	f.Add("a/+/#", "a/b")
	f.Add("#", "a")
	f.Add("a//b", "a//b")
	f.Fuzz(func(t *testing.T, filter, topic string) {
		if CheckFilter(filter) != nil || CheckTopic(topic) != nil {
			return
		}
		if filter == topic && !Match(filter, topic) {
			t.Errorf("%q does not match itself", topic)
		}
		if !Match("#", topic) || !Match(topic+"/#", topic) || !Match(topic+"/#", topic+"/x") {
			t.Errorf("a wildcard misses %q", topic)
		}
		if Match(filter, topic) && !Match(filter+"/#", topic) && filter[len(filter)-1] != '#' {
			t.Errorf("%q matches, %q does not: %q", filter, filter+"/#", topic)
		}
	})
}
