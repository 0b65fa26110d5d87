// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/openthings-platform/openthings/wire"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// maker makes bundles the way the platform does, from a log of its own. Each step can be bent.
type maker struct {
	t      *testing.T
	skey   string
	vkey   string
	device *ecdsa.PrivateKey
	cert   []byte // DER
	leaves []Entry
}

func newMaker(t *testing.T) *maker {
	t.Helper()
	m := &maker{t: t}
	var err error
	if m.skey, m.vkey, err = note.GenerateKey(rand.Reader, "log.test/openthings"); err != nil {
		t.Fatal(err)
	}
	if m.device, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(77), Subject: pkix.Name{SerialNumber: "L-1"}, NotBefore: now, NotAfter: now.AddDate(10, 0, 0)}
	if m.cert, err = x509.CreateCertificate(rand.Reader, tmpl, tmpl, m.device.Public(), m.device); err != nil {
		t.Fatal(err)
	}
	fp := sha256.Sum256(m.cert)
	m.add("dev_1", "device.manufactured", map[string]string{"serial": "L-1", "note": "<&> \u2028"})
	m.add("dev_2", "device.manufactured", nil)
	m.add("dev_1", "certificate.issued", map[string]string{"kind": "idevid", "fingerprint": hex.EncodeToString(fp[:])})
	m.add("dev_2", "device.claimed", nil)
	m.add("dev_1", "device.claimed", map[string]string{"solution": "sol_1"})
	return m
}

func (m *maker) add(subject, kind string, data any) {
	b, err := json.Marshal(data)
	if err != nil {
		m.t.Fatal(err)
	}
	d := wire.LeafData{Salt: "00112233445566778899aabbccddeeff", Data: b}
	at := now.Add(time.Duration(len(m.leaves)-100) * time.Minute).UnixMilli()
	m.leaves = append(m.leaves, Entry{Index: int64(len(m.leaves)), Data: &d,
		Leaf: wire.Leaf{ID: fmt.Sprintf("aud_%d", len(m.leaves)), At: at, Tenant: "ten_a", Actor: "per_1", Kind: kind, Subject: subject, Data: d.Digest()}})
}

func (m *maker) sections() []Section {
	receipt, err := wire.Sign(rand.Reader, m.device, wire.WipeReceipt{Device: "dev_1", Serial: "L-1", Areas: []string{"ldevid-key", "config"}, At: now.UnixMilli()})
	if err != nil {
		m.t.Fatal(err)
	}
	return []Section{
		{Name: SectionCertificates, Data: m.json([]map[string]any{{"kind": "idevid", "der": m.cert, "phase": "revoked"}})},
		{Name: SectionWipe, Data: m.json(map[string]any{"receipt": receipt, "command": "cmd_1"})},
		{Name: "installations", Data: m.json([]string{"1.0", "1.1 <beta> & \u2028"})},
		{Name: "tombstone", Data: json.RawMessage("null")},
	}
}

func (m *maker) json(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		m.t.Fatal(err)
	}
	return b
}

// document records the export in the log and collects what is about dev_1.
func (m *maker) document() Document {
	d := Document{Device: "dev_1", Tenant: "ten_a", LogKey: m.vkey, Sections: m.sections()}
	x := Exported{Size: int64(len(m.leaves))}
	for _, e := range m.leaves {
		if e.Leaf.Subject == d.Device {
			x.Entries++
		}
	}
	for _, s := range d.Sections {
		digest, err := s.Digest()
		if err != nil {
			m.t.Fatal(err)
		}
		x.Sections = append(x.Sections, SectionDigest{s.Name, digest})
	}
	m.add(d.Device, KindExported, x)
	m.prove(&d)
	return d
}

