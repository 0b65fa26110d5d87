// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/json"
	"strings"
	"testing"
)

const someDigest = "sha256:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

func TestSecurityEventsThatNoDeviceSends(t *testing.T) {
	good := SecurityEvent{Seq: 2, Prev: someDigest, Kind: SecurityLogin, Boot: 1}
	for name, edit := range map[string]func(*SecurityEvent){
		"without a number":             func(e *SecurityEvent) { e.Seq = 0 },
		"with a number beyond a life":  func(e *SecurityEvent) { e.Seq = 1<<62 + 1 },
		"following on nothing":         func(e *SecurityEvent) { e.Prev = "" },
		"first and following":          func(e *SecurityEvent) { e.Seq = 1 },
		"following on no digest":       func(e *SecurityEvent) { e.Prev = "sha256:00" },
		"without a kind":               func(e *SecurityEvent) { e.Kind = "" },
		"of a kind with a dot":         func(e *SecurityEvent) { e.Kind = "a.b" },
		"of a kind too long":           func(e *SecurityEvent) { e.Kind = strings.Repeat("a", 33) },
		"a checkpoint without a seal":  func(e *SecurityEvent) { e.Kind = SecurityCheckpoint },
		"a login with a seal":          func(e *SecurityEvent) { e.Signed = &Signed{} },
		"longer than a message may be": func(e *SecurityEvent) { e.Detail = strings.Repeat("a", MaxSecurityEvent) },
	} {
		e := good
		edit(&e)
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseSecurityEvent(b); err == nil {
			t.Errorf("an event %s was read", name)
		}
	}
	for _, body := range []string{"", "[]", "null", "{}", `{"seq":-1}`, `{"seq":"1"}`} {
		if _, err := ParseSecurityEvent([]byte(body)); err == nil {
			t.Errorf("%q was read", body)
		}
	}
	b, err := json.Marshal(good)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := ParseSecurityEvent(b); err != nil || e.Seq != 2 || e.Prev != someDigest {
		t.Errorf("%+v, %v", e, err)
	}
}

// FuzzParseSecurityEvent: whatever is read can be written and is read again as the same link.
func FuzzParseSecurityEvent(f *testing.F) {
	f.Add([]byte(`{"seq":1,"kind":"boot","boot":1}`))
	f.Add([]byte(`{"seq":2,"prev":"` + someDigest + `","kind":"login","ts":1,"boot":1,"detail":"root","data":{"user":"root"}}`))
	f.Add([]byte(`{"seq":3,"prev":"` + someDigest + `","kind":"checkpoint","boot":1,"signed":{"payload":"e30=","signature":"AQI="}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := ParseSecurityEvent(body)
		if err != nil {
			return
		}
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatalf("%q was read and cannot be written: %v", body, err)
		}
		again, err := ParseSecurityEvent(b)
		if len(b) <= MaxSecurityEvent && (err != nil || again.Seq != e.Seq || again.Prev != e.Prev || again.Kind != e.Kind) {
			t.Errorf("%q is read as %+v, then as %+v (%v)", body, e, again, err)
		}
	})
}
