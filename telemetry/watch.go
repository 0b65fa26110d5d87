// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
)

// watchPrefix marks watched records on their way to their handler. No device can publish on it.
const watchPrefix = "watch/"

// Sighting is what a watched record says: measurements of one stream, or an event.
type Sighting struct {
	Tenant, Device string
	Received       time.Time
	Stream         string // of Points; empty for an event
	Points         []Point
	Event          string    // its type; empty for measurements
	At             time.Time // of the event
}

// Point is one measurement message.
type Point struct {
	T      int64 // ms since 1970 UTC
	Values map[string]float64
}

// Watch hands measurements and events that match to h as well, at least once, those of a device in the order of
// receipt: they wait for it in the table of undelivered records, so that a slow handler delays nobody. match is asked
// while the inbox is compacted and must be quick. Call it before Work.
func (s *Service) Watch(match func(tenant, device, topic string) bool, h func(context.Context, Sighting) error) {
	if s.watched != nil {
		panic("telemetry: two watchers")
	}
	s.watched = match
	s.Route(watchPrefix, func(ctx context.Context, r gateway.Record) error {
		r.Topic = strings.TrimPrefix(r.Topic, watchPrefix)
		sights, err := s.sight(ctx, r)
		if problem.Is(err, problem.KindInvalid) {
			return nil // it was counted as refused when it was compacted
		}
		for _, x := range sights {
			if err == nil {
				err = h(ctx, x)
			}
		}
		return err
	})
}

// watch puts a record on its way to the watcher if that wants it.
func (s *Service) watch(ctx context.Context, b *batch, id string, r gateway.Record) error {
	if s.watched == nil || !s.watched(r.Tenant, r.Device, r.Topic) {
		return nil
	}
	r.Topic = watchPrefix + r.Topic
	p, err := s.pend(ctx, id+".w", r)
	if err == nil {
		b.pending = append(b.pending, p)
	}
	return err
}

// sight is what a record says, as far as the product's catalogue lets it in.
func (s *Service) sight(ctx context.Context, r gateway.Record) ([]Sighting, error) {
	x := Sighting{Tenant: r.Tenant, Device: r.Device, Received: time.UnixMilli(r.At).UTC()}
	if strings.HasPrefix(r.Topic, eventPrefix) {
		h, err := parseEvent(r)
		if err != nil {
			return nil, err
		}
		x.Event, x.At = h.kind, time.UnixMilli(h.at).UTC()
		return []Sighting{x}, nil
	}
	points, err := s.understand(ctx, r)
	if err == nil {
		points, err = s.admitted(ctx, r.Tenant, r.Device, points)
	}
	if err != nil {
		return nil, err
	}
	var out []Sighting
	for _, p := range points {
		if len(out) == 0 || out[len(out)-1].Stream != p.stream {
			x.Stream, x.Points = p.stream, nil
			out = append(out, x)
		}
		values := make(map[string]float64, len(p.values))
		for _, v := range p.values {
			values[v.name] = v.v
		}
		last := &out[len(out)-1]
		last.Points = append(last.Points, Point{p.t, values})
	}
	return out, nil
}
