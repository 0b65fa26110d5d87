// SPDX-License-Identifier: Apache-2.0

package mqtt

import "fmt"

// Reason is a reason code of MQTT 5.0, section 2.4. Those below 0x80 are successes. The return codes of 3.1.1 are
// translated to it.
type Reason byte

// The reason codes that a door or its client uses by name.
const (
	Success               Reason = 0x00
	GrantedQoS1           Reason = 0x01
	GrantedQoS2           Reason = 0x02
	DisconnectWithWill    Reason = 0x04
	NoSubscriptionExisted Reason = 0x11
	UnspecifiedError      Reason = 0x80
	MalformedPacket       Reason = 0x81
	ProtocolError         Reason = 0x82
	ImplementationError   Reason = 0x83
	UnsupportedVersion    Reason = 0x84
	ClientIDNotValid      Reason = 0x85
	BadUserOrPassword     Reason = 0x86
	NotAuthorized         Reason = 0x87
	ServerUnavailable     Reason = 0x88
	ServerShuttingDown    Reason = 0x8B
	BadAuthMethod         Reason = 0x8C
	KeepAliveTimeout      Reason = 0x8D
	SessionTakenOver      Reason = 0x8E
	TopicFilterInvalid    Reason = 0x8F
	TopicNameInvalid      Reason = 0x90
	ReceiveMaxExceeded    Reason = 0x93
	TopicAliasInvalid     Reason = 0x94
	PacketTooLarge        Reason = 0x95
	QuotaExceeded         Reason = 0x97
	AdministrativeAction  Reason = 0x98
	PayloadFormatInvalid  Reason = 0x99
	RetainNotSupported    Reason = 0x9A
	QoSNotSupported       Reason = 0x9B
	UseAnotherServer      Reason = 0x9C
	ServerMoved           Reason = 0x9D
	SharedNotSupported    Reason = 0x9E
	SubIDsNotSupported    Reason = 0xA1
)

// place is a set of packet types, and of the will inside a CONNECT, which is bit 0.
type place uint16

const inWill place = 1

func (t Type) place() place { return 1 << t }

const (
	inConnect     = place(1) << CONNECT
	inConnack     = place(1) << CONNACK
	inPublish     = place(1) << PUBLISH
	inPuback      = place(1) << PUBACK
	inPubrec      = place(1) << PUBREC
	inPubrel      = place(1) << PUBREL
	inPubcomp     = place(1) << PUBCOMP
	inSubscribe   = place(1) << SUBSCRIBE
	inSuback      = place(1) << SUBACK
	inUnsubscribe = place(1) << UNSUBSCRIBE
	inUnsuback    = place(1) << UNSUBACK
	inDisconnect  = place(1) << DISCONNECT
	inAuth        = place(1) << AUTH

	inReceipts = inPuback | inPubrec | inSuback | inUnsuback
)

// reasons is table 2-6 of the standard.
var reasons = map[Reason]struct {
	name string
	in   place
}{
	0x00: {"success", inConnack | inReceipts | inPubrel | inPubcomp | inDisconnect | inAuth},
	0x01: {"granted QoS 1", inSuback},
	0x02: {"granted QoS 2", inSuback},
	0x04: {"disconnect with will message", inDisconnect},
	0x10: {"no matching subscribers", inPuback | inPubrec},
	0x11: {"no subscription existed", inUnsuback},
	0x18: {"continue authentication", inAuth},
	0x19: {"re-authenticate", inAuth},
	0x80: {"unspecified error", inConnack | inReceipts | inDisconnect},
	0x81: {"malformed packet", inConnack | inDisconnect},
	0x82: {"protocol error", inConnack | inDisconnect},
	0x83: {"implementation specific error", inConnack | inReceipts | inDisconnect},
	0x84: {"unsupported protocol version", inConnack},
	0x85: {"client identifier not valid", inConnack},
	0x86: {"bad user name or password", inConnack},
	0x87: {"not authorized", inConnack | inReceipts | inDisconnect},
	0x88: {"server unavailable", inConnack},
	0x89: {"server busy", inConnack | inDisconnect},
	0x8A: {"banned", inConnack},
	0x8B: {"server shutting down", inDisconnect},
	0x8C: {"bad authentication method", inConnack | inDisconnect},
	0x8D: {"keep alive timeout", inDisconnect},
	0x8E: {"session taken over", inDisconnect},
	0x8F: {"topic filter invalid", inSuback | inUnsuback | inDisconnect},
	0x90: {"topic name invalid", inConnack | inPuback | inPubrec | inDisconnect},
	0x91: {"packet identifier in use", inReceipts},
	0x92: {"packet identifier not found", inPubrel | inPubcomp},
	0x93: {"receive maximum exceeded", inDisconnect},
	0x94: {"topic alias invalid", inDisconnect},
	0x95: {"packet too large", inConnack | inDisconnect},
	0x96: {"message rate too high", inDisconnect},
	0x97: {"quota exceeded", inConnack | inPuback | inPubrec | inSuback | inDisconnect},
	0x98: {"administrative action", inDisconnect},
	0x99: {"payload format invalid", inConnack | inPuback | inPubrec | inDisconnect},
	0x9A: {"retain not supported", inConnack | inDisconnect},
	0x9B: {"QoS not supported", inConnack | inDisconnect},
	0x9C: {"use another server", inConnack | inDisconnect},
	0x9D: {"server moved", inConnack | inDisconnect},
	0x9E: {"shared subscriptions not supported", inSuback | inDisconnect},
	0x9F: {"connection rate exceeded", inConnack | inDisconnect},
	0xA0: {"maximum connect time", inDisconnect},
	0xA1: {"subscription identifiers not supported", inSuback | inDisconnect},
	0xA2: {"wildcard subscriptions not supported", inSuback | inDisconnect},
}

// Failed says whether r is an error.
func (r Reason) Failed() bool { return r >= 0x80 }

func (r Reason) String() string {
	if d, ok := reasons[r]; ok {
		return d.name
	}
	return fmt.Sprintf("reason 0x%02X", byte(r))
}

// connackV4 are the return codes of a 3.1.1 CONNACK (3.1.1, table 3.1), by position.
var connackV4 = [...]Reason{Success, UnsupportedVersion, ClientIDNotValid, ServerUnavailable, BadUserOrPassword, NotAuthorized}

// Error is a packet that was refused, or a refusal that was received: Reason is what MQTT 5.0 calls it.
type Error struct {
	Reason Reason
	Text   string
}

func (e *Error) Error() string {
	return fmt.Sprintf("mqtt: %s (0x%02X): %s", e.Reason, byte(e.Reason), e.Text)
}

// Redirect is a refusal, or the end of a session, that names another server (MQTT 5.0, 4.11). It is an *Error as well.
type Redirect struct {
	Err    *Error // UseAnotherServer for now, ServerMoved for good
	Server string // Server Reference: servers separated by spaces, each with or without a port
}

func (r *Redirect) Error() string { return r.Err.Error() + ": go to " + r.Server }

// Unwrap returns the *Error.
func (r *Redirect) Unwrap() error { return r.Err }

func malformed(format string, args ...any) error {
	return &Error{MalformedPacket, fmt.Sprintf(format, args...)}
}

func violation(format string, args ...any) error {
	return &Error{ProtocolError, fmt.Sprintf(format, args...)}
}
