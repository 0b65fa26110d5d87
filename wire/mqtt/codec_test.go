// SPDX-License-Identifier: Apache-2.0

package mqtt

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
)

// golden are packets and their bytes, written by hand from the standard.
var golden = []struct {
	name string
	v    Version
	hex  string
	p    Packet
}{
	{"connect 3.1.1", V4, "100d 00044d515454 04 02 003c 0001 61", &Connect{Version: V4, CleanStart: true, KeepAlive: 60, ClientID: "a"}},
	{"connect 5, will, password", V5, "102e 00044d515454 05 ee 000a 05 1100000005 0001 61 0a 1800000001 0200000009 0003 742f78 0002 6279 0001 75 0002 7077",
		&Connect{Version: V5, CleanStart: true, KeepAlive: 10, ClientID: "a", HasUser: true, User: "u", HasPassword: true, Password: []byte("pw"),
			Properties: Properties{{ID: SessionExpiry, Num: 5}},
			Will: &Will{Topic: "t/x", Payload: []byte("by"), QoS: 1, Retain: true,
				Properties: Properties{{ID: WillDelay, Num: 1}, {ID: MessageExpiry, Num: 9}}}}},
	{"connack 3.1.1", V4, "2002 01 00", &Connack{SessionPresent: true}},
	{"connack 3.1.1 refused", V4, "2002 00 05", &Connack{Reason: NotAuthorized}},
	{"connack 5", V5, "200a 00 00 07 2401 2500 21 0040", &Connack{Properties: Properties{{ID: MaximumQoS, Num: 1}, {ID: RetainAvailable}, {ID: ReceiveMaximum, Num: 64}}}},
	{"publish QoS 0", V4, "3005 0001 74 6869", &Publish{Topic: "t", Payload: []byte("hi")}},
	{"publish QoS 1 again", V4, "3a07 0001 74 0007 6869", &Publish{Dup: true, QoS: 1, ID: 7, Topic: "t", Payload: []byte("hi")}},
	{"publish 5", V5, "3212 0001 74 0007 0b 26 0001 6b 0001 76 08 0001 72 68",
		&Publish{QoS: 1, ID: 7, Topic: "t", Payload: []byte("h"), Properties: Properties{{ID: UserProperty, Str: "k", Val: "v"}, {ID: ResponseTopic, Str: "r"}}}},
	{"publish alias", V5, "3007 0000 03 230001 68", &Publish{Payload: []byte("h"), Properties: Properties{{ID: TopicAlias, Num: 1}}}},
	{"puback", V4, "4002 0007", &Ack{Kind: PUBACK, ID: 7}},
	{"puback 5 refused", V5, "4003 0007 87", &Ack{Kind: PUBACK, ID: 7, Reason: NotAuthorized}},
	{"puback 5 with a reason string", V5, "4008 0007 87 04 1f 0001 6e", &Ack{Kind: PUBACK, ID: 7, Reason: NotAuthorized, Properties: Properties{{ID: ReasonString, Str: "n"}}}},
	{"pubrec", V4, "5002 0007", &Ack{Kind: PUBREC, ID: 7}},
	{"pubrel", V4, "6202 0007", &Ack{Kind: PUBREL, ID: 7}},
	{"pubcomp 5", V5, "7003 0007 92", &Ack{Kind: PUBCOMP, ID: 7, Reason: 0x92}},
	{"subscribe", V4, "8206 0001 0001 23 01", &Subscribe{ID: 1, Filters: []Filter{{Topic: "#", QoS: 1}}}},
	{"subscribe 5", V5, "820c 0001 02 0b05 0004 612f2b2f 2d",
		&Subscribe{ID: 1, Properties: Properties{{ID: SubscriptionID, Num: 5}}, Filters: []Filter{{Topic: "a/+/", QoS: 1, NoLocal: true, RetainAsPublished: true, RetainHandling: 2}}}},
	{"suback", V4, "9004 0001 01 80", &Suback{ID: 1, Reasons: []Reason{GrantedQoS1, UnspecifiedError}}},
	{"suback 5", V5, "9004 0001 00 87", &Suback{ID: 1, Reasons: []Reason{NotAuthorized}}},
	{"unsubscribe", V4, "a205 0001 0001 23", &Unsubscribe{ID: 1, Topics: []string{"#"}}},
	{"unsuback", V4, "b002 0001", &Unsuback{ID: 1}},
	{"unsuback 5", V5, "b004 0001 00 11", &Unsuback{ID: 1, Reasons: []Reason{NoSubscriptionExisted}}},
	{"pingreq", V4, "c000", &Pingreq{}},
	{"pingresp", V5, "d000", &Pingresp{}},
	{"disconnect", V4, "e000", &Disconnect{}},
	{"disconnect 5", V5, "e001 98", &Disconnect{Reason: AdministrativeAction}},
	{"auth", V5, "f006 18 04 15 0001 78", &Auth{Reason: 0x18, Properties: Properties{{ID: AuthMethod, Str: "x"}}}},
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// decodeAll reads one packet from b, which must hold nothing else.
func decodeAll(v Version, b []byte) (Packet, error) {
	r := NewReader(bytes.NewReader(b), 1<<20)
	h, body, err := r.Next()
	if err != nil {
		return nil, err
	}
	if r.Buffered() {
		return nil, errors.New("bytes after the packet")
	}
	return Decode(v, h, body)
}

func TestGolden(t *testing.T) {
	others, err := os.ReadFile("testdata/accepted.txt") // what testpeers/mqtt begins with
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range golden {
		t.Run(g.name, func(t *testing.T) {
			want := unhex(t, g.hex)
			if !strings.Contains(string(others), g.hex+" # "+g.name) {
				t.Error("it is not in testdata/accepted.txt")
			}
			b, err := Append([]byte("before"), g.v, g.p)
			if err != nil || !bytes.Equal(b, append([]byte("before"), want...)) {
				t.Errorf("Append = %x, %v\nwant     %x", bytes.TrimPrefix(b, []byte("before")), err, want)
			}
			p, err := decodeAll(g.v, want)
			if err != nil {
				t.Fatal(err)
			}
			if pub, ok := p.(*Publish); ok && len(pub.Payload) == 0 {
				pub.Payload = nil
			}
			if !reflect.DeepEqual(p, g.p) {
				t.Errorf("Decode = %+v\nwant     %+v", p, g.p)
			}
		})
	}
}

// hostilePackets reads testdata/malformed.txt; the door is tested with it as well.
func hostilePackets(t testing.TB) (cases []hostile) {
	t.Helper()
	b, err := os.ReadFile("testdata/malformed.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		what, name, ok := strings.Cut(strings.TrimSpace(line), " # ")
		if !ok {
			continue
		}
		f := strings.SplitN(what, " ", 3)
		cases = append(cases, hostile{name, Version(unhex(t, "0"+f[0])[0]), Reason(unhex(t, f[1])[0]), unhex(t, f[2])})
	}
	if len(cases) < 80 {
		t.Fatalf("only %d packets", len(cases))
	}
	return cases
}

type hostile struct {
	name string
	v    Version
	want Reason
	b    []byte
}

// TestMalformed holds what must be refused, for every packet type.
func TestMalformed(t *testing.T) {
	for _, m := range hostilePackets(t) {
		t.Run(m.name, func(t *testing.T) {
			p, err := decodeAll(m.v, m.b)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("Decode = %+v, %v; want reason 0x%02X", p, err, byte(m.want))
			}
			if e.Reason != m.want {
				t.Errorf("Decode: %v; want reason 0x%02X", err, byte(m.want))
			}
		})
	}
}

