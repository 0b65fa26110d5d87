// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/wire"
)

// chainRig is a platform with one device that chains security events.
type chainRig struct {
	rig
	key *ecdsa.PrivateKey

	mu   sync.Mutex // guards the field below
	told []string
}

func eachChain(t *testing.T, fn func(r *chainRig)) {
	clk := clock.NewHand(t0)
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		clk.Set(t0)
		r := &chainRig{rig: newRig(t, db, clk)}
		var err error
		if r.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
		r.cfg.BirthKey = func(context.Context, string, string) (crypto.PublicKey, error) { return r.key.Public(), nil }
		db.On(ChainBroken, "test", func(_ context.Context, e store.Event) error {
			var b ChainBreak
			if err := e.Decode(&b); err != nil {
				return err
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.told = append(r.told, fmt.Sprintf("%s %s %d-%d", e.Subject, b.Kind, b.From, b.To))
			return nil
		})
		fn(r)
	}, func(c *store.Config) { c.Clock = clk })
}

// made is a chain of n events, each fifth a checkpoint under key.
func (r *chainRig) made(device string, n int) (out []gateway.Record) {
	prev := ""
	for seq := uint64(1); seq <= uint64(n); seq++ {
		e := wire.SecurityEvent{Seq: seq, Prev: prev, Kind: wire.SecurityLogin, TS: t0.UnixMilli() + int64(seq), Boot: 1, Detail: fmt.Sprint("user ", seq)}
		if seq%5 == 0 {
			e.Kind, e.Detail = wire.SecurityCheckpoint, ""
			signed, err := wire.Sign(rand.Reader, r.key, wire.SecurityState{Device: device, Seq: seq - 1, Hash: prev})
			if err != nil {
				r.t.Fatal(err)
			}
			e.Signed = &signed
		}
		x := r.security(device, e)
		prev = wire.Digest(x.Body)
		out = append(out, x)
	}
	return out
}

func (r *chainRig) security(device string, e wire.SecurityEvent) gateway.Record {
	b, err := json.Marshal(e)
	if err != nil {
		r.t.Fatal(err)
	}
	return gateway.Record{Tenant: "ten", Device: device, Topic: wire.SecurityPrefix + e.Kind, At: r.clk.Now().UnixMilli(), Body: b}
}

// take has records come in through the inbox, and their handler done with them.
func (r *chainRig) take(records ...gateway.Record) {
	r.t.Helper()
	r.append(records...)
	r.compactAll()
	for range 12 { // beyond the grace of links that wait for the one before them
		for n := 1; n > 0; {
			var err error
			if n, err = r.dispatch(r.t.Context()); err != nil {
				r.t.Fatal(err)
			}
		}
		if r.rows("telemetry_pending") == 0 {
			return
		}
		r.clk.Advance(16 * time.Second)
	}
	r.t.Fatal("security events wait for ever")
}

// stands is the chain of a device in words.
func (r *chainRig) stands(device string) string {
	r.t.Helper()
	c, err := r.Chain(r.t.Context(), "ten", device)
	if err != nil {
		r.t.Fatal(err)
	}
	out := fmt.Sprintf("head %d whole %t signed %d", c.Head, c.Whole, c.Signed)
	var breaks []string
	for _, b := range c.Breaks {
		s := fmt.Sprintf(" %s %d-%d", b.Kind, b.From, b.To)
		if b.Healed != nil {
			s += " healed"
		}
		breaks = append(breaks, s)
	}
	slices.Sort(breaks)
	return out + strings.Join(breaks, "")
}

func TestWholeChainOfSecurityEvents(t *testing.T) {
	eachChain(t, func(r *chainRig) {
		chain := r.made("dev_a", 12)
		r.take(chain[:7]...)
		r.take(chain[4:]...) // some of them twice: their receipt was lost
		if got, want := r.stands("dev_a"), "head 12 whole true signed 10"; got != want {
			r.t.Errorf("%s; want %s", got, want)
		}
		events, err := r.SecurityEvents(r.t.Context(), "ten", "dev_a", "", 100)
		if err != nil || len(events) != 12 {
			r.t.Fatalf("%d events, %v", len(events), err)
		}
		for i, e := range events {
			if want := uint64(12 - i); e.Seq != want || e.Hash != wire.Digest(chain[want-1].Body) || i > 0 && events[i-1].Prev != e.Hash {
				r.t.Errorf("event %d: %+v", want, e)
			}
		}
		if page, err := r.SecurityEvents(r.t.Context(), "ten", "dev_a", events[3].place(), 2); err != nil || len(page) != 2 || page[0].Seq != 8 {
			r.t.Errorf("after 9: %+v, %v", page, err)
		}
		if other, err := r.SecurityEvents(r.t.Context(), "ten2", "dev_a", "", 10); err != nil || len(other) != 0 {
			r.t.Errorf("another tenant reads %v, %v", other, err)
		}
		if e := r.events("ten", "dev_a"); len(e) != 0 {
			r.t.Errorf("they are among the ordinary events as well: %v", e)
		}
		r.heard()
	})
}

// heard compares what was announced.
func (r *chainRig) heard(want ...string) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.cfg.Platform.RunJobs(ctx)
	}()
	deadline := time.After(long)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for r.rows("job") > 0 {
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Fatal("the announcements stay undelivered")
		}
	}
	cancel()
	<-done
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.Sort(r.told)
	if d := cmp.Diff(want, r.told); d != "" {
		r.t.Errorf("announced (-want +got):\n%s", d)
	}
}

