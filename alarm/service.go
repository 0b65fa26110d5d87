// SPDX-License-Identifier: AGPL-3.0-only

package alarm

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/notify"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// Config is what the stage needs.
type Config struct {
	DB       *store.DB // the platform handle
	Identity *identity.Service
	Fleet    *fleet.Service
	Notify   *notify.Service
	Clock    clock.Clock // default clock.System
	Log      *slog.Logger
}

// Service is the stage. Its methods are safe for concurrent use.
type Service struct {
	cfg   Config
	index atomic.Pointer[index] // what rules watch; never nil

	mu      sync.Mutex // guards the fields below
	members map[memberKey]member
	asked   time.Time // when members was begun anew
}

// Topics that are told outside.
const (
	topicRaised  = "alarm.raised"
	topicCleared = "alarm.cleared"
)

// Alarm is that a rule was broken by a device.
type Alarm struct {
	ID       string    `json:"id"`
	Tenant   string    `json:"-"`
	Rule     string    `json:"rule"`
	Name     string    `json:"name"`
	Device   string    `json:"device"`
	Product  string    `json:"product"`
	Solution string    `json:"solution,omitempty"`
	Severity Severity  `json:"severity"`
	Since    time.Time `json:"since"`
	Value    string    `json:"value" doc:"What broke the rule, in words"`
	Ended    time.Time `json:"ended,omitzero"`
	Why      string    `json:"why,omitempty" doc:"Why it ended"`
	Acked    time.Time `json:"acknowledged,omitzero"`
	AckedBy  string    `json:"acknowledged_by,omitempty"`
	Note     string    `json:"note,omitempty"`
}

// State is open or closed.
func (a Alarm) State() string {
	if a.Ended.IsZero() {
		return "open"
	}
	return "closed"
}

// Raised is the data of the event alarm.raised.
type Raised struct {
	Rule     string   `json:"rule"`
	Name     string   `json:"name"`
	Device   string   `json:"device"`
	Product  string   `json:"product"`
	Severity Severity `json:"severity"`
	Value    string   `json:"value"`
	Signal   bool     `json:"signal"`
}

// New makes the stage and takes over its jobs.
func New(cfg Config) *Service {
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg, members: map[memberKey]member{}}
	s.index.Store(&index{})
	cfg.DB.Handle(jobTick, s.tickJob)
	cfg.DB.Handle(jobRoster, s.rosterJob)
	cfg.Fleet.UsedBy(s.usesGroup)
	cfg.Notify.Know(notify.Topic{Name: topicRaised, Text: "a rule raised an alarm about a device"}, notify.Topic{Name: topicCleared, Text: "an alarm is over"})
	return s
}

// SetRule makes a rule, or changes the one with its id: what it remembered of devices is forgotten, and its open alarms
// end.
func (s *Service) SetRule(ctx context.Context, r Rule, actor string) (Rule, error) {
	if err := r.check(); err != nil {
		return r, err
	}
	if _, err := s.cfg.Fleet.Select(ctx, r.Tenant, r.Filter, "", 1); err != nil {
		return r, problem.Of(err).At("filter")
	}
	fresh := r.ID == ""
	if fresh {
		r.ID = store.NewID("alr")
	}
	r.Actor = actor
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		r.Changed = s.cfg.Clock.Now()
		if fresh {
			all, err := rulesOf(tx, r.Tenant)
			if err != nil {
				return err
			}
			if len(all) >= maxRules {
				return problem.Limited("A tenant has %d rules at most.", maxRules)
			}
		} else if _, err := ruleByID(tx, r.Tenant, r.ID); err != nil {
			return err
		} else if err := s.forget(tx, r, "the rule was changed"); err != nil {
			return err
		}
		if err := putRule(tx, r, time.Time{}); err != nil {
			return err
		}
		if r.Kind == Absence && !r.Off {
			if err := s.cfg.DB.Enqueue(tx, jobRoster, r.ID, r.Changed, rosterData{r.Tenant, r.ID}); err != nil {
				return err
			}
		}
		tx.After(func() { s.reload(context.WithoutCancel(ctx)) })
		return audit.Append(tx, audit.Entry{Tenant: r.Tenant, Actor: actor, Kind: "alarm-rule.set", Subject: r.ID, Data: r})
	})
	return r, err
}

// usesGroup lists the rules whose filter names the group, those that are turned off among them.
func (s *Service) usesGroup(ctx context.Context, g fleet.Group) (uses []fleet.Use, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		rules, err := rulesOf(tx, g.Tenant)
		for _, r := range rules {
			if fleet.Names(r.Filter, g) {
				uses = append(uses, fleet.Use{Kind: "alarm rule", ID: r.ID, Name: r.Name, Href: "/alarms/rules"})
			}
		}
		return err
	})
	return uses, err
}

// rule returns a rule of the tenant, or a problem of kind not-found.
func (s *Service) rule(ctx context.Context, tenant, id string) (r Rule, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) { r, err = ruleByID(tx, tenant, id); return err })
	return r, err
}

// RemoveRule ends a rule and its open alarms.
func (s *Service) RemoveRule(ctx context.Context, tenant, id, actor string) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		r, err := ruleByID(tx, tenant, id)
		if err != nil {
			return err
		}
		if err := s.forget(tx, r, "the rule was removed"); err != nil {
			return err
		}
		r.Changed = s.cfg.Clock.Now()
		if err := putRule(tx, r, r.Changed); err != nil {
			return err
		}
		tx.After(func() { s.reload(context.WithoutCancel(ctx)) })
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "alarm-rule.removed", Subject: id, Data: map[string]any{"name": r.Name}})
	})
}

