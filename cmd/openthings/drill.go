// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/respond/oncall"
)

// drillCommands are those of case that concern being ready before there is one.
func drillCommands(r *remote) []*cobra.Command {
	return []*cobra.Command{
		{Use: "readiness", Short: "What must be there before the first 24 hours begin, and whether it is", Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				return read(c, r, "/v1/reporting-readiness", func(w io.Writer, v respond.Readiness) error {
					fmt.Fprintf(w, "%d of %d\n", v.Done, v.Of)
					for _, i := range v.Items {
						mark := "-"
						if i.Done {
							mark = "+"
						}
						fmt.Fprintf(w, "%s %s", mark, i.Text)
						if i.Note != "" {
							fmt.Fprintf(w, " (%s)", i.Note)
						}
						fmt.Fprintln(w)
					}
					return nil
				})
			}},
		{Use: "drills", Short: "Drills with their scores, newest first", Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				return read(c, r, "/v1/drills", func(w io.Writer, v api.Page[respond.Drill]) error {
					t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
					for _, d := range v.Items {
						state := fmt.Sprintf("%d of %d", d.Score.Points, d.Score.Of)
						if d.Running() {
							state = "runs"
						}
						fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", d.ID, d.Started.UTC().Format("2006-01-02 15:04 UTC"), state, d.ProductName, d.Scenario)
					}
					return t.Flush()
				})
			}},
		{Use: "on-call", Short: "Who is called when a clock is near its end", Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				return read(c, r, "/v1/on-call", func(w io.Writer, v oncall.OnCall) error {
					if v.Rota == nil {
						fmt.Fprintln(w, "nobody: there is no rota")
						return nil
					}
					for i, p := range v.People {
						fmt.Fprintf(w, "%d %s\n", i+1, p.Name)
					}
					fmt.Fprintf(w, "until %s\n", v.To.UTC().Format("2006-01-02 15:04 UTC"))
					return nil
				})
			}},
	}
}
