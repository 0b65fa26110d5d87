// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

// What the page of a device's telemetry shows unless it is asked otherwise.
const (
	chartBuckets = 300 // about; steps are round
	chartsShown  = 4
	chartsMost   = 12 // that a view may ask for
	sparkBuckets = 60
	sparksMost   = 12 // values on the device's own page
)

type stretch struct {
	Name string
	Span time.Duration
}

// ranges are the stretches of time that one click chooses.
var ranges = []stretch{{"5m", 5 * time.Minute}, {"1h", time.Hour}, {"6h", 6 * time.Hour}, {"24h", 24 * time.Hour}, {"7d", 7 * 24 * time.Hour}, {"30d", 30 * 24 * time.Hour}, {"1y", 365 * 24 * time.Hour}}

// steps are the widths of buckets that a reader can name.
var steps = []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second,
	15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour}

// RoundStep is the smallest width that a reader can name which cuts a span into at most n buckets; beyond days it is whole days.
func RoundStep(span time.Duration, n int) time.Duration {
	least := (span + time.Duration(n) - 1) / time.Duration(n)
	if i, _ := slices.BinarySearch(steps, least); i < len(steps) {
		return steps[i]
	}
	const day = 24 * time.Hour
	return (least + day - 1) / day * day
}

// view is what the page was asked to show. Its times are whole steps, so that what is asked again falls into the same buckets.
type view struct {
	path     string
	span     string // one of ranges, up to now; empty when from and to were given
	from, to time.Time
	step     time.Duration
	fields   []string
}

// viewOf reads a view from a request's address.
func viewOf(r *http.Request, path string, now time.Time) (view, error) {
	q := r.URL.Query()
	v := view{path: path, fields: q["field"], span: cmp.Or(q.Get("range"), "1h"), to: now}
	if len(v.fields) > chartsMost {
		return v, problem.Invalid("Choose at most %d values.", chartsMost).At("field")
	}
	if q.Get("from") != "" || q.Get("to") != "" {
		v.span = ""
		var err error
		if v.from, err = moment(q.Get("from")); err != nil {
			return v, problem.Invalid("This is not a time: %s", cut(q.Get("from"))).At("from")
		}
		if v.to, err = moment(cmp.Or(q.Get("to"), now.UTC().Format(time.RFC3339))); err != nil {
			return v, problem.Invalid("This is not a time: %s", cut(q.Get("to"))).At("to")
		}
	} else {
		i := slices.IndexFunc(ranges, func(r stretch) bool { return r.Name == v.span })
		if i < 0 {
			return v, problem.Invalid("There is no range %s.", cut(v.span)).At("range")
		}
		v.from = now.Add(-ranges[i].Span)
	}
	if v.to.Sub(v.from) < time.Second {
		return v, problem.Invalid("The end must be at least a second after the beginning.").At("to")
	}
	v.step = RoundStep(v.to.Sub(v.from), chartBuckets)
	v.from, v.to = v.from.Truncate(v.step).UTC(), v.to.Add(v.step-1).Truncate(v.step).UTC()
	return v, nil
}

// moment reads a time as addresses and date fields write it, in UTC.
func moment(s string) (t time.Time, err error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err = time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return t, err
}

// href is the address of the same values over another stretch; a span up to now, or else from and to.
func (v view) href(span string, from, to time.Time) string {
	q := url.Values{"field": v.fields}
	if span != "" {
		q.Set("range", span)
	} else {
		q.Set("from", from.UTC().Format(time.RFC3339Nano))
		q.Set("to", to.UTC().Format(time.RFC3339Nano))
	}
	return v.path + "?" + q.Encode()
}

// hop is a choice among several.
type hop struct {
	Name, Href, Key string
	Here            bool
}

// spanLinks choose how far back.
func (v view) spanLinks() (out []hop) {
	for _, s := range ranges {
		out = append(out, hop{Name: s.Name, Href: v.href(s.Name, v.from, v.to), Here: s.Name == v.span})
	}
	return out
}

// moves go through time from where the view stands.
func (v view) moves(now time.Time) (out []hop) {
	width := v.to.Sub(v.from)
	out = append(out, hop{Name: "Earlier", Key: "ArrowLeft", Href: v.href("", v.from.Add(-width/2), v.to.Add(-width/2))})
	if v.to.Before(now) {
		out = append(out, hop{Name: "Later", Key: "ArrowRight", Href: v.href("", v.from.Add(width/2), v.to.Add(width/2))})
	}
	if width >= 4*time.Second {
		out = append(out, hop{Name: "Closer", Key: "+", Href: v.href("", v.from.Add(width/4), v.to.Add(-width/4))})
	}
	if width < 20*365*24*time.Hour {
		out = append(out, hop{Name: "Wider", Key: "-", Href: v.href("", v.from.Add(-width/2), v.to.Add(width/2))})
	}
	return out
}

// chart is one value over time: mean, and the band from minimum to maximum.
type chart struct {
	Stream, Field, Unit string
	Step                time.Duration
	Points              []Bucket
	from, to            time.Time
}

