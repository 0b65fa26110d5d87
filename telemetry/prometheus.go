// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

// Bounds of what one query may cost.
const (
	promLookback = 5 * time.Minute // how old the last value may be at an instant, as Prometheus has it
	promSteps    = 11_000
	promDevices  = 1_000     // devices read by one query
	promScanned  = 100_000   // devices looked at to find them
	promSamples  = 5_000_000 // samples read by one query
)

// A measurement is a metric named by its stream and field, with these labels.
var promLabels = []string{"__name__", "device", "field", "product", "serial", "solution", "stream"}

// metricName makes a name that Prometheus takes: letters, digits and _.
func metricName(stream, field string) string {
	name := strings.Map(func(r rune) rune {
		if r == '.' || r == '-' {
			return '_'
		}
		return r
	}, stream+"_"+field)
	if name[0] >= '0' && name[0] <= '9' {
		name = "_" + name
	}
	return name
}

// promQuery is one query under way.
type promQuery struct {
	s        *Service
	times    []int64 // ms, the instants to answer for
	samples  int
	products map[string]string // models by id
}

// promRow is a series: one value per instant, NaN where there is none.
type promRow struct {
	labels map[string]string
	values []float64
}

// promResult is a scalar (one row without labels) or a vector.
type promResult struct {
	scalar bool
	rows   []promRow
}

func (q *promQuery) eval(ctx context.Context, e promExpr) (promResult, error) {
	switch {
	case e.number != nil:
		return promResult{true, []promRow{{values: slices.Repeat([]float64{*e.number}, len(q.times))}}}, nil
	case e.function != "":
		return q.over(ctx, *e.args[0].selector, promFunctions[e.function], e.function == "last_over_time") // a value as it was measured
	case e.ranged():
		return promResult{}, promFail("a range vector needs a function, such as avg_over_time(…)")
	case e.selector != nil:
		at := *e.selector
		at.span = promLookback
		return q.over(ctx, at, promFunctions["last_over_time"], true)
	case e.group != nil:
		of, err := q.eval(ctx, e.args[0])
		if err != nil {
			return of, err
		}
		return promResult{rows: aggregate(of.rows, e.group, len(q.times))}, nil
	}
	left, err := q.eval(ctx, e.args[0])
	if err != nil {
		return left, err
	}
	right, err := q.eval(ctx, e.args[1])
	if err != nil {
		return right, err
	}
	return arithmetic(e.operator, left, right), nil
}

// arithmetic applies an operator to numbers, or to each series and a number; the name is gone then.
func arithmetic(op byte, left, right promResult) promResult {
	apply := func(a, b float64) float64 {
		switch op {
		case '+':
			return a + b
		case '-':
			return a - b
		case '*':
			return a * b
		}
		return a / b
	}
	vector, number, first := left, right, true
	if left.scalar && !right.scalar {
		vector, number, first = right, left, false
	}
	for i := range vector.rows {
		row := &vector.rows[i]
		delete(row.labels, "__name__")
		for j, v := range row.values {
			if n := number.rows[0].values[j]; first {
				row.values[j] = apply(v, n)
			} else {
				row.values[j] = apply(n, v)
			}
		}
	}
	return vector
}

func aggregate(rows []promRow, g *promSum, steps int) []promRow {
	type sum struct {
		promRow
		n []float64
	}
	sums := map[string]*sum{}
	var keys []string
	for _, r := range rows {
		kept := map[string]string{}
		key := ""
		for _, l := range g.by {
			if v := r.labels[l]; v != "" {
				kept[l] = v
			}
			key += r.labels[l] + "\x00"
		}
		s := sums[key]
		if s == nil {
			s = &sum{promRow{kept, slices.Repeat([]float64{math.NaN()}, steps)}, make([]float64, steps)}
			sums[key] = s
			keys = append(keys, key)
		}
		for i, v := range r.values {
			if math.IsNaN(v) {
				continue
			}
			if s.n[i]++; s.n[i] == 1 {
				s.values[i] = v
				if g.name == "count" {
					s.values[i] = 1
				}
				continue
			}
			s.values[i] = promAggregations[g.name](s.values[i], v)
		}
	}
	slices.Sort(keys)
	out := make([]promRow, len(keys))
	for i, k := range keys {
		s := sums[k]
		if g.name == "avg" {
			for j, n := range s.n {
				s.values[j] /= n // NaN where nothing was
			}
		}
		out[i] = s.promRow
	}
	return out
}

