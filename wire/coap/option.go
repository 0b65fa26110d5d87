// SPDX-License-Identifier: Apache-2.0

package coap

import (
	"strings"
	"unicode/utf8"
)

// Numbers of options.
const (
	URIHost       uint16 = 3
	ETag          uint16 = 4
	Observe       uint16 = 6
	URIPort       uint16 = 7
	URIPath       uint16 = 11
	ContentFormat uint16 = 12
	MaxAge        uint16 = 14
	URIQuery      uint16 = 15
	Accept        uint16 = 17
	Block2        uint16 = 23
	Block1        uint16 = 27
	Size2         uint16 = 28
	ProxyURI      uint16 = 35
	ProxyScheme   uint16 = 39
	Size1         uint16 = 60
	RequestTag    uint16 = 292
)

// form is how the value of an option is written.
type form byte

const (
	opaque form = iota
	number      // an unsigned integer without leading zeros
	text        // UTF-8
)

// definition is a row of the table of options.
type definition struct {
	form     form
	min, max int // bytes of the value
	repeats  bool
}

// definitions are the options that this package knows: of RFC 7252, table 4, all but If-Match, If-None-Match and those of
// Location; RFC 7641; RFC 7959, table 1; RFC 9175.
var definitions = map[uint16]definition{
	URIHost:       {text, 1, 255, false},
	ETag:          {opaque, 1, 8, true},
	Observe:       {number, 0, 3, false},
	URIPort:       {number, 0, 2, false},
	URIPath:       {text, 0, 255, true},
	ContentFormat: {number, 0, 2, false},
	MaxAge:        {number, 0, 4, false},
	URIQuery:      {text, 0, 255, true},
	Accept:        {number, 0, 2, false},
	Block2:        {number, 0, 3, false},
	Block1:        {number, 0, 3, false},
	Size2:         {number, 0, 4, false},
	ProxyURI:      {text, 1, 1034, false},
	ProxyScheme:   {text, 1, 255, false},
	Size1:         {number, 0, 4, false},
	RequestTag:    {opaque, 0, 8, true},
}

// Critical says whether who does not understand the option must not process the message (section 5.4.6).
func (o Option) Critical() bool { return o.Number&1 == 1 }

// Refused returns the first critical option that has to be refused, as one that is not understood (sections 5.4.1, 5.4.3
// and 5.4.5): because it is not in the table, its value is not what the table says, or it is there a second time. Elective
// options of that kind are taken out of m, which is what ignoring them means.
func (m *Message) Refused() (Option, bool) {
	kept := m.Options[:0:0]
	for i, o := range m.Options {
		d, known := definitions[o.Number]
		again := i > 0 && m.Options[i-1].Number == o.Number
		if known && d.fits(o.Value) && (d.repeats || !again) {
			kept = append(kept, o)
			continue
		}
		if o.Critical() {
			return o, true
		}
	}
	m.Options = kept
	return Option{}, false
}

func (d definition) fits(value []byte) bool {
	if len(value) < d.min || len(value) > d.max {
		return false
	}
	return d.form != text || utf8.Valid(value)
}

// Has says whether the option is there.
func (m *Message) Has(number uint16) bool {
	_, ok := m.Get(number)
	return ok
}

// Get is the value of the first option of that number.
func (m *Message) Get(number uint16) ([]byte, bool) {
	for _, o := range m.Options {
		if o.Number == number {
			return o.Value, true
		}
	}
	return nil, false
}

// Uint is the value of a numeric option of up to four bytes; false: it is absent.
func (m *Message) Uint(number uint16) (n uint32, ok bool) {
	b, ok := m.Get(number)
	for _, c := range b[:min(len(b), 4)] {
		n = n<<8 | uint32(c)
	}
	return n, ok
}

// Path is the path of a request, its segments joined by "/". A segment that holds a slash, or is no name ("" , "." and
// ".."), has no place in it: false.
func (m *Message) Path() (string, bool) {
	segments := m.strings(URIPath)
	for _, s := range segments {
		if s == "" || s == "." || s == ".." || strings.Contains(s, "/") {
			return "", false
		}
	}
	return strings.Join(segments, "/"), true
}

// Query lists the arguments of a request, such as "boot=3".
func (m *Message) Query() []string { return m.strings(URIQuery) }

func (m *Message) strings(number uint16) (out []string) {
	for _, o := range m.Options {
		if o.Number == number {
			out = append(out, string(o.Value))
		}
	}
	return out
}

// Set adds an option with a numeric value.
func (m *Message) Set(number uint16, n uint32) {
	m.Options = append(m.Options, Option{number, shortest(n)})
}

// SetPath adds the segments of a path, and SetQuery an argument.
func (m *Message) SetPath(path string) {
	for s := range strings.SplitSeq(path, "/") {
		m.Options = append(m.Options, Option{URIPath, []byte(s)})
	}
}

// SetQuery adds an argument.
func (m *Message) SetQuery(argument string) {
	m.Options = append(m.Options, Option{URIQuery, []byte(argument)})
}

// shortest is n without leading zero bytes; zero has none at all (section 3.2).
func shortest(n uint32) []byte {
	b := []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
	for len(b) > 0 && b[0] == 0 {
		b = b[1:]
	}
	return b
}
