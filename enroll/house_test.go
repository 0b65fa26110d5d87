// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

var schema = []store.Migrations{audit.Schema, tenant.Schema, product.Schema, identity.Schema, enroll.Schema}

// house is everything a device meets on its way in: the real rooms on a real database behind the real device door.
type house struct {
	t        testing.TB
	db       *store.DB
	clock    *clock.Hand
	identity *identity.Service
	enroll   *enroll.Service
	products *product.Service
	tenants  *tenant.Service
	gateway  *gateway.Gateway
	api      *httptest.Server // for programs; the header As names the actor's role
	door     string           // https://localhost:port of the device door
	open     *counting        // the door's listener
	roots    *x509.CertPool
	revision string
	solution string
	logKey   string // verifier key of manifests and permits
	deaf     bool   // the gateway hears of no revocation, as on a node that the feed has yet to reach
}

const ten = "ten_a"

var owner = tenant.Actor{ID: "per_owner", Tenant: ten, Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: ten}}}

func each(t *testing.T, fn func(t *testing.T, h *house)) {
	hand := clock.NewHand(time.Time{})
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		hand.Set(time.Now())
		fn(t, newHouse(t, db, hand))
	}, func(c *store.Config) { c.Clock = hand })
}

func newHouse(t testing.TB, db *store.DB, hand *clock.Hand) *house {
	return newHouseWith(t, db, hand, func(base embedded.Config) (identity.Issuer, error) { return embedded.Open(base) })
}

// newHouseWith is newHouse with another issuer.
func newHouseWith(t testing.TB, db *store.DB, hand *clock.Hand, open func(base embedded.Config) (identity.Issuer, error)) *house {
	t.Helper()
	h := &house{t: t, db: db, clock: hand}
	ctx := context.Background()
	dir := t.TempDir()
	keys, err := seal.Open(filepath.Join(dir, "keys"), hand)
	h.must(err)
	issuer, err := open(embedded.Config{Dir: filepath.Join(dir, "ca"), Keys: keys, Name: "Test", Clock: hand})
	h.must(err)
	h.identity, err = identity.New(identity.Config{DB: db, Issuer: issuer, Clock: hand, Journal: filepath.Join(dir, "journal"),
		Cut: func(id, reason string) int {
			if h.deaf {
				return 0
			}
			return h.gateway.Cut(id, reason)
		},
		Lapsed: func(ctx context.Context, tenant, device string, ended time.Time) error {
			return h.enroll.MayLapse(ctx, tenant, device, ended)
		}})
	h.must(err)
	h.tenants, err = tenant.New(tenant.Config{DB: db, Clock: hand, Log: slog.New(slog.DiscardHandler), Origins: []string{"https://localhost"}})
	h.must(err)
	sign, verify := noteKey(t)
	products := product.New(product.Config{DB: db, Clock: hand, Sign: sign, Verify: verify})
	h.products = products
	h.enroll = enroll.New(enroll.Config{DB: db, Identity: h.identity, Products: products, Tenants: h.tenants, Clock: hand, Keys: keys, Sign: h.signer(), LogKey: func() string { return h.logKey }, PrivateHooks: true,
		TrustRoot: func(context.Context, string) (json.RawMessage, error) { return json.RawMessage(`{"root":1}`), nil }})

	cert, err := h.identity.ServerTLS([]string{"localhost"})
	h.must(err)
	h.gateway, err = gateway.New(gateway.Config{Admit: h.enroll.Admit, Vouch: h.enroll.Vouch, Introduce: h.enroll.Introduce, Used: h.enroll.Used, Spent: h.enroll.Spent, TakenOver: h.enroll.TakenOver, Append: func(context.Context, []gateway.Record) error { return nil },
		TLS: &tls.Config{GetCertificate: cert}, Log: slog.New(slog.DiscardHandler)})
	h.must(err)
	h.enroll.Doors(h.gateway)
	h.roots = x509.NewCertPool()
	h.roots.AppendCertsFromPEM(h.identity.Roots())
	h.serve()

	a := api.New(api.Config{Clock: clock.System, Log: slog.New(slog.DiscardHandler), Holds: tenant.Holds, Caller: func(context.Context) string { return "x" },
		Authenticate: func(r *http.Request) (context.Context, error) {
			who := owner
			if role := r.Header.Get("As"); role != "" {
				who = tenant.Actor{ID: "per_" + role, Tenant: ten, Grants: []tenant.Grant{{Role: tenant.Role(role), Tenant: ten}}}
			}
			return tenant.WithActor(r.Context(), who), nil
		}})
	h.enroll.Routes(a)
	h.identity.Routes(a)
	h.api = httptest.NewTLSServer(a)
	t.Cleanup(h.api.Close)

	p, err := products.Create(ctx, product.Product{Tenant: ten, Name: "Lamp", Model: "lamp"}, owner.ID)
	h.must(err)
	rev, err := products.CreateRevision(ctx, product.Revision{Tenant: ten, Product: p.ID, Name: "A", Placed: hand.Now(), SupportEnd: hand.Now().AddDate(6, 0, 0)}, owner.ID)
	h.must(err)
	h.revision = rev.ID
	h.write(func(tx *store.Tx) error {
		sol, err := h.tenants.CreateSolution(tx, ten, "", "House 1", "A customer", owner.ID)
		h.solution = sol.ID
		return err
	})
	return h
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) write(fn func(tx *store.Tx) error) {
	h.t.Helper()
	h.must(h.db.Write(context.Background(), fn))
}