// TestBrokenChainsShow: whatever is deleted, altered, written anew or signed by another is found and announced once.
func TestBrokenChainsShow(t *testing.T) {
	eachChain(t, func(r *chainRig) {
		gap := r.made("dev_gap", 8)
		r.take(append(slices.Clone(gap[:2]), gap[5:]...)...)
		r.take(gap[6:]...) // again, which is told no second time
		fork := r.made("dev_fork", 4)
		r.take(fork...)
		var e wire.SecurityEvent
		if err := json.Unmarshal(fork[2].Body, &e); err != nil {
			r.t.Fatal(err)
		}
		e.Detail = "nobody"
		r.take(r.security("dev_fork", e))

		altered := r.made("dev_link", 4)
		e.Seq, e.Prev = 2, wire.Digest(altered[0].Body)
		r.take(altered[0], r.security("dev_link", e), altered[2], altered[3])

		stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			r.t.Fatal(err)
		}
		mine := r.key
		r.key = stranger
		forged := r.made("dev_forged", 6)
		r.key = mine
		r.take(forged...)

		r.take(r.made("dev_late", 9)[3:]...)

		for device, want := range map[string]string{
			"dev_gap":    "head 8 whole false signed 0 gap 3-5",
			"dev_fork":   "head 4 whole false signed 0 fork 3-3",
			"dev_link":   "head 4 whole false signed 0 link 3-3",
			"dev_forged": "head 6 whole false signed 0 checkpoint 5-5",
			"dev_late":   "head 9 whole false signed 5 gap 1-3",
		} {
			if got := r.stands(device); got != want {
				r.t.Errorf("%s: %s; want %s", device, got, want)
			}
		}
		r.heard("dev_forged checkpoint 5-5", "dev_fork fork 3-3", "dev_gap gap 3-5", "dev_late gap 1-3", "dev_link link 3-3")
	})
}

// TestLateLinksHealAGap: what was missing may arrive after all, in any order; a link that merely overtook the one before
// it is no gap.
func TestLateLinksHealAGap(t *testing.T) {
	eachChain(t, func(r *chainRig) {
		chain := r.made("dev_a", 9)
		r.take(chain[0], chain[2], chain[1], chain[8])
		if got, want := r.stands("dev_a"), "head 9 whole false signed 0 gap 4-8"; got != want {
			r.t.Errorf("%s; want %s", got, want)
		}
		r.take(chain[5])
		if got, want := r.stands("dev_a"), "head 9 whole false signed 0 gap 4-5 gap 7-8"; got != want {
			r.t.Errorf("%s; want %s", got, want)
		}
		for _, i := range []int{3, 7, 6, 4} {
			r.take(chain[i])
		}
		if got, want := r.stands("dev_a"), "head 9 whole true signed 5 gap 5-5 healed gap 7-7 healed"; got != want {
			r.t.Errorf("%s; want %s", got, want)
		}
		r.heard("dev_a gap 4-8")
	})
}

// TestEraseDeviceErasesItsChain: sealed while it is there, gone afterwards.
func TestEraseDeviceErasesItsChain(t *testing.T) {
	eachChain(t, func(r *chainRig) {
		r.take(r.made("dev_a", 3)...)
		r.take(r.made("dev_b", 3)...)
		var sealed []byte
		if err := r.cfg.DB.QueryRow(r.t.Context(), `SELECT body FROM telemetry_security WHERE device = 'dev_a' AND seq = 2`).Scan(&sealed); err != nil {
			r.t.Fatal(err)
		}
		if len(sealed) == 0 || strings.Contains(string(sealed), "user 2") {
			r.t.Error("the event was not sealed")
		}
		if err := r.EraseDevice(r.t.Context(), "ten", "dev_a"); err != nil {
			r.t.Fatal(err)
		}
		r.take(r.made("dev_a", 4)...)
		for _, table := range []string{"telemetry_security", "telemetry_chain", "telemetry_chain_break"} {
			if n := r.rows(table + " WHERE device = 'dev_a'"); n != 0 {
				r.t.Errorf("%s holds %d rows of the erased device", table, n)
			}
		}
		if _, err := r.SecurityEvents(r.t.Context(), "ten", "dev_a", "", 10); !problem.Is(err, problem.KindNotFound) {
			r.t.Errorf("security events of an erased device: %v", err)
		}
		if got := r.stands("dev_b"); got != "head 3 whole true signed 0" {
			r.t.Errorf("the other device: %s", got)
		}
	})
}

// TestBadSecurityEventsAreCounted: what is no link is dropped, counted and stops nobody.
func TestBadSecurityEventsAreCounted(t *testing.T) {
	eachChain(t, func(r *chainRig) {
		bad := r.made("dev_a", 1)[0]
		bad.Topic = wire.SecurityPrefix + "boot" // it says login
		worse := bad
		worse.Body = []byte(`{"seq":`)
		r.take(append([]gateway.Record{bad, worse}, r.made("dev_a", 2)...)...)
		latest, err := r.Latest(r.t.Context(), "ten", "dev_a")
		if err != nil || latest.Refused != 2 {
			r.t.Errorf("%d refused, %v", latest.Refused, err)
		}
		if got := r.stands("dev_a"); got != "head 2 whole true signed 0" {
			r.t.Error(got)
		}
	})
}
