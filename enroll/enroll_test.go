// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

// enrol asks EST for an LDevID and returns it.
func (h *house) enrol(as credential, path string, csr []byte) (int, string) {
	h.t.Helper()
	return h.do(&as, "POST", "/.well-known/est/"+path, "application/pkcs10", base64.StdEncoding.EncodeToString(csr))
}

// claim claims as the owner.
func (h *house) claim(code string) (int, map[string]any) {
	h.t.Helper()
	return h.call("POST", "/v1/claims", map[string]any{"code": code, "solution": h.solution})
}

// ldevid gives a claimed unit an LDevID.
func (h *house) ldevid(idevid credential) credential {
	h.t.Helper()
	key := newKey(h.t)
	if code, body := h.enrol(idevid, "simpleenroll", csrFor(h.t, key, nil)); code != 200 {
		h.t.Fatalf("simpleenroll: %d %s", code, body)
	}
	return h.issued(key)
}

// issued finds the certificate of a key in the register.
func (h *house) issued(key *ecdsa.PrivateKey) credential {
	h.t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	h.must(err)
	var der []byte
	h.must(h.db.QueryRow(context.Background(), `SELECT der FROM certificate WHERE key_hash = $1`, identity.KeyHash(spki)).Scan(&der))
	return credential{key, &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
}

func (h *house) count(query string, args ...any) (n int64) {
	h.t.Helper()
	h.must(h.db.QueryRow(context.Background(), query, args...).Scan(&n))
	return n
}

func TestLine(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		st, id := h.station("B1", 10, 3)
		key := newKey(t)
		r := wire.LineRequest{Serial: "L1", CSR: csrPEM(t, key)}
		_, first, _ := h.line(st, r)
		code, again, body := h.line(st, r) // the answer was lost
		if code != 200 || again.Device != first.Device || again.Certificate != first.Certificate || again.Claim == first.Claim {
			t.Fatalf("repeat: %d %s", code, body)
		}
		if code, m := h.claim(first.Claim); code != 404 {
			t.Errorf("the lost claim code still works: %d %v", code, m)
		}
		if code, _, body := h.line(st, wire.LineRequest{Serial: "L1", CSR: csrPEM(t, newKey(t))}); code != 409 {
			t.Errorf("the serial number with another key: %d %s", code, body)
		}
		if code, _, body := h.line(st, wire.LineRequest{Serial: "L2", CSR: csrPEM(t, key)}); code != 409 {
			t.Errorf("the key with another serial number (clone): %d %s", code, body)
		}
		if got := h.count(`SELECT used FROM station WHERE id = $1`, id); got != 1 {
			t.Errorf("%d units counted, want 1", got)
		}
		if code, m := h.claim(again.Claim); code != 409 {
			t.Errorf("claimed while it is suspected to be a clone: %d %v", code, m)
		}
		h.must(h.identity.Resume(context.Background(), ten, again.Device, owner.ID, "the label was printed twice"))
		if code, m := h.claim(again.Claim); code != 201 {
			t.Errorf("claim: %d %v", code, m)
		}
		if code, _, body := h.line(st, r); code != 403 {
			t.Errorf("a claimed unit is made again: %d %s", code, body)
		}
		// Only its hash is kept.
		if n := h.count(`SELECT count(*) FROM claim WHERE code_hash LIKE $1 OR length(code_hash) <> 64`, "%"+again.Claim[:5]+"%"); n != 0 {
			t.Error("a claim code is stored in the clear")
		}
	})
}

func TestQuota(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		st, id := h.station("B1", 5, 3)
		var mu sync.Mutex
		codes := map[int]int{}
		var wg sync.WaitGroup
		for i := range 8 { // all at once: the count is taken in the transaction
			wg.Go(func() {
				code, _, body := h.line(st, wire.LineRequest{Serial: fmt.Sprintf("L%d", i), CSR: csrPEM(t, newKey(t))})
				mu.Lock()
				defer mu.Unlock()
				codes[code]++
				if code == 403 && !strings.Contains(body, "line.quota") {
					t.Errorf("refused without its rule: %s", body)
				}
			})
		}
		wg.Wait()
		if codes[200] != 3 || codes[403] != 5 {
			t.Errorf("%v, want 3 made and 5 refused", codes)
		}
		if n := h.count(`SELECT refused FROM station WHERE id = $1`, id); n != 5 {
			t.Errorf("%d refusals counted", n)
		}
		if n := h.count(`SELECT count(*) FROM audit_entry WHERE kind = 'batch.surplus'`); n != 1 {
			t.Errorf("%d alarms, want one for the first refusal", n)
		}
		// The batch has room for two more, on whatever station.
		_, bs := h.call("GET", "/v1/batches", nil)
		batch := bs["items"].([]any)[0].(map[string]any)["id"]
		key := newKey(t)
		_, m := h.call("POST", "/v1/stations", map[string]any{"batch": batch, "name": "second", "csr": csrPEM(t, key)})
		second := h.credential(key, m["certificate"].(string))
		h.unit(second, "M1")
		h.unit(second, "M2")
		if code, _, body := h.line(second, wire.LineRequest{Serial: "M3", CSR: csrPEM(t, newKey(t))}); code != 403 || !strings.Contains(body, "line.quota") {
			t.Errorf("beyond the batch: %d %s", code, body)
		}
		if code, b := h.call("POST", fmt.Sprintf("/v1/batches/%s/close", batch), map[string]any{"produced": 4}); code != 200 || b["surplus"] != 1.0 {
			t.Errorf("close: %d %v", code, b)
		}
		if n := h.count(`SELECT count(*) FROM audit_entry WHERE kind = 'batch.surplus' AND subject = $1`, batch); n != 3 {
			t.Errorf("%d alarms", n)
		}
		if code, _, body := h.line(second, wire.LineRequest{Serial: "M4", CSR: csrPEM(t, newKey(t))}); code != 403 || !strings.Contains(body, "line.closed") {
			t.Errorf("a closed batch: %d %s", code, body)
		}
	})
}

