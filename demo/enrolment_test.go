// SPDX-License-Identifier: AGPL-3.0-only

package demo

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"path/filepath"
	"testing"
	"time"
)

// enrolment is what happens at the doors of the house beside its own line, as the pages of Enrol show it.
type enrolment struct {
	station, batch string // of a second line, whose batch has a surplus and is revoked
	guest          string // serial number of a device that waits in the lobby
	clone          string // serial number that was seen twice
	spare          *device
}

// enrolOthers lets each way of enrolment happen once: announced serial numbers, a token, a device in the lobby, a clone,
// a trusted CA that is not proven yet, a policy, a baseline, a hook, and a batch that is revoked as a whole.
func (w *world) enrolOthers(ctx context.Context, t *testing.T) enrolment {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	e := enrolment{guest: "LMP-20001", clone: "LMP-20002", spare: &device{serial: "LMP-30001", dir: filepath.Join(w.dir, "devices", "spare")}}

	csv := "serial,order,line,part,label:site\nLMP-40001,PO-4711,line 4,LMP-C,kiel\nLMP-40002,PO-4711,line 4,LMP-C,kiel\nLMP-40003,PO-4712,line 4,LMP-C,\n"
	must(w.post(ctx, "/v1/preauthorised/import"+query("product", w.product), bytes.NewReader([]byte(csv)), nil))
	must(w.api.Do(ctx, http.MethodPut, "/v1/enrolment-policies/field", map[string]any{"keys": []string{"ecdsa-p256", "ed25519"}, "leaf_days": 45, "preauthorised": true}, nil))

	// A manufacturer's CA that was uploaded; nobody has proven its key.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"Lumen"}, CommonName: "Lumen device CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(20, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	must(err)
	must(w.post(ctx, "/v1/trusted-cas", map[string]any{"name": "Lumen", "quota": 5000, "certificates": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		"policy": map[string]any{"mapping": map[string]any{"serial": map[string]any{"field": "subject.serialNumber"}, "revision": w.revision}}}, nil))

	// Devices with a token and no solution wait in the lobby; one serial number comes with two keys.
	var token struct{ Token string }
	must(w.post(ctx, "/v1/enrol-tokens", map[string]any{"name": "lot 7", "revision": w.revision, "pattern": `LMP-2\d{4}`, "quota": 5}, &token))
	for _, serial := range []string{e.guest, e.clone, e.clone} {
		w.exchange(ctx, t, token.Token, serial)
	}

	// A second line: two units, one of them a surplus, then the batch is revoked.
	var b struct{ ID string }
	must(w.post(ctx, "/v1/batches", map[string]any{"revision": w.revision, "name": "2026-48", "size": 4}, &b))
	e.batch = b.ID
	e.station = w.second(ctx, t, b.ID, "line 4", e.spare, &device{serial: "LMP-30002", dir: filepath.Join(w.dir, "devices", "surplus")})
	must(w.post(ctx, "/v1/batches/"+b.ID+"/produced", bytes.NewReader([]byte("serial\nLMP-30001\n")), nil))
	var spoilt struct{ ID string }
	must(w.post(ctx, "/v1/batches", map[string]any{"revision": w.revision, "name": "2026-49", "size": 1}, &spoilt))
	w.second(ctx, t, spoilt.ID, "line 5", &device{serial: "LMP-30003", dir: filepath.Join(w.dir, "devices", "spoilt")})
	must(w.post(ctx, "/v1/revocations", map[string]any{"scope": "batch", "id": spoilt.ID, "reason": "the flash of this lot leaks its keys"}, nil))

	must(w.api.Do(ctx, http.MethodPut, "/v1/products/"+w.product+"/baseline", map[string]any{"secure_boot": true, "least_tls": "1.3"}, nil))
	must(w.post(ctx, "/v1/hooks", map[string]any{"url": "https://erp.example/allow"}, nil)) // the last: it gives no answer, so nobody else gets in
	return e
}

// second admits a station to the batch and lets it make the units.
func (w *world) second(ctx context.Context, t *testing.T, batch, name string, units ...*device) string {
	t.Helper()
	key, csr, err := stationCSR()
	if err != nil {
		t.Fatal(err)
	}
	var st struct{ ID, Certificate string }
	if err := w.post(ctx, "/v1/stations", map[string]any{"batch": batch, "name": name, "quota": len(units), "csr": csr}, &st); err != nil {
		t.Fatal(err)
	}
	f := &factory{url: w.platform.Devices, roots: w.roots}
	if f.cert, err = station(key, st.Certificate); err != nil {
		t.Fatal(err)
	}
	firmware, err := image(first)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range units {
		if err := f.make(ctx, d, firmware, first, 1); err != nil {
			t.Fatal(err)
		}
	}
	return st.ID
}

// exchange asks for a certificate with an enrolment token, as a unit with this serial number and a new key.
func (w *world) exchange(ctx context.Context, t *testing.T, token, serial string) (int, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{SerialNumber: serial}}, key)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.platform.Devices+"/.well-known/est/token/simpleenroll", bytes.NewReader(csr))
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("any", token)
	r.Header.Set("Content-Type", "application/pkcs10")
	tr := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: w.roots}}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// narrow are the pages that a telephone shows.
func (e enrolment) narrow(w *world) map[string]string {
	out := map[string]string{"claim": "/claim", "claim-code": "/claim?code=" + e.spare.claim, "batch": "/enrol/batches/" + e.batch, "station": "/enrol/stations/" + e.station, "revocations": "/revocations"}
	for _, name := range []string{"serials", "lobby", "admission", "quarantine", "hooks", "policies", "labels"} {
		out[name] = "/enrol/" + name
	}
	out["product"] = fmt.Sprintf("/products/%s", w.product)
	return out
}
