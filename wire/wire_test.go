// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

var update = flag.Bool("golden", false, "write testdata anew; a change there breaks devices in the field")

// messages has every message once, with every member set.
var messages = map[string]any{
	"telemetry":      Telemetry{TS: 1793450000123, Boot: 7, Seq: 42, Values: map[string]float64{"power": 512.5, "temp": -3.25}},
	"event":          Event{TS: 1793450000123, Detail: "case opened", Data: map[string]any{"port": "debug"}},
	"security_event": SecurityEvent{Seq: 42, Prev: "sha256:00", Kind: SecurityLogin, TS: 1793450000123, Boot: 7, Detail: "root on ttyS0", Data: json.RawMessage(`{"user":"root"}`)},
	"security_checkpoint": SecurityEvent{Seq: 43, Prev: "sha256:01", Kind: SecurityCheckpoint, TS: 1793450000124, Boot: 7,
		Signed: &Signed{Payload: []byte(`{"device":"dev_1","seq":42,"hash":"sha256:01","at":1793450000124}`), Signature: []byte{1, 2, 3}}},
	"security_state": SecurityState{Device: "dev_1", Seq: 42, Hash: "sha256:01", At: 1793450000124},
	"lost":           Lost{Count: 600, Why: LostSpace, Boot: 7, From: 1, To: 600, Events: 2},
	"inventory":      Inventory{Version: "1.1.0", SecurityVersion: 2, Image: "sha256:00", Slot: "b", Floor: 2, Boot: 8, Update: "upd_1", Agent: "0.1.0", Bundle: 2},
	"command_ack":    CommandAck{OK: false, Reason: "busy"},
	"notice": Notice{ID: "support-2031", Kind: NoticeSupport, Severity: NoticeWarning, Texts: []NoticeText{{"en", "Support ends", "In December 2031."}, {"de", "Ende", "Im Dezember 2031."}},
		URL: "https://maker.example/lamp", Ends: 1793450000123, Replaces: "support-2030"},
	"notice_report":  NoticeReport{Notice: "support-2031", State: NoticeAcknowledged, At: 1793450000123},
	"support":        Support{End: "2031-12", Until: 1956527999999, Product: "Lamp", Maker: "Acme", URL: "https://ot.example/p/prd_1"},
	"command_result": CommandResult{OK: true, Detail: "pong", Data: json.RawMessage(`{"rtt":3}`)},
	"twin_delta":     TwinDelta{Version: 7, Base: 5, Patch: json.RawMessage(`{"light":{"level":40,"scene":null}}`)},
	"twin_full":      TwinDelta{Version: 7, Full: json.RawMessage(`{"light":{"level":40}}`)},
	"twin_report":    TwinReport{Boot: 7, Seq: 3, Applied: 5, Full: json.RawMessage(`{"light":{"level":20}}`), Failed: 7, Error: "no such scene", Resync: true},
	"twin_change":    TwinReport{Boot: 7, Seq: 4, Applied: 7, Patch: json.RawMessage(`{"light":{"level":40}}`)},
	"offer":          Offer{Update: "upd_1", Release: "rel_1", Target: "prd_1/1.1.0", NotAfter: 1793450000123},
	"update_status":  UpdateStatus{State: UpdateRefused, Rule: "floor", Reason: "2 is below 3", Inventory: Inventory{Version: "1.0.0", Image: "sha256:00", Slot: "a"}},
	"line_request":   LineRequest{Serial: "LMP-00001", CSR: "-----BEGIN", Firmware: "sha256:00"},
	"line_response": LineResponse{Device: "dev_1", Certificate: "-----BEGIN", Chain: "-----BEGIN", Claim: "7H2KD", TrustRoot: json.RawMessage(`{"signed":{}}`),
		Bundle: &SignedBundle{Bundle: json.RawMessage(`{"version":1}`), Signatures: []BundleSignature{{KeyID: "00", Sig: []byte{1, 2}}}}},
	"refusal":   Refusal{Topic: "ot/1/me/cmd/c1/reboot", Code: 0x87, Reason: "a topic that is not this device's to write"},
	"message":   Message{Topic: "tele/env", Payload: json.RawMessage(`{"temp":1}`)},
	"receipt":   Receipt{Durable: 3},
	"time":      Time{Now: 1793450000123},
	"wipe_args": WipeArgs{Nonce: "n"},
	"wipe_receipt": WipeReceipt{Device: "dev_1", Serial: "LMP-00001", Command: "cmd_1", Nonce: "n", Method: "crypto-erase",
		Areas: []string{"ldevid-key", "config"}, Image: "sha256:00", At: 1793450000123},
	"baseline_report": BaselineReport{At: 1793450000123, Boot: 7, Agent: "0.1.0", Root: RootTPM, SecureBoot: BootOn, Ports: &[]string{"tcp/443"},
		Debug: map[string]string{"jtag": DebugClosed, "uart": DebugOpen}, Credentials: &[]string{"root"}, TLS: "1.3", Privileges: map[string]bool{"agent-unprivileged": true}},
	"baseline_answer":  BaselineAnswer{OK: false, Version: 2, Failed: []string{"The debug interface uart is open."}},
	"attest_request":   AttestRequest{Certificate: []byte{0x30}, Chain: [][]byte{{0x30, 0x01}}, EK: []byte{1}, AK: []byte{2}},
	"attest_challenge": AttestChallenge{ID: "att_1", Credential: []byte{1}, Secret: []byte{2}, Nonce: []byte{3}},
	"attest_proof":     AttestProof{ID: "att_1", Opened: []byte{1}, Key: []byte{2}, Info: []byte{3}, Signature: []byte{4}},
	"signed":           Signed{Payload: []byte(`{"a":1}`), Signature: []byte{1, 2, 3}},
	"leaf":             Leaf{ID: "log_1", At: 1793450000123, Tenant: "ten_1", Actor: "per_<1>", Kind: "device.claimed", Subject: "dev_1", Data: "sha256:00"},
	"leaf_data":        LeafData{Salt: "00112233445566778899aabbccddeeff", Data: json.RawMessage(`{"solution":"sol_1"}`)},
}

