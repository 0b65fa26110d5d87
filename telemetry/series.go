// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// Query asks for series of one device in [From, To).
type Query struct {
	// Fields names the values wanted, as "temp" or "env/temp"; none means all.
	Fields   []string
	From, To time.Time
	// Step is the width of a bucket; the first begins at From. 0 means the smallest that leaves at most Max of them.
	Step time.Duration
	// Max is the most buckets per series where Step is not given; 0 means DefaultPoints.
	Max int
}

// Points per series that a query gets unless it says otherwise, and at most.
const (
	DefaultPoints = 500
	MaxPoints     = 10_000
)

// check fills in what was not said and refuses what cannot be answered.
func (q Query) check() (Query, error) {
	switch span := q.To.Sub(q.From); {
	case q.Max < 0 || q.Max > MaxPoints:
		return q, problem.Invalid("max must be 1 to %d", MaxPoints).At("query.max")
	case span <= 0:
		return q, problem.Invalid("from must be before to").At("query.from")
	case q.Step < 0 || q.Step > 0 && (q.Step%time.Millisecond != 0 || span/q.Step >= MaxPoints):
		return q, problem.Invalid("step must be whole milliseconds, and from to to at most %d of them", MaxPoints).At("query.step")
	case q.Step == 0:
		n := time.Duration(cmp.Or(q.Max, DefaultPoints))
		ms := (q.To.UnixMilli() - q.From.UnixMilli() + int64(n) - 1) / int64(n)
		q.Step = time.Duration(max(1, ms)) * time.Millisecond
	}
	return q, nil
}

// Series is one value of one stream over time.
type Series struct {
	Stream string   `json:"stream"`
	Field  string   `json:"field"`
	Points []Bucket `json:"points"`
}

// Bucket sums up the values of one stretch of time.
type Bucket struct {
	Time  time.Time `json:"time" doc:"Time of the last value in this bucket"`
	Min   float64   `json:"min"`
	Max   float64   `json:"max"`
	Mean  float64   `json:"mean"`
	Last  float64   `json:"last"`
	Count int       `json:"count"`
}

type sample struct {
	t int64
	v float64
}

// gather collects samples per stream and field.
type gather map[[2]string][]sample

func (q Query) wants(stream, field string) bool {
	return len(q.Fields) == 0 || slices.Contains(q.Fields, field) || slices.Contains(q.Fields, stream+"/"+field)
}

func (g gather) add(q Query, stream string, p point) {
	if p.t < q.From.UnixMilli() || p.t >= q.To.UnixMilli() {
		return
	}
	for _, v := range p.values {
		if q.wants(stream, v.name) {
			k := [2]string{stream, v.name}
			g[k] = append(g[k], sample{p.t, v.v})
		}
	}
}

// sorted puts what was gathered in order of stream, field and time. A series is a set of (time, value): the same value
// at the same time is the same measurement, so the order of arrival never shows.
func (g gather) sorted(each func(stream, field string, ss []sample) error) error {
	keys := slices.SortedFunc(maps.Keys(g), func(a, b [2]string) int {
		return cmp.Or(strings.Compare(a[0], b[0]), strings.Compare(a[1], b[1]))
	})
	for _, k := range keys {
		ss := g[k]
		slices.SortFunc(ss, func(a, b sample) int { return cmp.Or(cmp.Compare(a.t, b.t), cmp.Compare(a.v, b.v)) })
		if err := each(k[0], k[1], slices.Compact(ss)); err != nil {
			return err
		}
	}
	return nil
}

// series cuts what was gathered into buckets of q.Step.
func (g gather) series(q Query) []Series {
	out := make([]Series, 0, len(g))
	from, width := q.From.UnixMilli(), q.Step.Milliseconds()
	_ = g.sorted(func(stream, field string, ss []sample) error {
		s := Series{Stream: stream, Field: field}
		for len(ss) > 0 {
			end := from + ((ss[0].t-from)/width+1)*width
			n := 1
			for n < len(ss) && ss[n].t < end {
				n++
			}
			s.Points = append(s.Points, bucket(ss[:n]))
			ss = ss[n:]
		}
		out = append(out, s)
		return nil
	})
	return out
}

func bucket(ss []sample) Bucket {
	last := ss[len(ss)-1]
	b := Bucket{Time: time.UnixMilli(last.t).UTC(), Min: ss[0].v, Max: ss[0].v, Last: last.v, Count: len(ss)}
	for i, s := range ss {
		b.Min, b.Max = min(b.Min, s.v), max(b.Max, s.v)
		b.Mean += s.v/float64(i+1) - b.Mean/float64(i+1) // a running mean: a sum could overflow
	}
	return b
}

// Series returns the device's series in [q.From, q.To) in buckets of q.Step, sorted by stream and field; a bucket
// without values is left out. A device whose data was erased has none: kind not-found.
func (s *Service) Series(ctx context.Context, tenant, device string, q Query) ([]Series, error) {
	q, err := q.check()
	if err != nil {
		return nil, err
	}
	g, err := s.gather(ctx, tenant, device, q)
	if err != nil || g == nil {
		return nil, err
	}
	return g.series(q), nil
}

// Samples calls each with every measurement in [q.From, q.To) by itself, sorted by stream, field and time; q.Step and
// q.Max are not looked at. It holds them all in memory: whoever exports years asks for one stretch after the other.
func (s *Service) Samples(ctx context.Context, tenant, device string, q Query, each func(stream, field string, at time.Time, v float64) error) error {
	g, err := s.gather(ctx, tenant, device, q)
	if err != nil {
		return err
	}
	return g.sorted(func(stream, field string, ss []sample) error {
		for _, x := range ss {
			if err := each(stream, field, time.UnixMilli(x.t).UTC(), x.v); err != nil {
				return err
			}
		}
		return nil
	})
}

// gather reads what q asks for out of chunks and inbox; nil when the device has not said anything yet.
func (s *Service) gather(ctx context.Context, tenant, device string, q Query) (gather, error) {
	snap, err := s.read(ctx, tenant, device, q.From.UnixMilli(), q.To.UnixMilli())
	if err != nil {
		return nil, err
	}
	key, err := s.readKey(ctx, tenant, device)
	if err != nil || key == nil {
		return nil, err
	}
	g := gather{}
	for _, c := range snap.chunks {
		points, err := s.openChunk(key, c)
		if err != nil {
			return nil, err
		}
		for _, p := range points {
			g.add(q, c.stream, p)
		}
	}
	fresh, _, err := snap.fresh()
	if err == nil {
		fresh, err = s.admitted(ctx, tenant, device, fresh)
	}
	for _, p := range fresh {
		g.add(q, p.stream, p.point)
	}
	return g, err
}