// over answers a selector: at each instant fn of what was measured in the span before it.
func (q *promQuery) over(ctx context.Context, sel promSelector, fn func([]sample) float64, named bool) (promResult, error) {
	devices, err := q.devices(ctx, sel.matchers)
	if err != nil {
		return promResult{}, err
	}
	offset, span := sel.offset.Milliseconds(), sel.span.Milliseconds()
	from, to := q.times[0]-offset-span, q.times[len(q.times)-1]-offset
	out := promResult{}
	for _, d := range devices {
		found := map[[2]string][]sample{}
		skip := map[[2]string]bool{}
		err := q.s.Samples(ctx, d.Tenant, d.ID, Query{From: time.UnixMilli(from + 1), To: time.UnixMilli(to + 1)}, func(stream, field string, at time.Time, v float64) error {
			k := [2]string{stream, field}
			if _, known := found[k]; !known && !skip[k] {
				skip[k] = !q.wants(sel.matchers, q.labels(d, stream, field))
			}
			if skip[k] {
				return nil
			}
			if q.samples++; q.samples > promSamples {
				return promFail("the query reads more than %d samples; ask for less time or fewer devices", promSamples)
			}
			found[k] = append(found[k], sample{at.UnixMilli(), v})
			return nil
		})
		if problem.Is(err, problem.KindNotFound) { // erased meanwhile
			continue
		}
		if err != nil {
			return out, err
		}
		for k, ss := range found {
			row := promRow{labels: q.labels(d, k[0], k[1])}
			if !named {
				delete(row.labels, "__name__")
			}
			row.values = windows(ss, q.times, offset, span, fn)
			out.rows = append(out.rows, row)
		}
	}
	slices.SortFunc(out.rows, func(a, b promRow) int { return strings.Compare(labelText(a.labels), labelText(b.labels)) })
	return out, nil
}

// windows applies fn to the samples in (t-offset-span, t-offset] for each instant t.
func windows(ss []sample, times []int64, offset, span int64, fn func([]sample) float64) []float64 {
	out := make([]float64, len(times))
	lo, hi := 0, 0
	for i, t := range times {
		for hi < len(ss) && ss[hi].t <= t-offset {
			hi++
		}
		for lo < hi && ss[lo].t <= t-offset-span {
			lo++
		}
		if out[i] = math.NaN(); lo < hi {
			out[i] = fn(ss[lo:hi])
		}
	}
	return out
}

func labelText(labels map[string]string) string {
	var b strings.Builder
	for _, l := range promLabels {
		b.WriteString(labels[l])
		b.WriteByte(0)
	}
	return b.String()
}

// labels are those of one measurement of a device.
func (q *promQuery) labels(d identity.Device, stream, field string) map[string]string {
	return map[string]string{"__name__": metricName(stream, field), "device": d.ID, "field": field, "product": q.products[d.Product], "serial": d.Serial, "solution": d.Solution, "stream": stream}
}

func (q *promQuery) wants(matchers []promMatcher, labels map[string]string) bool {
	return !slices.ContainsFunc(matchers, func(m promMatcher) bool { return !m.matches(labels[m.label]) })
}

// devices returns those that the matchers can mean, within the reach of whoever asks.
func (q *promQuery) devices(ctx context.Context, matchers []promMatcher) (out []identity.Device, err error) {
	if q.products == nil {
		if q.products, err = q.s.models(ctx); err != nil {
			return nil, err
		}
	}
	f := identity.Filter{Limit: 1000}
	var own []promMatcher // those that a device alone can answer
	for _, m := range matchers {
		switch m.label {
		case "device":
			if m.op == "=" {
				f.IDs = []string{m.value}
			}
		case "solution":
			if m.op == "=" {
				f.Solution = m.value
			}
		case "product", "serial":
		default:
			continue
		}
		own = append(own, m)
	}
	for scanned := 0; ; {
		page, err := q.s.readable(ctx, f)
		if err != nil {
			return nil, err
		}
		for _, d := range page {
			f.After = d.ID
			if q.wants(own, map[string]string{"device": d.ID, "product": q.products[d.Product], "serial": d.Serial, "solution": d.Solution}) {
				out = append(out, d)
			}
		}
		if len(out) > promDevices {
			return nil, promFail("the selector reaches more than %d devices; narrow it by device, serial, product or solution", promDevices)
		}
		if scanned += len(page); len(page) < f.Limit {
			return out, nil
		}
		if scanned >= promScanned {
			return nil, promFail("the selector looks at more than %d devices; narrow it by device or solution", promScanned)
		}
	}
}

// models are the products of the tenant by id, as machines call them.
func (s *Service) models(ctx context.Context) (map[string]string, error) {
	ps, err := s.cfg.Product.List(ctx, tenant.MustTenant(ctx))
	out := map[string]string{}
	for _, p := range ps {
		out[p.ID] = p.Model
	}
	return out, err
}

// series lists what the matchers mean, by what each device said last.
func (q *promQuery) series(ctx context.Context, matchers []promMatcher) (out []map[string]string, err error) {
	devices, err := q.devices(ctx, matchers)
	if err != nil {
		return nil, err
	}
	for _, d := range devices {
		latest, err := q.s.Latest(ctx, d.Tenant, d.ID)
		if problem.Is(err, problem.KindNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, l := range latest.Streams {
			for field := range l.Values {
				if labels := q.labels(d, l.Stream, field); q.wants(matchers, labels) {
					out = append(out, labels)
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b map[string]string) int { return strings.Compare(labelText(a), labelText(b)) })
	return out, nil
}
