// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/log"
	"github.com/eclipse/paho.golang/paho/session/state"
)

// five is the client of MQTT 5.0. What it knows of its session stays over its connections.
type five struct {
	*link
	state  *state.State
	client *paho.Client
	wire   net.Conn
	held   chan *paho.Publish // not yet acknowledged, the oldest first
}

func newFive(l *link) *five {
	return &five{link: l, state: state.NewInMemory()}
}

func (f *five) do(o order) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch o.Do {
	case "connect":
		return f.connect(ctx, o)
	case "subscribe":
		return f.subscribe(ctx, o)
	case "unsubscribe":
		ack, err := f.client.Unsubscribe(ctx, &paho.Unsubscribe{Topics: o.Topics})
		if ack == nil {
			return err
		}
		say(event{Is: "unsuback", Codes: codes(ack.Reasons)})
	case "publish":
		return f.publish(o)
	case "ack":
		return f.client.Ack(<-f.held)
	case "disconnect":
		d := &paho.Disconnect{ReasonCode: o.Code}
		if o.Expiry > 0 {
			d.Properties = &paho.DisconnectProperties{SessionExpiryInterval: &o.Expiry}
		}
		return f.client.Disconnect(d)
	case "drop":
		return f.drop()
	default:
		return fmt.Errorf("cannot %q", o.Do)
	}
	return nil
}

func (f *five) connect(ctx context.Context, o order) error {
	conn, err := f.dial()
	if err != nil {
		return err
	}
	f.wire = packets.NewThreadSafeConn(conn)
	hold, held := o.Hold, make(chan *paho.Publish, 1000)
	f.held = held
	cfg := paho.ClientConfig{
		Conn: f.wire, Session: f.state, PacketTimeout: patience, EnableManualAcknowledgment: hold,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(r paho.PublishReceived) (bool, error) {
			say(message(r.Packet))
			if hold && r.Packet.QoS > 0 {
				held <- r.Packet
			}
			return true, nil
		}},
		OnServerDisconnect: func(d *paho.Disconnect) {
			e := event{Is: "end", Code: int(d.ReasonCode), Words: d.Properties.ReasonString}
			if d.Properties.ServerReference != "" {
				e.Props = map[string]string{"server": d.Properties.ServerReference}
			}
			say(e)
		},
		OnClientError: func(err error) { say(event{Is: "lost", Words: err.Error()}) },
	}
	if o.Mute {
		cfg.PingHandler = mute{}
	}
	f.client = paho.NewClient(cfg)
	ack, err := f.client.Connect(ctx, connectPacket(o))
	if ack == nil {
		return err
	}
	say(connack(ack))
	return nil
}

func connectPacket(o order) *paho.Connect {
	c := &paho.Connect{ClientID: o.ID, CleanStart: o.Clean, KeepAlive: o.KeepAlive, Properties: &paho.ConnectProperties{
		AuthMethod: o.Auth, RequestProblemInfo: !o.Terse, RequestResponseInfo: o.Info}}
	p := c.Properties
	if o.Expiry > 0 {
		p.SessionExpiryInterval = &o.Expiry
	}
	if o.Receive > 0 {
		p.ReceiveMaximum = &o.Receive
	}
	if o.Aliases > 0 {
		p.TopicAliasMaximum = &o.Aliases
	}
	if o.Size > 0 {
		p.MaximumPacketSize = &o.Size
	}
	if w := o.Will; w != nil {
		c.WillMessage = &paho.WillMessage{Topic: w.Topic, Payload: []byte(w.Payload), QoS: w.QoS, Retain: w.Retain}
		c.WillProperties = &paho.WillProperties{WillDelayInterval: &w.Delay}
	}
	return c
}

