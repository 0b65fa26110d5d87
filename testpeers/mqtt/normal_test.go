// SPDX-License-Identifier: AGPL-3.0-only

package peers

import (
	"cmp"
	"encoding/hex"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/wire/mqtt"
)

// normal is p without what a peer's writer leaves out or reorders although its reader took it: the order of properties,
// and properties that say the default.
func normal(p mqtt.Packet) mqtt.Packet {
	switch p := p.(type) {
	case *mqtt.Connect:
		p.Properties = sorted(p.Properties)
		if p.Will != nil {
			p.Will.Properties = sorted(p.Will.Properties)
			p.Will.Payload = some(p.Will.Payload)
		}
		p.Password = some(p.Password)
	case *mqtt.Connack:
		p.Properties = sorted(p.Properties)
	case *mqtt.Publish:
		p.Properties = sorted(p.Properties)
		p.Payload = some(p.Payload)
	case *mqtt.Ack:
		p.Properties = sorted(p.Properties)
	case *mqtt.Subscribe:
		p.Properties = sorted(p.Properties)
	case *mqtt.Suback:
		p.Properties = sorted(p.Properties)
	case *mqtt.Unsubscribe:
		p.Properties = sorted(p.Properties)
	case *mqtt.Unsuback:
		p.Properties = sorted(p.Properties)
	case *mqtt.Disconnect:
		p.Properties = sorted(p.Properties)
	case *mqtt.Auth:
		p.Properties = sorted(p.Properties)
	}
	return p
}

func some(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func sorted(ps mqtt.Properties) mqtt.Properties {
	out := mqtt.Properties{}
	for _, p := range ps {
		if p.ID == mqtt.UserProperty || p.Num != 0 || p.Str != "" {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, func(a, b mqtt.Property) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// exempt are the peers' own defects and choices, by what triggers them.
func exempt(peer string, p mqtt.Packet) bool {
	switch p := p.(type) {
	case *mqtt.Connect: // it writes no other properties of a will
		return peer == "paho 5.0" && p.Will != nil && slices.ContainsFunc(p.Will.Properties, func(p mqtt.Property) bool {
			return p.ID != mqtt.WillDelay && p.ID != mqtt.UserProperty
		})
	case *mqtt.Ack: // it leaves out a reason that is neither success nor an error
		return peer == "mochi" && p.Reason == 0x10
	case *mqtt.Disconnect:
		if peer == "mochi" { // it overlooks a reason at the end of the packet
			return p.Reason != mqtt.Success && len(p.Properties) == 0
		}
		return peer == "paho 5.0" && p.Reason == mqtt.Success && len(p.Properties) == 0 // it refuses the short form
	case *mqtt.Auth: // so does this one
		return peer == "mochi" && p.Reason == mqtt.Success && len(p.Properties) == 0
	}
	return false
}

type seed struct {
	v5 bool
	b  []byte
}

// seeds are packets that must be taken, and those of the door's table that must be refused.
func seeds(t testing.TB) (out []seed) {
	t.Helper()
	for _, file := range []string{"accepted.txt", "malformed.txt"} {
		b, err := os.ReadFile("../../wire/mqtt/testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			what, _, ok := strings.Cut(strings.TrimSpace(line), " # ")
			if !ok {
				continue
			}
			f := strings.Fields(what)
			packet, err := hex.DecodeString(strings.Join(f[2:], ""))
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			out = append(out, seed{f[0] == "5", packet})
		}
	}
	return out
}
