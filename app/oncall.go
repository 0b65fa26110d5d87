// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"context"

	"github.com/openthings-platform/openthings/notify"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// worth are the events that somebody is called for, in the words that everybody is told: a clock that is near its end or
// over it, and a signal that nobody decides.
func (h *house) worth() map[string]func(ctx context.Context, e store.Event) (title, link string, err error) {
	out := map[string]func(ctx context.Context, e store.Event) (title, link string, err error){}
	for _, t := range told {
		if t.topic != "case.deadline" && t.topic != respond.TopicIdle {
			continue
		}
		out[t.topic] = func(ctx context.Context, e store.Event) (string, string, error) {
			if t.topic == "case.deadline" {
				var d respond.Escalation
				if err := e.Decode(&d); err != nil || d.Level != respond.DeadlineSoon && d.Level != respond.DeadlineOverdue {
					return "", "", err
				}
			}
			n, err := t.words(h, tenant.WithActor(ctx, tenant.System(e.Tenant)), e)
			return n.Title, n.Link, err
		}
	}
	return out
}

// overNow says that a call is about something that needs nobody any more: the duty is done, the signal decided.
func (h *house) overNow(ctx context.Context, e store.Event) (bool, error) {
	if e.Topic == respond.TopicIdle {
		sig, err := h.respond.Signal(ctx, e.Subject)
		return err == nil && !sig.Waiting(h.cfg.Clock.Now()), err
	}
	var d respond.Escalation
	if err := e.Decode(&d); err != nil {
		return false, err
	}
	c, err := h.respond.Case(ctx, e.Subject)
	if err != nil {
		return false, err
	}
	over := c.Status == "closed" || c.Status == "withdrawn"
	for _, clock := range c.Clocks {
		over = over || clock.Stage == d.Stage && clock.Request == d.Request && !clock.Met.IsZero()
	}
	return over, nil
}

// rota is what a drill asks of those who keep the rota, a room to the right of cases.
func (h *house) rota() respond.Rota {
	return respond.Rota{
		Ring: func(tx *store.Tx, t, drill, title, link string) error {
			return h.oncall.Rehearse(tx, t, drill, title, link)
		},
		Hush: func(tx *store.Tx, t, drill string) error { return h.oncall.Hush(tx, t, drill) },
		Rang: func(ctx context.Context, t, drill string) (respond.Rang, error) {
			c, _, err := h.oncall.OfDrill(ctx, t, drill)
			r := respond.Rang{At: c.At, Answered: c.Answered, AnsweredBy: c.AnsweredBy, End: c.Why}
			for _, s := range c.Steps {
				r.People = append(r.People, s.Person)
			}
			return r, err
		},
		Turn: func(ctx context.Context, t string) (ids []string, err error) {
			turn, _, err := h.oncall.Now(ctx, t)
			for _, m := range turn.People {
				ids = append(ids, m.Person)
			}
			return ids, err
		},
	}
}

// members are the people of a tenant who may be called.
func (h *house) members(ctx context.Context, t string) (map[string]string, error) {
	ps, err := h.tenant.People(ctx, tenant.System(t))
	out := make(map[string]string, len(ps))
	for _, p := range ps {
		out[p.ID] = p.Name
	}
	return out, err
}

// unanswered tells that everybody was called and nobody answered.
func unanswered(_ *house, _ context.Context, e store.Event) (n notify.Notice, err error) {
	var x struct {
		Title, Link string
		Steps       int64
	}
	if err := e.Decode(&x); err != nil {
		return n, err
	}
	return notify.Notice{Title: "Nobody on call answered: " + x.Title, Text: "Everybody of the rota was called three times. The clock runs on.", Link: x.Link, Data: x, Severity: notify.Critical}, nil
}
