// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/respond"
)

// anomalyCommand makes what the platform saw a signal.
func anomalyCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "suspect alarm|clone|chain ID", Short: "Make an alarm, a suspected clone or a device's broken chain a signal, which a person assesses as a security incident", Args: cobra.ExactArgs(2),
		Example: `  openthings case suspect alarm alm_…
  openthings case suspect chain dev_…`,
		RunE: func(c *cobra.Command, args []string) error {
			return do(c, r, http.MethodPost, "/v1/anomalies/"+url.PathEscape(args[0])+"/"+url.PathEscape(args[1])+"/signal", nil, func(w io.Writer, x respond.Signal) error {
				_, err := fmt.Fprintf(w, "%s  %s\nto be decided by %s, at /signals/%s\n", x.ID, x.Title, instant(x.DecideBy), x.ID)
				return err
			})
		},
	}
}
