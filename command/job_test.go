// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

// yard is a stage with a fleet of commissioned devices, which are online as the test says.
type yard struct {
	rig
	fleet    *fleet.Service
	rights   []tenant.Grant // of whoever makes jobs
	ids      *identity.Service
	products *product.Service
	devices  []string

	mu   sync.Mutex
	got  []string        // devices that a command was delivered to, in order
	away map[string]bool // devices that nothing can be delivered to
}

const yardSize = 10

func eachYard(t *testing.T, fn func(y *yard)) {
	clk := clock.NewHand(t0)
	storetest.Each(t, yardSchema, func(t *testing.T, db *store.DB) {
		clk.Set(t0)
		y, end := openYard(t, db, clk)
		fn(y)
		end()
	}, func(c *store.Config) { c.Clock = clk })
}

var yardSchema = []store.Migrations{seal.Schema, audit.Schema, tenant.Schema, product.Schema, identity.Schema, fleet.Schema, Schema}

// openYard furnishes a yard and begins its work, which end ends.
func openYard(t *testing.T, db *store.DB, clk *clock.Hand) (y *yard, end func()) {
	y = &yard{rig: rig{t: t, clk: clk}, rights: []tenant.Grant{{Role: tenant.Owner, Tenant: "ten"}}, away: map[string]bool{}}
	keys, err := seal.Open(filepath.Join(t.TempDir(), "keys"), clk)
	y.must(err)
	issuer, err := embedded.Open(embedded.Config{Dir: filepath.Join(t.TempDir(), "ca"), Keys: keys, Name: "Test", Clock: clk})
	y.must(err)
	y.ids, err = identity.New(identity.Config{DB: db, Issuer: issuer, Clock: clk})
	y.must(err)
	y.must(db.Write(t.Context(), func(tx *store.Tx) error {
		for i := range yardSize + 1 {
			d, err := y.ids.Register(tx, identity.Device{Tenant: "ten", Product: "prd", Serial: fmt.Sprintf("SN-%02d", i)}, "per_x")
			if err != nil || i == yardSize { // the last one is never commissioned
				return err
			}
			for _, st := range []identity.State{identity.Provisioned, identity.Pending, identity.Commissioned} {
				if err := y.ids.SetState(tx, "ten", d.ID, st, "per_x", "test"); err != nil {
					return err
				}
			}
			y.devices = append(y.devices, d.ID)
		}
		return nil
	}))
	y.products = product.New(product.Config{DB: db, Clock: clk})
	y.fleet = fleet.New(fleet.Config{DB: db, Identity: y.ids, Product: y.products, Keys: keys, Clock: clk, Live: func(string) bool { return false }})
	y.Service = New(Config{DB: db, Identity: y.ids, Fleet: y.fleet, Acting: y.acting, Keys: keys, Clock: clk, Deliver: func(_ context.Context, m gateway.Downlink) error {
		y.mu.Lock()
		defer y.mu.Unlock()
		if y.away[m.Device] {
			return gateway.ErrOffline
		}
		y.got = append(y.got, m.Device)
		return nil
	}})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- y.Work(ctx) }()
	for _, d := range y.devices {
		y.online(d)
	}
	return y, func() {
		stop()
		y.must(<-ended)
	}
}

// acting is who makes the yard's jobs.
func (y *yard) acting(_ context.Context, tenantID, id string) (tenant.Actor, error) {
	return tenant.Actor{ID: id, Kind: tenant.KindPerson, Tenant: tenantID, Grants: y.rights}, nil
}

func (y *yard) online(d string) {
	y.fleet.Online(gateway.Peer{Tenant: "ten", Device: d})
	y.Service.Ready(d)
	y.must(y.welcome(y.t.Context()))
}

func (y *yard) offline(d string) {
	y.fleet.Offline(gateway.Peer{Tenant: "ten", Device: d}, "test")
}

func (y *yard) create(j Job) string {
	y.t.Helper()
	j.Tenant, j.Actor = "ten", "per_x"
	if j.Kind == "" {
		j.Kind, j.Name = KindCommand, "reboot"
	}
	if j.Args == nil {
		j.Args = json.RawMessage(`{}`)
	}
	j, err := y.CreateJob(y.t.Context(), j)
	y.must(err)
	return j.ID
}

// turn runs what is due.
func (y *yard) turn() {
	y.t.Helper()
	_, err := y.cfg.DB.RunDue(y.t.Context())
	y.must(err)
}

