// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openthings-platform/openthings/demo"
	"github.com/openthings-platform/openthings/testpeers"
)

const (
	pkiRounds  = 4
	pkiRound   = 500 // certificates
	pkiCallers = 48  // at once, each on connections of its own
	pkiDevices = 250 // so that each renews twice a round: a register of many devices, not of many renewals
)

// issueAgainstPKI counts certificates per CPU-second of the serving process, over HTTPS: the platform's renewals through
// the EST door (client certificate, policy, intent row, signature, register and audit leaves, on disk) beside the sign
// endpoint of Vault's PKI engine. The engine keeps nothing (no_store, storage in memory), or, where it is to be durable,
// each certificate in a file that is on disk before the answer; it has no intent and no log of who got what in either
// case. Rounds are interleaved, so that a busy machine harms both alike.
func issueAgainstPKI(ctx context.Context, binary string, durable bool) (Result, error) {
	f, err := demo.NewFleet(ctx, binary, pkiDevices)
	if err != nil {
		return Result{}, err
	}
	defer f.Close()
	start := testpeers.StartVault
	r := Result{Name: "issue_cpu_vs_pki", Unit: "issues/CPU-s", Baseline: "Vault 1.13 PKI sign, no_store, in memory"}
	if durable {
		dir, err := os.MkdirTemp("", "openthings-bench-")
		if err != nil {
			return Result{}, err
		}
		defer os.RemoveAll(dir)
		start = func(ctx context.Context) (*testpeers.Vault, error) { return testpeers.StartDurableVault(ctx, dir) }
		r.Name, r.Baseline = "issue_cpu_vs_durable_pki", "Vault 1.13 PKI sign, files with fsync"
	}
	v, err := start(ctx)
	if err != nil {
		return Result{}, err
	}
	defer v.Stop() //nolint:errcheck // nobody needs what it holds
	peer, err := newPKIPeer(ctx, v, durable)
	if err != nil {
		return Result{}, err
	}
	ours, err := newDoor(ctx, f)
	if err != nil {
		return Result{}, err
	}
	var platform, engine time.Duration
	for range pkiRounds {
		for _, side := range []struct {
			pid   int
			spent *time.Duration
			make  func(i int) ([]byte, error)
			issue func(ctx context.Context, i int, body []byte) error
		}{{f.PID, &platform, ours.request, ours.issue}, {v.PID(), &engine, peer.request, peer.issue}} {
			bodies := make([][]byte, pkiRound)
			for i := range bodies {
				if bodies[i], err = side.make(i); err != nil {
					return Result{}, err
				}
			}
			before, err := cpuTime(side.pid)
			if err != nil {
				return Result{}, err
			}
			if err := callers(ctx, func(ctx context.Context, i int) error { return side.issue(ctx, i, bodies[i]) }); err != nil {
				return Result{}, err
			}
			after, err := cpuTime(side.pid)
			if err != nil {
				return Result{}, err
			}
			*side.spent += after - before
		}
	}
	r.Value, r.BaselineValue = pkiRounds*pkiRound/platform.Seconds(), pkiRounds*pkiRound/engine.Seconds()
	r.Ratio = r.Value / r.BaselineValue
	return r, nil
}

// callers spreads the certificates of a round over the callers; those of one device stay with one.
func callers(ctx context.Context, issue func(ctx context.Context, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for c := range pkiCallers {
		g.Go(func() error {
			for i := range pkiRound {
				if i%pkiDevices%pkiCallers != c {
					continue
				}
				if err := issue(ctx, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// door is the platform's EST door with one connection for each device.
type door struct {
	url     string
	certs   []tls.Certificate
	leaves  []*x509.Certificate
	clients []*http.Client
}

func newDoor(ctx context.Context, f *demo.Fleet) (*door, error) {
	d := &door{url: f.Devices, certs: f.Certs}
	for _, c := range f.Certs {
		leaf, err := x509.ParseCertificate(c.Certificate[0])
		if err != nil {
			return nil, err
		}
		d.leaves = append(d.leaves, leaf)
		d.clients = append(d.clients, &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: f.Roots, Certificates: []tls.Certificate{c}}}})
	}
	for _, c := range d.clients { // the handshakes are not what is measured
		if err := post(ctx, c, http.MethodGet, d.url+"/.well-known/est/cacerts", nil, nil); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// request is a renewal of device i: a new key, the names that it has.
func (d *door) request(i int) ([]byte, error) {
	leaf := d.leaves[i%len(d.leaves)]
	der, err := newCSR(&x509.CertificateRequest{RawSubject: leaf.RawSubject, URIs: leaf.URIs})
	return []byte(base64.StdEncoding.EncodeToString(der)), err
}

func (d *door) issue(ctx context.Context, i int, body []byte) error {
	return post(ctx, d.clients[i%len(d.clients)], http.MethodPost, d.url+"/.well-known/est/simplereenroll", map[string]string{"Content-Type": "application/pkcs10"}, body)
}

// pkiPeer is the engine with a connection for each caller.
type pkiPeer struct {
	v       *testpeers.Vault
	clients []*http.Client
}

func newPKIPeer(ctx context.Context, v *testpeers.Vault, keeps bool) (*pkiPeer, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(v.CA)) {
		return nil, errors.New("the CA of the engine cannot be read")
	}
	p := &pkiPeer{v: v}
	for range pkiCallers {
		p.clients = append(p.clients, &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}})
	}
	for _, w := range []struct {
		path string
		body map[string]any
	}{
		{"sys/mounts/pki", map[string]any{"type": "pki"}},
		{"pki/root/generate/internal", map[string]any{"common_name": "Bench", "key_type": "ec", "key_bits": 256}},
		{"pki/roles/device", map[string]any{"key_type": "ec", "key_bits": 256, "allow_any_name": true, "enforce_hostnames": false, "cn_validations": "disabled", "no_store": !keeps,
			"use_csr_common_name": false, "use_csr_sans": false, "server_flag": false, "allowed_uri_sans": "urn:openthings:device:*"}},
	} {
		b, err := json.Marshal(w.body)
		if err != nil {
			return nil, err
		}
		if err := p.post(ctx, 0, w.path, b); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *pkiPeer) request(int) ([]byte, error) {
	der, err := newCSR(&x509.CertificateRequest{})
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{"csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), "format": "der",
		"common_name": "dev_bench", "exclude_cn_from_sans": true, "uri_sans": "urn:openthings:device:ten_bench:dev_bench", "ttl": "700h"})
}

func (p *pkiPeer) issue(ctx context.Context, i int, body []byte) error {
	return p.post(ctx, i%pkiDevices%pkiCallers, "pki/sign/device", body)
}

func (p *pkiPeer) post(ctx context.Context, caller int, path string, body []byte) error {
	return post(ctx, p.clients[caller], http.MethodPost, p.v.Address+"/v1/"+path, map[string]string{"X-Vault-Token": p.v.Token, "Content-Type": "application/json"}, body)
}

func newCSR(t *x509.CertificateRequest) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return x509.CreateCertificateRequest(rand.Reader, t, key)
}

func post(ctx context.Context, c *http.Client, method, url string, headers map[string]string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	for k, v := range headers {
		req.Header.Set(k, v)
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %.300s", method, url, resp.Status, b)
	}
	return err
}
