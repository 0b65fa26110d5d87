// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openthings-platform/openthings/wire/mqtt"
)

// grace is how long a connection that is being ended may take for its last words.
const grace = 400 * time.Millisecond

// link is one accepted connection: the socket under TLS, and who was admitted over it.
type link struct {
	net.Conn
	g      *Gateway
	entry  string // the door that it knocked at
	door   string // the door that it is served at: a port for HTTPS takes MQTT as well, by ALPN
	source netip.Prefix
	peer   Peer // set during the handshake, proven when that has ended; Kind is None without a certificate

	// of the goroutine that does the handshake, until it has ended
	shaking  bool
	working  bool          // it has the governor's permission to compute
	begun    bool          // it has answered the peer's first message
	patience time.Duration // how long the peer may still take for its part

	chain []*x509.Certificate // what the peer sent, its own first
	spent error               // why it is refused once it has proven its key
	idle  *idle               // of an MQTT session: how it waits; the goroutine that reads it sets it

	heard atomic.Int64 // when the peer was heard on the CoAP door, ms since 1970

	closed, told sync.Once

	// guarded by registry.mu
	listed  bool
	gone    bool     // closed: it is not listed again
	barred  bool     // cut: no session may begin, and no will is kept
	session *session // nil before CONNECT and on HTTPS
	over    bool     // another connection of the device took over
	resumed bool     // and goes on with the session
}

// Read lets others compute while a handshake waits for its peer, whose time for that is bounded in all.
func (l *link) Read(b []byte) (int, error) {
	if l.idle != nil {
		return l.idle.take(b)
	}
	if !l.shaking {
		return l.Conn.Read(b)
	}
	l.rest()
	defer l.work()
	start := time.Now()
	if err := l.SetReadDeadline(start.Add(l.patience)); err != nil {
		return 0, err
	}
	n, err := l.Conn.Read(b)
	l.patience -= time.Since(start)
	return n, err
}

// Write gives each write its deadline, so that a peer that does not read cannot hold anything for long.
func (l *link) Write(b []byte) (int, error) {
	if l.shaking {
		l.begun = true
		l.rest()
		defer l.work()
	}
	if err := l.SetWriteDeadline(time.Now().Add(l.g.cfg.Limits.Write)); err != nil {
		return 0, err
	}
	return l.Conn.Write(b)
}

// Close closes the socket at once and forgets the connection.
func (l *link) Close() error {
	err := net.ErrClosed
	l.closed.Do(func() {
		l.g.governor.gone(l)
		l.g.registry.remove(l)
		err = l.Conn.Close()
	})
	return err
}

// identified ends the time in which the connection counts as pending. For a peer without a certificate that is its end.
func (l *link) identified() { l.g.governor.known(l) }

// work has this connection's handshake compute from now on, rest lets others do it.
func (l *link) work() {
	l.g.governor.work(l.begun)
	l.working = true
}

func (l *link) rest() {
	if l.working {
		l.working = false
		l.g.governor.rest()
	}
}

// shake does the handshake, when it is this connection's turn. A panic in it ends this connection only.
func (l *link) shake(conn *tls.Conn) (err error) {
	l.shaking, l.patience = true, l.g.cfg.Limits.Opening
	defer func() {
		l.shaking = false
		l.rest()
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
			l.g.cfg.Log.Error("a handshake panicked", "panic", p, "stack", string(debug.Stack()))
			l.Close()
		}
	}()
	l.work()
	return conn.Handshake()
}

// end closes the connection, after the last words of an MQTT session if it has one.
func (l *link) end(why mqtt.Reason, reason string) {
	l.g.registry.mu.Lock()
	s := l.session
	l.g.registry.mu.Unlock()
	if s == nil {
		l.Close()
		return
	}
	s.close(why, reason)
}

var errNoCertificate = errors.New("a client certificate is needed")

