// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"cmp"
	"context"
	"embed"
	"net/http"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

type devicePart struct {
	Erased bool
	Latest Latest
	Charts []console.Chart
	Rows   []latestValue
}

type eventsPart struct {
	Events []Event
	More   bool // older ones
	Path   string
}

// latestValue is one line of the table that needs no script.
type latestValue struct {
	Stream, Name string
	Value        *float64
	At           time.Time
}

const (
	chartSpan   = time.Hour
	chartPoints = 240
	chartsMost  = 8
	chartLines  = 6 // of one chart
)

// eventsShown is how many events the device's page shows.
const eventsShown = 20

// Pages adds charts and latest values to the device's page, and what happened on it.
func (s *Service) Pages(c *console.Console) {
	s.dataPages(c)
	c.Tile(s.roomTile())
	s.securityPages(c)
	c.Fragment("device", console.Fragment{Order: 30, Half: true, Title: "Telemetry", Verb: string(tenant.TelemetryRead), FS: pagesFS, Template: "pages/device.html",
		Load: func(r *http.Request, device string) (any, error) {
			d, err := s.device(r.Context(), device)
			if err != nil {
				return nil, err
			}
			latest, err := s.Latest(r.Context(), d.Tenant, d.ID)
			if problem.Is(err, problem.KindNotFound) {
				return devicePart{Erased: true}, nil
			}
			if err != nil {
				return nil, err
			}
			now := s.cfg.Clock.Now()
			series, err := s.recent(r.Context(), d, now, chartSpan)
			if err == nil && young(series, now) {
				series, err = s.recent(r.Context(), d, now, youngSpan)
			}
			return devicePart{Latest: latest, Charts: charts(series), Rows: rows(latest)}, err
		}})
	c.Fragment("device", console.Fragment{Order: 55, Title: "Events", Verb: string(tenant.TelemetryRead), FS: pagesFS, Template: "pages/events.html",
		Load: func(r *http.Request, device string) (any, error) {
			d, err := s.device(r.Context(), device)
			if err != nil {
				return nil, err
			}
			events, err := s.Events(r.Context(), d.Tenant, d.ID, "", eventsShown+1)
			if problem.Is(err, problem.KindNotFound) || err == nil && len(events) == 0 {
				return nil, nil // erased, which the part above says, or nothing happened
			}
			return eventsPart{Events: events[:min(len(events), eventsShown)], More: len(events) > eventsShown, Path: "/v1/devices/" + d.ID + "/events"}, err
		}})
}

// youngSpan is drawn finer when nothing is older.
const youngSpan = 5 * time.Minute

func (s *Service) recent(ctx context.Context, d identity.Device, now time.Time, span time.Duration) ([]Series, error) {
	return s.Series(ctx, d.Tenant, d.ID, Query{From: now.Add(-span), To: now.Add(time.Millisecond), Max: chartPoints})
}

// young says that every series began within youngSpan.
func young(series []Series, now time.Time) bool {
	return !slices.ContainsFunc(series, func(s Series) bool { return len(s.Points) > 0 && s.Points[0].Time.Before(now.Add(-youngSpan)) })
}

func rows(l Latest) (out []latestValue) {
	for _, s := range l.Streams {
		for name, v := range s.Values {
			out = append(out, latestValue{s.Stream, name, &v, s.Time})
		}
	}
	slices.SortFunc(out, func(a, b latestValue) int {
		return cmp.Or(cmp.Compare(a.Stream, b.Stream), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// charts makes one chart per stream out of the means of its series.
func charts(series []Series) (out []console.Chart) {
	for len(series) > 0 && len(out) < chartsMost {
		n := 1
		for n < len(series) && series[n].Stream == series[0].Stream {
			n++
		}
		out = append(out, chart(series[:n]))
		series = series[n:]
	}
	return out
}

func chart(series []Series) console.Chart {
	c := console.Chart{ID: "telemetry-" + series[0].Stream, Title: series[0].Stream}
	series = series[:min(len(series), chartLines)]
	for _, s := range series {
		for _, p := range s.Points {
			c.Times = append(c.Times, p.Time)
		}
	}
	slices.SortFunc(c.Times, time.Time.Compare)
	c.Times = slices.CompactFunc(c.Times, time.Time.Equal)
	for _, s := range series {
		values := make([]*float64, len(c.Times))
		for _, p := range s.Points {
			i, _ := slices.BinarySearchFunc(c.Times, p.Time, time.Time.Compare)
			values[i] = &p.Mean
		}
		c.Series = append(c.Series, console.Series{Name: s.Field, Values: values})
	}
	return c
}
