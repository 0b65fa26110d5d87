// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 9, 20, 12, 0, 0, 0, time.UTC)

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func p256(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func publics(keys ...crypto.Signer) (out []crypto.PublicKey) {
	for _, k := range keys {
		out = append(out, k.Public())
	}
	return out
}

func spec(version int64, root, targets crypto.Signer) RootSpec {
	return RootSpec{Version: version, Expires: now.AddDate(1, 0, 0), RootKeys: publics(root), RootThreshold: 1,
		TargetsKeys: publics(targets), TargetsThreshold: 1}
}

func mustRoot(t testing.TB, s RootSpec, signers ...crypto.Signer) *Root {
	t.Helper()
	b, err := NewRoot(s, signers...)
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParseRoot(b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func lamp() Target {
	return Target{Path: "lamp/2.0.0", Length: 5, SHA256: "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
		Product: "prd_lamp", HW: []string{"rev-c", "rev-d"}, Version: "2.0.0", SecurityVersion: 7, DataFloor: 2, MinFrom: 3,
		Class: ClassSecurity, SBOM: "sha256:" + strings.Repeat("ab", 32)}
}

func device() Device {
	return Device{Product: "prd_lamp", Revision: "rev-c", Floor: 5, Running: 5, DataFloor: 2, Metadata: 1}
}

func wantRule(t *testing.T, err error, rule string) {
	t.Helper()
	var r *Refusal
	switch {
	case rule == "" && err != nil:
		t.Errorf("refused: %v", err)
	case rule != "" && !errors.As(err, &r):
		t.Errorf("error %v; want a refusal by rule %s", err, rule)
	case rule != "" && r.Rule != rule:
		t.Errorf("refused by rule %s (%v); want rule %s", r.Rule, err, rule)
	}
}

// TestDecide has one row per rule: what is changed, and the rule that must refuse it.
func TestDecide(t *testing.T) {
	rootKey, targetsKey, stranger := p256(t), newKey(t), newKey(t)
	root := mustRoot(t, spec(1, rootKey, targetsKey), rootKey)
	for _, row := range []struct {
		name   string
		target func(*Target)
		device func(*Device)
		signer crypto.Signer
		at     time.Time
		edit   func([]byte) []byte
		path   string
		rule   string
	}{
		{name: "as signed"},
		{name: "signed by a stranger", signer: stranger, rule: RuleSignature},
		{name: "signed by a root key, which may not sign targets", signer: rootKey, rule: RuleSignature},
		{name: "one digit of the image digest changed", edit: replace("2cf24dba", "2cf24dbb"), rule: RuleSignature},
		{name: "security version raised after signing", edit: replace(`"security_version": 7`, `"security_version": 8`), rule: RuleSignature},
		{name: "signatures removed", edit: replace(`"signatures": [`, `"signatures": [], "other": [`), rule: RuleSignature},
		{name: "a member added after signing", edit: replace(`"version": 3`, `"version": 3, "x": 1`), rule: RuleSignature},
		{name: "cut short", edit: func(b []byte) []byte { return b[:len(b)-9] }, rule: RuleFormat},
		{name: "a second document follows", edit: func(b []byte) []byte { return append(b, "{}"...) }, rule: RuleFormat},
		{name: "the list has expired", at: now.AddDate(0, 7, 0), rule: RuleExpired},
		{name: "expires this very second", at: now.AddDate(0, 6, 0), rule: RuleExpired},
		{name: "the root has expired", at: now.AddDate(2, 0, 0), rule: RuleExpired},
		{name: "an older list", device: func(d *Device) { d.Metadata = 4 }, rule: RuleRollback},
		{name: "the same list again", device: func(d *Device) { d.Metadata = 3 }},
		{name: "not in the list", path: "lamp/2.0.1", rule: RuleTarget},
		{name: "another product", device: func(d *Device) { d.Product = "prd_meter" }, rule: RuleProduct},
		{name: "another hardware", device: func(d *Device) { d.Revision = "rev-b" }, rule: RuleHardware},
		{name: "hardware names are not prefixes", device: func(d *Device) { d.Revision = "rev-" }, rule: RuleHardware},
		{name: "below the floor", device: func(d *Device) { d.Floor = 8 }, rule: RuleFloor},
		{name: "at the floor", device: func(d *Device) { d.Floor = 7 }},
		{name: "highest floor", device: func(d *Device) { d.Floor = 1<<63 - 1 }, rule: RuleFloor},
		{name: "cannot read migrated data", device: func(d *Device) { d.DataFloor = 3 }, rule: RuleDataFloor},
		{name: "an intermediate release is missing", device: func(d *Device) { d.Running = 2 }, rule: RuleMinFrom},
	} {
		t.Run(row.name, func(t *testing.T) {
			target, d, signer, at, path := lamp(), device(), targetsKey, row.at, row.path
			if row.target != nil {
				row.target(&target)
			}
			if row.device != nil {
				row.device(&d)
			}
			if row.signer != nil {
				signer = row.signer
			}
			if at.IsZero() {
				at = now
			}
			if path == "" {
				path = target.Path
			}
			b, err := SignTargets(3, now.AddDate(0, 6, 0), []Target{target}, signer)
			if err != nil {
				t.Fatal(err)
			}
			if row.edit != nil {
				b = row.edit(b)
			}
			got, err := Decide(root, b, path, d, at)
			wantRule(t, err, row.rule)
			if row.rule == "" && got.SHA256 != target.SHA256 {
				t.Errorf("decided on %+v", got)
			}
		})
	}
}

func replace(old, with string) func([]byte) []byte {
	return func(b []byte) []byte {
		if bytes.Count(b, []byte(old)) == 0 {
			panic(old + " does not occur")
		}
		return bytes.Replace(b, []byte(old), []byte(with), 1)
	}
}

func TestThresholdCountsDistinctKeys(t *testing.T) {
	rootKey, a, b := newKey(t), newKey(t), p256(t)
	s := spec(1, rootKey, a)
	s.TargetsKeys, s.TargetsThreshold = publics(a, b), 2
	root := mustRoot(t, s, rootKey)
	sign := func(signers ...crypto.Signer) error {
		doc, err := SignTargets(1, now.AddDate(0, 1, 0), []Target{lamp()}, signers...)
		if err != nil {
			t.Fatal(err)
		}
		_, err = root.Verify(doc, now)
		return err
	}
	wantRule(t, sign(a, b), "")
	wantRule(t, sign(a), RuleSignature)
	wantRule(t, sign(a, a), RuleSignature)
	wantRule(t, sign(newKey(t), a, b, newKey(t)), "") // strangers beside them do no harm
	s.TargetsKeys, s.TargetsThreshold = publics(a, a), 2
	if _, err := NewRoot(s, rootKey); err == nil {
		t.Error("one key listed twice met a threshold of two")
	}
}

// TestOneKeyUnderTwoIDs signs a root by hand that lists the same key under two ids.
func TestOneKeyUnderTwoIDs(t *testing.T) {
	key := newKey(t)
	k, err := NewKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	role := map[string]any{"keyids": []any{"one", "two"}, "threshold": int64(2)}
	b, err := signTree(map[string]any{"_type": "root", "spec_version": specVersion, "version": int64(1), "expires": "2027-01-01T00:00:00Z",
		"keys": map[string]any{"one": k.tree(), "two": k.tree()}, "roles": map[string]any{"root": role, "targets": role, "snapshot": role, "timestamp": role}},
		[]crypto.Signer{key})
	if err != nil {
		t.Fatal(err)
	}
	_, err = ParseRoot(b)
	wantRule(t, err, RuleFormat)
}

func TestRotate(t *testing.T) {
	one, two, targets := newKey(t), p256(t), newKey(t)
	first := mustRoot(t, spec(1, one, targets), one)
	sign := func(version int64, signers ...crypto.Signer) []byte {
		b, err := NewRoot(spec(version, two, targets), signers...)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	next, err := first.Rotate(sign(2, one, two))
	if err != nil || next.Version != 2 {
		t.Fatalf("a lawful rotation gave %+v, %v", next, err)
	}
	_, err = first.Rotate(sign(2, two))
	wantRule(t, err, RuleSignature) // the old keys did not agree
	_, err = first.Rotate(sign(3, one, two))
	wantRule(t, err, RuleRollback) // a step is missing
	_, err = next.Rotate(sign(2, one, two))
	wantRule(t, err, RuleRollback)
	if _, err := NewRoot(spec(2, two, targets), one); err == nil {
		t.Error("a root that its own keys did not sign was handed out")
	}
	// What the first targets key signed stays valid under the second root, which lists the same key.
	doc, err := SignTargets(1, now.AddDate(0, 1, 0), []Target{lamp()}, targets)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Decide(next, doc, lamp().Path, device(), now)
	wantRule(t, err, "")
}

func TestParseIsStrict(t *testing.T) {
	for name, doc := range map[string]string{
		"repeated member":         `{"signed":{},"signed":{},"signatures":[]}`,
		"repeated when unescaped": `{"signed":{},"sign\u0065d":{},"signatures":[]}`,
		"fraction":                `{"signed":{"version":1.5},"signatures":[]}`,
		"exponent":                `{"signed":{"version":1e3},"signatures":[]}`,
		"number beyond 64 bits":   `{"signed":{"version":9223372036854775808},"signatures":[]}`,
		"too deep":                strings.Repeat("[", 40) + strings.Repeat("]", 40),
		"not UTF-8":               "{\"signed\":\"\xff\",\"signatures\":[]}",
		"other case":              `{"Signed":{"_type":"targets"},"signatures":[]}`,
		"too large":               `{"signed":"` + strings.Repeat("a", MaxRoot) + `"}`,
		"no object":               `[]`,
		"nothing":                 ``,
	} {
		_, err := ParseRoot([]byte(doc))
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		wantRule(t, err, RuleFormat)
	}
}

func TestCheckReadsTheWholeImage(t *testing.T) {
	target := lamp()
	wantRule(t, target.Check(strings.NewReader("hello")), "")
	wantRule(t, target.Check(strings.NewReader("hellO")), RuleDigest)
	wantRule(t, target.Check(strings.NewReader("hell")), RuleDigest)
	wantRule(t, target.Check(strings.NewReader("hello ")), RuleDigest)
}

func TestSignRefusesWhatNobodyWouldInstall(t *testing.T) {
	for name, edit := range map[string]func(*Target){
		"path":             func(x *Target) { x.Path = "../../etc" },
		"length":           func(x *Target) { x.Length = 0 },
		"digest":           func(x *Target) { x.SHA256 = "sha256:00" },
		"sbom":             func(x *Target) { x.SBOM = "" },
		"product":          func(x *Target) { x.Product = "" },
		"hardware":         func(x *Target) { x.HW = nil },
		"version":          func(x *Target) { x.Version = "<b>" },
		"security version": func(x *Target) { x.SecurityVersion = 0 },
		"class":            func(x *Target) { x.Class = "urgent" },
	} {
		target := lamp()
		edit(&target)
		if _, err := SignTargets(1, now, []Target{target}, newKey(t)); err == nil {
			t.Errorf("%s: signed %+v", name, target)
		}
	}
}

func TestKeyFile(t *testing.T) {
	for _, k := range []crypto.Signer{newKey(t), p256(t)} {
		b, err := MarshalKey(k)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseKey(b)
		if err != nil {
			t.Fatal(err)
		}
		one, _ := NewKey(k.Public())
		two, _ := NewKey(back.Public())
		if one.ID != two.ID {
			t.Error("the key read back is another one")
		}
	}
	for _, bad := range []string{"", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		if _, err := ParseKey([]byte(bad)); err == nil {
			t.Errorf("read a key from %q", bad)
		}
	}
}

// FuzzDocuments: no bytes panic, nothing verifies that was not signed, and what parses has one canonical form.
func FuzzDocuments(f *testing.F) {
	key, stranger := newKey(f), newKey(f)
	rootDoc, err := NewRoot(spec(1, key, key), key)
	if err != nil {
		f.Fatal(err)
	}
	root, err := ParseRoot(rootDoc)
	if err != nil {
		f.Fatal(err)
	}
	foreign, err := SignTargets(1, now.AddDate(0, 1, 0), []Target{lamp()}, stranger)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(rootDoc)
	f.Add(foreign)
	f.Add([]byte(`{"signed":{"_type":"targets","spec_version":"1.0","version":1,"expires":"2030-01-01T00:00:00Z","targets":{}},"signatures":[{"keyid":"","sig":""}]}`))
	f.Add([]byte(`{"a":{"b":[1,-1,true,null,"\"\\\n\u2028"]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = ParseRoot(b)
		_, _ = root.Rotate(b)
		if _, err := Decide(root, b, "lamp/2.0.0", device(), now); err == nil {
			t.Fatal("something verified that nobody signed")
		}
		if v, err := parse(b, MaxTargets); err == nil && !bytes.ContainsFunc(canonical(v), func(r rune) bool { return r < 0x20 }) {
			again, err := parse(canonical(v), 2*MaxTargets)
			if err != nil || !bytes.Equal(canonical(again), canonical(v)) {
				t.Fatalf("canonical form is not stable: %q, %v", canonical(v), err)
			}
		}
	})
}
