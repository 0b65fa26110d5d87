// SPDX-License-Identifier: AGPL-3.0-only

package gateway_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// patience is how long a peer may take on a machine that is busy with other tests.
const patience = time.Minute

// house is a gateway on loopback with throw-away certificates, a register and an append log.
type house struct {
	t           testing.TB
	g           *gateway.Gateway
	mqtt, https string // addresses
	coap        string
	ca          *x509.Certificate
	caKey       *ecdsa.PrivateKey
	roots       *x509.CertPool
	caFile      string
	events      chan string
	log         bytes.Buffer

	mu       sync.Mutex
	register map[string]gateway.Peer // by fingerprint
	records  []gateway.Record
	hold     chan struct{} // if set, Append waits for it
	entered  chan int      // if set, Append says how many records it was given
	fail     error         // if set, Append returns it
}

func newHouse(t testing.TB, limits gateway.Limits, routes ...func(*gateway.Gateway)) *house {
	return newHouseWith(t, func(c *gateway.Config) { c.Limits = limits }, routes...)
}

// newHouseWith is newHouse with a configuration that the test changes.
func newHouseWith(t testing.TB, change func(*gateway.Config), routes ...func(*gateway.Gateway)) *house {
	h := &house{t: t, register: map[string]gateway.Peer{}, events: make(chan string, 100000)}
	h.caKey = newKey(t)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	h.ca = h.sign(tmpl, h.caKey.Public(), tmpl)
	h.roots = x509.NewCertPool()
	h.roots.AddCert(h.ca)
	h.caFile = h.write("ca.pem", "CERTIFICATE", h.ca.Raw)
	server := h.issue(&x509.Certificate{DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})

	cfg := gateway.Config{
		Used:  func(_ context.Context, p gateway.Peer) error { h.events <- "used " + p.Device; return nil },
		Admit: h.admit, Append: h.append, TLS: &tls.Config{Certificates: []tls.Certificate{server}},
		Online:  func(p gateway.Peer) { h.events <- "online " + p.Device },
		Offline: func(p gateway.Peer, why string) { h.events <- "offline " + p.Device + ": " + why },
		Ready:   func(p gateway.Peer) { h.events <- "ready " + p.Device },
		Refused: func(p gateway.Peer, rule, detail string) {
			h.events <- "refused " + p.Device + " " + rule
			if detail == "panic/please" {
				panic("a defect behind the door")
			}
		},
		Log: slog.New(slog.NewTextHandler(&lockedWriter{w: &h.log}, nil)),
	}
	change(&cfg)
	g, err := gateway.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.g = g
	for _, r := range routes {
		r(g)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	h.mqtt = h.listen(&served, func(l net.Listener) error { return g.ServeMQTT(ctx, l) })
	h.https = h.listen(&served, func(l net.Listener) error { return g.ServeHTTPS(ctx, l) })
	sock, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	h.coap = sock.LocalAddr().String()
	served.Go(func() {
		if err := g.ServeCoAP(ctx, sock); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() {
		h.mu.Lock()
		h.fail = nil
		h.mu.Unlock()
		dctx, stop := context.WithTimeout(context.Background(), patience)
		defer stop()
		if err := g.Drain(dctx); err != nil {
			t.Errorf("Drain: %v", err)
		}
		cancel()
		served.Wait()
		if t.Failed() {
			t.Logf("log of the gateway:\n%s", h.log.String())
		}
	})
	return h
}

type lockedWriter struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func (h *house) listen(served *sync.WaitGroup, serve func(net.Listener) error) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	served.Go(func() {
		if err := serve(l); err != nil {
			h.t.Errorf("serve: %v", err)
		}
	})
	return l.Addr().String()
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (h *house) sign(tmpl *x509.Certificate, pub any, parent *x509.Certificate) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, h.caKey)
	if err != nil {
		h.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

func (h *house) issue(tmpl *x509.Certificate) tls.Certificate {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		h.t.Fatal(err)
	}
	tmpl.SerialNumber, tmpl.NotAfter = serial, time.Now().Add(time.Hour)
	key := newKey(h.t)
	c := h.sign(tmpl, key.Public(), h.ca)
	return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
}

func fingerprint(c tls.Certificate) string {
	sum := sha256.Sum256(c.Certificate[0])
	return hex.EncodeToString(sum[:])
}

// cert makes a certificate that the register knows as p.
func (h *house) cert(p gateway.Peer) tls.Certificate {
	c := h.issue(&x509.Certificate{Subject: pkix.Name{CommonName: p.Device + p.Station}})
	p.Fingerprint = fingerprint(c)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.register[p.Fingerprint] = p
	return c
}

// device makes a commissioned device of tenant "acme".
func (h *house) device(id string) tls.Certificate {
	return h.cert(gateway.Peer{Kind: gateway.LDevID, Tenant: "acme", Device: id})
}

func (h *house) revoke(c tls.Certificate) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.register, fingerprint(c))
}

