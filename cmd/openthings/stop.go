// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/vuln"
)

func stopCommand() *cobra.Command {
	c, r := group("stop", "Stop-ship: no new unit with exploited software gets an identity")
	var pages paging
	var all bool
	var of string
	list := &cobra.Command{
		Use: "list", Short: "What is stopped, why, and by whom", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			q := url.Values{}
			if all {
				q.Set("all", "true")
			}
			if of != "" {
				q.Set("product", of)
			}
			return read(c, r, pages.path("/v1/stops", q), func(w io.Writer, p api.Page[vuln.Stop]) error {
				rows := [][]string{{"ID", "PRODUCT", "SINCE", "BECAUSE OF", "HOLDS", "REASON", "BY", "LIFTED"}}
				for _, x := range p.Items {
					lifted := "no"
					if !x.Stands() {
						lifted = instant(x.Lifted) + " by " + x.LiftedBy + ": " + x.Why
					}
					rows = append(rows, []string{x.ID, x.Product, instant(x.Since), x.Cause, x.Words(), x.Reason, x.By, lifted})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(list)
	list.Flags().BoolVar(&all, "all", false, "also what was lifted")
	list.Flags().StringVar(&of, "product", "", "only of this product")

	var in vuln.Stopping
	set := &cobra.Command{
		Use: "set PRODUCT --reason TEXT", Short: "Stop the making of units: none that matches gets a new identity", Args: cobra.ExactArgs(1),
		Long: "Stop the making of units. Line stations, tokens, trusted CAs, claims, approvals and first enrolments are refused by the\n" +
			"rule enroll.hold until a person lifts the stop. Devices in the field renew as before: that is how they get the fix.\n" +
			"Without a vulnerability and releases every unit of the product is held.",
		Example: `  openthings stop set prd_… --vulnerability CVE-2023-44487 --reason 'being exploited'
  openthings stop set prd_… --batch bat_… --reason 'wrong flash image'`,
		RunE: func(c *cobra.Command, args []string) error {
			in.Product = args[0]
			return do(c, r, http.MethodPost, "/v1/stops", in, func(w io.Writer, x vuln.Stop) error {
				fmt.Fprintf(w, "%s: stopped %s. Lift it: openthings stop lift %s --reason TEXT\n", x.ID, x.Words(), x.ID)
				return nil
			})
		},
	}
	f := set.Flags()
	f.StringVar(&in.Vulnerability, "vulnerability", "", "units with the releases that have an open finding of it")
	f.StringSliceVar(&in.Releases, "release", nil, "units with the image of this release; may be repeated")
	f.StringVar(&in.Batch, "batch", "", "only units of this batch")
	f.StringVar(&in.Origin, "origin", "", "only units of this line station, trusted CA or token")
	f.StringVar(&in.Reason, "reason", "", "why; people at the line are told")

	var why string
	lift := &cobra.Command{
		Use: "lift ID --reason TEXT", Short: "Lift a stop: units get identities again", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return do(c, r, http.MethodPost, "/v1/stops/"+url.PathEscape(args[0])+"/lift", map[string]string{"reason": why}, func(w io.Writer, x vuln.Stop) error {
				fmt.Fprintf(w, "%s: lifted, units get identities again\n", x.ID)
				return nil
			})
		},
	}
	lift.Flags().StringVar(&why, "reason", "", "why; kept in the audit log")

	policy := &cobra.Command{
		Use: "policy PRODUCT [off|ask|automatic]", Short: "Show or set what happens when a release turns out to be exploited", Args: cobra.RangeArgs(1, 2),
		Long: "Show or set what happens to the making of units when a release of the product has an open finding that is known as\n" +
			"exploited: off (nothing), ask (a person is asked on Today), automatic (it is stopped at once, also what is exploited already).",
		RunE: func(c *cobra.Command, args []string) error {
			path := "/v1/products/" + url.PathEscape(args[0]) + "/stop-policy"
			say := func(w io.Writer, p vuln.StopSetting) error {
				fmt.Fprintln(w, p.Policy)
				return nil
			}
			if len(args) == 1 {
				return read(c, r, path, say)
			}
			return do(c, r, http.MethodPut, path, map[string]string{"policy": args[1]}, say)
		},
	}
	c.AddCommand(list, set, lift, policy)
	return c
}