// TestNumbersOfItems refuses packets whose many tiny items would cost far more memory than their bytes.
func TestNumbersOfItems(t *testing.T) {
	var s Subscribe
	s.ID = 1
	for range maxFilters + 1 {
		s.Filters = append(s.Filters, Filter{Topic: "a"})
	}
	if _, err := Append(nil, V4, &s); err == nil {
		t.Error("Append took too many filters")
	}
	many := bytes.Repeat(unhex(t, "0001 61 00"), maxFilters+1)
	if _, err := Decode(V4, 0x82, append([]byte{0, 1}, many...)); err == nil {
		t.Error("Decode took too many filters")
	}
	props := bytes.Repeat(unhex(t, "26 0000 0000"), maxProperties+1)
	body := append(appendVarint([]byte{0, 1, 't'}, len(props)), props...)
	if _, err := Decode(V5, 0x30, body); err == nil {
		t.Error("Decode took too many user properties")
	}
}

func TestAppendRefuses(t *testing.T) {
	for name, p := range map[string]Packet{
		"a topic too long":     &Publish{Topic: strings.Repeat("x", 1<<16)},
		"a wildcard":           &Publish{Topic: "a/#"},
		"QoS 1 without an id":  &Publish{QoS: 1, Topic: "a"},
		"a property elsewhere": &Publish{Topic: "a", Properties: Properties{{ID: SessionExpiry}}},
		"a client id not text": &Connect{Version: V5, ClientID: "\xff"},
		"another version":      &Connect{Version: 3},
		"a reason elsewhere":   &Disconnect{Reason: UnsupportedVersion},
		"no acknowledgement":   &Ack{Kind: PUBLISH, ID: 1},
	} {
		if b, err := Append([]byte("x"), V5, p); err == nil || string(b) != "x" {
			t.Errorf("%s: Append = %q, %v", name, b, err)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, m := range []struct {
		filter, topic string
		want          bool
	}{
		{"#", "a/b", true}, {"a/#", "a", true}, {"a/#", "a/b/c", true}, {"a/#", "b", false}, {"a/+", "a/b", true}, {"a/+", "a", false},
		{"a/+", "a/b/c", false}, {"+/b", "a/b", true}, {"a/b", "a/b", true}, {"a/b", "a/b/", false}, {"a/+/", "a/b/", true}, {"a", "ab", false},
	} {
		if got := Match(m.filter, m.topic); got != m.want {
			t.Errorf("Match(%q, %q) = %t", m.filter, m.topic, got)
		}
	}
}
