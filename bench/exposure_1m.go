// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/store"
)

const (
	exposureTypical = 15    // releases of a tenant that a vulnerability drawn at random is in, on average
	exposureWorst   = 0.8   // share of all of a tenant's releases that the worst is in
	exposureAsked   = 2_000 // questions, one in ten about the worst
	exposureLive    = 20    // of them that are counted live as well
	exposurePage    = 100
)

// exposureQuestion is about the releases of one tenant that some vulnerability is in.
type exposureQuestion struct {
	tenant   string
	releases []int
	at       int64 // 0: now
}

// questions draws tenants as devices are, so that the largest is asked about once in six times.
func (w *exposureWorld) questions(rnd *rand.Rand, past bool) []exposureQuestion {
	out := make([]exposureQuestion, exposureAsked)
	for i := range out {
		t := w.tenants[w.devices[rnd.IntN(len(w.devices))].tenant]
		all := rnd.Perm(t.release[1] - t.release[0])
		n := min(len(all), 1+int(rnd.ExpFloat64()*exposureTypical))
		if i%10 == 0 {
			n = max(1, int(exposureWorst*float64(len(all))))
		}
		q := exposureQuestion{tenant: t.id}
		for _, r := range all[:n] {
			q.releases = append(q.releases, t.release[0]+r)
		}
		if past {
			q.at = w.now - rnd.Int64N(exposureDays*24*3600*1000)
		}
		out[i] = q
	}
	return out
}

func (q exposureQuestion) instant() time.Time {
	if q.at == 0 {
		return time.Time{}
	}
	return time.UnixMilli(q.at)
}

// moment is what the oracle counts at.
func (q exposureQuestion) moment(w *exposureWorld) int64 {
	if q.at == 0 {
		return w.now
	}
	return q.at
}

// exposureOn measures p99 of one kind of question over random ones at 1,000,000 devices and fails at the first answer that
// is not what happened. Beside it stands p99 of the same counted live, in the same database.
func exposureOn(houses exposureHouses, kind, engine string) func(context.Context) (Result, error) {
	return func(ctx context.Context) (Result, error) {
		h, err := houses.open(ctx, engine)
		if err != nil {
			return Result{}, err
		}
		ask, live := h.summary, h.summaryLive
		if kind == "page" {
			ask, live = h.first, h.firstLive
		}
		var took, base []float64
		for i, q := range h.questions(rand.New(rand.NewPCG(1, 2)), kind == "asof") {
			begun := time.Now()
			check, err := ask(ctx, q)
			took = append(took, ms(begun))
			if err == nil {
				err = check()
			}
			if err != nil {
				return Result{}, fmt.Errorf("%s of %d releases of %s as of %d: %w", kind, len(q.releases), q.tenant, q.at, err)
			}
			if i%(exposureAsked/exposureLive) == 0 {
				begun = time.Now()
				if err := live(ctx, q); err != nil {
					return Result{}, err
				}
				base = append(base, ms(begun))
			}
		}
		fmt.Fprintf(os.Stderr, "  %s on %s: p50 %.2f ms, p99 %.2f ms, worst %.2f ms; of the worst vulnerability p50 %.2f ms\n", kind, engine,
			quantile(took, 0.5), quantile(took, 0.99), quantile(took, 1), quantile(every(took, 10), 0.5))
		r := Result{Name: "exposure_" + kind + "_ms_" + engine + "_1m", Value: quantile(took, 0.99), Unit: "ms", Baseline: "counting intervals live, p99",
			BaselineValue: quantile(base, 0.99)}
		r.Ratio = r.Value / r.BaselineValue
		return r, nil
	}
}

// summary asks for counts, now or as of a moment. What it returns compares them with what happened.
func (h *exposureHouse) summary(ctx context.Context, q exposureQuestion) (check func() error, err error) {
	got, err := h.fleet.CountOf(ctx, q.tenant, h.ids(q.releases), q.instant())
	return func() error {
		if want := h.count(q.releases, q.moment(h.exposureWorld)); !maps.Equal(got, want) {
			for r := range got {
				if got[r] != want[r] {
					return fmt.Errorf("the counters say %d of %s, it was %d", got[r], r, want[r])
				}
			}
			return fmt.Errorf("the counters tell of %d releases, it was %d", len(got), len(want))
		}
		return nil
	}, err
}

func (h *exposureHouse) first(ctx context.Context, q exposureQuestion) (check func() error, err error) {
	got, err := h.fleet.Devices(ctx, q.tenant, h.ids(q.releases), q.instant(), fleet.Page{Limit: exposurePage})
	return func() error {
		if want := h.page(q.releases, q.moment(h.exposureWorld), exposurePage); !slices.Equal(got, want) {
			return fmt.Errorf("the page has %d devices and is not that of %d which it was", len(got), len(want))
		}
		return nil
	}, err
}

// ran says which intervals a question is about.
func (h *exposureHouse) ran(q exposureQuestion) (where string, args []any) {
	list, args := store.In([]any{q.tenant}, h.ids(q.releases))
	if q.at == 0 {
		return `tenant = $1 AND release_id IN ` + list + ` AND to_ts = 9223372036854775807`, args
	}
	args = append(args, q.at)
	at := fmt.Sprintf("$%d", len(args))
	return `tenant = $1 AND release_id IN ` + list + ` AND from_ts <= ` + at + ` AND to_ts > ` + at, args
}

func (h *exposureHouse) summaryLive(ctx context.Context, q exposureQuestion) error {
	where, args := h.ran(q)
	rows, err := h.db.Query(ctx, `SELECT release_id, count(*) FROM install WHERE `+where+` GROUP BY release_id`, args...)
	return drain(rows, err)
}

func (h *exposureHouse) firstLive(ctx context.Context, q exposureQuestion) error {
	where, args := h.ran(q)
	rows, err := h.db.Query(ctx, `SELECT release_id, device_id, from_ts FROM install WHERE `+where+` ORDER BY release_id, device_id LIMIT `+fmt.Sprint(exposurePage), args...)
	return drain(rows, err)
}

func drain(rows *sql.Rows, err error) error {
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
	}
	return rows.Err()
}

func ms(since time.Time) float64 { return float64(time.Since(since)) / float64(time.Millisecond) }

// quantile of values, which need not be sorted.
func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func every(values []float64, n int) []float64 {
	var out []float64
	for i := 0; i < len(values); i += n {
		out = append(out, values[i])
	}
	return out
}

// median runs fn n times and returns the median duration in milliseconds.
func median(n int, fn func() error) (float64, error) {
	took := make([]float64, n)
	for i := range took {
		begun := time.Now()
		if err := fn(); err != nil {
			return 0, err
		}
		took[i] = ms(begun)
	}
	return quantile(took, 0.5), nil
}
