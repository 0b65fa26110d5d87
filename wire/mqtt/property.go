// SPDX-License-Identifier: Apache-2.0

package mqtt

import "fmt"

// PropID identifies a property of MQTT 5.0, section 2.2.2.2.
type PropID byte

// The properties.
const (
	PayloadFormat       PropID = 0x01
	MessageExpiry       PropID = 0x02 // seconds
	ContentType         PropID = 0x03
	ResponseTopic       PropID = 0x08
	CorrelationData     PropID = 0x09
	SubscriptionID      PropID = 0x0B
	SessionExpiry       PropID = 0x11 // seconds
	AssignedClientID    PropID = 0x12
	ServerKeepAlive     PropID = 0x13 // seconds
	AuthMethod          PropID = 0x15
	AuthData            PropID = 0x16
	RequestProblemInfo  PropID = 0x17
	WillDelay           PropID = 0x18 // seconds
	RequestResponseInfo PropID = 0x19
	ResponseInfo        PropID = 0x1A
	ServerReference     PropID = 0x1C
	ReasonString        PropID = 0x1F
	ReceiveMaximum      PropID = 0x21
	TopicAliasMaximum   PropID = 0x22
	TopicAlias          PropID = 0x23
	MaximumQoS          PropID = 0x24
	RetainAvailable     PropID = 0x25
	UserProperty        PropID = 0x26
	MaximumPacketSize   PropID = 0x27 // bytes
	WildcardAvailable   PropID = 0x28
	SubIDAvailable      PropID = 0x29
	SharedAvailable     PropID = 0x2A

	lastProp = SharedAvailable
)

// maxProperties bounds the properties of one place, against packets of nothing but user properties. The standard has
// no such bound.
const maxProperties = 64

const allPackets = inConnect | inConnack | inPublish | inReceipts | inPubrel | inPubcomp | inSubscribe | inUnsubscribe |
	inDisconnect | inAuth

// form is how a property's value is encoded.
type form byte

const (
	noForm   form = iota
	flagForm      // one byte, 0 or 1
	u16Form
	u32Form
	varForm // variable byte integer
	textForm
	dataForm
	pairForm
)

// properties is table 2-4 of the standard.
var properties = [lastProp + 1]struct {
	form    form
	in      place
	nonZero bool
}{
	PayloadFormat:       {flagForm, inPublish | inWill, false},
	MessageExpiry:       {u32Form, inPublish | inWill, false},
	ContentType:         {textForm, inPublish | inWill, false},
	ResponseTopic:       {textForm, inPublish | inWill, false},
	CorrelationData:     {dataForm, inPublish | inWill, false},
	SubscriptionID:      {varForm, inPublish | inSubscribe, true},
	SessionExpiry:       {u32Form, inConnect | inConnack | inDisconnect, false},
	AssignedClientID:    {textForm, inConnack, false},
	ServerKeepAlive:     {u16Form, inConnack, false},
	AuthMethod:          {textForm, inConnect | inConnack | inAuth, false},
	AuthData:            {dataForm, inConnect | inConnack | inAuth, false},
	RequestProblemInfo:  {flagForm, inConnect, false},
	WillDelay:           {u32Form, inWill, false},
	RequestResponseInfo: {flagForm, inConnect, false},
	ResponseInfo:        {textForm, inConnack, false},
	ServerReference:     {textForm, inConnack | inDisconnect, false},
	ReasonString:        {textForm, inConnack | inReceipts | inPubrel | inPubcomp | inDisconnect | inAuth, false},
	ReceiveMaximum:      {u16Form, inConnect | inConnack, true},
	TopicAliasMaximum:   {u16Form, inConnect | inConnack, false},
	TopicAlias:          {u16Form, inPublish, true},
	MaximumQoS:          {flagForm, inConnack, false},
	RetainAvailable:     {flagForm, inConnack, false},
	UserProperty:        {pairForm, allPackets | inWill, false},
	MaximumPacketSize:   {u32Form, inConnect | inConnack, true},
	WildcardAvailable:   {flagForm, inConnack, false},
	SubIDAvailable:      {flagForm, inConnack, false},
	SharedAvailable:     {flagForm, inConnack, false},
}

// Property is one property. Which fields count depends on ID: Num for numbers and flags, Str for text and binary data,
// Str and Val for the name and value of a user property.
type Property struct {
	ID       PropID
	Num      uint32
	Str, Val string
}

// Properties are the properties of one place, in the order of the wire.
type Properties []Property

