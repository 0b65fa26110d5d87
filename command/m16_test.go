// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// unit is a device that carries a command out once, however often it gets it, and keeps its result.
type unit struct {
	mu   sync.Mutex
	got  []string       // the commands whose packets came, in order
	done map[string]int // how often each was carried out
}

func (u *unit) receive(m gateway.Downlink) {
	u.mu.Lock()
	defer u.mu.Unlock()
	id, _, _ := strings.Cut(strings.TrimPrefix(m.Topic, "cmd/"), "/")
	u.got = append(u.got, id)
	if u.done[id] == 0 {
		u.done[id]++
	}
}

// times is how often the packet of a command came.
func (u *unit) times() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.got)
}

// begin starts a process of the platform on the database; end stops it as a crash does: whatever it was about to note is
// not noted any more.
func begin(t *testing.T, url, keyDir string, clk *clock.Hand, deliver func(context.Context, gateway.Downlink) error) (r rig, end func()) {
	r = rig{t: t, clk: clk}
	db := storetest.Open(t, url, []store.Migrations{seal.Schema, audit.Schema, Schema}, func(c *store.Config) { c.Clock = clk })
	keys, err := seal.Open(keyDir, clk)
	r.must(err)
	r.Service = New(Config{DB: db, Keys: keys, Clock: clk, Deliver: deliver})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.Work(ctx) }()
	return r, sync.OnceFunc(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		r.must(db.Close())
	})
}

// A process that dies at any state of a command leaves what its successor needs: the command ends once, the device has
// carried it out once, and the log holds one creation and one end.
func TestM16_CrashAtEachState(t *testing.T) {
	for _, point := range []string{"queued", "handed over", "on the device", "received", "accepted", "answered"} {
		t.Run(point, func(t *testing.T) {
			storetest.EachURL(t, func(t *testing.T, url string) {
				clk, keyDir := clock.NewHand(t0), filepath.Join(t.TempDir(), "keys")
				u := &unit{done: map[string]int{}}
				died := make(chan struct{})
				first, crash := begin(t, url, keyDir, clk, func(_ context.Context, m gateway.Downlink) error {
					switch point {
					case "queued":
						return gateway.ErrOffline
					case "handed over":
						close(died)
						runtime.Goexit()
					case "on the device":
						u.receive(m)
						close(died)
						runtime.Goexit()
					}
					u.receive(m)
					return nil
				})
				id := first.send("dev_a", "reboot", nil)
				switch point {
				case "handed over", "on the device":
					<-died
				case "received", "accepted", "answered":
					first.until(id, Received)
				}
				if point == "accepted" || point == "answered" {
					first.must(first.says("dev_a", "cmd/"+id+"/ack", `{"ok":true}`))
				}
				if point == "answered" {
					first.must(first.says("dev_a", "cmd/"+id+"/res", `{"ok":true}`))
				}
				crash()
				second, end := begin(t, url, keyDir, clk, func(_ context.Context, m gateway.Downlink) error { u.receive(m); return nil })
				defer end()
				want := map[string]int{"on the device": 2}[point] // under the same id, so the device knows it
				if want == 0 {
					want = 1
				}
				second.Ready("dev_a")
				if point != "accepted" && point != "answered" {
					second.until(id, Received)
				}
				if got := u.times(); got != want {
					t.Errorf("the packet came %d times, want %d", got, want)
				}
				second.must(second.says("dev_a", "cmd/"+id+"/res", `{"ok":true}`)) // the device repeats what it has no PUBACK for
				if c := second.get(id); c.State != Done || u.done[id] != 1 {
					t.Errorf("it ended %s after %d executions", c.State, u.done[id])
				}
				if d := cmp.Diff([]string{"command.created", "command.ended"}, second.leaves("dev_a")); d != "" {
					t.Errorf("leaves (-want +got):\n%s", d)
				}
			})
		})
	}
}

// What was handed over by a process that died is handed over again without the device coming back: its time runs out.
func TestM16_HandedOverByADeadProcess(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		clk, keyDir := clock.NewHand(t0), filepath.Join(t.TempDir(), "keys")
		died := make(chan struct{})
		first, crash := begin(t, url, keyDir, clk, func(context.Context, gateway.Downlink) error { close(died); runtime.Goexit(); return nil })
		id := first.send("dev_a", "reboot", nil)
		<-died
		crash()
		u := &unit{done: map[string]int{}}
		second, end := begin(t, url, keyDir, clk, func(_ context.Context, m gateway.Downlink) error { u.receive(m); return nil })
		defer end()
		clk.Advance(44 * time.Second)
		second.must(second.sweep(t.Context()))
		if s := second.get(id).State; s != Sent {
			t.Fatalf("it is %s", s)
		}
		clk.Advance(time.Second)
		second.must(second.sweep(t.Context()))
		if c := second.get(id); c.State != Queued || c.Next == nil {
			t.Fatalf("it is %s, next %v", c.State, c.Next)
		}
		clk.Advance(10 * time.Second)
		second.must(second.look(t.Context(), clk.Now().Add(-lookBack)))
		second.until(id, Received)
		if c := second.get(id); c.Attempts != 2 {
			t.Errorf("%d attempts", c.Attempts)
		}
	})
}

