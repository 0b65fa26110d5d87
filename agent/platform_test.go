// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/agent"
	"github.com/openthings-platform/openthings/agent/keys"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/ceremony"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

const ten = "ten_a"

// platform is the real one as far as a device's identity goes: register, authorities, bundles and both device doors, on
// a real database, under a clock that the test turns.
type platform struct {
	t           *testing.T
	db          *store.DB
	hand        *clock.Hand
	issuer      *embedded.Issuer
	identity    *identity.Service
	enroll      *enroll.Service
	gateway     *gateway.Gateway
	mqtt, https string
	heard       chan gateway.Record
	gone        chan string // devices whose session has ended, and why
	sessions    *fleet.Sessions
	shown       chan string // server names that devices asked for
	admitted    sync.Map    // kinds of certificates that were admitted
	recoveries  []ceremony.Held
	unkept      atomic.Bool  // the platform can keep no session: it lets a device in and has no place for it
	turnedAway  atomic.Int64 // how often that happened
	spent       atomic.Int64 // how often a certificate was shown whose successor had been used
	revision    string
	product     string
}

// twoSpeed is a hand-turned clock that also goes by itself: back-offs pass, weeks are turned.
type twoSpeed struct {
	*clock.Hand
	began time.Time
}

func (c twoSpeed) Now() time.Time { return c.Hand.Now().Add(time.Since(c.began)) }

func (c twoSpeed) NewTimer(d time.Duration) *clock.Timer {
	if d <= time.Minute {
		return clock.System.NewTimer(d)
	}
	return c.Hand.NewTimer(d)
}

// start is when the stories begin: months ahead of this machine's clock, by which software TPMs are made and the agent runs
// as a process.
var start = time.Now().UTC().Truncate(time.Second).AddDate(0, 4, 0)

func newPlatform(t *testing.T) *platform {
	t.Helper()
	h := &platform{t: t, hand: clock.NewHand(start), heard: make(chan gateway.Record, 10000), gone: make(chan string, 10000), shown: make(chan string, 10000)}
	schema := []store.Migrations{seal.Schema, audit.Schema, tenant.Schema, product.Schema, identity.Schema, enroll.Schema, fleet.Schema}
	h.db = storetest.Open(t, storetest.SQLiteURL(t), schema, func(c *store.Config) { c.Clock = h.hand })
	dir := t.TempDir()
	sealed := ok(seal.Open(filepath.Join(dir, "keys"), h.hand))(t)
	h.issuer = ok(embedded.Open(embedded.Config{Dir: filepath.Join(dir, "ca"), Keys: sealed, Name: "Test", Clock: h.hand}))(t)
	h.identity = ok(identity.New(identity.Config{DB: h.db, Issuer: h.issuer, Clock: h.hand, Journal: filepath.Join(dir, "journal"),
		Cut: func(id, reason string) int { return h.gateway.Cut(id, reason) }}))(t)
	tenants := ok(tenant.New(tenant.Config{DB: h.db, Clock: h.hand, Log: slog.New(slog.DiscardHandler), Origins: []string{"https://localhost"}}))(t)
	products := product.New(product.Config{DB: h.db, Clock: h.hand})
	certificate := ok(h.identity.ServerTLS([]string{"127.0.0.1"}))(t)
	hear := func(_ context.Context, records []gateway.Record) error {
		for _, r := range records {
			h.heard <- r
		}
		return nil
	}
	h.sessions = fleet.NewSessions(fleet.SessionsConfig{DB: h.db, Keys: sealed, Clock: h.hand, Log: slog.New(slog.DiscardHandler), Append: hear,
		Supersede: func(device string, generation int64, resumed bool) { h.gateway.Supersede(device, generation, resumed) }})
	keeper := h.sessions.Keeper()
	begin := keeper.Begin
	keeper.Begin = func(ctx context.Context, o gateway.Opening) (gateway.Resumed, error) {
		if h.unkept.Load() {
			h.turnedAway.Add(1)
			return gateway.Resumed{}, errors.New("no session can be kept")
		}
		return begin(ctx, o)
	}
	h.gateway = ok(gateway.New(gateway.Config{
		Sessions: keeper, Append: hear,
		Offline: func(p gateway.Peer, reason string) { h.gone <- p.Device + ": " + reason },
		Admit: func(ctx context.Context, cert *x509.Certificate) (gateway.Peer, error) {
			p, err := h.identity.Admit(ctx, cert)
			if err == nil {
				h.admitted.Store(string(p.Kind), true)
			}
			if errors.Is(err, gateway.ErrSpent) {
				h.spent.Add(1)
			}
			return p, err
		},
		Used: h.identity.Used, Log: slog.New(slog.DiscardHandler),
		TLS: &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			h.shown <- hello.ServerName
			return certificate(hello)
		}}}))(t)
	h.enroll = enroll.New(enroll.Config{DB: h.db, Identity: h.identity, Products: products, Tenants: tenants, Clock: h.hand})
	h.enroll.Doors(h.gateway)
	h.identity.TrustDoors(h.gateway)
	p := ok(products.Create(t.Context(), product.Product{Tenant: ten, Name: "Lamp", Model: "lamp"}, "per_1"))(t)
	r := ok(products.CreateRevision(t.Context(), product.Revision{Tenant: ten, Product: p.ID, Name: "A", Placed: start, SupportEnd: start.AddDate(20, 0, 0)}, "per_1"))(t)
	h.product, h.revision = p.ID, r.ID
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	listen := func(serve func(context.Context, net.Listener) error) string {
		l := ok(net.Listen("tcp", "127.0.0.1:0"))(t)
		served.Go(func() {
			if err := serve(ctx, l); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		})
		return l.Addr().String()
	}
	h.mqtt, h.https = listen(h.gateway.ServeMQTT), listen(h.gateway.ServeHTTPS)
	t.Cleanup(func() { cancel(); served.Wait() })
	return h
}

