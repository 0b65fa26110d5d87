// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/tenant"
)

// drillRoutes registers the operations of drills and of readiness.
func (s *Service) drillRoutes(a *api.API) {
	read, write := string(tenant.CaseRead), string(tenant.CaseWrite)
	type drillID struct {
		ID string `path:"id" maxLength:"64"`
	}
	type startDrillIn struct {
		Body struct {
			Product  string `json:"product" maxLength:"64"`
			Kind     Kind   `json:"kind" enum:"aev,si"`
			Scenario string `json:"scenario" maxLength:"4000" doc:"What is rehearsed"`
			Calls    bool   `json:"calls,omitempty" doc:"Call whoever is on call, as an exercise: their answer is timed"`
		}
	}
	api.Handle(a, api.Op{ID: "start-drill", Method: "POST", Path: "/v1/drills", Verb: write, Stage: "respond", Status: 201,
		Summary: "Begin a drill: a rehearsal of a case that is none"},
		func(ctx context.Context, in *startDrillIn) (*api.Out[Drill], error) {
			return api.Answer(s.StartDrill(ctx, in.Body.Product, in.Body.Kind, in.Body.Scenario, in.Body.Calls))
		})
	type drillsIn struct{ api.Paging }
	api.Handle(a, api.Op{ID: "list-drills", Method: "GET", Path: "/v1/drills", Verb: read, Stage: "respond", Summary: "Drills with their scores, newest first"},
		func(ctx context.Context, in *drillsIn) (*api.List[Drill], error) {
			after, err := in.After(a)
			if err != nil {
				return nil, err
			}
			ds, err := s.Drills(ctx, after, in.Size()+1)
			if err != nil {
				return nil, err
			}
			return api.More(a, in.Paging, ds, func(d Drill) string { return d.ID }), nil
		})
	api.Handle(a, api.Op{ID: "get-drill", Method: "GET", Path: "/v1/drills/{id}", Verb: read, Stage: "respond", Summary: "A drill with its events and its score"},
		func(ctx context.Context, in *drillID) (*api.Out[Drill], error) {
			return api.Answer(s.Drill(ctx, in.ID))
		})
	type drillEventIn struct {
		ID   string `path:"id" maxLength:"64"`
		Body struct {
			Kind EventKind `json:"kind" maxLength:"64"`
			Data
		}
	}
	api.Handle(a, api.Op{ID: "append-drill-event", Method: "POST", Path: "/v1/drills/{id}/events", Verb: write, Stage: "respond", Status: 201,
		Summary: "Append an event to a drill, by the rules of cases"},
		func(ctx context.Context, in *drillEventIn) (*api.Out[Drill], error) {
			return api.Answer(s.AppendDrill(ctx, in.ID, in.Body.Kind, in.Body.Data))
		})
	type endDrillIn struct {
		ID   string `path:"id" maxLength:"64"`
		Body struct {
			Lesson string `json:"lesson" maxLength:"16000" doc:"What was learned"`
		}
	}
	api.Handle(a, api.Op{ID: "end-drill", Method: "POST", Path: "/v1/drills/{id}/end", Verb: write, Stage: "respond", Summary: "End a drill with what was learned"},
		func(ctx context.Context, in *endDrillIn) (*api.Out[Drill], error) {
			return api.Answer(s.EndDrill(ctx, in.ID, in.Body.Lesson))
		})
	api.Handle(a, api.Op{ID: "get-drill-pack", Method: "GET", Path: "/v1/drills/{id}/pack", Verb: read, Stage: "respond", Summary: "Draft of a drill's early warning, marked as a drill"},
		func(ctx context.Context, in *drillID) (*api.Out[Pack], error) {
			return api.Answer(s.DrillPack(ctx, in.ID, EarlyWarning))
		})
	type none struct{}
	api.Handle(a, api.Op{ID: "get-reporting-readiness", Method: "GET", Path: "/v1/reporting-readiness", Verb: read, Stage: "respond",
		Summary: "What must be there before the first 24 hours begin, and whether it is"},
		func(ctx context.Context, _ *none) (*api.Out[Readiness], error) {
			return api.Answer(s.Readiness(ctx))
		})
	api.Handle(a, api.Op{ID: "list-filers", Method: "GET", Path: "/v1/reporting-readiness/filers", Verb: read, Stage: "respond",
		Summary: "Who can file on the reporting platform, by their own word, and how often they did"},
		func(ctx context.Context, _ *none) (*api.List[Filer], error) {
			fs, err := s.Filers(ctx)
			return api.Items(fs), err
		})
	type filerIn struct {
		Body struct {
			CanFile  bool      `json:"can_file" doc:"You have an EU Login with a second factor"`
			Role     FilerRole `json:"role,omitempty" enum:"primary,secondary" doc:"What you are on the reporting platform; primary by default. A secondary representative sees there only their own filings"`
			Verified bool      `json:"verified,omitempty" doc:"The reporting platform has verified you; without that it takes 20 notifications of yours"`
		}
	}
	api.Handle(a, api.Op{ID: "set-filer", Method: "PUT", Path: "/v1/reporting-readiness/filer", Verb: write, Stage: "respond", Summary: "Say whether you can file on the reporting platform"},
		func(ctx context.Context, in *filerIn) (*api.Out[Readiness], error) {
			if err := s.SetFiler(ctx, in.Body.CanFile, in.Body.Role, in.Body.Verified); err != nil {
				return nil, err
			}
			return api.Answer(s.Readiness(ctx))
		})
}
