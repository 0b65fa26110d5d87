// SPDX-License-Identifier: AGPL-3.0-only

package gateway_test

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pion/dtls/v3"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/wire/coap"
)

// gone asserts that the door has ended the association, and says so to the device.
func (m *mote) gone() {
	m.t.Helper()
	if _, err := m.Read(make([]byte, 4096)); !errors.Is(err, io.EOF) {
		m.t.Errorf("the association goes on: %v", err)
	}
}

// TestCoAPCut: a revoked device is told, loses its association within a second, and does not come back.
func TestCoAPCut(t *testing.T) {
	h := newHouse(t, gateway.Limits{})
	other := h.mote(h.device("dev_2"))
	withinASecond(t, func() time.Duration {
		cert := h.device("dev_1")
		c := h.mote(cert)
		c.send(post(1, "tele/env", "1"))
		c.wants(coap.Acknowledgement, 1, coap.Changed)
		h.revoke(cert)
		start := time.Now()
		if n := h.g.Cut("dev_1", "revoked"); n != 1 {
			t.Errorf("Cut = %d", n)
		}
		c.gone()
		took := time.Since(start)
		if _, err := h.knock(h.udp(), &cert); err == nil {
			t.Error("a revoked device came back")
		}
		return took
	})
	other.send(post(1, "tele/env", "2"))
	other.wants(coap.Acknowledgement, 1, coap.Changed)
}

// TestCoAPRevokedOnAnOpenAssociation: each request asks the register, even if nobody cut the association.
func TestCoAPRevokedOnAnOpenAssociation(t *testing.T) {
	h := newHouse(t, gateway.Limits{})
	cert := h.device("dev_1")
	c := h.mote(cert)
	c.send(post(0, "tele/env", "1"))
	c.wants(coap.Acknowledgement, 0, coap.Changed)
	h.revoke(cert)
	c.send(post(1, "tele/env", "1"))
	if got := c.wants(coap.Acknowledgement, 1, coap.Forbidden); !strings.HasPrefix(string(got.Payload), "door.register") {
		t.Errorf("%q", got.Payload)
	}
	if n := len(h.appended()); n != 1 {
		t.Errorf("%d records", n)
	}
}

// TestCoAPWhoMayEnter: only a commissioned device's certificate that the register knows, with its key, opens the door; and
// only with forward secrecy and authenticated encryption.
func TestCoAPWhoMayEnter(t *testing.T) {
	h := newHouse(t, gateway.Limits{})
	unknown := h.device("dev_1")
	h.revoke(unknown)
	birth := h.cert(gateway.Peer{Kind: gateway.IDevID, Tenant: "acme", Device: "dev_1"})
	station := h.cert(gateway.Peer{Kind: gateway.Station, Tenant: "acme", Station: "st_1"})
	good := h.cert(gateway.Peer{Kind: gateway.LDevID, Tenant: "acme", Device: "dev_2", Pending: true})
	stolen := good
	stolen.PrivateKey = newKey(t)
	for name, c := range map[string]*tls.Certificate{"unknown": &unknown, "a certificate of birth": &birth, "a station": &station, "a stolen certificate": &stolen, "nobody": nil} {
		if _, err := h.knock(h.udp(), c); err == nil {
			t.Errorf("%s came in", name)
		}
	}
	for len(h.events) > 0 {
		if e := <-h.events; strings.HasPrefix(e, "used") {
			t.Error("a peer without the key used the certificate")
		}
	}
	if _, err := h.knock(h.udp(), &good, dtls.WithCipherSuites(dtls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA)); err == nil {
		t.Error("a suite without authenticated encryption was accepted")
	}
	if _, err := h.knock(h.udp(), &good, dtls.WithExtendedMasterSecret(dtls.DisableExtendedMasterSecret)); err == nil {
		t.Error("a handshake without extended master secret was accepted")
	}
	h.mote(good, dtls.WithCipherSuites(dtls.TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8))
	h.await("used dev_2")
}

// TestCoAPPerPeer: a device that has as many associations as it may loses the one that was silent longest; it may have
// forgotten it.
func TestCoAPPerPeer(t *testing.T) {
	h := newHouse(t, gateway.Limits{PerPeer: 2})
	cert := h.device("dev_1")
	first, second := h.mote(cert), h.mote(cert)
	for id := range uint16(2) { // the second is heard before the first
		for _, c := range []*mote{second, first} {
			c.send(post(id, "tele/env", "1"))
			c.wants(coap.Acknowledgement, id, coap.Changed)
		}
	}
	third := h.mote(cert)
	third.send(post(1, "tele/env", "1"))
	third.wants(coap.Acknowledgement, 1, coap.Changed)
	second.gone()
	first.send(post(9, "tele/env", "1"))
	first.wants(coap.Acknowledgement, 9, coap.Changed)
}

