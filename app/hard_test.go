// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// M09: a device reads nothing until every buffer towards it is full. Others get their receipts meanwhile; the command
// that was asked of it then is still in the database after its connection was ended, and reaches it when it is back.
func TestM09_SlowReaderHoldsNobodyUp(t *testing.T) {
	// A write that nobody reads ends the connection too, and so does TCP whose window stays shut; both earlier than a busy machine
	// comes to the end of this test.
	w := newWorldWith(t, func(c *Config) {
		c.Doors = gateway.Limits{Out: 64 << 20, Write: 5 * time.Minute, Unacked: 5 * time.Minute}
	})
	m := w.newMaker("Acme")
	slow, other := m.make(), m.make()

	conn, err := tls.Dial("tcp", w.info.MQTT, &tls.Config{RootCAs: w.roots, Certificates: []tls.Certificate{slow.ldevid}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.NetConn().(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	var hello []byte
	for _, p := range []mqtt.Packet{
		&mqtt.Connect{Version: mqtt.V5, CleanStart: true, KeepAlive: 60}, &mqtt.Subscribe{ID: 1, Filters: []mqtt.Filter{{Topic: "ot/1/me/cmd/#", QoS: 1}}},
	} {
		if hello, err = mqtt.Append(hello, mqtt.V5, p); err != nil {
			t.Fatal(err)
		}
	}
	pings := bytes.Repeat([]byte{0xC0, 0}, 16<<10) // each asks for an answer that is never read
	if _, err := conn.Write(hello); err != nil {
		t.Fatal(err)
	}
	for w.h.gateway.Load().Held < 1<<20 {
		if _, err := conn.Write(pings); err != nil {
			t.Fatalf("the connection ended before the buffers were full: %v", err)
		}
	}

	// now the committer has a receipt for it, and the dispatcher a command
	receipt, err := mqtt.Append(nil, mqtt.V5, &mqtt.Publish{QoS: 1, ID: 7, Topic: "ot/1/me/tele/env", Payload: []byte(`{"values":{"a":1}}`)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(receipt); err != nil {
		t.Fatal(err)
	}
	var asked struct{ ID, State string }
	w.post(m.owner, "/v1/devices/"+slow.id+"/commands", map[string]any{"name": "reboot"}, &asked)
	good, err := w.mqtt(other.ldevid)
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close()
	for range 20 {
		if err := good.Publish(t.Context(), "ot/1/me/tele/env", []byte(`{"values":{"a":1}}`)); err != nil {
			t.Fatal(err)
		}
	}
	if !w.h.gateway.Live(slow.id) || w.h.gateway.Load().Held < 1<<20 {
		t.Error("the others had to wait until the slow reader's connection was ended")
	}
	conn.NetConn().Close() // it loses power
	for w.h.gateway.Live(slow.id) {
		runtime.Gosched()
	}
	patience := time.Now().Add(30 * time.Second) // the write that the closing breaks off gives its memory back a moment later
	for w.h.gateway.Load().Held != 0 && time.Now().Before(patience) {
		runtime.Gosched()
	}
	if held := w.h.gateway.Load().Held; held != 0 {
		t.Errorf("%d bytes are held for nobody", held)
	}
	a, err := w.do(w.client(nil), "GET", w.info.URL+"/v1/commands/"+asked.ID, m.owner, "", nil)
	if err != nil || json.Unmarshal(a.body, &asked) != nil || asked.State != "queued" && asked.State != "sent" {
		t.Errorf("the command after the connection was ended: %s %v", a.body, err)
	}

	got := make(chan string, 10)
	back, err := tls.Dial("tcp", w.info.MQTT, &tls.Config{RootCAs: w.roots, Certificates: []tls.Certificate{slow.ldevid}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := mqtt.NewClient(t.Context(), back, mqtt.ClientConfig{Handler: func(topic string, _ []byte) { got <- topic }})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Subscribe(t.Context(), "ot/1/me/cmd/#"); err != nil {
		t.Fatal(err)
	}
	select {
	case topic := <-got:
		if !strings.Contains(topic, asked.ID) {
			t.Errorf("got %s, want command %s", topic, asked.ID)
		}
	case <-time.After(30 * time.Second):
		t.Error("the command did not reach the device after its return")
	}
}

// A device that may only leave its network by one port, such as 443, speaks MQTT and HTTPS on it: real clients do.
func TestOnePortForRealClients(t *testing.T) {
	w := newWorld(t, "")
	u := w.newMaker("Acme").make()
	dir := t.TempDir()
	key, cert := writePair(t, dir, u.ldevid)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(w.info.Devices, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
		if err != nil {
			t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	}
	for _, v := range []string{"mqttv311", "mqttv5"} {
		run("mosquitto_pub", "-V", v, "-h", "localhost", "-p", port, "--tls-alpn", "mqtt", "--cafile", w.info.CA, "--cert", cert, "--key", key,
			"-q", "1", "-t", "ot/1/me/tele/env", "-m", `{"values":{"a":1}}`)
	}
	run("curl", "-sS", "--fail", "--cacert", w.info.CA, "--cert", cert, "--key", key, "-H", "Content-Type: application/json",
		"-d", `[{"topic":"tele/env","payload":{"values":{"a":2}}}]`, w.info.Devices+"/d/1/messages")
	if n := w.h.counts.receipts.Load(); n != 3 {
		t.Errorf("%d messages were acknowledged, want 3", n)
	}
}

// writePair writes a certificate and its key for clients that read files.
func writePair(t *testing.T, dir string, c tls.Certificate) (key, cert string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	key, cert = filepath.Join(dir, "device.key"), filepath.Join(dir, "device.pem")
	for path, b := range map[string]*pem.Block{key: {Type: "PRIVATE KEY", Bytes: der}, cert: {Type: "CERTIFICATE", Bytes: c.Certificate[0]}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return key, cert
}
