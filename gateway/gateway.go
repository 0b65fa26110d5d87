// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/openthings-platform/openthings/clock"
)

// Kind is the kind of certificate that a peer presented, as Config.Admit judged it.
type Kind string

// The kinds of peers, and what a route may ask for.
const (
	None    Kind = "none"    // no certificate; as a route's need: anybody
	Station Kind = "station" // a line station of a factory
	IDevID  Kind = "idevid"  // a device with its certificate of birth
	LDevID  Kind = "ldevid"  // a commissioned device
)

// Peer is who is at the other end of a connection.
type Peer struct {
	Kind        Kind
	Tenant      string
	Device      string // empty for a station
	Station     string // empty for a device
	Fingerprint string // hex SHA-256 of the certificate
	Cert        *x509.Certificate
}

// id is what Cut is called with; the ids of devices and stations never collide.
func (p Peer) id() string {
	if p.Device != "" {
		return p.Device
	}
	return p.Station
}

// Record is one message of a device.
type Record struct {
	Tenant, Device string
	Topic          string // below the device's root: "tele/env"
	At             int64  // time of receipt, ms since 1970 UTC
	Body           []byte // not shared with anybody
}

// Config is what a Gateway needs. Admit, Append and TLS are mandatory.
type Config struct {
	// Admit says who presents cert, or refuses. It is asked at every handshake and again when a session or a request
	// begins; the register of certificates is its authority.
	Admit func(ctx context.Context, cert *x509.Certificate) (Peer, error)
	// Append makes records durable; nil is the permission to acknowledge all of them. It must not keep the slice.
	// An error of kind problem.KindLimited becomes reason 0x97 (quota exceeded), any other 0x80.
	Append func(ctx context.Context, records []Record) error

	// Online and Offline follow a device's MQTT session; Ready comes after each accepted subscription, when pending
	// downlinks may be sent. They are called one at a time in the order of events and must not block.
	Online  func(Peer)
	Offline func(Peer, string)
	Ready   func(Peer)
	// Refused reports what policy refused an admitted peer: the rule and what it tried. It must not block.
	Refused func(p Peer, rule, detail string)

	TLS    *tls.Config // holds the server's certificate; client authentication is set by the gateway
	Clock  clock.Clock // nil: clock.System
	Log    *slog.Logger
	Limits Limits
}

// Limits bound what one client, and all of them together, can make the gateway hold. A zero field takes its default.
type Limits struct {
	Packet     int           // bytes of one MQTT packet after CONNECT; 256 KiB
	Connect    int           // bytes of a CONNECT packet; 4 KiB
	Topic      int           // bytes of a topic or filter; 256
	Filters    int           // subscriptions of one session; 32
	Receive    int           // QoS 1 publishes of one session not yet acknowledged (Receive Maximum); 64
	Downlinks  int           // QoS 1 publishes to one session not yet acknowledged by it; 16
	Out        int           // bytes queued towards one client beyond which it counts as dead; 1 MiB
	Batch      int           // records of one group commit; 4096
	BatchBytes int           // bytes of one group commit; 8 MiB
	QoS0       int           // records without receipt in one group commit, the rest is dropped and counted; 2048
	Messages   int           // messages of one POST /d/1/messages; 1000
	Body       int64         // bytes of an HTTPS request body; 1 MiB
	PerPeer    int           // connections of one device or station; 16
	Pending    int           // connections of one door that have not said who they are; 1024
	Opening    time.Duration // for handshake and CONNECT, or for an HTTPS request's header; 10 s
	Partial    time.Duration // for the rest of a packet whose beginning arrived; 30 s
	Write      time.Duration // for one write to a socket; 20 s
	KeepAlive  time.Duration // longest silence granted between two packets (Server Keep Alive); 20 min
}

// Errors of Send.
var (
	ErrOffline       = errors.New("the device has no live session")
	ErrNotSubscribed = errors.New("the device is not subscribed to this topic")
)

// Gateway is the device side of the platform. Its methods are safe for concurrent use.
type Gateway struct{}

// New makes a Gateway that has its own route, POST /d/1/messages.
func New(cfg Config) (*Gateway, error) { return &Gateway{}, nil }

// Route mounts h on the HTTPS door. The pattern is that of http.ServeMux; need is the kind of certificate that the
// route asks for, None admits anybody. A peer of another kind is refused with 403 before h runs. Call it before
// ServeHTTPS.
func (g *Gateway) Route(pattern string, need Kind, h func(http.ResponseWriter, *http.Request, Peer)) {
}

// Route is one entry of Routes.
type Route struct {
	Pattern string
	Need    Kind
}

// Routes lists what was mounted.
func (g *Gateway) Routes() []Route { return nil }

// ServeMQTT serves the MQTT door on l (plain TCP; TLS is added here) until ctx ends or Drain is called.
func (g *Gateway) ServeMQTT(ctx context.Context, l net.Listener) error { return nil }

// ServeHTTPS serves the HTTPS door on l (plain TCP; TLS is added here) until ctx ends or Drain is called.
func (g *Gateway) ServeHTTPS(ctx context.Context, l net.Listener) error { return nil }

// Send publishes payload to the device with QoS 1 on topic, which is below the device's root ("cmd/<id>/reboot"), and
// returns nil once the device acknowledged it. ErrOffline and ErrNotSubscribed say that nothing was sent.
func (g *Gateway) Send(ctx context.Context, device, topic string, payload []byte) error { return ErrOffline }

// Cut closes all live connections of a device (or station), MQTT and HTTPS, and says how many there were.
func (g *Gateway) Cut(device, reason string) int { return 0 }

// Live says whether the device has an MQTT session.
func (g *Gateway) Live(device string) bool { return false }

// Count is the number of MQTT sessions.
func (g *Gateway) Count() int { return 0 }

// Drain stops both doors: no new connection, what was received is committed and acknowledged, sessions are told to
// come back (0x8B) and closed.
func (g *Gateway) Drain(ctx context.Context) error { return nil }