// The bytes on the wire are a contract with devices that are never updated.
func TestGolden(t *testing.T) {
	for name, m := range messages {
		got, err := json.Marshal(m)
		if l, ok := m.(Leaf); ok {
			got = l.Bytes() // its own encoding: it is hashed
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", name+".json")
		if *update {
			if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(bytes.TrimSpace(want), got) {
			t.Errorf("%s\n got %s\nwant %s", name, got, want)
		}
		back := reflect.New(reflect.TypeOf(m))
		if err := json.Unmarshal(want, back.Interface()); err != nil || !reflect.DeepEqual(back.Elem().Interface(), m) {
			t.Errorf("%s reads back as %+v, %v", name, back.Elem(), err)
		}
	}
}

// A member that the future adds is ignored, not refused.
func TestUnknownMembersAreIgnored(t *testing.T) {
	var o Offer
	if err := json.Unmarshal([]byte(`{"update":"upd_1","colour":"green"}`), &o); err != nil || o.Update != "upd_1" {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestSigned(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Sign(rand.Reader, key, WipeArgs{Nonce: "n"})
	if err != nil {
		t.Fatal(err)
	}
	var got WipeArgs
	if err := s.Open(&key.PublicKey, &got); err != nil || got.Nonce != "n" {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range s.Payload {
		bad := Signed{Payload: bytes.Clone(s.Payload), Signature: s.Signature}
		bad.Payload[i] ^= 1
		if err := bad.Open(&key.PublicKey, &got); !errors.Is(err, ErrSignature) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	if err := s.Open(&other.PublicKey, &got); !errors.Is(err, ErrSignature) {
		t.Errorf("under another key: %v", err)
	}
	if err := s.Open(ed25519.PublicKey(make([]byte, 32)), &got); !errors.Is(err, ErrSignature) {
		t.Errorf("under a key of another kind: %v", err)
	}
}

func TestLeafHasOneSpelling(t *testing.T) {
	good := messages["leaf"].(Leaf).Bytes()
	if l, err := ParseLeaf(good); err != nil || l != messages["leaf"] {
		t.Fatalf("%+v, %v", l, err)
	}
	for _, bad := range [][]byte{
		append([]byte(" "), good...), append(bytes.Clone(good), '\n'), bytes.Replace(good, []byte(`"at"`), []byte(`"AT"`), 1),
		bytes.Replace(good, []byte(`{`), []byte(`{"extra":1,`), 1), bytes.Replace(good, []byte("<"), []byte(`\u003c`), 1), []byte("null"), nil,
	} {
		if _, err := ParseLeaf(bad); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

// The salt and the data are told apart: moving a byte from one to the other gives another digest.
func TestLeafDataDigest(t *testing.T) {
	a := LeafData{Salt: "aa", Data: json.RawMessage(`1`)}
	for _, b := range []LeafData{{Salt: "ab", Data: a.Data}, {Salt: "aa", Data: json.RawMessage(`2`)}, {Salt: "a", Data: json.RawMessage("a1")}} {
		if a.Digest() == b.Digest() {
			t.Errorf("%+v has the digest of %+v", b, a)
		}
	}
}

func FuzzParseLeaf(f *testing.F) {
	f.Add(messages["leaf"].(Leaf).Bytes())
	f.Add([]byte(`{"id":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseLeaf(b)
		if err == nil && !bytes.Equal(l.Bytes(), b) {
			t.Errorf("%q was accepted and is spelled %q", b, l.Bytes())
		}
	})
}
