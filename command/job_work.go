// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

// driveJob looks at a job: walks its filter, lets devices begin, judges. Its key is the job.
const driveJob = "command.drive"

const (
	walkPage   = 500              // devices looked at together
	walkPages  = 10               // of a filter in one round
	beginPages = 20               // of waiting devices in one round
	beginBatch = 50               // devices that begin in one transaction
	clearBatch = 500              // devices cleared up in one transaction
	tickEvery  = time.Second      // while devices are at work
	walkEvery  = 30 * time.Second // for devices that match later
	awayEvery  = 5 * time.Minute  // until it is looked again whether those who were away are back
	freshFor   = time.Minute      // a command that was just queued counts as at work

	// isBack marks a part whose device has come back to some node. Its presence is written a moment later.
	isBack        = "it is back"
	writtenWithin = 10 * time.Second
)

type driven struct {
	Tenant string `json:"tenant"`
}

// CreateJob begins a job. The caller has checked that the actor may.
func (s *Service) CreateJob(ctx context.Context, j Job) (Job, error) {
	j, err := s.ReadyJob(ctx, j)
	if err != nil {
		return Job{}, err
	}
	return j, s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.AddJob(tx, j) })
}

// ReadyJob checks a job and gives it its id, for AddJob.
func (s *Service) ReadyJob(ctx context.Context, j Job) (Job, error) {
	now := s.cfg.Clock.Now()
	j.ID, j.State, j.Created = store.NewID("job"), Scheduled, store.Time(store.Millis(now))
	if j.NotBefore.IsZero() {
		j.NotBefore = j.Created
	}
	if j.NotAfter.IsZero() {
		j.NotAfter = j.NotBefore.Add(DefaultLife)
	}
	if err := j.check(now); err != nil {
		return Job{}, err
	}
	if err := s.cfg.Fleet.CheckFilter(ctx, j.Tenant, j.Filter); err != nil {
		return Job{}, problem.Of(err).At("filter")
	}
	return j, nil
}

// AddJob begins a job that is ready, in the caller's transaction: with what it is for, or not at all.
func (s *Service) AddJob(tx *store.Tx, j Job) error {
	if err := insertJob(tx, j); err != nil {
		return err
	}
	data := map[string]any{"kind": j.Kind, "filter": j.Filter, "product": j.Product, "solution": j.Solution, "name": j.Name, "args": wire.Digest(j.Args), "not_after": store.Millis(j.NotAfter)}
	if err := audit.Append(tx, audit.Entry{Tenant: j.Tenant, Actor: j.Actor, Kind: "job.created", Subject: j.ID, Data: data}); err != nil {
		return err
	}
	return s.cfg.DB.Enqueue(tx, driveJob, j.ID, j.NotBefore, driven{j.Tenant})
}

// Job returns a job of the tenant with its counts.
func (s *Service) Job(ctx context.Context, tenant, id string) (j Job, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		if j, err = jobByID(tx.QueryRow, tenant, id); err != nil {
			return err
		}
		j.Counts, err = countJob(tx.Query, id)
		return err
	})
	return j, err
}

// Steer pauses, resumes or cancels a job. Devices that have begun go on; what no device has yet is taken back by a cancel.
func (s *Service) Steer(ctx context.Context, tenant, id, to, actor, reason string) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		j, err := jobByID(tx.QueryRow, tenant, id)
		if err != nil {
			return err
		}
		if !slices.Contains(moves[to], j.State) {
			return problem.Conflict("The job is %s.", j.State)
		}
		now := s.cfg.Clock.Now()
		ok, err := moveJob(tx, j, to, reason, j.Started, time.Time{})
		if err != nil || !ok {
			return err
		}
		if to == Running { // nothing is made up for
			j.credited = now
			if err := keepJob(tx, j); err != nil {
				return err
			}
		}
		kind := map[string]string{Paused: "job.paused", Running: "job.resumed", string(Cancelled): "job.cancelled"}[to]
		if err := audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: kind, Subject: id, Data: map[string]any{"reason": reason}}); err != nil {
			return err
		}
		return s.cfg.DB.Enqueue(tx, driveJob, id, now, driven{tenant})
	})
}