func (y *yard) job(id string) Job {
	y.t.Helper()
	j, err := y.Service.Job(y.t.Context(), "ten", id)
	y.must(err)
	return j
}

// in lists the devices of a job in a state.
func (y *yard) in(id, state string) []string {
	y.t.Helper()
	ps, err := parts(y.t.Context(), y.cfg.DB, "ten", id, state, "", 1000)
	y.must(err)
	out := []string{}
	for _, p := range ps {
		out = append(out, p.Device)
	}
	return out
}

// answer has devices of a job that have begun say their result.
func (y *yard) answer(id string, ok bool, devices ...string) {
	y.t.Helper()
	ps, err := parts(y.t.Context(), y.cfg.DB, "ten", id, "", "", 1000)
	y.must(err)
	command := map[string]string{}
	for _, p := range ps {
		command[p.Device] = p.Command
	}
	for _, d := range devices {
		y.until(command[d], Received)
		y.must(y.says(d, "cmd/"+command[d]+"/res", fmt.Sprintf(`{"ok":%t,"detail":"said"}`, ok)))
	}
}

// have waits until all devices of a job that have begun have their command.
func (y *yard) have(id string) {
	y.t.Helper()
	ps, err := parts(y.t.Context(), y.cfg.DB, "ten", id, Started, "", 1000)
	y.must(err)
	for _, p := range ps {
		y.until(p.Command, Received)
	}
}

func (y *yard) counts(id string, want Counts) {
	y.t.Helper()
	if d := cmp.Diff(want, y.job(id).Counts); d != "" {
		y.t.Errorf("counts (-want +got):\n%s", d)
	}
}

// A job reaches those who match, within its bound; who is away gets its part on return; it ends when all have.
func TestJobReachesEverybody(t *testing.T) {
	eachYard(t, func(y *yard) {
		for _, d := range y.devices[7:] {
			y.offline(d)
		}
		id := y.create(Job{Parallel: 4})
		y.turn()
		y.counts(id, Counts{Devices: 10, Waiting: 6, Started: 4})
		y.clk.Advance(time.Second)
		y.turn() // they are still at work
		y.counts(id, Counts{Devices: 10, Waiting: 6, Started: 4})
		begun := y.in(id, Started)
		y.answer(id, true, begun...)
		y.turn() // nothing before the next tick
		y.counts(id, Counts{Devices: 10, Waiting: 6, Done: 4})
		y.clk.Advance(time.Second)
		y.turn()
		y.counts(id, Counts{Devices: 10, Away: 3, Started: 3, Done: 4})
		if j := y.job(id); j.State != Running || j.Started.IsZero() {
			y.t.Errorf("%s since %v", j.State, j.Started)
		}
		y.answer(id, true, y.in(id, Started)...)
		y.clk.Advance(time.Hour)
		y.online(y.devices[8])
		y.turn()
		y.counts(id, Counts{Devices: 10, Away: 2, Started: 1, Done: 7})
		y.answer(id, true, y.devices[8])
		y.online(y.devices[7])
		y.online(y.devices[9])
		y.turn()
		y.answer(id, true, y.devices[7], y.devices[9])
		y.clk.Advance(time.Second)
		y.turn()
		j := y.job(id)
		if j.State != Completed || j.Ended.IsZero() || j.Counts.Done != 10 {
			y.t.Errorf("%s %v %+v", j.State, j.Ended, j.Counts)
		}
		y.mu.Lock()
		defer y.mu.Unlock()
		if len(y.got) != 10 {
			y.t.Errorf("%d commands were delivered", len(y.got))
		}
		if d := cmp.Diff([]string{"job.created", "job.ended"}, y.leaves(id)); d != "" {
			y.t.Errorf("leaves (-want +got):\n%s", d)
		}
	})
}

// The rate holds whatever the hour: what was not used, as while the platform was away, is not made up for.
func TestJobKeepsItsRate(t *testing.T) {
	eachYard(t, func(y *yard) {
		id := y.create(Job{Rate: 12}) // one in five seconds
		began := func() int64 { c := y.job(id).Counts; return c.Devices - c.Waiting }
		for i, step := range []struct {
			after time.Duration
			want  int64
		}{{0, 1}, {4 * time.Second, 1}, {time.Second, 2}, {5 * time.Second, 3}, {time.Hour, 4}, {time.Second, 4}, {4 * time.Second, 5}} {
			y.clk.Advance(step.after)
			y.turn()
			if n := began(); n != step.want {
				y.t.Errorf("at step %d: %d have begun, want %d", i, n, step.want)
			}
		}
	})
}