// TestCoAPSilence: an association ends after the longest silence, by the clock.
func TestCoAPSilence(t *testing.T) {
	hand := clock.NewHand(time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC))
	h := newHouseWith(t, func(c *gateway.Config) { c.Clock, c.Limits.Silence = hand, 8*time.Hour })
	quiet, busy := h.mote(h.device("dev_1")), h.mote(h.device("dev_2"))
	for _, c := range []*mote{quiet, busy} {
		c.send(post(1000, "tele/env", "1"))
		c.wants(coap.Acknowledgement, 1000, coap.Changed)
	}
	for id := range uint16(8) {
		hand.WaitTimers(1) // of the sweep
		hand.Advance(time.Hour)
		busy.send(post(id, "tele/env", "1"))
		busy.wants(coap.Acknowledgement, id, coap.Changed)
	}
	hand.WaitTimers(1)
	hand.Advance(time.Hour)
	quiet.gone()
	busy.send(post(99, "tele/env", "1"))
	busy.wants(coap.Acknowledgement, 99, coap.Changed)
}

// nat carries datagrams between a device, which believes it to be the door, and the door, except those to the device that
// are lost; rebind gives the device another address there.
func (h *house) nat(lost func([]byte) bool) (front net.Addr, rebind func()) {
	door, err := net.ResolveUDPAddr("udp", h.coap)
	if err != nil {
		h.t.Fatal(err)
	}
	inside, outside, moves := h.udp(), h.udp(), make(chan *net.UDPConn, 1)
	back := func(from *net.UDPConn, to net.Addr) {
		b := make([]byte, 4096)
		for {
			n, err := from.Read(b)
			if err != nil {
				return
			}
			if !lost(b[:n]) {
				_, _ = inside.WriteTo(b[:n], to)
			}
		}
	}
	go func() {
		b := make([]byte, 4096)
		var at net.Addr
		for {
			n, from, err := inside.ReadFrom(b)
			if err != nil {
				return
			}
			if at == nil {
				at = from
				go back(outside, at)
			}
			select {
			case outside = <-moves:
				go back(outside, at)
			default:
			}
			_, _ = outside.WriteTo(b[:n], door)
		}
	}()
	return inside.LocalAddr(), func() { moves <- h.udp() }
}

// TestCoAPAfterAnAddressChange: a device whose network gave it another address goes on with its association, if it has a
// connection ID (RFC 9146).
func TestCoAPAfterAnAddressChange(t *testing.T) {
	h := newHouse(t, gateway.Limits{})
	front, rebind := h.nat(func([]byte) bool { return false })
	coapDoor := h.coap
	h.coap = front.String()
	c := h.mote(h.device("dev_1"), dtls.WithConnectionIDGenerator(dtls.OnlySendCIDGenerator()))
	h.coap = coapDoor
	c.send(post(1, "tele/env", "1"))
	c.wants(coap.Acknowledgement, 1, coap.Changed)
	rebind()
	c.send(post(2, "tele/env", "2"))
	c.wants(coap.Acknowledgement, 2, coap.Changed)
	if n := len(h.appended()); n != 2 {
		t.Errorf("%d records", n)
	}
	if n := len(h.g.Peers()); n != 1 {
		t.Errorf("%d associations", n)
	}
}

// TestCoAPStartsAnew: a device that lost everything shakes hands from the address of its old association, which goes on
// until the new one has proven who it is.
func TestCoAPStartsAnew(t *testing.T) {
	h := newHouse(t, gateway.Limits{})
	cert := h.device("dev_1")
	sock := h.udp()
	old, err := h.knock(sock, &cert)
	if err != nil {
		t.Fatal(err)
	}
	old.send(post(1, "tele/env", "1"))
	old.wants(coap.Acknowledgement, 1, coap.Changed)

	stranger := h.device("dev_9")
	h.revoke(stranger)
	young := h.freshSocket(sock)
	if _, err := h.knock(young, &stranger); err == nil {
		t.Fatal("a stranger came in")
	}
	if n := len(h.g.Peers()); n != 1 {
		t.Errorf("after a stranger's attempt there are %d associations", n)
	}
	again, err := h.knock(h.freshSocket(young), &cert)
	if err != nil {
		t.Fatal(err)
	}
	again.send(post(1, "tele/env", "2"))
	again.wants(coap.Acknowledgement, 1, coap.Changed)
	if n := len(h.g.Peers()); n != 1 {
		t.Errorf("%d associations, the old one should be gone", n)
	}
	if n := len(h.appended()); n != 2 {
		t.Errorf("%d records", n)
	}
}