// A command whose time ends while its device is away never reaches the device; a later result still counts.
func TestM16_ExpiryWhileOffline(t *testing.T) {
	each(t, func(r rig) {
		id := r.send("dev_a", "reboot", nil)
		(<-r.sent).ack <- gateway.ErrOffline
		r.until(id, Queued)
		r.clk.Advance(time.Hour)
		r.must(r.sweep(r.t.Context()))
		if c := r.get(id); c.State != Expired || c.Attempts != 0 || c.Ended == nil {
			r.t.Errorf("it is %s after %d attempts", c.State, c.Attempts)
		}
		r.must(r.deliverAll(r.t.Context(), "dev_a")) // it is back: nothing is delivered, or this would wait for ever
	})
}

func TestM16_DuplicateResult(t *testing.T) {
	each(t, func(r rig) {
		id := r.send("dev_a", "reboot", nil)
		(<-r.sent).ack <- nil
		r.until(id, Received)
		for i := range 3 {
			r.must(r.says("dev_a", "cmd/"+id+"/res", fmt.Sprintf(`{"ok":%t,"detail":"%d"}`, i == 0, i)))
		}
		if c := r.get(id); c.State != Done || c.Reason != "0" {
			r.t.Errorf("it ended %s %q", c.State, c.Reason)
		}
		if d := cmp.Diff([]string{"command.created", "command.ended"}, r.leaves("dev_a")); d != "" {
			r.t.Errorf("leaves (-want +got):\n%s", d)
		}
	})
}

// Without a result in time an idempotent command is asked again, so often and no more; another one is not.
func TestM16_PubackWithoutResult(t *testing.T) {
	each(t, func(r rig) {
		ask := func(device string, p Policy) (id string) {
			r.must(r.cfg.DB.Write(r.t.Context(), func(tx *store.Tx) (err error) {
				id, err = r.Ask(tx, Request{Tenant: "ten", Device: device, Name: "measure", NotAfter: t0.Add(time.Hour), Actor: "per_x", Policy: p})
				return err
			}))
			return id
		}
		tick := func(d time.Duration) {
			r.clk.Advance(d)
			r.must(r.sweep(r.t.Context()))
		}
		once := ask("dev_a", Policy{AckTimeout: 30, ResultTimeout: 60, Retries: 2, Backoff: 10})
		(<-r.sent).ack <- nil
		r.until(once, Received)
		tick(59 * time.Second)
		r.until(once, Received)
		tick(time.Second)
		if c := r.get(once); c.State != Expired || c.Reason != "no result within 60 s" {
			r.t.Errorf("a command that must not be repeated is %s %q", c.State, c.Reason)
		}
		r.must(r.says("dev_a", "cmd/"+once+"/res", `{"ok":true}`))
		if s := r.get(once).State; s != Done {
			r.t.Errorf("its late result left it %s", s)
		}
		again := ask("dev_b", Policy{AckTimeout: 30, ResultTimeout: 60, Retries: 2, Backoff: 10, Idempotent: true})
		for attempt := range 3 {
			(<-r.sent).ack <- nil
			r.until(again, Received)
			r.must(r.says("dev_b", "cmd/"+again+"/ack", `{"ok":true}`))
			r.until(again, Accepted)
			tick(60 * time.Second)
			if attempt == 2 {
				break
			}
			if c := r.get(again); c.State != Queued || c.Next == nil || !c.Next.Equal(r.clk.Now().Add(10*time.Second<<attempt)) {
				r.t.Fatalf("after attempt %d it is %s, next %v", attempt+1, c.State, c.Next)
			}
			r.must(r.deliverAll(r.t.Context(), "dev_b")) // not before its time
			r.clk.Advance(10 * time.Second << attempt)
			r.must(r.look(r.t.Context(), r.clk.Now().Add(-lookBack)))
		}
		if c := r.get(again); c.State != Expired || c.Attempts != 3 {
			r.t.Errorf("in the end it is %s after %d attempts", c.State, c.Attempts)
		}
	})
}

