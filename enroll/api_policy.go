// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"errors"
	"strconv"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

type byLabel struct {
	Label string `path:"label" doc:"The segment of the EST path: /.well-known/est/{label}/simpleenroll"`
}

type policyIn struct {
	Label string `path:"label"`
	Body  Policy
}

type policyVersionsIn struct {
	Label string `path:"label"`
	api.Paging
}

type makerIn struct {
	Body struct {
		Name        string `json:"name" maxLength:"120"`
		Certificate string `json:"certificate" maxLength:"16384" doc:"PEM, of a root of the maker or of an authority below it"`
	}
}

type failingIn struct{ api.Paging }

func (s *Service) policyRoutes(a *api.API) {
	read, write := string(tenant.EnrolRead), string(tenant.EnrolWrite)
	api.Handle(a, api.Op{ID: "list-enrolment-policies", Method: "GET", Path: "/v1/enrolment-policies", Verb: read, Stage: stage,
		Summary: "List the enrolment policies by label"}, func(ctx context.Context, _ *struct{}) (*api.List[Policy], error) {
		t, _, err := tenant.Whole(ctx, tenant.EnrolRead)
		if err != nil {
			return nil, err
		}
		ps, err := s.Policies(ctx, t)
		return api.Items(ps), err
	})
	api.Handle(a, api.Op{ID: "get-enrolment-policy", Method: "GET", Path: "/v1/enrolment-policies/{label}", Verb: read, Stage: stage,
		Summary: "Read an enrolment policy"}, func(ctx context.Context, in *byLabel) (*api.Out[Policy], error) {
		t, _, err := tenant.Whole(ctx, tenant.EnrolRead)
		if err != nil {
			return nil, err
		}
		p, err := s.Policy(ctx, t, in.Label)
		return api.One(p), err
	})
	api.Handle(a, api.Op{ID: "set-enrolment-policy", Method: "PUT", Path: "/v1/enrolment-policies/{label}", Verb: write, Stage: stage,
		Summary: "Set an enrolment policy, as its next version"}, func(ctx context.Context, in *policyIn) (*api.Out[Policy], error) {
		t, who, err := tenant.Whole(ctx, tenant.EnrolWrite)
		if err != nil {
			return nil, err
		}
		in.Body.Label = in.Label
		p, err := s.SetPolicy(ctx, t, in.Body, who)
		return api.One(p), err
	})
	api.Handle(a, api.Op{ID: "end-enrolment-policy", Method: "POST", Path: "/v1/enrolment-policies/{label}/end", Verb: write, Stage: stage,
		Summary: "End an enrolment policy; its products enrol by the others"}, func(ctx context.Context, in *byLabel) (*api.Out[Policy], error) {
		t, who, err := tenant.Whole(ctx, tenant.EnrolWrite)
		if err != nil {
			return nil, err
		}
		p, err := s.EndPolicy(ctx, t, in.Label, who)
		return api.One(p), err
	})
	api.Handle(a, api.Op{ID: "list-enrolment-policy-versions", Method: "GET", Path: "/v1/enrolment-policies/{label}/versions", Verb: read, Stage: stage,
		Summary: "List the versions of an enrolment policy, the newest first"}, func(ctx context.Context, in *policyVersionsIn) (*api.List[Policy], error) {
		t, _, err := tenant.Whole(ctx, tenant.EnrolRead)
		if err != nil {
			return nil, err
		}
		key, err := in.After(a)
		if err != nil {
			return nil, err
		}
		before, _ := strconv.ParseInt(key, 10, 64) // ours: the token is authenticated; empty is 0, the newest
		ps, err := s.PolicyVersions(ctx, t, in.Label, before, in.Size()+1)
		if err != nil {
			return nil, err
		}
		return api.More(a, in.Paging, ps, func(p Policy) string { return strconv.FormatInt(p.Version, 10) }), nil
	})
}

