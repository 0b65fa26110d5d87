// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"net/http"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

func (s *Service) securityRoutes(a *api.API) {
	api.Handle(a, api.Op{ID: "list-device-security-events", Method: "GET", Path: "/v1/devices/{id}/security-events", Verb: string(tenant.TelemetryRead), Stage: "telemetry",
		Summary: "List a device's security events, the last first",
		Doc:     "Logins, changes of settings, updates, tampering, in the order in which the device chained them. They are kept until the device is erased."},
		func(ctx context.Context, in *eventsIn) (*api.List[SecurityEvent], error) {
			after, err := in.After(a)
			if err != nil {
				return nil, err
			}
			d, err := s.cfg.Identity.Visible(ctx, tenant.TelemetryRead, in.ID)
			if err != nil {
				return nil, err
			}
			events, err := s.SecurityEvents(ctx, d.Tenant, d.ID, after, in.Size()+1)
			return api.More(a, in.Paging, events, SecurityEvent.place), err
		})
	api.Handle(a, api.Op{ID: "get-device-security-chain", Method: "GET", Path: "/v1/devices/{id}/security-chain", Verb: string(tenant.TelemetryRead), Stage: "telemetry",
		Summary: "Read whether a device's chain of security events is whole",
		Doc:     "Each event carries the SHA-256 of the one before, and from time to time the device signs how the chain stands. What is missing, altered or there in two versions is listed."},
		func(ctx context.Context, in *deviceIn) (*api.Out[Chain], error) {
			d, err := s.cfg.Identity.Visible(ctx, tenant.TelemetryRead, in.ID)
			if err != nil {
				return nil, err
			}
			c, err := s.Chain(ctx, d.Tenant, d.ID)
			return api.One(c), err
		})
}

type securityPart struct {
	Chain  Chain
	Events []SecurityEvent
	More   bool
	Path   string
}

// securityPages adds the chain of security events to the device's page.
func (s *Service) securityPages(c *console.Console) {
	c.Fragment("device", console.Fragment{Order: 56, Title: "Security events", Verb: string(tenant.TelemetryRead), FS: pagesFS, Template: "pages/security.html",
		Load: func(r *http.Request, device string) (any, error) {
			d, err := s.cfg.Identity.Visible(r.Context(), tenant.TelemetryRead, device)
			if err != nil {
				return nil, err
			}
			chain, err := s.Chain(r.Context(), d.Tenant, d.ID)
			if err != nil || chain.Head == 0 {
				return nil, err
			}
			events, err := s.SecurityEvents(r.Context(), d.Tenant, d.ID, "", eventsShown+1)
			if problem.Is(err, problem.KindNotFound) {
				return nil, nil // erased, which another part says
			}
			return securityPart{Chain: chain, Events: events[:min(len(events), eventsShown)], More: len(events) > eventsShown,
				Path: "/v1/devices/" + d.ID + "/security-events"}, err
		}})
}