func TestKillSwitch(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		st, id := h.station("B1", 5, 5)
		_, unit := h.unit(st, "L1")
		code, m := h.call("POST", "/v1/stations/"+id+"/kill", map[string]any{"reason": "stolen"})
		if code != 200 || !slices.Equal(m["devices"].([]any), []any{unit.Device}) {
			t.Fatalf("kill: %d %v", code, m)
		}
		if code, _, body := h.line(st, wire.LineRequest{Serial: "L2", CSR: csrPEM(t, newKey(t))}); code == 200 {
			t.Errorf("a dead station makes a unit: %s", body)
		}
		other, otherID := h.station("B2", 5, 5)
		h.clock.Advance(25 * time.Hour)
		if code, _, body := h.line(other, wire.LineRequest{Serial: "L3", CSR: csrPEM(t, newKey(t))}); code == 200 {
			t.Errorf("an expired station makes a unit: %s", body)
		}
		_, list := h.call("GET", "/v1/stations", nil)
		got := map[any]any{}
		for _, x := range list["items"].([]any) {
			got[x.(map[string]any)["id"]] = x.(map[string]any)["state"]
		}
		if got[id] != "killed" || got[otherID] != "expired" {
			t.Errorf("%v", got)
		}
	})
}

func TestClaim(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		st, _ := h.station("B1", 10, 10)
		_, a := h.unit(st, "L1")
		_, b := h.unit(st, "L2")
		if code, m := h.claim("hello"); code != 400 {
			t.Errorf("no code: %d %v", code, m)
		}
		if code, m := h.call("POST", "/v1/claims", map[string]any{"code": a.Claim, "solution": "sol_none"}); code != 404 {
			t.Errorf("no solution: %d %v", code, m)
		}
		if code, m := h.callAs("auditor", "POST", "/v1/claims", map[string]any{"code": a.Claim, "solution": h.solution}); code != 403 {
			t.Errorf("an auditor claims: %d %v", code, m)
		}
		other := tenant.WithActor(context.Background(), tenant.Actor{ID: "per_c", Tenant: ten, Grants: []tenant.Grant{{Role: tenant.Customer, Tenant: ten, Solution: "sol_other"}}})
		if _, err := h.enroll.Claim(other, a.Claim, h.solution); err == nil {
			t.Error("a customer claims into another's solution")
		}
		typed := strings.ToLower(strings.ReplaceAll(a.Claim, "-", " "))
		if code, m := h.claim(strings.NewReplacer("0", "o", "1", "l").Replace(typed)); code != 201 || m["state"] != "pending" {
			t.Errorf("as people type it: %d %v", code, m)
		}
		for i := range 5 {
			if code, m := h.claim(a.Claim); code != 409 && !(i > 3 && code == 429) {
				t.Errorf("used twice: %d %v", code, m)
			}
		}
		if code, m := h.claim(a.Claim); code != 429 {
			t.Errorf("attempts on one code are not limited: %d %v", code, m)
		}
		if code, m := h.claim(b.Claim); code != 201 {
			t.Errorf("another code: %d %v", code, m)
		}
		_, c := h.unit(st, "L3")
		none := strings.Repeat("Z", 25) + "0"
		limited := false
		for range 120 {
			code, _ := h.claim(none)
			limited = limited || code == 429
		}
		if code, _ := h.claim(c.Claim); !limited || code != 429 {
			t.Errorf("attempts in one tenant are not limited: %d", code)
		}
		h.clock.Advance(11 * time.Minute)
		if code, m := h.claim(c.Claim); code != 201 {
			t.Errorf("after the window: %d %v", code, m)
		}
	})
}

