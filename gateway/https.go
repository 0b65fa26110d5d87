// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"mime"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// Route is one entry of Routes.
type Route struct {
	Pattern string
	Need    Kind
	Also    []Kind // further kinds that it takes
}

// Admits says whether the route takes a peer of kind k.
func (r Route) Admits(k Kind) bool {
	return r.Need == None || r.Need == k || slices.Contains(r.Also, k)
}

// Route mounts h on the HTTPS door. The pattern is that of http.ServeMux; need is the kind of certificate that the
// route asks for, None admits anybody, and also names further kinds. A peer of another kind is refused with 403 before
// h runs, and so is one that the register no longer admits. The body that h reads is bounded by Limits.Body. Call it
// before ServeHTTPS.
func (g *Gateway) Route(pattern string, need Kind, h func(http.ResponseWriter, *http.Request, Peer), also ...Kind) {
	route := Route{pattern, need, also}
	g.mu.Lock()
	g.routes = append(g.routes, route)
	g.mu.Unlock()
	g.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		l := r.Context().Value(linkKey{}).(*link)
		if l.peer.Kind == None { // one request each: strangers do not fill the door
			w.Header().Set("Connection", "close")
		}
		if err := g.again(r.Context(), l); err != nil {
			w.Header().Set("Connection", "close")
			if errors.Is(err, errFull) {
				busy(w, "This certificate has as many connections as it may.")
				return
			}
			if !l.peer.Stranger { // a stranger is told why its first visit failed
				err = problem.Forbidden("door.register", "This certificate is no longer admitted.").Because(err)
			}
			WriteProblem(w, err)
			return
		}
		if !route.Admits(l.peer.Kind) {
			g.refused(l.peer, "door.kind", pattern)
			WriteProblem(w, problem.Forbidden("door.kind", "%s needs a certificate of kind %q, this connection has %q.", pattern, need, l.peer.Kind))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, g.cfg.Limits.Body)
		size, ok := g.holdBody(r, l.peer)
		if !ok {
			w.Header().Set("Connection", "close")
			busy(w, "The door has no room for a body of this size now.")
			return
		}
		defer g.memory.give(size)
		h(w, r, l.peer)
	})
}

// firstBody is the length up to which a request's body costs no more than the connection itself.
const firstBody = 4 << 10

// holdBody takes memory for the body of a request. Strangers share a quarter of it.
func (g *Gateway) holdBody(r *http.Request, p Peer) (size int64, ok bool) {
	size = g.cfg.Limits.Body
	if r.ContentLength >= 0 {
		size = min(size, r.ContentLength)
	}
	if size <= firstBody {
		return 0, true
	}
	quarters := int64(4)
	if p.Kind == None {
		quarters = 1
	}
	return size, g.memory.try(size, quarters)
}

// comeBack is how long a peer waits that was told that the door is busy.
const comeBack = 10 * time.Second

// busy refuses for now.
func busy(w http.ResponseWriter, text string) {
	w.Header().Set("Retry-After", strconv.Itoa(int(comeBack/time.Second)))
	WriteProblem(w, problem.Limited("%s", text).Hint("Come back in %s.", comeBack))
}

// Routes lists what was mounted.
func (g *Gateway) Routes() []Route {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.routes)
}

type linkKey struct{}

// secured hands connections whose handshake is over to net/http.
type secured struct {
	net.Listener
	conns chan net.Conn
	ended chan struct{} // closed with the listener
	once  sync.Once
}

func (s *secured) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.ended:
		return nil, net.ErrClosed
	}
}

func (s *secured) Close() error {
	s.once.Do(func() { close(s.ended) })
	return s.Listener.Close()
}

// serve does the handshake, which says what the peer speaks: MQTT stays here, the rest is for net/http, which meets an
// error of the handshake again.
func (s *secured) serve(l *link, conn *tls.Conn) {
	if l.shake(conn) == nil && l.door == doorMQTT {
		l.g.serve(l, conn)
		return
	}
	select {
	case s.conns <- conn:
	case <-s.ended:
		conn.Close()
	}
}

// ServeHTTPS serves the HTTPS door on l (plain TCP; TLS is added here) until ctx ends or Drain is called. A peer whose
// ALPN says "mqtt" gets the MQTT door there, so that a single port, such as 443, is enough for a device.
func (g *Gateway) ServeHTTPS(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           g.mux,
		ReadHeaderTimeout: g.cfg.Limits.Opening,
		ReadTimeout:       time.Minute,
		IdleTimeout:       2 * time.Minute, // a write has the deadline of link.Write: a download may be long, not stuck
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(g.cfg.Log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, linkKey{}, c.(*tls.Conn).NetConn())
		},
		ConnState: func(c net.Conn, s http.ConnState) {
			if l := c.(*tls.Conn).NetConn().(*link); s == http.StateActive && l.peer.Kind != None {
				l.identified()
			}
		},
	}
	if !g.opened(nil, srv) {
		return l.Close()
	}
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	door := &secured{Listener: l, conns: make(chan net.Conn), ended: make(chan struct{})}
	g.serving.Go(func() { g.accept(ctx, l, doorHTTPS, door.serve) })
	err := srv.Serve(door)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// postMessages is the second way for messages: a JSON array of wire.Message, all of them durable or none.
