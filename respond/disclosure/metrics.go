// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"context"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// Measure is how long one step took, counted from the report.
type Measure struct {
	Count  int     `json:"count" doc:"Reports that have come that far"`
	Median float64 `json:"median_hours"`
	P90    float64 `json:"p90_hours" doc:"Nine of ten took at most that long"`
	InTime int     `json:"in_time" doc:"Of these within the promise that they came under; of a step without a promise all"`
}

// Metrics are the figures of one year, by the day on which reports came. They hold nothing personal.
type Metrics struct {
	Year        int             `json:"year"`
	Reports     int             `json:"reports"`
	Open        int             `json:"open"`
	Exploited   int             `json:"exploited" doc:"Of which the finder said that it was seen exploited"`
	Verdicts    map[Verdict]int `json:"verdicts"`
	Acknowledge Measure         `json:"acknowledge"`
	Triage      Measure         `json:"triage"`
	Fix         Measure         `json:"fix"`
	Publication Measure         `json:"publication"`
}

// Measured makes the figures from the states of the reports that came in the year.
func Measured(year int, states []State) Metrics {
	m := Metrics{Year: year, Reports: len(states), Verdicts: map[Verdict]int{}}
	var ack, triage, fix, public steps
	for _, s := range states {
		if s.Closed.IsZero() {
			m.Open++
		}
		if s.Exploited == "yes" {
			m.Exploited++
		}
		if s.Verdict != "" {
			m.Verdicts[s.Verdict]++
		}
		due := map[TimerName]time.Time{}
		for _, t := range Timers(s) {
			due[t.Name] = t.Due
		}
		ack.add(s.Received, s.Acknowledged, due[TimerAcknowledge])
		triage.add(s.Received, s.Triaged, due[TimerTriage])
		fix.add(s.Received, s.Fixed, time.Time{})
		public.add(s.Received, s.Published, due[TimerDisclosure])
	}
	m.Acknowledge, m.Triage, m.Fix, m.Publication = ack.measure(), triage.measure(), fix.measure(), public.measure()
	return m
}

type steps struct {
	took   []time.Duration
	inTime int
}

func (x *steps) add(from, to, due time.Time) {
	if to.IsZero() {
		return
	}
	x.took = append(x.took, to.Sub(from))
	if due.IsZero() || !to.After(due) {
		x.inTime++
	}
}

func (x *steps) measure() Measure {
	n := len(x.took)
	if n == 0 {
		return Measure{}
	}
	slices.Sort(x.took)
	hours := func(i int) float64 { return float64(x.took[i].Round(6*time.Minute)) / float64(time.Hour) }
	return Measure{Count: n, Median: hours((n - 1) / 2), P90: hours((9*n+9)/10 - 1), InTime: x.inTime}
}

// metrics are the figures of the tenant's year; of the current one if year is 0.
func (s *Service) metrics(ctx context.Context, t string, year int) (Metrics, error) {
	if year == 0 {
		year = s.now().Year()
	}
	if year < 2000 || year > s.now().Year() {
		return Metrics{}, problem.Invalid("There are no figures of %d.", year).At("year")
	}
	from := time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
	var fs []file
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		fs, err = files(tx, t, `received >= $2 AND received < $3`, store.Millis(from), store.Millis(from.AddDate(1, 0, 0)))
		return err
	})
	states := make([]State, len(fs))
	for i, f := range fs {
		states[i] = f.state()
	}
	return Measured(year, states), err
}

// Metrics are the figures of the caller's tenant.
func (s *Service) Metrics(ctx context.Context, year int) (Metrics, error) {
	a, err := who(ctx, tenant.CaseRead, "")
	if err != nil {
		return Metrics{}, err
	}
	return s.metrics(ctx, a.Tenant, year)
}
