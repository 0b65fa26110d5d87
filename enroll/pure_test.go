// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
	"time"
)

func TestClaimCode(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		code, hash := NewCode()
		if len(code) != 30 || strings.ContainsAny(code, "ILOU") || seen[code] || strings.Contains(hash, strings.ReplaceAll(code, "-", "")) {
			t.Fatalf("code %q", code)
		}
		seen[code] = true
		for _, typed := range []string{code, strings.ToLower(code), strings.ReplaceAll(code, "-", ""), " " + strings.ReplaceAll(code, "-", " ")} {
			if got, err := parseCode(typed); err != nil || got != hash {
				t.Fatalf("%q: %v", typed, err)
			}
		}
	}
}

func FuzzParseCode(f *testing.F) {
	code, _ := NewCode()
	f.Add(code)
	f.Add("")
	f.Add(strings.Repeat("U", 26))
	f.Add(strings.Repeat("-", 100))
	f.Fuzz(func(t *testing.T, typed string) {
		if hash, err := parseCode(typed); (err == nil) != (len(hash) == 64) {
			t.Errorf("%q: %q %v", typed, hash, err)
		}
	})
}

func TestStationState(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	open := Station{Expires: now.Add(time.Second)}
	killed := open
	killed.Killed = now
	for want, s := range map[string]Station{"open": open, "killed": killed, "expired": {Expires: now}} {
		if got := s.State(now); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if err := s.mayMake(Batch{}, now); (err == nil) != (want == "open") {
			t.Errorf("%s: %v", want, err)
		}
	}
	if err := open.mayMake(Batch{Closed: now}, now); err == nil {
		t.Error("a closed batch takes units")
	}
	if n := (Batch{Issued: 5, Produced: 3, Closed: now}).Surplus(); n != 2 {
		t.Error(n)
	}
	if n := (Batch{Issued: 3, Produced: 5, Closed: now}).Surplus() + (Batch{Issued: 5}).Surplus(); n != 0 {
		t.Error(n)
	}
}

func FuzzDecodeEST(f *testing.F) {
	der := []byte{0x30, 3, 2, 1, 5}
	f.Add(der)
	f.Add(encodeEST(der))
	f.Add([]byte(base64.StdEncoding.EncodeToString(bytes.Repeat(der, 40))))
	f.Add([]byte("MAMC\r\nAQU=\r\n"))
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nMAMCAQU=\n-----END CERTIFICATE REQUEST-----\n"))
	f.Add([]byte(" "))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeEST(b)
		if err == nil && (len(got) == 0 || len(got) > MaxEST) {
			t.Errorf("%q becomes %d bytes", b, len(got))
		}
		// What we write, we read.
		if len(b) > 0 && len(b) < MaxEST/2 {
			if back, err := decodeEST(encodeEST(append([]byte{0x30}, b...))); err != nil || !bytes.Equal(back[1:], b) {
				t.Errorf("%x comes back as %x (%v)", b, back, err)
			}
		}
	})
}

func FuzzLineRequest(f *testing.F) {
	f.Add([]byte(`{"serial":"L1","csr":"-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n","firmware":"sha256:00"}`))
	f.Add([]byte(`{"serial":"L1","csr":"-----BEGIN CERTIFICATE REQUEST-----\nMIHxMIGYAgEAMA8xDTALBgNVBAMTBHVuaXQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQ=\n-----END CERTIFICATE REQUEST-----\n"}`))
	f.Add([]byte(`{}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := readOrder(b, "sta_1", nil)
		if err == nil && (o.csr == nil || o.Serial == "" || len(o.csr.URIs) > 0 || bytes.Contains(b, []byte("PRIVATE KEY"))) {
			t.Errorf("accepted %q", b)
		}
	})
}

func FuzzPreauthorised(f *testing.F) {
	f.Add("serial\nA\n")
	f.Add("\ufeffSerial, mac ,label:x\nA,02:00:5e:10:00:01,\"y\"\n")
	f.Add("serial\n\"A")
	f.Add("serial,label:\nA,b\n")
	f.Fuzz(func(t *testing.T, text string) {
		ps, err := readPreauthorised(strings.NewReader(text))
		for _, p := range ps {
			if err == nil && p.check() != nil {
				t.Errorf("%q: %+v", text, p)
			}
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add(`{"manifest":"openthings batch manifest 1\n{}\n\n- x\n","units":[]}`)
	f.Add(`{"manifest":"","units":[{"seq":1}]}`)
	f.Add(`[`)
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := VerifyManifest(strings.NewReader(text), ""); err == nil {
			t.Errorf("%q is proven without a key", text)
		}
	})
}

func FuzzSerialList(f *testing.F) {
	f.Add("serial\nA\n\nB,x\n# c\n")
	f.Add("A\nA")
	f.Fuzz(func(t *testing.T, text string) {
		serials, err := readSerials(strings.NewReader(text))
		seen := map[string]bool{}
		for _, s := range serials {
			if err == nil && (seen[s] || s == "") {
				t.Errorf("%q: %q twice", text, s)
			}
			seen[s] = true
		}
	})
}
