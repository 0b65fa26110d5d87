// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// pump adds two commissioned devices of another product, and puts the yard's first device and the first pump into a solution.
func (y *yard) pumps() (pumps []string) {
	y.t.Helper()
	y.must(y.cfg.DB.Write(y.t.Context(), func(tx *store.Tx) error {
		pumps = nil
		for i := range 2 {
			d, err := y.ids.Register(tx, identity.Device{Tenant: "ten", Product: "pump", Serial: fmt.Sprintf("P-%d", i)}, "per_x")
			if err != nil {
				return err
			}
			for _, st := range []identity.State{identity.Provisioned, identity.Pending, identity.Commissioned} {
				if err := y.ids.SetState(tx, "ten", d.ID, st, "per_x", "test"); err != nil {
					return err
				}
			}
			pumps = append(pumps, d.ID)
		}
		if err := y.ids.SetSolution(tx, "ten", pumps[0], "sol_a"); err != nil {
			return err
		}
		return y.ids.SetSolution(tx, "ten", y.devices[0], "sol_a")
	}))
	for _, d := range pumps {
		y.online(d)
	}
	return pumps
}

// A job reaches what whoever made it may ask at that moment: a right that ends at a product or a solution ends the job
// there too, and one that is gone ends the job. The job says so.
func TestJobReachesWhatItsMakerMay(t *testing.T) {
	operator := func(product, solution string) []tenant.Grant {
		return []tenant.Grant{{Role: tenant.FleetOperator, Tenant: "ten", Product: product, Solution: solution}}
	}
	for _, kind := range []string{KindCommand, KindTwin} {
		ask := Job{Kind: kind}
		if kind == KindCommand {
			ask.Name = "reboot"
		} else {
			ask.Args = []byte(`{"light":{"level":1}}`)
		}
		t.Run(kind, func(t *testing.T) {
			eachYard(t, func(y *yard) {
				pumps := y.pumps()
				inA := []string{y.devices[0], pumps[0]}
				slices.Sort(inA)
				for _, q := range []struct {
					name   string
					rights []tenant.Grant
					reach  []string
					state  string
					reason string
				}{
					{"all", operator("", ""), append(slices.Clone(y.devices), pumps...), Running, ""},
					{"a product", operator("pump", ""), pumps, Running, narrowed},
					{"a solution", operator("", "sol_a"), inA, Running, narrowed},
					{"a product that has no devices", operator("lamp", ""), []string{}, Completed, narrowed},
					{"may read only", []tenant.Grant{{Role: tenant.Auditor, Tenant: "ten"}}, []string{}, Aborted, noRight},
					{"nothing", nil, []string{}, Aborted, noRight},
					{"another tenant", []tenant.Grant{{Role: tenant.Owner, Tenant: "ten2"}}, []string{}, Aborted, noRight},
				} {
					y.rights = operator("", "")
					j := ask
					j.NotBefore = y.clk.Now().Add(time.Hour)
					id := y.create(j)
					y.rights = q.rights // while the job waits for its time
					y.clk.Advance(time.Hour)
					y.turn()
					got := append(y.in(id, Started), y.in(id, string(Done))...)
					slices.Sort(got)
					want := slices.Sorted(slices.Values(q.reach))
					if want == nil {
						want = []string{}
					}
					if d := cmp.Diff(want, got); d != "" {
						y.t.Errorf("%s: reached (-want +got):\n%s", q.name, d)
					}
					if j := y.job(id); j.State != q.state || j.Reason != q.reason || j.Counts.Devices != int64(len(q.reach)) {
						y.t.Errorf("%s: the job is %s: %q, and selected %d devices", q.name, j.State, j.Reason, j.Counts.Devices)
					}
					y.rights = operator("", "")
					if j := y.job(id); j.State == Running {
						y.must(y.Steer(y.t.Context(), "ten", id, string(Cancelled), "per_x", ""))
						y.turn()
					}
				}
			})
		})
	}
}

