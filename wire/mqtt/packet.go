// SPDX-License-Identifier: Apache-2.0

package mqtt

import "fmt"

// Version is a protocol level.
type Version byte

// The versions that this package speaks.
const (
	V4 Version = 4 // MQTT 3.1.1
	V5 Version = 5 // MQTT 5.0
)

func (v Version) String() string {
	switch v {
	case V4:
		return "MQTT 3.1.1"
	case V5:
		return "MQTT 5.0"
	}
	return fmt.Sprintf("MQTT level %d", byte(v))
}

// Type is a control packet type.
type Type byte

// The packet types.
const (
	CONNECT     Type = 1
	CONNACK     Type = 2
	PUBLISH     Type = 3
	PUBACK      Type = 4
	PUBREC      Type = 5
	PUBREL      Type = 6
	PUBCOMP     Type = 7
	SUBSCRIBE   Type = 8
	SUBACK      Type = 9
	UNSUBSCRIBE Type = 10
	UNSUBACK    Type = 11
	PINGREQ     Type = 12
	PINGRESP    Type = 13
	DISCONNECT  Type = 14
	AUTH        Type = 15
)

var typeNames = [...]string{"reserved packet", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
	"SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH"}

func (t Type) String() string { return typeNames[t&15] }

// Packet is one of the pointers to the structs below.
type Packet interface {
	Type() Type
	flags() byte
	check(Version) error                 // what both Decode and Append refuse
	append(dst []byte, v Version) []byte // the body of a packet that passed check
}

// Connect opens a session. Password and the will's payload alias the decoded bytes.
type Connect struct {
	Version     Version
	CleanStart  bool   // "clean session" in 3.1.1
	KeepAlive   uint16 // seconds; 0 is none
	ClientID    string
	Will        *Will
	HasUser     bool
	User        string
	HasPassword bool
	Password    []byte
	Properties  Properties
}

// Will is the message that a server publishes when the client is gone without a DISCONNECT.
type Will struct {
	Topic      string
	Payload    []byte
	QoS        byte
	Retain     bool
	Properties Properties
}

// Connack answers a Connect.
type Connack struct {
	SessionPresent bool
	Reason         Reason
	Properties     Properties
}

// Publish carries a message. Payload aliases the decoded bytes.
type Publish struct {
	Dup        bool
	QoS        byte
	Retain     bool
	Topic      string
	ID         uint16 // 0 for QoS 0
	Properties Properties
	Payload    []byte
}

// Ack is a PUBACK, PUBREC, PUBREL or PUBCOMP. In 3.1.1 Reason is always Success.
type Ack struct {
	Kind       Type
	ID         uint16
	Reason     Reason
	Properties Properties
}

// Subscribe asks for the messages that match Filters.
type Subscribe struct {
	ID         uint16
	Properties Properties
	Filters    []Filter
}

// Filter is one subscription. All but Topic and QoS exist in MQTT 5.0 only.
type Filter struct {
	Topic             string
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte
}

// Suback answers a Subscribe, one reason for each filter.
type Suback struct {
	ID         uint16
	Properties Properties
	Reasons    []Reason
}

// Unsubscribe takes subscriptions back.
type Unsubscribe struct {
	ID         uint16
	Properties Properties
	Topics     []string
}

// Unsuback answers an Unsubscribe; 3.1.1 has no Reasons.
type Unsuback struct {
	ID         uint16
	Properties Properties
	Reasons    []Reason
}

// Pingreq asks for a sign of life.
type Pingreq struct{}

// Pingresp is the sign of life.
type Pingresp struct{}

// Disconnect ends a session; in 3.1.1 only a client sends it, and it has no reason.
type Disconnect struct {
	Reason     Reason
	Properties Properties
}

// Auth continues an extended authentication (MQTT 5.0 only).
type Auth struct {
	Reason     Reason
	Properties Properties
}

// Type names the packet.
func (*Connect) Type() Type     { return CONNECT }
func (*Connack) Type() Type     { return CONNACK }
func (*Publish) Type() Type     { return PUBLISH }
func (p *Ack) Type() Type       { return p.Kind }
func (*Subscribe) Type() Type   { return SUBSCRIBE }
func (*Suback) Type() Type      { return SUBACK }
func (*Unsubscribe) Type() Type { return UNSUBSCRIBE }
func (*Unsuback) Type() Type    { return UNSUBACK }
func (*Pingreq) Type() Type     { return PINGREQ }
func (*Pingresp) Type() Type    { return PINGRESP }
func (*Disconnect) Type() Type  { return DISCONNECT }
func (*Auth) Type() Type        { return AUTH }

// fixedFlags are the lower four bits of the first byte for all types but PUBLISH [MQTT-2.1.3-1].
func fixedFlags(t Type) byte {
	switch t {
	case PUBREL, SUBSCRIBE, UNSUBSCRIBE:
		return 2
	}
	return 0
}

func (*Connect) flags() byte     { return 0 }
func (*Connack) flags() byte     { return 0 }
func (p *Ack) flags() byte       { return fixedFlags(p.Kind) }
func (*Subscribe) flags() byte   { return 2 }
func (*Suback) flags() byte      { return 0 }
func (*Unsubscribe) flags() byte { return 2 }
func (*Unsuback) flags() byte    { return 0 }
func (*Pingreq) flags() byte     { return 0 }
func (*Pingresp) flags() byte    { return 0 }
func (*Disconnect) flags() byte  { return 0 }
func (*Auth) flags() byte        { return 0 }

func (p *Publish) flags() byte {
	return bit(p.Dup, 3) | p.QoS<<1 | bit(p.Retain, 0)
}

func bit(set bool, n uint) byte {
	if set {
		return 1 << n
	}
	return 0
}