// prove fills in the entries with their proofs and the checkpoint.
func (m *maker) prove(d *Document) {
	var all []tlog.Hash
	reader := tlog.HashReaderFunc(func(want []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(want))
		for i, x := range want {
			out[i] = all[x]
		}
		return out, nil
	})
	for i, e := range m.leaves {
		hs, err := tlog.StoredHashes(int64(i), e.Leaf.Bytes(), reader)
		if err != nil {
			m.t.Fatal(err)
		}
		all = append(all, hs...)
	}
	n := int64(len(m.leaves))
	root, err := tlog.TreeHash(n, reader)
	if err != nil {
		m.t.Fatal(err)
	}
	d.Checkpoint = m.sign(fmt.Sprintf("log.test/openthings\n%d\n%s\n", n, root))
	d.Entries = nil
	for _, e := range m.leaves {
		if e.Leaf.Subject != d.about() {
			continue
		}
		if e.Proof, err = tlog.ProveRecord(n, e.Index, reader); err != nil {
			m.t.Fatal(err)
		}
		d.Entries = append(d.Entries, e)
	}
}

func (m *maker) sign(text string) string {
	s, err := note.NewSigner(m.skey)
	if err != nil {
		m.t.Fatal(err)
	}
	b, err := note.Sign(&note.Note{Text: text}, s)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(b)
}

func (m *maker) seal(d Document) []byte {
	text, err := d.Text()
	if err != nil {
		m.t.Fatal(err)
	}
	return []byte(m.sign(text))
}

func check(b []byte, key string) (Report, error) { return Bundle(bytes.NewReader(b), key, now) }

func TestBundle(t *testing.T) {
	m := newMaker(t)
	b := m.seal(m.document())
	r, err := check(b, m.vkey)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Proven || r.Device != "dev_1" || r.Entries != 4 || r.Size != 6 || len(r.Facts) != 7 {
		t.Errorf("%+v", r)
	}
	for _, f := range r.Facts {
		t.Log(f)
	}
	if again := m.seal(func() Document { d, _, err := open(b); _ = err; return d }()); !bytes.Equal(again, b) {
		t.Error("the same document makes another bundle")
	}
}

func TestWithoutAKeyTheOriginIsUnproven(t *testing.T) {
	m := newMaker(t)
	b := m.seal(m.document())
	r, err := check(b, "")
	if !errors.Is(err, ErrUnproven) || r.Proven || len(r.Facts) != 7 {
		t.Errorf("%+v, %v", r, err)
	}
	b[len(b)/2] ^= 1
	if _, err := check(b, ""); err == nil || errors.Is(err, ErrUnproven) {
		t.Errorf("a changed bundle is called consistent: %v", err)
	}
}

// TestEveryByteCounts flips each byte of a real bundle in turn, several ways, cuts it everywhere, and adds to it.
func TestEveryByteCounts(t *testing.T) {
	m := newMaker(t)
	b := m.seal(m.document())
	t.Logf("%d bytes", len(b))
	refuse := func(what string, i int, bad []byte) {
		if _, err := check(bad, m.vkey); err == nil {
			t.Fatalf("%s at byte %d of %d went unnoticed", what, i, len(b))
		}
		if i%8 > 0 {
			return // the key makes no difference to what is checked, only to what it proves
		}
		if _, err := check(bad, ""); err == nil || errors.Is(err, ErrUnproven) {
			t.Fatalf("without a key, %s at byte %d of %d went unnoticed", what, i, len(b))
		}
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1 << (i % 8)
		refuse("a flipped bit", i, bad)
		bad[i] = b[i] ^ 0x20 // another letter case, a space for nothing
		refuse("a flipped bit", i, bad)
		if i%4 == 0 {
			refuse("a cut", i, b[:i])
			refuse("a missing byte", i, slices.Delete(bytes.Clone(b), i, i+1))
		}
		if i%16 == 0 {
			refuse("an added space", i, slices.Insert(bytes.Clone(b), i, ' '))
			refuse("an added line", i, slices.Insert(bytes.Clone(b), i, '\n'))
		}
	}
	refuse("an added line", len(b), append(bytes.Clone(b), '\n'))
	other := newMaker(t)
	second, _, _ := strings.Cut(strings.TrimPrefix(other.sign("x\n"), "x\n\n"), "\n")
	refuse("a second signature", len(b), append(bytes.Clone(b), second+"\n"...))
	refuse("the same signature twice", len(b), append(bytes.Clone(b), b[bytes.LastIndex(b, []byte("\n\n"))+2:]...))
}

