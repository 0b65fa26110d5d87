// SPDX-License-Identifier: Apache-2.0

package mqtt

import (
	"fmt"
	"slices"
)

const (
	maxVarint  = 1<<28 - 1 // what four bytes of seven bits hold
	maxFilters = 256       // in one SUBSCRIBE or UNSUBSCRIBE; a bound of ours
	protocol   = "MQTT"
)

// Decode reads one packet: header is its first byte, body what follows its length. Strings are copied, payloads and
// passwords alias body. For a CONNECT v is not used: the packet says its version itself.
// Every error is an *Error.
func Decode(v Version, header byte, body []byte) (Packet, error) {
	c := cursor{b: body}
	var p Packet
	switch t := Type(header >> 4); t {
	case PUBLISH:
		p = c.publish(v, header)
	case CONNECT:
		p, v = c.connect()
	case CONNACK:
		p = c.connack(v)
	case PUBACK, PUBREC, PUBREL, PUBCOMP:
		p = c.ack(v, t)
	case SUBSCRIBE:
		p = c.subscribe(v)
	case SUBACK:
		p = c.suback(v)
	case UNSUBSCRIBE:
		p = c.unsubscribe(v)
	case UNSUBACK:
		p = c.unsuback(v)
	case PINGREQ:
		p = &Pingreq{}
	case PINGRESP:
		p = &Pingresp{}
	case DISCONNECT:
		p = c.disconnect(v)
	case AUTH:
		p = c.auth(v)
	default:
		return nil, malformed("packet type 0 is reserved")
	}
	if t := p.Type(); t != PUBLISH && header&15 != fixedFlags(t) {
		return nil, malformed("%s with reserved flags 0x%X", t, header&15) // [MQTT-2.1.3-1]
	}
	if c.err == nil && len(c.b) > 0 {
		c.fail(malformed("%d bytes after the end of the %s", len(c.b), p.Type()))
	}
	if c.err == nil {
		c.err = p.check(v)
	}
	if c.err != nil {
		return nil, c.err
	}
	return p, nil
}

// Append writes p to dst. It refuses what Decode would refuse, and a packet beyond the 256 MiB of the standard.
func Append(dst []byte, v Version, p Packet) ([]byte, error) {
	if c, ok := p.(*Connect); ok {
		v = c.Version
	}
	if err := p.check(v); err != nil {
		return dst, err
	}
	start := len(dst)
	dst = append(dst, byte(p.Type())<<4|p.flags())
	dst = p.append(dst, v)
	if n := len(dst) - start - 1; n > maxVarint {
		return dst[:start], &Error{PacketTooLarge, fmt.Sprintf("a packet of %d bytes", n)}
	}
	return insertLen(dst, start+1), nil
}

// cursor reads a body. After the first error every read returns zero values.
type cursor struct {
	b   []byte
	err error
}

func (c *cursor) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

func (c *cursor) take(n int) []byte {
	if c.err != nil {
		return nil
	}
	if n > len(c.b) {
		c.fail(malformed("a field of %d bytes where %d are left", n, len(c.b)))
		return nil
	}
	b := c.b[:n:n]
	c.b = c.b[n:]
	return b
}

func (c *cursor) u8() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if b := c.take(2); b != nil {
		return uint16(b[0])<<8 | uint16(b[1])
	}
	return 0
}

// varint reads a variable byte integer, which has at most four bytes and no needless one [MQTT-1.5.5-1].
func (c *cursor) varint() int {
	n := 0
	for i := range 4 {
		b := c.u8()
		n |= int(b&0x7F) << (7 * i)
		if b < 0x80 {
			if b == 0 && i > 0 {
				c.fail(malformed("a variable byte integer is longer than it needs to be"))
			}
			return n
		}
	}
	c.fail(malformed("a variable byte integer has more than four bytes"))
	return 0
}

// data reads a field with a length of two bytes.
func (c *cursor) data() []byte { return c.take(int(c.u16())) }

func (c *cursor) text() string { return string(c.data()) }

func (c *cursor) rest() []byte { return c.take(len(c.b)) }

func appendU16(dst []byte, n uint16) []byte { return append(dst, byte(n>>8), byte(n)) }

func appendVarint(dst []byte, n int) []byte {
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}

func appendText[T string | []byte](dst []byte, s T) []byte {
	return append(appendU16(dst, uint16(len(s))), s...)
}

// insertLen puts the length of dst[at:] before it.
func insertLen(dst []byte, at int) []byte {
	var b [4]byte
	return slices.Insert(dst, at, appendVarint(b[:0], len(dst)-at)...)
}

