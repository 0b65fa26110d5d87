// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
)

// TestFirstConnect lets a device of a trusted CA register itself, enrol, and be what any other device is.
func TestFirstConnect(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		m := newMaker(h, "Maker")
		ca := h.trust(m, nil)
		d := m.born("J-1")
		if code, body := h.do(&d, "GET", "/.well-known/est/cacerts", "", ""); code != 200 {
			t.Fatalf("%d %s", code, body)
		}
		if got := h.device("J-1"); got.State != identity.Pending || got.Solution != h.solution || got.Origin != ca.ID || got.Revision != h.revision {
			t.Fatalf("the device is %+v", got)
		}
		if code, body := h.do(&d, "POST", "/d/1/messages", "application/json", "[]"); code != 403 || !strings.Contains(body, "door.kind") {
			t.Errorf("telemetry with a certificate of birth: %d %s", code, body)
		}
		l := h.enrolled(&d, "simpleenroll", newKey(t), nil)
		if code, body := h.do(&l, "POST", "/d/1/messages", "application/json", "[]"); code != 200 {
			t.Errorf("telemetry with the LDevID: %d %s", code, body)
		}
		// Everything that the CA brought is refused at once, its LDevIDs too.
		_, err := h.enroll.RevokeTrustedCA(context.Background(), ten, ca.ID, "its key was stolen", owner.ID)
		h.must(err)
		for _, c := range []*credential{&d, &l} {
			if code, body := h.do(c, "GET", "/.well-known/est/cacerts", "", ""); code == 200 {
				t.Errorf("after the revocation: %d %s", code, body)
			}
		}
		n := m.born("J-2")
		if code, _ := h.do(&n, "GET", "/.well-known/est/cacerts", "", ""); code == 200 {
			t.Error("a CA that was revoked brings a device")
		}
		h.absent("J-2")
	})
}

// TestHundredFirstConnects are one device.
func TestHundredFirstConnects(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		m := newMaker(h, "Maker")
		ca := h.trust(m, func(c *enroll.TrustedCA) { c.Quota = 1 })
		d := m.born("J-1")
		var good atomic.Int64
		var wg sync.WaitGroup
		gate := make(chan struct{}, 8) // a device has at most 16 connections at once, those that are closing among them
		for range 100 {
			wg.Go(func() {
				gate <- struct{}{}
				defer func() { <-gate }()
				h.open.fewerThan(6) // until the door has noticed that one is closed, it counts
				if code, body := h.do(&d, "GET", "/.well-known/est/cacerts", "", ""); code == 200 {
					good.Add(1)
				} else {
					t.Logf("%d %s", code, body)
				}
			})
		}
		wg.Wait()
		if good.Load() != 100 {
			t.Errorf("%d of 100 connects came in", good.Load())
		}
		ca, err := h.enroll.TrustedCA(context.Background(), ten, ca.ID)
		h.must(err)
		cs, err := h.identity.Certificates(context.Background(), ten, h.device("J-1").ID)
		h.must(err)
		if ca.Used != 1 || ca.Refused != 0 || len(cs) != 1 {
			t.Errorf("used %d, refused %d, %d certificates", ca.Used, ca.Refused, len(cs))
		}
		next := m.born("J-2")
		if code, body := h.do(&next, "GET", "/.well-known/est/cacerts", "", ""); code == 200 {
			t.Errorf("beyond the quota: %d %s", code, body)
		}
		h.absent("J-2")
		// Its key cannot be trusted a second time, so its quota can be set anew: with a reason, and not once it is retired.
		for _, no := range []struct {
			quota  int64
			reason string
		}{{0, "more lamps"}, {2, ""}} {
			if _, err := h.enroll.LimitTrustedCA(context.Background(), ten, ca.ID, no.quota, no.reason, owner.ID); !problem.Is(err, problem.KindInvalid) {
				t.Errorf("quota %d because of %q: %v", no.quota, no.reason, err)
			}
		}
		if _, err := h.enroll.LimitTrustedCA(context.Background(), "ten_b", ca.ID, 2, "not mine", owner.ID); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("another tenant's CA: %v", err)
		}
		_, err = h.enroll.LimitTrustedCA(context.Background(), ten, ca.ID, 2, "more lamps", owner.ID)
		h.must(err)
		if code, body := h.do(&next, "GET", "/.well-known/est/cacerts", "", ""); code != 200 {
			t.Errorf("within the new quota: %d %s", code, body)
		}
		last := m.born("J-3")
		if code, body := h.do(&last, "GET", "/.well-known/est/cacerts", "", ""); code == 200 {
			t.Errorf("beyond the new quota: %d %s", code, body)
		}
		_, err = h.enroll.MoveTrustedCA(context.Background(), ten, ca.ID, enroll.CARetired, "the contract ended", owner.ID)
		h.must(err)
		if _, err := h.enroll.LimitTrustedCA(context.Background(), ten, ca.ID, 3, "again", owner.ID); !problem.Is(err, problem.KindConflict) {
			t.Errorf("a retired CA: %v", err)
		}
	})
}