func (h *house) admit(_ context.Context, c *x509.Certificate) (gateway.Peer, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	sum := sha256.Sum256(c.Raw)
	p, ok := h.register[hex.EncodeToString(sum[:])]
	h.events <- "asked about " + c.Subject.CommonName
	if !ok {
		return gateway.Peer{}, errors.New("unknown certificate")
	}
	return p, nil
}

func (h *house) append(_ context.Context, rs []gateway.Record) error {
	h.mu.Lock()
	hold, entered, fail := h.hold, h.entered, h.fail
	h.mu.Unlock()
	if entered != nil {
		entered <- len(rs)
	}
	if hold != nil {
		<-hold
	}
	if fail != nil {
		return fail
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.records = append(h.records, rs...)
	return nil
}

func (h *house) set(hold chan struct{}, entered chan int, fail error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hold, h.entered, h.fail = hold, entered, fail
}

func (h *house) appended() []gateway.Record {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]gateway.Record(nil), h.records...)
}

// await returns the next event that begins with prefix, skipping others.
func (h *house) await(prefix string) string {
	h.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case e := <-h.events:
			if strings.HasPrefix(e, prefix) {
				return e
			}
		case <-timeout:
			h.t.Fatalf("no event %q", prefix)
		}
	}
}

func (h *house) write(name, kind string, der []byte) string {
	f := filepath.Join(h.t.TempDir(), name)
	if err := os.WriteFile(f, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return f
}

func (h *house) clientTLS(c *tls.Certificate) *tls.Config {
	cfg := &tls.Config{RootCAs: h.roots, ServerName: "localhost"}
	if c != nil {
		cfg.Certificates = []tls.Certificate{*c}
	}
	return cfg
}

// raw is a TLS connection to the MQTT door on which a test speaks bytes.
type raw struct {
	t testing.TB
	*tls.Conn
	r *mqtt.Reader
	v mqtt.Version
}

func (h *house) dial(c *tls.Certificate) (*tls.Conn, error) {
	conn, err := tls.Dial("tcp", h.mqtt, h.clientTLS(c))
	if err != nil {
		return nil, err
	}
	h.t.Cleanup(func() { conn.Close() })
	return conn, conn.SetDeadline(time.Now().Add(patience))
}

func (h *house) raw(c tls.Certificate, v mqtt.Version) *raw {
	h.t.Helper()
	conn, err := h.dial(&c)
	if err != nil {
		h.t.Fatal(err)
	}
	return &raw{h.t, conn, mqtt.NewReader(conn, 1<<20), v}
}

// session is raw after an accepted CONNECT.
func (h *house) session(c tls.Certificate, v mqtt.Version) *raw {
	h.t.Helper()
	r := h.raw(c, v)
	r.send(&mqtt.Connect{Version: v, CleanStart: true, KeepAlive: 60})
	if ack, ok := r.next().(*mqtt.Connack); !ok || ack.Reason != mqtt.Success {
		h.t.Fatalf("CONNECT was answered by %+v", ack)
	}
	return r
}

func (r *raw) send(ps ...mqtt.Packet) {
	r.t.Helper()
	var b []byte
	for _, p := range ps {
		var err error
		if b, err = mqtt.Append(b, r.v, p); err != nil {
			r.t.Fatal(err)
		}
	}
	if _, err := r.Write(b); err != nil {
		r.t.Fatal(err)
	}
}

// next is the next packet, or nil at the end of the connection.
func (r *raw) next() mqtt.Packet {
	r.t.Helper()
	header, body, err := r.r.Next()
	if err != nil {
		if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
			r.t.Fatal("nothing came")
		}
		return nil
	}
	p, err := mqtt.Decode(r.v, header, body)
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

// ended asserts that the connection closes, in MQTT 5 after a DISCONNECT with reason why.
func (r *raw) ended(why mqtt.Reason) {
	r.t.Helper()
	p := r.next()
	if r.v == mqtt.V5 {
		if d, ok := p.(*mqtt.Disconnect); !ok || d.Reason != why {
			r.t.Errorf("got %+v, want DISCONNECT %s", p, why)
			return
		}
		p = r.next()
	}
	if p != nil {
		r.t.Errorf("got %+v, want the end", p)
	}
}

func (r *raw) wantAck(id uint16, why mqtt.Reason) {
	r.t.Helper()
	p := r.next()
	if a, ok := p.(*mqtt.Ack); !ok || a.Kind != mqtt.PUBACK || a.ID != id || a.Reason != why {
		r.t.Errorf("got %+v, want PUBACK %d %s", p, id, why)
	}
}

func qos1(id uint16, topic, payload string) *mqtt.Publish {
	return &mqtt.Publish{QoS: 1, ID: id, Topic: topic, Payload: []byte(payload)}
}

// client is our own client on the door.
func (h *house) client(c tls.Certificate, cfg mqtt.ClientConfig) *mqtt.Client {
	h.t.Helper()
	conn, err := h.dial(&c)
	if err != nil {
		h.t.Fatal(err)
	}
	cl, err := mqtt.NewClient(h.t.(*testing.T).Context(), conn, cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { cl.Close() })
	return cl
}
