// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// four is the client of MQTT 3.1.1.
type four struct {
	*link
	store  paho.Store
	client paho.Client
	held   chan paho.Message
}

func newFour(l *link) *four {
	return &four{link: l, store: paho.NewMemoryStore()}
}

func (f *four) do(o order) error {
	switch o.Do {
	case "connect":
		return f.connect(o)
	case "subscribe":
		filters := map[string]byte{}
		for _, t := range o.Topics {
			filters[t] = o.QoS
		}
		token := f.client.SubscribeMultiple(filters, nil)
		if !token.WaitTimeout(patience) {
			return paho.TimedOut
		}
		granted := token.(*paho.SubscribeToken).Result()
		e := event{Is: "suback"}
		for _, t := range o.Topics {
			e.Codes = append(e.Codes, int(granted[t]))
		}
		if len(granted) == 0 {
			return token.Error()
		}
		say(e)
	case "unsubscribe":
		if err := paho.WaitTokenTimeout(f.client.Unsubscribe(o.Topics...), patience); err != nil {
			return err
		}
		say(event{Is: "unsuback"})
	case "publish":
		token := f.client.Publish(o.Topic, o.QoS, o.Retain, o.Payload)
		go func() { // where the connection ends before, no PUBACK comes
			if err := paho.WaitTokenTimeout(token, patience); err != nil {
				say(event{Is: "error", Words: err.Error()})
			} else if o.QoS > 0 {
				say(event{Is: "puback"})
			}
		}()
	case "ack":
		(<-f.held).Ack()
	case "disconnect":
		f.client.Disconnect(250)
	case "drop":
		return f.drop()
	default:
		return fmt.Errorf("cannot %q", o.Do)
	}
	return nil
}

func (f *four) connect(o order) error {
	held := make(chan paho.Message, 1000)
	f.held = held
	opts := paho.NewClientOptions().AddBroker("tls://" + f.addr).SetClientID(o.ID).SetCleanSession(o.Clean).SetProtocolVersion(4).
		SetAutoReconnect(false).SetConnectRetry(false).SetKeepAlive(time.Duration(o.KeepAlive) * time.Second).SetStore(f.store).
		SetAutoAckDisabled(o.Hold).SetOrderMatters(true).
		SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) { return f.dial() }).
		SetConnectionLostHandler(func(_ paho.Client, err error) { say(event{Is: "end", Words: err.Error()}) }).
		SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) {
			say(event{Is: "message", Topic: m.Topic(), Payload: string(m.Payload()), QoS: int(m.Qos()), Dup: m.Duplicate()})
			if o.Hold && m.Qos() > 0 {
				held <- m
			}
		})
	if w := o.Will; w != nil {
		opts.SetBinaryWill(w.Topic, []byte(w.Payload), w.QoS, w.Retain)
	}
	f.client = paho.NewClient(opts)
	token := f.client.Connect().(*paho.ConnectToken)
	if !token.WaitTimeout(patience) {
		return paho.TimedOut
	}
	refusals := []byte{1, 2, 3, 4, 5}
	if err := token.Error(); err != nil && !slices.Contains(refusals, token.ReturnCode()) {
		return err
	}
	say(event{Is: "connack", Code: int(token.ReturnCode()), Present: token.SessionPresent()})
	return nil
}
