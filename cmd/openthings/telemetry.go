// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"fmt"
	"io"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/telemetry"
)

// sparkWidth is how many characters a drawn series has.
const sparkWidth = 60

// telemetryReads are the commands that read one device's measurements.
func telemetryReads(r *remote) []*cobra.Command {
	show := &cobra.Command{
		Use: "show DEVICE", Short: "What a device said last, and what of it was lost or refused", Args: oneDevice,
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, "/v1/devices/"+url.PathEscape(args[0])+"/telemetry/latest", printLatest)
		},
	}
	var last time.Duration
	var from, to, step string
	var fields []string
	over := &cobra.Command{
		Use: "range DEVICE", Short: "What a device measured over time, each value as a line of text", Args: oneDevice,
		Example: "  openthings telemetry range dev_… --last 24h --field env/temp\n  openthings telemetry range dev_… --from 2026-11-01T00:00:00Z --to 2026-12-01T00:00:00Z --step 6h --json",
		RunE: func(c *cobra.Command, args []string) error {
			if from == "" {
				end := time.Now()
				if to != "" {
					var err error
					if end, err = time.Parse(time.RFC3339, to); err != nil {
						return usageError{fmt.Errorf("--to is not a time such as 2026-11-22T12:00:00Z: %w", err)}
					}
				}
				from = end.Add(-last).UTC().Format(time.RFC3339)
			}
			q := url.Values{"from": {from}, "max": {strconv.Itoa(sparkWidth)}}
			if to != "" {
				q.Set("to", to)
			}
			if step != "" {
				q.Set("step", step)
			}
			if len(fields) > 0 {
				q.Set("fields", strings.Join(fields, ","))
			}
			return read(c, r, "/v1/devices/"+url.PathEscape(args[0])+"/telemetry?"+q.Encode(), printSeries)
		},
	}
	over.Flags().DurationVar(&last, "last", time.Hour, "how far back, unless --from is given")
	over.Flags().StringVar(&from, "from", "", "beginning (RFC 3339)")
	over.Flags().StringVar(&to, "to", "", "end, excluded (RFC 3339); default now")
	over.Flags().StringVar(&step, "step", "", "width of a point, as 30s, 5m or 6h; default: what makes a line of text")
	over.Flags().StringSliceVar(&fields, "field", nil, "a value, as env/temp; default all")
	return []*cobra.Command{show, over}
}

// printSeries draws each series as one line.
func printSeries(w io.Writer, out telemetry.SeriesOut) error {
	if len(out.Series) == 0 {
		_, err := fmt.Fprintf(w, "nothing was measured between %s and %s\n", instant(out.From), instant(out.To))
		return err
	}
	rows := [][]string{{"VALUE", instant(out.From) + " to " + instant(out.To), "MIN", "MEAN", "MAX", "LAST", "COUNT"}}
	for _, s := range out.Series {
		low, high, sum, count := math.Inf(1), math.Inf(-1), 0.0, 0
		for _, p := range s.Points {
			low, high, count = min(low, *p.Min), max(high, *p.Max), count+*p.Count
			sum += *p.Mean * float64(*p.Count)
		}
		rows = append(rows, []string{s.Stream + "/" + s.Field, spark(s.Points, out.From, out.To, low, high), number(low), number(sum / float64(count)), number(high),
			number(*s.Points[len(s.Points)-1].Last), strconv.Itoa(count)})
	}
	return table(w, rows)
}

// spark draws the means as blocks of eight heights; a blank is a time without values.
func spark(points []telemetry.Summary, from, to time.Time, low, high float64) string {
	line := []rune(strings.Repeat(" ", sparkWidth))
	for _, p := range points {
		at := int(float64(sparkWidth) * float64(p.Time.Sub(from)) / float64(to.Sub(from)))
		height := 0
		if high > low {
			height = int(math.Round(7 * (*p.Mean - low) / (high - low)))
		}
		line[min(max(at, 0), sparkWidth-1)] = []rune("▁▂▃▄▅▆▇█")[height]
	}
	return string(line)
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }
