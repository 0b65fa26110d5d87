// SPDX-License-Identifier: AGPL-3.0-only

package oncall

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/notify"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// TopicUnanswered is the event that everybody was called and nobody answered; TopicCall is what endpoints are told.
const (
	TopicUnanswered = "oncall.unanswered"
	TopicCall       = "oncall.call"
)

// rounds is how often everybody is called before the call is given up.
const rounds = 3

const jobNext = "oncall.next"

// Config is what the room needs. DB's clock is its clock.
type Config struct {
	DB     *store.DB
	Notify *notify.Service
	// People names those of a tenant who may be in a rota, by id.
	People func(ctx context.Context, tenant string) (map[string]string, error)
	// Worth are the events that are worth a call: what is said, and where it is looked at; an empty title calls nobody.
	Worth map[string]func(ctx context.Context, e store.Event) (title, link string, err error)
	// Over says that what a call is about needs nobody any more. Nil: only an answer ends a call.
	Over func(ctx context.Context, e store.Event) (bool, error)
	// Eased are the events after which calls about their subject may be over.
	Eased []string
}

// Service is the room.
type Service struct{ cfg Config }

// New makes the room and registers its reactions and job; call it before the store runs jobs.
func New(cfg Config) *Service {
	s := &Service{cfg: cfg}
	cfg.Notify.Know(notify.Topic{Name: TopicCall, Text: "somebody is called because a clock of the law is near its end"},
		notify.Topic{Name: topicDrill, Text: "a drill calls somebody; nothing has happened"})
	cfg.DB.Handle(jobNext, s.next)
	for topic := range cfg.Worth {
		cfg.DB.On(topic, "oncall", s.heard)
	}
	for _, topic := range cfg.Eased {
		cfg.DB.On(topic, "oncall-eased", s.eased)
	}
	return s
}

func (s *Service) now() time.Time { return s.cfg.DB.Clock().Now().UTC().Truncate(time.Millisecond) }

// Call is something that somebody must look at now.
type Call struct {
	ID         string    `json:"id"`
	Topic      string    `json:"topic"`
	Subject    string    `json:"subject" doc:"What it is about, such as a case"`
	Title      string    `json:"title"`
	Link       string    `json:"link"`
	At         time.Time `json:"at"`
	Answered   time.Time `json:"answered,omitzero"`
	AnsweredBy string    `json:"answered_by,omitempty"`
	Ended      time.Time `json:"ended,omitzero"`
	Why        string    `json:"why,omitempty" enum:"answered,over,unanswered,real" doc:"Why it ended; real: somebody was called in earnest"`
	Drill      bool      `json:"drill,omitempty" doc:"It is the call of a drill"`
	Steps      []Step    `json:"steps" doc:"Who was called, in order"`

	data []byte
}

// Step is one person called.
type Step struct {
	N         int64     `json:"n"`
	Person    string    `json:"person"`
	Name      string    `json:"name"`
	Endpoints int64     `json:"endpoints" doc:"How many could be told; 0: none"`
	At        time.Time `json:"at"`
}

// heard opens a call for an event that is worth one, and calls whoever has the turn. Without a rota nobody is called.
func (s *Service) heard(ctx context.Context, e store.Event) error {
	title, link, err := s.cfg.Worth[e.Topic](ctx, e)
	if err != nil || title == "" {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		rota, set, err := rotaOf(tx, e.Tenant)
		if err != nil || !set {
			return err
		}
		c := Call{ID: "cal_" + e.ID, Topic: e.Topic, Subject: e.Subject, Title: title, Link: link, At: s.now(), data: e.Data}
		if fresh, err := insertCall(tx, e.Tenant, c); err != nil || !fresh {
			return err
		}
		if err := s.giveWay(tx, e.Tenant); err != nil {
			return err
		}
		return s.step(tx, e.Tenant, rota, c, 0)
	})
}

// reminder is a job: at its time the next one is called, if nobody has answered.
type reminder struct {
	Tenant, Call string
	Step         int64
}

