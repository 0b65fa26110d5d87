// SPDX-License-Identifier: AGPL-3.0-only

package station_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/enroll/station"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire"
)

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func csr(t testing.TB, key *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "unit"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// offline makes the folder of a station that may make quota units from LMP-01 on.
func offline(t testing.TB, clk clock.Clock, quota int64) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "station")
	ask, err := station.Prepare(dir, "hall 9", true, clk.Now())
	if err != nil {
		t.Fatal(err)
	}
	again, err := station.Prepare(dir, "hall 9", true, clk.Now())
	if err != nil || again.Authority != ask.Authority {
		t.Fatalf("asked again with another authority: %v", err)
	}
	ca, _ := pem.Decode([]byte(ask.Authority))
	p := wire.Permit{Station: "sta_1", Tenant: "ten_a", Batch: "bat_1", Product: "prd_1", Revision: "rev_1", Quota: quota,
		Serials: wire.Serials{Prefix: "LMP-", Digits: 2, From: 1, To: 50}, NotBefore: clk.Now().UnixMilli(), NotAfter: clk.Now().Add(48 * time.Hour).UnixMilli(),
		SyncBy: clk.Now().Add(100 * time.Hour).UnixMilli(), CA: ca.Bytes}
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	req, _ := pem.Decode([]byte(ask.CSR))
	r, err := x509.ParseCertificateRequest(req.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	signer := newKey(t) // whoever signs a station's certificate; nobody here looks at it
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: clk.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, r.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	err = station.Install(dir, station.Config{ID: "sta_1", Name: "hall 9", Quota: quota}, cert, cert, wire.PermitHeader+string(b)+"\n\n— test signature\n")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t testing.TB, dir string, clk clock.Clock) *station.Station {
	t.Helper()
	s, err := station.Open(dir, clk)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ruleOf(err error) string {
	if err == nil {
		return ""
	}
	return problem.Of(err).Rule
}

func TestPermit(t *testing.T) {
	clk := clock.NewHand(time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC))
	dir := offline(t, clk, 2)
	s := open(t, dir, clk)
	defer func() { s.Close() }()
	key := newKey(t)
	first, err := s.Make(wire.LineRequest{Serial: "LMP-01", CSR: csr(t, key)})
	if err != nil {
		t.Fatal(err)
	}
	// The answer was lost: the same identity, another claim code.
	again, err := s.Make(wire.LineRequest{Serial: "LMP-01", CSR: csr(t, key)})
	if err != nil || again.Device != first.Device || again.Certificate != first.Certificate || again.Claim == first.Claim {
		t.Errorf("again: %+v %v", again, err)
	}
	if _, err := s.Make(wire.LineRequest{Serial: "LMP-01", CSR: csr(t, newKey(t))}); !problem.Is(err, problem.KindConflict) {
		t.Errorf("the serial number with another key: %v", err)
	}
	if _, err := s.Make(wire.LineRequest{Serial: "LMP-02", CSR: csr(t, key)}); !problem.Is(err, problem.KindConflict) {
		t.Errorf("the key of another unit: %v", err)
	}
	for _, serial := range []string{"LMP-51", "LMP-00", "LMP-1", "XMP-01", "LMP-001", "LMP-+1"} {
		if _, err := s.Make(wire.LineRequest{Serial: serial, CSR: csr(t, newKey(t))}); err == nil {
			t.Errorf("%s: made", serial)
		}
	}
	if _, err := s.Make(wire.LineRequest{Serial: "LMP-02", CSR: csr(t, newKey(t))}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Make(wire.LineRequest{Serial: "LMP-03", CSR: csr(t, newKey(t))}); ruleOf(err) != station.RuleQuota {
		t.Errorf("beyond the quota: %v", err)
	}
	s.Close()
	s = open(t, dir, clk) // all of it is known again
	if _, err := s.Make(wire.LineRequest{Serial: "LMP-03", CSR: csr(t, newKey(t))}); ruleOf(err) != station.RuleQuota {
		t.Errorf("beyond the quota after a restart: %v", err)
	}
	if st := s.Status(); st.Made != 2 || st.Entries != 3 {
		t.Errorf("status: %+v", st)
	}
	clk.Set(clk.Now().Add(-time.Hour))
	if _, err := s.Make(wire.LineRequest{Serial: "LMP-01", CSR: csr(t, key)}); ruleOf(err) != station.RuleTime {
		t.Errorf("the clock was set back: %v", err)
	}
	clk.Set(clk.Now().Add(49 * time.Hour))
	if _, err := s.Make(wire.LineRequest{Serial: "LMP-01", CSR: csr(t, key)}); ruleOf(err) != station.RuleTime {
		t.Errorf("after the permit: %v", err)
	}
}

// What is on the station's disk: its own two keys and no other, and no claim code.
func TestNothingSecretOfUnits(t *testing.T) {
	clk := clock.NewHand(time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC))
	dir := offline(t, clk, 5)
	s := open(t, dir, clk)
	defer s.Close()
	out, err := s.Make(wire.LineRequest{Serial: "LMP-01", CSR: csr(t, newKey(t))})
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if own := f.Name() == "station.key" || f.Name() == "authority.key"; own != bytes.Contains(b, []byte("PRIVATE KEY")) {
			t.Errorf("%s: a private key: %v", f.Name(), !own)
		}
		if bytes.Contains(b, []byte(out.Claim)) || bytes.Contains(b, []byte(strings.ReplaceAll(out.Claim, "-", ""))) {
			t.Errorf("%s holds a claim code", f.Name())
		}
		if info, _ := f.Info(); info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be read by others: %v", f.Name(), info.Mode())
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := station.Open(dir, clk); err == nil {
		t.Error("a folder that others can read was opened")
	}
}

