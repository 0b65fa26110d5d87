// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/telemetry"
)

// A month of one device, and what is asked of it.
const (
	monthValues = 1_000_000
	month       = 30 * 24 * time.Hour
	rangeMetric = "cpu/ctxt"
	rangeRounds = 51
	rangeTenant = "ten_bench"
	rangeDevice = "dev_bench"
)

// telemetryRange measures one metric over 30 days, summed up in 500 steps, of a device that said a million values in that
// time: on SQLite and on PostgreSQL, the slower counts. The peer answers the same question from narrow rows in PostgreSQL. In
// a month as the trace is, one metric is one of some eighty; in a dense month all values are of one metric.
func telemetryRange(dense bool) func(context.Context) (Result, error) {
	return func(ctx context.Context) (Result, error) {
		trace, err := readTrace()
		if err != nil {
			return Result{}, err
		}
		said := monthOf(trace, dense)
		dir, err := os.MkdirTemp("", "openthings-bench-")
		if err != nil {
			return Result{}, err
		}
		defer os.RemoveAll(dir)
		url, stop, err := storetest.StartPostgres()
		if err != nil {
			return Result{}, err
		}
		defer stop()
		r := Result{Name: "telemetry_range_ms", Unit: "ms", Baseline: "narrow rows in PostgreSQL"}
		if dense {
			r.Name = "telemetry_range_dense_ms"
		}
		for _, u := range []string{"sqlite://" + filepath.Join(dir, "bench.db"), url} {
			ms, err := rangeHere(ctx, u, filepath.Join(dir, fmt.Sprint("keys", len(u))), said)
			if err != nil {
				return Result{}, err
			}
			fmt.Fprintf(os.Stderr, "  %.6s %.2f ms\n", u, ms)
			r.Value = max(r.Value, ms)
		}
		if r.BaselineValue, err = rangeThere(ctx, url, said); err != nil {
			return Result{}, err
		}
		r.Ratio = r.Value / r.BaselineValue
		return r, nil
	}
}

// monthOf stretches the trace, again and again, over the last 30 days until they hold a million values.
func monthOf(trace []reading, dense bool) []reading {
	var of []reading
	values := 0
	for _, r := range trace {
		if v, ok := r.Values["ctxt"]; dense && ok {
			r.Values = map[string]float64{"ctxt": v}
		} else if dense {
			continue
		}
		of = append(of, r)
		values += len(r.Values)
	}
	hour := float64(trace[len(trace)-1].TS - trace[0].TS + 1)
	turn := float64(month.Milliseconds()) * float64(values) / monthValues
	begin := time.Now().Add(-month).UnixMilli()
	var out []reading
	for n, count := 0.0, 0; count < monthValues; n++ {
		for _, r := range of {
			at := begin + int64(turn*(n+float64(r.TS-trace[0].TS)/hour))
			if count += len(r.Values); count > monthValues {
				break
			}
			out = append(out, reading{Stream: r.Stream, TS: at, Values: r.Values})
		}
	}
	return out
}

// rangeQuery is 30 days from the first value on.
func rangeQuery(said []reading) telemetry.Query {
	from := time.UnixMilli(said[0].TS)
	return telemetry.Query{Fields: []string{rangeMetric}, From: from, To: from.Add(month)}
}