func (s *Service) next(ctx context.Context, j store.Job) error {
	var r reminder
	if err := j.Decode(&r); err != nil {
		return err
	}
	c, err := s.call(ctx, r.Tenant, r.Call)
	if err != nil || !c.Ended.IsZero() || int64(len(c.Steps)) != r.Step {
		return err
	}
	over, err := s.over(ctx, r.Tenant, c)
	if err != nil {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		c, err := callByID(tx, r.Tenant, r.Call)
		if err != nil || !c.Ended.IsZero() || int64(len(c.Steps)) != r.Step {
			return err // answered, or another machine was faster
		}
		rota, set, err := rotaOf(tx, r.Tenant)
		var real []Call
		if err == nil && c.Drill {
			real, err = open(tx, r.Tenant, false)
		}
		switch {
		case err != nil:
			return err
		case len(real) > 0:
			return s.end(tx, r.Tenant, c, "real", "")
		case over || !set:
			return s.end(tx, r.Tenant, c, "over", "")
		}
		return s.step(tx, r.Tenant, rota, c, r.Step)
	})
}

// over says that what a call is about needs nobody any more.
func (s *Service) over(ctx context.Context, t string, c Call) (bool, error) {
	if s.cfg.Over == nil || c.Drill {
		return false, nil
	}
	return s.cfg.Over(tenant.WithActor(ctx, tenant.System(t)), store.Event{Topic: c.Topic, Tenant: t, Subject: c.Subject, Data: c.data})
}

// eased ends the calls about something that are over by now. One that nobody answered stays on record as such, and a pager
// closes its incident.
func (s *Service) eased(ctx context.Context, e store.Event) error {
	var cs []Call
	if err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) { cs, err = pending(tx, e.Tenant, e.Subject); return err }); err != nil {
		return err
	}
	for _, c := range cs {
		over, err := s.over(ctx, e.Tenant, c)
		if err != nil {
			return err
		}
		if !over {
			continue
		}
		if err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			now, err := callByID(tx, e.Tenant, c.ID)
			switch {
			case err != nil:
				return err
			case now.Ended.IsZero():
				return s.end(tx, e.Tenant, now, "over", "")
			}
			return s.settle(tx, e.Tenant, now, "over")
		}); err != nil {
			return err
		}
	}
	return nil
}

// step calls one person, or ends the call when everybody was called often enough.
func (s *Service) step(tx *store.Tx, t string, rota Rota, c Call, n int64) error {
	now := s.now()
	people := rota.At(now).People
	if n >= int64(rounds*len(people)) {
		if c.Drill {
			return s.end(tx, t, c, "unanswered", "")
		}
		if err := endCall(tx, t, c.ID, now, "unanswered", ""); err != nil {
			return err
		}
		return s.cfg.DB.Emit(tx, TopicUnanswered, t, c.ID, map[string]any{"title": c.Title, "link": c.Link, "steps": n})
	}
	p := people[n%int64(len(people))]
	notice := c.notice(t)
	notice.Text = fmt.Sprintf("%s, you are called: answer within %d minutes on the page On call, or the next one is called.", p.Name, rota.Minutes)
	if c.Drill {
		notice.Text = drillMark + notice.Text + " This is an exercise; your answer is timed."
	}
	notice.Data, notice.Key = map[string]any{"call": c.ID, "person": p.Person, "step": n, "drill": c.Drill}, fmt.Sprintf("%s-%d", c.ID, n)
	told, err := s.cfg.Notify.Call(tx, notice, p.Endpoints)
	if err != nil {
		return err
	}
	st := Step{N: n, Person: p.Person, Name: p.Name, Endpoints: int64(told), At: now}
	if err := insertStep(tx, t, c.ID, st); err != nil {
		return err
	}
	if err := audit.Append(tx, audit.Entry{Tenant: t, Actor: tenant.System(t).ID, Kind: "oncall.called", Subject: c.ID,
		Data: map[string]any{"about": c.Subject, "person": p.Person, "step": n, "endpoints": told, "drill": c.Drill}}); err != nil {
		return err
	}
	return s.cfg.DB.Enqueue(tx, jobNext, fmt.Sprintf("%s %d", c.ID, n+1), now.Add(time.Duration(rota.Minutes)*time.Minute), reminder{t, c.ID, n + 1})
}

// end ends a call; by is who answered it.
func (s *Service) end(tx *store.Tx, t string, c Call, why, by string) error {
	if err := endCall(tx, t, c.ID, s.now(), why, by); err != nil {
		return err
	}
	return s.settle(tx, t, c, why)
}

