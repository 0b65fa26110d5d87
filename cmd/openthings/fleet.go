// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/fleet"
)

const filterHelp = "which devices, such as 'state:commissioned seen:>7d'; docs/reference/filter.md"

func devicesCommand() *cobra.Command {
	r := &remote{}
	c := devicesList("devices", r)
	r.flags(c)
	return c
}

// devicesList is the same as devices and as device list.
func devicesList(use string, r *remote) *cobra.Command {
	var pages paging
	var filter string
	c := &cobra.Command{
		Use: use, Short: "List devices, all or those of a filter", Args: cobra.NoArgs,
		Example: `  openthings devices --filter 'state:commissioned online:no seen:>7d'
  openthings devices --filter 'release:2.4.1 -label.site:ghent' --json`,
		RunE: func(c *cobra.Command, _ []string) error {
			query := url.Values{}
			if filter != "" {
				query.Set("filter", filter)
			}
			return read(c, r, pages.path("/v1/devices", query), func(w io.Writer, p api.Page[fleet.DeviceOut]) error {
				rows := [][]string{{"DEVICE", "SERIAL", "STATE", "ONLINE", "RELEASE", "LABELS"}}
				for _, d := range p.Items {
					rows = append(rows, []string{d.ID, d.Serial, stands(d), yes(d.Presence.Online), d.Release, labels(d.Labels)})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	c.Flags().StringVar(&filter, "filter", "", filterHelp)
	pages.flags(c)
	return c
}

// stands is a device's state, and what it lost its trust with although nobody moved it.
func stands(d fleet.DeviceOut) string {
	if d.Lost == nil {
		return string(d.State)
	}
	return string(d.State) + ", revoked with its " + d.Lost.With()
}

func labels(l map[string]string) string {
	out := make([]string, 0, len(l))
	for _, name := range slices.Sorted(maps.Keys(l)) {
		out = append(out, name+"="+l[name])
	}
	return strings.Join(out, " ")
}

func deviceLabelCommand(r *remote) *cobra.Command {
	var filter string
	c := &cobra.Command{
		Use: "label [DEVICE] NAME=VALUE | NAME- ...", Short: "Set labels of a device, or take them away (NAME-); with --filter of many", Args: cobra.MinimumNArgs(1),
		Example: `  openthings device label dev_… site=ghent line-
  openthings device label --filter 'solution:harbour' site=kiel`,
		RunE: func(c *cobra.Command, args []string) error {
			device := ""
			if filter == "" {
				if err := oneDevice(c, args[:1]); err != nil {
					return err
				}
				device, args = args[0], args[1:]
			}
			l := fleet.Labelling{Set: map[string]string{}}
			for _, a := range args {
				name, value, set := strings.Cut(a, "=")
				bare, remove := strings.CutSuffix(a, "-")
				switch {
				case set:
					l.Set[name] = value
				case remove:
					l.Remove = append(l.Remove, bare)
				default:
					return usageError{fmt.Errorf("%q is neither NAME=VALUE nor NAME-", a)}
				}
			}
			if device != "" {
				return do(c, r, http.MethodPatch, "/v1/devices/"+url.PathEscape(device)+"/labels", l, func(w io.Writer, now map[string]string) error {
					_, err := fmt.Fprintln(w, labels(now))
					return err
				})
			}
			body := struct {
				Filter string `json:"filter"`
				fleet.Labelling
			}{filter, l}
			return do(c, r, http.MethodPost, "/v1/devices/labels", body, func(w io.Writer, b fleet.Bulk) error {
				_, err := fmt.Fprintf(w, "%d of %d devices changed\n", b.Changed, b.Devices)
				return err
			})
		},
	}
	c.Flags().StringVar(&filter, "filter", "", filterHelp)
	return c
}

func deviceConnectionsCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "connections DEVICE", Short: "A device's last connections, and why each ended", Args: oneDevice,
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, "/v1/devices/"+url.PathEscape(args[0])+"/connections", func(w io.Writer, p api.Page[fleet.Connection]) error {
				rows := [][]string{{"FROM", "TO", "NODE", "BECAUSE"}}
				for _, x := range p.Items {
					to := "now"
					if x.To != nil {
						to = instant(*x.To)
					}
					rows = append(rows, []string{instant(x.From), to, x.Node, x.Reason})
				}
				return table(w, rows)
			})
		},
	}
}

func groupCommand() *cobra.Command {
	c, r := group("group", "Groups of devices: a filter with a name, or a list")
	var pages paging
	list := &cobra.Command{
		Use: "list", Short: "Groups in the order of their names", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, pages.path("/v1/groups", nil), func(w io.Writer, p api.Page[fleet.GroupLine]) error {
				rows := [][]string{{"GROUP", "KIND", "FILTER", "FOR"}}
				for _, g := range p.Items {
					rows = append(rows, []string{g.Name, g.Kind, g.Filter, g.Note})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(list)
	c.AddCommand(list, &cobra.Command{
		Use: "show GROUP", Short: "A group, how many devices belong to it, and what uses it", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, groupPath(args[0]), printGroup)
		},
	})
	var note, filter string
	create := &cobra.Command{
		Use: "create NAME", Short: "Make a dynamic group of a filter; without one, a static group", Args: cobra.ExactArgs(1),
		Example: `  openthings group create away --filter 'state:commissioned online:no seen:>7d'
  openthings group create pilot --note 'first to get every release'`,
		RunE: func(c *cobra.Command, args []string) error {
			return do(c, r, http.MethodPost, "/v1/groups", map[string]any{"name": args[0], "note": note, "filter": filter}, printGroup)
		},
	}
	change := &cobra.Command{
		Use: "change GROUP", Short: "Change a group's filter or note", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			body := map[string]any{}
			for name, v := range map[string]string{"note": note, "filter": filter} {
				if c.Flags().Changed(name) {
					body[name] = v
				}
			}
			return do(c, r, http.MethodPatch, groupPath(args[0]), body, printGroup)
		},
	}
	for _, x := range []*cobra.Command{create, change} {
		x.Flags().StringVar(&note, "note", "", "what it is for")
		x.Flags().StringVar(&filter, "filter", "", filterHelp)
		c.AddCommand(x)
	}
	c.AddCommand(&cobra.Command{
		Use: "remove GROUP", Short: "Take a group away that nothing uses; its devices stay", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := r.client()
			if err != nil {
				return err
			}
			return cl.Do(c.Context(), http.MethodDelete, groupPath(args[0]), nil, nil)
		},
	}, membersCommand(r, "add", "Add devices to a static group", false), membersCommand(r, "drop", "Take devices out of a static group", true))
	return c
}

