// SPDX-License-Identifier: AGPL-3.0-only

package peers

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"testing"

	paho5 "github.com/eclipse/paho.golang/packets"
	paho4 "github.com/eclipse/paho.mqtt.golang/packets"
	mochi "github.com/mochi-mqtt/server/v2/packets"

	"github.com/openthings-platform/openthings/wire/mqtt"
)

// peer decodes one whole packet and writes what it understood.
type peer struct {
	name     string
	versions []mqtt.Version
	again    func(v mqtt.Version, b []byte) ([]byte, error)
}

var peers = []peer{
	{"paho 5.0", []mqtt.Version{mqtt.V5}, func(_ mqtt.Version, b []byte) ([]byte, error) {
		p, err := paho5.ReadPacket(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		var out bytes.Buffer
		_, err = p.WriteTo(&out)
		return out.Bytes(), err
	}},
	{"paho 3.1.1", []mqtt.Version{mqtt.V4}, func(_ mqtt.Version, b []byte) ([]byte, error) {
		p, err := paho4.ReadPacket(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		var out bytes.Buffer
		err = p.Write(&out)
		return out.Bytes(), err
	}},
	{"mochi", []mqtt.Version{mqtt.V4, mqtt.V5}, mochiAgain},
}

func mochiAgain(v mqtt.Version, b []byte) ([]byte, error) {
	pk := mochi.Packet{ProtocolVersion: byte(v), Mods: mochi.Mods{AllowResponseInfo: true}}
	if err := pk.FixedHeader.Decode(b[0]); err != nil {
		return nil, err
	}
	n, used, err := mochi.DecodeLength(bytes.NewReader(b[1:]))
	if err != nil {
		return nil, err
	}
	pk.FixedHeader.Remaining = n
	body := bytes.Clone(b[1+used:])
	decode, encode := pk.PingreqDecode, pk.PingreqEncode
	switch pk.FixedHeader.Type {
	case mochi.Connect:
		decode, encode = pk.ConnectDecode, pk.ConnectEncode
	case mochi.Connack:
		decode, encode = pk.ConnackDecode, pk.ConnackEncode
	case mochi.Publish:
		decode, encode = pk.PublishDecode, pk.PublishEncode
	case mochi.Puback:
		decode, encode = pk.PubackDecode, pk.PubackEncode
	case mochi.Pubrec:
		decode, encode = pk.PubrecDecode, pk.PubrecEncode
	case mochi.Pubrel:
		decode, encode = pk.PubrelDecode, pk.PubrelEncode
	case mochi.Pubcomp:
		decode, encode = pk.PubcompDecode, pk.PubcompEncode
	case mochi.Subscribe:
		decode, encode = pk.SubscribeDecode, pk.SubscribeEncode
	case mochi.Suback:
		decode, encode = pk.SubackDecode, pk.SubackEncode
	case mochi.Unsubscribe:
		decode, encode = pk.UnsubscribeDecode, pk.UnsubscribeEncode
	case mochi.Unsuback:
		decode, encode = pk.UnsubackDecode, pk.UnsubackEncode
	case mochi.Pingresp:
		decode, encode = pk.PingrespDecode, pk.PingrespEncode
	case mochi.Disconnect:
		decode, encode = pk.DisconnectDecode, pk.DisconnectEncode
	case mochi.Auth:
		decode, encode = pk.AuthDecode, pk.AuthEncode
	}
	if err := decode(body); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = encode(&out)
	return out.Bytes(), err
}

// ours decodes the first packet of b and returns what is left of it.
func ours(v mqtt.Version, b []byte) (p mqtt.Packet, whole []byte, err error) {
	r := mqtt.NewReader(bytes.NewReader(b), 1<<20)
	h, body, err := r.Next()
	if err != nil {
		return nil, nil, err
	}
	p, err = mqtt.Decode(v, h, body)
	head := 2
	for b[head-1] >= 0x80 {
		head++
	}
	return p, b[:head+len(body)], err
}

// FuzzDifferential: what we accept every peer accepts, and it understands the same: what it writes is for us the packet
// that we read at first, and what we write is for it the packet that it read at first.
func FuzzDifferential(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s.v5, s.b)
	}
	f.Fuzz(func(t *testing.T, v5 bool, b []byte) {
		v := mqtt.V4
		if v5 {
			v = mqtt.V5
		}
		p, whole, err := ours(v, b)
		if err != nil {
			return
		}
		if c, ok := p.(*mqtt.Connect); ok {
			v = c.Version
		}
		rewritten, err := mqtt.Append(nil, v, p)
		if err != nil {
			t.Fatalf("read % x and could not write it: %v", whole, err)
		}
		want := normal(p)
		for _, o := range peers {
			if !slices.Contains(o.versions, v) || exempt(o.name, p) {
				continue
			}
			again, err := o.again(v, whole)
			if err != nil {
				t.Errorf("%s refuses % x, which is %s for us: %v", o.name, whole, show(p), err)
				continue
			}
			q, _, err := ours(v, again)
			if err != nil {
				t.Errorf("%s read % x, which is %s for us, and wrote % x: %v", o.name, whole, show(p), again, err)
				continue
			}
			if got := normal(q); !reflect.DeepEqual(got, want) {
				t.Errorf("%s read % x as\n%s, we as\n%s", o.name, whole, show(got), show(want))
			}
			if ours, err := o.again(v, rewritten); err != nil || !bytes.Equal(ours, again) {
				t.Errorf("% x is % x for %s; we read it and wrote % x, which is % x for it: %v", whole, again, o.name, rewritten, ours, err)
			}
		}
	})
}

