// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

// promVersion is the version of Prometheus whose HTTP API this is a part of; readers such as Grafana choose by it.
const promVersion = "2.55.0"

// promRoutes mounts what reads like a Prometheus server, so that Grafana and others draw what devices measured.
func (s *Service) promRoutes(a *api.API) {
	const doc = "A part of Prometheus' HTTP API, for Grafana: the address of the data source is `/v1/prometheus`, with a token as bearer. " +
		"Of PromQL it knows selectors with matchers and offset, `avg_`, `min_`, `max_`, `sum_`, `last_` and `count_over_time`, " +
		"`sum`, `avg`, `min`, `max` and `count` with `by`, and arithmetic with numbers; the rest is refused by name."
	mount := func(id, path, summary string, h func(context.Context, promForm) (any, error)) {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			op := api.Op{ID: "prometheus-" + id, Method: method, Path: "/v1/prometheus/api/v1/" + path, Verb: string(tenant.TelemetryRead), Stage: "telemetry", Summary: summary, Doc: doc, MaxBody: 64 << 10}
			if method == http.MethodPost {
				op.ID += "-post"
			}
			api.Raw(a, op, func(w http.ResponseWriter, r *http.Request) error { return servePrometheus(w, r, h) })
		}
	}
	mount("query", "query", "Prometheus: evaluate a query at an instant", s.promInstant)
	mount("query-range", "query_range", "Prometheus: evaluate a query over time", s.promRange)
	mount("labels", "labels", "Prometheus: names of labels", s.promLabelNames)
	mount("label-values", "label/{name}/values", "Prometheus: values of a label", s.promLabelValues)
	mount("series", "series", "Prometheus: series by matchers", s.promSeriesList)
	mount("metadata", "metadata", "Prometheus: what metrics mean, by the catalogues", s.promMetadata)
	mount("buildinfo", "status/buildinfo", "Prometheus: the version whose API this is a part of", func(context.Context, promForm) (any, error) {
		return map[string]string{"version": promVersion, "revision": "openthings", "goVersion": "", "branch": "", "buildDate": "", "buildUser": ""}, nil
	})
}

// promForm are the parameters of a request.
type promForm struct{ r *http.Request }

func (f promForm) text(name string) string { return f.r.Form.Get(name) }

// time reads a time as seconds since 1970 or RFC 3339; absent is otherwise.
func (f promForm) time(name string, otherwise time.Time) (time.Time, error) {
	text := f.text(name)
	if text == "" {
		return otherwise, nil
	}
	if s, err := strconv.ParseFloat(text, 64); err == nil && math.Abs(s) < 1e11 {
		return time.UnixMilli(int64(math.Round(s * 1000))), nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return t, promFail("%s: %q is no time", name, cut(text))
	}
	return t, nil
}

// servePrometheus answers in Prometheus' form, errors too.
func servePrometheus(w http.ResponseWriter, r *http.Request, h func(context.Context, promForm) (any, error)) error {
	type answer struct {
		Status    string `json:"status"`
		Data      any    `json:"data,omitempty"`
		ErrorType string `json:"errorType,omitempty"`
		Error     string `json:"error,omitempty"`
	}
	say := func(status int, a answer) error {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		return json.NewEncoder(w).Encode(a)
	}
	if err := r.ParseForm(); err != nil {
		return say(http.StatusBadRequest, answer{Status: "error", ErrorType: "bad_data", Error: "the parameters cannot be read"})
	}
	data, err := h(r.Context(), promForm{r})
	var bad promError
	switch {
	case err == nil:
		return say(http.StatusOK, answer{Status: "success", Data: data})
	case errors.As(err, &bad):
		return say(http.StatusBadRequest, answer{Status: "error", ErrorType: "bad_data", Error: bad.text})
	case problem.Is(err, problem.KindInvalid):
		return say(http.StatusUnprocessableEntity, answer{Status: "error", ErrorType: "execution", Error: problem.Of(err).Text})
	}
	return err
}

// promPoint is [seconds, "value"].
type promPoint struct {
	t int64
	v float64
}

func (p promPoint) MarshalJSON() ([]byte, error) {
	b := strconv.AppendFloat([]byte{'['}, float64(p.t)/1000, 'f', -1, 64)
	b = append(b, `,"`...)
	b = strconv.AppendFloat(b, p.v, 'f', -1, 64)
	return append(b, `"]`...), nil
}

func (s *Service) promInstant(ctx context.Context, f promForm) (any, error) {
	at, err := f.time("time", s.cfg.Clock.Now())
	if err != nil {
		return nil, err
	}
	e, err := parsePromQL(f.text("query"))
	if err != nil {
		return nil, err
	}
	q := &promQuery{s: s, times: []int64{at.UnixMilli()}}
	if e.ranged() {
		return q.raw(ctx, *e.selector)
	}
	res, err := q.eval(ctx, e)
	if err != nil {
		return nil, err
	}
	if res.scalar {
		return map[string]any{"resultType": "scalar", "result": promPoint{q.times[0], res.rows[0].values[0]}}, nil
	}
	type one struct {
		Metric map[string]string `json:"metric"`
		Value  promPoint         `json:"value"`
	}
	out := []one{}
	for _, r := range res.rows {
		if !math.IsNaN(r.values[0]) {
			out = append(out, one{named(r.labels), promPoint{q.times[0], r.values[0]}})
		}
	}
	return map[string]any{"resultType": "vector", "result": out}, nil
}

type promMany struct {
	Metric map[string]string `json:"metric"`
	Values []promPoint       `json:"values"`
}