func (g *Gateway) postMessages(w http.ResponseWriter, r *http.Request, p Peer) {
	size := max(0, int(r.ContentLength))
	if o := g.quotas.spend(p, 1, size); o != nil {
		g.refused(p, o.rule, r.URL.Path)
		w.Header().Set("Retry-After", strconv.Itoa(int(o.wait/time.Second)+1))
		WriteProblem(w, o.problem())
		return
	}
	records, err := g.readMessages(r, p)
	if err != nil {
		WriteProblem(w, err)
		return
	}
	for _, rec := range records {
		size -= len(rec.Body)
	}
	g.quotas.charge(p, len(records)-1, max(0, -size))
	if len(records) > 0 {
		done := make(chan error, 1)
		g.batch.add(receipt{done: done}, records...)
		if err := <-done; err != nil {
			if problem.Of(err).Kind == problem.KindInternal {
				err = problem.Unavailable("The messages could not be stored.").Hint("Send them again later.").Because(err)
			}
			WriteProblem(w, err)
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(wire.Receipt{Durable: len(records)}) // the client left, nothing to tell
}

func (g *Gateway) readMessages(r *http.Request, p Peer) ([]Record, error) {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return nil, problem.Invalid("The body has to be application/json.")
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, bodyProblem(err)
	}
	var ms []wire.Message
	if err := json.Unmarshal(body, &ms); err != nil {
		return nil, problem.Invalid("The body is no list of messages.").Because(err)
	}
	if len(ms) > g.cfg.Limits.Messages {
		return nil, problem.TooLarge("A request holds at most %d messages.", g.cfg.Limits.Messages)
	}
	now := g.cfg.Clock.Now().UnixMilli()
	records := make([]Record, 0, len(ms))
	for i, m := range ms {
		at := fmt.Sprintf("[%d]", i)
		if len(m.Topic) > g.cfg.Limits.Topic || !mayPublish(m.Topic) || mqtt.CheckTopic(m.Topic) != nil {
			g.refused(p, "topic.own", m.Topic)
			return nil, problem.Forbidden("topic.own", "A device may not write to topic %q.", m.Topic).At(at + ".topic")
		}
		body := []byte(m.Payload)
		if len(body) == 0 {
			body = m.Data
		}
		if len(body) == 0 || len(m.Payload) > 0 && len(m.Data) > 0 {
			return nil, problem.Invalid("A message has no payload, or two.").At(at + ".payload")
		}
		kind, err := mediaType(m.Type)
		if err != nil {
			return nil, problem.Invalid("%q is no media type.", m.Type).At(at + ".type")
		}
		records = append(records, Record{Tenant: p.Tenant, Device: p.Device, Topic: m.Topic, At: now, Boot: m.Boot, Seq: m.Seq, Type: kind, Body: body})
	}
	return records, nil
}

// mediaType is a media type without its parameters; none stays none.
func mediaType(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	t, _, err := mime.ParseMediaType(s)
	return t, err
}

func bodyProblem(err error) error {
	var long *http.MaxBytesError
	if errors.As(err, &long) {
		return problem.TooLarge("The body is longer than %d bytes.", long.Limit)
	}
	return problem.Invalid("The body could not be read.").Because(err)
}

// WriteProblem answers a request with err as a problem document (RFC 9457), and with Retry-After if err has a method of this
// name that says how long it will hold. What failed inside is not told.
func WriteProblem(w http.ResponseWriter, err error) {
	var passing interface{ RetryAfter() time.Duration }
	if errors.As(err, &passing) {
		w.Header().Set("Retry-After", strconv.FormatInt(int64(math.Ceil(max(passing.RetryAfter(), time.Second).Seconds())), 10))
	}
	e := problem.Of(err)
	k := problem.Kinds[e.Kind]
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(k.Status)
	_ = json.NewEncoder(w).Encode(struct { // the client left, nothing to tell
		Type   string          `json:"type"`
		Title  string          `json:"title"`
		Status int             `json:"status"`
		Detail string          `json:"detail"`
		Hint   string          `json:"hint,omitempty"`
		Rule   string          `json:"rule,omitempty"`
		Errors []problem.Field `json:"errors,omitempty"`
	}{"/problems/" + string(e.Kind), k.Title, k.Status, e.Text, e.Help, e.Rule, e.Fields})
}
