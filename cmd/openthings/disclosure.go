// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/respond/disclosure"
)

func disclosureCommand() *cobra.Command {
	c, r := group("disclosure", "Reports of finders, the disclosure policy and security.txt")
	var pages paging
	list := &cobra.Command{
		Use: "list", Short: "Reports, the newest first, with the timer that ends next", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, pages.path("/v1/disclosure/reports", nil), func(w io.Writer, p api.Page[disclosure.Report]) error {
				rows := [][]string{{"REPORT", "STATE", "RECEIVED", "NEXT", "DUE", "SUBJECT"}}
				for _, x := range p.Items {
					next, due := "none", "-"
					if x.Next != nil {
						next, due = string(x.Next.Name), instant(x.Next.Due)
					}
					rows = append(rows, []string{x.ID, states(x), instant(x.Received), next, due, subject(x)})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(list)
	get := &cobra.Command{
		Use: "show REPORT", Short: "A report with its timers and events; what the finder wrote is read by a person in the console", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, "/v1/disclosure/reports/"+url.PathEscape(args[0]), printFinderReport)
		},
	}
	policy := &cobra.Command{
		Use: "policy", Short: "The disclosure policy in force", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, "/v1/disclosure/policy", func(w io.Writer, p disclosure.Policy) error {
				_, err := fmt.Fprintf(w, "version %d: acknowledged within %d working days (%s), verdict within %d days, an answer every %d days, public after %d days; in %s\n",
					p.Version, p.Acknowledge, p.Zone, p.Triage, p.Status, p.Disclosure, strings.Join(p.Languages, ", "))
				return err
			})
		},
	}
	c.AddCommand(list, get, policy, securityTxtCommand(r), figuresCommand(r), deskRecordCommand(r))
	return c
}

// states is the state with what stands beside it.
func states(x disclosure.Report) string {
	out := string(x.Status)
	for _, s := range x.Sides {
		out += "+" + string(s)
	}
	return out
}

func subject(x disclosure.Report) string {
	if x.Withheld {
		return "(under embargo)"
	}
	return x.Subject
}

func printFinderReport(w io.Writer, x disclosure.Report) error {
	fmt.Fprintf(w, "%s %s %s, received %s\n", x.ID, states(x), subject(x), instant(x.Received))
	rows := [][]string{{"TIMER", "DUE", "MET"}}
	for _, t := range x.Timers {
		met := "open"
		if !t.Met.IsZero() {
			met = instant(t.Met)
		}
		rows = append(rows, []string{string(t.Name), instant(t.Due), met})
	}
	if err := table(w, rows); err != nil {
		return err
	}
	rows = [][]string{{"AT", "EVENT", "WHO", "NOTE"}}
	for _, e := range x.Events {
		rows = append(rows, []string{instant(e.Recorded), string(e.Kind), e.Actor, e.Note})
	}
	return table(w, rows)
}

func securityTxtCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "securitytxt [HOST]", Short: "Sign a security.txt for a site of your own and print it, or list those that were signed", Args: cobra.MaximumNArgs(1),
		Long: "Sign a security.txt for a site of your own and print it; without a name, list the files and when they end. Put it there as /.well-known/security.txt. What this platform\n" +
			"serves renews itself; this file cannot, so people are told 30 days before it ends.",
		Example: `  openthings disclosure securitytxt lumen.example > security.txt`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return read(c, r, "/v1/disclosure/securitytxt", func(w io.Writer, p api.Page[disclosure.Signed]) error {
					rows := [][]string{{"SITE", "SIGNED", "ENDS"}}
					for _, x := range p.Items {
						rows = append(rows, []string{cmp.Or(x.Host, "(this platform)"), instant(x.Made), instant(x.Expires)})
					}
					return table(w, rows)
				})
			}
			return do(c, r, http.MethodPost, "/v1/disclosure/securitytxt", map[string]any{"host": args[0]}, func(w io.Writer, x disclosure.Signed) error {
				_, err := io.WriteString(w, x.Body)
				return err
			})
		},
	}
}

func figuresCommand(r *remote) *cobra.Command {
	var year int
	c := &cobra.Command{
		Use: "figures", Short: "How many reports came in a year, and how long answers took", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			path := "/v1/disclosure/figures"
			if year != 0 {
				path += fmt.Sprintf("?year=%d", year)
			}
			return read(c, r, path, func(w io.Writer, m disclosure.Metrics) error {
				fmt.Fprintf(w, "%d: %d reports, %d open, %d seen exploited\n", m.Year, m.Reports, m.Open, m.Exploited)
				rows := [][]string{{"UNTIL", "REPORTS", "MEDIAN HOURS", "90 % WITHIN HOURS", "IN TIME"}}
				for _, x := range []struct {
					name string
					disclosure.Measure
				}{{"acknowledged", m.Acknowledge}, {"verdict", m.Triage}, {"fix", m.Fix}, {"public", m.Publication}} {
					rows = append(rows, []string{x.name, fmt.Sprint(x.Count), fmt.Sprint(x.Median), fmt.Sprint(x.P90), fmt.Sprint(x.InTime)})
				}
				return table(w, rows)
			})
		},
	}
	c.Flags().IntVar(&year, "year", 0, "default: this one")
	return c
}