func TestJobIsAbortedWhenTooManyFail(t *testing.T) {
	eachYard(t, func(y *yard) {
		id := y.create(Job{Parallel: 3, AbortPercent: 50, AbortAfter: 3})
		y.turn()
		first := y.in(id, Started)
		y.answer(id, false, first[0], first[1]) // two of two, but too few to judge by
		y.clk.Advance(time.Second)
		y.turn()
		if j := y.job(id); j.State != Running {
			y.t.Fatalf("after two failures it is %s: %s", j.State, j.Reason)
		}
		y.answer(id, true, first[2])
		y.clk.Advance(time.Second)
		y.turn()
		j := y.job(id)
		if j.State != Aborted || j.Reason != "2 of 3 devices failed" || j.Ended.IsZero() {
			y.t.Errorf("%s %q %v", j.State, j.Reason, j.Ended)
		}
		if j.Counts.Waiting != 0 || j.Counts.Failed != 2 || j.Counts.Cancelled < 4 {
			y.t.Errorf("%+v", j.Counts)
		}
		count := y.create(Job{Parallel: 3, AbortCount: 1})
		y.turn()
		y.answer(count, false, y.in(count, Started)[0])
		y.clk.Advance(time.Second)
		y.turn()
		if j := y.job(count); j.State != Aborted {
			y.t.Errorf("after one failure it is %s", j.State)
		}
	})
}

// A pause lets nobody begin; a cancel takes back what no device has and leaves alone what devices have begun.
func TestJobIsSteered(t *testing.T) {
	eachYard(t, func(y *yard) {
		steer := func(id, to string) error { return y.Steer(y.t.Context(), "ten", id, to, "per_y", "enough") }
		id := y.create(Job{Parallel: 2})
		y.turn()
		y.must(steer(id, Paused))
		y.answer(id, true, y.in(id, Started)...)
		y.clk.Advance(time.Minute)
		y.turn()
		y.counts(id, Counts{Devices: 10, Waiting: 8, Done: 2})
		if err := steer(id, Paused); !problem.Is(err, problem.KindConflict) {
			y.t.Errorf("paused twice: %v", err)
		}
		y.must(steer(id, Running))
		y.turn()
		y.counts(id, Counts{Devices: 10, Waiting: 6, Started: 2, Done: 2})
		begun := y.in(id, Started)
		y.have(id) // what waits on our side would be taken back
		y.must(steer(id, string(Cancelled)))
		y.turn()
		y.counts(id, Counts{Devices: 10, Started: 2, Done: 2, Cancelled: 6})
		y.answer(id, true, begun...)
		y.counts(id, Counts{Devices: 10, Done: 4, Cancelled: 6})
		if j := y.job(id); j.State != string(Cancelled) || j.Ended.IsZero() || j.Reason != "enough" {
			y.t.Errorf("%s %q", j.State, j.Reason)
		}
		if err := steer(id, Running); !problem.Is(err, problem.KindConflict) {
			y.t.Errorf("resumed after its end: %v", err)
		}
		if d := cmp.Diff([]string{"job.created", "job.paused", "job.resumed", "job.cancelled", "job.ended"}, y.leaves(id)); d != "" {
			y.t.Errorf("leaves (-want +got):\n%s", d)
		}
	})
}

// A job begins at its time, and who has not begun when it is over has expired.
func TestJobHasItsTime(t *testing.T) {
	eachYard(t, func(y *yard) {
		y.offline(y.devices[0])
		id := y.create(Job{NotBefore: t0.Add(time.Hour), NotAfter: t0.Add(2 * time.Hour), Timeout: 60})
		y.turn()
		if j := y.job(id); j.State != Scheduled || j.Counts.Devices != 0 {
			y.t.Errorf("before its time it is %s, %+v", j.State, j.Counts)
		}
		y.clk.Advance(time.Hour)
		y.turn()
		y.counts(id, Counts{Devices: 10, Away: 1, Started: 9})
		for _, d := range y.in(id, Started) {
			ps, err := parts(y.t.Context(), y.cfg.DB, "ten", id, Started, "", 100)
			y.must(err)
			for _, p := range ps {
				if p.Device == d {
					y.until(p.Command, Received)
				}
			}
		}
		y.answer(id, true, y.in(id, Started)[0])
		y.clk.Advance(time.Minute) // each device has a minute
		y.must(y.sweep(y.t.Context()))
		y.turn()
		y.counts(id, Counts{Devices: 10, Away: 1, Done: 1, Expired: 8})
		y.clk.Advance(time.Hour)
		y.turn()
		j := y.job(id)
		if j.State != Completed || j.Counts.Expired != 9 || j.Reason == "" {
			y.t.Errorf("%s %q %+v", j.State, j.Reason, j.Counts)
		}
		y.online(y.devices[0])
		y.turn()
		if n := len(y.in(id, Started)); n != 0 {
			y.t.Errorf("%d begin after the end", n)
		}
	})
}