func TestEnrol(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		st, _ := h.station("B1", 10, 10)
		idevid, unit := h.unit(st, "L1")
		key := newKey(t)
		csr := csrFor(t, key, nil)
		if code, body := h.enrol(idevid, "simpleenroll", csr); code != 202 {
			t.Fatalf("unclaimed: %d %s", code, body)
		}
		if code, m := h.claim(unit.Claim); code != 201 {
			t.Fatalf("%d %v", code, m)
		}
		// The same request in every spelling has the same answer: the certificate is one.
		text := base64.StdEncoding.EncodeToString(csr)
		var lf, crlf string
		for line := range slices.Chunk([]byte(text), 64) {
			lf, crlf = lf+string(line)+"\n", crlf+string(line)+"\r\n"
		}
		var first string
		for name, body := range map[string]string{"one line": text, "LF": lf, "CRLF": crlf, "DER": string(csr),
			"PEM": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}))} {
			code, out := h.do(&idevid, "POST", "/.well-known/est/simpleenroll", "application/pkcs10", body)
			if first == "" {
				first = out
			}
			if code != 200 || out != first {
				t.Errorf("%s: %d %s", name, code, out)
			}
		}
		for line := range strings.Lines(first) {
			if len(line) > 65 {
				t.Errorf("a line of %d", len(line))
			}
		}
		d, err := h.identity.Get(t.Context(), ten, unit.Device)
		if err != nil || d.State != identity.Commissioned {
			t.Fatalf("%s %v", d.State, err)
		}
		ldevid := h.issued(key)
		x, err := x509.ParseCertificate(ldevid.cert.Certificate[0])
		h.must(err)

		same := func(r *x509.CertificateRequest) { r.RawSubject, r.URIs = x.RawSubject, x.URIs }
		next := newKey(t)
		if code, body := h.enrol(ldevid, "simplereenroll", csrFor(t, next, same)); code != 200 {
			t.Fatalf("simplereenroll: %d %s", code, body)
		}
		for name, change := range map[string]func(*x509.CertificateRequest){
			"another subject": func(r *x509.CertificateRequest) { same(r); r.RawSubject = nil },
			"no name":         func(r *x509.CertificateRequest) { same(r); r.URIs = nil },
			"another's name": func(r *x509.CertificateRequest) {
				same(r)
				r.URIs = []*url.URL{identity.DeviceURI(ten, "dev_other")}
			},
			"one more name": func(r *x509.CertificateRequest) { same(r); r.DNSNames = []string{"example.com"} },
		} {
			if code, body := h.enrol(ldevid, "simplereenroll", csrFor(t, newKey(t), change)); code != 403 || !strings.Contains(body, "enroll.same-names") {
				t.Errorf("renewal with %s: %d %s", name, code, body)
			}
		}
		// The renewed one takes over at its first use, and the old one is refused from then on.
		renewed := h.issued(next)
		if code, body := h.do(&renewed, "POST", "/d/1/messages", "application/json", "[]"); code != 200 {
			t.Errorf("renewed: %d %s", code, body)
		}
		if code, body := h.do(&ldevid, "POST", "/d/1/messages", "application/json", "[]"); code == 200 {
			t.Errorf("the old LDevID after the new one's first use: %s", body)
		}
		// Back after years, with nothing but the IDevID.
		h.clock.Advance(400 * 24 * time.Hour)
		if code, _ := h.do(&renewed, "POST", "/d/1/messages", "application/json", "[]"); code == 200 {
			t.Error("an expired LDevID")
		}
	})
}

// A unit that lost everything but its IDevID comes back, until it is decommissioned; then never.
func TestReturnAndEnd(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		st, _ := h.station("B1", 10, 10)
		idevid, unit := h.unit(st, "L1")
		h.claim(unit.Claim)
		h.ldevid(idevid)
		ldevid := h.ldevid(idevid)
		h.must(h.db.WriteFirst(t.Context(), func(tx *store.Tx) error {
			return errors.Join(h.identity.SetState(tx, ten, unit.Device, identity.Decommissioned, "per_a", "end"), h.identity.Revoke(tx, ten, unit.Device, "per_a", "end"))
		}))
		for name, c := range map[string]credential{"IDevID": idevid, "LDevID": ldevid} {
			for _, path := range []string{"simpleenroll", "simplereenroll"} {
				if code, body := h.enrol(c, path, csrFor(t, newKey(t), nil)); code != 0 {
					t.Errorf("%s at %s after the end: %d %s", name, path, code, body)
				}
			}
		}
		if code, _, body := h.line(st, wire.LineRequest{Serial: "L1", CSR: csrPEM(t, newKey(t))}); code != 403 {
			t.Errorf("the line makes it anew: %d %s", code, body)
		}
	})
}

