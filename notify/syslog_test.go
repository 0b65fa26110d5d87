// SPDX-License-Identifier: AGPL-3.0-only

package notify

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/testpeers"
)

// record is a syslog message, taken apart.
type record struct {
	pri                          int
	host, app, process, id, text string
	at                           time.Time
	data                         map[string]map[string]string
}

var (
	header5424 = regexp.MustCompile(`^<(0|[1-9][0-9]{0,2})>1 (-|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) `)
	element    = regexp.MustCompile(`^\[([!#-<>-\\^-~]{1,32})((?: [!#-<>-\\^-~]{1,32}="(?:[^"\\\]]|\\["\\\]])*")*)\]`)
	parameter  = regexp.MustCompile(` ([!#-<>-\\^-~]{1,32})="((?:[^"\\\]]|\\["\\\]])*)"`)
	unescape   = strings.NewReplacer(`\"`, `"`, `\\`, `\`, `\]`, `]`)
)

// parse5424 reads a message by the grammar of RFC 5424, section 6, and refuses everything else.
func parse5424(m string) (r record, err error) {
	h := header5424.FindStringSubmatch(m)
	if h == nil {
		return r, errors.New("the header is none of RFC 5424")
	}
	if r.pri, _ = strconv.Atoi(h[1]); r.pri > 191 {
		return r, errors.New("PRI is above 191")
	}
	if h[2] != "-" {
		if r.at, err = time.Parse(time.RFC3339Nano, h[2]); err != nil {
			return r, err
		}
	}
	r.host, r.app, r.process, r.id = h[3], h[4], h[5], h[6]
	rest := m[len(h[0]):]
	if cut, ok := strings.CutPrefix(rest, "-"); ok {
		rest = cut
	} else {
		r.data = map[string]map[string]string{}
		for strings.HasPrefix(rest, "[") {
			e := element.FindStringSubmatch(rest)
			if e == nil || r.data[e[1]] != nil {
				return r, fmt.Errorf("structured data: %q", rest)
			}
			r.data[e[1]] = map[string]string{}
			for _, p := range parameter.FindAllStringSubmatch(e[2], -1) {
				r.data[e[1]][p[1]] = unescape.Replace(p[2])
			}
			rest = rest[len(e[0]):]
		}
		if len(r.data) == 0 {
			return r, errors.New("no structured data")
		}
	}
	if rest == "" {
		return r, nil
	}
	text, ok := strings.CutPrefix(rest, " ")
	if !ok {
		return r, fmt.Errorf("after the structured data: %q", rest)
	}
	r.text = text
	if !strings.HasPrefix(text, "\ufeff") && strings.ContainsFunc(text, func(c rune) bool { return c > 0x7f }) {
		return r, errors.New("UTF-8 without its mark (section 6.4)")
	}
	return r, nil
}

// TestParser5424: the examples of RFC 5424, section 6.5, are read, and what its grammar forbids is not.
func TestParser5424(t *testing.T) {
	for _, m := range []string{
		"<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \ufeff'su root' failed for lonvick on /dev/pts/8",
		"<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.",
		"<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut=\"3\" eventSource=\"Application\" eventID=\"1011\"] \ufeffAn application event log entry...",
		"<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut=\"3\" eventSource=\"Application\" eventID=\"1011\"][examplePriority@32473 class=\"high\"]",
	} {
		if _, err := parse5424(m); err != nil {
			t.Errorf("%s: %v", m, err)
		}
	}
	for _, m := range []string{
		"<192>1 - - - - - -", "<034>1 - - - - - -", "<34>2 - - - - - -", "<34>1 2003-10-11T22:14:15.0030001Z - - - - -", "<34>1 2003-08-24T05:14:15.000000003-07:00 a b c d -",
		"<34>1 - a b c d", "<34>1 - a b c d [x y=\"]\"]", "<34>1 - a b c d [x y=\"1\"] [", "<34>1 - a b c d [x][x]", "<34>1 - a b c d - ü", "<34>1 - a  c d -", `<34>1 - a b c d [x y="\n"]`,
	} {
		if r, err := parse5424(m); err == nil && r.text != "[" { // a message may begin as structured data does
			t.Errorf("%s was read", m)
		}
	}
}

// siem is an authority and a certificate of it for 127.0.0.1 and localhost.
type siem struct {
	pem  string // of the authority
	cert tls.Certificate
}

func newSIEM(t *testing.T) siem {
	t.Helper()
	sign := func(tmpl, parent *x509.Certificate, key, by *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, by)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	newKey := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	now := time.Now()
	caKey, key := newKey(), newKey()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "SIEM CA"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der := sign(ca, ca, caKey, caKey)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "siem"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	return siem{string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), tls.Certificate{Certificate: [][]byte{sign(leaf, ca, key, caKey)}, PrivateKey: key}}
}

// listen takes connections one after the other and hands each to talk.
func (s siem) listen(t *testing.T, talk func(c net.Conn)) (addr string) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{s.cert}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			talk(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// readFrame reads one message by the framing of RFC 5425, section 4.3.
func readFrame(b *bufio.Reader) (string, error) {
	size, err := b.ReadString(' ')
	if err != nil {
		return "", err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(size, " "))
	if err != nil || n <= 0 || n > maxSyslog || strings.HasPrefix(size, "0") {
		return "", fmt.Errorf("MSG-LEN %q", size)
	}
	m := make([]byte, n)
	_, err = io.ReadFull(b, m)
	return string(m), err
}

func (h *house) siem(addr, authority string) {
	h.t.Helper()
	if _, _, err := h.Add(h.t.Context(), Endpoint{Tenant: ten, Name: "SIEM", Kind: Syslog, Address: addr, Topics: []string{"*"}, Actor: "per_1", Authority: authority}); err != nil {
		h.t.Fatal(err)
	}
}

// awkward is a notice with everything that a grammar could trip over.
func awkward() Notice {
	n := raised(`alm_"]\`)
	n.Title, n.Text, n.Severity, n.Thread = "Zu heiß: 日本 🔥 ] \" \\", "line one\nline two ]", Critical, "alm_1"
	n.Data = map[string]any{"value": "81 °C 🔥", "quote": `"]\`}
	return n
}

func checkAwkward(t *testing.T, text string, params map[string]string) {
	t.Helper()
	var m message
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	n := awkward()
	var facts map[string]any
	if err := json.Unmarshal(m.Data.Facts, &facts); err != nil || !maps.Equal(facts, n.Data.(map[string]any)) {
		t.Errorf("%s: %v", m.Data.Facts, err)
	}
	if m.Type != n.Topic || m.Data.Title != n.Title || m.Data.Text != n.Text || m.Data.Severity != Critical {
		t.Errorf("%+v", m)
	}
	if params["topic"] != n.Topic || params["subject"] != n.Subject || params["thread"] != "alm_1" || !strings.HasPrefix(params["id"], "ndl_") {
		t.Errorf("%v", params)
	}
}

// TestSyslog: a message is framed and formed by the RFCs, and done only when the receiver has read it to its end.
func TestSyslog(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		s := newSIEM(t)
		var got []string
		tears := 1 // connections that are torn down with bytes unread
		addr := s.listen(t, func(c net.Conn) {
			if tears > 0 {
				tears--
				_ = c.(*tls.Conn).Handshake()
				_ = c.(*tls.Conn).NetConn().(*net.TCPConn).SetLinger(0)
				c.(*tls.Conn).NetConn().Close()
				return
			}
			b := bufio.NewReader(c)
			for {
				m, err := readFrame(b)
				if err == io.EOF {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				got = append(got, m)
			}
		})
		h.siem(addr, s.pem)
		h.told(awkward())
		h.pass()
		if ds := h.deliveries(Open); len(ds) != 1 || ds[0].Attempts != 1 {
			t.Fatalf("torn down: %+v", ds)
		}
		h.hand.Advance(waits[0])
		h.pass()
		if len(got) != 1 || len(h.deliveries(Done)) != 1 {
			t.Fatalf("%q, %+v", got, h.deliveries(""))
		}
		r, err := parse5424(got[0])
		if err != nil || r.pri != 14*8+2 || !r.at.Equal(t0) || r.host != "ot.example" || r.app != "openthings" || r.process != "-" || r.id != "alarm.raised" || r.data["origin"]["software"] != "OpenThings" {
			t.Fatalf("%s: %+v %v", got[0], r, err)
		}
		checkAwkward(t, r.text, r.data["openthings@32473"])
	})
}

// TestSyslogCertificate: a receiver that is not the named one, or that nobody vouches for, hears nothing.
func TestSyslogCertificate(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		s, other := newSIEM(t), newSIEM(t)
		addr := s.listen(t, func(c net.Conn) {
			if b, _ := io.ReadAll(c); len(b) > 0 {
				t.Errorf("it heard %q", b)
			}
		})
		_, port, _ := net.SplitHostPort(addr)
		h.siem(addr, other.pem)          // another authority
		h.siem(addr, "")                 // those of the machine
		h.siem("localhost:"+port, s.pem) // another name
		h.told(awkward())
		h.pass()
		ds := h.deliveries(Open)
		if len(ds) != 3 {
			t.Fatalf("%+v", ds)
		}
		for _, d := range ds {
			if !strings.Contains(d.Answer, "certificate") {
				t.Errorf("%s", d.Answer)
			}
		}
	})
}

// TestRsyslogReads: a real receiver, rsyslog with OpenSSL, reads the frame, the header, the structured data and the message.
func TestRsyslogReads(t *testing.T) {
	daemon, err := exec.LookPath("rsyslogd")
	if err != nil {
		daemon = "/usr/sbin/rsyslogd"
	}
	if _, err := os.Stat(daemon); err != nil {
		t.Fatalf("rsyslogd is missing: run scripts/deps.sh test (%v)", err)
	}
	each(t, func(t *testing.T, h *house) {
		s, dir := newSIEM(t), t.TempDir()
		key, err := x509.MarshalPKCS8PrivateKey(s.cert.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		pipe := filepath.Join(dir, "pipe")
		port, err := testpeers.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		for name, text := range map[string][]byte{
			"ca.pem": []byte(s.pem), "cert.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.cert.Certificate[0]}), "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
			"rsyslog.conf": fmt.Appendf(nil, `global(workDirectory="%[1]s" defaultNetstreamDriver="ossl" defaultNetstreamDriverCAFile="%[1]s/ca.pem" defaultNetstreamDriverCertFile="%[1]s/cert.pem" defaultNetstreamDriverKeyFile="%[1]s/key.pem")
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="anon")
input(type="imtcp" address="127.0.0.1" port="%[2]d")
template(name="all" type="list" option.jsonf="on") {
	property(outname="pri" name="pri" format="jsonf") property(outname="host" name="hostname" format="jsonf") property(outname="app" name="app-name" format="jsonf") property(outname="msgid" name="msgid" format="jsonf")
	property(outname="at" name="timereported" dateFormat="rfc3339" format="jsonf") property(outname="data" name="structured-data" format="jsonf") property(outname="msg" name="msg" format="jsonf")
}
action(type="ompipe" pipe="%[3]s" template="all")
`, dir, port, pipe)} {
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := syscall.Mkfifo(pipe, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := os.OpenFile(pipe, os.O_RDWR, 0) // so that opening it waits for nobody
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		var said strings.Builder
		cmd := exec.CommandContext(t.Context(), daemon, "-n", "-f", filepath.Join(dir, "rsyslog.conf"), "-i", filepath.Join(dir, "pid"))
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait()
			if t.Failed() {
				t.Log(said.String())
			}
		})
		h.siem(addr, s.pem)
		h.told(awkward())
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(time.Minute); ; <-tick.C { // until it listens
			c, err := net.Dial("tcp", addr)
			if err == nil {
				c.Close()
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("rsyslogd does not listen: %v", err)
			}
		}
		if h.pass(); len(h.deliveries(Done)) != 1 {
			t.Fatalf("%+v", h.deliveries(""))
		}
		line, err := bufio.NewReader(out).ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		var r struct{ Pri, Host, App, Msgid, At, Data, Msg string }
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if r.Pri != "114" || r.Host != "ot.example" || r.App != "openthings" || r.Msgid != "alarm.raised" || !strings.HasPrefix(r.At, "2026-11-22T09:00:00") {
			t.Errorf("%s", line)
		}
		back, err := parse5424("<114>1 - - - - - " + r.Data)
		if err != nil {
			t.Fatal(err)
		}
		checkAwkward(t, r.Msg, back.data["openthings@32473"])
	})
}

// FuzzSyslog: whatever is told, what is sent is one message of RFC 5424, no longer than receivers take, and its text is JSON.
func FuzzSyslog(f *testing.F) {
	f.Add("alarm.raised", "alm_1", "Too hot", "81 °C", `{"value":81}`, "critical")
	f.Add("", "\x00]", strings.Repeat("🔥", 50), strings.Repeat("\x01", 2000), `"`+strings.Repeat("x", maxData-2)+`"`, "")
	f.Fuzz(func(t *testing.T, topic, subject, title, text, data, severity string) {
		if !json.Valid([]byte(data)) {
			data = "null"
		}
		d := Delivery{ID: "ndl_1", Topic: topic, Subject: subject, Title: plain(title, maxText/10), At: t0, data: data,
			notice: Notice{Text: shorten(strings.ToValidUTF8(text, "�"), maxText), Severity: Severity(severity)}}
		m := d.syslog("ot.example")
		r, err := parse5424(string(m))
		if err != nil || len(m) > maxSyslog || !json.Valid([]byte(r.text)) {
			t.Fatalf("%d bytes, %v: %s", len(m), err, m)
		}
	})
}
