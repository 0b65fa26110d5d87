// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/agent"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/update/trust"
	"github.com/openthings-platform/openthings/wire"
)

// house is a platform as a device sees it: the real gateway on loopback, a CA, EST, and whatever this test wants to
// serve as signed metadata. It may lie: that is what most tests are about.
type house struct {
	t           *testing.T
	g           *gateway.Gateway
	mqtt, https string
	ca          *x509.Certificate
	caKey       *ecdsa.PrivateKey
	heard       chan gateway.Record
	refused     chan struct{} // somebody knocked while shut

	mu       sync.Mutex // guards the fields below
	register map[string]gateway.Peer
	admit    bool          // simpleenroll answers 200; else 403
	life     time.Duration // of LDevIDs
	enrolled int
	renewed  int
	fail     error // of Append, for measurements
	shut     bool  // nobody is admitted
	root     []byte
	targets  []byte
	images   map[string][]byte // by hex digest
	breakAt  int               // the next image breaks off after so many bytes

	back     time.Duration                                          // how far notBefore of an LDevID lies back
	disowned bool                                                   // renewals are certified and not in the register
	keys     map[string]bool                                        // that renewals asked for
	baseline func(http.ResponseWriter, *http.Request, gateway.Peer) // nil: there is no such route

	cacerts   *x509.Certificate // what the platform says of itself
	issuer    *x509.Certificate // of LDevIDs
	issuerKey *ecdsa.PrivateKey
}

func newHouse(t *testing.T) *house {
	h := &house{t: t, life: time.Hour, heard: make(chan gateway.Record, 10000), refused: make(chan struct{}, 10000), register: map[string]gateway.Peer{}, admit: true, images: map[string][]byte{}, keys: map[string]bool{}, back: time.Second}
	h.caKey = newKey(t)
	tmpl := &x509.Certificate{Subject: pkix.Name{CommonName: "test root"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	h.ca = h.sign(tmpl, nil, h.caKey.Public(), time.Hour)
	h.cacerts, h.issuer, h.issuerKey = h.ca, h.ca, h.caKey
	serverKey := newKey(t)
	server := h.sign(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, h.ca, serverKey.Public(), time.Hour)
	g, err := gateway.New(gateway.Config{Admit: h.who, Append: h.append, Log: slog.New(slog.DiscardHandler),
		TLS: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{server.Raw}, PrivateKey: serverKey}}}})
	if err != nil {
		t.Fatal(err)
	}
	h.g = g
	g.Route("GET /.well-known/est/cacerts", gateway.None, func(w http.ResponseWriter, _ *http.Request, _ gateway.Peer) {
		h.mu.Lock()
		defer h.mu.Unlock()
		answer(w, certsOnly(h.t, h.cacerts))
	})
	g.Route("POST /.well-known/est/simpleenroll", gateway.IDevID, h.est)
	g.Route("POST /.well-known/est/simplereenroll", gateway.LDevID, h.est)
	g.Route("POST /d/1/baseline", gateway.IDevID, func(w http.ResponseWriter, r *http.Request, p gateway.Peer) {
		if h.baseline == nil {
			http.NotFound(w, r)
			return
		}
		h.baseline(w, r, p)
	}, gateway.LDevID)
	g.Route("GET /d/1/trust/root.json", gateway.LDevID, func(w http.ResponseWriter, r *http.Request, _ gateway.Peer) { http.NotFound(w, r) })
	g.Route("GET /d/1/ota/{release}/targets.json", gateway.LDevID, func(w http.ResponseWriter, _ *http.Request, _ gateway.Peer) {
		h.mu.Lock()
		defer h.mu.Unlock()
		answer(w, h.targets)
	})
	g.Route("GET /d/1/blob/{sha256}", gateway.LDevID, h.blob)
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	h.mqtt, h.https = h.listen(&served, ctx, g.ServeMQTT), h.listen(&served, ctx, g.ServeHTTPS)
	t.Cleanup(func() { cancel(); served.Wait() })
	return h
}

func (h *house) listen(served *sync.WaitGroup, ctx context.Context, serve func(context.Context, net.Listener) error) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	served.Go(func() {
		if err := serve(ctx, l); err != nil {
			h.t.Errorf("serve: %v", err)
		}
	})
	return l.Addr().String()
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (h *house) sign(tmpl, parent *x509.Certificate, pub crypto.PublicKey, life time.Duration) *x509.Certificate {
	return h.signBy(h.caKey, tmpl, parent, pub, life)
}

