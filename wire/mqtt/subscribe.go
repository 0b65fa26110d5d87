// SPDX-License-Identifier: Apache-2.0

package mqtt

import (
	"fmt"
	"strings"
)

func tooManyFilters() error {
	return &Error{PacketTooLarge, fmt.Sprintf("more than %d topic filters", maxFilters)}
}

// checkRequest refuses what neither SUBSCRIBE nor UNSUBSCRIBE may be [MQTT-2.2.1-3, 3.8.3-2, 3.10.3-2].
func checkRequest(v Version, t Type, id uint16, ps Properties, filters int) error {
	switch {
	case id == 0:
		return violation("packet identifier 0")
	case filters == 0:
		return violation("%s without a topic filter", t)
	case filters > maxFilters:
		return tooManyFilters()
	}
	return ps.check(v, t.place())
}

func (c *cursor) subscribe(v Version) *Subscribe {
	p := &Subscribe{ID: c.u16(), Properties: c.properties(v)}
	for c.err == nil && len(c.b) > 0 {
		if len(p.Filters) == maxFilters {
			c.fail(tooManyFilters())
			break
		}
		f := Filter{Topic: c.text()}
		o := c.u8()
		if v == V4 && o > 3 || o&0xC0 != 0 { // [MQTT-3.8.3-5]
			c.fail(malformed("reserved bits of the subscription options are set"))
		}
		f.QoS, f.NoLocal, f.RetainAsPublished, f.RetainHandling = o&3, o&4 != 0, o&8 != 0, o>>4&3
		p.Filters = append(p.Filters, f)
	}
	return p
}

func (p *Subscribe) check(v Version) error {
	if err := checkRequest(v, SUBSCRIBE, p.ID, p.Properties, len(p.Filters)); err != nil {
		return err
	}
	for _, f := range p.Filters {
		if f.QoS > 2 || f.RetainHandling > 2 {
			return malformed("subscription options out of range")
		}
		if v == V4 && (f.NoLocal || f.RetainAsPublished || f.RetainHandling > 0) {
			return violation("subscription options of MQTT 5.0 in 3.1.1")
		}
		if f.NoLocal && strings.HasPrefix(f.Topic, "$share/") { // [MQTT-3.8.3-4]
			return violation("no local on a shared subscription")
		}
		if err := CheckFilter(f.Topic); err != nil {
			return err
		}
	}
	return nil
}

func (p *Subscribe) append(dst []byte, v Version) []byte {
	dst = p.Properties.append(appendU16(dst, p.ID), v)
	for _, f := range p.Filters {
		dst = append(appendText(dst, f.Topic), f.QoS|bit(f.NoLocal, 2)|bit(f.RetainAsPublished, 3)|f.RetainHandling<<4)
	}
	return dst
}

func (c *cursor) suback(v Version) *Suback {
	p := &Suback{ID: c.u16(), Properties: c.properties(v)}
	p.Reasons = c.reasons()
	return p
}

func (c *cursor) reasons() []Reason {
	if len(c.b) > maxFilters {
		c.fail(tooManyFilters())
		return nil
	}
	var rs []Reason
	for _, b := range c.rest() {
		rs = append(rs, Reason(b))
	}
	return rs
}

func (p *Suback) check(v Version) error {
	if err := checkRequest(v, SUBACK, p.ID, p.Properties, len(p.Reasons)); err != nil {
		return err
	}
	for _, r := range p.Reasons {
		if reasons[r].in&inSuback == 0 || v == V4 && r > UnspecifiedError { // 3.1.1 [MQTT-3.9.3-2]
			return malformed("reason 0x%02X in SUBACK", byte(r))
		}
	}
	return nil
}

func (p *Suback) append(dst []byte, v Version) []byte {
	return appendReasons(p.Properties.append(appendU16(dst, p.ID), v), p.Reasons)
}

func appendReasons(dst []byte, rs []Reason) []byte {
	for _, r := range rs {
		dst = append(dst, byte(r))
	}
	return dst
}

func (c *cursor) unsubscribe(v Version) *Unsubscribe {
	p := &Unsubscribe{ID: c.u16(), Properties: c.properties(v)}
	for c.err == nil && len(c.b) > 0 {
		if len(p.Topics) == maxFilters {
			c.fail(tooManyFilters())
			break
		}
		p.Topics = append(p.Topics, c.text())
	}
	return p
}

func (p *Unsubscribe) check(v Version) error {
	if err := checkRequest(v, UNSUBSCRIBE, p.ID, p.Properties, len(p.Topics)); err != nil {
		return err
	}
	for _, t := range p.Topics {
		if err := CheckFilter(t); err != nil {
			return err
		}
	}
	return nil
}

func (p *Unsubscribe) append(dst []byte, v Version) []byte {
	dst = p.Properties.append(appendU16(dst, p.ID), v)
	for _, t := range p.Topics {
		dst = appendText(dst, t)
	}
	return dst
}

func (c *cursor) unsuback(v Version) *Unsuback {
	p := &Unsuback{ID: c.u16(), Properties: c.properties(v)}
	if v == V5 {
		p.Reasons = c.reasons()
	}
	return p
}

func (p *Unsuback) check(v Version) error {
	if v == V4 {
		if p.ID == 0 || len(p.Reasons) > 0 {
			return violation("UNSUBACK of MQTT 3.1.1 is an identifier and nothing else")
		}
		return p.Properties.check(v, inUnsuback)
	}
	if err := checkRequest(v, UNSUBACK, p.ID, p.Properties, len(p.Reasons)); err != nil {
		return err
	}
	for _, r := range p.Reasons {
		if reasons[r].in&inUnsuback == 0 {
			return malformed("reason 0x%02X in UNSUBACK", byte(r))
		}
	}
	return nil
}

func (p *Unsuback) append(dst []byte, v Version) []byte {
	return appendReasons(p.Properties.append(appendU16(dst, p.ID), v), p.Reasons)
}
