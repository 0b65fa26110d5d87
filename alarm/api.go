// SPDX-License-Identifier: AGPL-3.0-only

package alarm

import (
	"context"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

type listIn struct {
	State    string `query:"state" enum:"open,closed"`
	Device   string `query:"device" maxLength:"64"`
	Severity string `query:"severity" enum:"critical,warning,info"`
	api.Paging
}

type byID struct {
	ID string `path:"id"`
}

type noteIn struct {
	ID   string `path:"id"`
	Body struct {
		Note string `json:"note,omitempty" maxLength:"2000"`
	}
}

type ruleIn struct {
	Body RuleBody
}

type changeIn struct {
	ID   string `path:"id"`
	Body RuleBody
}

// RuleBody is what a person sets of a rule.
type RuleBody struct {
	Name     string   `json:"name" maxLength:"100"`
	Filter   string   `json:"filter,omitempty" maxLength:"2000" doc:"Which devices, in the filter language; empty: all"`
	Kind     Kind     `json:"kind" enum:"threshold,change,absence,events"`
	Stream   string   `json:"stream,omitempty" maxLength:"64"`
	Field    string   `json:"field,omitempty" maxLength:"64"`
	Event    string   `json:"event,omitempty" maxLength:"64"`
	Op       string   `json:"op,omitempty" doc:"threshold: >, >=, < or <="`
	Value    float64  `json:"value,omitempty" doc:"threshold: the limit; change: by how much in a minute"`
	Clear    *float64 `json:"clear,omitempty" doc:"threshold: the value at which the alarm is over again; default the limit"`
	For      int64    `json:"for_seconds,omitempty"`
	Window   int64    `json:"window_seconds,omitempty"`
	Count    int64    `json:"count,omitempty"`
	Severity Severity `json:"severity" enum:"critical,warning,info"`
	Signal   bool     `json:"signal,omitempty" doc:"An alarm opens a signal, which a person must assess"`
	Off      bool     `json:"off,omitempty"`
}

func (b RuleBody) rule() Rule {
	return Rule{Name: b.Name, Filter: b.Filter, Kind: b.Kind, Stream: b.Stream, Field: b.Field, Event: b.Event, Op: b.Op, Value: b.Value, Clear: b.Clear,
		For: b.For, Window: b.Window, Count: b.Count, Severity: b.Severity, Signal: b.Signal, Off: b.Off}
}

// Routes mounts the API.
func (s *Service) Routes(a *api.API) {
	const stage = "alarm"
	read, write := string(tenant.AlarmRead), string(tenant.AlarmWrite)
	api.Handle(a, api.Op{ID: "list-alarms", Method: "GET", Path: "/v1/alarms", Verb: read, Stage: stage,
		Summary: "List alarms, the newest first"}, func(ctx context.Context, in *listIn) (*api.List[Alarm], error) {
		before, err := in.After(a)
		if err != nil {
			return nil, err
		}
		as, err := s.alarms(ctx, Question{State: in.State, Device: in.Device, Severity: Severity(in.Severity), Before: before, Limit: in.Size() + 1})
		return api.More(a, in.Paging, as, func(a Alarm) string { return a.ID }), err
	})
	api.Handle(a, api.Op{ID: "get-alarm", Method: "GET", Path: "/v1/alarms/{id}", Verb: read, Stage: stage,
		Summary: "Read an alarm"}, func(ctx context.Context, in *byID) (*api.Out[Alarm], error) {
		al, err := s.one(ctx, in.ID, tenant.AlarmRead)
		return api.One(al), err
	})
	api.Handle(a, api.Op{ID: "acknowledge-alarm", Method: "POST", Path: "/v1/alarms/{id}/acknowledge", Verb: write, Stage: stage,
		Summary: "Say that a person has seen an alarm"}, func(ctx context.Context, in *noteIn) (*api.Out[Alarm], error) {
		al, err := s.acknowledge(ctx, in.ID, in.Body.Note)
		return api.One(al), err
	})
	api.Handle(a, api.Op{ID: "close-alarm", Method: "POST", Path: "/v1/alarms/{id}/close", Verb: write, Stage: stage,
		Summary: "End an alarm by the word of a person"}, func(ctx context.Context, in *noteIn) (*api.Out[Alarm], error) {
		al, err := s.closeFor(ctx, in.ID, in.Body.Note)
		return api.One(al), err
	})
	api.Handle(a, api.Op{ID: "list-alarm-rules", Method: "GET", Path: "/v1/alarm-rules", Verb: read, Stage: stage,
		Summary: "List the rules that raise alarms"}, func(ctx context.Context, _ *struct{}) (*api.List[Rule], error) {
		rs, err := s.rules(ctx)
		return api.Items(rs), err
	})
	api.Handle(a, api.Op{ID: "create-alarm-rule", Method: "POST", Path: "/v1/alarm-rules", Verb: write, Stage: stage, Status: 201,
		Summary: "Make a rule"}, func(ctx context.Context, in *ruleIn) (*api.Out[Rule], error) {
		r, err := s.setRule(ctx, in.Body.rule())
		return &api.Out[Rule]{Body: r, Location: "/v1/alarm-rules/" + r.ID}, err
	})
	api.Handle(a, api.Op{ID: "change-alarm-rule", Method: "PUT", Path: "/v1/alarm-rules/{id}", Verb: write, Stage: stage,
		Summary: "Change a rule; its open alarms end"}, func(ctx context.Context, in *changeIn) (*api.Out[Rule], error) {
		r := in.Body.rule()
		r.ID = in.ID
		r, err := s.setRule(ctx, r)
		return api.One(r), err
	})
	api.Handle(a, api.Op{ID: "remove-alarm-rule", Method: "POST", Path: "/v1/alarm-rules/{id}/remove", Verb: write, Stage: stage, Status: 204,
		Summary: "Remove a rule; its open alarms end"}, func(ctx context.Context, in *byID) (*struct{}, error) {
		return nil, s.removeRule(ctx, in.ID)
	})
}

// alarms lists those that whoever asks may read.
func (s *Service) alarms(ctx context.Context, q Question) (as []Alarm, err error) {
	who, _ := tenant.ActorFrom(ctx)
	q.Whole, q.Products, q.Solutions = tenant.Scope(who, tenant.AlarmRead)
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) { as, err = alarms(tx, who.Tenant, q); return err })
	return as, err
}