// Whoever loses trust loses its live connection, and the next one is refused.
func TestLossOfTrustCuts(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx := context.Background()
		st, stationID := h.station("B1", 10, 10)
		commissioned := func(serial string) (string, credential) {
			idevid, unit := h.unit(st, serial)
			h.claim(unit.Claim)
			return unit.Device, h.ldevid(idevid)
		}
		first, firstL := commissioned("L1")
		second, secondL := commissioned("L2")
		for _, c := range []struct {
			name string
			as   credential
			loss func() error
		}{
			{"suspended", firstL, func() error { return h.identity.Suspend(ctx, ten, first, "per_a", "clone") }},
			{"revoked", secondL, func() error {
				return h.db.WriteFirst(ctx, func(tx *store.Tx) error { return h.identity.Revoke(tx, ten, second, "per_a", "lost") })
			}},
			{"killed", st, func() error { return h.enroll.KillStation(ctx, ten, stationID, "stolen", enroll.KeepUnits, "per_a") }},
		} {
			conf := &tls.Config{RootCAs: h.roots, Certificates: []tls.Certificate{*c.as.cert}}
			conn, err := tls.Dial("tcp", strings.TrimPrefix(h.door, "https://"), conf)
			h.must(err)
			defer conn.Close()
			_, err = io.WriteString(conn, "GET /.well-known/est/cacerts HTTP/1.1\r\nHost: localhost\r\n\r\n")
			h.must(err)
			live := bufio.NewReader(conn)
			resp, err := http.ReadResponse(live, nil)
			h.must(err)
			io.Copy(io.Discard, resp.Body) //nolint:errcheck // what counts is the connection
			if resp.StatusCode != 200 || resp.Close {
				t.Fatalf("%s: no live connection: %s", c.name, resp.Status)
			}
			h.must(c.loss())
			conn.SetReadDeadline(time.Now().Add(30 * time.Second)) // of an idle connection the door tires after two minutes
			if _, err := live.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: the connection still lives (%v)", c.name, err)
			}
			if code, body := h.do(&c.as, "GET", "/.well-known/est/cacerts", "", ""); code == 200 {
				t.Errorf("%s: it came back: %s", c.name, body)
			}
		}
	})
}

// Bad requests are refused with a sentence, at both doors, and change nothing.
func TestBadRequests(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		st, _ := h.station("B1", 10, 10)
		idevid, unit := h.unit(st, "L1")
		h.claim(unit.Claim)
		weak, err := rsa.GenerateKey(rand.Reader, 2048)
		h.must(err)
		rsaCSR, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, weak)
		h.must(err)
		p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		h.must(err)
		curve, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, p384)
		h.must(err)
		ca, err := asn1.Marshal(struct{ IsCA bool }{true})
		h.must(err)
		broken := csrFor(t, newKey(t), nil)
		broken[len(broken)-4] ^= 1
		for _, c := range []struct {
			name string
			der  []byte
			code int
		}{
			{"RSA", rsaCSR, 403},
			{"P-384", curve, 403},
			{"signature broken", broken, 400},
			{"noise", []byte("hello"), 400},
			{"CA:true", csrFor(t, newKey(t), func(r *x509.CertificateRequest) {
				r.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: ca}}
			}), 403},
			{"foreign name", csrFor(t, newKey(t), func(r *x509.CertificateRequest) { r.DNSNames = []string{"example.com"} }), 403},
			{"1 MB", make([]byte, 1<<20), 413},
			{"the IDevID's own key", csrFor(t, idevid.key, nil), 409},
		} {
			if code, body := h.enrol(idevid, "simpleenroll", c.der); code != c.code {
				t.Errorf("EST, %s: %d %.300s, want %d", c.name, code, body, c.code)
			}
			if c.code == 409 {
				continue
			}
			r := wire.LineRequest{Serial: "X", CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: c.der}))}
			if code, _, body := h.line(st, r); code != c.code {
				t.Errorf("line, %s: %d %.300s, want %d", c.name, code, body, c.code)
			}
		}
		for name, body := range map[string]string{"empty": "", "no JSON": "hello", "no serial": `{"csr":"x"}`, "bad serial": `{"serial":"a/b"}`,
			"bad firmware": `{"serial":"a","firmware":"x"}`, "no csr": `{"serial":"a"}`} {
			if code, out := h.do(&st, "POST", "/d/1/line/devices", "application/json", body); code != 400 {
				t.Errorf("line, %s: %d %s", name, code, out)
			}
		}
		if n := h.count(`SELECT count(*) FROM device`); n != 1 {
			t.Errorf("%d devices", n)
		}
		if n := h.count(`SELECT count(*) FROM certificate WHERE kind = 'ldevid'`); n != 0 {
			t.Errorf("%d LDevIDs", n)
		}
	})
}
