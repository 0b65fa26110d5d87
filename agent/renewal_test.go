// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/agent"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/hardware/hardwaretest"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// TestRefusedRenewalFallsBack: the platform certifies a renewal and then wants to know nothing of that certificate. The
// unit works on with the one it has, gives the other up, and asks again later with another key.
func TestRefusedRenewalFallsBack(t *testing.T) {
	h := newHouse(t)
	h.back, h.life = 50*time.Minute, 10*time.Minute // the renewal is due at once
	u := h.born("dev_1")
	u.on()
	await(h, "inv", anyInventory)
	h.set(func() { h.back, h.life, h.disowned = time.Second, time.Hour, true })
	eventually(t, func() bool { h.mu.Lock(); defer h.mu.Unlock(); return h.renewed >= 2 })
	h.forget()
	await(h, "inv", anyInventory) // under the old one
	eventually(t, func() bool { h.mu.Lock(); defer h.mu.Unlock(); return len(h.keys) >= 2 })
	h.set(func() { h.disowned = false })
	eventually(t, func() bool {
		c, err := agent.Identity(u.dir, "ldevid")
		return err == nil && time.Until(c.Leaf.NotAfter) > 30*time.Minute
	})
	await(h, "inv", anyInventory)
	h.set(func() {
		if h.enrolled != 1 {
			t.Errorf("it enrolled %d times: it needed its certificate of birth", h.enrolled)
		}
	})
}

// TestNoWayBackToAReplacedCertificate: the platform lets the unit in with its new certificate, which takes the old one's
// place, and then has no session for it, however often it comes. The unit never shows the old one again: who does that
// minutes later is taken for a second holder of its identity and locked out.
func TestNoWayBackToAReplacedCertificate(t *testing.T) {
	h := newPlatform(t)
	d := h.born("SN-1").on()
	d.inventory(anyInventory)
	h.unkept.Store(true)
	h.hand.Advance(47 * 24 * time.Hour)
	eventually(t, func() bool { return d.certificates()["ldevid superseded"] == 1 })
	eventually(t, func() bool { return h.turnedAway.Load() >= 4 })
	h.forget()
	h.unkept.Store(false)
	d.inventory(anyInventory)
	d.off()
	if n := h.spent.Load(); n > 0 {
		t.Errorf("it showed the certificate that was replaced %d times", n)
	}
	if got := d.certificates(); got["ldevid active"] != 1 || got["ldevid superseded"] != 1 {
		t.Errorf("certificates: %v", got)
	}
}

// breaker forwards connections, and breaks the first ones off after a number of bytes from the server that chance gives.
func breaker(t *testing.T, to string, breaks int) (address string, broken func() int) {
	t.Helper()
	l := ok(net.Listen("tcp", "127.0.0.1:0"))(t)
	r := rand.New(rand.NewPCG(7, 7))
	var mu sync.Mutex
	done := 0
	var forwards sync.WaitGroup
	forwards.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				continue
			}
			mu.Lock()
			limit := int64(1) << 40
			if done < breaks {
				done++
				limit = 1 + r.Int64N(4500)
			}
			mu.Unlock()
			forwards.Go(func() { _, _ = io.Copy(s, c); s.Close() })
			forwards.Go(func() { _, _ = io.CopyN(c, s, limit); c.Close(); s.Close() })
		}
	})
	t.Cleanup(func() { l.Close() })
	return l.Addr().String(), func() int { mu.Lock(); defer mu.Unlock(); return done }
}

// TestLostAnswers: connections to the HTTPS door break off somewhere, a hundred times over an enrolment and a renewal.
// The unit has one identity, and no certificate was made twice.
func TestLostAnswers(t *testing.T) {
	h := newPlatform(t)
	d := h.born("SN-1")
	d.cfg.Retry = 50 * time.Microsecond
	var broken func() int
	d.cfg.HTTPS, broken = breaker(t, h.https, 60)
	d.on()
	d.inventory(anyInventory)
	d.off()
	if n := broken(); n < 5 {
		t.Errorf("only %d connections broke", n)
	}
	if got := d.certificates(); got["idevid active"] != 1 || got["ldevid active"] != 1 || len(got) != 2 {
		t.Errorf("after the enrolment: %v", got)
	}
	d.cfg.HTTPS, broken = breaker(t, h.https, 40)
	h.hand.Advance(47 * 24 * time.Hour)
	d.on()
	eventually(t, func() bool { return d.certificates()["ldevid superseded"] == 1 })
	d.off()
	if got := d.certificates(); got["ldevid active"] != 1 || got["ldevid superseded"] != 1 || len(got) != 3 || h.identities() != 1 {
		t.Errorf("after the renewal: %v", got)
	}
}

