// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/klauspost/compress/zstd"

	"github.com/openthings-platform/openthings/demo"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/telemetry"
	"github.com/openthings-platform/openthings/wire"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

const (
	traceFile      = "bench/testdata/trace.jsonl.zst"
	traceDevices   = 50
	copiedMessages = 1000 // messages whose values go to PostgreSQL with one COPY
	settled        = 3 * time.Minute
)

// reading is one message of the recorded trace; see bench/testdata/README.md.
type reading struct {
	Stream string             `json:"stream"`
	TS     int64              `json:"ts"`
	Values map[string]float64 `json:"values"`
}

// readTrace returns the recorded hour.
func readTrace() ([]reading, error) {
	f, err := os.Open(traceFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	var out []reading
	lines := bufio.NewScanner(z)
	for lines.Scan() {
		var r reading
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, lines.Err()
}

// turned is the trace as one of many devices says it: each begins elsewhere in the hour, so that no two say the same at
// the same time, and goes on with the beginning as if it were the hour after.
func turned(trace []reading, device int) []reading {
	at := device * len(trace) / traceDevices
	out := slices.Concat(trace[at:], trace[:at])
	hour := trace[len(trace)-1].TS - trace[0].TS + 1000
	for i := len(trace) - at; i < len(out); i++ {
		out[i].TS += hour
	}
	return out
}

// stored is what the same values cost on both sides.
type stored struct{ cpu, bytes, peerCPU, peerBytes float64 } // microseconds and bytes per value

// telemetryOn measures both sides once for the results that are read from it.
func telemetryOn(binary string) func(context.Context) (stored, error) {
	var once sync.Once
	var s stored
	var err error
	return func(ctx context.Context) (stored, error) {
		once.Do(func() { s, err = telemetryStored(ctx, binary) })
		return s, err
	}
}

const narrow = "narrow rows, COPY into PostgreSQL"

func telemetryCPU(measure func(context.Context) (stored, error)) func(context.Context) (Result, error) {
	return func(ctx context.Context) (Result, error) {
		s, err := measure(ctx)
		return Result{Name: "telemetry_cpu", Value: s.cpu, Unit: "us/value", Baseline: narrow, BaselineValue: s.peerCPU, Ratio: s.cpu / s.peerCPU}, err
	}
}

func telemetryBytes(measure func(context.Context) (stored, error)) func(context.Context) (Result, error) {
	return func(ctx context.Context) (Result, error) {
		s, err := measure(ctx)
		return Result{Name: "telemetry_bytes", Value: s.bytes, Unit: "B/value", Baseline: narrow, BaselineValue: s.peerBytes, Ratio: s.bytes / s.peerBytes}, err
	}
}

// telemetryStored sends the recorded trace as many devices through the MQTT door of the real binary, and writes the same
// values as narrow rows into PostgreSQL. Ours is all CPU time of the platform: TLS, MQTT, receipts that are on disk,
// compaction, latest values and the merging of chunks, until everything rests in chunks and reads back. The peer's is that of
// PostgreSQL's processes and of its client while it copies; that somebody received the values first costs nothing there.
func telemetryStored(ctx context.Context, binary string) (stored, error) {
	trace, err := readTrace()
	if err != nil {
		return stored{}, err
	}
	values := 0
	for _, r := range trace {
		values += len(r.Values)
	}
	values *= traceDevices
	s, err := telemetryHere(ctx, binary, trace, values)
	if err != nil {
		return stored{}, fmt.Errorf("platform: %w", err)
	}
	s.peerCPU, s.peerBytes, err = telemetryThere(ctx, trace, values)
	if err != nil {
		return stored{}, fmt.Errorf("PostgreSQL: %w", err)
	}
	return s, nil
}

func telemetryHere(ctx context.Context, binary string, trace []reading, values int) (stored, error) {
	f, err := demo.NewFleet(ctx, binary, traceDevices)
	if err != nil {
		return stored{}, err
	}
	defer f.Close()
	load, err := openLoad(ctx, broker{certs: f.Certs, roots: f.Roots, addr: f.MQTT, pid: f.PID})
	if err != nil {
		return stored{}, err
	}
	defer load.close()
	file := filepath.Join(f.Data, "telemetry.db")
	db, err := sql.Open("sqlite", "file:"+file+"?mode=ro&_pragma=busy_timeout(5000)")
	if err != nil {
		return stored{}, err
	}
	defer db.Close()
	empty, err := sizeOf(file)
	if err != nil {
		return stored{}, err
	}
	before, err := cpuTime(f.PID)
	if err != nil {
		return stored{}, err
	}
	errs := make(chan error, traceDevices)
	for i, c := range load.clients {
		go func() { errs <- say(ctx, c, turned(trace, i)) }()
	}
	for range load.clients {
		if err := <-errs; err != nil {
			return stored{}, err
		}
	}
	if err := settle(ctx, db); err != nil {
		return stored{}, err
	}
	after, err := cpuTime(f.PID)
	if err != nil {
		return stored{}, err
	}
	full, err := sizeOf(file)
	if err != nil {
		return stored{}, err
	}
	if err := readBack(ctx, f, trace); err != nil {
		return stored{}, err
	}
	return stored{cpu: float64((after - before).Microseconds()) / float64(values), bytes: float64(full-empty) / float64(values)}, nil
}

// sizeOf is the room that a SQLite file takes with its log.
func sizeOf(file string) (n int64, err error) {
	for _, name := range []string{file, file + "-wal"} {
		s, err := os.Stat(name)
		if err != nil {
			return 0, err
		}
		n += s.Size()
	}
	return n, nil
}

// say publishes readings in their order and waits for every receipt.
func say(ctx context.Context, c *mqtt.Client, readings []reading) error {
	acked := make(chan error, len(readings))
	for i, r := range readings {
		body, err := json.Marshal(map[string]any{"ts": r.TS, "boot": 1, "seq": i + 1, "values": r.Values})
		if err != nil {
			return err
		}
		if err := c.Go(ctx, wire.Root+"tele/"+r.Stream, body, func(err error) { acked <- err }); err != nil {
			return err
		}
	}
	for range readings {
		if err := <-acked; err != nil {
			return err
		}
	}
	return nil
}

// settle waits until the inbox is empty and no stream waits to be merged.
func settle(ctx context.Context, db *sql.DB) error {
	ctx, stop := context.WithTimeout(ctx, settled)
	defer stop()
	for tick := time.NewTicker(time.Second); ; {
		var inbox, crowded int
		err := db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM telemetry_inbox), (SELECT count(*) FROM
			(SELECT 1 FROM telemetry_chunk WHERE n < 256 GROUP BY tenant, device, stream HAVING count(*) >= 16) q)`).Scan(&inbox, &crowded)
		if err != nil || inbox+crowded == 0 {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("after %s the inbox holds %d rows and %d streams are not merged: %w", settled, inbox, crowded, ctx.Err())
		}
	}
}

// readBack asks the API what the devices said and counts.
func readBack(ctx context.Context, f *demo.Fleet, trace []reading) error {
	want, streams := 0, map[string]bool{} // the devices had sent something before, of a stream of their own
	for _, r := range trace {
		want += len(r.Values)
		streams[r.Stream] = true
	}
	from := time.UnixMilli(trace[0].TS)
	for _, id := range f.IDs {
		var out telemetry.SeriesOut
		path := fmt.Sprintf("/v1/devices/%s/telemetry?from=%s&to=%s&max=10", id, from.UTC().Format("2006-01-02T15:04:05Z"), from.Add(3*time.Hour).UTC().Format("2006-01-02T15:04:05Z"))
		if err := f.API.Do(ctx, "GET", path, nil, &out); err != nil {
			return err
		}
		got := 0
		for _, s := range out.Series {
			for _, p := range s.Points {
				if streams[s.Stream] {
					got += *p.Count
				}
			}
		}
		if got != want {
			return fmt.Errorf("device %s has %d values of %d", id, got, want)
		}
	}
	return nil
}

// telemetryThere writes the values as rows of four numbers: names are numbers already, as a careful schema would have them.
func telemetryThere(ctx context.Context, trace []reading, values int) (cpu, bytes float64, err error) {
	url, stop, err := storetest.StartPostgres()
	if err != nil {
		return 0, 0, err
	}
	defer stop()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var backend int
	err = conn.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&backend)
	if err == nil {
		_, err = conn.Exec(ctx, `CREATE TABLE narrow (device bigint NOT NULL, metric bigint NOT NULL, at bigint NOT NULL, value double precision NOT NULL, PRIMARY KEY (device, metric, at))`)
	}
	if err != nil {
		return 0, 0, err
	}
	before, err := familyTime(backend)
	if err != nil {
		return 0, 0, err
	}
	metrics := map[string]int64{}
	var rows [][]any
	n := 0
	var client time.Duration
	flush := func() error {
		began := ownTime()
		_, err := conn.CopyFrom(ctx, pgx.Identifier{"narrow"}, []string{"device", "metric", "at", "value"}, pgx.CopyFromRows(rows))
		client += ownTime() - began
		rows = rows[:0]
		return err
	}
	devices := make([][]reading, traceDevices)
	for d := range devices {
		devices[d] = turned(trace, d)
	}
	for i := range trace { // in the order in which messages of many devices arrive
		for d := range devices {
			r := devices[d][i]
			for name, v := range r.Values {
				name = r.Stream + "/" + name
				if metrics[name] == 0 {
					metrics[name] = int64(len(metrics) + 1)
				}
				rows = append(rows, []any{int64(d), metrics[name], r.TS, v})
			}
			if n++; n%copiedMessages == 0 {
				if err := flush(); err != nil {
					return 0, 0, err
				}
			}
		}
	}
	if err := flush(); err != nil {
		return 0, 0, err
	}
	if _, err := conn.Exec(ctx, `CHECKPOINT`); err != nil {
		return 0, 0, err
	}
	after, err := familyTime(backend)
	if err != nil {
		return 0, 0, err
	}
	var size, count int64
	if err := conn.QueryRow(ctx, `SELECT pg_total_relation_size('narrow'), (SELECT count(*) FROM narrow)`).Scan(&size, &count); err != nil {
		return 0, 0, err
	}
	if count != int64(values) {
		return 0, 0, fmt.Errorf("%d rows of %d values", count, values)
	}
	return float64((after - before + client).Microseconds()) / float64(values), float64(size) / float64(values), nil
}

// ownTime is the CPU time of this process.
func ownTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err) // it cannot fail for oneself
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// familyTime is the CPU time of a server: the parent of the process given with its children, dead or alive
// (proc_pid_stat(5), fields 4 and 14 to 17, in 1/100 s).
func familyTime(child int) (time.Duration, error) {
	type process struct{ parent, user, system, deadUser, deadSystem int }
	all := map[int]process{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it ended meanwhile
		}
		var pid int
		var p process
		_, rest, _ := strings.Cut(string(b), ") ")
		f := strings.Fields(rest)
		if _, err := fmt.Sscan(string(b), &pid); err != nil || len(f) < 15 {
			return 0, fmt.Errorf("%s has an unknown form", name)
		}
		if _, err := fmt.Sscan(strings.Join([]string{f[1], f[11], f[12], f[13], f[14]}, " "), &p.parent, &p.user, &p.system, &p.deadUser, &p.deadSystem); err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		all[pid] = p
	}
	server := all[child].parent
	ticks := all[server].user + all[server].system + all[server].deadUser + all[server].deadSystem
	for _, p := range all {
		if p.parent == server {
			ticks += p.user + p.system
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
