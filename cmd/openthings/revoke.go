// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/app"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
)

// revokeCommand ends trust: in one device, or in everything that an authority, station, batch or trusted CA brought.
func revokeCommand() *cobra.Command {
	r, o := &remote{}, &onHost{}
	var device, station, batch, ca, authority, reason string
	var dry bool
	c := &cobra.Command{
		Use: "revoke --reason TEXT", Short: "End the trust in a device, or in all that a station, batch, trusted CA or authority brought", Args: cobra.NoArgs,
		Long: "End the trust in a device, or in everything that a line station, a batch, a trusted CA or one of the platform's own\n" +
			"authorities brought. It is effective at once on every node, live connections are cut within a second, and all but\n" +
			"--device is for ever. --authority is for whoever administers the machine: it goes through the socket in --data.",
		Example: `  openthings revoke --station sta_… --reason 'stolen from line 3' --dry-run
  openthings revoke --station sta_… --reason 'stolen from line 3'
  openthings revoke --authority operational-2 --reason 'its key leaked' --data /var/lib/openthings`,
		RunE: func(c *cobra.Command, _ []string) error {
			for _, x := range []struct {
				scope identity.Scope
				id    string
			}{{identity.ScopeStation, station}, {identity.ScopeBatch, batch}, {identity.ScopeCA, ca}} {
				if x.id != "" {
					return revokeOrigin(c, r, x.scope, x.id, reason, dry)
				}
			}
			if authority != "" {
				o.json = r.json
				if dry {
					return ask(c, o, "reach", app.CARequest{ID: authority}, printReach)
				}
				return compromise(c, o, authority, reason)
			}
			if dry {
				return problem.Invalid("--dry-run counts what a station, batch, CA or authority brought; a device is one").At("--dry-run")
			}
			return send(c, r, "/v1/devices/"+url.PathEscape(device)+"/revoke", map[string]string{"reason": reason}, func(w io.Writer, d identity.Device) error {
				fmt.Fprintf(w, "%s: its operational certificates are revoked\n", d.ID)
				if !d.State.Barred() {
					fmt.Fprintf(w, "It may enrol again with its birth certificate. To lock it out: openthings api POST /v1/devices/%s/suspend reason=…\n", d.ID)
				}
				return nil
			})
		},
	}
	r.flags(c)
	f := c.Flags()
	f.StringVar(&device, "device", "", "a device; it may enrol again with its IDevID unless it is retired")
	f.StringVar(&station, "station", "", "a line station, and every unit that it made")
	f.StringVar(&batch, "batch", "", "every device of a batch")
	f.StringVar(&ca, "trusted-ca", "", "all that a trusted manufacturer CA brought")
	f.StringVar(&authority, "authority", "", "all that one of the platform's authorities signed")
	f.StringVar(&reason, "reason", "", "why, for the log")
	f.BoolVar(&dry, "dry-run", false, "only count what it would hit")
	f.StringVar(&o.data, "data", defaultData(), "for --authority: the platform's data folder ($OPENTHINGS_DATA_DIR)")
	c.MarkFlagsOneRequired("device", "station", "batch", "trusted-ca", "authority")
	c.MarkFlagsMutuallyExclusive("device", "station", "batch", "trusted-ca", "authority")
	c.MarkFlagsOneRequired("reason", "dry-run")
	return c
}

func revokeOrigin(c *cobra.Command, r *remote, scope identity.Scope, id, reason string, dry bool) error {
	if dry {
		return read(c, r, "/v1/revocations/preview?"+url.Values{"scope": {string(scope)}, "id": {id}}.Encode(), printReach)
	}
	return send(c, r, "/v1/revocations", map[string]string{"scope": string(scope), "id": id, "reason": reason}, printBar)
}

// send posts in and prints the API's JSON with --json, or what human writes.
func send[T any](c *cobra.Command, r *remote, path string, in any, human func(w io.Writer, v T) error) error {
	cl, err := r.client()
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if err := cl.Do(c.Context(), http.MethodPost, path, in, &raw); err != nil {
		return err
	}
	return show(c, r, raw, human)
}

func printReach(w io.Writer, x identity.Reach) error {
	_, err := fmt.Fprintf(w, "it would hit %s with %s not revoked yet\n", console.Plural(x.Devices, "device", "devices"), console.Plural(x.Certificates, "certificate", "certificates"))
	return err
}

func printBar(w io.Writer, b identity.Bar) error {
	state := "revoking one by one"
	if !b.Finished.IsZero() {
		state = "done"
	}
	_, err := fmt.Fprintf(w, "%s %s is refused since %s; %d certificates revoked, %s\n", b.Scope, b.ID, instant(b.At), b.Certificates, state)
	return err
}

// revocationsCommand tells what was revoked as a whole, how far that is, and how the published lists stand.
func revocationsCommand() *cobra.Command {
	c, r := group("revocations", "What was revoked as a whole, and the published revocation lists")
	var pages paging
	list := &cobra.Command{
		Use: "list", Short: "What was revoked as a whole, with progress", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, pages.path("/v1/revocations", nil), func(w io.Writer, p api.Page[identity.Bar]) error {
				rows := [][]string{{"SCOPE", "ID", "SINCE", "CERTIFICATES", "DONE", "REASON"}}
				for _, b := range p.Items {
					rows = append(rows, []string{string(b.Scope), b.ID, instant(b.At), fmt.Sprint(b.Certificates), yes(!b.Finished.IsZero()), b.Reason})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(list)
	one := &cobra.Command{
		Use: "show SCOPE ID", Short: "How far one revocation is", Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, "/v1/revocations/"+url.PathEscape(args[0])+"/"+url.PathEscape(args[1]), printBar)
		},
	}
	lists := &cobra.Command{
		Use: "lists", Short: "How the published revocation lists stand; exit 1 if they raise the alarm", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, "/v1/revocation-lists", func(w io.Writer, l identity.ListState) error {
				next := "no list is due"
				if !l.Next.IsZero() {
					next = "the first ends at " + instant(l.Next)
				}
				fmt.Fprintf(w, "%d lists; %d certificates are revoked; %s\n", l.Lists, l.Revoked, next)
				if l.Alarm != "" {
					fmt.Fprintln(w, "ALARM:", l.Alarm)
					return exitCode(1)
				}
				return nil
			})
		},
	}
	c.AddCommand(list, one, lists)
	return c
}