// TestKnocking shows a certificate without its key: nothing happens.
func TestKnocking(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		m := newMaker(h, "Maker")
		ca := h.trust(m, nil)
		d := m.born("J-1")
		d.cert.PrivateKey = newKey(t)
		if code, _ := h.do(&d, "GET", "/.well-known/est/cacerts", "", ""); code != 0 {
			t.Errorf("without the key: %d", code)
		}
		h.absent("J-1")
		if ca, err := h.enroll.TrustedCA(context.Background(), ten, ca.ID); err != nil || ca.Used != 0 {
			t.Errorf("used %d (%v)", ca.Used, err)
		}
	})
}

// TestWhoIsVouchedFor goes through what policy takes and refuses.
func TestWhoIsVouchedFor(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx := context.Background()
		m, other := newMaker(h, "Maker"), newMaker(h, "Other")
		line := m.below("Line 1")
		deep := line.below("deep").below("deeper").below("deepest")
		h.trust(m, nil, line.cert)
		usage := func(u ...x509.ExtKeyUsage) func(*x509.Certificate) {
			return func(c *x509.Certificate) { c.ExtKeyUsage = u }
		}
		rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
		h.must(err)
		rsaCert := m.sign(&x509.Certificate{Subject: pkix.Name{SerialNumber: "RSA"}}, &rsaKey.PublicKey)
		signing := m.born("CA", func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true })
		forged := newMaker(h, "Maker").born("F") // the same name, another key
		sent := line.below("Line 2")
		with := func(c credential, more ...*x509.Certificate) credential {
			for _, x := range more {
				c.cert.Certificate = append(c.cert.Certificate, x.Raw)
			}
			return c
		}
		for _, c := range []struct {
			name string
			cred credential
			rule string
		}{
			{"no usage", m.born("G1"), ""},
			{"any usage", m.born("G2", usage(x509.ExtKeyUsageAny)), ""},
			{"client", m.born("G3", usage(x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)), ""},
			{"for ever", m.born("G4", func(c *x509.Certificate) { c.NotBefore, c.NotAfter = h.clock.Now().Add(-time.Hour), identity.Forever }), ""},
			{"by an authority that was uploaded", line.born("G5"), ""},
			{"by one that was sent along", with(sent.born("G6"), sent.cert), ""},
			{"by one that was not", sent.born("B0"), "identity.unknown"},
			{"server", m.born("B1", usage(x509.ExtKeyUsageServerAuth)), enroll.RuleCAChain},
			{"signs only others", m.born("B2", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }), enroll.RuleCAChain},
			{"an authority", signing, enroll.RuleCAChain},
			{"RSA", credential{nil, &tls.Certificate{Certificate: [][]byte{rsaCert.Raw}, PrivateKey: rsaKey}}, enroll.RuleCAChain},
			{"ended", m.born("B3", func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = h.clock.Now().Add(-2*time.Hour), h.clock.Now().Add(-time.Hour)
			}), enroll.RuleCAChain},
			{"another CA", other.born("B4"), "identity.unknown"},
			{"another key of that name", forged, enroll.RuleCAChain},
			{"no serial number", m.born(""), enroll.RuleCAMapping},
			{"no word", m.born("a b"), enroll.RuleCAMapping},
			{"five authorities deep", with(deep.born("B5"), deep.cert, line.cert, m.cert, other.cert), enroll.RuleCAChain},
		} {
			var chain []*x509.Certificate
			for _, der := range c.cred.cert.Certificate {
				x, err := x509.ParseCertificate(der)
				h.must(err)
				chain = append(chain, x)
			}
			_, err := h.enroll.Vouch(ctx, chain)
			wantRule(t, c.name, err, c.rule)
			code, _ := h.do(&c.cred, "GET", "/.well-known/est/cacerts", "", "")
			if (code == 200) != (c.rule == "") {
				t.Errorf("%s: at the door %d", c.name, code)
			}
		}
	})
}

