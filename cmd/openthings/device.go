// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/telemetry"
)

func deviceCommand() *cobra.Command {
	c, r := group("device", "Devices")
	passport := &cobra.Command{
		Use: "show DEVICE", Short: "A device's passport: state, identity, what ran on it", Args: oneDevice,
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, "/v1/devices/"+url.PathEscape(args[0]), func(w io.Writer, d fleet.PassportOut) error {
				fmt.Fprintf(w, "%s  serial %s  %s", d.ID, d.Serial, strings.ToUpper(string(d.State)))
				if d.State == identity.Suspended && d.Reason != "" {
					fmt.Fprintf(w, ": %s", d.Reason)
				}
				if l := d.Lost; l != nil {
					fmt.Fprintf(w, "\nrevoked with its %s %s since %s: %s", l.With(), called(l.ID, d.Names), instant(l.At), l.Reason)
				}
				if how := howMade(d); how != "" {
					fmt.Fprintf(w, "\nmade: %s", how)
				}
				if fmt.Fprintln(w); len(d.History) == 0 {
					_, err := fmt.Fprintln(w, "no known release has run on it")
					return err
				}
				rows := [][]string{{"RAN", "FROM", "TO"}}
				for _, i := range d.History {
					to := "now"
					if i.To != nil {
						to = instant(*i.To)
					}
					rows = append(rows, []string{i.Release, instant(i.From), to})
				}
				return table(w, rows)
			})
		},
	}
	telemetryOf := &cobra.Command{
		Use: "telemetry DEVICE", Short: "What a device said last, and what of it was lost or refused", Args: oneDevice,
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, "/v1/devices/"+url.PathEscape(args[0])+"/telemetry/latest", printLatest)
		},
	}
	certificates := &cobra.Command{
		Use: "certificates DEVICE", Short: "Its certificates: of birth (IDevID) and of operation (LDevID)", Args: oneDevice,
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, "/v1/devices/"+url.PathEscape(args[0])+"/certificates", func(w io.Writer, p api.Page[identity.Certificate]) error {
				rows := [][]string{{"KIND", "PHASE", "FROM", "UNTIL", "AUTHORITY", "SERIAL", "REASON"}}
				for _, x := range p.Items {
					rows = append(rows, []string{string(x.Kind), string(x.Phase), instant(x.NotBefore), instant(x.NotAfter), x.Authority, x.Serial, x.Reason})
				}
				return table(w, rows)
			})
		},
	}
	c.AddCommand(devicesList("list", r), passport, certificates, telemetryOf, deviceLabelCommand(r), deviceConnectionsCommand(r), deviceTransferCommand(r), securityCommand(r))
	c.AddCommand(retireCommands(r)...)
	c.AddCommand(deviceSupportCommands(r)...)
	c.AddCommand(deviceDataCommand(r), configurationCommand(r), deviceNotices(r))
	return c
}

// oneDevice wants the id of a device; people have its serial number at hand first.
func oneDevice(c *cobra.Command, args []string) error {
	if err := cobra.ExactArgs(1)(c, args); err != nil {
		return err
	}
	if !strings.HasPrefix(args[0], "dev_") {
		return usageError{fmt.Errorf("%q is not the id of a device, which begins with dev_; openthings device list has it beside the serial number", args[0])}
	}
	return nil
}

// howMade says what a filter can ask of a device's making, in its words.
func howMade(d fleet.PassportOut) string {
	m := cmp.Or(d.Making, &enroll.Making{})
	var out []string
	for _, f := range [][2]string{{"order", m.Order}, {"line", m.Line}, {"part", m.Part}, {"batch", called(d.Batch, d.Names)}, {"station", called(m.Station, d.Names)}} {
		if f[1] != "" {
			out = append(out, f[0]+" "+f[1])
		}
	}
	return strings.Join(out, ", ")
}

// called is an id with what people call it.
func called(id string, names map[string]string) string {
	if name := names[id]; name != "" {
		return fmt.Sprintf("%q (%s)", name, id)
	}
	return id
}

func printLatest(w io.Writer, l telemetry.Latest) error {
	rows := [][]string{{"STREAM", "VALUE", "SAID", "AT"}}
	for _, s := range l.Streams {
		for _, name := range slices.Sorted(maps.Keys(s.Values)) {
			rows = append(rows, []string{s.Stream, name, fmt.Sprint(s.Values[name]), instant(s.Time)})
		}
	}
	if err := table(w, rows); err != nil {
		return err
	}
	if l.Missing > 0 {
		fmt.Fprintf(w, "%d messages did not arrive, by the device's own count\n", l.Missing)
	}
	if l.Refused > 0 {
		fmt.Fprintf(w, "%d payloads were refused, the last because: %s\n", l.Refused, l.Reason)
	}
	for _, h := range l.Holes {
		fmt.Fprintf(w, "missing: messages %d to %d of start %d\n", h.From, h.To, h.Boot)
	}
	for _, d := range l.Dropped {
		fmt.Fprintf(w, "dropped: %d values of %s/%s (rule %s), the last %s\n", d.Count, d.Stream, d.Field, d.Rule, instant(d.Last))
	}
	return nil
}
