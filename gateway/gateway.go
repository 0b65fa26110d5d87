// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// Kind is the kind of certificate that a peer presented, as Config.Admit judged it.
type Kind string

// The kinds of peers, and what a route may ask for.
const (
	None    Kind = "none"    // no certificate; as a route's need: anybody
	Station Kind = "station" // a line station of a factory
	IDevID  Kind = "idevid"  // a device with its certificate of birth
	LDevID  Kind = "ldevid"  // a commissioned device
	Claim   Kind = "claim"   // a certificate that units of a lot share until each has its own
	Lapsed  Kind = "lapsed"  // a commissioned device whose LDevID has ended; only routes that name it take it
)

// Peer is who is at the other end of a connection.
type Peer struct {
	Kind        Kind
	Tenant      string
	Device      string // empty for a station
	Station     string // empty for a device; the token of a claim certificate
	Fingerprint string // hex SHA-256 of the certificate
	Pending     bool   // the certificate has not been used yet: Config.Used has to be told
	Stranger    bool   // Config.Vouch answers for it, but it has no name yet: Config.Introduce gives it one
	From        string // the address and port that it comes from; the gateway sets it
	// Groups are the names under which CutGroup finds the peer: who signed its certificate, who made it.
	Groups []string
	Cert   *x509.Certificate
	// Generation counts the MQTT sessions of the device on all nodes; 0 on HTTPS. What was said of a session counts no
	// more once something was said of one with a higher generation.
	Generation int64
}

// id is what Cut is called with; the ids of devices and stations and the fingerprints of strangers never collide.
func (p Peer) id() string { return cmp.Or(p.Device, p.Station, p.Fingerprint) }

// Record is one message of a device.
type Record struct {
	Tenant, Device string
	Topic          string // below the device's root: "tele/env"
	At             int64  // time of receipt, ms since 1970 UTC
	Boot, Seq      uint64 // the device's own count of its starts and messages, said beside the body; 0: not said there
	Type           string // media type of Body without parameters, as the device named it; "": it named none
	Expires        int64  // ms since 1970 UTC: it is not appended afterwards; 0: it always counts
	Body           []byte // not shared with anybody
}

// Config is what a Gateway needs. Admit, Append and TLS are mandatory.
type Config struct {
	// Admit says whose cert this is, or refuses. It is asked at every handshake and again when a session or a request
	// begins; the register of certificates is its authority. At the first question nobody has proven yet to hold the
	// key, and certificates are no secrets: Admit must not change anything.
	Admit func(ctx context.Context, cert *x509.Certificate) (Peer, error)
	// Used follows Admit for a peer that is Pending, once it has proven to hold the key; an error refuses. May be nil.
	Used func(ctx context.Context, p Peer) error
	// Vouch is asked on the HTTPS door about a certificate that Admit refused with ErrUnknown, with what the peer sent
	// along; it must not change anything either. A peer that it calls a Stranger goes to Introduce once it has proven to
	// hold the key, which puts it into the register and says who it is. Both may be nil.
	Vouch     func(ctx context.Context, chain []*x509.Certificate) (Peer, error)
	Introduce func(ctx context.Context, chain []*x509.Certificate, from string) (Peer, error)
	// Spent hears of a peer that has proven to hold the key of a certificate which Admit refused with ErrSpent; it is
	// refused all the same. TakenOver hears that a device's live session was ended by a new one. Both may be nil; they
	// must not block.
	Spent     func(p Peer)
	TakenOver func(before, now Peer)
	// Append makes records durable; nil is the permission to acknowledge all of them. It must not keep the slice.
	// An error of kind problem.KindLimited becomes reason 0x97 (quota exceeded), any other 0x80.
	Append func(ctx context.Context, records []Record) error

	// Sessions keeps what outlives a connection. nil: nothing does, and sessions are counted in this process only.
	Sessions *Sessions

	// Online and Offline follow a device's MQTT session; Ready comes after each accepted subscription, when pending
	// downlinks may be sent. They are called one at a time in the order of events and must not block.
	Online  func(Peer)
	Offline func(Peer, string)
	Ready   func(Peer)
	// Refused reports each time that policy refused an admitted peer: the rule and what it tried. It must not block.
	Refused func(p Peer, rule, detail string)

	TLS    *tls.Config // holds the server's certificate; client authentication is set by the gateway
	Clock  clock.Clock // nil: clock.System
	Log    *slog.Logger
	Limits Limits
}

// Errors of Send.
var (
	ErrOffline       = errors.New("the device has no live session")
	ErrNotSubscribed = errors.New("the device is not subscribed to this topic")
	ErrLost          = errors.New("the device's session ended")
	ErrExpired       = errors.New("the message has expired")
)

// Gateway is the device side of the platform. Its methods are safe for concurrent use.
type Gateway struct {
	cfg         Config
	mqtt, https *tls.Config
	mux         *http.ServeMux
	registry    registry
	batch       *collector
	refusals    refusals
	quotas      *quotas
	begun       atomic.Int64              // sessions, without Config.Sessions
	elsewhere   atomic.Pointer[Elsewhere] // where devices are sent; nil: they may stay
	governor    *governor
	memory      *memory
	serving     sync.WaitGroup // handshakes, MQTT connections and CoAP associations
	answering   sync.RWMutex   // held for reading while a CoAP request is worked on

	mu       sync.Mutex // guards the fields below
	routes   []Route
	closers  []io.Closer // listeners of the MQTT door
	servers  []*http.Server
	draining bool
}

