// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"cmp"
	"context"
	"maps"
	"math"
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
	case q.Step < 0 || q.Step > 0 && (q.Step%time.Millisecond != 0 || span/q.Step > MaxPoints):
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

func (q Query) wants(stream, field string) bool {
	return len(q.Fields) == 0 || slices.Contains(q.Fields, field) || slices.Contains(q.Fields, stream+"/"+field)
}

// stream is the one that all wanted fields name; "" when they name several, or none.
func (q Query) stream() string {
	var one string
	for i, f := range q.Fields {
		stream, _, ok := strings.Cut(f, "/")
		if !ok || i > 0 && stream != one {
			return ""
		}
		one = stream
	}
	return one
}

type sample struct {
	t int64
	v float64
}

// run is a part of a line as it came out of a chunk: ascending times, NaN where there is no value.
type run struct {
	at     []int64
	values []float64
}

// line is all runs of one field of one stream.
type line []run

// gather collects what a query asks for, per stream and field.
type gather map[[2]string]line

// add takes from a table what q asks for.
func (g gather) add(q Query, stream string, t table) {
	from, _ := slices.BinarySearch(t.at, q.From.UnixMilli())
	to, _ := slices.BinarySearch(t.at, q.To.UnixMilli())
	if from == to {
		return
	}
	for j, name := range t.names {
		if q.wants(stream, name) {
			k := [2]string{stream, name}
			g[k] = append(g[k], run{t.at[from:to], t.columns[j][from:to]})
		}
	}
}

// each calls fn with the samples of a line by time. A line is a set of (time, value): the same value at the same time is
// the same measurement, so the order of arrival never shows.
func (l line) each(fn func(sample)) {
	slices.SortStableFunc(l, func(a, b run) int { return cmp.Compare(a.at[0], b.at[0]) })
	last, n := int64(math.MinInt64), 0
	ascending := true
	for _, r := range l {
		for i, t := range r.at {
			if math.IsNaN(r.values[i]) {
				continue
			}
			ascending = ascending && t > last
			last = t
			n++
		}
	}
	if ascending { // as nearly always
		for _, r := range l {
			for i, t := range r.at {
				if v := r.values[i]; !math.IsNaN(v) {
					fn(sample{t, v})
				}
			}
		}
		return
	}
	ss := make([]sample, 0, n)
	for _, r := range l {
		for i, t := range r.at {
			if v := r.values[i]; !math.IsNaN(v) {
				ss = append(ss, sample{t, v})
			}
		}
	}
	slices.SortFunc(ss, func(a, b sample) int { return cmp.Or(cmp.Compare(a.t, b.t), cmp.Compare(a.v, b.v)) })
	for _, s := range slices.Compact(ss) {
		fn(s)
	}
}

// sorted calls each in order of stream and field.
func (g gather) sorted(each func(stream, field string, l line) error) error {
	keys := slices.SortedFunc(maps.Keys(g), func(a, b [2]string) int {
		return cmp.Or(strings.Compare(a[0], b[0]), strings.Compare(a[1], b[1]))
	})
	for _, k := range keys {
		if err := each(k[0], k[1], g[k]); err != nil {
			return err
		}
	}
	return nil
}

// series cuts what was gathered into buckets of q.Step.
func (g gather) series(q Query) []Series {
	out := make([]Series, 0, len(g))
	from, width := q.From.UnixMilli(), q.Step.Milliseconds()
	_ = g.sorted(func(stream, field string, l line) error {
		s := Series{Stream: stream, Field: field}
		var b bucket
		end := int64(math.MinInt64)
		l.each(func(x sample) {
			if x.t >= end {
				s.Points = b.appendTo(s.Points)
				b = bucket{low: x.v, high: x.v}
				end = from + ((x.t-from)/width+1)*width
			}
			b.add(x)
		})
		if s.Points = b.appendTo(s.Points); len(s.Points) > 0 {
			out = append(out, s)
		}
		return nil
	})
	return out
}

// bucket sums up samples that come by time.
type bucket struct {
	last      sample
	low, high float64
	sum       float64 // times small, so that it cannot overflow
	n         int
}

const small = 1.0 / (1 << 40)

func (b *bucket) add(x sample) {
	b.low, b.high = min(b.low, x.v), max(b.high, x.v)
	b.sum += x.v * small
	b.last = x
	b.n++
}

func (b *bucket) appendTo(points []Bucket) []Bucket {
	if b.n == 0 {
		return points
	}
	mean := min(max(b.sum/float64(b.n)/small, b.low), b.high)
	return append(points, Bucket{Time: time.UnixMilli(b.last.t).UTC(), Min: b.low, Max: b.high, Mean: mean, Last: b.last.v, Count: b.n})
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
	return g.sorted(func(stream, field string, l line) error {
		var err error
		l.each(func(x sample) {
			if err == nil {
				err = each(stream, field, time.UnixMilli(x.t).UTC(), x.v)
			}
		})
		return err
	})
}

// gather reads what q asks for out of chunks and inbox; nil when the device has not said anything yet.
func (s *Service) gather(ctx context.Context, tenant, device string, q Query) (gather, error) {
	snap, err := s.read(ctx, tenant, device, q.stream(), q.From.UnixMilli(), q.To.UnixMilli())
	if err != nil {
		return nil, err
	}
	key, err := s.readKey(ctx, tenant, device)
	if err != nil || key == nil {
		return nil, err
	}
	g := gather{}
	for _, c := range snap.chunks {
		t, err := s.openTable(key, c, func(name string) bool { return q.wants(c.stream, name) })
		if err != nil {
			return nil, err
		}
		g.add(q, c.stream, t)
	}
	fresh, _, err := snap.fresh()
	if err == nil {
		fresh, err = s.admitted(ctx, tenant, device, fresh)
	}
	for stream, points := range byStream(fresh) {
		g.add(q, stream, tableOf(points))
	}
	return g, err
}
