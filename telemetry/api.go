// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/tenant"
)

type seriesIn struct {
	ID     string    `path:"id" doc:"Device"`
	Fields []string  `query:"fields" maxItems:"64" doc:"Values wanted, as temp or env/temp; default all"`
	From   time.Time `query:"from" doc:"Default: an hour before to"`
	To     time.Time `query:"to" doc:"Excluded; default now"`
	Max    int       `query:"max" minimum:"0" maximum:"10000" default:"500" doc:"Most points of one series"`
}

type eventsIn struct {
	ID string `path:"id" doc:"Device"`
	api.Paging
}

type deviceIn struct {
	ID string `path:"id" doc:"Device"`
}

// SeriesOut is the answer to a question about a stretch of time.
type SeriesOut struct {
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	Series []Series  `json:"series"`
}

// Routes mounts the API.
func (s *Service) Routes(a *api.API) {
	const stage = "telemetry"
	s.catalogueRoutes(a)
	s.accessRoutes(a)
	s.promRoutes(a)
	s.securityRoutes(a)
	api.Handle(a, api.Op{ID: "get-telemetry", Method: "GET", Path: "/v1/devices/{id}/telemetry", Verb: string(tenant.TelemetryRead), Stage: stage,
		Summary: "Read a device's measurements over time", Doc: "Each point sums up a stretch of time: minimum, maximum, mean, last value and count."},
		func(ctx context.Context, in *seriesIn) (*api.Out[SeriesOut], error) {
			d, err := s.device(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			q := Query{Fields: in.Fields, From: in.From, To: in.To, Max: in.Max}
			if q.To.IsZero() {
				q.To = s.cfg.Clock.Now().Add(time.Millisecond)
			}
			if q.From.IsZero() {
				q.From = q.To.Add(-time.Hour)
			}
			series, err := s.Series(ctx, d.Tenant, d.ID, q)
			if series == nil {
				series = []Series{}
			}
			return api.One(SeriesOut{From: q.From.UTC(), To: q.To.UTC(), Series: series}), err
		})
	api.Handle(a, api.Op{ID: "get-latest-telemetry", Method: "GET", Path: "/v1/devices/{id}/telemetry/latest", Verb: string(tenant.TelemetryRead), Stage: stage,
		Summary: "Read what a device said last, and what was lost"},
		func(ctx context.Context, in *deviceIn) (*api.Out[Latest], error) {
			d, err := s.device(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			l, err := s.Latest(ctx, d.Tenant, d.ID)
			return api.One(l), err
		})
	api.Handle(a, api.Op{ID: "list-device-events", Method: "GET", Path: "/v1/devices/{id}/events", Verb: string(tenant.TelemetryRead), Stage: stage,
		Summary: "List what happened on a device, the newest first", Doc: "The order is that of receipt: a device that was offline tells later."},
		func(ctx context.Context, in *eventsIn) (*api.List[Event], error) {
			after, err := in.After(a)
			if err != nil {
				return nil, err
			}
			d, err := s.device(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			events, err := s.Events(ctx, d.Tenant, d.ID, after, in.Size()+1)
			return api.More(a, in.Paging, events, func(e Event) string { return e.ID }), err
		})
}

// device returns a device whose telemetry whoever asks may read.
func (s *Service) device(ctx context.Context, id string) (identity.Device, error) {
	d, err := s.cfg.Identity.Get(ctx, tenant.MustTenant(ctx), id)
	if err != nil {
		return d, err
	}
	return d, tenant.Require(ctx, tenant.TelemetryRead, tenant.Thing{Tenant: d.Tenant, Product: d.Product, Solution: d.Solution})
}
