// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"
	"fmt"
	"time"

	"github.com/openthings-platform/openthings/alarm"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/vuln"
)

const jobEscalate = "respond.escalate"

// reminder is a job: at its time it looks whether the duty is still open, and writes the escalation if so.
type reminder struct {
	Tenant, Case string
	Escalation   Escalation
}

func (s *Service) react() {
	s.cfg.DB.Handle(jobEscalate, s.escalate)
	s.cfg.DB.Handle(jobIdle, s.idle)
	s.cfg.DB.On("vuln.exploited", "respond", s.exploited)
	s.cfg.DB.On("alarm.raised", "respond", s.alarmed)
}

// arm enqueues an alarm for each clock of the case that runs. One that is enqueued already stays a single one; one of a
// clock that has moved since finds nothing to do when it rings.
func (s *Service) arm(tx *store.Tx, f file, limits Targets) error {
	st := f.state()
	for _, e := range Escalations(st, Clocks(st, st.Zone(), limits)) {
		if st.Escalated[e] {
			continue
		}
		key := fmt.Sprintf("%s %s %d %s %d", f.ID, e.Stage, e.Request, e.Level, e.At)
		if err := s.cfg.DB.Enqueue(tx, jobEscalate, key, time.UnixMilli(e.At), reminder{f.Tenant, f.ID, e}); err != nil {
			return err
		}
	}
	return nil
}

// armAll sets the alarms of all that runs in a tenant, or in all of them. Setting one twice sets it once.
func (s *Service) armAll(tx *store.Tx, tenantID string) error {
	limits := map[string]Targets{}
	of := func(tenantID string) (t Targets, err error) {
		t, ok := limits[tenantID]
		if !ok {
			t, err = targets(tx, tenantID)
			limits[tenantID] = t
		}
		return t, err
	}
	fs, err := openCases(tx, tenantID)
	if err != nil {
		return err
	}
	for _, f := range fs {
		t, err := of(f.Tenant)
		if err == nil {
			err = s.arm(tx, f, t)
		}
		if err != nil {
			return err
		}
	}
	waiting, err := undecided(tx, tenantID)
	if err != nil {
		return err
	}
	for owner, sigs := range waiting {
		for _, sig := range sigs {
			if err := s.armSignal(tx, owner, sig); err != nil {
				return err
			}
		}
	}
	return nil
}

// Work sets the alarms of all that runs, once: those of rules that are younger than a case, and any that were lost.
func (s *Service) Work(ctx context.Context) error {
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.armAll(tx, "") })
	if err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// escalate writes that a deadline is near or over. The event's place in the log and Check make it once, however often
// the job runs and on however many machines.
func (s *Service) escalate(ctx context.Context, j store.Job) error {
	var al reminder
	if err := j.Decode(&al); err != nil {
		return err
	}
	return s.insist(ctx, func(tx *store.Tx) error {
		f, err := fileByID(tx, al.Tenant, al.Case)
		if err != nil {
			return err
		}
		limits, err := targets(tx, al.Tenant)
		if err != nil {
			return err
		}
		e := al.Escalation
		st := f.state()
		if st.Closed || st.Escalated[e] || !e.due(Escalations(st, Clocks(st, st.Zone(), limits))) {
			return nil // on record already, or the case has moved on
		}
		if s.now().UnixMilli() < e.At { // a clock was set back: the alarm rings when its time has come
			return s.arm(tx, f, limits)
		}
		if err := s.append(tx, &f, tenant.System(al.Tenant), e.Level, Data{Stage: e.Stage, Request: e.Request, At: time.UnixMilli(e.At)}); err != nil {
			return err
		}
		return s.cfg.DB.Emit(tx, "case.deadline", al.Tenant, al.Case, e)
	})
}

// exploited turns the match of a feed into a signal and nothing more: whether it was exploited in this product is for a
// person to find out (Commission guidance, point 218).
func (s *Service) exploited(ctx context.Context, e store.Event) error {
	var x vuln.Exploited
	if err := e.Decode(&x); err != nil {
		return err
	}
	sig := Signal{ID: store.NewID("sig"), Product: x.Product, Source: SourceVuln, Ref: x.Group, Exploited: "unknown",
		Title: x.Group + " is known to be exploited and in our software", Actor: "system",
		Detail: "A component of version " + x.Version + " matches a vulnerability that a feed lists as exploited somewhere. Find out whether it can be reached and whether it was exploited in this product."}
	return s.receive(ctx, e.Tenant, &sig)
}

// alarmed turns an alarm whose rule asks for it into a signal: what it means is for a person to find out.
func (s *Service) alarmed(ctx context.Context, e store.Event) error {
	var x alarm.Raised
	if err := e.Decode(&x); err != nil || !x.Signal {
		return err
	}
	sig := Signal{ID: store.NewID("sig"), Product: x.Product, Source: SourceAlarm, Ref: e.Subject, Exploited: "unknown",
		Title: "Alarm “" + x.Name + "” on a device", Actor: "system",
		Detail: x.Value + " on device " + x.Device + ". Find out whether somebody attacks the device or its product, and whether a vulnerability was exploited."}
	return s.receive(ctx, e.Tenant, &sig)
}
