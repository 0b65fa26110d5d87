// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

type seriesIn struct {
	ID     string    `path:"id" doc:"Device"`
	Fields []string  `query:"fields" maxItems:"64" doc:"Values wanted, as temp or env/temp; default all"`
	From   time.Time `query:"from" doc:"Default: an hour before to"`
	To     time.Time `query:"to" doc:"Excluded; default now"`
	Step   string    `query:"step" pattern:"^([0-9]+(ms|s|m|h|d))?$" doc:"Width of a point, as 30s, 5m or 7d, counted from from; default: the smallest that leaves at most max of them" example:"5m"`
	Wanted []string  `query:"aggregates" maxItems:"5" enum:"min,max,mean,last,count" doc:"What a point says; default all"`
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
	From   time.Time    `json:"from"`
	To     time.Time    `json:"to"`
	StepMs int64        `json:"step_ms" doc:"Width of a point in milliseconds; a point without values is left out"`
	Series []Summarised `json:"series"`
}

// Summarised is one value of one stream over time.
type Summarised struct {
	Stream string    `json:"stream"`
	Field  string    `json:"field"`
	Points []Summary `json:"points"`
}

// Summary is a Bucket with the aggregates that were asked for.
type Summary struct {
	Time  time.Time `json:"time" doc:"Time of the last value in this stretch"`
	Min   *float64  `json:"min,omitempty"`
	Max   *float64  `json:"max,omitempty"`
	Mean  *float64  `json:"mean,omitempty"`
	Last  *float64  `json:"last,omitempty"`
	Count *int      `json:"count,omitempty"`
}

// summarised leaves the aggregates that are wanted; none means all.
func summarised(series []Series, wanted []string) []Summarised {
	out := make([]Summarised, len(series))
	wants := func(name string) bool { return len(wanted) == 0 || slices.Contains(wanted, name) }
	for i, s := range series {
		out[i] = Summarised{s.Stream, s.Field, make([]Summary, len(s.Points))}
		for j := range s.Points {
			b, p := &s.Points[j], &out[i].Points[j]
			p.Time = b.Time
			if wants("min") {
				p.Min = &b.Min
			}
			if wants("max") {
				p.Max = &b.Max
			}
			if wants("mean") {
				p.Mean = &b.Mean
			}
			if wants("last") {
				p.Last = &b.Last
			}
			if wants("count") {
				p.Count = &b.Count
			}
		}
	}
	return out
}

// stepOf reads a step; "" is 0. The route has checked its form.
func stepOf(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil || n == 0 {
			return 0, problem.Invalid("step %s is out of range", s).At("query.step")
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, problem.Invalid("step %s is out of range", s).At("query.step")
	}
	return d, nil
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
			d, err := s.cfg.Identity.Visible(ctx, tenant.TelemetryRead, in.ID)
			if err != nil {
				return nil, err
			}
			q := Query{Fields: in.Fields, From: in.From, To: in.To, Max: in.Max}
			if q.Step, err = stepOf(in.Step); err != nil {
				return nil, err
			}
			if q.To.IsZero() {
				q.To = s.cfg.Clock.Now().Add(time.Millisecond)
			}
			if q.From.IsZero() {
				q.From = q.To.Add(-time.Hour)
			}
			if q, err = q.check(); err != nil {
				return nil, err
			}
			series, err := s.Series(ctx, d.Tenant, d.ID, q)
			return api.One(SeriesOut{From: q.From.UTC(), To: q.To.UTC(), StepMs: q.Step.Milliseconds(), Series: summarised(series, in.Wanted)}), err
		})
	api.Handle(a, api.Op{ID: "get-latest-telemetry", Method: "GET", Path: "/v1/devices/{id}/telemetry/latest", Verb: string(tenant.TelemetryRead), Stage: stage,
		Summary: "Read what a device said last, and what was lost"},
		func(ctx context.Context, in *deviceIn) (*api.Out[Latest], error) {
			d, err := s.cfg.Identity.Visible(ctx, tenant.TelemetryRead, in.ID)
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
			d, err := s.cfg.Identity.Visible(ctx, tenant.TelemetryRead, in.ID)
			if err != nil {
				return nil, err
			}
			events, err := s.Events(ctx, d.Tenant, d.ID, after, in.Size()+1)
			return api.More(a, in.Paging, events, func(e Event) string { return e.ID }), err
		})
}