// ID is unique on a page.
func (c chart) ID() string { return "telemetry-" + c.Stream + "-" + c.Field }

// Last is the newest bucket.
func (c chart) Last() Bucket { return c.Points[len(c.Points)-1] }

// Low and High are the extremes of what is shown, and Count how many measurements that is.
func (c chart) Low() (low float64) {
	return slices.MinFunc(c.Points, func(a, b Bucket) int { return cmp.Compare(a.Min, b.Min) }).Min
}

func (c chart) High() (high float64) {
	return slices.MaxFunc(c.Points, func(a, b Bucket) int { return cmp.Compare(a.Max, b.Max) }).Max
}

func (c chart) Count() (n int) {
	for _, p := range c.Points {
		n += p.Count
	}
	return n
}

// Rows are the newest buckets first, for the table.
func (c chart) Rows() []Bucket {
	rows := slices.Clone(c.Points[max(0, len(c.Points)-24):])
	slices.Reverse(rows)
	return rows
}

// gap is the distance between two points from which nothing is drawn between them: silence, not a straight line.
func (c chart) gap() time.Duration {
	var ds []time.Duration
	for i := 1; i < len(c.Points); i++ {
		ds = append(ds, c.Points[i].Time.Sub(c.Points[i-1].Time))
	}
	if len(ds) == 0 {
		return math.MaxInt64
	}
	slices.Sort(ds)
	return 5 * max(c.Step, ds[len(ds)/2])
}

// parts cuts the points where the device was silent.
func (c chart) parts() (out [][]Bucket) {
	gap, from := c.gap(), 0
	for i := 1; i <= len(c.Points); i++ {
		if i == len(c.Points) || c.Points[i].Time.Sub(c.Points[i-1].Time) > gap {
			out = append(out, c.Points[from:i])
			from = i
		}
	}
	return out
}

// Data is the chart for charts.js: seconds since 1970, means, minima and maxima with null between what silence parts.
func (c chart) Data() map[string]any {
	var at []float64
	var mean, low, high []*float64
	for i, part := range c.parts() {
		if i > 0 {
			at = append(at, float64(part[0].Time.UnixMilli()-1)/1000)
			mean, low, high = append(mean, nil), append(low, nil), append(high, nil)
		}
		for _, p := range part {
			at = append(at, float64(p.Time.UnixMilli())/1000)
			mean, low, high = append(mean, &p.Mean), append(low, &p.Min), append(high, &p.Max)
		}
	}
	return map[string]any{"unit": c.Unit, "names": []string{c.Field}, "axes": []int{0}, "data": []any{at, mean}, "low": low, "high": high,
		"from": float64(c.from.UnixMilli()) / 1000, "to": float64(c.to.UnixMilli()) / 1000}
}

// The size of the drawing that needs no script, in its own units.
const svgWidth, svgHeight = 600, 120

// SVG is the drawing without scripts: the outline of the band and the line of the means.
func (c chart) SVG() (d struct{ Band, Line string }) {
	low, high := c.Low(), c.High()
	span := c.to.Sub(c.from).Seconds()
	x := func(t time.Time) float64 { return t.Sub(c.from).Seconds() / span * svgWidth }
	y := func(v float64) float64 {
		if high == low {
			return svgHeight / 2
		}
		return svgHeight - 4 - (v-low)/(high-low)*(svgHeight-8)
	}
	var band, line strings.Builder
	for _, part := range c.parts() {
		if len(part) == 1 { // a lone point is a short stroke
			fmt.Fprintf(&line, "M%.1f %.1fh2", x(part[0].Time)-1, y(part[0].Mean))
			continue
		}
		letter := 'M'
		for _, p := range part {
			fmt.Fprintf(&line, "%c%.1f %.1f", letter, x(p.Time), y(p.Mean))
			fmt.Fprintf(&band, "%c%.1f %.1f", letter, x(p.Time), y(p.Max))
			letter = 'L'
		}
		for _, p := range slices.Backward(part) {
			fmt.Fprintf(&band, "L%.1f %.1f", x(p.Time), y(p.Min))
		}
		band.WriteByte('Z')
	}
	d.Band, d.Line = band.String(), line.String()
	return d
}

// latestValue is one line of the table of latest values, with its hour drawn small.
type latestValue struct {
	Stream, Name, Unit string
	Value              *float64
	At                 time.Time
	Hour               *chart // nil: silent
	Href               string // of its chart
}

type devicePart struct {
	Erased     bool
	Latest     Latest
	Rows       []latestValue
	More       int // values that only the page of charts shows
	Path, Live string
}

type chartPage struct {
	devicePart
	Device identity.Device
	Begin  time.Time
	End    time.Time
	Step   time.Duration
	Spans  []hop
	Moves  []hop
	Picks  []pick
	Charts []chart
	Self   string // the address of this view
	Now    bool   // it ends now, and moves on with it
	From   string // as a date field takes it
	To     string
}

// pick is a value that can be shown.
type pick struct {
	Stream, Name string
	Shown        bool
}

