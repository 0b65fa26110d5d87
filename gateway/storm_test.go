// SPDX-License-Identifier: AGPL-3.0-only

package gateway_test

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// hostilePackets reads the table of wire/mqtt.
func hostilePackets(t *testing.T) map[string][]byte {
	t.Helper()
	b, err := os.ReadFile("../wire/mqtt/testdata/malformed.txt")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for line := range strings.Lines(string(b)) {
		what, name, ok := strings.Cut(strings.TrimSpace(line), " # ")
		if !ok {
			continue
		}
		f := strings.Fields(what)
		p, err := hex.DecodeString(strings.Join(f[2:], ""))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		out[f[0]+" "+name] = p
	}
	if len(out) < 75 {
		t.Fatalf("only %d packets", len(out))
	}
	return out
}

// M07: each malformed packet, of every type and also as the first one, ends the connection that sent it and no other,
// and is a security event.
func TestM07_MalformedPacketsEndOneConnection(t *testing.T) {
	h := newHouse(t, gateway.Limits{})
	neighbour := h.session(h.device("dev_neighbour"), mqtt.V5)
	cert := h.device("dev_hostile")
	for name, packet := range hostilePackets(t) {
		for _, first := range []bool{false, true} {
			v := mqtt.Version(name[0] - '0')
			var r *raw
			if first {
				r = h.raw(cert, v)
			} else {
				r = h.session(cert, v)
			}
			if _, err := r.Write(packet); err != nil {
				t.Fatal(err)
			}
			for { // whatever it is told, its connection ends
				if _, _, err := r.r.Next(); err != nil {
					if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
						t.Errorf("%s, first %t: the connection lives on", name, first)
					}
					break
				}
			}
			r.Close()
			h.await("refused dev_hostile mqtt.")
		}
	}
	neighbour.send(qos1(1, "ot/1/me/inv", "{}"))
	neighbour.wantAck(1, mqtt.Success)
}