func (h *house) signBy(key *ecdsa.PrivateKey, tmpl, parent *x509.Certificate, pub crypto.PublicKey, life time.Duration) *x509.Certificate {
	h.mu.Lock()
	back := h.back
	h.mu.Unlock()
	tmpl.SerialNumber, tmpl.NotBefore, tmpl.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-back), time.Now().Add(life)
	if parent == nil {
		parent = tmpl
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, key)
	if err != nil {
		h.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// device signs a client certificate and puts it into the register.
func (h *house) device(kind gateway.Kind, id string, pub crypto.PublicKey, life time.Duration) *x509.Certificate {
	h.mu.Lock()
	issuer, key := h.issuer, h.issuerKey
	h.mu.Unlock()
	c := h.signBy(key, &x509.Certificate{Subject: pkix.Name{CommonName: id}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, issuer, pub, life)
	fp := sha256.Sum256(c.Raw)
	name := hex.EncodeToString(fp[:])
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.disowned {
		return c
	}
	h.register[name] = gateway.Peer{Kind: kind, Tenant: "ten_t", Device: id, Fingerprint: name, Cert: c}
	return c
}

func (h *house) who(_ context.Context, cert *x509.Certificate) (gateway.Peer, error) {
	fp := sha256.Sum256(cert.Raw)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.shut {
		h.refused <- struct{}{}
		return gateway.Peer{}, errors.New("shut")
	}
	p, ok := h.register[hex.EncodeToString(fp[:])]
	if !ok || time.Now().After(cert.NotAfter) {
		return gateway.Peer{}, errors.New("not in the register")
	}
	return p, nil
}

func (h *house) append(_ context.Context, records []gateway.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range records {
		if h.fail != nil && strings.HasPrefix(r.Topic, "tele/") {
			return h.fail
		}
		h.heard <- r
	}
	return nil
}

func (h *house) set(edit func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	edit()
}

func answer(w http.ResponseWriter, b []byte) { _, _ = w.Write(b) }

func (h *house) est(w http.ResponseWriter, r *http.Request, p gateway.Peer) {
	b, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, r.Body))
	if err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	csr, err := x509.ParseCertificateRequest(b)
	if err != nil || csr.CheckSignature() != nil {
		http.Error(w, "bad request", 400)
		return
	}
	h.mu.Lock()
	admit, life := h.admit, h.life
	if p.Kind == gateway.LDevID {
		h.renewed++
		h.keys[string(csr.RawSubjectPublicKeyInfo)] = true
	} else if admit {
		h.enrolled++
	}
	h.mu.Unlock()
	if !admit {
		http.Error(w, "not claimed yet", http.StatusForbidden)
		return
	}
	answer(w, certsOnly(h.t, h.device(gateway.LDevID, p.Device, csr.PublicKey, life)))
}

// certsOnly is the degenerate CMS of RFC 7030 4.1.3, in base64.
func certsOnly(t *testing.T, c *x509.Certificate) []byte {
	signed, err := asn1.Marshal(struct {
		Version      int
		Digests      []asn1.RawValue `asn1:"set"`
		Content      struct{ Type asn1.ObjectIdentifier }
		Certificates asn1.RawValue
		Signers      []asn1.RawValue `asn1:"set"`
	}{1, []asn1.RawValue{}, struct{ Type asn1.ObjectIdentifier }{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}},
		asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: c.Raw}, []asn1.RawValue{}})
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue
	}{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: signed}})
	if err != nil {
		t.Fatal(err)
	}
	return []byte(base64.StdEncoding.EncodeToString(der))
}

func (h *house) blob(w http.ResponseWriter, r *http.Request, _ gateway.Peer) {
	h.mu.Lock()
	image, ok := h.images[r.PathValue("sha256")]
	n := h.breakAt
	h.breakAt = 0
	h.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	if n > 0 { // half of it, then the connection breaks
		w.Header().Set("Content-Length", "1000000")
		answer(w, image[:n])
		panic(http.ErrAbortHandler)
	}
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(image)))
}

// unit is one device under test.
type unit struct {
	h      *house
	id     string
	dir    string
	key    *ecdsa.PublicKey // of the IDevID
	signer crypto.Signer    // the manufacturer's targets key
	cfg    agent.Config
	stop   context.CancelFunc
	ended  chan error
}

const factoryImage = "factory image"