func (c *cursor) connect() (*Connect, Version) {
	p := &Connect{}
	if name := c.text(); c.err == nil && name != protocol {
		c.fail(&Error{UnsupportedVersion, fmt.Sprintf("the protocol is called %q", name)})
	}
	p.Version = Version(c.u8())
	if c.err == nil && p.Version != V4 && p.Version != V5 {
		c.fail(&Error{UnsupportedVersion, p.Version.String()})
	}
	flags := c.u8()
	if flags&1 != 0 { // [MQTT-3.1.2-3]
		c.fail(malformed("the reserved flag of CONNECT is set"))
	}
	p.CleanStart, p.HasPassword, p.HasUser = flags&2 != 0, flags&0x40 != 0, flags&0x80 != 0
	p.KeepAlive = c.u16()
	p.Properties = c.properties(p.Version)
	p.ClientID = c.text()
	if flags&4 != 0 {
		w := &Will{QoS: flags >> 3 & 3, Retain: flags&0x20 != 0}
		w.Properties = c.properties(p.Version)
		w.Topic = c.text()
		w.Payload = c.data()
		p.Will = w
	} else if flags&0x38 != 0 { // [MQTT-3.1.2-11, -13]
		c.fail(malformed("flags of a will without a will"))
	}
	if p.HasUser {
		p.User = c.text()
	}
	if p.HasPassword {
		p.Password = c.data()
	}
	return p, p.Version
}

func (p *Connect) check(v Version) error {
	if v != V4 && v != V5 {
		return &Error{UnsupportedVersion, v.String()}
	}
	if err := checkText(p.ClientID); err != nil {
		return err
	}
	if err := p.Properties.check(v, inConnect); err != nil {
		return err
	}
	if w := p.Will; w != nil {
		if w.QoS > 2 {
			return malformed("a will of QoS 3")
		}
		if len(w.Payload) > 0xFFFF {
			return malformed("a will of %d bytes", len(w.Payload))
		}
		if err := CheckTopic(w.Topic); err != nil {
			return err
		}
		if err := w.Properties.check(v, inWill); err != nil {
			return err
		}
	}
	if v == V4 && p.HasPassword && !p.HasUser { // 3.1.1 [MQTT-3.1.2-22]
		return malformed("a password without a user name")
	}
	if !p.HasUser && p.User != "" || !p.HasPassword && len(p.Password) > 0 || len(p.Password) > 0xFFFF {
		return malformed("user name or password do not match their flags")
	}
	return checkText(p.User)
}

func (p *Connect) append(dst []byte, v Version) []byte {
	dst = appendText(dst, protocol)
	flags := bit(p.CleanStart, 1) | bit(p.HasPassword, 6) | bit(p.HasUser, 7)
	if w := p.Will; w != nil {
		flags |= 4 | w.QoS<<3 | bit(w.Retain, 5)
	}
	dst = appendU16(append(dst, byte(v), flags), p.KeepAlive)
	dst = p.Properties.append(dst, v)
	dst = appendText(dst, p.ClientID)
	if w := p.Will; w != nil {
		dst = w.Properties.append(dst, v)
		dst = appendText(appendText(dst, w.Topic), w.Payload)
	}
	if p.HasUser {
		dst = appendText(dst, p.User)
	}
	if p.HasPassword {
		dst = appendText(dst, p.Password)
	}
	return dst
}

func (c *cursor) connack(v Version) *Connack {
	flags := c.u8()
	if flags > 1 { // [MQTT-3.2.2-1]
		c.fail(malformed("reserved flags of CONNACK are set"))
	}
	p := &Connack{SessionPresent: flags == 1, Reason: Reason(c.u8())}
	if v == V4 && c.err == nil {
		if int(p.Reason) >= len(connackV4) {
			c.fail(malformed("return code %d of CONNACK", p.Reason))
			return p
		}
		p.Reason = connackV4[p.Reason]
	}
	p.Properties = c.properties(v)
	return p
}

func (p *Connack) check(v Version) error {
	if p.SessionPresent && p.Reason != Success { // [MQTT-3.2.2-6]
		return violation("a refused CONNECT has no session")
	}
	return checkReply(v, CONNACK, p.Reason, p.Properties)
}

func (p *Connack) append(dst []byte, v Version) []byte {
	r := byte(p.Reason)
	if v == V4 {
		r = byte(max(slices.Index(connackV4[:], p.Reason), 0))
		if r == 0 && p.Reason != Success {
			r = byte(slices.Index(connackV4[:], ServerUnavailable))
		}
	}
	return p.Properties.append(append(dst, bit(p.SessionPresent, 0), r), v)
}

