// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/wire"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// world is a running platform in this process, with its real doors on loopback.
type world struct {
	t            *testing.T
	cfg          Config
	log          *record
	h            *house
	info         Info
	roots        *x509.CertPool
	stop         func()
	clients      int
	expectErrors bool     // the log may tell of failures
	text         []string // secrets that were handed out: none of them may be found anywhere
}

// record is the platform's log.
type record struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.String()
}

// newWorld starts a platform on a folder of its own; database is empty for SQLite.
func newWorld(t *testing.T, database string) *world {
	return newWorldWith(t, func(c *Config) { c.Database = database })
}

// newWorldWith starts a platform with settings of the test's own.
func newWorldWith(t *testing.T, set func(*Config)) *world {
	w := &world{t: t, log: &record{}}
	w.cfg = Config{
		Data: filepath.Join(t.TempDir(), "data"), Listen: "127.0.0.1:0", DeviceListen: "127.0.0.1:0", MQTTListen: "127.0.0.1:0", HealthListen: "127.0.0.1:0",
		Clock: clock.System, Log: slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	set(&w.cfg)
	w.start()
	t.Cleanup(func() {
		w.stop()
		for line := range strings.Lines(w.log.String()) {
			if w.expectErrors {
				break
			}
			if strings.Contains(line, "level=ERROR") || strings.Contains(line, "panic") {
				t.Errorf("the log tells of a failure: %.600s", line)
				break
			}
		}
		if t.Failed() {
			log := w.log.String()
			t.Logf("log of the platform:\n%s", log[max(0, len(log)-20_000):])
		}
	})
	return w
}

// run is Run, with the house kept at hand.
func (w *world) run(ctx context.Context, cfg Config) error {
	if err := checkFolder(cfg.Data); err != nil {
		return err
	}
	host, err := listenHost(cfg.Data)
	if err != nil {
		return err
	}
	defer host.Close()
	d, err := listen(cfg)
	if err != nil {
		return err
	}
	defer d.close()
	cfg.PublicURL = publicURL(cfg, d)
	cfg.Names = hostNames(cfg)
	if w.h, err = open(ctx, cfg, d.origins(cfg.Names)); err != nil {
		return err
	}
	return errors.Join(w.h.serve(ctx, d, host), w.h.close())
}

// start starts the platform and waits until it serves.
func (w *world) start() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan Info, 1), make(chan error, 1)
	cfg := w.cfg
	cfg.Ready = func(i Info) { ready <- i }
	go func() { ended <- w.run(ctx, cfg) }()
	select {
	case w.info = <-ready:
	case err := <-ended:
		cancel()
		w.t.Fatalf("the platform did not start: %v", err)
	}
	b, err := os.ReadFile(w.info.CA)
	if err != nil {
		w.t.Fatal(err)
	}
	w.roots = x509.NewCertPool()
	w.roots.AppendCertsFromPEM(b)
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil && !w.expectErrors {
			w.t.Errorf("the platform ended with %v", err)
		}
	})
}

// token makes a token of the role in the tenant through the host socket.
func (w *world) token(tenant, role string) Token {
	w.t.Helper()
	var tok Token
	if err := Host(w.t.Context(), w.cfg.Data, "/token", map[string]any{"tenant": tenant, "role": role, "create": true}, &tok); err != nil {
		w.t.Fatal(err)
	}
	w.text = append(w.text, tok.Token, tok.Token[strings.LastIndex(tok.Token, "_")+1:])
	return tok
}

// answer is what a door said.
type answer struct {
	status int
	body   []byte
	header http.Header
}

func (a answer) rule() string {
	var p struct{ Rule string }
	json.Unmarshal(a.body, &p) //nolint:errcheck // no problem, no rule
	return p.Rule
}

// from is a loopback address that no client had before: failures cost their address dearly.
func (w *world) from() net.IP {
	w.clients++
	return net.IPv4(127, 0, byte(1+w.clients/250), byte(1+w.clients%250))
}