// drive makes one round of a job and says when the next is due. Every round may be cut off anywhere: the next one goes on
// from the rows.
func (s *Service) drive(ctx context.Context, w store.Job) error {
	var d driven
	if err := w.Decode(&d); err != nil {
		return err
	}
	j, err := s.Job(ctx, d.Tenant, w.Key)
	if problem.Is(err, problem.KindNotFound) || err == nil && !j.Ended.IsZero() {
		return nil
	}
	if err != nil {
		return err
	}
	again, err := s.round(ctx, &j)
	if err != nil || again.IsZero() {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.cfg.DB.Enqueue(tx, driveJob, j.ID, again, d) })
}

// round looks at a job as it stands; again is when the next look is due, zero for none.
func (s *Service) round(ctx context.Context, j *Job) (again time.Time, err error) {
	now := s.cfg.Clock.Now()
	switch {
	case j.State == Aborted || j.State == string(Cancelled):
		return s.clear(ctx, *j, j.State, j.Reason, Cancelled)
	case j.State == Completed:
		return time.Time{}, nil
	case !now.Before(j.NotAfter):
		return s.clear(ctx, *j, Completed, "its time has ended", Expired)
	case j.State == Paused:
		return j.NotAfter, nil
	case now.Before(j.NotBefore):
		return j.NotBefore, nil
	}
	if err := s.actFor(ctx, j); err != nil {
		return again, err
	}
	if !tenant.Anywhere(j.maker, j.verb()) {
		return now, s.decide(ctx, *j, Aborted, noRight)
	}
	if j.Started.IsZero() {
		j.Started, j.credit, j.credited = now, oneDevice, now
		if err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			if _, err := moveJob(tx, *j, Running, "", now, time.Time{}); err != nil {
				return err
			}
			return keepJob(tx, *j)
		}); err != nil {
			return again, err
		}
		j.State = Running
	}
	err = s.walk(ctx, j)
	if problem.Is(err, problem.KindInvalid) { // what it names has gone: nobody can say whom it means
		return now, s.decide(ctx, *j, Aborted, "the filter selects nothing any more: "+problem.Of(err).Text)
	}
	if err != nil {
		return again, err
	}
	if err := s.tellNarrowed(ctx, j); err != nil {
		return again, err
	}
	if err := s.expireParts(ctx, *j, now); err != nil {
		return again, err
	}
	limited, err := s.begin(ctx, j)
	if err != nil {
		return again, err
	}
	fresh, err := s.Job(ctx, j.Tenant, j.ID)
	if err != nil || fresh.State != Running {
		return now, err // steered meanwhile
	}
	if why, bad := j.over(fresh.Counts); bad {
		return now, s.decide(ctx, fresh, Aborted, why)
	}
	whole := !j.selected.IsZero()
	switch {
	case whole && !j.Follow && fresh.Counts.open() == 0:
		return again, s.finish(ctx, fresh, Completed, fresh.Reason)
	case !whole:
		return now, nil
	case fresh.Counts.Waiting > 0 && !limited:
		return now, nil
	case fresh.Counts.Waiting > 0 || fresh.Counts.Started > 0:
		return earliest(now.Add(max(tickEvery, j.nextCredit())), j.NotAfter), nil
	case j.Follow:
		return earliest(now.Add(walkEvery), j.NotAfter), nil
	}
	return earliest(now.Add(awayEvery), j.NotAfter), nil
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// walk gives devices that match their part, a few pages at a time; a job that follows walks again later.
func (s *Service) walk(ctx context.Context, j *Job) error {
	now := s.cfg.Clock.Now()
	if !j.selected.IsZero() && (!j.Follow || now.Sub(j.selected) < walkEvery) {
		return nil
	}
	for range walkPages {
		found, err := s.cfg.Fleet.SelectFor(ctx, j.maker, j.verb(), j.Filter, j.place, walkPage)
		if err != nil {
			return err
		}
		lost, err := s.cfg.Identity.LostOf(ctx, j.Tenant, found)
		if err != nil {
			return err
		}
		if err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
			for _, d := range found {
				if !j.reaches(d) || lost[d.ID].Scope.ForEver() {
					continue
				}
				if err := join(tx, *j, d.ID, store.Millis(now)); err != nil {
					return err
				}
			}
			next := *j
			if next.place = ""; len(found) == walkPage {
				next.place = found[len(found)-1].ID
			} else {
				next.selected = now
			}
			return keepJob(tx, next)
		}); err != nil {
			return err
		}
		if len(found) < walkPage {
			j.place, j.selected = "", now
			return nil
		}
		j.place = found[len(found)-1].ID
	}
	return nil
}

