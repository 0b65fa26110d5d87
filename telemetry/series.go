// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Query asks for series of one device in [From, To).
type Query struct {
	// Fields names the values wanted, as "temp" or "env/temp"; none means all.
	Fields   []string
	From, To time.Time
	// Max is the most buckets per series; 0 means DefaultPoints.
	Max int
}

// Points per series that a query gets unless it says otherwise, and at most.
const (
	DefaultPoints = 500
	MaxPoints     = 10_000
)

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

// series sorts what was gathered and cuts it into at most q.Max buckets. A series is a set of (time, value): the same
// value at the same time is the same measurement, so the order of arrival never shows.
func (g gather) series(q Query) []Series {
	out := make([]Series, 0, len(g))
	from := q.From.UnixMilli()
	width := max(1, (q.To.UnixMilli()-from+int64(q.Max)-1)/int64(q.Max))
	for k, ss := range g {
		slices.SortFunc(ss, func(a, b sample) int { return cmp.Or(cmp.Compare(a.t, b.t), cmp.Compare(a.v, b.v)) })
		ss = slices.Compact(ss)
		s := Series{Stream: k[0], Field: k[1]}
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
	}
	slices.SortFunc(out, func(a, b Series) int {
		return cmp.Or(strings.Compare(a.Stream, b.Stream), strings.Compare(a.Field, b.Field))
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