// Visible is an alarm that whoever asks may see.
func (s *Service) Visible(ctx context.Context, id string) (Alarm, error) {
	return s.one(ctx, id, tenant.AlarmRead)
}

// one is an alarm about a device on which whoever asks holds the verb.
func (s *Service) one(ctx context.Context, id string, v tenant.Verb) (a Alarm, err error) {
	t := tenant.MustTenant(ctx)
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) { a, err = alarmByID(tx, t, id); return err })
	if err != nil {
		return a, err
	}
	return a, tenant.Require(ctx, v, tenant.Thing{Tenant: t, Product: a.Product, Solution: a.Solution})
}

func (s *Service) acknowledge(ctx context.Context, id, note string) (Alarm, error) {
	a, err := s.one(ctx, id, tenant.AlarmWrite)
	if err != nil {
		return a, err
	}
	who, _ := tenant.ActorFrom(ctx)
	return s.Acknowledge(ctx, a.Tenant, id, who.ID, note)
}

func (s *Service) closeFor(ctx context.Context, id, note string) (Alarm, error) {
	a, err := s.one(ctx, id, tenant.AlarmWrite)
	if err != nil {
		return a, err
	}
	who, _ := tenant.ActorFrom(ctx)
	return s.Close(ctx, a.Tenant, id, who.ID, note)
}

// rules lists those of whoever asks.
func (s *Service) rules(ctx context.Context) (rs []Rule, err error) {
	t, _, err := tenant.Whole(ctx, tenant.AlarmRead)
	if err != nil {
		return nil, err
	}
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) { rs, err = rulesOf(tx, t); return err })
	return rs, err
}

func (s *Service) setRule(ctx context.Context, r Rule) (Rule, error) {
	t, who, err := tenant.Whole(ctx, tenant.AlarmWrite)
	if err != nil {
		return r, err
	}
	r.Tenant = t
	return s.SetRule(ctx, r, who)
}

func (s *Service) removeRule(ctx context.Context, id string) error {
	t, who, err := tenant.Whole(ctx, tenant.AlarmWrite)
	if err != nil {
		return err
	}
	return s.RemoveRule(ctx, t, id, who)
}

// Name is what people call a rule; "" when there is none.
func (s *Service) Name(ctx context.Context, t, id string) (string, error) {
	r, err := s.rule(ctx, t, id)
	return r.Name, err
}