// client speaks to people's door and, with a certificate, to the devices' door.
func (w *world) client(cert *tls.Certificate) *http.Client {
	conf := &tls.Config{RootCAs: w.roots}
	if cert != nil {
		conf.Certificates = []tls.Certificate{*cert}
	}
	tr := &http.Transport{TLSClientConfig: conf, MaxIdleConnsPerHost: 4, DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: w.from()}}).DialContext}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (w *world) do(c *http.Client, method, url, token, contentType string, body []byte) (answer, error) {
	req, err := http.NewRequestWithContext(w.t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	return answer{resp.StatusCode, b, resp.Header}, err
}

// post sends JSON to the API and wants success.
func (w *world) post(token, path string, in, out any) {
	w.t.Helper()
	b, err := json.Marshal(in)
	if err != nil {
		w.t.Fatal(err)
	}
	a, err := w.do(w.client(nil), "POST", w.info.URL+path, token, "application/json", b)
	if err != nil || a.status >= 300 {
		w.t.Fatalf("POST %s: %d %s %v", path, a.status, a.body, err)
	}
	if out != nil {
		if err := json.Unmarshal(a.body, out); err != nil {
			w.t.Fatal(err)
		}
	}
}

// maker is a tenant with a line station and a solution.
type maker struct {
	w                        *world
	owner                    string // token
	tenant                   string // id
	product, revision, batch string
	stationID, solution      string
	station                  tls.Certificate
	units                    int
}

// newMaker sets up a manufacturer up to its line.
func (w *world) newMaker(name string) *maker {
	w.t.Helper()
	owner := w.token(name, "owner")
	m := &maker{w: w, owner: owner.Token, tenant: owner.Tenant}
	var id struct{ ID, Certificate string }
	w.post(m.owner, "/v1/products", map[string]any{"name": "Lamp", "model": "lamp"}, &id)
	m.product = id.ID
	w.post(m.owner, "/v1/products/"+m.product+"/revisions", map[string]any{"name": "C", "support_end": time.Now().UTC().AddDate(6, 0, 0).Truncate(24 * time.Hour)}, &id)
	m.revision = id.ID
	w.post(m.owner, "/v1/solutions", map[string]any{"name": "harbour", "owner": "Port"}, &id)
	m.solution = id.ID
	w.post(m.owner, "/v1/batches", map[string]any{"revision": m.revision, "name": "1", "size": 20}, &id)
	m.batch = id.ID
	key := newKey(w.t)
	w.post(m.owner, "/v1/stations", map[string]any{"batch": m.batch, "name": "line", "csr": string(csrPEM(w.t, key, "line"))}, &id)
	m.stationID = id.ID
	m.station = pair(w.t, []byte(id.Certificate), key)
	return m
}

// unit is one device with its keys.
type unit struct {
	id, claim      string
	serial         string
	idevid, ldevid tls.Certificate
}

// make takes a unit through line, claim and EST.
func (m *maker) make() *unit {
	m.w.t.Helper()
	m.units++
	return m.makeIn("SN-"+string(rune('A'+m.units)), m.solution)
}

// makeIn is make with a serial number and a solution of the test's own.
func (m *maker) makeIn(serial, solution string) *unit {
	w := m.w
	w.t.Helper()
	u := m.line(serial)
	w.post(m.owner, "/v1/claims", map[string]any{"code": u.claim, "solution": solution}, nil)
	u.ldevid = m.enrol(u)
	return u
}

// boxed makes a unit at the line and returns the code on its box.
func (m *maker) boxed(serial string) string {
	m.w.t.Helper()
	return m.line(serial).claim
}

// line takes a unit through the line.
func (m *maker) line(serial string) *unit {
	t, w := m.w.t, m.w
	t.Helper()
	key := newKey(t)
	b, err := json.Marshal(wire.LineRequest{Serial: serial, CSR: string(csrPEM(t, key, serial))})
	if err != nil {
		t.Fatal(err)
	}
	a, err := w.do(w.client(&m.station), "POST", w.info.Devices+"/d/1/line/devices", "", "application/json", b)
	var r wire.LineResponse
	if err != nil || a.status != 200 || json.Unmarshal(a.body, &r) != nil {
		t.Fatalf("line: %d %s %v", a.status, a.body, err)
	}
	u := &unit{serial: serial, id: r.Device, claim: r.Claim, idevid: pair(t, []byte(r.Certificate), key)}
	w.text = append(w.text, r.Claim, strings.ReplaceAll(r.Claim, "-", ""))
	return u
}

// enrol gets the unit an operational certificate over EST.
func (m *maker) enrol(u *unit) tls.Certificate {
	t, w := m.w.t, m.w
	t.Helper()
	key := newKey(t)
	a, err := w.do(w.client(&u.idevid), "POST", w.info.Devices+"/.well-known/est/simpleenroll", "", "application/pkcs10", csrPEM(t, key, "unit"))
	if err != nil || a.status != 200 {
		t.Fatalf("EST: %d %s %v", a.status, a.body, err)
	}
	cs, err := w.h.identity.Certificates(t.Context(), m.tenant, u.id)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cs {
		x, err := c.Parse()
		if err == nil && c.Kind == identity.LDevID && key.PublicKey.Equal(x.PublicKey) {
			return tls.Certificate{Certificate: [][]byte{c.DER}, PrivateKey: key, Leaf: x}
		}
	}
	t.Fatal("the register does not know the certificate that EST gave")
	return tls.Certificate{}
}

// mqtt opens an MQTT session.
func (w *world) mqtt(cert tls.Certificate) (*mqtt.Client, error) { return w.mqttWith(cert, nil) }

// mqttWith is mqtt with somebody who hears the messages of subscriptions.
func (w *world) mqttWith(cert tls.Certificate, handler func(topic string, body []byte)) (*mqtt.Client, error) {
	conn, err := tls.Dial("tcp", w.info.MQTT, &tls.Config{RootCAs: w.roots, Certificates: []tls.Certificate{cert}})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	return mqtt.NewClient(ctx, conn, mqtt.ClientConfig{Handler: handler})
}

// ready asks the health door.
func (w *world) ready() {
	w.t.Helper()
	a, err := w.do(http.DefaultClient, "GET", w.info.Health+"/readyz", "", "", nil)
	if err != nil || a.status != 200 {
		w.t.Errorf("/readyz: %d %s %v", a.status, a.body, err)
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func csrPEM(t testing.TB, key *ecdsa.PrivateKey, name string) []byte {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func pair(t testing.TB, certPEM []byte, key *ecdsa.PrivateKey) tls.Certificate {
	t.Helper()
	block, _ := pem.Decode(certPEM)
	if block == nil {
		t.Fatalf("no certificate: %s", certPEM)
	}
	x, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key, Leaf: x}
}
