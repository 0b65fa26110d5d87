// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"strconv"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/tenant"
)

// BundleProgress is a trust bundle with its acknowledgements.
type BundleProgress struct {
	BundleOut
	Progress Progress `json:"progress" doc:"Among the tenant's devices"`
}

type byVersion struct {
	Version int64 `path:"version" minimum:"1" doc:"Version of the trust bundle"`
	api.Paging
}

// trustRoutes mounts what a tenant may read of the platform's authorities. Changing them is for the host's administrator.
func (s *Service) trustRoutes(a *api.API) {
	const stage = "identity"
	api.Handle(a, api.Op{ID: "list-authorities", Method: "GET", Path: "/v1/authorities", Verb: string(tenant.IssuerRead), Stage: stage,
		Summary: "List the certificate authorities of the platform"}, func(ctx context.Context, _ *struct{}) (*api.List[AuthorityOut], error) {
		if err := tenant.Require(ctx, tenant.IssuerRead, tenant.Thing{Tenant: tenant.MustTenant(ctx)}); err != nil {
			return nil, err
		}
		all, err := s.AuthoritiesOut(ctx)
		return api.Items(all), err
	})
	api.Handle(a, api.Op{ID: "list-trust-bundles", Method: "GET", Path: "/v1/trust-bundles", Verb: string(tenant.IssuerRead), Stage: stage,
		Summary: "List the trust bundles, the newest first, and how many of the tenant's devices acknowledged each"}, func(ctx context.Context, in *struct{ api.Paging }) (*api.List[BundleProgress], error) {
		t := tenant.MustTenant(ctx)
		if err := tenant.Require(ctx, tenant.IssuerRead, tenant.Thing{Tenant: t}); err != nil {
			return nil, err
		}
		after, err := in.After(a)
		if err != nil {
			return nil, err
		}
		before, _ := strconv.ParseInt(after, 10, 64) // what we made ourselves; empty is the beginning
		list, err := s.Bundles(ctx, before, in.Size()+1)
		if err != nil {
			return nil, err
		}
		c, err := s.bundleCensus(ctx, t)
		if err != nil {
			return nil, err
		}
		out := make([]BundleProgress, len(list))
		for i, b := range list {
			out[i] = BundleProgress{b, c.progress(b.Version)}
		}
		return api.More(a, in.Paging, out, func(b BundleProgress) string { return strconv.FormatInt(b.Version, 10) }), nil
	})
	api.Handle(a, api.Op{ID: "list-lagging-devices", Method: "GET", Path: "/v1/trust-bundles/{version}/lagging", Verb: string(tenant.IssuerRead), Stage: stage,
		Summary: "List commissioned devices that have not acknowledged a trust bundle"}, func(ctx context.Context, in *byVersion) (*api.List[Ack], error) {
		t := tenant.MustTenant(ctx)
		if err := tenant.Require(ctx, tenant.IssuerRead, tenant.Thing{Tenant: t}); err != nil {
			return nil, err
		}
		if _, _, err := s.Bundle(ctx, in.Version); err != nil {
			return nil, err
		}
		after, err := in.After(a)
		if err != nil {
			return nil, err
		}
		list, err := s.Lagging(ctx, t, in.Version, after, in.Size()+1)
		return api.More(a, in.Paging, list, func(x Ack) string { return x.Device }), err
	})
}
