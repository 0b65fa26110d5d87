// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/tenant"
)

func (s *Service) safeRoutes(a *api.API) {
	type in struct {
		ID string `path:"id" maxLength:"64" doc:"Product"`
	}
	api.Handle(a, api.Op{ID: "list-safe-versions", Method: "GET", Path: "/v1/products/{id}/safe-versions", Verb: string(tenant.VulnRead), Stage: "vuln",
		Summary: "The lowest safe security version for each hardware revision, and what keeps it from being lower",
		Doc: "A release below it is not deployed unless a person says why (rule update.floor.advised). Devices are held to it by the manufacturer's signature alone: " +
			"sign releases with at least this security version (openthings sign release --floors)."},
		func(ctx context.Context, in *in) (*api.List[SafeVersion], error) {
			t, err := s.onProduct(ctx, tenant.VulnRead, in.ID)
			if err != nil {
				return nil, err
			}
			list, err := s.SafeVersions(ctx, t, in.ID)
			if err != nil {
				return nil, err
			}
			return api.Items(list), nil
		})
}