// forget ends the open alarms of a rule and drops what it remembered. Nobody is told: a person did it.
func (s *Service) forget(tx *store.Tx, r Rule, why string) error {
	if _, err := tx.Exec(`UPDATE alarm SET ended = $2, why = $3 WHERE rule = $1 AND ended = 0`, r.ID, store.Millis(s.cfg.Clock.Now()), why); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM alarm_standing WHERE rule = $1`, r.ID)
	return err
}

// raise opens an alarm unless one is open, and tells everybody.
func (s *Service) raise(tx *store.Tx, r Rule, d identity.Device, value string, at time.Time) error {
	a := Alarm{ID: store.NewID("alm"), Tenant: r.Tenant, Rule: r.ID, Name: r.Name, Device: d.ID, Product: d.Product, Solution: d.Solution, Severity: r.Severity, Since: at, Value: value}
	fresh, err := insertAlarm(tx, a)
	if err != nil || !fresh {
		return err
	}
	data := Raised{r.ID, r.Name, d.ID, d.Product, r.Severity, value, r.Signal}
	if err := s.cfg.DB.Emit(tx, topicRaised, r.Tenant, a.ID, data); err != nil {
		return err
	}
	return s.cfg.Notify.Tell(tx, notify.Notice{Tenant: r.Tenant, Topic: topicRaised, Subject: a.ID, Title: string(r.Severity) + ": " + r.Name + " on " + d.Serial,
		Text: value + "\nRule: " + r.Sentence(), Link: "/alarms/" + a.ID, Data: data, Severity: notify.Severity(r.Severity), Thread: a.ID})
}

// close ends an alarm, once, and tells everybody.
func (s *Service) close(tx *store.Tx, a Alarm, why string, at time.Time) error {
	moved, err := end(tx, a.ID, why, at)
	if err != nil || !moved {
		return err
	}
	data := map[string]any{"rule": a.Rule, "name": a.Name, "device": a.Device, "why": why}
	if err := s.cfg.DB.Emit(tx, topicCleared, a.Tenant, a.ID, data); err != nil {
		return err
	}
	return s.cfg.Notify.Tell(tx, notify.Notice{Tenant: a.Tenant, Topic: topicCleared, Subject: a.ID, Title: "Over: " + a.Name, Text: why, Link: "/alarms/" + a.ID, Data: data,
		Severity: notify.Info, Thread: a.ID, Phase: notify.Over})
}

// Acknowledge notes that a person has seen an alarm.
func (s *Service) Acknowledge(ctx context.Context, tenant, id, actor, note string) (a Alarm, err error) {
	return s.handle(ctx, tenant, id, note, func(tx *store.Tx, a Alarm) error {
		if !a.Acked.IsZero() {
			return problem.Conflict("Somebody has acknowledged it already.")
		}
		if _, err := tx.Exec(`UPDATE alarm SET acked = $2, acked_by = $3, note = $4 WHERE id = $1 AND acked = 0`, id, store.Millis(s.cfg.Clock.Now()), actor, note); err != nil {
			return err
		}
		return s.cfg.Notify.Settle(tx, notify.Notice{Tenant: tenant, Topic: topicRaised, Subject: id, Title: "Acknowledged: " + a.Name, Text: note, Link: "/alarms/" + id,
			Severity: notify.Severity(a.Severity), Thread: id, Phase: notify.Taken})
	})
}

// Close ends an alarm by the word of a person. If its condition still holds, the next message raises a new one.
func (s *Service) Close(ctx context.Context, tenant, id, actor, note string) (a Alarm, err error) {
	return s.handle(ctx, tenant, id, note, func(tx *store.Tx, a Alarm) error {
		if !a.Ended.IsZero() {
			return problem.Conflict("The alarm is over.")
		}
		now := s.cfg.Clock.Now()
		r, err := ruleByID(tx, tenant, a.Rule)
		if err != nil { // a rule that is gone has ended its alarms
			return err
		}
		st, _, err := stand(tx, a.Rule, a.Device)
		if err != nil {
			return err
		}
		if st.Open, st.Since, st.Times = false, 0, nil; r.Kind == Absence {
			st.T = store.Millis(now) // silence counts from now on
		}
		if err := s.keep(tx, r, a.Device, st); err != nil {
			return err
		}
		if _, err := tx.Exec(`UPDATE alarm SET acked = CASE WHEN acked = 0 THEN $2 ELSE acked END, acked_by = CASE WHEN acked = 0 THEN $3 ELSE acked_by END, note = $4 WHERE id = $1`,
			id, store.Millis(now), actor, note); err != nil {
			return err
		}
		return s.close(tx, a, "closed by a person", now)
	})
}

func (s *Service) handle(ctx context.Context, tenant, id, note string, fn func(tx *store.Tx, a Alarm) error) (a Alarm, err error) {
	if len(note) > 2000 {
		return a, problem.TooLarge("A note has 2000 bytes at most.").At("note")
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if a, err = alarmByID(tx, tenant, id); err != nil {
			return err
		}
		if err := fn(tx, a); err != nil {
			return err
		}
		a, err = alarmByID(tx, tenant, id)
		return err
	})
	return a, err
}
