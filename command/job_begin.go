// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
	"slices"

	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

// begin lets waiting devices begin that are connected, as many as rate and bound allow, and sets aside those that are
// not. limited says that a bound was met.
func (s *Service) begin(ctx context.Context, j *Job) (limited bool, err error) {
	now := s.cfg.Clock.Now()
	room := j.earn(now)
	if j.Parallel > 0 {
		busy, err := atWork(ctx, s.cfg.DB, *j, store.Millis(now.Add(-freshFor)))
		if err != nil {
			return false, err
		}
		room = min(room, max(0, j.Parallel-busy))
	}
	place, late := "", false
	for range beginPages {
		if room == 0 {
			return true, s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return keepJob(tx, *j) })
		}
		waits, err := parts(ctx, s.cfg.DB, j.Tenant, j.ID, Waiting, place, int(min(room, walkPage)))
		if err != nil || len(waits) == 0 {
			return late, err
		}
		place = waits[len(waits)-1].Device
		here, coming, err := s.sort(ctx, *j, waits)
		if err != nil {
			return false, err
		}
		late = late || coming
		for batch := range slices.Chunk(here, beginBatch) {
			n, err := s.beginSome(ctx, j, batch)
			if err != nil {
				return false, err
			}
			room -= n
		}
	}
	return late, nil
}

// sort returns the devices that can begin, and moves the others where they belong. coming says that some have come back
// to a node which has not written that yet: they wait on.
func (s *Service) sort(ctx context.Context, j Job, waits []Part) (here []identity.Device, coming bool, err error) {
	ids := make([]string, len(waits))
	back := map[string]bool{}
	for i, p := range waits {
		ids[i] = p.Device
		back[p.Device] = p.Reason == isBack && s.cfg.Clock.Now().Sub(p.At) < writtenWithin
	}
	devices, err := s.cfg.Identity.List(ctx, j.Tenant, identity.Filter{IDs: ids, Limit: len(ids)})
	if err != nil {
		return nil, false, err
	}
	known := map[string]identity.Device{}
	for _, d := range devices {
		known[d.ID] = d
	}
	lost, err := s.cfg.Identity.LostOf(ctx, j.Tenant, devices)
	if err != nil {
		return nil, false, err
	}
	now := s.cfg.Clock.Now()
	put := func(states map[string]string, reason string) error {
		return s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
			for id, to := range states {
				if _, err := setPart(tx, j.ID, id, Waiting, to, now, "", 0, reason); err != nil {
					return err
				}
			}
			return nil
		})
	}
	gone, barred, absent := map[string]string{}, map[string]string{}, map[string]string{}
	online, err := s.online(ctx, j.Tenant, ids)
	if err != nil {
		return nil, false, err
	}
	for _, id := range ids {
		d, ok := known[id]
		switch {
		case !ok || !j.reaches(d) || lost[id].Scope.ForEver():
			gone[id] = string(Cancelled)
		case !tenant.Can(j.maker, j.verb(), thingOf(d)):
			barred[id] = string(Cancelled)
		case d.State == identity.Commissioned && !online[id] && back[id]:
			coming = true
		case d.State != identity.Commissioned || !online[id]:
			absent[id] = Away
		default:
			here = append(here, d)
		}
	}
	for reason, out := range map[string]map[string]string{"it is no longer among those that the job reaches": gone, notAnyMore: barred} {
		if len(out) == 0 {
			continue
		}
		if err := put(out, reason); err != nil {
			return nil, false, err
		}
	}
	if len(absent) == 0 {
		return here, coming, nil
	}
	if err := put(absent, ""); err != nil {
		return nil, false, err
	}
	// One that came back between the look and the note has been told of by Ready already: look once more.
	var again []string
	for id := range absent {
		again = append(again, id)
	}
	online, err = s.online(ctx, j.Tenant, again)
	if err != nil {
		return nil, false, err
	}
	return here, coming, s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
		for _, id := range again {
			if online[id] && known[id].State == identity.Commissioned {
				if _, err := setPart(tx, j.ID, id, Away, Waiting, now, "", 0, ""); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// online says which of the devices are connected, on whatever node.
func (s *Service) online(ctx context.Context, tenant string, devices []string) (map[string]bool, error) {
	present, err := s.cfg.Fleet.Presence(ctx, tenant, devices)
	out := map[string]bool{}
	for id, p := range present {
		out[id] = p.Online
	}
	return out, err
}

// beginSome lets devices begin, and takes them from the credit, in one transaction, and says how many did.
func (s *Service) beginSome(ctx context.Context, j *Job, devices []identity.Device) (begun int64, err error) {
	if j.Kind == KindTwin {
		return s.desireSome(ctx, j, devices)
	}
	kinds, err := s.kindsFor(ctx, *j, devices)
	if err != nil {
		return 0, err
	}
	now := s.cfg.Clock.Now()
	var kept Job
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		begun, kept = 0, *j
		if still, err := jobByID(tx.QueryRow, j.Tenant, j.ID); err != nil || still.State != Running {
			return err // paused or cancelled meanwhile
		}
		for _, d := range devices {
			kind := kinds[thingOf(d)]
			if kind.refused != "" {
				if _, err := setPart(tx, j.ID, d.ID, Waiting, string(Failed), now, "", 0, kind.refused); err != nil {
					return err
				}
				continue
			}
			policy := kind.policy()
			policy.Retries = j.Retries
			if j.Timeout > 0 {
				policy.ResultTimeout = j.Timeout
			}
			id, err := s.Ask(tx, Request{Tenant: j.Tenant, Device: d.ID, Name: j.Name, Args: j.Args, NotAfter: j.NotAfter, Actor: j.Actor, Key: j.ID, Job: j.ID, Policy: policy})
			if err != nil {
				return err
			}
			moved, err := setPart(tx, j.ID, d.ID, Waiting, Started, now, id, 0, "")
			if err != nil {
				return err
			}
			if moved {
				begun++
				kept.spend()
			}
		}
		return keepJob(tx, kept)
	})
	if err == nil {
		*j = kept
	}
	return begun, err
}