func (c *cursor) publish(v Version, header byte) *Publish {
	p := &Publish{Dup: header&8 != 0, QoS: header >> 1 & 3, Retain: header&1 != 0}
	p.Topic = c.text()
	if p.QoS > 0 {
		p.ID = c.u16()
	}
	p.Properties = c.properties(v)
	p.Payload = c.rest()
	return p
}

func (p *Publish) check(v Version) error {
	switch {
	case p.QoS > 2: // [MQTT-3.3.1-4]
		return malformed("QoS 3")
	case p.QoS == 0 && p.Dup: // [MQTT-3.3.1-2]
		return malformed("a repetition of QoS 0")
	case (p.QoS == 0) != (p.ID == 0): // [MQTT-2.2.1-2, -3]
		return violation("packet identifier %d with QoS %d", p.ID, p.QoS)
	}
	if err := p.Properties.check(v, inPublish); err != nil {
		return err
	}
	if p.Topic == "" && p.Properties.Has(TopicAlias) {
		return nil
	}
	return CheckTopic(p.Topic)
}

func (p *Publish) append(dst []byte, v Version) []byte {
	dst = appendText(dst, p.Topic)
	if p.QoS > 0 {
		dst = appendU16(dst, p.ID)
	}
	return append(p.Properties.append(dst, v), p.Payload...)
}

func (c *cursor) ack(v Version, t Type) *Ack {
	p := &Ack{Kind: t, ID: c.u16()}
	if v == V5 && len(c.b) > 0 { // the reason may be left out when it is success
		p.Reason = Reason(c.u8())
		if len(c.b) > 0 {
			p.Properties = c.properties(v)
		}
	}
	return p
}

func (p *Ack) check(v Version) error {
	if p.Kind < PUBACK || p.Kind > PUBCOMP {
		return malformed("%s is no acknowledgement", p.Kind)
	}
	if p.ID == 0 {
		return violation("packet identifier 0")
	}
	if v == V4 && p.Reason != Success {
		return violation("%s of MQTT 3.1.1 has no reason", p.Kind)
	}
	return checkReply(v, p.Kind, p.Reason, p.Properties)
}

func (p *Ack) append(dst []byte, v Version) []byte {
	return appendReason(appendU16(dst, p.ID), v, p.Reason, p.Properties)
}

// appendReason writes a reason and properties that may be left out.
func appendReason(dst []byte, v Version, r Reason, ps Properties) []byte {
	if v != V5 || r == Success && len(ps) == 0 {
		return dst
	}
	dst = append(dst, byte(r))
	if len(ps) == 0 {
		return dst
	}
	return ps.append(dst, v)
}

// checkReply refuses a reason or properties that have no place in a packet of type t.
func checkReply(v Version, t Type, r Reason, ps Properties) error {
	if reasons[r].in&t.place() == 0 {
		return malformed("reason 0x%02X in %s", byte(r), t)
	}
	return ps.check(v, t.place())
}

func (c *cursor) disconnect(v Version) *Disconnect {
	p := &Disconnect{}
	if v == V5 && len(c.b) > 0 {
		p.Reason = Reason(c.u8())
		if len(c.b) > 0 {
			p.Properties = c.properties(v)
		}
	}
	return p
}

func (p *Disconnect) check(v Version) error {
	if v == V4 && p.Reason != Success {
		return violation("DISCONNECT of MQTT 3.1.1 has no reason")
	}
	return checkReply(v, DISCONNECT, p.Reason, p.Properties)
}

func (p *Disconnect) append(dst []byte, v Version) []byte {
	return appendReason(dst, v, p.Reason, p.Properties)
}

func (c *cursor) auth(v Version) *Auth {
	p := &Auth{}
	if v == V5 && len(c.b) > 0 {
		p.Reason = Reason(c.u8())
		p.Properties = c.properties(v)
	}
	return p
}

func (p *Auth) check(v Version) error {
	if v != V5 {
		return violation("%s has no AUTH", v)
	}
	return checkReply(v, AUTH, p.Reason, p.Properties)
}

func (p *Auth) append(dst []byte, v Version) []byte {
	if p.Reason == Success && len(p.Properties) == 0 {
		return dst
	}
	return p.Properties.append(append(dst, byte(p.Reason)), v)
}

func (*Pingreq) check(Version) error                  { return nil }
func (*Pingreq) append(dst []byte, _ Version) []byte  { return dst }
func (*Pingresp) check(Version) error                 { return nil }
func (*Pingresp) append(dst []byte, _ Version) []byte { return dst }