// M08: lengths that nobody sent cost nothing: a header of six bytes that claims 1 GiB, one of five that claims 256 MiB,
// and a length that never ends, before CONNECT and after it.
func TestM08_ClaimedLengthsCostNothing(t *testing.T) {
	h := newHouse(t, gateway.Limits{Packet: 200 << 20, PerPeer: 100})
	cert := h.device("dev_1")
	endless := bytes.Repeat([]byte{0xFF}, 1<<20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, b := range [][]byte{{0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x03}, {0x30, 0xFF, 0xFF, 0xFF, 0x7F}, endless} {
		for range 10 {
			first, later := h.raw(cert, mqtt.V5), h.session(cert, mqtt.V5)
			for _, r := range []*raw{first, later} {
				_, _ = r.Write(b) // it may be closed before all of it is out
				for {
					if _, _, err := r.r.Next(); err != nil {
						break
					}
				}
				r.Close()
			}
		}
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) >> 20; n > 200 { // sixty handshakes on both sides cost a few dozen
		t.Errorf("%d MiB were allocated in all", n)
	}
	if l := h.g.Load(); l.Held != 0 {
		t.Errorf("%d bytes are still counted", l.Held)
	}
}

// M10: 200 devices with 16 publishes each in flight, above what a stuck log can take. Nothing is acknowledged, nobody is
// closed; when the log goes on, every publish gets its receipt.
func TestM10_BackPressureClosesNobody(t *testing.T) {
	const devices, window = 200, 16
	h := newHouse(t, gateway.Limits{Batch: 64, PerSource: devices})
	hold, entered := make(chan struct{}), make(chan int, devices*window)
	h.set(hold, entered, nil)
	var rs []*raw
	for i := range devices {
		r := h.session(h.device(fmt.Sprintf("dev_%d", i)), []mqtt.Version{mqtt.V4, mqtt.V5}[i%2])
		for id := range window {
			r.send(qos1(uint16(id+1), "ot/1/me/tele/env", `{"values":{"a":1}}`))
		}
		rs = append(rs, r)
	}
	<-entered
	if n := h.g.Count(); n != devices {
		t.Errorf("%d of %d sessions live while the log is stuck", n, devices)
	}
	h.set(nil, nil, nil)
	close(hold)
	for _, r := range rs {
		for id := range window {
			r.wantAck(uint16(id+1), mqtt.Success)
		}
	}
	if n := h.g.Count(); n != devices {
		t.Errorf("%d of %d sessions live afterwards", n, devices)
	}
	if n := len(h.appended()); n != devices*window {
		t.Errorf("%d records, want %d", n, devices*window)
	}
}

// gate is a server's certificate whose use waits: a handshake that computes stands in it.
type gate struct {
	cert   tls.Certificate
	inside atomic.Int64
	most   atomic.Int64
	came   chan struct{}
	open   chan struct{}
}

func (g *gate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	n := g.inside.Add(1)
	defer g.inside.Add(-1)
	for m := g.most.Load(); n > m && !g.most.CompareAndSwap(m, n); m = g.most.Load() {
	}
	select {
	case g.came <- struct{}{}:
	default:
	}
	<-g.open
	return &g.cert, nil
}

// await waits until the doors' numbers are as the test wants them.
func (h *house) awaitLoad(what string, ok func(gateway.Load) bool) {
	h.t.Helper()
	for deadline := time.Now().Add(patience); !ok(h.g.Load()); runtime.Gosched() {
		if time.Now().After(deadline) {
			h.t.Fatalf("%s: %+v", what, h.g.Load())
		}
	}
}

// M15: a storm of reconnects. No more handshakes compute than allowed, the others wait, those beyond the line are turned
// away before TLS; a session that was there gets its receipts meanwhile. When the storm may go on, all who waited get in.
func TestM15_ReconnectStormWaitsOutside(t *testing.T) {
	const line, beyond = 40, 30
	g := &gate{came: make(chan struct{}, 1), open: make(chan struct{})}
	h := newHouseWith(t, func(c *gateway.Config) {
		c.Limits = gateway.Limits{Handshakes: 2, Pending: line}
		g.cert = c.TLS.Certificates[0]
		c.TLS = &tls.Config{GetCertificate: func(i *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if i.ServerName == "storm" {
				return g.get(i)
			}
			return &g.cert, nil
		}}
	})
	established := h.session(h.device("dev_there"), mqtt.V5)
	var storm sync.WaitGroup
	var in, out atomic.Int64
	dial := func(i int) {
		cert := h.device(fmt.Sprintf("dev_%d", i))
		storm.Go(func() {
			cfg := h.clientTLS(&cert)
			cfg.ServerName, cfg.InsecureSkipVerify = "storm", true // the name marks the handshake; the test is the client
			conn, err := tls.Dial("tcp", h.mqtt, cfg)
			if err != nil {
				out.Add(1)
				return
			}
			defer conn.Close()
			if c, err := mqtt.NewClient(t.Context(), conn, mqtt.ClientConfig{}); err == nil {
				in.Add(1)
				c.Close()
			}
		})
	}
	for i := range line {
		dial(i)
	}
	h.awaitLoad("the line fills", func(l gateway.Load) bool { return l.Working == 2 && l.Waiting == line-2 })
	for i := range beyond {
		dial(line + i)
	}
	h.awaitLoad("the rest is turned away", func(l gateway.Load) bool { return l.Refused["door"] == beyond })
	for id := range uint16(20) { // the storm stands still, and this goes on
		established.send(qos1(id+1, "ot/1/me/tele/env", `{"values":{"a":1}}`))
		established.wantAck(id+1, mqtt.Success)
	}
	if n := g.inside.Load(); n != 2 {
		t.Errorf("%d handshakes compute", n)
	}
	close(g.open)
	storm.Wait()
	if in.Load() != line || out.Load() != beyond {
		t.Errorf("%d got in and %d were turned away, want %d and %d", in.Load(), out.Load(), line, beyond)
	}
	if n := g.most.Load(); n > 2 {
		t.Errorf("%d handshakes computed at the same time", n)
	}
	h.awaitLoad("nothing is left behind", func(l gateway.Load) bool {
		return l.HalfOpen == 0 && l.Working == 0 && l.Waiting == 0 && l.Connections == 1
	})
}

// A source that opens connections and says nothing takes its own share of the line, not that of others; the limit of
// all connections holds for those as well that have said who they are.
func TestSourcesAndConnectionsAreBounded(t *testing.T) {
	h := newHouse(t, gateway.Limits{PerSource: 3, Connections: 5})
	dial := func(from byte, cert *tls.Certificate) (*tls.Conn, error) {
		d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, from)}}
		conn, err := d.Dial("tcp", h.mqtt)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if cert == nil {
			return nil, nil
		}
		c := tls.Client(conn, h.clientTLS(cert))
		if err := c.Handshake(); err != nil {
			return nil, err
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		cl, err := mqtt.NewClient(t.Context(), c, mqtt.ClientConfig{})
		if err == nil {
			t.Cleanup(func() { cl.Close() })
		}
		return c, err
	}
	for range 3 {
		dial(2, nil)
	}
	h.awaitLoad("three silent ones", func(l gateway.Load) bool { return l.HalfOpen == 3 })
	one, two, three := h.device("dev_1"), h.device("dev_2"), h.device("dev_3")
	if _, err := dial(2, &one); err == nil {
		t.Error("a fourth connection of the silent source was let in")
	}
	if _, err := dial(3, &one); err != nil {
		t.Errorf("another source: %v", err)
	}
	if _, err := dial(3, &two); err != nil {
		t.Errorf("another source: %v", err)
	}
	if _, err := dial(3, &three); err == nil {
		t.Error("a sixth connection was let in")
	}
	if l := h.g.Load(); l.Refused["source"] != 1 || l.Refused["connections"] != 1 {
		t.Errorf("counted %v", l.Refused)
	}
}