func groupPath(name string) string { return "/v1/groups/" + url.PathEscape(name) }

func printGroup(w io.Writer, g fleet.GroupOut) error {
	more := ""
	if g.More {
		more = " or more"
	}
	fmt.Fprintf(w, "%s  %s  %d devices%s", g.Name, g.Kind, g.Devices, more)
	if g.Filter != "" {
		fmt.Fprintf(w, "  %s", g.Filter)
	}
	for _, u := range g.UsedBy {
		fmt.Fprintf(w, "\nused by %s %s", u.Kind, u.Name)
	}
	_, err := fmt.Fprintln(w)
	return err
}

// membersCommand sends serial numbers in parts: a list of any length is one command.
func membersCommand(r *remote, use, short string, remove bool) *cobra.Command {
	var filter, file, product string
	c := &cobra.Command{
		Use: use + " GROUP [SERIAL...]", Short: short, Args: cobra.MinimumNArgs(1),
		Example: fmt.Sprintf("  openthings group %s pilot SN-0001 SN-0002\n  openthings group %[1]s pilot --file serials.csv\n  openthings group %[1]s pilot --filter 'label.site:ghent'", use),
		RunE: func(c *cobra.Command, args []string) error {
			serials := args[1:]
			if file != "" {
				b, err := os.ReadFile(file)
				if err != nil {
					return usageError{err}
				}
				serials = append(serials, fleet.FirstColumn(string(b))...)
			}
			if (len(serials) > 0) == (filter != "") {
				return usageError{errors.New("name the devices by serial numbers, --file or --filter")}
			}
			cl, err := r.client()
			if err != nil {
				return err
			}
			var all fleet.Members
			parts := slices.Collect(slices.Chunk(serials, fleet.MaxSerials))
			if filter != "" {
				parts = [][]string{nil}
			}
			for _, part := range parts {
				var done fleet.Members
				m := fleet.Membership{Filter: filter, Serials: part, Product: product, Remove: remove}
				if err := cl.Do(c.Context(), http.MethodPost, groupPath(args[0])+"/members", m, &done); err != nil {
					return err
				}
				all.Add(done)
			}
			if r.json {
				return printJSON(c.OutOrStdout(), all)
			}
			fmt.Fprintf(c.OutOrStdout(), "%d of %d devices changed\n", all.Changed, all.Devices)
			for _, u := range all.Unknown {
				fmt.Fprintf(c.OutOrStdout(), "unknown: %s\n", u)
			}
			return nil
		},
	}
	c.Flags().StringVar(&filter, "filter", "", filterHelp)
	c.Flags().StringVar(&file, "file", "", "serial numbers, one on a line, or a table in CSV whose first column they are")
	c.Flags().StringVar(&product, "product", "", "whose serial numbers, where two products have the same")
	return c
}