func show(p mqtt.Packet) string {
	s := fmt.Sprintf("%s %+v", p.Type(), p)
	if c, ok := p.(*mqtt.Connect); ok && c.Will != nil {
		s += fmt.Sprintf(" with the will %+v", *c.Will)
	}
	return s
}

// TestTraps: what other decoders let through, so that nobody takes one of them for a door. Ours refuses all of it.
func TestTraps(t *testing.T) {
	for _, trap := range []struct {
		name, peer string
		v          mqtt.Version
		b          []byte
	}{
		{"a SUBSCRIBE without options (mochi-mqtt issue 501)", "mochi", mqtt.V5, []byte{0x82, 6, 0, 1, 0, 0, 1, 'a'}},
		{"QoS 3", "paho 3.1.1", mqtt.V4, []byte{0x36, 7, 0, 1, 't', 0, 7, 'h', 'i'}},
		{"QoS 3", "paho 5.0", mqtt.V5, []byte{0x36, 8, 0, 1, 't', 0, 7, 0, 'h', 'i'}},
		{"a client identifier of nine bytes where one is left", "paho 3.1.1", mqtt.V4,
			[]byte{0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, 9, 'a'}},
		{"a topic that is not UTF-8", "paho 3.1.1", mqtt.V4, []byte{0x30, 3, 0, 1, 0xFF}},
		{"a topic that is not UTF-8", "paho 5.0", mqtt.V5, []byte{0x30, 4, 0, 1, 0xFF, 0}},
		{"U+0000 in a topic", "paho 5.0", mqtt.V5, []byte{0x30, 4, 0, 1, 0, 0}},
		{"a length of five bytes", "paho 5.0", mqtt.V5, []byte{0x30, 0x84, 0x80, 0x80, 0x80, 0, 0, 1, 't', 0}},
		{"reserved flags", "paho 5.0", mqtt.V5, []byte{0xCF, 0}},
		{"a property twice", "paho 5.0", mqtt.V5, []byte{0x30, 8, 0, 1, 't', 4, 1, 0, 1, 0}},
		{"a property of CONNECT in a will", "paho 5.0", mqtt.V5,
			[]byte{0x10, 25, 0, 4, 'M', 'Q', 'T', 'T', 5, 6, 0, 60, 0, 0, 1, 'a', 5, 0x11, 0, 0, 0, 1, 0, 1, 'w', 0, 0}},
	} {
		t.Run(trap.peer+" "+trap.name, func(t *testing.T) {
			if p, _, err := ours(trap.v, trap.b); err == nil {
				t.Errorf("we take it as %s", show(p))
			}
			for _, o := range peers {
				if o.name == trap.peer && !falls(o, trap.v, trap.b) {
					t.Errorf("%s refuses it by now: nothing to compare", o.name)
				}
			}
		})
	}
}

// falls says whether the peer takes what it should refuse, or panics.
func falls(o peer, v mqtt.Version, b []byte) (fell bool) {
	defer func() {
		if recover() != nil {
			fell = true
		}
	}()
	_, err := o.again(v, b)
	return err == nil
}