func (h *house) serve() {
	l, err := net.Listen("tcp", "localhost:0")
	h.must(err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	h.must(err)
	h.door = "https://localhost:" + port
	h.open = &counting{Listener: l, fewer: sync.NewCond(new(sync.Mutex))}
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	served.Go(func() {
		if err := h.gateway.ServeHTTPS(ctx, h.open); err != nil && ctx.Err() == nil {
			h.t.Error(err)
		}
	})
	h.t.Cleanup(func() { cancel(); served.Wait() })
}

// counting is a listener that counts its connections.
type counting struct {
	net.Listener
	fewer *sync.Cond
	n     int // guarded by fewer.L
}

func (l *counting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.count(1)
	return counted{c, sync.OnceFunc(func() { l.count(-1) })}, nil
}

func (l *counting) count(n int) {
	l.fewer.L.Lock()
	defer l.fewer.L.Unlock()
	l.n += n
	l.fewer.Broadcast()
}

// allGone waits until every connection has ended.
func (l *counting) allGone() { l.fewerThan(1) }

// fewerThan waits until fewer than n connections are open, as the door sees it.
func (l *counting) fewerThan(n int) {
	l.fewer.L.Lock()
	defer l.fewer.L.Unlock()
	for l.n >= n {
		l.fewer.Wait()
	}
}

type counted struct {
	net.Conn
	gone func()
}

func (c counted) Close() error {
	defer c.gone()
	return c.Conn.Close()
}

// call asks the API as the owner of the tenant.
func (h *house) call(method, path string, in any) (int, map[string]any) {
	h.t.Helper()
	return h.callAs("", method, path, in)
}

func (h *house) callAs(role, method, path string, in any) (int, map[string]any) {
	h.t.Helper()
	b, err := json.Marshal(in)
	h.must(err)
	r, err := http.NewRequest(method, h.api.URL+path, strings.NewReader(string(b)))
	h.must(err)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("As", role)
	resp, err := h.api.Client().Do(r)
	h.must(err)
	defer resp.Body.Close()
	var out map[string]any
	h.must(json.NewDecoder(resp.Body).Decode(&out))
	return resp.StatusCode, out
}

// identityOf is a key with its certificate.
type credential struct {
	key  *ecdsa.PrivateKey
	cert *tls.Certificate
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func csrFor(t testing.TB, key *ecdsa.PrivateKey, change func(*x509.CertificateRequest)) []byte {
	t.Helper()
	r := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "unit"}}
	if change != nil {
		change(r)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, r, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func csrPEM(t testing.TB, key *ecdsa.PrivateKey) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csrFor(t, key, nil)}))
}

func (h *house) credential(key *ecdsa.PrivateKey, certPEM string) credential {
	h.t.Helper()
	b, _ := pem.Decode([]byte(certPEM))
	if b == nil {
		h.t.Fatalf("no certificate in %q", certPEM)
	}
	return credential{key, &tls.Certificate{Certificate: [][]byte{b.Bytes}, PrivateKey: key}}
}

// station opens a batch and a line station in it.
func (h *house) station(name string, size, quota int64) (credential, string) {
	h.t.Helper()
	code, b := h.call("POST", "/v1/batches", map[string]any{"revision": h.revision, "name": name, "size": size})
	if code != 201 {
		h.t.Fatalf("batch: %d %v", code, b)
	}
	key := newKey(h.t)
	code, s := h.call("POST", "/v1/stations", map[string]any{"batch": b["id"], "name": name, "quota": quota, "csr": csrPEM(h.t, key)})
	if code != 201 {
		h.t.Fatalf("station: %d %v", code, s)
	}
	return h.credential(key, s["certificate"].(string)), s["id"].(string)
}

// do asks the device door.
func (h *house) do(as *credential, method, path, contentType, body string) (int, string) {
	h.t.Helper()
	conf := &tls.Config{RootCAs: h.roots, Time: h.clock.Now}
	if as != nil {
		conf.Certificates = []tls.Certificate{*as.cert}
	}
	tr := &http.Transport{TLSClientConfig: conf}
	defer tr.CloseIdleConnections()
	r, err := http.NewRequest(method, h.door+path, strings.NewReader(body))
	h.must(err)
	r.Header.Set("Content-Type", contentType)
	resp, err := (&http.Client{Transport: tr}).Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	h.must(err)
	return resp.StatusCode, string(b)
}

// line asks a station for a unit.
func (h *house) line(station credential, r wire.LineRequest) (int, wire.LineResponse, string) {
	h.t.Helper()
	b, err := json.Marshal(r)
	h.must(err)
	code, body := h.do(&station, "POST", "/d/1/line/devices", "application/json", string(b))
	var out wire.LineResponse
	if code == 200 {
		h.must(json.Unmarshal([]byte(body), &out))
	}
	return code, out, body
}

// unit makes a unit that is provisioned.
func (h *house) unit(station credential, serial string) (credential, wire.LineResponse) {
	h.t.Helper()
	key := newKey(h.t)
	code, r, body := h.line(station, wire.LineRequest{Serial: serial, CSR: csrPEM(h.t, key)})
	if code != 200 {
		h.t.Fatalf("line: %d %s", code, body)
	}
	return h.credential(key, r.Certificate), r
}
