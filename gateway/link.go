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
	"sync"
	"time"

	"github.com/openthings-platform/openthings/wire/mqtt"
)

// grace is how long a connection that is being ended may take for its last words.
const grace = 400 * time.Millisecond

// link is one accepted connection: the socket under TLS, and who was admitted over it.
type link struct {
	net.Conn
	g    *Gateway
	door string
	peer Peer // set during the handshake, proven when that has ended; Kind is None without a certificate

	chain []*x509.Certificate // what the peer sent, its own first
	spent error               // why it is refused once it has proven its key

	closed, known, told sync.Once

	// guarded by registry.mu
	listed  bool
	gone    bool     // closed: it is not listed again
	barred  bool     // cut: no session may begin, and no will is kept
	session *session // nil before CONNECT and on HTTPS
	over    bool     // another connection of the device took over
	resumed bool     // and goes on with the session
}

// Write gives each write its deadline, so that a peer that does not read cannot hold anything for long.
func (l *link) Write(b []byte) (int, error) {
	if err := l.SetWriteDeadline(time.Now().Add(l.g.cfg.Limits.Write)); err != nil {
		return 0, err
	}
	return l.Conn.Write(b)
}

// Close closes the socket at once and forgets the connection.
func (l *link) Close() error {
	err := net.ErrClosed
	l.closed.Do(func() {
		l.identified()
		l.g.registry.remove(l)
		err = l.Conn.Close()
	})
	return err
}

// identified ends the time in which the connection counts as pending. For a peer without a certificate that is its end.
func (l *link) identified() {
	l.known.Do(func() { l.g.pending[l.door].Add(-1) })
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
// as an alert. nil: too many connections have not said who they are, this one was closed.
func (g *Gateway) secure(conn net.Conn, door string) (*link, *tls.Conn) {
	if g.pending[door].Add(1) > int64(g.cfg.Limits.Pending) {
		g.pending[door].Add(-1)
		conn.Close()
		return nil, nil
	}
	l := &link{Conn: conn, g: g, door: door, peer: Peer{Kind: None}}
	base := g.https
	if door == doorMQTT {
		base = g.mqtt
	}
	c := base.Clone()
	c.VerifyConnection = func(s tls.ConnectionState) error { return g.verify(l, s) }
	return l, tls.Server(l, c)
}

// verify decides on the certificate that was shown. crypto/tls calls it before it has checked the peer's signature, so
// whoever knows a device's certificate comes this far: nothing here counts or changes anything for the device.
func (g *Gateway) verify(l *link, s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		if l.door == doorMQTT {
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
	if err == nil && l.door == doorMQTT && p.Kind != LDevID {
		err = fmt.Errorf("the MQTT door is for kind %q, this certificate is %q", LDevID, p.Kind)
	}
	if err == nil && (p.Device+p.Station == "" && !p.Stranger || p.Kind == None) {
		err = errors.New("the register named nobody")
	}
	if err == nil {
		l.peer, l.chain = p, s.PeerCertificates
		err = g.registry.full(p.id(), g.cfg.Limits.PerPeer)
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
)

// doorConfig is what all connections of one door share.
func doorConfig(base *tls.Config, door string) *tls.Config {
	c := base.Clone()
	c.MinVersion = tls.VersionTLS13
	c.SessionTicketsDisabled = true // no resumption: each connection proves its key and meets the register
	c.ClientAuth, c.NextProtos = tls.RequestClientCert, []string{"http/1.1"}
	if door == doorMQTT {
		c.ClientAuth, c.NextProtos = tls.RequireAnyClientCert, []string{"mqtt"}
	}
	return c
}
