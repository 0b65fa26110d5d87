// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/problem"
)

func twinCommand() *cobra.Command {
	c, r := group("twin", "What a device shall be like, and what it says that it is like")
	get := &cobra.Command{
		Use: "get DEVICE", Short: "A device's twin", Args: oneDevice,
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, twinPath(args[0]), printTwin)
		},
	}
	var whole bool
	var seen int64
	set := &cobra.Command{
		Use: "set DEVICE PATCH", Short: "Change what a device shall be like", Args: cobra.ExactArgs(2),
		Long: "Change what a device shall be like. PATCH is a merge patch (RFC 7396): JSON, @FILE, or - for standard input. null\n" +
			"removes a member. The device hears of it at once, or when it is back.",
		Example: `  openthings twin set $DEVICE '{"telemetry":{"interval_s":60}}'
  openthings twin set $DEVICE @lamp.json --replace --if-version 7`,
		RunE: func(c *cobra.Command, args []string) error {
			doc, err := document(args[1], c.InOrStdin())
			if err != nil {
				return err
			}
			cl, err := r.client()
			if err != nil {
				return err
			}
			method, header := http.MethodPatch, []string{"Content-Type", "application/merge-patch+json"}
			if whole {
				method, header = http.MethodPut, []string{"Content-Type", "application/json"}
			}
			if c.Flags().Changed("if-version") {
				header = append(header, "If-Match", fmt.Sprintf("%q", fmt.Sprint(seen)))
			}
			var raw json.RawMessage
			if err := cl.Do(c.Context(), method, twinPath(args[0]), io.Reader(strings.NewReader(string(doc))), &raw, header...); err != nil {
				return err
			}
			return show(c, r, raw, printTwin)
		},
	}
	set.Flags().BoolVar(&whole, "replace", false, "PATCH is all that is desired, not a change of it")
	set.Flags().Int64Var(&seen, "if-version", 0, "refuse unless this version is desired now")
	var pages, latePages paging
	history := &cobra.Command{
		Use: "history DEVICE", Short: "What was desired of a device, the newest first", Args: oneDevice,
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, pages.path(twinPath(args[0])+"/changes", nil), func(w io.Writer, p api.Page[fleet.Change]) error {
				rows := [][]string{{"VERSION", "AT", "BY", "CHANGE"}}
				for _, x := range p.Items {
					rows = append(rows, []string{fmt.Sprint(x.Version), instant(x.At), x.Actor, string(x.Patch)})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(history)
	behind := &cobra.Command{
		Use: "behind", Short: "Devices that do not go by what is desired of them yet", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, latePages.path("/v1/twins/behind", nil), func(w io.Writer, p api.Page[fleet.Late]) error {
				rows := [][]string{{"DEVICE", "SERIAL", "GOES BY", "DESIRED", "SINCE", "ERROR"}}
				for _, l := range p.Items {
					rows = append(rows, []string{l.Device, l.Serial, fmt.Sprint(l.Applied), fmt.Sprint(l.DesiredVersion), instant(l.Since), l.Error})
				}
				return latePages.table(w, rows, p.Next)
			})
		},
	}
	latePages.flags(behind)
	c.AddCommand(get, set, history, behind)
	return c
}

func twinPath(device string) string { return "/v1/devices/" + url.PathEscape(device) + "/twin" }

// document reads JSON from the argument, from @FILE, or from standard input.
func document(arg string, stdin io.Reader) (json.RawMessage, error) {
	b := []byte(arg)
	var err error
	if path, isFile := strings.CutPrefix(arg, "@"); isFile {
		b, err = readInput("PATCH", path)
	} else if arg == "-" {
		b, err = io.ReadAll(stdin)
	}
	if err == nil && !json.Valid(b) {
		err = problem.Invalid("the document is not JSON").At("PATCH")
	}
	return b, err
}

func printTwin(w io.Writer, t fleet.Twin) error {
	state := fmt.Sprintf("the device goes by version %d", t.Applied)
	switch {
	case t.Failed > 0:
		state += fmt.Sprintf("; it could not apply version %d: %s", t.Failed, t.Error)
	case t.Behind != nil:
		state += "; it is behind since " + instant(*t.Behind)
	}
	fmt.Fprintf(w, "desired (version %d): ", t.DesiredVersion)
	if err := printJSON(w, t.Desired); err != nil {
		return err
	}
	fmt.Fprint(w, "reported: ")
	if err := printJSON(w, t.Reported); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, state)
	return err
}