func TestChangedJournal(t *testing.T) {
	clk := clock.NewHand(time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC))
	dir := offline(t, clk, 5)
	s := open(t, dir, clk)
	for i := range 3 {
		if _, err := s.Make(wire.LineRequest{Serial: fmt.Sprintf("LMP-%02d", i+1), CSR: csr(t, newKey(t))}); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	path := filepath.Join(dir, "journal.log")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	for name, b := range map[string][]byte{
		"the first is gone":   bytes.Join(lines[1:], nil),
		"one is gone":         bytes.Join([][]byte{lines[0], lines[2]}, nil),
		"two are swapped":     bytes.Join([][]byte{lines[1], lines[0], lines[2]}, nil),
		"a letter is another": bytes.Replace(whole, []byte("payload\":\"ey"), []byte("payload\":\"eY"), 1),
	} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := station.Open(dir, clk); err == nil {
			s.Close()
			t.Errorf("%s: opened", name)
		}
	}
}

var errPower = errors.New("power cut")

// TestPowerCutAtEveryEffect cuts the power before every effect on disk of three units, with what was not flushed kept or
// lost. Whatever the moment: the station opens again, no unit that was answered is missing, each serial number has one
// identity, and the entries are counted without gaps.
func TestPowerCutAtEveryEffect(t *testing.T) {
	clk := clock.NewHand(time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC))
	keys := []*ecdsa.PrivateKey{newKey(t), newKey(t), newKey(t)}
	serials := []string{"LMP-01", "LMP-02", "LMP-03"}
	for _, lost := range []bool{false, true} {
		for at, whole := 0, 1; at <= whole; at++ {
			dir := offline(t, clk, 3)
			path := filepath.Join(dir, "journal.log")
			n, flushed := 0, int64(0)
			cut := func(effect string) error {
				if effect == "answer" { // what was flushed before stays
					info, err := os.Stat(path)
					if err != nil {
						return err
					}
					flushed = info.Size()
				}
				if n++; at > 0 && n >= at {
					return errPower
				}
				return nil
			}
			answered := map[string]wire.LineResponse{}
			s, err := station.OpenUntilCut(dir, clk, cut)
			for i := 0; err == nil && i < len(keys); i++ {
				var out wire.LineResponse
				if out, err = s.Make(wire.LineRequest{Serial: serials[i], CSR: csr(t, keys[i])}); err == nil {
					answered[serials[i]] = out
				}
			}
			if s != nil {
				s.Close()
			}
			if at == 0 {
				if whole = n; err != nil || whole < 12 {
					t.Fatalf("%d effects, %v", whole, err)
				}
			} else if !errors.Is(err, errPower) {
				t.Fatalf("cut before effect %d: %v", at, err)
			}
			if lost {
				if info, err := os.Stat(path); err == nil && info.Size() > flushed {
					if err := os.Truncate(path, flushed); err != nil {
						t.Fatal(err)
					}
				}
			}
			back := open(t, dir, clk)
			for i, serial := range serials {
				out, err := back.Make(wire.LineRequest{Serial: serial, CSR: csr(t, keys[i])})
				if err != nil {
					t.Fatalf("cut before effect %d: %s: %v", at, serial, err)
				}
				if before, ok := answered[serial]; ok && (out.Device != before.Device || out.Certificate != before.Certificate) {
					t.Errorf("cut before effect %d: %s has two identities", at, serial)
				}
			}
			if st := back.Status(); st.Made != 3 {
				t.Errorf("cut before effect %d: %+v", at, st)
			}
			back.Close()
			open(t, dir, clk).Close() // the chain is whole
		}
	}
}

// The power may go again while the torn entry is cut off.
func TestPowerCutInTheRepair(t *testing.T) {
	clk := clock.NewHand(time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC))
	dir := offline(t, clk, 3)
	path := filepath.Join(dir, "journal.log")
	s := open(t, dir, clk)
	if _, err := s.Make(wire.LineRequest{Serial: "LMP-01", CSR: csr(t, newKey(t))}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"payload":"eyJ`); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := station.OpenUntilCut(dir, clk, func(string) error { return errPower }); !errors.Is(err, errPower) {
		t.Fatalf("the repair needs no power: %v", err)
	}
	s = open(t, dir, clk)
	defer s.Close()
	if st := s.Status(); st.Made != 1 || st.Entries != 1 {
		t.Errorf("%+v", st)
	}
	if _, err := s.Make(wire.LineRequest{Serial: "LMP-02", CSR: csr(t, newKey(t))}); err != nil {
		t.Error(err)
	}
}
