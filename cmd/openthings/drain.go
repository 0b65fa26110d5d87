// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/app"
)

// drainCommand empties the MQTT door of a node before it is stopped.
func drainCommand() *cobra.Command {
	var o onHost
	var in app.ElsewhereRequest
	var stop bool
	c := &cobra.Command{
		Use: "drain", Short: "Send the devices of this node to another MQTT door", Args: cobra.NoArgs,
		Long: "Send the devices of this node to another MQTT door. MQTT 5 devices are told where it is (Server Reference, reason\n" +
			"0x9C, with --moved 0x9D); others lose their connection and are refused until the node stops. Sessions go with their\n" +
			"devices when both nodes share a database. The HTTPS door stays open.",
		Example: "  openthings drain --to node2.example.com:8883 --pace 50\n  openthings drain --stop",
		RunE: func(c *cobra.Command, _ []string) error {
			abs, err := filepath.Abs(o.data)
			if err != nil {
				return err
			}
			var a app.ElsewhereAnswer
			if err := app.Host(c.Context(), abs, "/elsewhere", in, &a); err != nil {
				return err
			}
			if o.json {
				return printJSON(c.OutOrStdout(), a)
			}
			if stop {
				fmt.Fprintln(c.OutOrStdout(), "devices may stay again")
				return nil
			}
			fmt.Fprintf(c.OutOrStdout(), "%d devices were sent to %s; whoever connects from now on follows them\n", a.Told, in.Server)
			return nil
		},
	}
	o.flags(c)
	f := c.Flags()
	f.StringVar(&in.Server, "to", "", "host:port of the other MQTT door")
	f.BoolVar(&in.Moved, "moved", false, "for good: devices should remember the new address")
	f.IntVar(&in.Pace, "pace", 100, "devices a second; 0: all at once")
	f.BoolVar(&stop, "stop", false, "take the order back")
	c.MarkFlagsOneRequired("to", "stop")
	c.MarkFlagsMutuallyExclusive("to", "stop")
	return c
}