// New makes a Gateway that has its own route, POST /d/1/messages.
func New(cfg Config) (*Gateway, error) {
	if cfg.Admit == nil || cfg.Append == nil || cfg.TLS == nil {
		return nil, errors.New("gateway: Config needs Admit, Append and TLS")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Limits = cfg.Limits.withDefaults()
	g := &Gateway{
		cfg: cfg, mqtt: doorConfig(cfg.TLS, doorMQTT), https: doorConfig(cfg.TLS, doorHTTPS), mux: http.NewServeMux(),
		registry: registry{links: map[string][]*link{}, sessions: map[string]*session{}},
		refusals: refusals{told: map[refusal]*tally{}},
		batch:    newCollector(cfg),
		quotas:   newQuotas(cfg.Limits, cfg.Clock),
		governor: newGovernor(cfg.Limits),
		memory:   &memory{limit: cfg.Limits.Memory},
	}
	g.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		WriteProblem(w, problem.NotFound("There is no %s %s at the device door.", r.Method, r.URL.Path))
	})
	g.Route("POST /d/1/messages", LDevID, g.postMessages)
	return g, nil
}

// Live says whether the device has an MQTT session.
func (g *Gateway) Live(device string) bool { return g.registry.session(device) != nil }

// Count is the number of MQTT sessions.
func (g *Gateway) Count() int { return g.registry.count() }

// Dropped is how many QoS 0 messages found no room since the start.
func (g *Gateway) Dropped() int64 { return g.batch.dropped.Load() }

// Cut closes all live connections of a device (or station), MQTT and HTTPS, and says how many there were. It does not
// wait: an MQTT 5 device is told 0x98, and within half a second each socket is closed, whether its peer reads or not.
// What the device sends from now on is not read.
func (g *Gateway) Cut(device, reason string) int {
	n := g.registry.cut(device, mqtt.AdministrativeAction, reason)
	if n > 0 {
		g.cfg.Log.Info("connections cut", "device", device, "connections", n, "reason", reason)
	}
	return n
}

// Supersede ends the device's session here, since one of that higher generation has begun on another node; resumed says
// that it goes on with what this one left.
func (g *Gateway) Supersede(device string, generation int64, resumed bool) {
	if s := g.registry.supersede(device, generation, resumed); s != nil {
		s.close(mqtt.SessionTakenOver, "another connection of the device took over, on another node")
	}
}

// CutGroup is Cut for all live connections of peers of the group.
func (g *Gateway) CutGroup(group, reason string) int {
	n := g.registry.cutGroup(group, mqtt.AdministrativeAction, reason)
	if n > 0 {
		g.cfg.Log.Info("connections cut", "group", group, "connections", n, "reason", reason)
	}
	return n
}

// Peers lists who has a connection and has proven who they are; a peer with several connections is there as often.
func (g *Gateway) Peers() []Peer { return g.registry.peers() }

// ServeMQTT serves the MQTT door on l (plain TCP; TLS is added here) until ctx ends or Drain is called.
func (g *Gateway) ServeMQTT(ctx context.Context, l net.Listener) error {
	defer l.Close()
	if !g.opened(l, nil) {
		return nil
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	g.accept(ctx, l, doorMQTT, func(l *link, conn *tls.Conn) {
		l.shake(conn) //nolint:errcheck // serve meets the same error
		g.serve(l, conn)
	})
	return nil
}

// accept takes connections of a door until l is closed. Each that the governor lets in is served by a goroutine.
func (g *Gateway) accept(ctx context.Context, l net.Listener, door string, serve func(*link, *tls.Conn)) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of files, most likely: it passes
			g.cfg.Log.Error("accept failed", "door", door, "err", err)
			select {
			case <-g.cfg.Clock.NewTimer(100 * time.Millisecond).C:
			case <-ctx.Done():
			}
			continue
		}
		if lk, secured := g.secure(conn, door); lk != nil {
			g.serving.Go(func() { serve(lk, secured) })
		}
	}
}

// opened notes what Drain has to close; false: it is too late to open a door.
func (g *Gateway) opened(l io.Closer, s *http.Server) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.draining {
		return false
	}
	if s != nil {
		g.servers = append(g.servers, s)
	} else {
		g.closers = append(g.closers, l)
	}
	return true
}

// Drain stops both doors: no new connection; what was received is committed and acknowledged; sessions are told that
// the server is going (0x8B) and closed. It returns early with ctx's error.
func (g *Gateway) Drain(ctx context.Context) error {
	g.mu.Lock()
	g.draining = true
	closers, servers := g.closers, g.servers
	g.mu.Unlock()
	for _, c := range closers {
		c.Close()
	}
	var errs []error
	for _, s := range servers {
		errs = append(errs, s.Shutdown(ctx))
	}
	errs = append(errs, g.batch.wait(ctx), g.answered(ctx))
	for _, l := range g.governor.unknown() {
		l.Close()
	}
	g.sendAway()
	for _, id := range g.registry.ids() {
		g.registry.cut(id, mqtt.ServerShuttingDown, "the platform is shutting down")
	}
	gone := make(chan struct{})
	go func() {
		g.serving.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-ctx.Done():
	}
	return errors.Join(append(errs, g.batch.wait(ctx))...)
}