// A packet that is never acknowledged is handed over so often and no more: it may be what kills the device.
func TestUnacknowledged(t *testing.T) {
	each(t, func(r rig) {
		var id string
		r.must(r.cfg.DB.Write(r.t.Context(), func(tx *store.Tx) (err error) {
			id, err = r.Ask(tx, Request{Tenant: "ten", Device: "dev_a", Name: "poison", NotAfter: t0.Add(time.Hour), Actor: "per_x", Policy: Policy{AckTimeout: 30, Retries: 2, Backoff: 10}})
			return err
		}))
		(<-r.sent).ack <- gateway.ErrLost // the device died of it
		r.until(id, Queued)
		r.Ready("dev_a") // and is back: no pause
		(<-r.sent).ack <- errors.New("no PUBACK")
		r.until(id, Queued)
		if c := r.get(id); c.Attempts != 2 || c.Next == nil || !c.Next.Equal(t0.Add(20*time.Second)) {
			r.t.Errorf("after two attempts: %d, next %v", c.Attempts, c.Next)
		}
		r.clk.Advance(20 * time.Second)
		r.Kick("dev_a")
		(<-r.sent).ack <- gateway.ErrLost
		r.until(id, Failed)
		if c := r.get(id); c.Attempts != 3 || !strings.Contains(c.Reason, "3 times") {
			r.t.Errorf("in the end: %d attempts, %q", c.Attempts, c.Reason)
		}
	})
}

// Two nodes never hand the same attempt over, and the note of one that was slow does not undo what the other did.
func TestAttemptsAreFenced(t *testing.T) {
	each(t, func(r rig) {
		id := r.send("dev_a", "reboot", nil)
		d := <-r.sent
		before := r.get(id)
		var mine, again bool
		r.must(r.cfg.DB.Write(r.t.Context(), func(tx *store.Tx) (err error) { // another node, where the device is now
			if mine, err = handOver(tx, before, r.clk.Now()); err == nil {
				again, err = handOver(tx, before, r.clk.Now())
			}
			return err
		}))
		if !mine || again {
			r.t.Fatalf("the other node could hand it over: %t; the same attempt again: %t", mine, again)
		}
		d.ack <- gateway.ErrLost
		other := r.send("dev_a", "next", nil) // served after the note of the first
		for r.get(id).Attempts == 2 {         // this node looks at the device again and finds both
			if d := <-r.sent; strings.HasSuffix(d.topic, "/reboot") {
				d.ack <- nil
				break
			}
		}
		r.until(id, Received)
		(<-r.sent).ack <- nil
		r.until(other, Received)
		if c := r.get(id); c.Attempts != 3 {
			r.t.Errorf("%d attempts", c.Attempts)
		}
	})
}

func TestCancel(t *testing.T) {
	each(t, func(r rig) {
		cancel := func(id string) error {
			return r.cfg.DB.Write(r.t.Context(), func(tx *store.Tx) error { return r.Cancel(tx, "ten", id, "per_y", "not needed") })
		}
		id := r.send("dev_a", "reboot", nil)
		(<-r.sent).ack <- gateway.ErrOffline
		r.until(id, Queued)
		r.must(cancel(id))
		if c := r.get(id); c.State != Cancelled || c.Reason != "not needed" || c.Ended == nil {
			r.t.Errorf("cancelled: %+v", c)
		}
		if err := cancel(id); !problem.Is(err, problem.KindConflict) {
			r.t.Errorf("again: %v", err)
		}
		there := r.send("dev_a", "reboot", nil)
		(<-r.sent).ack <- nil
		r.until(there, Received)
		if err := cancel(there); !problem.Is(err, problem.KindConflict) {
			r.t.Errorf("what the device has: %v", err)
		}
		wipe := r.send("dev_b", "wipe", nil)
		(<-r.sent).ack <- gateway.ErrOffline
		r.until(wipe, Queued)
		if err := cancel(wipe); problem.Of(err).Rule != "command.reserved" {
			r.t.Errorf("a wipe: %v", err)
		}
	})
}

func TestTheSameKeyIsTheSameCommand(t *testing.T) {
	each(t, func(r rig) {
		ask := func(device, name, key string) (id string, err error) {
			err = r.cfg.DB.Write(r.t.Context(), func(tx *store.Tx) (err error) {
				id, err = r.Ask(tx, Request{Tenant: "ten", Device: device, Name: name, NotAfter: t0.Add(time.Hour), Actor: "per_x", Key: key})
				return err
			})
			return id, err
		}
		first, err := ask("dev_a", "reboot", "k")
		r.must(err)
		(<-r.sent).ack <- nil
		r.until(first, Received)
		if again, err := ask("dev_a", "reboot", "k"); err != nil || again != first {
			r.t.Errorf("again: %s %v", again, err)
		}
		if _, err := ask("dev_a", "ping", "k"); !problem.Is(err, problem.KindConflict) {
			r.t.Errorf("another command: %v", err)
		}
		other, err := ask("dev_b", "reboot", "k")
		if err != nil || other == first {
			r.t.Errorf("another device: %s %v", other, err)
		}
		(<-r.sent).ack <- nil
		r.until(other, Received)
		if d := cmp.Diff([]string{"command.created"}, r.leaves("dev_a")); d != "" {
			r.t.Errorf("leaves (-want +got):\n%s", d)
		}
	})
}
