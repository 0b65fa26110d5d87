// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
)

// SecurityPrefix of the topics, below a device's root, of the stream of security events: event/security.<kind>.
const SecurityPrefix = "event/security."

// Kinds of security events. A maker's own are beside them, in the same shape: a lower-case letter, then up to 31 of
// a-z 0-9 and dashes.
const (
	SecurityBoot       = "boot"       // a start: which image, from which slot
	SecurityLogin      = "login"      // somebody logged in, or was refused
	SecurityConfig     = "config"     // a setting was changed
	SecurityUpdate     = "update"     // an update ended: committed, refused, rolled back, failed
	SecurityTamper     = "tamper"     // a case was opened, or what the device keeps is not as it left it
	SecurityKey        = "key"        // a key or certificate of the device could not be used
	SecurityClock      = "clock"      // the device's clock was found wrong
	SecurityBaseline   = "baseline"   // the device is set up in another way than it was: open ports, debug interfaces, accounts
	SecurityCheckpoint = "checkpoint" // Signed: a SecurityState under the key that the device was born with
)

var kindShape = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// SecurityEvent is one link of a device's chain of security events, on event/security.<kind>. Its digest is that of the
// message body, byte for byte; so whoever deletes or alters one breaks the chain at the next.
type SecurityEvent struct {
	Seq    uint64          `json:"seq"`            // from 1 for the whole life of the device, also across starts
	Prev   string          `json:"prev,omitempty"` // digest of the event before; absent in the first
	Kind   string          `json:"kind"`           // as in the topic
	TS     int64           `json:"ts,omitempty"`   // ms since 1970 UTC; 0: the device does not know the time
	Boot   uint64          `json:"boot"`           // number of the start
	Detail string          `json:"detail,omitempty"`
	Data   json.RawMessage `json:"data,omitempty"`   // a JSON object
	Signed *Signed         `json:"signed,omitempty"` // of a checkpoint
}

// MaxSecurityEvent bounds the body of a security event in bytes.
const MaxSecurityEvent = 8 << 10

// SecurityState says under the device's key how its chain stood. Whoever has one can tell a chain that was cut or
// written anew from the one that it was made over, without trusting the device's software since, or the platform.
type SecurityState struct {
	Device string `json:"device"`
	Seq    uint64 `json:"seq"`  // of the event before the checkpoint
	Hash   string `json:"hash"` // its digest
	At     int64  `json:"at,omitempty"`
}

// ParseSecurityEvent reads one link by itself, and refuses what no device that keeps to this package would send.
func ParseSecurityEvent(body []byte) (e SecurityEvent, err error) {
	if len(body) > MaxSecurityEvent {
		return e, fmt.Errorf("a security event of more than %d bytes", MaxSecurityEvent)
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return e, fmt.Errorf("the security event is not as JSON should be: %w", err)
	}
	switch {
	case e.Seq == 0 || e.Seq > 1<<62:
		return e, errors.New("the security event has no number")
	case (e.Seq == 1) != (e.Prev == ""):
		return e, errors.New("the first security event, and it alone, follows on nothing")
	case e.Prev != "" && !digestShape.MatchString(e.Prev):
		return e, errors.New("the digest of the event before is none")
	case CheckSecurityKind(e.Kind) != nil:
		return e, CheckSecurityKind(e.Kind)
	case (e.Kind == SecurityCheckpoint) != (e.Signed != nil):
		return e, errors.New("a checkpoint, and it alone, is signed")
	}
	return e, nil
}

var digestShape = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// CheckSecurityKind says whether kind can be one of a security event.
func CheckSecurityKind(kind string) error {
	if !kindShape.MatchString(kind) {
		return fmt.Errorf("%.40q is no kind of security event: a lower-case letter, then at most 31 of a-z, 0-9 and dashes", kind)
	}
	return nil
}

// Lost is what a device says, as the data of event/lost, of messages on tele/… that it had to give up.
type Lost struct {
	Count  uint64 `json:"count"`
	Why    string `json:"why"`  // of the Lost… constants
	Boot   uint64 `json:"boot"` // Seq of the first and the last of them; others in between may have arrived
	From   uint64 `json:"from"`
	To     uint64 `json:"to"`
	Events uint64 `json:"events,omitempty"` // of Count: events, which have no Seq
}

// Why messages were given up.
const (
	LostSpace   = "space"   // there was no room for more
	LostAge     = "age"     // they were older than the maker wants to have sent
	LostRefused = "refused" // the platform can never take them
	LostDamaged = "damaged" // they could not be read back
)