func (s *Service) attestationRoutes(a *api.API) {
	read, write := string(tenant.EnrolRead), string(tenant.EnrolWrite)
	api.Handle(a, api.Op{ID: "list-tpm-makers", Method: "GET", Path: "/v1/tpm-makers", Verb: read, Stage: stage,
		Summary: "List the makers of TPMs whose endorsement certificates are believed"}, func(ctx context.Context, _ *struct{}) (*api.List[Maker], error) {
		t, _, err := tenant.Whole(ctx, tenant.EnrolRead)
		if err != nil {
			return nil, err
		}
		ms, err := s.Makers(ctx, t)
		return api.Items(ms), err
	})
	api.Handle(a, api.Op{ID: "trust-tpm-maker", Method: "POST", Path: "/v1/tpm-makers", Verb: write, Stage: stage, Status: 201,
		Summary: "Believe the endorsement certificates of a maker of TPMs"}, func(ctx context.Context, in *makerIn) (*api.Out[Maker], error) {
		t, who, err := tenant.Whole(ctx, tenant.EnrolWrite)
		if err != nil {
			return nil, err
		}
		m, err := s.TrustMaker(ctx, t, in.Body.Name, in.Body.Certificate, who)
		return api.One(m), err
	})
	api.Handle(a, api.Op{ID: "distrust-tpm-maker", Method: "POST", Path: "/v1/tpm-makers/{id}/distrust", Verb: write, Stage: stage,
		Summary: "Believe a maker of TPMs no longer; what was proven before keeps its grade"}, func(ctx context.Context, in *byID) (*api.List[Maker], error) {
		t, who, err := tenant.Whole(ctx, tenant.EnrolWrite)
		if err != nil {
			return nil, err
		}
		if err := s.DistrustMaker(ctx, t, in.ID, who); err != nil {
			return nil, err
		}
		ms, err := s.Makers(ctx, t)
		return api.Items(ms), err
	})
	device := string(tenant.DeviceRead)
	api.Handle(a, api.Op{ID: "list-attestations", Method: "GET", Path: "/v1/devices/{id}/attestations", Verb: device, Stage: stage,
		Summary: "List what was found out about a device's keys, the newest first"}, func(ctx context.Context, in *byID) (*api.List[Attestation], error) {
		d, err := s.cfg.Identity.Visible(ctx, tenant.DeviceRead, in.ID)
		if err != nil {
			return nil, err
		}
		as, err := s.Attestations(ctx, d.Tenant, d.ID)
		return api.Items(as), err
	})
	api.Handle(a, api.Op{ID: "get-device-baseline", Method: "GET", Path: "/v1/devices/{id}/baseline", Verb: device, Stage: stage,
		Summary: "Read how a device is set up, and how that stands against its product's baseline"}, func(ctx context.Context, in *byID) (*api.Out[Standing], error) {
		d, err := s.cfg.Identity.Visible(ctx, tenant.DeviceRead, in.ID)
		if err != nil {
			return nil, err
		}
		st, err := s.Standing(ctx, d.Tenant, d.ID)
		if errors.Is(err, store.ErrNoRows) {
			err = problem.NotFound("The device has not reported how it is set up.")
		}
		return api.One(st), err
	})
	api.Handle(a, api.Op{ID: "list-below-baseline", Method: "GET", Path: "/v1/below-baseline", Verb: device, Stage: stage,
		Summary: "List the devices that do not fulfil their product's baseline"}, func(ctx context.Context, in *failingIn) (*api.List[Standing], error) {
		t, _, err := tenant.Whole(ctx, tenant.DeviceRead)
		if err != nil {
			return nil, err
		}
		after, err := in.After(a)
		if err != nil {
			return nil, err
		}
		sts, err := s.failing(ctx, t, after, in.Size()+1)
		if err != nil {
			return nil, err
		}
		return api.More(a, in.Paging, sts, func(st Standing) string { return st.Device }), nil
	})
}
