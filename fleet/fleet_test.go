// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

var (
	schema = []store.Migrations{Schema}
	t0     = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
)

type rig struct {
	*Service
	t   *testing.T
	clk *clock.Hand
}

func each(t *testing.T, fn func(r rig)) {
	clk := clock.NewHand(t0)
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		clk.Set(t0)
		fn(rig{New(Config{DB: db, Clock: clk}), t, clk})
	}, func(c *store.Config) { c.Clock = clk })
}

func (r rig) installed(tenant, device, release string, at time.Time) {
	r.t.Helper()
	if err := r.cfg.DB.Write(r.t.Context(), func(tx *store.Tx) error {
		if release == "" {
			return r.Uninstalled(tx, tenant, device, at)
		}
		return r.Installed(tx, tenant, "prd", device, release, at)
	}); err != nil {
		r.t.Fatal(err)
	}
}

func (r rig) fold() {
	r.t.Helper()
	if err := r.Fold(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// S18: after random installations, rollbacks, removals and folds, counters equal a full recount, now and as of any
// past moment, and the pages list exactly the devices that the counters count.
func TestS18_CountersEqualARecount(t *testing.T) {
	each(t, func(r rig) {
		ctx := r.t.Context()
		random := rand.New(rand.NewPCG(3, 5))
		type key struct{ tenant, device string }
		type event struct {
			at      int64
			release string // "" none
		}
		truth := map[key][]event{}
		var moments []time.Time
		at := t0
		for range 400 {
			at = at.Add(time.Duration(random.Int64N(int64(4 * time.Hour))))
			if random.IntN(20) == 0 {
				at = at.Truncate(24 * time.Hour).Add(24 * time.Hour) // exactly at midnight
			}
			k := key{fmt.Sprintf("ten%d", random.IntN(2)), fmt.Sprintf("dev_%02d", random.IntN(15))}
			release := []string{"", "rel_1", "rel_2", "rel_3", "rel_4"}[random.IntN(5)]
			r.installed(k.tenant, k.device, release, at)
			before := ""
			if n := len(truth[k]); n > 0 {
				before = truth[k][n-1].release
			}
			truth[k] = append(truth[k], event{at.UnixMilli(), release})
			if before != release && random.IntN(5) == 0 { // news that is older than what is known
				r.installed(k.tenant, k.device, "rel_late", at.Add(-time.Millisecond))
			}
			switch random.IntN(8) {
			case 0, 2:
				r.fold()
			case 1:
				moments = append(moments, at, at.Add(-time.Millisecond), at.Add(time.Duration(random.Int64N(int64(time.Hour)))))
			}
		}
		recount := func(tenant string, at int64) map[string]int64 {
			n := map[string]int64{}
			for k, events := range truth {
				running := ""
				for _, e := range events {
					if e.at <= at {
						running = e.release
					}
				}
				if k.tenant == tenant && running != "" {
					n[running]++
				}
			}
			return n
		}
		for _, tenant := range []string{"ten0", "ten1", "nobody"} {
			got, err := r.CountByRelease(ctx, tenant)
			if err != nil {
				r.t.Fatal(err)
			}
			if d := cmp.Diff(recount(tenant, Forever), got); d != "" {
				r.t.Errorf("%s now (-recount +counters):\n%s", tenant, d)
			}
			for _, m := range moments {
				got, err := r.CountOf(ctx, tenant, nil, m)
				if err != nil {
					r.t.Fatal(err)
				}
				if d := cmp.Diff(recount(tenant, m.UnixMilli()), got); d != "" {
					r.t.Fatalf("%s as of %s (-recount +counters):\n%s", tenant, m, d)
				}
			}
			m := moments[len(moments)/2]
			for _, at := range []time.Time{{}, m} {
				want := recount(tenant, store.Millis(at))
				if at.IsZero() {
					want = recount(tenant, Forever)
				}
				listed := map[string]int64{}
				for after := ""; ; {
					page, err := r.Devices(ctx, tenant, []string{"rel_1", "rel_2", "rel_3", "rel_4", "rel_1"}, at, Page{After: after, Limit: 4})
					if err != nil {
						r.t.Fatal(err)
					}
					for _, d := range page {
						if d.Cursor() <= after {
							r.t.Fatalf("%s came after %s", d.Cursor(), after)
						}
						after = d.Cursor()
						listed[d.Release]++
					}
					if len(page) == 0 {
						break
					}
				}
				if d := cmp.Diff(want, listed); d != "" {
					r.t.Errorf("%s pages at %v (-counted +listed):\n%s", tenant, at, d)
				}
			}
		}
	})
}

// Intervals neither overlap nor leave holes, and saying the same again changes nothing.
func TestHistory(t *testing.T) {
	each(t, func(r rig) {
		at := func(min int) time.Time { return t0.Add(time.Duration(min) * time.Minute) }
		r.installed("ten", "dev_a", "rel_1", at(0))
		r.installed("ten", "dev_a", "rel_1", at(5))
		r.installed("ten", "dev_a", "rel_2", at(10))
		r.installed("ten", "dev_a", "rel_3", at(10)) // the same moment: the last word counts
		r.installed("ten", "dev_a", "rel_1", at(20))
		r.installed("ten", "dev_a", "", at(30))
		r.installed("ten", "dev_a", "", at(31))
		r.installed("ten", "dev_a", "rel_9", at(25)) // older than the removal
		got, err := r.History(r.t.Context(), "ten", "dev_a")
		if err != nil {
			r.t.Fatal(err)
		}
		end := func(min int) *time.Time { t := at(min); return &t }
		want := []Interval{{"rel_1", at(20), end(30)}, {"rel_3", at(10), end(20)}, {"rel_1", at(0), end(10)}}
		if d := cmp.Diff(want, got); d != "" {
			r.t.Errorf("(-want +got):\n%s", d)
		}
		if other, err := r.History(r.t.Context(), "ten2", "dev_a"); err != nil || len(other) != 0 {
			r.t.Errorf("another tenant reads %v, %v", other, err)
		}
		r.installed("ten", "dev_b", "rel_1", at(40))
		running, err := r.Running(r.t.Context(), "ten", []string{"dev_a", "dev_b"})
		if err != nil {
			r.t.Fatal(err)
		}
		if d := cmp.Diff(map[string]string{"dev_b": "rel_1"}, running); d != "" {
			r.t.Errorf("running (-want +got):\n%s", d)
		}
	})
}

func TestPresence(t *testing.T) {
	each(t, func(r rig) {
		ctx := r.t.Context()
		peer := gateway.Peer{Kind: gateway.LDevID, Tenant: "ten", Device: "dev_a"}
		get := func() Presence {
			r.t.Helper()
			p, err := r.Presence(ctx, "ten", []string{"dev_a", "dev_never"})
			if err != nil {
				r.t.Fatal(err)
			}
			if _, ok := p["dev_never"]; ok {
				r.t.Error("a device that never came is known")
			}
			return p["dev_a"]
		}
		count := func() int { n, _ := r.OnlineCount("ten"); return n }

		_, changed := r.OnlineCount("ten")
		r.Online(peer)
		<-changed
		r.clk.Advance(time.Minute)
		r.Online(peer) // a takeover: the gateway does not announce the end of the old session
		if p := get(); !p.Online || !p.Since.Equal(t0) || count() != 1 {
			r.t.Errorf("after a takeover: %+v, %d online", p, count())
		}
		if err := r.flush(ctx); err != nil {
			r.t.Fatal(err)
		}
		if p, err := presences(ctx, r.cfg.DB, "ten", []string{"dev_a"}); err != nil || !p["dev_a"].Online {
			r.t.Errorf("the row says %+v, %v", p, err)
		}
		r.clk.Advance(time.Minute)
		r.Offline(peer, "keep alive")
		if p := get(); p.Online || p.Reason != "keep alive" || !p.LastSeen.Equal(t0.Add(2*time.Minute)) || count() != 0 {
			r.t.Errorf("after the end: %+v, %d online", p, count())
		}
		if err := r.flush(ctx); err != nil {
			r.t.Fatal(err)
		}
		if len(r.present) != 0 || len(r.dirty) != 0 {
			r.t.Errorf("memory keeps %v %v", r.present, r.dirty)
		}
		if p := get(); p.Online || p.Reason != "keep alive" {
			r.t.Errorf("from the row: %+v", p)
		}
	})
}

// A process that dies leaves rows that say online; the next one corrects them, and keeps those who are here already. On a
// database that nodes share it waits until the dead one's time has run out.
func TestPresenceAfterACrash(t *testing.T) {
	each(t, func(r rig) {
		ctx := r.t.Context()
		must(r.t, r.watchNodes(ctx))
		for _, d := range []string{"dev_gone", "dev_here"} {
			r.Online(gateway.Peer{Tenant: "ten", Device: d})
		}
		must(r.t, r.flush(ctx))
		next := New(r.cfg)
		next.Online(gateway.Peer{Tenant: "ten", Device: "dev_here"})
		ctx, stop := context.WithCancel(ctx)
		ended := make(chan error)
		go func() { ended <- next.Work(ctx) }()
		r.clk.WaitTimers(2) // the other is that of the daily recount
		for at := time.Duration(0); at <= nodeLives; at += nodeBeats {
			r.clk.Advance(nodeBeats)
			r.clk.WaitTimers(2)
		}
		stop()
		if err := <-ended; err != nil {
			r.t.Error(err)
		}
		p, err := presences(r.t.Context(), r.cfg.DB, "ten", []string{"dev_gone", "dev_here"})
		must(r.t, err)
		if p["dev_gone"].Online || p["dev_gone"].Reason != reasonNodeGone || !p["dev_here"].Online {
			r.t.Errorf("after the restart: %+v", p)
		}
		was, err := r.Connections(r.t.Context(), "ten", "dev_gone")
		if err != nil || len(was) != 1 || was[0].To == nil || was[0].Reason != reasonNodeGone {
			r.t.Errorf("the connection to the dead node: %+v, %v", was, err)
		}
	})
}

// A node that writes late, about a session that the device has left for another node, neither calls the device back nor
// says it gone, nor why.
func TestPresenceOfTheLatestSession(t *testing.T) {
	each(t, func(a rig) {
		t, ctx, b := a.t, a.t.Context(), New(a.cfg)
		first := gateway.Peer{Tenant: "ten", Device: "dev_a", Generation: 1}
		second := first
		second.Generation = 2
		state := func() (string, bool) {
			t.Helper()
			node, live, err := New(a.cfg).Live(ctx, "ten", "dev_a") // as a third node knows it
			must(t, err)
			return node, live
		}
		a.Online(first)
		a.clk.Advance(time.Second)
		b.Online(second)
		must(t, b.flush(ctx))
		must(t, a.flush(ctx))
		if node, live := state(); !live || node != b.Node() {
			t.Errorf("after the late word of the first session: %v at %q, want %q", live, node, b.Node())
		}
		b.Offline(second, "silent for too long")
		must(t, b.flush(ctx))
		a.clk.Advance(time.Second)
		a.Offline(first, "another connection of the device took over, on another node")
		must(t, a.flush(ctx))
		p, err := New(a.cfg).Presence(ctx, "ten", []string{"dev_a"})
		if got := p["dev_a"]; err != nil || got.Online || got.Reason != "silent for too long" || !got.LastSeen.Equal(t0.Add(time.Second)) {
			t.Errorf("after the late end of the first session: %+v, %v", got, err)
		}
		was, err := a.Connections(ctx, "ten", "dev_a")
		if err != nil || len(was) != 2 || was[0].To == nil || was[1].To == nil {
			t.Errorf("connections: %+v, %v", was, err)
		}
	})
}

// Several nodes on one database: a device is online where it came last, whoever writes first; a node that dies takes its
// devices along when its time has run out, and one that was only taken for dead says them again.
func TestPresenceOnSeveralNodes(t *testing.T) {
	each(t, func(a rig) {
		if a.cfg.DB.Engine() == store.SQLite {
			return // one process has the file
		}
		t, ctx, b := a.t, a.t.Context(), New(a.cfg)
		must(t, a.watchNodes(ctx))
		must(t, b.watchNodes(ctx))
		both, mine := gateway.Peer{Tenant: "ten", Device: "dev_both"}, gateway.Peer{Tenant: "ten", Device: "dev_mine"}
		state := func(device string) string {
			t.Helper()
			node, live, err := New(a.cfg).Live(ctx, "ten", device) // as a third node knows it
			must(t, err)
			switch {
			case !live:
				return "offline"
			case node == a.Node():
				return "a"
			}
			return "b"
		}
		a.Online(both)
		a.Online(mine)
		must(t, a.flush(ctx))
		a.clk.Advance(time.Second)
		both.Generation++
		b.Online(both)
		must(t, b.flush(ctx))
		a.clk.Advance(time.Second)
		both.Generation--
		a.Offline(both, "another connection of the device took over, on another node")
		must(t, a.flush(ctx))
		if got := state("dev_both") + " " + state("dev_mine"); got != "b a" {
			t.Errorf("after the move: %s", got)
		}
		if p, err := a.Presence(ctx, "ten", []string{"dev_both"}); err != nil || !p["dev_both"].Online || !p["dev_both"].Since.Equal(t0) {
			t.Errorf("who looks at the old node sees %+v, %v", p, err)
		}
		was, err := a.Connections(ctx, "ten", "dev_both")
		if err != nil || len(was) != 2 || was[0].Node != b.Node() || was[0].To != nil || was[1].Node != a.Node() || was[1].To == nil || !strings.Contains(was[1].Reason, "another node") {
			t.Errorf("connections: %+v, %v", was, err)
		}
		a.clk.Advance(nodeBeats)
		must(t, a.watchNodes(ctx))
		must(t, b.watchNodes(ctx))
		must(t, a.watchNodes(ctx))
		if n, _ := b.OnlineCount("ten"); n != 2 {
			t.Errorf("node b counts %d online", n)
		}
		// Node a falls silent.
		for range 5 {
			a.clk.Advance(nodeBeats)
			must(t, b.watchNodes(ctx))
		}
		if got := state("dev_both") + " " + state("dev_mine"); got != "b offline" {
			t.Errorf("after a is silent: %s", got)
		}
		if n, _ := b.OnlineCount("ten"); n != 1 {
			t.Errorf("node b counts %d online", n)
		}
		must(t, a.watchNodes(ctx))
		must(t, a.flush(ctx))
		if got := state("dev_mine"); got != "a" {
			t.Errorf("after a speaks again: %s", got)
		}
	})
}

// A device's last connections are kept, and no more.
func TestConnectionsAreBounded(t *testing.T) {
	each(t, func(r rig) {
		peer := gateway.Peer{Tenant: "ten", Device: "dev_a"}
		for i := range 3 * connectionsKept {
			r.Online(peer)
			r.clk.Advance(time.Minute)
			if i%3 == 0 { // else it comes again before it went
				r.Offline(peer, "silent for too long")
			}
			if i%5 == 0 {
				must(r.t, r.flush(r.t.Context()))
			}
			r.clk.Advance(time.Minute)
		}
		must(r.t, r.flush(r.t.Context()))
		was, err := r.Connections(r.t.Context(), "ten", "dev_a")
		must(r.t, err)
		if len(was) != connectionsKept {
			r.t.Fatalf("%d connections are kept", len(was))
		}
		for i, c := range was {
			last := 3*connectionsKept - 1 - i
			begun, reason, lasted := t0.Add(time.Duration(2*last)*time.Minute), reasonTakenOver, 2*time.Minute
			if last%3 == 0 {
				reason, lasted = "silent for too long", time.Minute
			}
			if !c.From.Equal(begun) || i > 0 && (c.To == nil || !c.To.Equal(begun.Add(lasted)) || c.Reason != reason) || i == 0 && c.To != nil {
				r.t.Errorf("connection %d: %+v, want from %s, %s", last, c, begun, reason)
			}
		}
		if other, err := r.Connections(r.t.Context(), "other", "dev_a"); err != nil || len(other) != 0 {
			r.t.Errorf("another tenant reads %v, %v", other, err)
		}
	})
}
