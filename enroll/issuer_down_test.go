// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/openbao/openbao/api/v2"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/identity/issuertest"
	"github.com/openthings-platform/openthings/identity/openbao"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/testpeers"
)

// renewer is a device at its renewals. It is as rude as the standard allows: it knows no jitter of its own, so that all
// of them come at one moment, and it counts on Retry-After alone to tell it from the others. Only its pauses double, to
// an hour, as those of our agent.
type renewer struct {
	id    string
	key   *ecdsa.PrivateKey
	cert  *x509.Certificate
	next  time.Time
	tries int
}

// The PKI engine is sealed for a day, at the very moment at which a whole fleet wants to renew. Nobody expires, the
// alarm says so from the first minute on, each device is told when to come again, and when the engine is back they come
// as a stream and not as a wave.
func TestI13_IssuerDownForADay(t *testing.T) {
	const fleet, outage = 60, 24 * time.Hour
	v, err := testpeers.StartVault(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Stop() }) //nolint:errcheck // it holds nothing
	hand := clock.NewHand(time.Now())
	db := storetest.Open(t, storetest.SQLiteURL(t), schema, func(c *store.Config) { c.Clock = hand })
	h := newHouseWith(t, db, hand, func(base embedded.Config) (identity.Issuer, error) {
		engine, err := openbao.New(openbao.Config{Address: v.Address, CA: issuertest.Write(t, "ca.pem", v.CA), TokenFile: issuertest.Write(t, "token", v.Token), Clock: hand})
		if err != nil {
			return nil, err
		}
		base.Roles = openbao.Beside
		own, err := embedded.Open(base)
		if err != nil {
			return nil, err
		}
		c := openbao.Compose(own, engine)
		return c, c.Found(t.Context(), "Test")
	})
	devices := make([]*renewer, fleet)
	for i := range devices {
		devices[i] = h.renewer(fmt.Sprintf("R%d", i))
	}
	ctx, stop := context.WithCancel(t.Context())
	watched := make(chan error, 1)
	go func() { watched <- h.identity.WatchIssuer(ctx) }()
	hand.WaitTimers(1)
	if st := h.identity.IssuerState(); !st.OK {
		t.Fatalf("at first: %+v", st)
	}

	due := devices[0].cert.NotBefore.Add(devices[0].cert.NotAfter.Sub(devices[0].cert.NotBefore) * 2 / 3)
	shut(t, v, true)
	hand.Set(due)
	hand.WaitTimers(1)
	since := h.identity.IssuerState()
	o, err := h.identity.Overview(t.Context(), "")
	h.must(err)
	if since.OK || since.Since.Sub(due).Abs() > time.Minute || !strings.Contains(strings.Join(o.Warnings, "\n"), "nothing can be signed") {
		t.Fatalf("the alarm is silent: %+v, %q", since, o.Warnings)
	}
	back := due.Add(outage)
	for _, d := range devices {
		d.next = due
	}
	var came []time.Time // when, once the engine was back
	for waiting := fleet; waiting > 0; {
		d := slices.MinFunc(devices, func(a, b *renewer) int { return a.next.Compare(b.next) })
		if hand.Now().Before(back) && !d.next.Before(back) {
			hand.Set(back)
			shut(t, v, false)
		}
		if hand.Now().Before(d.next) {
			hand.Set(d.next)
		}
		now := hand.Now()
		if !now.Before(d.cert.NotAfter.Add(-14 * 24 * time.Hour)) {
			t.Fatalf("%s is close to its end, after %d tries", d.id, d.tries)
		}
		if !now.Before(back) {
			came = append(came, now)
		}
		if h.renew(d) {
			d.next = identity.Forever
			waiting--
		}
	}
	if st := h.identity.IssuerState(); st.OK && hand.Now().Before(back) {
		t.Errorf("%+v", st)
	}
	hand.Advance(time.Minute)
	hand.WaitTimers(1)
	if st := h.identity.IssuerState(); !st.OK {
		t.Errorf("the alarm goes on: %+v", st)
	}
	stop()
	h.must(<-watched)

	// No ten seconds see more than an eighth of the fleet, and an hour and a half sees all of it.
	for i, at := range came {
		n := 0
		for _, other := range came[i:] {
			if other.Sub(at) < 10*time.Second {
				n++
			}
		}
		if n > fleet/8 {
			t.Fatalf("%d of %d devices came within ten seconds", n, fleet)
		}
	}
	if last := came[len(came)-1].Sub(back); last > 90*time.Minute {
		t.Errorf("the last one came %s after the return", last)
	}
}

// renewer makes a commissioned device.
func (h *house) renewer(serial string) *renewer {
	h.t.Helper()
	key := newKey(h.t)
	csr, err := identity.ParseCSR(csrFor(h.t, key, nil))
	h.must(err)
	d := &renewer{key: key}
	h.write(func(tx *store.Tx) error {
		made, err := h.identity.Register(tx, identity.Device{Tenant: ten, Product: "prd_1", Revision: h.revision, Serial: serial}, "test")
		if err != nil {
			return err
		}
		d.id = made.ID
		for _, to := range []identity.State{identity.Provisioned, identity.Pending} {
			if err := h.identity.SetState(tx, ten, d.id, to, "test", ""); err != nil {
				return err
			}
		}
		return nil
	})
	c, _, err := h.identity.Issue(h.t.Context(), identity.IssueRequest{Tenant: ten, Subject: d.id, Kind: identity.LDevID, CSR: csr, Actor: d.id})
	h.must(err)
	d.cert, err = c.Parse()
	h.must(err)
	return d
}

// renew tries once and says whether it was served. If not, the device knows when to come again.
func (h *house) renew(d *renewer) bool {
	h.t.Helper()
	key := newKey(h.t)
	csr := csrFor(h.t, key, func(r *x509.CertificateRequest) { r.RawSubject, r.URIs = d.cert.RawSubject, d.cert.URIs })
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: h.roots, Time: h.clock.Now,
		Certificates: []tls.Certificate{{Certificate: [][]byte{d.cert.Raw}, PrivateKey: d.key}}}}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Post(h.door+"/.well-known/est/simplereenroll", "application/pkcs10", strings.NewReader(base64.StdEncoding.EncodeToString(csr)))
	h.must(err)
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return true
	}
	wait, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if resp.StatusCode != http.StatusServiceUnavailable && resp.StatusCode != http.StatusAccepted || err != nil || wait < 1 {
		h.t.Fatalf("%s: %s, Retry-After %q", d.id, resp.Status, resp.Header.Get("Retry-After"))
	}
	d.next = h.clock.Now().Add(min(time.Minute<<d.tries, time.Hour) + time.Duration(wait)*time.Second)
	d.tries = min(d.tries+1, 10)
	return false
}

// shut closes or opens the engine.
func shut(t *testing.T, v *testpeers.Vault, sealed bool) {
	t.Helper()
	c := api.NewConfig()
	c.Address = v.Address
	if err := c.ConfigureTLS(&api.TLSConfig{CACertBytes: []byte(v.CA)}); err != nil {
		t.Fatal(err)
	}
	client, err := api.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	client.SetToken(v.Token)
	if sealed {
		err = client.Sys().Seal()
	} else {
		_, err = client.Sys().Unseal(v.Unseal)
	}
	if err != nil {
		t.Fatal(err)
	}
}
