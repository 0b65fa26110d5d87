// SPDX-License-Identifier: Apache-2.0

package coap

import (
	"bytes"
	"testing"
)

func TestRefusedOptions(t *testing.T) {
	for name, c := range map[string]struct {
		options []Option
		number  uint16 // 0: nothing is refused
		kept    int
	}{
		"known":                     {[]Option{{URIPath, []byte("a")}, {URIPath, []byte("b")}, {ContentFormat, []byte{50}}}, 0, 3},
		"unknown and critical":      {[]Option{{URIPath, []byte("a")}, {9, nil}}, 9, 0},
		"if-match":                  {[]Option{{1, nil}}, 1, 0},
		"unknown and elective":      {[]Option{{URIPath, []byte("a")}, {258, []byte{2}}}, 0, 1},
		"critical, too long":        {[]Option{{Block1, []byte{1, 2, 3, 4}}}, Block1, 0},
		"elective, too long":        {[]Option{{ContentFormat, []byte{1, 2, 3}}}, 0, 0},
		"critical twice":            {[]Option{{URIHost, []byte("a")}, {URIHost, []byte("b")}}, URIHost, 0},
		"elective twice":            {[]Option{{ContentFormat, []byte{50}}, {ContentFormat, []byte{60}}}, 0, 1},
		"critical, not UTF-8":       {[]Option{{URIPath, []byte{0xFF}}}, URIPath, 0},
		"a host without a name":     {[]Option{{URIHost, nil}}, URIHost, 0},
		"many segments of a path":   {[]Option{{URIPath, nil}, {URIPath, []byte("b")}, {URIPath, []byte("c")}}, 0, 3},
		"a tag given several times": {[]Option{{RequestTag, []byte{1}}, {RequestTag, []byte{2}}}, 0, 2},
	} {
		m := Message{Options: c.options}
		o, refused := m.Refused()
		if refused != (c.number > 0) || o.Number != c.number || !refused && len(m.Options) != c.kept {
			t.Errorf("%s: option %d, %t, %d kept", name, o.Number, refused, len(m.Options))
		}
	}
}

func TestPath(t *testing.T) {
	for _, c := range []struct {
		segments []string
		want     string
		ok       bool
	}{
		{[]string{"ot", "1", "me", "tele", "env"}, "ot/1/me/tele/env", true},
		{nil, "", true},
		{[]string{"a/b"}, "", false},
		{[]string{"a", "", "b"}, "", false},
		{[]string{".."}, "", false},
		{[]string{"a", "."}, "", false},
	} {
		var m Message
		for _, s := range c.segments {
			m.Options = append(m.Options, Option{URIPath, []byte(s)})
		}
		if got, ok := m.Path(); got != c.want || ok != c.ok {
			t.Errorf("%q: %q, %t", c.segments, got, ok)
		}
	}
}

func TestBlocks(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789abcdef"), 5)
	var out []byte
	for n := uint32(0); ; n++ {
		var m Message
		m.SetBlock(Block2, Block{Num: n, Size: 32})
		b, ok, valid := m.Block(Block2)
		if !ok || !valid || b.Num != n || b.Size != 32 || b.Offset() != int(n)*32 {
			t.Fatalf("block %+v", b)
		}
		part, ok := b.Of(body)
		if !ok {
			t.Fatal("the body ended early")
		}
		if out = append(out, part...); !b.More {
			break
		}
	}
	if !bytes.Equal(out, body) {
		t.Errorf("%q", out)
	}
	if _, ok := (&Block{Num: 3, Size: 32}).Of(body); ok {
		t.Error("there is a block behind the last")
	}
	if part, ok := (&Block{Size: 32}).Of(nil); !ok || len(part) > 0 {
		t.Error("the first block of an empty body")
	}
	m := Message{Options: []Option{{Block1, []byte{7}}}}
	if _, ok, valid := m.Block(Block1); !ok || valid {
		t.Error("the reserved size was accepted")
	}
}

func TestNames(t *testing.T) {
	if got := Changed.String() + " " + TooMany.String() + " " + Confirmable.String(); got != "2.04 4.29 CON" {
		t.Error(got)
	}
	if name, ok := MediaType(SenMLCBOR); !ok || name != "application/senml+cbor" {
		t.Error(name)
	}
	if _, ok := MediaType(65535); ok {
		t.Error("an unknown format has a name")
	}
}
