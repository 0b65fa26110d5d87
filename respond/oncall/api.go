// SPDX-License-Identifier: AGPL-3.0-only

package oncall

import (
	"context"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

// OnCall is who has the turn.
type OnCall struct {
	Rota   *Rota     `json:"rota,omitempty"`
	From   time.Time `json:"from,omitzero"`
	To     time.Time `json:"to,omitzero" doc:"The next handover"`
	People []Member  `json:"people" doc:"Whoever has the turn, then the deputies in the order in which they are called; none without a rota"`
}

func (s *Service) read(ctx context.Context) (OnCall, error) {
	r, set, err := s.Rota(ctx)
	if err != nil || !set {
		return OnCall{People: []Member{}}, err
	}
	t := r.At(s.now())
	return OnCall{Rota: &r, From: t.From.UTC(), To: t.To.UTC(), People: t.People}, nil
}

// Routes registers the operations of the room.
func (s *Service) Routes(a *api.API) {
	read, write := string(tenant.CaseRead), string(tenant.CaseWrite)
	const stage = "respond"
	type none struct{}
	api.Handle(a, api.Op{ID: "get-on-call", Method: "GET", Path: "/v1/on-call", Verb: read, Stage: stage, Summary: "Who is called when a clock of the law is near its end"},
		func(ctx context.Context, _ *none) (*api.Out[OnCall], error) { return api.Answer(s.read(ctx)) })
	type rotaIn struct{ Body Rota }
	api.Handle(a, api.Op{ID: "set-rota", Method: "PUT", Path: "/v1/on-call", Verb: string(tenant.CaseDeclare), Stage: stage, Summary: "Say who has the turn from now on",
		Doc: "Turns follow each other in the order of people, each of days days, from the handover at hour on the wall of zone. Two people at least."},
		func(ctx context.Context, in *rotaIn) (*api.Out[OnCall], error) {
			if _, err := s.SetRota(ctx, in.Body); err != nil {
				return nil, err
			}
			return api.Answer(s.read(ctx))
		})
	type callsIn struct {
		Open  bool `query:"open" doc:"Those alone that nobody has answered"`
		Drill bool `query:"drill" doc:"Those of drills, which are no calls, instead"`
		api.Paging
	}
	api.Handle(a, api.Op{ID: "list-calls", Method: "GET", Path: "/v1/on-call/calls", Verb: read, Stage: stage, Summary: "Calls, newest first, with who was called when"},
		func(ctx context.Context, in *callsIn) (*api.List[Call], error) {
			after, err := in.After(a)
			if err != nil {
				return nil, err
			}
			cs, err := s.Calls(ctx, in.Drill, in.Open, after, in.Size()+1)
			if err != nil {
				return nil, err
			}
			return api.More(a, in.Paging, cs, func(c Call) string { return c.ID }), nil
		})
	type byID struct {
		ID string `path:"id" maxLength:"64"`
	}
	api.Handle(a, api.Op{ID: "answer-call", Method: "POST", Path: "/v1/on-call/calls/{id}/answer", Verb: write, Stage: stage, Summary: "Take a call; the first answer stands"},
		func(ctx context.Context, in *byID) (*api.Out[Call], error) { return api.Answer(s.Answer(ctx, in.ID)) })
}

// Readiness says what is missing before a call would reach somebody; "" is nothing.
func (s *Service) Readiness(ctx context.Context) (missing string, err error) {
	o, err := s.read(ctx)
	if problem.Is(err, problem.KindForbidden) {
		return "", nil
	}
	if err == nil && o.Rota == nil {
		missing = "Nobody is on call yet: name two people at least, and how each is reached."
	}
	return missing, err
}