// raw answers a range selector with the samples themselves.
func (q *promQuery) raw(ctx context.Context, sel promSelector) (any, error) {
	out := []promMany{}
	at := q.times[0] - sel.offset.Milliseconds()
	devices, err := q.devices(ctx, sel.matchers)
	if err != nil {
		return nil, err
	}
	for _, d := range devices {
		last := [2]string{}
		err := q.s.Samples(ctx, d.Tenant, d.ID, Query{From: time.UnixMilli(at - sel.span.Milliseconds() + 1), To: time.UnixMilli(at + 1)}, func(stream, field string, t time.Time, v float64) error {
			labels := q.labels(d, stream, field)
			if !q.wants(sel.matchers, labels) {
				return nil
			}
			if q.samples++; q.samples > promSamples {
				return promFail("the query reads more than %d samples; ask for less time or fewer devices", promSamples)
			}
			if k := [2]string{stream, field}; k != last {
				last = k
				out = append(out, promMany{Metric: named(labels)})
			}
			out[len(out)-1].Values = append(out[len(out)-1].Values, promPoint{t.UnixMilli(), v})
			return nil
		})
		if err != nil && !problem.Is(err, problem.KindNotFound) {
			return nil, err
		}
	}
	return map[string]any{"resultType": "matrix", "result": out}, nil
}

func (s *Service) promRange(ctx context.Context, f promForm) (any, error) {
	start, err := f.time("start", time.Time{})
	if err != nil {
		return nil, err
	}
	end, err := f.time("end", time.Time{})
	if err != nil {
		return nil, err
	}
	step, err := parsePromDuration(f.text("step"))
	if err != nil {
		return nil, err
	}
	if start.IsZero() || end.Before(start) || step < time.Millisecond {
		return nil, promFail("start, end and step are needed, and end is not before start")
	}
	if end.Sub(start)/step >= promSteps {
		return nil, promFail("more than %d points for one series; use a longer step", promSteps)
	}
	e, err := parsePromQL(f.text("query"))
	if err != nil {
		return nil, err
	}
	q := &promQuery{s: s}
	for t := start; !t.After(end); t = t.Add(step) {
		q.times = append(q.times, t.UnixMilli())
	}
	res, err := q.eval(ctx, e)
	if err != nil {
		return nil, err
	}
	out := []promMany{}
	for _, r := range res.rows {
		m := promMany{Metric: named(r.labels)}
		for i, v := range r.values {
			if !math.IsNaN(v) {
				m.Values = append(m.Values, promPoint{q.times[i], v})
			}
		}
		if len(m.Values) > 0 {
			out = append(out, m)
		}
	}
	return map[string]any{"resultType": "matrix", "result": out}, nil
}

// named leaves out labels without a value, which Prometheus does not know.
func named(labels map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range labels {
		if v != "" {
			out[k] = v
		}
	}
	return out
}

// matched returns the series that the parameters match[] mean; without any, all of them.
func (s *Service) matched(ctx context.Context, f promForm) (out []map[string]string, err error) {
	q := &promQuery{s: s}
	texts := f.r.Form["match[]"]
	if len(texts) == 0 {
		return q.series(ctx, nil)
	}
	for _, text := range texts {
		e, err := parsePromQL(text)
		if err != nil {
			return nil, err
		}
		if e.selector == nil || e.ranged() {
			return nil, promFail("match[]=%q is no series selector", cut(text))
		}
		found, err := q.series(ctx, e.selector.matchers)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

func (s *Service) promLabelNames(context.Context, promForm) (any, error) { return promLabels, nil }

func (s *Service) promLabelValues(ctx context.Context, f promForm) (any, error) {
	name := f.r.PathValue("name")
	out := []string{}
	if !slices.Contains(promLabels, name) {
		return out, nil
	}
	series, err := s.matched(ctx, f)
	for _, labels := range series {
		if v := labels[name]; v != "" {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), err
}

func (s *Service) promSeriesList(ctx context.Context, f promForm) (any, error) {
	if len(f.r.Form["match[]"]) == 0 {
		return nil, promFail("no match[] parameter provided")
	}
	series, err := s.matched(ctx, f)
	out := make([]map[string]string, len(series))
	for i, labels := range series {
		out[i] = named(labels)
	}
	return out, err
}

// promMetadata says what metrics mean, by the catalogues of the products that whoever asks reads devices of.
func (s *Service) promMetadata(ctx context.Context, f promForm) (any, error) {
	type meaning struct {
		Type string `json:"type"`
		Help string `json:"help"`
		Unit string `json:"unit"`
	}
	out := map[string][]meaning{}
	whole, own, _ := tenant.Scope(actor(ctx), tenant.TelemetryRead)
	if !whole {
		devices, err := (&promQuery{s: s}).devices(ctx, nil)
		if err != nil {
			return nil, err
		}
		for _, d := range devices {
			own = append(own, d.Product)
		}
	}
	ps, err := s.cfg.Product.List(ctx, tenant.MustTenant(ctx))
	if err != nil {
		return nil, err
	}
	for _, p := range ps {
		if !whole && !slices.Contains(own, p.ID) {
			continue
		}
		v, err := s.Catalogue(ctx, p.Tenant, p.ID)
		if err != nil {
			return nil, err
		}
		for _, x := range v.Fields {
			name := metricName(x.Stream, x.Name)
			if m := (meaning{"gauge", x.Purpose, x.Unit}); (f.text("metric") == "" || f.text("metric") == name) && !slices.Contains(out[name], m) {
				out[name] = append(out[name], m)
			}
		}
	}
	return out, nil
}
