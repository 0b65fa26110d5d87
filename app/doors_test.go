// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
)

// TestEachRouteOfTheDeviceDoorHasItsCertificate shows every kind of certificate, and none, to every route.
func TestEachRouteOfTheDeviceDoorHasItsCertificate(t *testing.T) {
	w := newWorld(t, "")
	m := w.newMaker("Acme")
	u := m.make()
	clients := map[gateway.Kind]*http.Client{
		gateway.None: w.client(nil), gateway.Station: w.client(&m.station), gateway.IDevID: w.client(&u.idevid), gateway.LDevID: w.client(&u.ldevid),
	}
	routes := w.h.gateway.Routes()
	if len(routes) < 8 {
		t.Fatalf("only %d routes", len(routes))
	}
	for _, r := range routes {
		method, path, _ := strings.Cut(r.Pattern, " ")
		for kind, c := range clients {
			a, err := w.do(c, method, w.info.Devices+pathName.ReplaceAllString(path, "x"), "", "application/json", []byte("{}"))
			if err != nil {
				t.Fatalf("%s as %s: %v", r.Pattern, kind, err)
			}
			refused := a.status == 403 && a.rule() == "door.kind"
			if want := r.Need != gateway.None && r.Need != kind && !slices.Contains(r.Also, kind); refused != want || a.status >= 500 {
				t.Errorf("%s as %s: %d %s", r.Pattern, kind, a.status, a.body)
			}
		}
	}
	for name, cert := range map[string]tls.Certificate{"station": m.station, "IDevID": u.idevid, "self-signed": selfSigned(t, newKey(t))} {
		if c, err := w.mqtt(cert); err == nil {
			c.Close()
			t.Errorf("MQTT admitted a %s", name)
		}
	}
	if a, err := w.do(w.client(new(selfSigned(t, newKey(t)))), "GET", w.info.Devices+"/.well-known/est/cacerts", "", "", nil); err == nil {
		t.Errorf("a self-signed certificate was answered %d", a.status)
	}

	// What was refused to somebody known is in the log, once; what was refused to a stranger is not.
	w.stop()
	w.start()
	var leaves int
	rows, err := w.h.audit.List(t.Context(), m.tenant, audit.Filter{Kind: "access.refused"}, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if leaves++; r.Subject != m.stationID && r.Subject != u.id {
			t.Errorf("a refusal about %q", r.Subject)
		}
	}
	if leaves != 4 { // a station and a device: the first refusal and the total of the rest
		t.Errorf("%d leaves about refusals, want 4", leaves)
	}
}

func selfSigned(t *testing.T, key *ecdsa.PrivateKey) tls.Certificate {
	x := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stranger"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, x, x, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestOnlyTLS13 finds every port by asking the kernel: all but health on loopback speak TLS 1.3 and nothing older.
func TestOnlyTLS13(t *testing.T) {
	before := listening(t)
	w := newWorld(t, "")
	health := strings.TrimPrefix(w.info.Health, "http://127.0.0.1:")
	doors := 0
	for addr := range listening(t) {
		if before[addr] {
			continue
		}
		if strings.HasSuffix(addr, ":"+health) {
			if !strings.HasPrefix(addr, "127.0.0.1:") {
				t.Errorf("health listens on %s", addr)
			}
			continue
		}
		doors++
		for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: w.roots, MinVersion: tls.VersionTLS12, MaxVersion: v})
			if err == nil {
				c.Close()
			}
			if (err == nil) != (v == tls.VersionTLS13) {
				t.Errorf("%s, TLS %x: %v", addr, v, err)
			}
		}
		plain, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(plain, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
		plain.SetReadDeadline(time.Now().Add(10 * time.Second)) //nolint:errcheck // the read says so
		b, _ := io.ReadAll(plain)
		plain.Close()
		if strings.HasPrefix(string(b), "HTTP/1.1 2") {
			t.Errorf("%s answered without TLS: %s", addr, b)
		}
	}
	if doors != 3 {
		t.Errorf("%d doors with TLS, want console, devices and MQTT", doors)
	}
	st, err := os.Stat(filepath.Join(w.cfg.Data, hostSocket))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v %v", hostSocket, st.Mode(), err)
	}
	if st, err := os.Stat(w.cfg.Data); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the data folder: %v %v", st.Mode(), err)
	}
}

// listening is the set of TCP addresses that this process listens on, from the kernel.
func listening(t *testing.T) map[string]bool {
	t.Helper()
	inodes := map[string]bool{}
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil || len(fds) == 0 {
		t.Skip("there is no /proc here")
	}
	for _, fd := range fds {
		if l, err := os.Readlink(fd); err == nil {
			inodes[strings.TrimSuffix(strings.TrimPrefix(l, "socket:["), "]")] = true
		}
	}
	out := map[string]bool{}
	for _, file := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile("/proc/self/net/" + file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != "0A" || !inodes[f[9]] { // 0A: LISTEN
				continue
			}
			host, port, _ := strings.Cut(f[1], ":")
			ip := "0.0.0.0"
			if host == "0100007F" {
				ip = "127.0.0.1"
			}
			var n int
			fmt.Sscanf(port, "%x", &n)
			out[fmt.Sprintf("%s:%d", ip, n)] = true
		}
	}
	return out
}