// Devices that match later join a job that follows its filter, and no other.
func TestJobFollows(t *testing.T) {
	eachYard(t, func(y *yard) {
		follows, snapshot := y.create(Job{Follow: true}), y.create(Job{Parallel: 1})
		y.turn()
		all, err := y.ids.List(y.t.Context(), "ten", identity.Filter{State: identity.Manufactured, Limit: 10})
		y.must(err)
		late := all[0].ID
		y.must(y.cfg.DB.Write(y.t.Context(), func(tx *store.Tx) error {
			for _, st := range []identity.State{identity.Provisioned, identity.Pending, identity.Commissioned} {
				if err := y.ids.SetState(tx, "ten", late, st, "per_x", "test"); err != nil {
					return err
				}
			}
			return nil
		}))
		y.online(late)
		y.answer(follows, true, y.in(follows, Started)...)
		y.clk.Advance(walkEvery)
		y.turn()
		y.turn()
		if j := y.job(follows); j.State != Running || j.Counts.Devices != 11 || j.Counts.Started != 1 {
			y.t.Errorf("follows: %s %+v", j.State, j.Counts)
		}
		if n := y.job(snapshot).Counts.Devices; n != 10 {
			y.t.Errorf("the snapshot has %d devices", n)
		}
		y.clk.Advance(DefaultLife)
		y.turn()
		if j := y.job(follows); j.State != Completed {
			y.t.Errorf("in the end it is %s", j.State)
		}
	})
}

// A job goes on from its rows in whatever process: cut off after any round, nobody is asked twice.
func TestJobSurvivesRestarts(t *testing.T) {
	eachYard(t, func(y *yard) {
		id := y.create(Job{Parallel: 3})
		for round := 0; y.job(id).Ended.IsZero() && round < 40; round++ {
			j := y.job(id)
			other := &Service{cfg: y.cfg, hooks: y.hooks, turns: y.turns, returned: newArrivals()} // a process that knows nothing
			if _, err := other.round(y.t.Context(), &j); err != nil {
				y.t.Fatal(err)
			}
			y.answer(id, true, y.in(id, Started)...)
			y.clk.Advance(time.Second)
		}
		if j := y.job(id); j.State != Completed || j.Counts.Done != 10 {
			y.t.Errorf("%s %+v", j.State, j.Counts)
		}
		var n int
		y.must(y.cfg.DB.QueryRow(y.t.Context(), `SELECT count(*) FROM command WHERE job = $1`, id).Scan(&n))
		if n != 10 {
			y.t.Errorf("%d commands", n)
		}
	})
}

// A job on twins is done for a device when the device says that it goes by what is desired, and failed when it cannot.
func TestJobOnTwins(t *testing.T) {
	eachYard(t, func(y *yard) {
		y.offline(y.devices[9])
		id := y.create(Job{Kind: KindTwin, Args: json.RawMessage(`{"light":{"level":40}}`), Timeout: 600, AbortPercent: 90, AbortAfter: 5})
		y.turn()
		y.counts(id, Counts{Devices: 10, Away: 1, Started: 9})
		says := func(d string, r wire.TwinReport) {
			b, err := json.Marshal(r)
			y.must(err)
			y.must(y.fleet.Reported(y.t.Context(), gateway.Record{Tenant: "ten", Device: d, Topic: "state/reported", Body: b}))
		}
		for _, d := range y.devices[:7] {
			says(d, wire.TwinReport{Applied: 1})
		}
		says(y.devices[7], wire.TwinReport{Failed: 1, Error: "no light"})
		y.counts(id, Counts{Devices: 10, Away: 1, Started: 1, Done: 7, Failed: 1})
		if tw, err := y.fleet.Twin(y.t.Context(), "ten", y.devices[0]); err != nil || string(tw.Desired) != `{"light":{"level":40}}` || tw.DesiredBy != "per_x" {
			y.t.Errorf("%+v %v", tw, err)
		}
		cs, err := y.fleet.TwinChanges(y.t.Context(), "ten", y.devices[0], 0, 5)
		if err != nil || len(cs) != 1 || cs[0].Job != id {
			y.t.Errorf("%+v %v", cs, err)
		}
		y.clk.Advance(10 * time.Minute)
		y.turn()
		y.counts(id, Counts{Devices: 10, Away: 1, Done: 7, Failed: 1, Expired: 1})
		y.online(y.devices[9])
		y.turn()
		says(y.devices[9], wire.TwinReport{Applied: 1})
		y.clk.Advance(time.Second)
		y.turn()
		if j := y.job(id); j.State != Completed || j.Counts.Done != 8 {
			y.t.Errorf("%s %+v", j.State, j.Counts)
		}
		// Where it is so already, the device has nothing to do.
		again := y.create(Job{Kind: KindTwin, Args: json.RawMessage(`{"light":{"level":40}}`)})
		y.turn()
		if c := y.job(again).Counts; c.Done != 8 || c.Started != 2 {
			y.t.Errorf("again: %+v", c)
		}
	})
}