// secure puts TLS on an accepted socket. The register is asked in VerifyConnection, so that a refusal reaches the peer
// as an alert. nil: the governor turned it away, and it was closed.
func (g *Gateway) secure(conn net.Conn, door string) (*link, *tls.Conn) {
	l := &link{Conn: conn, g: g, entry: door, door: door, source: source(conn.RemoteAddr()), peer: Peer{Kind: None}}
	if g.governor.enter(l) != "" {
		conn.Close()
		return nil, nil
	}
	g.tend(conn)
	base := g.https
	if door == doorMQTT {
		base = g.mqtt
	}
	c := base.Clone()
	c.VerifyConnection = func(s tls.ConnectionState) error {
		l.rest() // the register's time is not the processor's
		defer l.work()
		return g.verify(l, s)
	}
	return l, tls.Server(l, c)
}

// verify decides on the certificate that was shown. crypto/tls calls it before it has checked the peer's signature, so
// whoever knows a device's certificate comes this far: nothing here counts or changes anything for the device.
func (g *Gateway) verify(l *link, s tls.ConnectionState) error {
	if s.NegotiatedProtocol == alpnMQTT {
		l.door = doorMQTT
	}
	if len(s.PeerCertificates) == 0 {
		if l.door != doorHTTPS {
			return errNoCertificate
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.Limits.Opening)
	defer cancel()
	p, err := g.admit(ctx, l, s.PeerCertificates)
	if errors.Is(err, ErrSpent) && g.cfg.Spent != nil {
		l.spent, err = err, nil
	}
	if err == nil && l.door != doorHTTPS && p.Kind != LDevID {
		err = fmt.Errorf("the %s door is for kind %q, this certificate is %q", l.door, LDevID, p.Kind)
	}
	if err == nil && (p.Device+p.Station == "" && !p.Stranger || p.Kind == None) {
		err = errors.New("the register named nobody")
	}
	if err == nil {
		l.peer, l.chain = p, s.PeerCertificates
		if l.door == doorCoAP {
			g.makeRoom(p)
		}
		if l.door == doorMQTT { // over HTTPS it is told so, and when to come back
			err = g.registry.full(p.id(), g.cfg.Limits.PerPeer)
		}
	}
	if err != nil {
		sum := sha256.Sum256(s.PeerCertificates[0].Raw)
		fingerprint := hex.EncodeToString(sum[:])
		if more, ok := g.refusals.tell(fingerprint, "door."+l.door, g.cfg.Clock.Now()); ok {
			g.cfg.Log.Warn("handshake refused"+more, "door", l.door, "remote", l.RemoteAddr().String(), "fingerprint", fingerprint, "err", err)
		}
	}
	return err
}

// again asks the register a second time, when a session or request begins: the handshake is over, the peer holds the
// key. The connection enters the registry first: a revocation before this question is seen by it, one after it finds
// the connection and cuts it.
func (g *Gateway) again(ctx context.Context, l *link) error {
	if l.peer.Kind == None {
		return nil
	}
	if err := g.proven(ctx, l); err != nil {
		return err
	}
	if err := g.registry.add(l, g.cfg.Limits.PerPeer); err != nil {
		return err
	}
	p, err := g.admit(ctx, l, l.chain)
	if err == nil && (p.Kind != l.peer.Kind || p.id() != l.peer.id() || p.Tenant != l.peer.Tenant) {
		err = errors.New("the certificate names somebody else now")
	}
	if err == nil && p.Pending && g.cfg.Used != nil {
		err = g.cfg.Used(ctx, p)
	}
	return err
}

const (
	doorMQTT  = "mqtt"
	doorHTTPS = "https"
	doorCoAP  = "coap"

	alpnMQTT = "mqtt"
	alpnHTTP = "http/1.1"
)

// doorConfig is what all connections of one door share.
func doorConfig(base *tls.Config, door string) *tls.Config {
	c := base.Clone()
	c.MinVersion = tls.VersionTLS13
	c.SessionTicketsDisabled = true // no resumption: each connection proves its key and meets the register
	c.ClientAuth, c.NextProtos = tls.RequestClientCert, []string{alpnHTTP, alpnMQTT}
	if door == doorMQTT {
		c.ClientAuth, c.NextProtos = tls.RequireAnyClientCert, []string{alpnMQTT}
	}
	return c
}