// ok is for a result with an error that must not be.
func ok[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (h *platform) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// device is a unit of the real platform.
type device struct {
	h   *platform
	id  string
	dir string
	cfg agent.Config
	off func()
}

// born makes a unit, with a bundle from the line if the platform has one, and claims it.
func (h *platform) born(serial string) *device { return h.bornWith(serial, keys.KindFile) }

// bornWith is born with the keys in that store.
func (h *platform) bornWith(serial, where string) *device {
	h.t.Helper()
	d := &device{h: h, dir: filepath.Join(h.t.TempDir(), "state"), off: func() {}}
	csr := ok(identity.ParseCSRPEM(string(ok(agent.ProvisionIn(d.dir, serial, where))(h.t))))(h.t)
	_, err := agent.Flash(d.dir, []byte(factoryImage), "1.0.0", 3)
	h.must(err)
	h.must(h.db.Write(h.t.Context(), func(tx *store.Tx) error {
		row, err := h.identity.Register(tx, identity.Device{Tenant: ten, Product: h.product, Revision: h.revision, Serial: serial}, "per_1")
		d.id = row.ID
		return err
	}))
	cert, _, err := h.identity.Issue(h.t.Context(), identity.IssueRequest{Tenant: ten, Subject: d.id, Kind: identity.IDevID, CSR: csr, Actor: "per_1"})
	h.must(err)
	h.must(agent.Install(d.dir, wire.LineResponse{Device: d.id, Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.DER})),
		Chain: string(ok(h.identity.Chain(h.t.Context(), identity.IDevID))(h.t)), Bundle: ok(h.identity.SignedBundle(h.t.Context()))(h.t)}))
	h.must(h.db.Write(h.t.Context(), func(tx *store.Tx) error {
		return h.identity.SetState(tx, ten, d.id, identity.Pending, "per_1", "claimed")
	}))
	d.cfg = agent.Config{Dir: d.dir, HTTPS: h.https, MQTT: h.mqtt, Product: h.product, Revision: "A", Interval: 1000 * time.Hour,
		Retry: 5 * time.Millisecond, Clock: twoSpeed{h.hand, time.Now()}}
	return d
}

// on supervises the unit until off or the end of the test.
func (d *device) on() *device {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- agent.Supervise(ctx, d.cfg) }()
	d.off = sync.OnceFunc(func() {
		cancel()
		<-ended
	})
	d.h.t.Cleanup(d.off)
	return d
}