// TestRefusesToStart: a platform that would be open to others does not start, and says which rule it broke.
func TestRefusesToStart(t *testing.T) {
	base := func() Config {
		return Config{Data: filepath.Join(t.TempDir(), "data"), Listen: "127.0.0.1:0", DeviceListen: "127.0.0.1:0", MQTTListen: "127.0.0.1:0",
			Ready: func(Info) { t.Error("it serves") }}
	}
	for name, c := range map[string]struct {
		change func(*Config)
		kind   problem.Kind
		rule   string
	}{
		"health for everybody":     {func(c *Config) { c.HealthListen = "0.0.0.0:0" }, problem.KindForbidden, "app.health-loopback"},
		"health for everybody, v6": {func(c *Config) { c.HealthListen = "[::]:0" }, problem.KindForbidden, "app.health-loopback"},
		"a relative data folder":   {func(c *Config) { c.Data = "data" }, problem.KindInvalid, ""},
		"a data folder that others read": {func(c *Config) {
			if err := os.Mkdir(c.Data, 0o755); err != nil {
				t.Fatal(err)
			}
		}, problem.KindInvalid, ""},
		"keys that others read": {func(c *Config) {
			if err := errors.Join(os.Mkdir(c.Data, 0o700), os.Mkdir(filepath.Join(c.Data, "keys"), 0o755)); err != nil {
				t.Fatal(err)
			}
		}, "", ""},
		"a certificate that is not there": {func(c *Config) { c.TLSCert, c.TLSKey = "/nowhere.pem", "/nowhere.key" }, problem.KindInvalid, ""},
	} {
		cfg := base()
		c.change(&cfg)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := Run(ctx, cfg)
		if ctx.Err() != nil || err == nil || c.kind != "" && (!problem.Is(err, c.kind) || problem.Of(err).Rule != c.rule) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
}

// TestSecondPlatformOnTheSameFolder is refused while the first runs.
func TestSecondPlatformOnTheSameFolder(t *testing.T) {
	w := newWorld(t, "")
	cfg := w.cfg
	cfg.Ready = func(Info) { t.Error("a second platform serves") }
	if err := Run(t.Context(), cfg); err == nil {
		t.Error("no error")
	}
	w.ready()
}

// TestPageTokensOutliveARestart: a client that reads a long list is not sent back to its beginning.
func TestPageTokensOutliveARestart(t *testing.T) {
	w := newWorld(t, "")
	m := w.newMaker("Acme")
	var page struct {
		Next string `json:"next_page_token"`
	}
	read := func(query string) answer {
		a, err := w.do(w.client(nil), "GET", w.info.URL+"/v1/audit/entries?page_size=1"+query, m.owner, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := read("")
	if err := json.Unmarshal(a.body, &page); err != nil || page.Next == "" {
		t.Fatalf("%s %v", a.body, err)
	}
	w.stop()
	w.start()
	if a := read("&page_token=" + page.Next); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	forged := page.Next[:len(page.Next)-1] + string("AB"[bytes.IndexByte([]byte("BA"), page.Next[len(page.Next)-1])&1])
	if a := read("&page_token=" + forged); a.status != 400 {
		t.Errorf("a forged token: %d %s", a.status, a.body)
	}
}

// TestRefusedActorsLeaveATrace: a token that tries what it may not is in the log, few times; a stranger is not, and
// neither keeps the others at its address out.
func TestRefusedActorsLeaveATrace(t *testing.T) {
	w := newWorld(t, "")
	m := w.newMaker("Acme")
	auditor := w.token("Acme", "auditor")
	c := w.client(nil)
	for range 5 {
		for _, path := range []string{"/v1/products", "/products"} {
			a, err := w.do(c, "POST", w.info.URL+path, auditor.Token, "application/json", []byte(`{"name":"x","model":"x"}`))
			if err != nil || a.status != 403 {
				t.Fatalf("%s: %d %s %v", path, a.status, a.body, err)
			}
		}
	}
	for range 60 {
		if a, err := w.do(c, "POST", w.info.URL+"/v1/products", "ot_x_y", "application/json", []byte(`{}`)); err != nil || a.status != 401 && a.status != 429 {
			t.Fatalf("a stranger: %d %v", a.status, err)
		}
	}
	if a, err := w.do(c, "GET", w.info.URL+"/v1/products", m.owner, "", nil); err != nil || a.status != 200 {
		t.Errorf("the owner beside a stranger who guesses: %d %s %v", a.status, a.body, err)
	}
	w.stop()
	w.start()
	leaves, err := w.h.audit.List(t.Context(), m.tenant, audit.Filter{Kind: "access.refused"}, 100)
	if err != nil || len(leaves) != 2 {
		t.Fatalf("%d leaves, %v, want the first refusal and the total of the others", len(leaves), err)
	}
	for _, l := range leaves {
		if l.Subject != auditor.ID || l.Actor != auditor.ID {
			t.Errorf("a refusal of %s about %s", l.Actor, l.Subject)
		}
	}
}

// TestBodyThatNeverComes: a stranger who announces a body and sends none is cut off.
func TestBodyThatNeverComes(t *testing.T) {
	srv := httptest.NewServer(patient(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			http.Error(w, "too slow", http.StatusBadRequest)
		}
	}), 100*time.Millisecond))
	defer srv.Close()
	for _, length := range []string{"Content-Length: 100", "Transfer-Encoding: chunked"} {
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n", length)
		conn.SetReadDeadline(time.Now().Add(time.Minute)) //nolint:errcheck // the read says so
		b, err := io.ReadAll(conn)
		if !strings.HasPrefix(string(b), "HTTP/1.1 400") || err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: %.100q, %v", length, b, err)
		}
	}
	if resp, err := srv.Client().Post(srv.URL, "", strings.NewReader("quick")); err != nil || resp.StatusCode != 200 {
		t.Errorf("a body that comes: %v %v", resp, err)
	}
}