func TestBadJobsAreRefused(t *testing.T) {
	eachYard(t, func(y *yard) {
		for what, j := range map[string]Job{
			"no command": {Kind: KindCommand}, "a list": {Name: "x", Args: json.RawMessage(`[]`)}, "no patch": {Kind: KindTwin, Args: json.RawMessage(`[]`)},
			"a bad filter": {Name: "x", Filter: "((("}, "the past": {Name: "x", NotAfter: t0}, "an end before its beginning": {Name: "x", NotBefore: t0.Add(2 * time.Hour), NotAfter: t0.Add(time.Hour)},
			"a negative rate": {Name: "x", Rate: -1}, "a long title": {Name: "x", Title: strings.Repeat("x", 200)}, "too many retries": {Name: "x", Retries: 1000},
		} {
			j.Tenant, j.Actor = "ten", "per_x"
			if j.Kind == "" {
				j.Kind = KindCommand
			}
			if j.Args == nil {
				j.Args = json.RawMessage(`{}`)
			}
			if _, err := y.CreateJob(y.t.Context(), j); !problem.Is(err, problem.KindInvalid) {
				y.t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := y.Service.Job(y.t.Context(), "ten2", y.create(Job{})); !problem.Is(err, problem.KindNotFound) {
			y.t.Errorf("another tenant's: %v", err)
		}
	})
}

// Cut off between two transactions, a job asks for the same command again and the device has it once.
func TestJobAsksOnce(t *testing.T) {
	eachYard(t, func(y *yard) {
		id := y.create(Job{Parallel: 1})
		y.turn()
		first := y.in(id, Started)[0]
		y.must(y.cfg.DB.Write(y.t.Context(), func(tx *store.Tx) error { // its part was not noted
			_, err := setPart(tx, id, first, Started, Waiting, y.clk.Now(), "", 0, "")
			return err
		}))
		j := y.job(id)
		d, err := y.ids.Get(y.t.Context(), "ten", first)
		y.must(err)
		if n, err := y.beginSome(y.t.Context(), &j, []identity.Device{d}); err != nil || n != 1 {
			y.t.Errorf("%d begun, %v", n, err)
		}
		var n int
		y.must(y.cfg.DB.QueryRow(y.t.Context(), `SELECT count(*) FROM command WHERE job = $1 AND device = $2`, id, first).Scan(&n))
		if n != 1 {
			y.t.Errorf("%d commands", n)
		}
	})
}

// A device that has come back to another node, which has not written that yet, is waited for a moment.
func TestJobWaitsForWhoIsBack(t *testing.T) {
	eachYard(t, func(y *yard) {
		y.offline(y.devices[0])
		id := y.create(Job{})
		y.turn()
		back := func() {
			y.Service.Ready(y.devices[0])
			y.must(y.welcome(y.t.Context()))
		}
		back()
		y.turn()
		y.counts(id, Counts{Devices: 10, Waiting: 1, Started: 9})
		y.fleet.Online(gateway.Peer{Tenant: "ten", Device: y.devices[0]})
		y.clk.Advance(time.Second)
		y.turn()
		y.counts(id, Counts{Devices: 10, Started: 10})
		// One that only seemed to be back is away again.
		y.offline(y.devices[1])
		other := y.create(Job{})
		y.turn()
		y.Service.Ready(y.devices[1])
		y.must(y.welcome(y.t.Context()))
		y.turn()
		y.clk.Advance(writtenWithin)
		y.turn()
		y.counts(other, Counts{Devices: 10, Away: 1, Started: 9})
	})
}
