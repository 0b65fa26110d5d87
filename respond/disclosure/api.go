// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"context"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/tenant"
)

// Routes registers the operations of the room.
func (s *Service) Routes(a *api.API) {
	read := string(tenant.CaseRead)
	type none struct{}
	api.Handle(a, api.Op{ID: "get-contact", Method: "GET", Path: "/v1/disclosure", Verb: read, Stage: "respond", Summary: "Where vulnerabilities are reported to the tenant"},
		func(ctx context.Context, _ *none) (*api.Out[Contact], error) {
			c, _, err := s.Contact(ctx)
			return one(c, err)
		})
	type contactIn struct{ Body Contact }
	api.Handle(a, api.Op{ID: "set-contact", Method: "PUT", Path: "/v1/disclosure", Verb: string(tenant.CaseDeclare), Stage: "respond",
		Summary: "Say where vulnerabilities are reported; it is published as security.txt"},
		func(ctx context.Context, in *contactIn) (*api.Out[Contact], error) {
			return one(in.Body, s.SetContact(ctx, in.Body))
		})
}

func one[T any](v T, err error) (*api.Out[T], error) {
	if err != nil {
		return nil, err
	}
	return api.One(v), nil
}
