// SPDX-License-Identifier: AGPL-3.0-only

// Command bench measures speed as ratios: each value stands beside a peer or a physical limit measured in the same run.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
)

// Result is one line of bench/results.json; Ratio is Value / BaselineValue.
type Result struct {
	Name          string  `json:"name"`
	Value         float64 `json:"value"`
	Unit          string  `json:"unit"`
	Baseline      string  `json:"baseline"`
	BaselineValue float64 `json:"baseline_value"`
	Ratio         float64 `json:"ratio"`
}

func main() {
	out := flag.String("out", "", "write the results to this file as JSON")
	only := flag.String("only", "", "run the benchmarks whose name contains this")
	binary := flag.String("openthings", "bin/openthings", "the platform's binary")
	devices := flag.Int("devices", 100_000, "size of the fleet that lives through rollovers in virtual time")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if dir := os.Getenv(doorEnv); dir != "" {
		if err := beDoor(ctx, dir); err != nil {
			fmt.Fprintln(os.Stderr, "door:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(ctx, *out, *only, *binary, *devices); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out, only, binary string, devices int) error {
	var results []Result
	costs := &durable{binary: binary}
	defer costs.close()
	houses := exposureHouses{}
	defer houses.close()
	traced := telemetryOn(binary)
	bills := &delta{}
	defer bills.close()
	for _, b := range []struct {
		name string
		run  func(context.Context) (Result, error)
	}{
		{"mqtt_qos1_cpu", func(ctx context.Context) (Result, error) { return mqttAgainstPlatform(ctx, binary) }},
		{"telemetry_cpu", telemetryCPU(traced)},
		{"telemetry_bytes", telemetryBytes(traced)},
		{"telemetry_range_ms", telemetryRange(false)},
		{"telemetry_range_dense_ms", telemetryRange(true)},
		{"mqtt_fsync_per_1000", costs.fsyncs},
		{"mqtt_ack_p99_import", costs.importing},
		{"mqtt_ack_p99_ms", costs.ackP99},
		{"mqtt_idle_rss_kb", mqttIdleRSS},
		{"mqtt_reconnect_10000", mqttReconnect},
		{"issue_cpu", issueCPU},
		{"issue_cpu_vs_pki", func(ctx context.Context) (Result, error) { return issueAgainstPKI(ctx, binary, false) }},
		{"issue_cpu_vs_durable_pki", func(ctx context.Context) (Result, error) { return issueAgainstPKI(ctx, binary, true) }},
		{"fleet_lost", fleetLost(devices)},
		{"revoke_cut_p99_ms", revokeCut},
		{"exposure_summary_ms_sqlite_1m", exposureOn(houses, "summary", "sqlite")},
		{"exposure_page_ms_sqlite_1m", exposureOn(houses, "page", "sqlite")},
		{"exposure_asof_ms_sqlite_1m", exposureOn(houses, "asof", "sqlite")},
		{"exposure_write_rate", exposureWriteRate(houses, "sqlite")},
		{"exposure_summary_ms_postgres_1m", exposureOn(houses, "summary", "postgres")},
		{"exposure_page_ms_postgres_1m", exposureOn(houses, "page", "postgres")},
		{"exposure_asof_ms_postgres_1m", exposureOn(houses, "asof", "postgres")},
		{"exposure_write_rate_postgres", exposureWriteRate(houses, "postgres")},
		{"early_warning_pack_s_sqlite_100k", earlyWarningPack("sqlite")},
		{"early_warning_pack_s_postgres_100k", earlyWarningPack("postgres")},
		{"vuln_delta_s", bills.seconds},
		{"vuln_heap_mb", bills.heap},
		{"vuln_delta_vs_scan", bills.againstScan},
		{"vuln_index_load_s", bills.loading},
	} {
		if !strings.Contains(b.name, only) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s …\n", b.name)
		r, err := b.run(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
		fmt.Printf("%-36s %10.4g %-14s %-34s %10.4g   ratio %.3g\n", r.Name, r.Value, r.Unit, r.Baseline, r.BaselineValue, r.Ratio)
		results = append(results, r)
	}
	if out == "" {
		return nil
	}
	b, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(b, '\n'), 0o644)
}
