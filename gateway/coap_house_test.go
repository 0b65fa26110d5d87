// SPDX-License-Identifier: AGPL-3.0-only

package gateway_test

import (
	"context"
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/pion/dtls/v3"

	"github.com/openthings-platform/openthings/wire/coap"
)

// mote is a device at the CoAP door on which a test speaks messages.
type mote struct {
	t testing.TB
	*dtls.Conn
}

// knock opens an association from sock; options come after those of an ordinary client.
func (h *house) knock(sock net.PacketConn, c *tls.Certificate, options ...dtls.ClientOption) (*mote, error) {
	to, err := net.ResolveUDPAddr("udp", h.coap)
	if err != nil {
		h.t.Fatal(err)
	}
	all := []dtls.ClientOption{dtls.WithRootCAs(h.roots), dtls.WithServerName("localhost"), dtls.WithFlightInterval(100 * time.Millisecond)}
	if c != nil {
		all = append(all, dtls.WithCertificates(*c))
	}
	conn, err := dtls.ClientWithOptions(sock, to, append(all, options...)...)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	h.t.Cleanup(func() { conn.Close() })
	return &mote{h.t, conn}, conn.SetDeadline(time.Now().Add(patience))
}

// hello is the first datagram of a client.
func (h *house) hello() []byte {
	sock, nobody := h.udp(), h.udp()
	conn, err := dtls.ClientWithOptions(sock, nobody.LocalAddr(), dtls.WithRootCAs(h.roots), dtls.WithServerName("localhost"))
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = conn.HandshakeContext(ctx) // nobody answers
	}()
	b := make([]byte, 4096)
	n, err := nobody.Read(b)
	if err != nil {
		h.t.Fatal(err)
	}
	cancel()
	<-ended
	return b[:n]
}

func (h *house) udp() *net.UDPConn {
	sock, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { sock.Close() })
	return sock
}

// mote is knock for a device that is let in.
func (h *house) mote(c tls.Certificate, options ...dtls.ClientOption) *mote {
	h.t.Helper()
	m, err := h.knock(h.udp(), &c, options...)
	if err != nil {
		h.t.Fatal(err)
	}
	return m
}

func (m *mote) bytes(b []byte) {
	m.t.Helper()
	if _, err := m.Write(b); err != nil {
		m.t.Fatal(err)
	}
}

func (m *mote) send(msg coap.Message) {
	m.t.Helper()
	b, err := coap.Append(nil, msg)
	if err != nil {
		m.t.Fatal(err)
	}
	m.bytes(b)
}

// next is the next message of the door.
func (m *mote) next() coap.Message {
	m.t.Helper()
	b := make([]byte, 4096)
	n, err := m.Read(b)
	if err != nil {
		m.t.Fatalf("nothing came: %v", err)
	}
	msg, err := coap.Decode(b[:n])
	if err != nil {
		m.t.Fatal(err)
	}
	return msg
}

// patiently sends a message again and again until it is answered, as a client does on a network that loses datagrams.
func (m *mote) patiently(msg coap.Message) {
	m.t.Helper()
	b := make([]byte, 4096)
	for range 100 {
		m.send(msg)
		if err := m.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			m.t.Fatal(err)
		}
		if _, err := m.Read(b); err == nil {
			if err := m.SetReadDeadline(time.Now().Add(patience)); err != nil {
				m.t.Fatal(err)
			}
			m.send(coap.Message{ID: 0xFFFF}) // behind it come no more answers to repetitions
			for m.next().ID != 0xFFFF {
			}
			return
		}
	}
	m.t.Fatal("no answer")
}

// wants asserts that the next message is of that type, ID and code, and returns it.
func (m *mote) wants(t coap.Type, id uint16, code coap.Code) coap.Message {
	m.t.Helper()
	got := m.next()
	if got.Type != t || got.ID != id || got.Code != code {
		m.t.Fatalf("got %s %d %s %q, want %s %d %s", got.Type, got.ID, got.Code, got.Payload, t, id, code)
	}
	return got
}

// post is a confirmable message for a topic of the device.
func post(id uint16, topic, payload string, change ...func(*coap.Message)) coap.Message {
	m := coap.Message{Code: coap.POST, ID: id, Token: []byte{byte(id), 0xAB}, Payload: []byte(payload)}
	m.SetPath("ot/1/me/" + topic)
	for _, c := range change {
		c(&m)
	}
	return m
}

func option(number uint16, n uint32) func(*coap.Message) {
	return func(m *coap.Message) { m.Set(number, n) }
}

func block(number uint16, b coap.Block) func(*coap.Message) {
	return func(m *coap.Message) { m.SetBlock(number, b) }
}
