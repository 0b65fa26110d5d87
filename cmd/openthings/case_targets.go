// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/respond"
)

// caseTargetsCommand shows the house's own limits for signals and cases.
func caseTargetsCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "targets", Short: "The house's own limits for signals and cases", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, "/v1/case-targets", func(w io.Writer, t respond.Targets) error {
				return table(w, [][]string{{"LIMIT", "VALUE"},
					{"decide about a signal, hours after it came in", strconv.Itoa(t.AssessmentHours)},
					{"early warning, hours after T0", strconv.Itoa(t.EarlyWarningHours)},
					{"notification, hours after T0", strconv.Itoa(t.NotificationHours)},
					{"final report, days after its anchor", strconv.Itoa(t.FinalDays)},
					{"inform impacted users, hours after T0", strconv.Itoa(t.UsersHours)}})
			})
		},
	}
}
