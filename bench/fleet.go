// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/openthings-platform/openthings/sim"
)

// fleetLost lets a fleet of that size live through absences, power cuts, revocations and two rollovers in virtual time
// (see package sim) and counts the devices with which something happened that never may.
func fleetLost(devices int) func(context.Context) (Result, error) {
	return func(ctx context.Context) (Result, error) {
		dir, err := os.MkdirTemp("", "openthings-bench-")
		if err != nil {
			return Result{}, err
		}
		defer os.RemoveAll(dir)
		begun := time.Now()
		r, err := sim.Run(ctx, sim.Config{Dir: dir, Devices: devices, Seed: 1, Progress: func(day, days int, r sim.Report) {
			fmt.Fprintf(os.Stderr, "\r  day %d of %d: %d certificates, %d returns, %d power cuts, %d rollovers ", day, days, r.Issued, r.Returns, r.Cuts, r.Rollovers)
		}})
		if err != nil {
			return Result{}, err
		}
		fmt.Fprintf(os.Stderr, "\r  %+v in %s\n", r, time.Since(begun).Round(time.Second))
		out := Result{Name: fmt.Sprintf("fleet_lost_%d", devices), Unit: "devices", Baseline: "devices in the run",
			Value: float64(r.Stranded + r.Duplicates + r.AcceptedAfterRevocation), BaselineValue: float64(devices)}
		out.Ratio = out.Value / out.BaselineValue
		return out, nil
	}
}
