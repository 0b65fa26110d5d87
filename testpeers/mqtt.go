// SPDX-License-Identifier: AGPL-3.0-only

package testpeers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
)

// MQTTOrder is what an MQTT client is to do: "connect", "subscribe", "unsubscribe", "publish", "ack" (the oldest message
// that it holds), "disconnect" or "drop" (the connection, without a word).
type MQTTOrder struct {
	Do        string            `json:"do"`
	ID        string            `json:"id,omitempty"`      // client identifier
	Clean     bool              `json:"clean,omitempty"`   // Clean Start, Clean Session
	Expiry    uint32            `json:"expiry,omitempty"`  // seconds: of the session, or of a message
	KeepAlive uint16            `json:"keepalive"`         // seconds
	Mute      bool              `json:"mute,omitempty"`    // never ping; Paho's for 5.0 only
	Receive   uint16            `json:"receive,omitempty"` // Receive Maximum
	Aliases   uint16            `json:"aliases,omitempty"` // Topic Alias Maximum
	Size      uint32            `json:"size,omitempty"`    // Maximum Packet Size
	Info      bool              `json:"info,omitempty"`    // Request Response Information
	Terse     bool              `json:"terse,omitempty"`   // no Problem Information
	Auth      string            `json:"auth,omitempty"`    // authentication method
	Hold      bool              `json:"hold,omitempty"`    // acknowledge when told to
	Will      *MQTTWill         `json:"will,omitempty"`
	Topic     string            `json:"topic,omitempty"`  // of a PUBLISH
	Topics    []string          `json:"topics,omitempty"` // filters
	Payload   string            `json:"payload,omitempty"`
	Raw       []byte            `json:"raw,omitempty"` // the payload, where it is no text
	QoS       int               `json:"qos"`
	Retain    bool              `json:"retain,omitempty"`
	Alias     int               `json:"alias,omitempty"` // topic alias
	Type      string            `json:"type,omitempty"`  // content type
	Text      bool              `json:"text,omitempty"`  // payload format indicator 1
	User      map[string]string `json:"user,omitempty"`  // user properties
	Code      int               `json:"code,omitempty"`  // of DISCONNECT
}

// MQTTWill is the will of a "connect".
type MQTTWill struct {
	Topic   string `json:"topic"`
	Payload string `json:"payload"`
	QoS     int    `json:"qos"`
	Retain  bool   `json:"retain"`
	Delay   uint32 `json:"delay"` // seconds
}

// MQTTEvent is what the server said: "connack", "suback", "unsuback", "puback" or "message"; "end" is its DISCONNECT or,
// without a word of it, the end of the connection; "lost" that the client ran into an error there; "error" that an order
// failed in the client.
type MQTTEvent struct {
	Is      string            `json:"is"`
	Code    int               `json:"code"` // reason code of MQTT 5.0, return code of 3.1.1
	Codes   []int             `json:"codes"`
	Present bool              `json:"present"` // Session Present
	Words   string            `json:"words"`   // Reason String, or what the client says
	Topic   string            `json:"topic"`
	Payload string            `json:"payload"`
	QoS     int               `json:"qos"`
	Dup     bool              `json:"dup"`
	Props   map[string]string `json:"props"` // connack: expiry, keepalive, receive, aliases, qos, id, info, server; message: response, correlation, type, expiry, alias
}

// MQTTFiles is who a client is.
type MQTTFiles struct{ CA, Cert, Key string }

// MQTT is a client of others: "paho" is Eclipse Paho's for Go, "mqtt.js" is MQTT.js on Node.js.
type MQTT struct {
	Events <-chan MQTTEvent // closed when the program has ended

	in     *json.Encoder
	closer io.Closer
	cmd    *exec.Cmd
}

// StartMQTT builds or installs the client if this machine has not yet, and starts it for a server at host:port. Version
// is 5, or 4 for 3.1.1. It ends with Stop, or with ctx.
func StartMQTT(ctx context.Context, client string, version int, addr string, who MQTTFiles) (*MQTT, error) {
	var argv []string
	switch client {
	case "paho":
		bin, err := build(ctx, "paho", ".")
		if err != nil {
			return nil, err
		}
		argv = []string{bin}
	case "mqtt.js":
		dir, err := install(ctx, "mqttjs")
		if err != nil {
			return nil, err
		}
		argv = []string{"node", filepath.Join(dir, "client.mjs")}
	default:
		return nil, fmt.Errorf("testpeers: there is no client %q", client)
	}
	argv = append(argv, "--version", fmt.Sprint(version), "--addr", addr, "--ca", who.CA, "--cert", who.Cert, "--key", who.Key)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	in, out, err := start(cmd)
	if err != nil {
		return nil, err
	}
	events := make(chan MQTTEvent, 1000)
	go func() {
		defer close(events)
		for lines := json.NewDecoder(out); ; {
			var e MQTTEvent
			if lines.Decode(&e) != nil {
				return
			}
			events <- e
		}
	}()
	return &MQTT{Events: events, in: json.NewEncoder(in), closer: in, cmd: cmd}, nil
}

// Do hands an order over; what comes of it are events.
func (m *MQTT) Do(o MQTTOrder) error { return m.in.Encode(o) }

// Stop ends the program.
func (m *MQTT) Stop() error { return errors.Join(m.closer.Close(), m.cmd.Wait()) }