// Num returns the number of the first property id, or def when it is absent.
func (ps Properties) Num(id PropID, def uint32) uint32 {
	for _, p := range ps {
		if p.ID == id {
			return p.Num
		}
	}
	return def
}

// Str returns the text of the first property id, or "" when it is absent.
func (ps Properties) Str(id PropID) string {
	for _, p := range ps {
		if p.ID == id {
			return p.Str
		}
	}
	return ""
}

// Has says whether there is a property id.
func (ps Properties) Has(id PropID) bool {
	for _, p := range ps {
		if p.ID == id {
			return true
		}
	}
	return false
}

// check refuses properties that have no place in where, are given twice, or whose value is out of range.
func (ps Properties) check(v Version, where place) error {
	if len(ps) == 0 {
		return nil
	}
	if v != V5 {
		return violation("properties in a %s packet", v)
	}
	if len(ps) > maxProperties {
		return &Error{PacketTooLarge, fmt.Sprintf("more than %d properties", maxProperties)}
	}
	var seen uint64
	for _, p := range ps {
		if p.ID > lastProp || properties[p.ID].in&where == 0 {
			return malformed("property 0x%02X has no place here", byte(p.ID))
		}
		d := properties[p.ID]
		repeats := p.ID == UserProperty || p.ID == SubscriptionID && where == inPublish
		if seen&(1<<p.ID) != 0 && !repeats {
			return violation("property 0x%02X is given twice", byte(p.ID))
		}
		seen |= 1 << p.ID
		if d.nonZero && p.Num == 0 || d.form == flagForm && p.Num > 1 {
			return violation("property 0x%02X is %d", byte(p.ID), p.Num)
		}
		if d.form == u16Form && p.Num > 0xFFFF || d.form == varForm && p.Num > maxVarint {
			return malformed("property 0x%02X is %d", byte(p.ID), p.Num)
		}
		if err := p.checkText(d.form); err != nil {
			return err
		}
		if p.ID == ResponseTopic {
			if err := CheckTopic(p.Str); err != nil {
				return err
			}
		}
	}
	if seen&(1<<AuthData) != 0 && seen&(1<<AuthMethod) == 0 {
		return violation("authentication data without a method")
	}
	return nil
}

func (p Property) checkText(f form) error {
	switch f {
	case textForm:
		return checkText(p.Str)
	case dataForm:
		return checkLen(p.Str)
	case pairForm:
		if err := checkText(p.Str); err != nil {
			return err
		}
		return checkText(p.Val)
	}
	return nil
}

func (ps Properties) append(dst []byte, v Version) []byte {
	if v != V5 {
		return dst
	}
	at := len(dst)
	for _, p := range ps {
		dst = append(dst, byte(p.ID))
		switch properties[p.ID].form {
		case flagForm:
			dst = append(dst, byte(p.Num))
		case u16Form:
			dst = appendU16(dst, uint16(p.Num))
		case u32Form:
			dst = appendU16(appendU16(dst, uint16(p.Num>>16)), uint16(p.Num))
		case varForm:
			dst = appendVarint(dst, int(p.Num))
		case textForm, dataForm:
			dst = appendText(dst, p.Str)
		case pairForm:
			dst = appendText(appendText(dst, p.Str), p.Val)
		}
	}
	return insertLen(dst, at)
}

// properties reads the properties of one place; a 3.1.1 packet has none.
func (c *cursor) properties(v Version) Properties {
	if v != V5 {
		return nil
	}
	n := c.varint()
	if n == 0 {
		return nil
	}
	in := cursor{b: c.take(n), err: c.err}
	var ps Properties
	for in.err == nil && len(in.b) > 0 {
		if len(ps) == maxProperties {
			in.fail(&Error{PacketTooLarge, fmt.Sprintf("more than %d properties", maxProperties)})
			break
		}
		p := Property{ID: PropID(in.u8())}
		f := noForm
		if p.ID <= lastProp {
			f = properties[p.ID].form
		}
		switch f {
		case noForm:
			in.fail(malformed("unknown property 0x%02X", byte(p.ID)))
		case flagForm:
			p.Num = uint32(in.u8())
		case u16Form:
			p.Num = uint32(in.u16())
		case u32Form:
			p.Num = uint32(in.u16())<<16 | uint32(in.u16())
		case varForm:
			p.Num = uint32(in.varint())
		case textForm, dataForm:
			p.Str = string(in.data())
		case pairForm:
			p.Str, p.Val = string(in.data()), string(in.data())
		}
		ps = append(ps, p)
	}
	c.fail(in.err)
	return ps
}