// freshSocket opens a socket with the address of one that it closes.
func (h *house) freshSocket(old *net.UDPConn) *net.UDPConn {
	at := old.LocalAddr().(*net.UDPAddr)
	old.Close()
	sock, err := net.ListenUDP("udp", at)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { sock.Close() })
	return sock
}

// TestCoAPHostileDatagrams: whatever arrives, from strangers and from a device, harms at most its own association.
func TestCoAPHostileDatagrams(t *testing.T) {
	h := newHouse(t, gateway.Limits{Pending: 8})
	c := h.mote(h.device("dev_1"))
	to, err := net.ResolveUDPAddr("udp", h.coap)
	if err != nil {
		t.Fatal(err)
	}
	hello := append([]byte{22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12 + 40, 1, 0, 0, 40, 0, 0, 0, 0, 0, 0, 0, 40}, make([]byte, 40)...)
	noise := make([]byte, 1200)
	for i := range 400 {
		sock := h.udp()
		rand.Read(noise)
		for _, b := range [][]byte{
			{}, noise[:i], noise, bytes.Repeat([]byte{22}, 4096), hello[:i%len(hello)], hello,
			append([]byte{25, 0xFE, 0xFD, 0, 1}, noise[:30]...),     // a connection ID of nobody
			{21, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 2, 40},   // an alert out of nowhere
			{22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 1, 0xFF, 0xFF, 1}, // a length beyond the datagram
			{22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 2},       // a ServerHello
			append(append([]byte{}, hello[:13]...), noise[:52]...),  // a handshake of noise
			append([]byte{22, 0xFE, 0xFF, 0, 0, 0, 0, 0, 0, 0, 9, 4, 0}, noise[:1024]...),
		} {
			if _, err := sock.WriteTo(b, to); err != nil {
				t.Fatal(err)
			}
		}
		sock.Close()
	}
	c.patiently(post(19, "tele/env", "1"))
	// The device itself sends what is no message, inside of its association.
	for _, b := range [][]byte{{0}, {0x40}, {0x80, 1, 0, 1}, {0x4F, 1, 0, 5}, {0x40, 0x20, 0, 6}, {0x50, 1, 0, 7, 0xFF}, {0x60, 0x45, 0, 8}, {0x70, 0, 0, 9}, noise} {
		c.bytes(b)
	}
	c.wants(coap.Reset, 5, coap.Empty)
	c.wants(coap.Reset, 6, coap.Empty)
	c.send(post(20, "tele/env", "1"))
	for got := c.next(); got.ID != 20; got = c.next() { // noise may look like a message
	}
	if len(h.appended()) != 2 {
		t.Error("the device was harmed")
	}
	h.mote(h.device("dev_2"))
}

// TestCoAPStrangersGiveWay: whoever says hello from many addresses, and cannot hear the answers there, does not shut others
// out.
func TestCoAPStrangersGiveWay(t *testing.T) {
	h := newHouse(t, gateway.Limits{Pending: 4, Opening: time.Minute})
	to, err := net.ResolveUDPAddr("udp", h.coap)
	if err != nil {
		t.Fatal(err)
	}
	hello := h.hello()
	for h.g.Load().Refused["door"] == 0 {
		sock := h.udp()
		if _, err := sock.WriteTo(hello, to); err != nil {
			t.Fatal(err)
		}
		sock.Close() // or a door that takes its time meets more of them than this process may have open
	}
	c := h.mote(h.device("dev_1"))
	c.send(post(1, "tele/env", "1"))
	c.wants(coap.Acknowledgement, 1, coap.Changed)
}

// TestCoAPDrain: what came before the door closes gets its receipt.
func TestCoAPDrain(t *testing.T) {
	h := newHouse(t, gateway.Limits{})
	c := h.mote(h.device("dev_1"))
	hold, entered := make(chan struct{}), make(chan int, 1)
	h.set(hold, entered, nil)
	c.send(post(1, "tele/env", "1"))
	<-entered
	drained := make(chan error, 1)
	go func() { drained <- h.g.Drain(t.Context()) }()
	close(hold)
	c.wants(coap.Acknowledgement, 1, coap.Changed)
	c.gone()
	if err := <-drained; err != nil {
		t.Error(err)
	}
}
