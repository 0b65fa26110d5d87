// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/wire"
)

// token makes an enrolment token.
func (h *house) token(quota int64, change func(*enroll.Token)) (enroll.Token, string) {
	h.t.Helper()
	tok := enroll.Token{Tenant: ten, Name: "lot 7", Revision: h.revision, Quota: quota, Expires: h.clock.Now().Add(time.Hour)}
	if change != nil {
		change(&tok)
	}
	tok, text, err := h.enroll.CreateToken(context.Background(), tok, "", owner.ID)
	h.must(err)
	return tok, text
}

// named makes a request whose subject has the serial number.
func (h *house) named(c credential, serial string) string {
	return base64.StdEncoding.EncodeToString(csrFor(h.t, c.key, func(r *x509.CertificateRequest) { r.Subject = pkix.Name{SerialNumber: serial} }))
}

// exchangeToken asks for a certificate of birth.
func (h *house) exchangeToken(header, body string) (*http.Response, string) {
	h.t.Helper()
	return h.exchange(nil, "POST", "/.well-known/est/token/simpleenroll", body, "Content-Type", "application/pkcs10", "Authorization", header)
}

func TestTokenIsExchangedOnce(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		tok, text := h.token(1, func(k *enroll.Token) { k.Pattern, k.Solution = `T-\d+`, h.solution })
		one, two := credential{key: newKey(t)}, credential{key: newKey(t)}
		for what, header := range map[string]string{"none": "", "noise": "Bearer ote_hello", "a name": "Basic " + base64.StdEncoding.EncodeToString([]byte(text+":"))} {
			if r, _ := h.exchangeToken(header, h.named(one, "T-1")); r.StatusCode != 401 || r.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s: %d", what, r.StatusCode)
			}
		}
		if r, body := h.exchangeToken("Bearer "+text, h.named(one, "X-1")); r.StatusCode != 403 || !strings.Contains(body, enroll.RuleTokenSerial) {
			t.Errorf("another serial number: %d %s", r.StatusCode, body)
		}
		r, first := h.exchangeToken("Basic "+base64.StdEncoding.EncodeToString([]byte("anybody:"+text)), h.named(one, "T-1"))
		if r.StatusCode != 200 {
			t.Fatalf("%d %s", r.StatusCode, first)
		}
		d := h.device("T-1")
		if d.State != identity.Pending || d.Origin != tok.ID {
			t.Errorf("the device is %+v", d)
		}
		one.cert = h.certificate(first, one.key)
		h.enrolled(&one, "simpleenroll", newKey(t), nil)
		// The answer was lost: the same again, even after the end of the token.
		h.clock.Advance(2 * time.Hour)
		if r, again := h.exchangeToken("Bearer "+text, h.named(one, "T-1")); r.StatusCode != 200 || again != first {
			t.Errorf("again: %d %s", r.StatusCode, again)
		}
		if r, body := h.exchangeToken("Bearer "+text, h.named(two, "T-2")); r.StatusCode != 403 || !strings.Contains(body, enroll.RuleTokenClosed) {
			t.Errorf("used twice: %d %s", r.StatusCode, body)
		}
		h.absent("T-2")
		if tok, err := h.enroll.Token(context.Background(), ten, tok.ID); err != nil || tok.Used != 1 {
			t.Errorf("used %d times (%v)", tok.Used, err)
		}
	})
}

// TestTokenRace lets forty units use a token that three may use.
func TestTokenRace(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		_, text := h.token(3, nil)
		var in atomic.Int64
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				if r, _ := h.exchangeToken("Bearer "+text, h.named(credential{key: newKey(t)}, name("R-%d", i))); r.StatusCode == 200 {
					in.Add(1)
				}
			})
		}
		wg.Wait()
		if in.Load() != 3 {
			t.Errorf("%d units came in", in.Load())
		}
	})
}

// TestGuessing slows down who guesses, and nobody else.
func TestGuessing(t *testing.T) {
	h := lite(t)
	_, text := h.token(2, nil)
	c := credential{key: newKey(t)}
	limited := 0
	for range 20 {
		if r, _ := h.exchangeToken("Bearer ote_00000000000000000000000000", h.named(c, "G-1")); r.StatusCode == 429 {
			limited++
		}
	}
	if limited != 15 {
		t.Errorf("%d of 20 guesses were slowed down", limited)
	}
	h.clock.Advance(time.Minute)
	if r, body := h.exchangeToken("Bearer "+text, h.named(c, "G-1")); r.StatusCode != 200 {
		t.Errorf("the token itself: %d %s", r.StatusCode, body)
	}
}

