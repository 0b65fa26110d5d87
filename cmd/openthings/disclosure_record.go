// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/respond/disclosure"
)

func deskRecordCommand(r *remote) *cobra.Command {
	var newest int
	c := &cobra.Command{
		Use: "record", Short: "The newest reports beside the policy that each came under", Args: cobra.NoArgs,
		Long: "The newest reports beside the policy that each came under: hours from the report to the acknowledgement, the verdict, the fix\n" +
			"and the publication, and whether the promise was kept.",
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, fmt.Sprintf("/v1/disclosure/record?newest=%d", newest), func(w io.Writer, p api.Page[disclosure.DeskRecord]) error {
				rows := [][]string{{"REPORT", "RECEIVED", "STATE", "ACKNOWLEDGED", "VERDICT", "FIX", "PUBLIC", "POLICY"}}
				for _, x := range p.Items {
					rows = append(rows, []string{x.Report, instant(x.Received), string(x.Status), went(x.Acknowledge), went(x.Triage), went(x.Fix), went(x.Publication), fmt.Sprint(x.Policy)})
				}
				return table(w, rows)
			})
		},
	}
	c.Flags().IntVar(&newest, "newest", 10, "how many, at most 100")
	return c
}

// went is a step in a table: how long it took and whether that was promised.
func went(s disclosure.DeskStep) string {
	if s.At.IsZero() {
		return string(s.Outcome)
	}
	return fmt.Sprintf("%g h, %s", s.Hours, s.Outcome)
}