// TestReSigned: everything in the bundle is made anew, with another key under the same name.
func TestReSigned(t *testing.T) {
	m, forger := newMaker(t), newMaker(t)
	b := forger.seal(forger.document())
	if _, err := check(b, forger.vkey); err != nil {
		t.Fatalf("the forger's bundle is not even consistent: %v", err)
	}
	if _, err := check(b, m.vkey); err == nil || errors.Is(err, ErrUnproven) {
		t.Errorf("a bundle wholly re-signed with another key: %v", err)
	}
	// The forger claims the pinned key and signs with the own one.
	d := forger.document()
	d.LogKey = m.vkey
	if _, err := check(forger.seal(d), m.vkey); err == nil {
		t.Error("a bundle that names the pinned key and is signed by another passes")
	}
	// Only the envelope is the forger's, everything inside is real.
	d = m.document()
	d.LogKey = forger.vkey
	if _, err := check(forger.seal(d), forger.vkey); err == nil {
		t.Error("a checkpoint of another log passes")
	}
}

// TestLyingKeyHolder: even who holds the log key cannot say what the log does not hold.
func TestLyingKeyHolder(t *testing.T) {
	for name, bend := range map[string]func(m *maker, d *Document){
		"the claim left out":  func(m *maker, d *Document) { d.Entries = slices.Delete(d.Entries, 2, 3) },
		"the export left out": func(m *maker, d *Document) { d.Entries = d.Entries[:len(d.Entries)-1] },
		"no entries":          func(m *maker, d *Document) { d.Entries = nil },
		"reordered":           func(m *maker, d *Document) { d.Entries[0], d.Entries[1] = d.Entries[1], d.Entries[0] },
		"an entry twice":      func(m *maker, d *Document) { d.Entries = slices.Insert(d.Entries, 1, d.Entries[0]) },
		"another actor":       func(m *maker, d *Document) { d.Entries[0].Leaf.Actor = "per_2" },
		"another index":       func(m *maker, d *Document) { d.Entries[0].Index = 1 },
		"another tenant":      func(m *maker, d *Document) { d.Tenant = "ten_b" },
		"another device":      func(m *maker, d *Document) { d.Device = "dev_2" },
		"a shorter proof":     func(m *maker, d *Document) { d.Entries[0].Proof = d.Entries[0].Proof[1:] },
		"another payload":     func(m *maker, d *Document) { d.Entries[0].Data.Data = json.RawMessage(`{"serial":"L-2"}`) },
		"another salt":        func(m *maker, d *Document) { d.Entries[0].Data.Salt = strings.Repeat("0", 32) },
		"a section changed":   func(m *maker, d *Document) { d.Sections[2].Data = json.RawMessage(`["1.0"]`) },
		"a section removed":   func(m *maker, d *Document) { d.Sections = d.Sections[:3] },
		"a section added":     func(m *maker, d *Document) { d.Sections = append(d.Sections, Section{"more", json.RawMessage(`1`)}) },
		"sections reordered":  func(m *maker, d *Document) { d.Sections[0], d.Sections[1] = d.Sections[1], d.Sections[0] },
		"a fork": func(m *maker, d *Document) {
			m.leaves[1].Leaf.Actor = "per_2" // of another device
			fork := *d
			m.prove(&fork)
			d.Checkpoint = fork.Checkpoint
		},
		"no checkpoint": func(m *maker, d *Document) {
			d.Checkpoint = m.sign("log.test/openthings\n0\n" + tlog.Hash{}.String() + "\n")
		},
		"another origin": func(m *maker, d *Document) {
			d.Checkpoint = m.sign(strings.Replace(strings.Split(d.Checkpoint, "\n\n")[0], "log.test", "log.best", 1) + "\n")
		},
	} {
		m := newMaker(t)
		d := m.document()
		bend(m, &d)
		b := m.seal(d)
		if _, err := check(b, m.vkey); err == nil {
			t.Errorf("%s: went unnoticed", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

// TestCertificatesAndReceipt bends the sections before the log records them, so that only their content is wrong.
func TestCertificatesAndReceipt(t *testing.T) {
	for name, bend := range map[string]func(m *maker){
		"a certificate that was never issued": func(m *maker) { m.cert = newMaker(t).cert },
		"a receipt under another key":         func(m *maker) { m.device = newMaker(t).device },
		"no certificate":                      func(m *maker) { m.cert = nil },
	} {
		m := newMaker(t)
		bend(m)
		if _, err := check(m.seal(m.document()), m.vkey); err == nil {
			t.Errorf("%s: went unnoticed", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

func TestErasedPayloads(t *testing.T) {
	m := newMaker(t)
	d := m.document()
	d.Entries[2].Data = nil
	r, err := check(m.seal(d), m.vkey)
	if err != nil || !strings.Contains(strings.Join(r.Facts, " "), "1 were erased") {
		t.Errorf("%+v, %v", r, err)
	}
	d.Entries[1].Data = nil // the record of the certificate: it can no longer be told
	if _, err := check(m.seal(d), m.vkey); err == nil {
		t.Error("a certificate without a record passes")
	}
}

func TestMadeInTheFuture(t *testing.T) {
	m := newMaker(t)
	b := m.seal(m.document())
	if _, err := Bundle(bytes.NewReader(b), m.vkey, now.AddDate(0, 0, -3)); err == nil {
		t.Error("a bundle of the future passes")
	}
}

func TestRun(t *testing.T) {
	m := newMaker(t)
	b := m.seal(m.document())
	dir := t.TempDir()
	file, bad, key := filepath.Join(dir, "b"), filepath.Join(dir, "bad"), filepath.Join(dir, "key")
	for name, content := range map[string][]byte{file: b, bad: append(bytes.Clone(b), ' '), key: []byte(m.vkey + "\n")} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args string
		want int
		says string
	}{
		{file + " --log-key " + m.vkey, ExitProven, "PROVEN"},
		{"--log-key " + key + " " + file, ExitProven, "PROVEN"},
		{"--json --log-key " + m.vkey + " " + file, ExitProven, `"proven": true`},
		{"- --log-key " + m.vkey, ExitProven, "PROVEN"},
		{file, ExitFailed, "origin unproven"},
		{bad + " --log-key " + m.vkey, ExitFailed, "NOT PROVEN"},
		{file + " --log-key " + newMaker(t).vkey, ExitFailed, "another log key"},
		{file + " --log-key " + dir + "/absent", ExitUsage, ""},
		{dir + "/absent", ExitUsage, ""},
		{file + " " + bad, ExitUsage, ""},
		{"--what", ExitUsage, ""},
		{"", ExitUsage, ""},
	} {
		var out, errs bytes.Buffer
		if got := Run("openthings-verify", strings.Fields(c.args), bytes.NewReader(b), &out, &errs); got != c.want || !strings.Contains(out.String(), c.says) {
			t.Errorf("%q: exit %d, %s%s", c.args, got, out.String(), errs.String())
		}
	}
}

// FuzzBundle: no bytes but those that the log key signed are ever proven, and none make the verifier fail otherwise.
func FuzzBundle(f *testing.F) {
	golden, err := os.ReadFile("testdata/bundle.txt")
	if err != nil {
		f.Fatal(err)
	}
	key, err := os.ReadFile("testdata/log-key.txt")
	if err != nil {
		f.Fatal(err)
	}
	pinned := strings.TrimSpace(string(key))
	f.Add(golden)
	f.Add(golden[:len(golden)/2])
	f.Add([]byte(header + "{}\n\n— a b\n"))
	f.Add([]byte(header + `{"device":"","entries":[{"index":9223372036854775807,"proof":[]}]}` + "\n\n— log.test/openthings AAAAAA==\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := check(b, pinned); err == nil && !bytes.Equal(b, golden) {
			t.Fatal("bytes that nobody signed were proven")
		}
		check(b, "") //nolint:errcheck // it only must not fail otherwise
	})
}

// TestGolden: a bundle of the first release verifies for ever.
func TestGolden(t *testing.T) {
	const bundle, key = "testdata/bundle.txt", "testdata/log-key.txt"
	if os.Getenv("UPDATE") != "" {
		m := newMaker(t)
		for name, content := range map[string][]byte{bundle: m.seal(m.document()), key: []byte(m.vkey + "\n")} {
			if err := os.WriteFile(name, content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	b, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	k, err := readKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := check(b, k); err != nil || !r.Proven {
		t.Errorf("%+v, %v", r, err)
	}
}