// spend takes one device from the credit.
func (j *Job) spend() {
	if j.Rate > 0 {
		j.credit -= oneDevice
	}
}

// desireSome changes what devices shall be like. The change comes first: cut off between the two, it is made again and
// changes nothing.
func (s *Service) desireSome(ctx context.Context, j *Job, devices []identity.Device) (begun int64, err error) {
	patch, err := wire.ParsePatch(j.Args)
	if err != nil {
		return 0, err
	}
	for _, d := range devices {
		state, reason, version := Started, "", int64(0)
		t, err := s.cfg.Fleet.SetDesired(ctx, fleet.Desired{Tenant: j.Tenant, Device: d.ID, Patch: patch, If: fleet.Any, Actor: j.Actor, Job: j.ID})
		switch {
		case problem.Is(err, problem.KindInvalid), problem.Is(err, problem.KindConflict):
			state, reason = string(Failed), problem.Of(err).Text
		case err != nil:
			return begun, err
		default:
			version = t.DesiredVersion
		}
		moved := false
		err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			if moved, err = setPart(tx, j.ID, d.ID, Waiting, state, s.cfg.Clock.Now(), "", version, reason); err != nil || !moved {
				return err
			}
			next := *j
			next.spend()
			return keepJob(tx, next)
		})
		if err != nil {
			return begun, err
		}
		if !moved {
			continue
		}
		j.spend()
		begun++
		// It may have said that it applies this before its part was noted.
		now, err := s.cfg.Fleet.Twin(ctx, j.Tenant, d.ID)
		if err != nil {
			return begun, err
		}
		if state == Started && now.Applied >= version {
			if err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.applied(tx, j.Tenant, d.ID, now.Applied, 0, "") }); err != nil {
				return begun, err
			}
		}
	}
	return begun, nil
}
