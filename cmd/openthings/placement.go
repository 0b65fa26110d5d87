// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
)

// placementFlags add the two ways to say when units were placed on the market.
func placementFlags(c *cobra.Command, p *product.Placement) {
	c.Flags().StringVar((*string)(&p.Placed), "placed", "", "day of placing on the market, such as 2027-03-01")
	c.Flags().StringVar(&p.Cohort, "cohort", "", "placement cohort, in place of the day")
	c.MarkFlagsOneRequired("placed", "cohort")
	c.MarkFlagsMutuallyExclusive("placed", "cohort")
}

func batchPlaceCommand(r *remote) *cobra.Command {
	var p product.Placement
	c := &cobra.Command{
		Use: "place BATCH", Short: "Say when the units of a batch were placed on the market, or their cohort: it decides until when they are supported", Args: cobra.ExactArgs(1),
		Example: "  openthings batch place bat_… --placed 2027-03-01",
		RunE: func(c *cobra.Command, args []string) error {
			return do(c, r, http.MethodPut, "/v1/batches/"+url.PathEscape(args[0])+"/placement", p, func(w io.Writer, x product.Placement) error {
				_, err := fmt.Fprintf(w, "%s: %s%s\n", args[0], x.Placed, x.Cohort)
				return err
			})
		},
	}
	placementFlags(c, &p)
	return c
}

// deviceSupportCommands say until when a device is supported, and when it was placed.
func deviceSupportCommands(r *remote) []*cobra.Command {
	path := func(device string) string { return "/v1/devices/" + url.PathEscape(device) }
	var p product.Placement
	place := &cobra.Command{
		Use: "place DEVICE", Short: "Say when a device was placed on the market, or its cohort", Args: oneDevice,
		RunE: func(c *cobra.Command, args []string) error {
			return do(c, r, http.MethodPut, path(args[0])+"/placement", p, printUnitSupport)
		},
	}
	placementFlags(place, &p)
	return []*cobra.Command{place, {
		Use: "support DEVICE", Short: "Until when a device is supported, why, and what comes next", Args: oneDevice,
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, path(args[0])+"/support", printUnitSupport)
		},
	}}
}

func printUnitSupport(w io.Writer, s product.UnitSupport) error {
	if s.Cohort != "" {
		fmt.Fprintf(w, "supported until %s (%d months left)\n", instant(s.Until), s.Months)
	}
	_, err := fmt.Fprintf(w, "%s\n%s\n", s.Why, s.Next)
	return err
}

func productPlaceCommand(r *remote) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "place PRODUCT --file FILE", Short: "Say when units were placed on the market, by serial number", Args: cobra.ExactArgs(1),
		Long: "Say when units were placed on the market, by serial number. The file is CSV; its first line names the columns serial and\n" +
			"placed, or serial and cohort. Units are placed in lots of 1,000; each lot is placed whole or not at all.",
		Example: "  openthings product place $PRODUCT --file shipped.csv",
		RunE: func(c *cobra.Command, args []string) error {
			f, err := os.Open(file)
			if err != nil {
				return problem.Invalid("%s cannot be read", file).At("--file").Because(err)
			}
			defer f.Close()
			cl, err := r.client()
			if err != nil {
				return err
			}
			n, lots := 0, placements(f)
			for units, err := range lots {
				if err != nil {
					return err
				}
				if err := cl.Do(c.Context(), http.MethodPost, "/v1/products/"+url.PathEscape(args[0])+"/placements", map[string]any{"units": units}, nil); err != nil {
					return errors.Join(err, fmt.Errorf("%d units were placed before", n))
				}
				n += len(units)
			}
			if r.json {
				return printJSON(c.OutOrStdout(), enroll.Placed{Units: n})
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%d units are placed\n", n)
			return err
		},
	}
	c.Flags().StringVar(&file, "file", "", "CSV file with the columns serial and placed, or serial and cohort")
	cobra.CheckErr(c.MarkFlagRequired("file"))
	return c
}

// placements reads lots of units from CSV, as they come.
func placements(from io.Reader) func(yield func([]enroll.UnitPlacement, error) bool) {
	return func(yield func([]enroll.UnitPlacement, error) bool) {
		rows := csv.NewReader(from)
		head, err := rows.Read()
		serial, placed, cohort := slices.Index(head, "serial"), slices.Index(head, "placed"), slices.Index(head, "cohort")
		if err != nil || serial < 0 || placed < 0 && cohort < 0 {
			yield(nil, problem.Invalid("The first line names the columns serial and placed, or serial and cohort.").At("--file").Because(err))
			return
		}
		var lot []enroll.UnitPlacement
		for {
			row, err := rows.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				yield(nil, problem.Invalid("The file is no CSV.").At("--file").Because(err))
				return
			}
			u := enroll.UnitPlacement{Serial: row[serial]}
			if placed >= 0 {
				u.Placed = product.Day(row[placed])
			}
			if cohort >= 0 {
				u.Cohort = row[cohort]
			}
			if lot = append(lot, u); len(lot) == enroll.MaxPlacements {
				if !yield(lot, nil) {
					return
				}
				lot = nil
			}
		}
		if len(lot) > 0 {
			yield(lot, nil)
		}
	}
}
