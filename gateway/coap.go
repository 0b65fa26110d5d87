// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"time"

	"github.com/pion/dtls/v3"
)

// suites are what the CoAP door speaks: forward secrecy and authenticated encryption. The last one is what every device
// with certificates has to offer (RFC 7252, section 9.1.3.3).
var suites = []dtls.CipherSuiteID{
	dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, dtls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	dtls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, dtls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	dtls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, dtls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	dtls.TLS_ECDHE_ECDSA_WITH_AES_128_CCM, dtls.TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8,
}

// receiveBuffer is how many bytes of datagrams wait in the socket while the door is busy, if the system allows it.
const receiveBuffer = 4 << 20

// ServeCoAP serves the CoAP door on sock (plain UDP; DTLS 1.2 is added here) until ctx ends, or until Drain was called and
// the last association has ended. It closes sock.
func (g *Gateway) ServeCoAP(ctx context.Context, sock *net.UDPConn) error {
	defer sock.Close()
	_ = sock.SetReadBuffer(receiveBuffer) // the system may allow less
	s := newShore(sock, g.meet)
	if !g.opened(s, nil) {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { sock.Close() })()
	go g.sweep(ctx, s)
	var b [maxDatagram + 1]byte
	for {
		err := s.next(&b)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil { // out of memory, most likely: it passes
			g.cfg.Log.Error("a datagram could not be read", "door", doorCoAP, "err", err)
			select {
			case <-g.cfg.Clock.NewTimer(100 * time.Millisecond).C:
			case <-ctx.Done():
			}
		}
	}
}

// sweep ends associations that were silent for too long, until ctx ends.
func (g *Gateway) sweep(ctx context.Context, s *shore) {
	for {
		select {
		case <-g.cfg.Clock.NewTimer(g.cfg.Limits.Silence / 8).C:
		case <-ctx.Done():
			return
		}
		now := g.cfg.Clock.Now()
		for _, f := range s.flows() {
			if now.Sub(f.heard()) > g.cfg.Limits.Silence {
				f.link.Close()
			}
		}
	}
}

// meet begins the association of a flow, if the governor lets it in. Where the door is full of peers that have not shown
// that they receive what is sent to them, the oldest of these gives way: whoever invents senders does not shut others out.
func (g *Gateway) meet(s *shore, f *flow) bool {
	l := &link{g: g, entry: doorCoAP, door: doorCoAP, peer: Peer{Kind: None}}
	conn, err := g.associate(l, f)
	if err != nil {
		g.cfg.Log.Error("an association could not begin", "door", doorCoAP, "err", err)
		return false
	}
	l.Conn, l.source, f.link = conn, source(conn.RemoteAddr()), l
	if why := g.governor.enter(l); why != "" {
		if old := s.stranger(); why == refusedDoor && old != nil {
			go old.link.Close()
		}
		return false
	}
	f.hear(g.cfg.Clock.Now())
	g.serving.Go(func() { g.attend(s, f, conn) })
	return true
}

// associate puts DTLS on a flow. Who the peer is, is decided as on the other doors, once it has signed the handshake.
func (g *Gateway) associate(l *link, f *flow) (*dtls.Conn, error) {
	from := net.UDPAddrFromAddrPort(f.from)
	base := g.cfg.TLS
	options := []dtls.ServerOption{
		dtls.WithCipherSuites(suites...),
		dtls.WithClientAuth(dtls.RequireAnyClientCert),
		dtls.WithExtendedMasterSecret(dtls.RequireExtendedMasterSecret),
		dtls.WithConnectionIDGenerator(func() []byte { return f.shore.name(f) }),
		dtls.WithVerifyConnection(func(s *dtls.State) error {
			f.gate.rest() // the register's time is not the processor's
			defer f.gate.work()
			chain := make([]*x509.Certificate, len(s.PeerCertificates))
			for i, der := range s.PeerCertificates {
				var err error
				if chain[i], err = x509.ParseCertificate(der); err != nil {
					return err
				}
			}
			return g.verify(l, tls.ConnectionState{PeerCertificates: chain})
		}),
	}
	if base.GetCertificate != nil {
		options = append(options, dtls.WithGetCertificate(func(h *dtls.ClientHelloInfo) (*tls.Certificate, error) {
			return base.GetCertificate(&tls.ClientHelloInfo{ServerName: h.ServerName})
		}))
	}
	if len(base.Certificates) > 0 {
		options = append(options, dtls.WithCertificates(base.Certificates...))
	}
	return dtls.ServerWithOptions(f, from, options...)
}

// attend does the handshake of a flow and listens to its peer until the association ends.
func (g *Gateway) attend(s *shore, f *flow, conn *dtls.Conn) {
	defer f.Close()
	defer f.link.Close()
	f.gate.open(g.governor)
	ctx, cancel := g.within(g.cfg.Limits.Opening)
	err := conn.HandshakeContext(ctx)
	cancel()
	f.gate.close()
	if err != nil {
		g.cfg.Log.Debug("no association", "door", doorCoAP, "remote", f.from.String(), "err", err)
		return
	}
	if gone := s.settle(f); gone != nil {
		gone.link.Close()
	}
	ctx, cancel = g.within(g.cfg.Limits.Opening)
	err = g.again(ctx, f.link)
	cancel()
	if err != nil {
		g.cfg.Log.Warn("association refused", "door", doorCoAP, "device", f.link.peer.Device, "err", err)
		return
	}
	f.link.identified()
	d := newDialogue(g, f.link, conn)
	defer d.end()
	b := make([]byte, maxDatagram)
	for {
		n, err := conn.Read(b)
		if err != nil {
			return
		}
		f.hear(g.cfg.Clock.Now())
		d.receive(b[:n])
	}
}

// within is a context that ends after d of the gateway's clock.
func (g *Gateway) within(d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	timer := g.cfg.Clock.NewTimer(d)
	go func() {
		select {
		case <-timer.C:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() { timer.Stop(); cancel() }
}

// answered returns when the CoAP requests that came before have their answers.
func (g *Gateway) answered(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		g.answering.Lock()
		g.answering.Unlock() //nolint:staticcheck // nothing to do but to have waited
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// makeRoom ends the association of a device that was silent longest, if it has as many connections as it may: a device
// that has lost an association cannot end it.
func (g *Gateway) makeRoom(p Peer) {
	if g.registry.full(p.id(), g.cfg.Limits.PerPeer) == nil {
		return
	}
	if l := g.registry.silent(p.id()); l != nil {
		l.Close()
	}
}