// TestSharedCA: a CA that two tenants trust brings only what one of them announced.
func TestSharedCA(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx := context.Background()
		m := newMaker(h, "Maker")
		h.trust(m, nil)
		d := m.born("S-1")
		p, err := h.products.Create(ctx, product.Product{Tenant: "ten_b", Name: "Lamp", Model: "lamp"}, "per_b")
		h.must(err)
		rev, err := h.products.CreateRevision(ctx, product.Revision{Tenant: "ten_b", Product: p.ID, Name: "A", Placed: h.clock.Now(), SupportEnd: h.clock.Now().AddDate(6, 0, 0)}, "per_b")
		h.must(err)
		theirs := func(c *enroll.TrustedCA) {
			c.Tenant, c.Policy.Solution, c.Policy.Mapping.Revision = "ten_b", "", rev.ID
		}
		// Uploading alone takes nothing from the first tenant.
		_, err = h.enroll.AddTrustedCA(ctx, func() enroll.TrustedCA {
			c := enroll.TrustedCA{Name: "squatter", Quota: 1, Policy: enroll.CAPolicy{Mapping: h.mapping()}}
			theirs(&c)
			c.Tenant = "ten_c"
			return c
		}(), certPEM(m.cert), "per_c")
		if err == nil {
			t.Error("a tenant maps devices to another's hardware revision")
		}
		h.trust(m, theirs)
		if code, _ := h.do(&d, "GET", "/.well-known/est/cacerts", "", ""); code == 200 {
			t.Error("nobody expects the device")
		}
		h.announce("S-1")
		if code, body := h.do(&d, "GET", "/.well-known/est/cacerts", "", ""); code != 200 || h.device("S-1").Tenant != ten {
			t.Errorf("announced: %d %s", code, body)
		}
		both := m.born("S-2")
		h.announce("S-2")
		_, err = h.enroll.Preauthorise(ctx, "ten_b", p.ID, "", strings.NewReader("serial\nS-2\n"), false, "per_b")
		h.must(err)
		_, err = h.enroll.Vouch(ctx, []*x509.Certificate{both.cert.Leaf})
		wantRule(t, "both expect it", err, enroll.RuleCAShared)
	})
}

// TestProofOfPossession: a CA counts only for whoever can use its key.
func TestProofOfPossession(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx := context.Background()
		m, other := newMaker(h, "Maker"), newMaker(h, "Maker")
		ca, err := h.enroll.AddTrustedCA(ctx, enroll.TrustedCA{Tenant: ten, Name: "Maker", Quota: 10, Policy: enroll.CAPolicy{Mapping: h.mapping()}}, certPEM(m.cert), owner.ID)
		h.must(err)
		named := func(by maker, cn string) string {
			return certPEM(by.sign(&x509.Certificate{Subject: pkix.Name{CommonName: cn}}, &newKey(t).PublicKey))
		}
		d := m.born("P-1")
		for what, proof := range map[string]string{
			"nothing": "", "another CA of the same name": named(other, ca.Code), "another code": named(m, strings.Repeat("0", 32)), "the CA itself": certPEM(m.cert),
			"a request with another key": string(pemBlock("CERTIFICATE REQUEST", csrFor(t, newKey(t), func(r *x509.CertificateRequest) { r.Subject.CommonName = ca.Code }))),
		} {
			_, err := h.enroll.ProveTrustedCA(ctx, ten, ca.ID, proof, owner.ID)
			wantRule(t, what, err, enroll.RuleCAProof)
		}
		if code, _ := h.do(&d, "GET", "/.well-known/est/cacerts", "", ""); code == 200 {
			t.Error("a CA that is not proven brings a device")
		}
		code := ca.Code
		h.clock.Advance(8 * 24 * time.Hour)
		_, err = h.enroll.ProveTrustedCA(ctx, ten, ca.ID, named(m, code), owner.ID)
		wantRule(t, "a week later", err, enroll.RuleCAProof)
		ca, err = h.enroll.RenewCode(ctx, ten, ca.ID)
		h.must(err)
		request := pemBlock("CERTIFICATE REQUEST", csrFor(t, m.key, func(r *x509.CertificateRequest) { r.Subject.CommonName = ca.Code }))
		if ca, err = h.enroll.ProveTrustedCA(ctx, ten, ca.ID, string(request), owner.ID); err != nil || ca.State != enroll.CAActive {
			t.Fatalf("%v %v", ca.State, err)
		}
		if code, body := h.do(&d, "GET", "/.well-known/est/cacerts", "", ""); code != 200 {
			t.Errorf("proven: %d %s", code, body)
		}
		// Without a solution it waits in the lobby.
		if got := h.device("P-1"); got.State != identity.Provisioned {
			t.Errorf("the device is %s", got.State)
		}
		guests, err := h.enroll.Lobby(ctx, ten, enroll.GuestFilter{Limit: 10})
		if err != nil || len(guests) != 1 || guests[0].How != enroll.ByCA {
			t.Errorf("the lobby: %v %v", guests, err)
		}
		_, err = h.enroll.MoveTrustedCA(ctx, ten, ca.ID, enroll.CASuspended, "holidays", owner.ID)
		h.must(err)
		late := m.born("P-2")
		if code, _ := h.do(&late, "GET", "/.well-known/est/cacerts", "", ""); code == 200 {
			t.Error("a suspended CA brings a device")
		}
		if code, _ := h.do(&d, "GET", "/.well-known/est/cacerts", "", ""); code != 200 {
			t.Error("a suspended CA takes a device down")
		}
	})
}