// settle has pagers close the incident of a call, once; what still waits for somebody who was called is not delivered any more.
func (s *Service) settle(tx *store.Tx, t string, c Call, why string) error {
	n := c.notice(t)
	n.Phase, n.Key, n.Data = notify.Over, c.ID+"-over", map[string]any{"call": c.ID, "why": why}
	return s.cfg.Notify.Settle(tx, n)
}

// notice is what everything that is told of a call has in common.
func (c Call) notice(t string) notify.Notice {
	topic := TopicCall
	if c.Drill {
		topic = topicDrill
	}
	return notify.Notice{Tenant: t, Topic: topic, Subject: c.ID, Title: c.Title, Link: c.Link, Severity: notify.Critical, Thread: c.ID}
}

// who refuses unless a person asks who may do v.
func who(ctx context.Context, v tenant.Verb) (tenant.Actor, error) {
	a, _ := tenant.ActorFrom(ctx)
	err := tenant.Require(ctx, v, tenant.Thing{Tenant: a.Tenant})
	if err == nil && v != tenant.CaseRead && a.Kind != tenant.KindPerson {
		err = problem.Forbidden("oncall.person-only", "Only a person who signed in can do this.")
	}
	return a, err
}

// Answer says that the caller takes it. The first answer stands; another is a conflict that names whose it was.
func (s *Service) Answer(ctx context.Context, id string) (Call, error) {
	a, err := who(ctx, tenant.CaseWrite)
	if err != nil {
		return Call{}, err
	}
	people, err := s.cfg.People(ctx, a.Tenant)
	if err != nil {
		return Call{}, err
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		c, err := callByID(tx, a.Tenant, id)
		if err != nil {
			return err
		}
		if c.Drill && !c.Ended.IsZero() && c.Why != "answered" {
			return problem.Conflict("The call of this drill has ended.")
		}
		if c.Why == "answered" {
			return problem.Conflict("%s answered it at %s.", cmp.Or(people[c.AnsweredBy], c.AnsweredBy), c.Answered.Format("15:04 UTC"))
		}
		if err := s.end(tx, a.Tenant, c, "answered", a.ID); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "oncall.answered", Subject: id, Data: map[string]any{"about": c.Subject, "steps": len(c.Steps), "drill": c.Drill}})
	})
	if err != nil {
		return Call{}, err
	}
	return s.call(ctx, a.Tenant, id)
}

// SetRota says who has the turn from now on. Calls that are open go on by it.
func (s *Service) SetRota(ctx context.Context, r Rota) (Rota, error) {
	a, err := who(ctx, tenant.CaseDeclare)
	if err != nil {
		return r, err
	}
	people, err := s.cfg.People(ctx, a.Tenant)
	if err != nil {
		return r, err
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		reach, err := s.cfg.Notify.Endpoints(tx, a.Tenant)
		if err != nil {
			return err
		}
		known := map[string]bool{}
		for _, e := range reach {
			known[e.ID] = true
		}
		if err := r.check(people, known); err != nil {
			return err
		}
		for i := range r.People {
			r.People[i].Name = people[r.People[i].Person]
		}
		if err := putRota(tx, a.Tenant, r, a.ID, s.now()); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "oncall.rota_set", Subject: a.Tenant, Data: r})
	})
	return r, err
}

// Rota reads it; false when there is none.
func (s *Service) Rota(ctx context.Context) (r Rota, set bool, err error) {
	a, err := who(ctx, tenant.CaseRead)
	if err != nil {
		return r, false, err
	}
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error { r, set, err = rotaOf(tx, a.Tenant); return err })
	return r, set, err
}

// Now is who has the turn now; false when there is no rota.
func (s *Service) Now(ctx context.Context, t string) (turn Turn, set bool, err error) {
	var r Rota
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error { r, set, err = rotaOf(tx, t); return err })
	return r.At(s.now()), set, err
}

// Calls lists calls, newest first; open ones only if asked. Those of drills are a list of their own.
func (s *Service) Calls(ctx context.Context, drill, open bool, after string, n int) (out []Call, err error) {
	a, err := who(ctx, tenant.CaseRead)
	if err != nil {
		return nil, err
	}
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error { out, err = calls(tx, a.Tenant, drill, open, after, n); return err })
	return out, err
}

func (s *Service) call(ctx context.Context, t, id string) (c Call, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error { c, err = callByID(tx, t, id); return err })
	return c, err
}