// inventory is the unit's next one that want accepts.
func (d *device) inventory(want func(wire.Inventory) bool) wire.Inventory {
	h := d.h
	h.t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case r := <-h.heard:
			var inv wire.Inventory
			if r.Device != d.id || r.Topic != wire.TopicInv {
				continue
			}
			h.must(json.Unmarshal(r.Body, &inv))
			if want(inv) {
				return inv
			}
		case <-deadline:
			h.t.Fatal("no fitting inventory came")
		}
	}
}

// forget drops what was heard and seen so far.
func (h *platform) forget() (names map[string]int) {
	names = map[string]int{}
	for {
		select {
		case <-h.heard:
		case n := <-h.shown:
			names[n]++
		default:
			return names
		}
	}
}

// certificates of the unit, by kind and phase.
func (d *device) certificates() map[string]int {
	d.h.t.Helper()
	out := map[string]int{}
	for _, c := range ok(d.h.identity.Certificates(d.h.t.Context(), ten, d.id))(d.h.t) {
		out[string(c.Kind)+" "+string(c.Phase)]++
	}
	return out
}

// identities is how many devices the platform knows.
func (h *platform) identities() int {
	h.t.Helper()
	return len(ok(h.identity.List(h.t.Context(), ten, identity.Filter{}))(h.t))
}

// held is the key of a root or anchor that is still on the platform's machine.
func (h *platform) held(id string) ceremony.Held {
	h.t.Helper()
	for _, r := range h.recoveries {
		if r.ID == id {
			return r
		}
	}
	a := ok(h.identity.Authority(h.t.Context(), id))(h.t)
	return ceremony.Held{ID: id, Role: a.Role, Cert: ok(x509.ParseCertificate(a.Cert))(h.t), Key: ok(h.issuer.RootKey(h.t.Context(), id))(h.t)}
}

// rollover changes the root, and every authority below it, to the generation given. With bridges the anchor changes as
// well, and old and new certify each other; without, devices that were away have the anchor only.
func (h *platform) rollover(generation int64, bridged bool) {
	h.t.Helper()
	ctx := h.t.Context()
	made := ok(ceremony.Make(ceremony.Options{Organization: "Test", Generation: generation, Algorithm: identity.AlgP256, Now: h.hand.Now()}))(h.t)
	roles := []identity.Role{identity.Factory, identity.Operational, identity.Server}
	signers := []crypto.Signer{h.held(identity.AuthorityID(identity.Anchor, 1)).Key}
	if bridged {
		roles = append(roles, identity.Bootstrap)
		signers = []crypto.Signer{h.held(identity.AuthorityID(identity.Anchor, generation-1)).Key}
	}
	for _, x := range made.Held {
		if x.Role == identity.Anchor && !bridged {
			continue
		}
		old := h.held(identity.AuthorityID(x.Role, generation-1))
		_, err := h.identity.InstallAuthority(ctx, x.Cert.Raw, "host")
		h.must(err)
		h.recoveries = append(h.recoveries, x)
		if !bridged {
			continue
		}
		if x.Role == identity.Anchor {
			signers = append(signers, x.Key)
		}
		for _, b := range ok(ceremony.CrossSign(old, x, h.hand.Now()))(h.t) {
			_, err := h.identity.InstallAuthority(ctx, b.Raw, "host")
			h.must(err)
		}
	}
	for _, role := range roles {
		_, csr, err := h.identity.RequestAuthority(ctx, role, identity.AlgP256, "host")
		h.must(err)
		cert := ok(made.Certify(ok(ceremony.ParseRequest(csr))(h.t), h.hand.Now()))(h.t)
		_, err = h.identity.InstallAuthority(ctx, cert.Raw, "host")
		h.must(err)
	}
	draft := ok(h.identity.DraftBundle(ctx))(h.t)
	h.must(h.identity.PublishBundle(ctx, ok(wire.SignBundle(rand.Reader, draft, signers...))(h.t), "host"))
	for _, role := range roles {
		ok(h.identity.PromoteAuthority(ctx, identity.AuthorityID(role, generation), 99, "the device of this test is away", "host"))(h.t)
	}
}
