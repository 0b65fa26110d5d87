// SPDX-License-Identifier: AGPL-3.0-only

package conform

import (
	"context"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/tenant"
)

func (s *Service) riskRoutes(a *api.API) {
	api.Handle(a, api.Op{ID: "get-risk-draft", Method: "GET", Path: "/v1/products/{id}/risk-assessment", Verb: mayRead, Stage: stage,
		Summary: "The risk assessment as it stands: the 22 rows of Annex I, decided or open, and why a review is due"},
		func(ctx context.Context, in *byProduct) (*api.Out[Draft], error) {
			c, err := s.on(ctx, tenant.ProductRead, in.ID)
			if err != nil {
				return nil, err
			}
			return api.Answer(s.Draft(ctx, c.tenant, c.product))
		})
	type contextIn struct {
		ID   string `path:"id" maxLength:"64" doc:"Product"`
		Body Context
	}
	api.Handle(a, api.Op{ID: "set-risk-context", Method: "PUT", Path: "/v1/products/{id}/risk-assessment", Verb: mayWrite, Stage: stage,
		Summary: "Record what the risk assessment rests on: purpose, use, environment, assets, threats"},
		func(ctx context.Context, in *contextIn) (*api.Out[Draft], error) {
			c, err := s.on(ctx, tenant.ConformWrite, in.ID)
			if err != nil {
				return nil, err
			}
			return api.Answer(s.SetContext(ctx, c.tenant, c.product, c.actor, in.Body))
		})
	type rowIn struct {
		ID   string `path:"id" maxLength:"64" doc:"Product"`
		Row  string `path:"row" maxLength:"32" doc:"Id of a row of Annex I, such as cra.i.1.2.a"`
		Body Decision
	}
	api.Handle(a, api.Op{ID: "decide-risk-row", Method: "PUT", Path: "/v1/products/{id}/risk-assessment/rows/{row}", Verb: mayWrite, Stage: stage,
		Summary: "Decide on a row: it applies and is met so, or it does not apply for this reason"},
		func(ctx context.Context, in *rowIn) (*api.Out[Draft], error) {
			c, err := s.on(ctx, tenant.ConformWrite, in.ID)
			if err != nil {
				return nil, err
			}
			return api.Answer(s.Decide(ctx, c.tenant, c.product, in.Row, c.actor, in.Body))
		})
	type sealAssessmentIn struct {
		ID   string `path:"id" maxLength:"64" doc:"Product"`
		Body struct {
			Note string `json:"note" minLength:"1" maxLength:"4000" doc:"What was looked at and concluded"`
		}
	}
	api.Handle(a, api.Op{ID: "seal-risk-assessment", Method: "POST", Path: "/v1/products/{id}/risk-assessments", Verb: maySign, Stage: stage, Status: 201,
		Summary: "Seal the draft as the next version; refused while a row is open"},
		func(ctx context.Context, in *sealAssessmentIn) (*api.Out[Assessment], error) {
			c, err := s.on(ctx, tenant.ConformSign, in.ID)
			if err != nil {
				return nil, err
			}
			return api.Answer(s.Seal(ctx, c.tenant, c.product, c.actor, in.Body.Note))
		})
	api.Handle(a, api.Op{ID: "list-risk-assessments", Method: "GET", Path: "/v1/products/{id}/risk-assessments", Verb: mayRead, Stage: stage,
		Summary: "The sealed versions of the risk assessment, the newest first"},
		func(ctx context.Context, in *versionsIn) (*api.List[Assessment], error) {
			c, err := s.on(ctx, tenant.ProductRead, in.ID)
			if err != nil {
				return nil, err
			}
			n, err := before(a, in.Paging)
			if err != nil {
				return nil, err
			}
			list, err := s.Assessments(ctx, c.tenant, c.product, n, in.Size()+1)
			return api.More(a, in.Paging, list, func(x Assessment) string { return decimal(x.Version) }), err
		})
	type oneIn struct {
		ID      string `path:"id" maxLength:"64" doc:"Product"`
		Version string `path:"version" maxLength:"64"`
	}
	api.Handle(a, api.Op{ID: "get-risk-assessment", Method: "GET", Path: "/v1/products/{id}/risk-assessments/{version}", Verb: mayRead, Stage: stage,
		Summary: "A sealed version of the risk assessment"},
		func(ctx context.Context, in *oneIn) (*api.Out[Assessment], error) {
			c, err := s.on(ctx, tenant.ProductRead, in.ID)
			if err != nil {
				return nil, err
			}
			return api.Answer(s.sealed(ctx, c, in.Version))
		})
}

func (s *Service) screenRoutes(a *api.API) {
	api.Handle(a, api.Op{ID: "list-modification-questions", Method: "GET", Path: "/v1/modification-questions", Verb: mayRead, Stage: stage,
		Summary: "The questions that tell a substantial modification"},
		func(context.Context, *struct{}) (*api.List[Question], error) { return api.Items(Questions), nil })
	type releaseIn struct {
		ID string `path:"id" maxLength:"64" doc:"Release"`
	}
	api.Handle(a, api.Op{ID: "get-modification-screen", Method: "GET", Path: "/v1/releases/{id}/modification", Verb: mayRead, Stage: stage,
		Summary: "Whether a release is a substantial modification, as a person signed it"},
		func(ctx context.Context, in *releaseIn) (*api.Out[Screened], error) {
			c, err := s.onRelease(ctx, tenant.ProductRead, in.ID)
			if err != nil {
				return nil, err
			}
			return api.Answer(s.Screened(ctx, c.tenant, c.product, in.ID))
		})
	type signIn struct {
		ID   string `path:"id" maxLength:"64" doc:"Release"`
		Body Screen
	}
	api.Handle(a, api.Op{ID: "sign-modification-screen", Method: "PUT", Path: "/v1/releases/{id}/modification", Verb: maySign, Stage: stage,
		Summary: "Sign the answers of the screen; a substantial modification is not published before a later risk assessment is sealed"},
		func(ctx context.Context, in *signIn) (*api.Out[Screened], error) {
			c, err := s.onRelease(ctx, tenant.ConformSign, in.ID)
			if err != nil {
				return nil, err
			}
			return api.Answer(s.Sign(ctx, c.tenant, c.product, in.ID, c.actor, in.Body))
		})
}