func connack(a *paho.Connack) event {
	p, props := a.Properties, map[string]string{}
	number := func(name string, set bool, n func() any) {
		if set {
			props[name] = fmt.Sprint(n())
		}
	}
	number("expiry", p.SessionExpiryInterval != nil, func() any { return *p.SessionExpiryInterval })
	number("keepalive", p.ServerKeepAlive != nil, func() any { return *p.ServerKeepAlive })
	number("receive", p.ReceiveMaximum != nil, func() any { return *p.ReceiveMaximum })
	number("aliases", p.TopicAliasMaximum != nil, func() any { return *p.TopicAliasMaximum })
	number("qos", p.MaximumQoS != nil, func() any { return *p.MaximumQoS })
	number("id", p.AssignedClientID != "", func() any { return p.AssignedClientID })
	number("info", p.ResponseInfo != "", func() any { return p.ResponseInfo })
	number("server", p.ServerReference != "", func() any { return p.ServerReference })
	return event{Is: "connack", Code: int(a.ReasonCode), Present: a.SessionPresent, Words: p.ReasonString, Props: props}
}

func (f *five) subscribe(ctx context.Context, o order) error {
	q := &paho.Subscribe{}
	for _, t := range o.Topics {
		q.Subscriptions = append(q.Subscriptions, paho.SubscribeOptions{Topic: t, QoS: o.QoS})
	}
	ack, err := f.client.Subscribe(ctx, q)
	if ack == nil {
		return err
	}
	say(event{Is: "suback", Codes: codes(ack.Reasons), Words: ack.Properties.ReasonString})
	return nil
}

// publish waits for no PUBACK: where the connection ends before, none comes.
func (f *five) publish(o order) error {
	p := &paho.Publish{Topic: o.Topic, QoS: o.QoS, Retain: o.Retain, Payload: append(o.Raw, o.Payload...), Properties: &paho.PublishProperties{ContentType: o.Type}}
	if o.Alias > 0 {
		p.Properties.TopicAlias = &o.Alias
	}
	if o.Expiry > 0 {
		p.Properties.MessageExpiry = &o.Expiry
	}
	if o.Text {
		one := byte(1)
		p.Properties.PayloadFormat = &one
	}
	for k, v := range o.User {
		p.Properties.User.Add(k, v)
	}
	if o.QoS != 1 {
		return f.sent(p)
	}
	go func() {
		if err := f.sent(p); err != nil {
			say(event{Is: "error", Words: err.Error()})
		}
	}()
	return nil
}

func (f *five) sent(p *paho.Publish) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ack, err := f.client.Publish(ctx, p)
	if errors.Is(err, paho.ErrInvalidArguments) { // the server had told it so; ask the server all the same
		raw := p.Packet()
		raw.PacketID = 64000
		_, err := raw.WriteTo(f.wire)
		return err
	}
	if ack == nil {
		if err == nil {
			err = errors.New("no answer to PUBLISH")
		}
		return err
	}
	if p.QoS == 0 {
		return nil
	}
	say(event{Is: "puback", Code: int(ack.ReasonCode), Words: ack.Properties.ReasonString})
	return nil
}

func message(p *paho.Publish) event {
	props := map[string]string{}
	for name, v := range map[string]string{"response": p.Properties.ResponseTopic, "correlation": string(p.Properties.CorrelationData), "type": p.Properties.ContentType} {
		if v != "" {
			props[name] = v
		}
	}
	if p.Properties.MessageExpiry != nil {
		props["expiry"] = fmt.Sprint(*p.Properties.MessageExpiry)
	}
	if p.Properties.TopicAlias != nil {
		props["alias"] = fmt.Sprint(*p.Properties.TopicAlias)
	}
	return event{Is: "message", Topic: p.Topic, Payload: string(p.Payload), QoS: int(p.QoS), Dup: p.Packet().Duplicate, Props: props}
}

// mute is a client that never pings.
type mute struct{}

func (mute) Run(ctx context.Context, _ net.Conn, _ uint16) error { <-ctx.Done(); return nil }
func (mute) PacketSent()                                         {}
func (mute) PacketReceived()                                     {}
func (mute) PingResp()                                           {}
func (mute) SetDebug(log.Logger)                                 {}