// TestClaimCertificate is shared by a lot, so only announced serial numbers get in, each once.
func TestClaimCertificate(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx := context.Background()
		m := newMaker(h, "Claims")
		shared := m.born("lot")
		tok := enroll.Token{Tenant: ten, Name: "lot 8", Revision: h.revision, Quota: 2, Expires: h.clock.Now().Add(time.Hour)}
		claim := certPEM(shared.cert.Leaf)
		proof := func(k *ecdsa.PrivateKey, name string) string {
			der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, k)
			h.must(err)
			return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
		}
		_, _, err := h.enroll.CreateToken(ctx, tok, claim, owner.ID)
		wantRule(t, "without announced serial numbers", err, "enrol-token.listed")
		tok.Listed = true
		for what, p := range map[string]string{"no proof": "", "another key": proof(newKey(t), ten), "another tenant's proof": proof(shared.key, "ten_other")} {
			_, _, err := h.enroll.CreateToken(ctx, tok, claim+p, owner.ID)
			wantRule(t, what, err, enroll.RuleTokenProof)
		}
		tok, text, err := h.enroll.CreateToken(ctx, tok, claim+proof(shared.key, ten), owner.ID)
		if err != nil || text != "" || tok.Kind != enroll.TokenClaim {
			t.Fatalf("%+v %q %v", tok, text, err)
		}
		ask := func(c credential, serial string) (int, string) {
			return h.do(&shared, "POST", "/.well-known/est/token/simpleenroll", "application/pkcs10", h.named(c, serial))
		}
		one := credential{key: newKey(t)}
		if code, body := ask(one, "K-1"); code != 403 || !strings.Contains(body, enroll.RuleListed) {
			t.Errorf("not announced: %d %s", code, body)
		}
		h.announce("K-1", "K-2", "K-3")
		code, body := ask(one, "K-1")
		if code != 200 {
			t.Fatalf("announced: %d %s", code, body)
		}
		for _, path := range []string{"/.well-known/est/simpleenroll", "/d/1/messages", "/d/1/line/devices"} {
			if code, body := h.do(&shared, "POST", path, "application/json", "[]"); code != 403 || !strings.Contains(body, "door.kind") {
				t.Errorf("%s with a claim certificate: %d %s", path, code, body)
			}
		}
		_, err = h.enroll.RevokeToken(ctx, ten, tok.ID, "the lot is done", owner.ID)
		h.must(err)
		if code, _ := ask(credential{key: newKey(t)}, "K-2"); code != 0 {
			t.Errorf("after the end: %d", code)
		}
	})
}

// TestI11_ADecommissionedDeviceCannotEnrolAgain by any way in, by its key and by its serial number, and a clone alarm is
// not its way back either.
func TestI11_ADecommissionedDeviceCannotEnrolAgain(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		m := newMaker(h, "Maker")
		h.trust(m, nil)
		st, _ := h.station("B1", 10, 10)
		journals := h.newBatch("B2", 10)
		byCA := m.born("O-1")
		h.enrolled(&byCA, "simpleenroll", newKey(t), nil)
		byLine, made := h.unit(st, "O-2")
		h.retired(h.device("O-1").ID)
		h.retired(made.Device)
		_, text := h.token(100, nil)
		born := func(c credential, serial string) credential { // a new certificate for an old key
			x := m.sign(&x509.Certificate{Subject: pkix.Name{SerialNumber: serial}}, &c.key.PublicKey)
			return credential{c.key, &tls.Certificate{Certificate: [][]byte{x.Raw}, PrivateKey: c.key, Leaf: x}}
		}
		for i, old := range []credential{byCA, byLine} {
			serial := name("O-%d", i+1)
			if code, body := h.est(&old, "simpleenroll", csrFor(t, newKey(t), nil)); code == 200 {
				t.Errorf("%s with its certificate of birth: %d %s", serial, code, body)
			}
			for what, c := range map[string]credential{
				"a new certificate of birth, a new key": m.born(serial), "a new certificate of birth, the old key": born(old, serial), "another serial number, the old key": born(old, "N-"+serial),
			} {
				if code, body := h.do(&c, "GET", "/.well-known/est/cacerts", "", ""); code == 200 || !strings.Contains(body, enroll.RuleTombstone) {
					t.Errorf("%s by a trusted CA, %s: %d %s", serial, what, code, body)
				}
			}
			for what, c := range map[string]credential{"a new key": {key: newKey(t)}, "the old key": old} {
				for _, n := range []string{serial, "M-" + serial} {
					if what == "a new key" && n != serial {
						continue
					}
					if r, body := h.exchangeToken("Bearer "+text, h.named(c, n)); r.StatusCode == 200 || !strings.Contains(body, enroll.RuleTombstone) {
						t.Errorf("%s by a token as %s with %s: %d %s", serial, n, what, r.StatusCode, body)
					}
					offline, _ := h.offline(journals, 1, wire.Serials{})
					h.makes(offline, n, c.key)
					if rep, err := h.sync(offline); err != nil || len(rep.Refused) != 1 || rep.Refused[0].Rule != enroll.RuleTombstone {
						t.Errorf("%s offline as %s with %s: %+v %v", serial, n, what, rep, err)
					}
					if code, _, body := h.line(st, lineRequest(t, n, c.key)); code == 200 || !strings.Contains(body, enroll.RuleTombstone) {
						t.Errorf("%s at the line as %s with %s: %d %s", serial, n, what, code, body)
					}
				}
			}
			if d := h.device(serial); d.State != identity.Decommissioned {
				t.Errorf("%s is %s", serial, d.State)
			}
		}
		for _, n := range []string{"N-O-1", "N-O-2", "M-O-1", "M-O-2"} {
			h.absent(n)
		}
	})
}
