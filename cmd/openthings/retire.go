// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"fmt"
	"io"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/retire"
)

// retireCommands are the two ends of a device, its own and ours, and how far it is between them.
func retireCommands(r *remote) []*cobra.Command {
	path := func(device string) string { return "/v1/devices/" + url.PathEscape(device) }
	var reason string
	var unwiped bool
	decommission := &cobra.Command{
		Use: "decommission DEVICE --reason TEXT", Short: "Ask a device to wipe itself and to prove it", Args: oneDevice,
		Long: "Ask a device to wipe itself and to sign a receipt for it. With its receipt its certificates end for ever and its sessions\n" +
			"are cut. A device that is offline is asked when it is back; asked again, it gets a new command once the one before has\n" +
			"ended without a receipt.",
		RunE: func(c *cobra.Command, args []string) error {
			return send(c, r, path(args[0])+"/decommission", map[string]any{"reason": reason}, printRetirement)
		},
	}
	deprovision := &cobra.Command{
		Use: "deprovision DEVICE --reason TEXT", Short: "Revoke a device for ever, erase its data and keep the evidence", Args: oneDevice,
		Long: "Revoke a device for ever, cut its sessions and destroy the key of its data: what it measured, what it was asked and\n" +
			"answered, and what it should be like are unreadable, in every backup from the day that is shown. The register, its\n" +
			"certificates, what ran on it and the log stay. It is refused until the device has proven that it wiped itself, unless\n" +
			"--without-wipe says that it is lost or broken.",
		Example: `  openthings device decommission dev_… --reason 'sold the mast'
  openthings device retirement dev_…
  openthings device deprovision dev_… --reason 'sold the mast'
  openthings device deprovision dev_… --reason 'fell into the harbour' --without-wipe`,
		RunE: func(c *cobra.Command, args []string) error {
			return send(c, r, path(args[0])+"/deprovision", map[string]any{"reason": reason, "without_wipe": unwiped}, printRetirement)
		},
	}
	for _, c := range []*cobra.Command{decommission, deprovision} {
		c.Flags().StringVar(&reason, "reason", "", "why, for the log")
		c.MarkFlagRequired("reason") //nolint:errcheck // the flag is there
	}
	deprovision.Flags().BoolVar(&unwiped, "without-wipe", false, "the device is lost or broken and cannot wipe itself")
	show := &cobra.Command{
		Use: "retirement DEVICE", Short: "How far a device is on its last way: wipe, receipt, steps, erasure", Args: oneDevice,
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, path(args[0])+"/retirement", printRetirement)
		},
	}
	return []*cobra.Command{decommission, deprovision, show}
}

func printRetirement(w io.Writer, t retire.Retirement) error {
	fmt.Fprintf(w, "%s is %s\n", t.Device, t.State)
	if x := t.Wipe; x != nil {
		said := string(x.State)
		if x.Problem != "" {
			said += ": " + x.Problem
		}
		fmt.Fprintf(w, "asked to wipe itself %s by %s: %s\n", instant(x.Asked), x.Actor, said)
		if x.Signed != nil {
			fmt.Fprintf(w, "proven by its receipt of %s\n", instant(x.Answered))
		}
	}
	if t.Tombstone == nil {
		return nil
	}
	rows := [][]string{{"STEP", "AT", "WHAT"}}
	for _, s := range t.Tombstone.Steps {
		rows = append(rows, []string{s.Name, instant(s.At), s.Detail})
	}
	return table(w, rows)
}