// Heading is the page's title.
func (p chartPage) Heading() string { return "Telemetry of " + p.Device.Serial }

// chartPages mounts what a device measures: the part of its own page, and the page of charts with its live beat.
func (s *Service) chartPages(c *console.Console) {
	verb := string(tenant.TelemetryRead)
	c.Fragment("device", console.Fragment{Order: 30, Half: true, Title: "Telemetry", Verb: verb, FS: pagesFS, Template: "pages/device.html",
		Load: func(r *http.Request, device string) (any, error) {
			d, err := s.cfg.Identity.Visible(r.Context(), tenant.TelemetryRead, device)
			if err != nil {
				return nil, err
			}
			return s.part(r.Context(), d, sparksMost)
		}})
	c.Page(console.Page{Path: "/devices/{id}/telemetry", Title: "Telemetry", Menu: "Fleet", Verb: verb, FS: pagesFS, Template: "pages/telemetry.html", Load: s.loadCharts})
	c.Live("/devices/{id}/telemetry/live", verb, s.live)
}

// part is the latest values of a device, at most so many.
func (s *Service) part(ctx context.Context, d identity.Device, most int) (devicePart, error) {
	p := devicePart{Path: "/devices/" + d.ID + "/telemetry"}
	p.Live = p.Path + "/live"
	var err error
	if p.Latest, err = s.Latest(ctx, d.Tenant, d.ID); problem.Is(err, problem.KindNotFound) {
		return devicePart{Erased: true}, nil
	}
	if err != nil {
		return p, err
	}
	p.Rows = rows(p.Latest)
	p.More = max(0, len(p.Rows)-most)
	p.Rows = p.Rows[:len(p.Rows)-p.More]
	now := s.cfg.Clock.Now()
	v := view{from: now.Add(-time.Hour), to: now.Add(time.Millisecond), step: time.Hour / sparkBuckets}
	for i, x := range p.Rows {
		name := x.Stream + "/" + x.Name
		v.fields = append(v.fields, name)
		p.Rows[i].Href = p.Path + "?" + url.Values{"field": {name}}.Encode()
	}
	hours, err := s.chartsOf(ctx, d, v)
	for i := range p.Rows {
		x := &p.Rows[i]
		if j := slices.IndexFunc(hours, func(c chart) bool { return c.Stream == x.Stream && c.Field == x.Name }); j >= 0 {
			x.Hour, x.Unit = &hours[j], hours[j].Unit
			x.Hour.from = x.Hour.Points[0].Time.Add(-v.step) // one that began to speak lately fills the drawing too
		}
	}
	return p, err
}

func rows(l Latest) (out []latestValue) {
	for _, s := range l.Streams {
		for name, v := range s.Values {
			out = append(out, latestValue{Stream: s.Stream, Name: name, Value: &v, At: s.Time})
		}
	}
	slices.SortFunc(out, func(a, b latestValue) int {
		return cmp.Or(cmp.Compare(a.Stream, b.Stream), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// loadCharts reads the page of charts: what the address asks for, or the first values over the last hour.
func (s *Service) loadCharts(r *http.Request) (any, error) {
	ctx, now := r.Context(), s.cfg.Clock.Now()
	d, err := s.cfg.Identity.Visible(ctx, tenant.TelemetryRead, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	p := chartPage{Device: d}
	if p.devicePart, err = s.part(ctx, d, maxValues); err != nil || p.Erased {
		return p, err
	}
	v, err := viewOf(r, p.Path, now)
	if err != nil {
		return nil, err
	}
	chosen := v.fields
	for _, x := range p.Rows {
		name := x.Stream + "/" + x.Name
		if len(chosen) == 0 && len(v.fields) < chartsShown {
			v.fields = append(v.fields, name)
		}
		p.Picks = append(p.Picks, pick{x.Stream, x.Name, slices.Contains(v.fields, name)})
	}
	p.Begin, p.End, p.Step, p.Now = v.from, v.to, v.step, v.span != ""
	p.Self = v.href(v.span, v.from, v.to)
	p.Spans, p.Moves = v.spanLinks(), v.moves(now)
	p.From, p.To = v.from.Format("2006-01-02T15:04:05"), v.to.Format("2006-01-02T15:04:05")
	p.Charts, err = s.chartsOf(ctx, d, v)
	return p, err
}

// chartsOf reads the charts of a view.
func (s *Service) chartsOf(ctx context.Context, d identity.Device, v view) ([]chart, error) {
	if len(v.fields) == 0 {
		return nil, nil
	}
	series, err := s.Series(ctx, d.Tenant, d.ID, Query{Fields: v.fields, From: v.from, To: v.to, Step: v.step})
	if err != nil {
		return nil, err
	}
	units, err := s.unitsOf(ctx, d)
	if err != nil {
		return nil, err
	}
	out := make([]chart, len(series))
	for i, x := range series {
		out[i] = chart{Stream: x.Stream, Field: x.Field, Unit: units[[2]string{x.Stream, x.Field}], Step: v.step, Points: x.Points, from: v.from, to: v.to}
	}
	return out, nil
}
