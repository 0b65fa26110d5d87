// SPDX-License-Identifier: AGPL-3.0-only

package demo

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
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/agent"
	"github.com/openthings-platform/openthings/wire"
)

// device is one real agent: its own folder, key and connections.
type device struct {
	n        int
	serial   string
	dir      string
	id       string // given at the line
	claim    string // the code on its box
	solution string // where it was claimed into
	stop     context.CancelFunc
	ended    chan struct{} // closed when the agent has ended
	err      error         // set before ended is closed
}

// factory is a line station: a key, a certificate for as many units as its quota, and the flashed image.
type factory struct {
	cert  tls.Certificate
	roots *x509.CertPool
	url   string // https://host:port of the device door
}

// stationCSR makes the station's key and request.
func stationCSR() (key *ecdsa.PrivateKey, csrPEM string, err error) {
	key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, "", err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "demo line"}}, key)
	if err != nil {
		return nil, "", err
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}

// station joins the certificate that came back with its key.
func station(key *ecdsa.PrivateKey, certPEM string) (tls.Certificate, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair([]byte(certPEM), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// make builds one unit: flash, key, request, IDevID, box.
func (f *factory) make(ctx context.Context, d *device, image []byte, version string, securityVersion int64) error {
	digest, err := agent.Flash(d.dir, image, version, securityVersion)
	if err != nil {
		return err
	}
	csr, err := agent.Provision(d.dir, d.serial)
	if err != nil {
		return err
	}
	b, err := json.Marshal(wire.LineRequest{Serial: d.serial, CSR: string(csr), Firmware: digest})
	if err != nil {
		return err
	}
	var r wire.LineResponse
	if err := deviceDo(ctx, f.url, &f.cert, f.roots, "/d/1/line/devices", b, &r); err != nil {
		return err
	}
	if err := agent.Install(d.dir, r); err != nil {
		return err
	}
	d.id, d.claim = r.Device, r.Claim
	return nil
}

// deviceDo posts JSON on the HTTPS device door with the certificate given.
func deviceDo(ctx context.Context, base string, cert *tls.Certificate, roots *x509.CertPool, path string, body []byte, out any) error {
	conf := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}
	if cert != nil {
		conf.Certificates = []tls.Certificate{*cert}
	}
	tr := &http.Transport{TLSClientConfig: conf}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+path, strings.NewReader(string(body)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Transport: tr, Timeout: time.Minute}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return &refusal{status: resp.StatusCode, body: string(b)}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// refusal is an answer other than success on the device door.
type refusal struct {
	status int
	body   string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("status %d: %s", r.status, strings.TrimSpace(r.body[:min(len(r.body), 300)]))
}

// rule is the policy rule that the answer names.
func (r *refusal) rule() string {
	var p struct{ Rule string }
	json.Unmarshal([]byte(r.body), &p) //nolint:errcheck // an answer that is no problem names no rule
	return p.Rule
}

// switchOn runs the agent until it is switched off or has erased itself.
func (d *device) switchOn(ctx context.Context, w *world) {
	ctx, d.stop = context.WithCancel(ctx)
	d.ended = make(chan struct{})
	cfg := agent.Config{
		Dir: d.dir, HTTPS: hostOf(w.platform.Devices), MQTT: w.platform.MQTT, Product: w.product, Revision: w.revisionName,
		Roots: w.roots, Log: slog.New(slog.DiscardHandler), Interval: time.Second, Retry: 200 * time.Millisecond, Sensors: meter(d.n),
	}
	go func() {
		defer close(d.ended)
		d.err = agent.Supervise(ctx, cfg)
	}()
}

// switchOff cuts the power and waits.
func (d *device) switchOff() {
	if d.stop != nil {
		d.stop()
		<-d.ended
	}
}

// credential reads one of the device's identities from its own folder: "idevid" or "ldevid". The certificates of the
// authorities that came with the unit follow the leaf.
func (d *device) credential(name string) (tls.Certificate, error) {
	c, err := agent.Identity(d.dir, name)
	if err != nil {
		return c, err
	}
	chain, err := os.ReadFile(filepath.Join(d.dir, "chain.pem"))
	if err != nil {
		return c, err
	}
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		c.Certificate = append(c.Certificate, block.Bytes)
	}
	return c, nil
}

// selfSigned is what a stranger shows.
func selfSigned() tls.Certificate {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stranger"}, NotAfter: time.Now().Add(time.Hour)}
	der, _ := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// meter pretends to measure: a daily curve of temperature and power with the device's own phase.
func meter(n int) func() map[string]float64 {
	var mu sync.Mutex
	step := 0
	return func() map[string]float64 {
		mu.Lock()
		defer mu.Unlock()
		step++
		x := float64(step)/20 + float64(n)
		return map[string]float64{
			"temperature": math.Round((21+4*math.Sin(x))*100) / 100,
			"power":       math.Round(500 + 300*math.Sin(x*1.7) + 50*math.Cos(x*9)),
		}
	}
}

// keysLeft lists the private keys in the device's folder: after a wipe there must be none.
func (d *device) keysLeft() ([]string, error) {
	var left []string
	err := filepath.WalkDir(d.dir, func(path string, e os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(b), "PRIVATE KEY") {
			left = append(left, filepath.Base(path))
		}
		return err
	})
	return left, err
}

func hostOf(url string) string { return strings.TrimPrefix(url, "https://") }