// A right that is taken while a job is under way is gone for the devices that have not begun.
func TestJobLosesWhatItsMakerLoses(t *testing.T) {
	eachYard(t, func(y *yard) {
		pumps := y.pumps()
		for _, d := range append(slices.Clone(pumps), y.devices...) {
			y.offline(d)
		}
		id := y.create(Job{Kind: KindCommand, Name: "reboot"})
		y.turn() // all are given their part, and are away
		if n := y.job(id).Counts.Away; n != int64(yardSize+2) {
			y.t.Fatalf("%d devices are away", n)
		}
		y.rights = []tenant.Grant{{Role: tenant.FleetOperator, Tenant: "ten", Solution: "sol_a"}}
		for _, d := range append(slices.Clone(pumps), y.devices...) {
			y.online(d)
		}
		y.turn()
		want := slices.Sorted(slices.Values([]string{pumps[0], y.devices[0]}))
		if d := cmp.Diff(want, y.in(id, Started)); d != "" {
			y.t.Errorf("(-want +got):\n%s", d)
		}
		ps, err := y.parts(y.t.Context(), y.job(id), string(Cancelled), "", 100)
		y.must(err)
		if len(ps) != yardSize || ps[0].Reason != notAnyMore {
			y.t.Errorf("%d were left out: %+v", len(ps), ps[:min(1, len(ps))])
		}
		if j := y.job(id); j.State != Running || j.Reason != narrowed {
			y.t.Errorf("the job is %s: %q", j.State, j.Reason)
		}
		y.rights = nil
		y.clk.Advance(2 * time.Second)
		y.turn()
		if j := y.job(id); j.State != Aborted || j.Reason != noRight {
			y.t.Errorf("without any right it is %s: %q", j.State, j.Reason)
		}
	})
}

// A group that a job has yet to ask for is there when it does: it is neither renamed nor removed, and says who uses it.
func TestGroupOfAJobStays(t *testing.T) {
	eachYard(t, func(y *yard) {
		ctx := tenant.WithActor(y.t.Context(), tenant.System("ten"))
		g, err := y.fleet.CreateGroup(ctx, fleet.Group{Name: "pilot", Filter: "serial:SN-0*"})
		y.must(err)
		for name, j := range map[string]Job{
			"waits for its time": {Kind: KindCommand, Title: "Nightly", Name: "reboot", Filter: "group:pilot -online:no", NotBefore: t0.Add(time.Hour)},
			"follows":            {Kind: KindCommand, Title: "Nightly", Name: "reboot", Filter: "group:" + g.ID, Follow: true},
		} {
			id := y.create(j)
			y.turn()
			uses, err := y.fleet.Uses(ctx, g)
			if want := []fleet.Use{{Kind: "job", ID: id, Name: "Nightly", Href: "/jobs/" + id}}; err != nil || !cmp.Equal(want, uses) {
				y.t.Errorf("%s: used by %+v, %v", name, uses, err)
			}
			_, renamed := y.fleet.ChangeGroup(ctx, g.ID, func(g *fleet.Group) { g.Name = "other" })
			for what, err := range map[string]error{"renamed": renamed, "removed": y.fleet.RemoveGroup(ctx, g.ID)} {
				if !problem.Is(err, problem.KindConflict) || problem.Of(err).Text != "The group pilot is used by the job Nightly and cannot be "+what+"." {
					y.t.Errorf("%s: %s: %v", name, what, err)
				}
			}
			y.must(y.Steer(y.t.Context(), "ten", id, string(Cancelled), "per_x", ""))
		}
		id := y.create(Job{Kind: KindCommand, Name: "reboot", Filter: "group:pilot"})
		y.turn() // it knows its devices now
		y.must(y.fleet.RemoveGroup(ctx, g.ID))
		y.turn()
		if j := y.job(id); j.State != Running || j.Counts.Devices != yardSize {
			y.t.Errorf("without the group: %s with %d devices", j.State, j.Counts.Devices)
		}
		if _, err := y.CreateJob(ctx, Job{Tenant: "ten", Actor: "per_x", Kind: KindCommand, Name: "reboot", Args: []byte(`{}`), Filter: "group:pilot"}); !problem.Is(err, problem.KindInvalid) || problem.Of(err).Fields == nil {
			y.t.Errorf("a job for a group that is not there: %v", err)
		}
	})
}

// A job whose filter names what has gone all the same, as after the restore of a backup, ends and says why.
func TestJobWhoseGroupIsGone(t *testing.T) {
	eachYard(t, func(y *yard) {
		ctx := tenant.WithActor(y.t.Context(), tenant.System("ten"))
		_, err := y.fleet.CreateGroup(ctx, fleet.Group{Name: "pilot", Filter: "serial:SN-0*"})
		y.must(err)
		id := y.create(Job{Kind: KindCommand, Name: "reboot", Filter: "group:pilot", NotBefore: t0.Add(time.Hour)})
		y.must(y.cfg.DB.Write(ctx, func(tx *store.Tx) error { _, err := tx.Exec(`DELETE FROM fleet_group`); return err }))
		y.clk.Advance(time.Hour)
		y.turn()
		if j := y.job(id); j.State != Aborted || j.Ended.IsZero() || !strings.Contains(j.Reason, "pilot") {
			y.t.Errorf("it is %s: %q", j.State, j.Reason)
		}
	})
}
