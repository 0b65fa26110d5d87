// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/wire"
)

// shell runs Debian's programs in a folder of its own: what a device of another make would do.
type shell struct {
	t    *testing.T
	dir  string
	door string
}

func (s shell) run(name string, args ...string) string {
	s.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = s.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (s shell) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s shell) read(name string) string {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

// request makes a key and a certificate request.
func (s shell) request(name, subject string, more ...string) {
	s.run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", name+".key")
	s.run("openssl", append([]string{"req", "-new", "-key", name + ".key", "-subj", subject, "-out", name + ".csr"}, more...)...)
}

// curl asks the device door with the certificate named, or without one, and leaves the body in out.
func (s shell) curl(as, path string, more ...string) (status string) {
	s.t.Helper()
	args := []string{"-sS", "--cacert", "root.pem", "-o", "out", "-w", "%{http_code}"}
	if as != "" {
		args = append(args, "--cert", as+".pem", "--key", as+".key")
	}
	return s.run("curl", append(append(args, more...), s.door+path)...)
}

// enrol posts the request over EST and unpacks the answer.
func (s shell) enrol(as, path, name string) {
	s.t.Helper()
	s.run("openssl", "req", "-in", name+".csr", "-outform", "DER", "-out", name+".der")
	s.run("openssl", "base64", "-in", name+".der", "-out", name+".b64")
	if code := s.curl(as, "/.well-known/est/"+path, "-H", "Content-Type: application/pkcs10", "--data-binary", "@"+name+".b64"); code != "200" {
		s.t.Fatalf("%s: %s %s", path, code, s.read("out"))
	}
	s.unpack(name + ".pem")
}

func (s shell) unpack(to string) {
	s.t.Helper()
	s.run("openssl", "base64", "-d", "-in", "out", "-out", "out.p7")
	s.run("openssl", "pkcs7", "-inform", "DER", "-in", "out.p7", "-print_certs", "-out", to)
}

// TestCurlAndOpenSSL commissions a device with nothing but curl and openssl: the line, the claim, EST.
func TestCurlAndOpenSSL(t *testing.T) {
	for _, name := range []string{"curl", "openssl"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%s is needed: scripts/deps.sh installs it", name)
		}
	}
	hand := clock.NewHand(time.Now())
	h := newHouse(t, storetest.Open(t, storetest.SQLiteURL(t), schema, func(c *store.Config) { c.Clock = hand }), hand)
	s := shell{t, t.TempDir(), h.door}
	s.write("root.pem", string(h.identity.Roots()))

	// The station.
	s.request("station", "/CN=line 4")
	_, b := h.call("POST", "/v1/batches", map[string]any{"revision": h.revision, "name": "B1", "size": 10})
	code, st := h.call("POST", "/v1/stations", map[string]any{"batch": b["id"], "name": "line 4", "hours": 8, "csr": s.read("station.csr")})
	if code != 201 {
		t.Fatalf("station: %d %v", code, st)
	}
	s.write("station.pem", st["certificate"].(string))

	// The line.
	s.request("idevid", "/CN=unit")
	order, err := json.Marshal(wire.LineRequest{Serial: "LAMP-1", CSR: s.read("idevid.csr"), Firmware: wire.Digest([]byte("image"))})
	h.must(err)
	s.write("order.json", string(order))
	if code := s.curl("station", "/d/1/line/devices", "-H", "Content-Type: application/json", "--data-binary", "@order.json"); code != "200" {
		t.Fatalf("line: %s %s", code, s.read("out"))
	}
	var unit wire.LineResponse
	h.must(json.Unmarshal([]byte(s.read("out")), &unit))
	s.write("idevid.pem", unit.Certificate)
	s.write("factory.pem", unit.Chain)
	s.run("openssl", "verify", "-CAfile", "root.pem", "-untrusted", "factory.pem", "-purpose", "sslclient", "idevid.pem")
	if end := s.run("openssl", "x509", "-in", "idevid.pem", "-noout", "-enddate"); !strings.Contains(end, "Dec 31 23:59:59 9999") {
		t.Errorf("the IDevID ends: %s", end)
	}
	if string(unit.TrustRoot) != `{"root":1}` {
		t.Errorf("trust root %s", unit.TrustRoot)
	}

	// EST, first before the claim.
	if code := s.curl("", "/.well-known/est/cacerts"); code != "200" {
		t.Fatalf("cacerts: %s %s", code, s.read("out"))
	}
	s.unpack("ca.pem")
	if got := strings.Count(s.read("ca.pem"), "BEGIN CERTIFICATE"); got != 2 {
		t.Errorf("%d authorities", got)
	}
	if code := s.curl("idevid", "/.well-known/est/csrattrs"); code != "200" {
		t.Fatalf("csrattrs: %s %s", code, s.read("out"))
	}
	s.run("openssl", "base64", "-d", "-in", "out", "-out", "attrs.der")
	if attrs := s.run("openssl", "asn1parse", "-inform", "DER", "-in", "attrs.der"); !strings.Contains(attrs, "prime256v1") || !strings.Contains(attrs, "ecdsa-with-SHA256") {
		t.Errorf("csrattrs: %s", attrs)
	}
	s.request("ldevid", "/CN=anything")
	s.run("openssl", "req", "-in", "ldevid.csr", "-outform", "DER", "-out", "ldevid.der")
	if code := s.curl("idevid", "/.well-known/est/simpleenroll", "--data-binary", "@ldevid.der"); code != "202" {
		t.Fatalf("an unclaimed unit enrols: %s %s", code, s.read("out"))
	}
	code, d := h.call("POST", "/v1/claims", map[string]any{"code": strings.ToLower(unit.Claim), "solution": h.solution})
	if code != 201 || d["state"] != "pending" || d["solution"] != h.solution {
		t.Fatalf("claim: %d %v", code, d)
	}
	s.enrol("idevid", "simpleenroll", "ldevid")
	s.run("openssl", "verify", "-CAfile", "root.pem", "-untrusted", "ca.pem", "-purpose", "sslclient", "ldevid.pem")
	text := s.run("openssl", "x509", "-in", "ldevid.pem", "-noout", "-text")
	if !strings.Contains(text, "URI:urn:openthings:device:"+ten+":"+unit.Device) || !strings.Contains(text, "CA:FALSE") {
		t.Errorf("the LDevID: %s", text)
	}

	// The renewal, with a new key and the same names.
	subject := strings.TrimPrefix(strings.TrimSpace(s.run("openssl", "x509", "-in", "ldevid.pem", "-noout", "-subject", "-nameopt", "compat")), "subject=")
	san := "subjectAltName=URI:urn:openthings:device:" + ten + ":" + unit.Device
	s.request("next", strings.TrimSpace(subject), "-addext", san)
	s.enrol("ldevid", "simplereenroll", "next")
	s.run("openssl", "verify", "-CAfile", "root.pem", "-untrusted", "ca.pem", "next.pem")

	// Each door refuses the other's certificate.
	for _, c := range []struct{ as, path string }{
		{"", "simpleenroll"}, {"next", "simpleenroll"}, {"station", "simpleenroll"},
		{"", "simplereenroll"}, {"idevid", "simplereenroll"}, {"station", "simplereenroll"},
	} {
		if code := s.curl(c.as, "/.well-known/est/"+c.path, "--data-binary", "@next.der"); code != "403" {
			t.Errorf("%s with %q: %s %s", c.path, c.as, code, s.read("out"))
		}
	}
	for _, as := range []string{"", "idevid", "station"} {
		if code := s.curl(as, "/d/1/messages", "-H", "Content-Type: application/json", "-d", "[]"); code != "403" {
			t.Errorf("messages with %q: %s %s", as, code, s.read("out"))
		}
	}
	if code := s.curl("next", "/d/1/messages", "-H", "Content-Type: application/json", "-d", "[]"); code != "200" {
		t.Errorf("messages with the LDevID: %s %s", code, s.read("out"))
	}
	for _, as := range []string{"", "idevid", "next"} {
		if code := s.curl(as, "/d/1/line/devices", "-H", "Content-Type: application/json", "--data-binary", "@order.json"); code != "403" {
			t.Errorf("the line with %q: %s %s", as, code, s.read("out"))
		}
	}
}