// reaches says whether a device can have a part in the job.
func (j Job) reaches(d identity.Device) bool {
	return (j.Product == "" || j.Product == d.Product) && (j.Solution == "" || slices.Contains(j.within, d.Solution)) &&
		(d.State == identity.Commissioned || d.State == identity.Suspended)
}

// expireParts ends the parts of twins that took too long, and has those looked at again who were away for a while. A
// command keeps its own time.
func (s *Service) expireParts(ctx context.Context, j Job, now time.Time) error {
	return s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
		if j.Kind == KindTwin && j.Timeout > 0 {
			limit := store.Millis(now.Add(-time.Duration(j.Timeout) * time.Second))
			if _, err := moveParts(tx, j.ID, []string{Started}, string(Expired), fmt.Sprintf("not applied within %d s", j.Timeout), now, limit, clearBatch); err != nil {
				return err
			}
		}
		_, err := moveParts(tx, j.ID, []string{Away}, Waiting, "", now, store.Millis(now.Add(-awayEvery)), clearBatch)
		return err
	})
}

// applied ends the parts of a device that goes by what was desired, or cannot. It is the fleet's hook.
func (s *Service) applied(tx *store.Tx, _, device string, applied, failed int64, why string) error {
	now := store.Millis(s.cfg.Clock.Now())
	if _, err := tx.Exec(`UPDATE command_job_device SET state = 'done', at = $3, reason = '' WHERE device = $1 AND state = 'started' AND version > 0 AND version <= $2`, device, applied, now); err != nil || failed == 0 {
		return err
	}
	_, err := tx.Exec(`UPDATE command_job_device SET state = 'failed', at = $3, reason = $4 WHERE device = $1 AND state = 'started' AND version > 0 AND version = $2`, device, failed, now, why)
	return err
}

// ended notes in a job how its command to a device ended.
func (s *Service) ended(tx *store.Tx, c Command, to State, reason string, at time.Time) error {
	return endPart(tx, c.Job, c.Device, string(to), at, reason)
}

// decide ends a job; what is left to do is cleared up in rounds.
func (s *Service) decide(ctx context.Context, j Job, to, reason string) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := moveJob(tx, j, to, reason, j.Started, time.Time{})
		return err
	})
}

// clear takes back what no device has begun, a part at a time, and ends the job when nothing is left.
func (s *Service) clear(ctx context.Context, j Job, to, reason string, rest State) (again time.Time, err error) {
	now := s.cfg.Clock.Now()
	var left int64
	from := []string{Waiting, Away}
	if rest == Expired && j.Kind == KindTwin {
		from = append(from, Started)
	}
	if err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
		left, err = moveParts(tx, j.ID, from, string(rest), "", now, 1<<62, clearBatch)
		return err
	}); err != nil {
		return again, err
	}
	queued, err := queuedOf(ctx, s.cfg.DB, j.ID, clearBatch)
	if err != nil {
		return again, err
	}
	if err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
		for _, c := range queued {
			if _, err := s.end(tx, c, rest, "system", "the job was ended", nil); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return again, err
	}
	if left > 0 || len(queued) == clearBatch {
		return now, nil
	}
	return again, s.finish(ctx, j, to, reason)
}

// finish closes a job for good.
func (s *Service) finish(ctx context.Context, j Job, to, reason string) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		ok, err := moveJob(tx, j, to, reason, j.Started, s.cfg.Clock.Now())
		if err != nil || !ok {
			return err
		}
		counts, err := countJob(tx.Query, j.ID)
		if err != nil {
			return err
		}
		if err := audit.Append(tx, audit.Entry{Tenant: j.Tenant, Actor: "system", Kind: "job.ended", Subject: j.ID, Data: map[string]any{"state": to, "reason": reason, "counts": counts}}); err != nil {
			return err
		}
		return s.cfg.DB.Emit(tx, "job.ended", j.Tenant, j.ID, JobEnded{to, reason, j.What(), counts})
	})
}