// hurried is a clock under which no pause lasts longer than a millisecond.
type hurried struct{ *clock.Hand }

func (c hurried) NewTimer(d time.Duration) *clock.Timer {
	if d > 500*time.Hour { // the interval between measurements
		return c.Hand.NewTimer(d)
	}
	return clock.System.NewTimer(min(d, time.Millisecond))
}

// knocks is a log that tells how long a device means to wait each time that it did not get in.
type knocks chan time.Duration

func (k knocks) Enabled(context.Context, slog.Level) bool { return true }
func (k knocks) WithAttrs([]slog.Attr) slog.Handler       { return k }
func (k knocks) WithGroup(string) slog.Handler            { return k }
func (k knocks) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if r.Message == "not connected" && a.Key == "again_in" {
			k <- a.Value.Duration()
		}
		return true
	})
	return nil
}

// TestShutOutStaysQuiet: a unit that was revoked and barred knocks ever more rarely, at last about once an hour, and
// never gets in.
func TestShutOutStaysQuiet(t *testing.T) {
	h := newPlatform(t)
	d := h.born("SN-1").on()
	d.inventory(anyInventory)
	d.off()
	h.must(h.db.WriteFirst(t.Context(), func(tx *store.Tx) error {
		if err := h.identity.SetState(tx, ten, d.id, identity.Decommissioned, "per_1", "lost"); err != nil {
			return err
		}
		return h.identity.Revoke(tx, ten, d.id, "per_1", "lost")
	}))
	asked := make(knocks, 100000)
	d.cfg.Clock, d.cfg.Retry, d.cfg.Log = hurried{h.hand}, time.Second, slog.New(asked)
	h.forget()
	h.admitted.Clear()
	d.on()
	times := 1
	for pause := <-asked; pause < 2048*time.Second && times <= 20; pause = <-asked {
		times++
	}
	d.off()
	if times > 20 {
		t.Errorf("it knocked %d times and is not quiet", times)
	}
	h.admitted.Range(func(kind, _ any) bool {
		t.Errorf("it was let in with its %s", kind)
		return true
	})
}

// TestKeysInATPM: with its keys in a TPM a unit enrols and renews, and no private key lies in its directory.
func TestKeysInATPM(t *testing.T) {
	tpm := hardwaretest.NewTPM(t)
	h := newPlatform(t)
	d := h.bornWith("SN-1", "tpm:"+tpm.Where).on()
	d.inventory(anyInventory)
	d.off()
	h.hand.Advance(47 * 24 * time.Hour)
	d.on()
	eventually(t, func() bool { return d.certificates()["ldevid superseded"] == 1 })
	d.inventory(anyInventory)
	d.off()
	for _, f := range names(t, d.dir) {
		if f.IsDir() {
			continue
		}
		if b := ok(os.ReadFile(filepath.Join(d.dir, f.Name())))(t); strings.Contains(string(b), "BEGIN PRIVATE KEY") {
			t.Errorf("%s holds a private key", f.Name())
		}
	}
}

// TestBaselineIsReported: before it is let in with its IDevID, and after each start with its LDevID.
func TestBaselineIsReported(t *testing.T) {
	h := newHouse(t)
	reports := make(chan gateway.Kind, 100)
	h.baseline = func(w http.ResponseWriter, r *http.Request, p gateway.Peer) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		report, err := wire.ParseBaselineReport(b)
		if err != nil || report.Agent != agent.Version || report.Boot == 0 || report.TLS != "1.3" {
			t.Errorf("report %s: %v", b, err)
		}
		reports <- p.Kind
		answer(w, []byte(`{"ok":true}`))
	}
	u := h.born("dev_1").on()
	for _, want := range []gateway.Kind{gateway.IDevID, gateway.LDevID} {
		if got := <-reports; got != want {
			t.Errorf("reported as %s, want %s", got, want)
		}
	}
	u.off()
	u.on()
	if got := <-reports; got != gateway.LDevID {
		t.Errorf("after a start it reported as %s", got)
	}
}