// rangeHere brings a month through inbox and compactor to rest, and returns the median of asking for it.
func rangeHere(ctx context.Context, url, keyDir string, said []reading) (float64, error) {
	clk := clock.NewHand(time.Now())
	db, err := store.Open(ctx, store.Config{URL: url, Schema: []store.Migrations{seal.Schema, telemetry.Schema}, Clock: clk})
	if err != nil {
		return 0, err
	}
	defer db.Close()
	keys, err := seal.Open(keyDir, clk)
	if err != nil {
		return 0, err
	}
	s := telemetry.New(telemetry.Config{DB: db, Platform: db, Keys: keys, Clock: clk})
	working, rest := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.Work(working) }()
	defer rest()
	seq := 0
	for part := range slices.Chunk(said, 3000) {
		records := make([]gateway.Record, len(part))
		for i, r := range part {
			seq++
			body, err := json.Marshal(map[string]any{"ts": r.TS, "boot": 1, "seq": seq, "values": r.Values})
			if err != nil {
				return 0, err
			}
			records[i] = gateway.Record{Tenant: rangeTenant, Device: rangeDevice, Topic: "tele/" + r.Stream, At: clk.Now().UnixMilli(), Body: body}
		}
		if err := s.Append(ctx, records); err != nil {
			return 0, err
		}
		clk.Advance(3 * time.Second)
	}
	for {
		clk.Advance(31 * time.Second)
		var inbox, crowded int
		if err := db.QueryRow(ctx, `SELECT count(*) FROM telemetry_inbox`).Scan(&inbox); err != nil {
			return 0, err
		}
		err := db.QueryRow(ctx, `SELECT count(*) FROM (SELECT 1 AS x FROM telemetry_chunk WHERE n < 256 GROUP BY tenant, device, stream HAVING count(*) >= 16) q`).Scan(&crowded)
		if err != nil {
			return 0, err
		}
		if inbox+crowded == 0 {
			break
		}
		select {
		case err := <-ended:
			return 0, fmt.Errorf("the compactor ended: %w", err)
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	rest()
	if err := <-ended; err != nil {
		return 0, err
	}
	want := 0
	for _, r := range said {
		if _, ok := r.Values["ctxt"]; ok {
			want++
		}
	}
	return median(rangeRounds, func() error {
		series, err := s.Series(ctx, rangeTenant, rangeDevice, rangeQuery(said))
		got := 0
		for _, x := range series {
			for _, p := range x.Points {
				got += p.Count
			}
		}
		if err == nil && got != want {
			err = fmt.Errorf("%d values of %d", got, want)
		}
		return err
	})
}

// rangeThere asks PostgreSQL for the same from narrow rows.
func rangeThere(ctx context.Context, url string, said []reading) (float64, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, `CREATE TABLE narrow (device bigint NOT NULL, metric bigint NOT NULL, at bigint NOT NULL, value double precision NOT NULL, PRIMARY KEY (device, metric, at))`); err != nil {
		return 0, err
	}
	metrics := map[string]int64{rangeMetric: 1}
	var rows [][]any
	for i, r := range said {
		for name, v := range r.Values {
			name = r.Stream + "/" + name
			if metrics[name] == 0 {
				metrics[name] = int64(len(metrics) + 1)
			}
			rows = append(rows, []any{int64(1), metrics[name], r.TS*8 + int64(i%8), v}) // stretched times may meet in a millisecond
		}
	}
	if _, err := conn.CopyFrom(ctx, pgx.Identifier{"narrow"}, []string{"device", "metric", "at", "value"}, pgx.CopyFromRows(rows)); err != nil {
		return 0, err
	}
	if _, err := conn.Exec(ctx, `VACUUM ANALYZE narrow`); err != nil {
		return 0, err
	}
	from := said[0].TS
	step := month.Milliseconds() / telemetry.DefaultPoints
	return median(rangeRounds, func() error {
		got, err := conn.Query(ctx, `SELECT (at - $1) / $2 AS b, min(value), max(value), avg(value), count(*) FROM narrow
			WHERE device = 1 AND metric = 1 AND at >= $1 AND at < $1 + $2 * $3 GROUP BY b ORDER BY b`, from*8, step*8, telemetry.DefaultPoints)
		if err != nil {
			return err
		}
		n := 0
		for got.Next() {
			n++
		}
		if n < telemetry.DefaultPoints/2 {
			return fmt.Errorf("%d steps of %d: %w", n, telemetry.DefaultPoints, got.Err())
		}
		return got.Err()
	})
}
