// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/tenant"
)

// Ended is the answer to a decision.
type Ended struct {
	Decision
	Cases []string `json:"cases" doc:"Cases that the decision opened"`
}

// Routes registers the operations of the room.
func (s *Service) Routes(a *api.API) {
	read, write := string(tenant.CaseRead), string(tenant.CaseWrite)
	type byID struct {
		ID string `path:"id" maxLength:"64"`
	}

	type signalIn struct {
		Body struct {
			Product    string    `json:"product" maxLength:"64"`
			Title      string    `json:"title" maxLength:"255"`
			Detail     string    `json:"detail,omitempty" maxLength:"4000"`
			Ref        string    `json:"ref,omitempty" maxLength:"255" doc:"A vulnerability or ticket"`
			Exploited  string    `json:"exploited,omitempty" enum:"yes,no,unknown"`
			KnownSince time.Time `json:"known_since,omitzero" required:"false"`
		}
	}
	api.Handle(a, api.Op{ID: "add-signal", Method: "POST", Path: "/v1/signals", Verb: write, Stage: "respond", Status: 201,
		Summary: "Record a hint that a product may be attacked; it starts no clock"},
		func(ctx context.Context, in *signalIn) (*api.Out[Signal], error) {
			b := in.Body
			sig, err := s.AddSignal(ctx, Signal{Product: b.Product, Title: b.Title, Detail: b.Detail, Ref: b.Ref, Exploited: b.Exploited, KnownSince: b.KnownSince})
			return api.Answer(sig, err)
		})

	type signalsIn struct{ api.Paging }
	api.Handle(a, api.Op{ID: "list-signals", Method: "GET", Path: "/v1/signals", Verb: read, Stage: "respond", Summary: "Signals, newest first"},
		func(ctx context.Context, in *signalsIn) (*api.List[Signal], error) {
			after, err := in.After(a)
			if err != nil {
				return nil, err
			}
			ss, err := s.Signals(ctx, after, in.Size()+1)
			if err != nil {
				return nil, err
			}
			return api.More(a, in.Paging, ss, func(s Signal) string { return s.ID }), nil
		})

	api.Handle(a, api.Op{ID: "get-signal", Method: "GET", Path: "/v1/signals/{id}", Verb: read, Stage: "respond", Summary: "A signal with its newest assessment"},
		func(ctx context.Context, in *byID) (*api.Out[Signal], error) { return api.Answer(s.Signal(ctx, in.ID)) })

	type attributeIn struct {
		ID   string `path:"id" maxLength:"64"`
		Body struct {
			Product string `json:"product" minLength:"1" maxLength:"64"`
		}
	}
	api.Handle(a, api.Op{ID: "attribute-signal", Method: "POST", Path: "/v1/signals/{id}/product", Verb: write, Stage: "respond", Status: 200,
		Summary: "Say which product a signal is about that named none (a person only)"},
		func(ctx context.Context, in *attributeIn) (*api.Out[Signal], error) {
			return api.Answer(s.AttributeSignal(ctx, in.ID, in.Body.Product))
		})

	type assessIn struct {
		ID   string `path:"id" maxLength:"64"`
		Body *struct {
			Evidence string `json:"evidence,omitempty" maxLength:"4000" doc:"What is new, where the signal was judged before"`
		}
	}
	api.Handle(a, api.Op{ID: "open-assessment", Method: "POST", Path: "/v1/signals/{id}/assessment", Verb: write, Stage: "respond", Status: 201,
		Summary: "Open an assessment of a signal; after a negative or a watched one it names the new evidence"},
		func(ctx context.Context, in *assessIn) (*api.Out[Assessment], error) {
			evidence := ""
			if in.Body != nil {
				evidence = in.Body.Evidence
			}
			return api.Answer(s.Assess(ctx, in.ID, evidence))
		})

	type decideIn struct {
		ID   string `path:"id" maxLength:"64"`
		Body Declaration
	}
	api.Handle(a, api.Op{ID: "decide-assessment", Method: "POST", Path: "/v1/assessments/{id}/decision", Verb: write, Stage: "respond", Status: 201,
		Summary: "Decide: negative, watch, or aware, which sets T0 and opens a case per kind (needs case.declare)"},
		func(ctx context.Context, in *decideIn) (*api.Out[Ended], error) {
			d, cases, err := s.Decide(ctx, in.ID, in.Body)
			return api.Answer(Ended{d, cases}, err)
		})

	type nothing struct{}
	type targetsIn struct{ Body Targets }
	api.Handle(a, api.Op{ID: "get-case-targets", Method: "GET", Path: "/v1/case-targets", Verb: read, Stage: "respond", Summary: "The house's own limits for signals and cases"},
		func(ctx context.Context, _ *nothing) (*api.Out[Targets], error) { return api.Answer(s.Targets(ctx)) })
	api.Handle(a, api.Op{ID: "set-case-targets", Method: "PUT", Path: "/v1/case-targets", Verb: string(tenant.CaseDeclare), Stage: "respond",
		Summary: "Set the house's own limits; one that is looser than the law's is refused by its rule"},
		func(ctx context.Context, in *targetsIn) (*api.Out[Targets], error) {
			return api.Answer(in.Body.filled(), s.SetTargets(ctx, in.Body))
		})

	type casesIn struct {
		Open bool `query:"open" doc:"Leave out the closed ones"`
		api.Paging
	}
	api.Handle(a, api.Op{ID: "list-cases", Method: "GET", Path: "/v1/cases", Verb: read, Stage: "respond", Summary: "Cases with their clocks, newest first"},
		func(ctx context.Context, in *casesIn) (*api.List[Case], error) {
			after, err := in.After(a)
			if err != nil {
				return nil, err
			}
			cs, err := s.Cases(ctx, in.Open, after, in.Size()+1)
			if err != nil {
				return nil, err
			}
			return api.More(a, in.Paging, cs, func(c Case) string { return c.ID }), nil
		})

	api.Handle(a, api.Op{ID: "get-case", Method: "GET", Path: "/v1/cases/{id}", Verb: read, Stage: "respond",
		Summary: "A case with its events and its clocks, computed now"},
		func(ctx context.Context, in *byID) (*api.Out[Case], error) { return api.Answer(s.Case(ctx, in.ID)) })

	type eventIn struct {
		ID   string `path:"id" maxLength:"64"`
		Body struct {
			Kind EventKind `json:"kind" maxLength:"64"`
			Data
		}
	}
	api.Handle(a, api.Op{ID: "append-case-event", Method: "POST", Path: "/v1/cases/{id}/events", Verb: write, Stage: "respond", Status: 201,
		Summary: "Append an event to a case: a measure available, a submission attempted or accepted, users informed, …"},
		func(ctx context.Context, in *eventIn) (*api.Out[Event], error) {
			return api.Answer(s.Append(ctx, in.ID, in.Body.Kind, in.Body.Data))
		})

	s.packRoutes(a)
	s.drillRoutes(a)
	s.anomalyRoutes(a)
}