// TestI04_AnExternalIDevIDRevokedByCRLOnlyIsRefused also compares by value, and fails closed when the list is missing,
// stale, unreadable or older than the one before.
func TestI04_AnExternalIDevIDRevokedByCRLOnlyIsRefused(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx := context.Background()
		m := newMaker(h, "Maker")
		ca := h.trust(m, func(c *enroll.TrustedCA) { c.Policy.CRL.Required = true })
		early, stolen, working := m.born("C-0"), m.born("C-1"), m.born("C-2")
		vouch := func(c credential) error {
			_, err := h.enroll.Vouch(ctx, []*x509.Certificate{c.cert.Leaf})
			return err
		}
		connect := func(c credential) int {
			code, _ := h.do(&c, "GET", "/.well-known/est/cacerts", "", "")
			return code
		}
		take := func(der []byte) error {
			_, err := h.enroll.ImportCRL(ctx, ten, ca.ID, der, owner.ID)
			return err
		}
		wantRule(t, "no list yet", vouch(early), enroll.RuleCAStale)
		h.must(take(m.crl(5, 48*time.Hour, new(big.Int).Set(stolen.cert.Leaf.SerialNumber))))
		wantRule(t, "on the list", vouch(stolen), enroll.RuleCARevoked)
		if connect(stolen) != 0 || connect(working) != 200 {
			t.Error("the door does not go by the list")
		}
		h.absent("C-1")
		l := h.enrolled(&working, "simpleenroll", newKey(t), nil)
		if connect(l) != 200 {
			t.Error("the LDevID does not work")
		}

		// A list that must not be taken.
		other := newMaker(h, "Maker")
		broken := m.crl(9, time.Hour)
		broken[len(broken)-3] ^= 1
		for what, der := range map[string][]byte{
			"an older number": m.crl(4, time.Hour), "the same number with other content": m.crl(5, time.Hour), "another CA": other.crl(9, time.Hour),
			"broken": broken, "ended": m.crl(9, -time.Minute), "noise": []byte("hello"), "too large": make([]byte, enroll.MaxCRL+1),
		} {
			if err := take(der); err == nil {
				t.Errorf("%s: taken", what)
			}
		}

		// A list that names a device at work cuts it off, its LDevID too.
		h.must(take(m.crl(6, 48*time.Hour, stolen.cert.Leaf.SerialNumber, working.cert.Leaf.SerialNumber)))
		if connect(working) != 0 || connect(l) != 0 || h.device("C-2").State != identity.Suspended {
			t.Errorf("a device at work is %s after it was listed", h.device("C-2").State)
		}

		// A stale list refuses everybody, those who were in before as well.
		if connect(early) != 200 {
			t.Error("a device that is not listed is refused")
		}
		h.clock.Advance(49 * time.Hour)
		if connect(early) != 0 {
			t.Error("a stale list lets in")
		}
		wantRule(t, "stale", vouch(m.born("C-3")), enroll.RuleCAStale)
		h.must(take(m.crl(7, 48*time.Hour)))
		if connect(early) != 200 {
			t.Error("a fresh list does not let in")
		}
		// A list that cannot be read refuses too.
		h.spoil(ca.ID)
		if connect(early) != 0 {
			t.Error("an unreadable list lets in")
		}
		wantRule(t, "unreadable", vouch(m.born("C-4")), enroll.RuleCAStale)
	})
}

// TestCRLIsFetched takes the list from its address, and again when it is due.
func TestCRLIsFetched(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		m := newMaker(h, "Maker")
		var list atomic.Pointer[[]byte]
		asked := make(chan struct{}, 10)
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Write(*list.Load()) //nolint:errcheck // the platform is gone
			asked <- struct{}{}
		}))
		defer srv.Close()
		first := m.crl(1, 24*time.Hour)
		list.Store(&first)
		ca := h.trust(m, func(c *enroll.TrustedCA) { c.Policy.CRL = enroll.CRLPolicy{Required: true, URL: srv.URL} })
		ctx, stop := context.WithCancel(context.Background())
		var jobs sync.WaitGroup
		jobs.Go(func() { _ = h.db.RunJobs(ctx) })
		defer func() { stop(); jobs.Wait() }()
		number := func(want string) {
			t.Helper()
			<-asked // it has the bytes; that it took them tells nobody
			tick, late := time.NewTicker(5*time.Millisecond), time.After(time.Minute)
			defer tick.Stop()
			for {
				ls, err := h.enroll.CRLs(context.Background(), ca)
				h.must(err)
				if len(ls) == 1 && ls[0].Number == want {
					return
				}
				select {
				case <-tick.C:
				case <-late:
					t.Fatalf("list %s was not taken", want)
				}
			}
		}
		number("1")
	})
}
