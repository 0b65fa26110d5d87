// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"bytes"
	"testing"
)

func record(kind byte, epoch byte, content ...byte) []byte {
	b := []byte{kind, 0xFE, 0xFD, 0, epoch, 0, 0, 0, 0, 0, 1}
	if kind == withID {
		b = append(b, 1, 2, 3, 4, 5, 6, 7, 8)
	}
	return append(append(b, byte(len(content)>>8), byte(len(content))), content...)
}

var hello = record(handshake, 0, clientHello, 0, 0, 0)

// inspected are datagrams, and what is seen of them.
var inspected = []struct {
	name string
	b    []byte
	want records
	ok   bool
}{
	{"a hello", hello, records{hello: true, plain: 17}, true},
	{"the rest of a handshake", bytes.Join([][]byte{record(handshake, 0, certificate, 1), record(handshake, 0, clientKeyExchange), record(changeCipher, 0, 1), record(handshake, 1, 9, 9)}, nil), records{plain: 15 + 14 + 14}, true},
	{"application data", record(application, 1, 5, 6), records{}, true},
	{"with a connection ID", record(withID, 1, 5), records{id: []byte{1, 2, 3, 4, 5, 6, 7, 8}}, true},
	{"a hello behind another record", append(record(changeCipher, 0, 1), hello...), records{plain: 14 + 17}, true},
	{"nothing", nil, records{}, false},
	{"cut off", hello[:12], records{}, false},
	{"longer than it is", hello[:15], records{}, false},
	{"an empty record", record(handshake, 0), records{}, false},
	{"TLS", []byte{22, 3, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1}, records{}, false},
	{"a ServerHello", record(handshake, 0, serverHello), records{}, false},
	{"application data in the plain", record(application, 0, 1), records{}, false},
	{"a connection ID in the plain", record(withID, 0, 1), records{}, false},
	{"an unknown record", record(99, 1, 1), records{}, false},
	{"half a connection ID", record(withID, 1, 1)[:15], records{}, false},
	{"noise behind a record", append(bytes.Clone(hello), 1, 2, 3), records{}, false},
}

func TestInspect(t *testing.T) {
	for _, c := range inspected {
		got, ok := inspect(c.b)
		if ok != c.ok || ok && (got.hello != c.want.hello || got.plain != c.want.plain || !bytes.Equal(got.id, c.want.id)) {
			t.Errorf("%s: %+v, %t", c.name, got, ok)
		}
	}
}

// FuzzInspect: no datagram panics, and what is let through is counted in full.
func FuzzInspect(f *testing.F) {
	for _, c := range inspected {
		f.Add(c.b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok := inspect(b)
		if ok && (r.plain > len(b) || r.hello && r.plain == 0 || r.id != nil && len(r.id) != cidLength) {
			t.Errorf("%+v of %d bytes", r, len(b))
		}
	})
}