// Greedy devices share a bound: what they claim beyond it waits and then ends their own connections, while small messages
// need none of it.
func TestMemoryIsBounded(t *testing.T) {
	h := newHouse(t, gateway.Limits{Packet: 1 << 20, Memory: 8 << 20, Partial: 2 * time.Second})
	const greedy, claimed = 10, 4 + 0x3C<<14 // bytes of a packet
	var rs []*raw
	for i := range greedy {
		rs = append(rs, h.session(h.device(fmt.Sprintf("dev_%d", i)), mqtt.V5))
	}
	for _, r := range rs { // once all are there: from its first byte on a packet has little time
		if _, err := r.Write(append([]byte{0x30, 0x80, 0x80, 0x3C}, make([]byte, 8<<10)...)); err != nil {
			t.Fatal(err)
		}
	}
	h.awaitLoad("four of them and their copies fill it", func(l gateway.Load) bool { return l.Held == 4*2*claimed })
	small := h.session(h.device("dev_small"), mqtt.V5)
	small.send(qos1(1, "ot/1/me/inv", "{}"))
	small.wantAck(1, mqtt.Success)
	for _, r := range rs { // each is ended: for its silence, or because there was no room
		for {
			if _, _, err := r.r.Next(); err != nil {
				break
			}
		}
	}
	h.awaitLoad("all is given back", func(l gateway.Load) bool { return l.Held == 0 && l.Sessions == 1 })
	small.send(&mqtt.Publish{QoS: 1, ID: 2, Topic: "ot/1/me/inv", Payload: make([]byte, 900<<10)})
	small.wantAck(2, mqtt.Success)
}

// A device that has as many HTTPS connections as it may is told to come back, not that it is no longer admitted.
func TestFullPeerComesBack(t *testing.T) {
	h := newHouse(t, gateway.Limits{PerPeer: 1})
	cert := h.device("dev_1")
	get := func() *http.Response {
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: h.clientTLS(&cert)}}
		t.Cleanup(c.CloseIdleConnections)
		resp, err := c.Post("https://"+h.https+"/d/1/messages", "application/json", strings.NewReader("[]"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp
	}
	if resp := get(); resp.StatusCode != 200 {
		t.Fatalf("the first connection: %d", resp.StatusCode)
	}
	if resp := get(); resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Errorf("the second: %d, Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
}

// One port serves both doors: MQTT to those whose ALPN says so, HTTPS to the others; each by the rules of its door.
func TestOnePortByALPN(t *testing.T) {
	h := newHouse(t, gateway.Limits{})
	dial := func(cert *tls.Certificate, protos ...string) (*tls.Conn, error) {
		cfg := h.clientTLS(cert)
		cfg.NextProtos = protos
		conn, err := tls.Dial("tcp", h.https, cfg)
		if err == nil {
			t.Cleanup(func() { conn.Close() })
			_ = conn.SetDeadline(time.Now().Add(patience))
		}
		return conn, err
	}
	cert := h.device("dev_1")
	conn, err := dial(&cert, "mqtt")
	if err != nil {
		t.Fatal(err)
	}
	c, err := mqtt.NewClient(t.Context(), conn, mqtt.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Publish(t.Context(), "ot/1/me/inv", []byte("{}")); err != nil {
		t.Error(err)
	}
	if !h.g.Live("dev_1") {
		t.Error("no session")
	}
	if n := h.g.Cut("dev_1", "test"); n != 1 {
		t.Errorf("Cut found %d connections", n)
	}
	<-c.Done()

	// the rules of the MQTT door: a certificate, and an operational one
	station := h.cert(gateway.Peer{Kind: gateway.Station, Tenant: "acme", Station: "st_1"})
	for name, cert := range map[string]*tls.Certificate{"without a certificate": nil, "with a station's": &station} {
		conn, err := dial(cert, "mqtt")
		if err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
		if err == nil || errors.Is(err, io.EOF) {
			t.Errorf("MQTT %s: %v", name, err)
		}
	}
	// and HTTPS goes on for everybody else, whatever else they offer
	for _, protos := range [][]string{nil, {"http/1.1"}, {"h2", "http/1.1"}, {"mqtt", "http/1.1"}} {
		conn, err := dial(&cert, protos...)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST /d/1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]")
		if b, _ := io.ReadAll(conn); !strings.HasPrefix(string(b), "HTTP/1.1 200") {
			t.Errorf("HTTPS with ALPN %q: %.100s", protos, b)
		}
	}
}
