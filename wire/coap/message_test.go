// SPDX-License-Identifier: Apache-2.0

package coap

import (
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// golden are messages and their bytes; the first two are figures 16 and 17 of RFC 7252.
var golden = []struct {
	name, hex string
	m         Message
}{
	{"GET", "4001 7d34 bb 74656d7065726174757265", Message{Code: GET, ID: 0x7d34, Options: []Option{{URIPath, []byte("temperature")}}}},
	{"2.05 in an acknowledgement", "6045 7d34 ff 32322e3320 43", Message{Type: Acknowledgement, Code: Content, ID: 0x7d34, Payload: []byte("22.3 C")}},
	{"ping", "4000 0001", Message{ID: 1}},
	{"reset", "7000 0001", Message{Type: Reset, ID: 1}},
	{"a token, options with extended delta and length", "5802 0002 0102030405060708 b3 6f7431 11 32 d6 16 010203040506 e0 0009",
		Message{Type: NonConfirmable, Code: POST, ID: 2, Token: []byte{1, 2, 3, 4, 5, 6, 7, 8}, Options: []Option{
			{URIPath, []byte("ot1")}, {ContentFormat, []byte{50}}, {47, []byte{1, 2, 3, 4, 5, 6}}, {325, []byte{}}}}},
	{"an option of 300 bytes", "4002 0003 be 001f" + strings.Repeat("61", 300), Message{Code: POST, ID: 3, Options: []Option{{URIPath, []byte(strings.Repeat("a", 300))}}}},
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGolden(t *testing.T) {
	for _, g := range golden {
		want := unhex(t, g.hex)
		b, err := Append([]byte("before"), g.m)
		if err != nil || hex.EncodeToString(b) != hex.EncodeToString([]byte("before"))+hex.EncodeToString(want) {
			t.Errorf("%s: written %x, %v", g.name, b, err)
		}
		m, err := Decode(want)
		if err != nil || !same(m, g.m) {
			t.Errorf("%s: read %+v, %v", g.name, m, err)
		}
	}
}

func same(a, b Message) bool {
	if len(a.Options) != len(b.Options) || string(a.Payload) != string(b.Payload) || string(a.Token) != string(b.Token) {
		return false
	}
	for i, o := range a.Options {
		if o.Number != b.Options[i].Number || string(o.Value) != string(b.Options[i].Value) {
			return false
		}
	}
	return a.Type == b.Type && a.Code == b.Code && a.ID == b.ID
}

// refused are datagrams that are no message (RFC 7252, section 3).
var refused = map[string]string{
	"nothing":                       "",
	"three bytes":                   "400100",
	"a token of nine bytes":         "4901 0001 010203040506070809",
	"a token that is cut off":       "4401 0001 0102",
	"a reserved class":              "4020 0001",
	"class seven":                   "40e0 0001",
	"an empty message with a token": "4100 0001 01",
	"an empty message with more":    "4000 0001 ff",
	"a marker without a payload":    "4001 0001 ff",
	"delta nibble fifteen":          "4001 0001 f0",
	"length nibble fifteen":         "4001 0001 0f",
	"a delta that is cut off":       "4001 0001 d0",
	"a long delta cut off":          "4001 0001 e0 01",
	"a length that is cut off":      "4001 0001 0d",
	"a value that is cut off":       "4001 0001 b4 6f74",
	"a value without end":           "4001 0001 be ffff 61",
	"an option number beyond":       "4001 0001 e0 ffff 00 e0 ffff",
	"too many options":              "4001 0001" + strings.Repeat("00", MaxOptions+1),
}

func TestRefused(t *testing.T) {
	for name, s := range refused {
		if m, err := Decode(unhex(t, s)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	for _, first := range []byte{0x00, 0x80, 0xC0} {
		if _, err := Decode([]byte{first | 0, 1, 0, 1}); !errors.Is(err, ErrVersion) {
			t.Errorf("version %d: %v", first>>6, err)
		}
	}
	for name, m := range map[string]Message{
		"token":     {Code: GET, Token: make([]byte, 9)},
		"options":   {Code: GET, Options: make([]Option, MaxOptions+1)},
		"class":     {Code: 1 << 5},
		"type":      {Type: 4, Code: GET},
		"empty":     {Payload: []byte("x")},
		"an option": {Code: GET, Options: []Option{{URIPath, make([]byte, 1<<16)}}},
	} {
		if _, err := Append(nil, m); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzDecode: no input panics or makes more memory than it is worth, an error is one of the two kinds, and what was read
// can be written and read again.
func FuzzDecode(f *testing.F) {
	for _, g := range golden {
		f.Add(unhex(f, g.hex))
	}
	for _, s := range refused {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrVersion) {
				t.Fatalf("%v", err)
			}
			return
		}
		again, err := Append(nil, m)
		if err != nil {
			t.Fatalf("%+v was read and cannot be written: %v", m, err)
		}
		if len(again) > len(b) {
			t.Fatalf("%x was read, %x is longer", b, again)
		}
		if n, err := Decode(again); err != nil || !same(m, n) {
			t.Fatalf("%+v became %+v, %v", m, n, err)
		}
		m.Refused()
		m.Path()
		m.Query()
		for _, number := range []uint16{Block1, Block2} {
			if bl, ok, valid := m.Block(number); ok && valid {
				var n Message
				n.SetBlock(number, bl)
				if back, _, _ := n.Block(number); back != bl {
					t.Fatalf("block %+v became %+v", bl, back)
				}
				bl.Of(b)
			}
		}
	})
}

// TestAppendSorts: options leave in the order of their numbers, whatever order they were added in.
func TestAppendSorts(t *testing.T) {
	m := Message{Code: Content}
	m.Set(MaxAge, 60)
	m.SetPath("a/b")
	m.Set(ContentFormat, 0)
	b, err := Append(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	want := []Option{{URIPath, []byte("a")}, {URIPath, []byte("b")}, {ContentFormat, []byte{}}, {MaxAge, []byte{60}}}
	if err != nil || !reflect.DeepEqual(got.Options, want) {
		t.Errorf("%v, %v", got.Options, err)
	}
	if m.Options[0].Number != MaxAge {
		t.Error("the message was changed")
	}
}