// born provisions a unit with a root that trusts a fresh targets key; it is not switched on yet.
func (h *house) born(id string) *unit {
	u := &unit{h: h, id: id, dir: h.t.TempDir() + "/state"}
	var err error
	if u.signer, err = trust.GenerateKey(rand.Reader); err != nil {
		h.t.Fatal(err)
	}
	pub := []crypto.PublicKey{u.signer.Public()}
	root, err := trust.NewRoot(trust.RootSpec{Version: 1, Expires: time.Now().AddDate(1, 0, 0), RootKeys: pub, RootThreshold: 1, TargetsKeys: pub, TargetsThreshold: 1}, u.signer)
	if err != nil {
		h.t.Fatal(err)
	}
	csrPEM, err := agent.Provision(u.dir, "SN-"+id)
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := agent.Flash(u.dir, []byte(factoryImage), "1.0.0", 3); err != nil {
		h.t.Fatal(err)
	}
	block, _ := pem.Decode(csrPEM)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		h.t.Fatal(err)
	}
	u.key = csr.PublicKey.(*ecdsa.PublicKey)
	encode := func(c *x509.Certificate) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	err = agent.Install(u.dir, wire.LineResponse{Device: id, Certificate: encode(h.device(gateway.IDevID, id, u.key, time.Hour)), Chain: encode(h.ca), TrustRoot: root})
	if err != nil {
		h.t.Fatal(err)
	}
	u.cfg = agent.Config{Dir: u.dir, HTTPS: h.https, MQTT: h.mqtt, Product: "prd_lamp", Revision: "rev-c", Interval: time.Hour, Retry: 5 * time.Millisecond}
	return u
}

// on supervises the unit until off or the end of the test.
func (u *unit) on() *unit {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	u.stop, u.ended = cancel, ended
	go func() { ended <- agent.Supervise(ctx, u.cfg) }()
	u.h.t.Cleanup(func() {
		cancel()
		<-ended
	})
	return u
}

// off cuts the power.
func (u *unit) off() {
	u.stop()
	err := <-u.ended
	u.ended <- err // for the clean-up
}

// await returns the next record on a topic (a suffix will do) that want accepts; JSON is decoded into a T.
func await[T any](h *house, topic string, want func(T) bool) T {
	h.t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case r := <-h.heard:
			var v T
			if !strings.HasSuffix(r.Topic, topic) {
				continue
			}
			if err := json.Unmarshal(r.Body, &v); err != nil {
				h.t.Fatalf("%s: %v in %s", r.Topic, err, r.Body)
			}
			if want(v) {
				return v
			}
		case <-deadline:
			h.t.Fatalf("nothing fitting came on %s", topic)
		}
	}
}

// forget drops what was heard so far.
func (h *house) forget() {
	for {
		select {
		case <-h.heard:
		default:
			return
		}
	}
}

// eventually looks again and again at something that tells nobody when it changes: a file of another process's.
func eventually(t *testing.T, what func() bool) {
	t.Helper()
	tick, deadline := time.NewTicker(time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for !what() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it did not come about")
		}
	}
}

func anyInventory(wire.Inventory) bool { return true }

// image puts an image on the server and returns the target that describes it.
func (h *house) image(version string, security int64, content string) trust.Target {
	digest := wire.Digest([]byte(content))
	h.set(func() { h.images[strings.TrimPrefix(digest, "sha256:")] = []byte(content) })
	return trust.Target{Path: "lamp/" + version, Length: int64(len(content)), SHA256: digest, Product: "prd_lamp", HW: []string{"rev-c"}, Version: version,
		SecurityVersion: security, Class: trust.ClassFeature, SBOM: wire.Digest(nil)}
}

// list serves a signed list of releases.
func (u *unit) list(version int64, signer crypto.Signer, targets ...trust.Target) {
	b, err := trust.SignTargets(version, time.Now().AddDate(0, 1, 0), targets, signer)
	if err != nil {
		u.h.t.Fatal(err)
	}
	u.h.set(func() { u.h.targets = b })
}

// send publishes to the unit once it is connected.
func (u *unit) send(topic string, v any) {
	u.h.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		u.h.t.Fatal(err)
	}
	if err := u.h.g.Send(u.h.t.Context(), gateway.Downlink{Device: u.id, Topic: topic, Payload: b}); err != nil {
		u.h.t.Fatalf("send %s: %v", topic, err)
	}
}

func (u *unit) offer(update string, t trust.Target) {
	u.h.t.Helper()
	u.send(wire.TopicOffer, wire.Offer{Update: update, Release: "rel_1", Target: t.Path, NotAfter: time.Now().Add(time.Hour).UnixMilli()})
}
