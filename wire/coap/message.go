// SPDX-License-Identifier: Apache-2.0

package coap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Type is how a message is carried (RFC 7252, section 4).
type Type byte

// The types.
const (
	Confirmable Type = iota
	NonConfirmable
	Acknowledgement
	Reset
)

func (t Type) String() string { return [...]string{"CON", "NON", "ACK", "RST"}[t&3] }

// Message is one datagram.
type Message struct {
	Type    Type
	Code    Code
	ID      uint16
	Token   []byte   // at most 8 bytes
	Options []Option // in the order of their numbers
	Payload []byte
}

// Option is one option of a message, its value as it stands on the wire.
type Option struct {
	Number uint16
	Value  []byte
}

// Bounds of a message.
const (
	MaxToken   = 8
	MaxOptions = 64 // options of one message, which is far more than a door has a use for
	header     = 4
	marker     = 0xFF // between options and payload
)

// Errors of Decode.
var (
	// ErrVersion is a message of another version of CoAP, which is to be ignored in silence (section 3).
	ErrVersion = errors.New("coap: not version 1")
	// ErrFormat is what every other error of Decode wraps. Who sent it Confirmable is told by a Reset.
	ErrFormat = errors.New("coap: message format error")
)

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

// Decode reads a datagram. With an error that wraps ErrFormat, Type and ID are set if the datagram was long enough to
// hold them. The message refers to b.
func Decode(b []byte) (m Message, err error) {
	if len(b) < header {
		return m, malformed("%d bytes", len(b))
	}
	if b[0]>>6 != 1 {
		return m, ErrVersion
	}
	m.Type, m.Code, m.ID = Type(b[0]>>4&3), Code(b[1]), binary.BigEndian.Uint16(b[2:])
	tokens := int(b[0] & 15)
	switch class := m.Code.Class(); {
	case m.Code == Empty && len(b) > header || m.Code == Empty && tokens > 0:
		return m, malformed("an empty message that is not empty")
	case class == 1 || class > 5:
		return m, malformed("the reserved class %d", class)
	case tokens > MaxToken:
		return m, malformed("a token of length %d", tokens)
	case len(b) < header+tokens:
		return m, malformed("the token is cut off")
	}
	if tokens > 0 {
		m.Token = b[header : header+tokens]
	}
	return m, m.options(b[header+tokens:])
}

// options reads what follows the token.
func (m *Message) options(b []byte) error {
	number := 0
	for len(b) > 0 {
		if b[0] == marker {
			if m.Payload = b[1:]; len(m.Payload) == 0 {
				return malformed("a payload marker without payload")
			}
			return nil
		}
		if len(m.Options) == MaxOptions {
			return malformed("more than %d options", MaxOptions)
		}
		first := b[0]
		delta, rest, err := extended(first>>4, b[1:])
		if err != nil {
			return err
		}
		length, rest, err := extended(first&15, rest)
		if err != nil {
			return err
		}
		if length > len(rest) {
			return malformed("an option of %d bytes, %d are left", length, len(rest))
		}
		if number += delta; number > math.MaxUint16 {
			return malformed("the option number %d", number)
		}
		m.Options = append(m.Options, Option{Number: uint16(number), Value: rest[:length:length]})
		b = rest[length:]
	}
	return nil
}

// extended reads a delta or length whose first four bits are n (section 3.1).
func extended(n byte, b []byte) (int, []byte, error) {
	switch {
	case n == 15:
		return 0, nil, malformed("the reserved option nibble 15")
	case n == 13 && len(b) >= 1:
		return int(b[0]) + 13, b[1:], nil
	case n == 14 && len(b) >= 2:
		return int(binary.BigEndian.Uint16(b)) + 269, b[2:], nil
	case n >= 13:
		return 0, nil, malformed("an option is cut off")
	}
	return int(n), b, nil
}

// Append writes m to dst. It puts the options in order; those of one number keep theirs.
func Append(dst []byte, m Message) ([]byte, error) {
	class := m.Code.Class()
	switch {
	case m.Type > Reset || class == 1 || class > 5:
		return dst, malformed("type %d, code %s", m.Type, m.Code)
	case len(m.Token) > MaxToken || len(m.Options) > MaxOptions:
		return dst, malformed("a token of %d bytes, %d options", len(m.Token), len(m.Options))
	case m.Code == Empty && len(m.Token)+len(m.Options)+len(m.Payload) > 0:
		return dst, malformed("an empty message that is not empty")
	}
	dst = append(dst, 1<<6|byte(m.Type)<<4|byte(len(m.Token)), byte(m.Code), byte(m.ID>>8), byte(m.ID))
	dst = append(dst, m.Token...)
	options := m.Options
	if !slices.IsSortedFunc(options, byNumber) {
		options = slices.Clone(options)
		slices.SortStableFunc(options, byNumber)
	}
	number := 0
	for _, o := range options {
		if len(o.Value) > math.MaxUint16 {
			return dst, malformed("an option of %d bytes", len(o.Value))
		}
		at := len(dst)
		dst = append(dst, 0)
		var delta, length byte
		dst, delta = extend(dst, int(o.Number)-number)
		dst, length = extend(dst, len(o.Value))
		dst[at] = delta<<4 | length
		dst = append(dst, o.Value...)
		number = int(o.Number)
	}
	if len(m.Payload) > 0 {
		dst = append(append(dst, marker), m.Payload...)
	}
	return dst, nil
}

func byNumber(a, b Option) int { return int(a.Number) - int(b.Number) }

// extend writes what of n does not fit into four bits, and returns those.
func extend(dst []byte, n int) ([]byte, byte) {
	switch {
	case n < 13:
		return dst, byte(n)
	case n < 269:
		return append(dst, byte(n-13)), 13
	}
	return binary.BigEndian.AppendUint16(dst, uint16(n-269)), 14
}
