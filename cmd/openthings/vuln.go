// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/vuln"
	"github.com/openthings-platform/openthings/vuln/record"
)

func vulnCommand() *cobra.Command {
	c, r := group("vuln", "Vulnerabilities: which devices, which version, since when")
	c.AddCommand(vulnListCommand(r), vulnShowCommand(r), vulnAffectedCommand(r), vulnHistoryCommand(r), vulnBreakdownCommand(r), vulnDecideCommand(r),
		kernelCommand(r), vulnSafeCommand(r))
	return c
}

func vulnPath(name, rest string) string { return "/v1/vulnerabilities/" + url.PathEscape(name) + rest }

// asOfQuery puts an instant of the past into a query.
func asOfQuery(text string) (url.Values, error) {
	if text == "" {
		return url.Values{}, nil
	}
	if _, err := time.Parse(time.RFC3339, text); err != nil {
		return nil, problem.Invalid("--as-of is an instant with an offset, such as 2026-11-21T09:00:00Z").At("--as-of")
	}
	return url.Values{"as_of": {text}}, nil
}

func vulnListCommand(r *remote) *cobra.Command {
	var pages paging
	c := &cobra.Command{
		Use: "list", Short: "Vulnerabilities with open findings, the most urgent first", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, pages.path("/v1/vulnerabilities", nil), func(w io.Writer, p api.Page[vuln.Summary]) error {
				rows := [][]string{{"VULNERABILITY", "DEVICES", "EXPLOITED", "CVSS", "EPSS", "UNDECIDED IN", "SUMMARY"}}
				for _, v := range p.Items {
					undecided := 0
					for _, in := range v.Products {
						if in.Status == vuln.Undecided {
							undecided++
						}
					}
					score := ""
					if v.Score != nil {
						score = fmt.Sprintf("%.1f", v.Score.Base)
					}
					rows = append(rows, []string{v.Name, fmt.Sprint(v.Devices), yes(v.Exploited), score, v.Chance(), fmt.Sprintf("%d of %d", undecided, len(v.Products)), v.Group.Summary})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(c)
	return c
}

func vulnShowCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "show CVE", Short: "What is known: names, reasons, records with their hashes, decisions", Args: cobra.ExactArgs(1),
		Example: "  openthings vuln show CVE-2023-44487",
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, vulnPath(args[0], ""), func(w io.Writer, d vuln.Detail) error {
				fmt.Fprintf(w, "%s  %s\n", d.Name, d.Summary)
				if d.Exploited {
					fmt.Fprintf(w, "KNOWN TO BE EXPLOITED, here since %s\n", instant(d.ExploitedKnown))
				}
				fmt.Fprintf(w, "known as: %s\n\n", strings.Join(d.Names, ", "))
				rows := [][]string{{"RECORD", "FROM", "SEEN", "STATE", "SHA-256"}}
				for _, s := range d.Sources {
					state := "current"
					switch {
					case !s.Withdrawn.IsZero():
						state = "withdrawn"
					case !s.Current:
						state = "superseded"
					}
					rows = append(rows, []string{s.Record, s.Feed, instant(s.Seen), state, s.Hash})
				}
				if err := table(w, rows); err != nil || len(d.Decisions) == 0 {
					return err
				}
				fmt.Fprintln(w)
				rows = [][]string{{"DECIDED", "PRODUCT", "RELEASE", "STATUS", "BY", "UNTIL", "EVIDENCE"}}
				for _, x := range d.Decisions {
					until := ""
					if !x.Until.IsZero() {
						until = instant(x.Until) + " " + x.Why.Word()
					}
					rows = append(rows, []string{instant(x.At), x.Product, x.Release, string(x.Status), x.By, until, x.Evidence})
				}
				return table(w, rows)
			})
		},
	}
}

func vulnAffectedCommand(r *remote) *cobra.Command {
	var asOf string
	var pages paging
	c := &cobra.Command{
		Use: "affected CVE", Short: "Which devices are affected, which version, since when: now or as of a past instant", Args: cobra.ExactArgs(1),
		Example: `  openthings vuln affected CVE-2023-44487
  openthings vuln affected CVE-2023-44487 --as-of 2027-01-31T12:00:00Z --json`,
		RunE: func(c *cobra.Command, args []string) error {
			query, err := asOfQuery(asOf)
			if err != nil {
				return err
			}
			return read(c, r, pages.path(vulnPath(args[0], "/affected"), query), func(w io.Writer, p vuln.AffectedPage) error {
				exploited := ""
				if p.Exploited {
					exploited = "  KNOWN TO BE EXPLOITED"
				}
				fmt.Fprintf(w, "%s: %s exposed as of %s%s\n", p.Name, console.Plural(p.Devices, "device", "devices"), instant(p.AsOf), exploited)
				if len(p.Releases) == 0 {
					fmt.Fprintln(w, "no release was known to have it then")
					return nil
				}
				rows := [][]string{{"RELEASE", "VERSION", "COMPONENT", "FIXED IN", "DEVICES", "EXPOSED", "DECISION", "KNOWN SINCE"}}
				for _, x := range p.Releases {
					decision := string(vuln.Undecided)
					if x.Decision != nil {
						decision = string(x.Decision.Status)
					}
					component := x.Name + " " + x.Has
					if x.State == record.StateUnknown {
						component += " (unknown: " + x.Reason + ")"
					}
					rows = append(rows, []string{x.Release, x.Version, component, x.FixedIn, fmt.Sprint(x.Devices), yes(x.Exposed), decision, instant(x.KnownSince)})
				}
				if err := table(w, rows); err != nil || len(p.List.Items) == 0 {
					return err
				}
				rows = [][]string{{"EXPOSED DEVICE", "VERSION", "SINCE"}}
				for _, d := range p.List.Items {
					rows = append(rows, []string{d.Device, d.Version, instant(d.ExposedSince)})
				}
				fmt.Fprintln(w)
				return pages.table(w, rows, p.List.Next)
			})
		},
	}
	pages.flags(c)
	c.Flags().StringVar(&asOf, "as-of", "", "an instant of the past, RFC 3339")
	return c
}

func vulnHistoryCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "history CVE", Short: "Since when, how many ever, device-days, and how the fix spread", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, vulnPath(args[0], "/history"), func(w io.Writer, h vuln.History) error {
				if h.KnownSince.IsZero() {
					fmt.Fprintf(w, "%s: no release of yours ever had it\n", h.Name)
					return nil
				}
				fmt.Fprintf(w, "%s: known since %s, %d devices exposed now, %d at the peak, %d ever, %.1f device-days\n", h.Name, instant(h.KnownSince), h.Now, h.Peak, h.Ever, h.DeviceDays)
				switch {
				case h.Silent > 0 && h.SilentFrom.IsZero():
					fmt.Fprintf(w, "%d of those exposed now were never heard from\n", h.Silent)
				case h.Silent > 0:
					fmt.Fprintf(w, "%d of those exposed now were not heard from for 30 days, the first since %s\n", h.Silent, instant(h.SilentFrom))
				}
				if h.Peak == 0 {
					return nil // no device ever had it: there is nothing to patch, and no curve
				}
				rows := [][]string{{"PATCHED", "AT", "AFTER"}}
				for _, p := range h.Coverage {
					at, after := "not yet", ""
					if !p.At.IsZero() {
						at, after = instant(p.At), fmt.Sprintf("%.1f days", p.Days)
					}
					rows = append(rows, []string{fmt.Sprintf("%d %%", p.Percent), at, after})
				}
				if err := table(w, rows); err != nil {
					return err
				}
				fmt.Fprintln(w)
				rows = [][]string{{"AT", "DEVICES", ""}}
				for i, p := range h.Curve {
					if i%5 == 0 || i == len(h.Curve)-1 { // --json has every point
						rows = append(rows, []string{instant(p.At), fmt.Sprint(p.Devices), strings.Repeat("#", int(p.Devices*40/max(h.Peak, 1)))})
					}
				}
				return table(w, rows)
			})
		},
	}
}

func vulnBreakdownCommand(r *remote) *cobra.Command {
	var by, asOf string
	c := &cobra.Command{
		Use: "breakdown CVE", Short: "The devices exposed by what tells them apart", Args: cobra.ExactArgs(1),
		Example: `  openthings vuln breakdown CVE-2023-44487 --by country
  openthings vuln breakdown CVE-2023-44487 --by solution --as-of 2027-01-31T12:00:00Z`,
		RunE: func(c *cobra.Command, args []string) error {
			query, err := asOfQuery(asOf)
			if err != nil {
				return err
			}
			query.Set("by", by)
			return read(c, r, vulnPath(args[0], "/breakdown?")+query.Encode(), func(w io.Writer, b vuln.Breakdown) error {
				rows := [][]string{{strings.ToUpper(b.By), "DEVICES"}}
				for _, p := range b.Parts {
					value := p.Value
					if value == "" {
						value = "not stated"
					}
					rows = append(rows, []string{value, fmt.Sprint(p.Devices)})
				}
				return table(w, rows)
			})
		},
	}
	c.Flags().StringVar(&by, "by", "release", "release, product, revision, solution, batch or country")
	c.Flags().StringVar(&asOf, "as-of", "", "an instant of the past, RFC 3339")
	return c
}

func vulnDecideCommand(r *remote) *cobra.Command {
	var in vuln.Deciding
	var expires string
	c := &cobra.Command{
		Use: "decide CVE", Short: "Decide what a vulnerability means for a product (VEX)", Args: cobra.ExactArgs(1),
		Long: "Decide what a vulnerability means for a product. Without --release it holds for the release line, and is inherited while\n" +
			"component and evidence are the same. Decisions are appended, never changed. --take takes over what openthings vex\n" +
			"proposals lists under ORIGIN.",
		Example: `  openthings vuln decide CVE-2023-44487 --product prd_… --status not_affected --justification vulnerable_code_not_in_execute_path --evidence 'No HTTP/2 server is started; see review 114.'
  openthings vuln decide CVE-2023-44487 --product prd_… --release rel_… --status fixed --evidence 'Patch 7 backported.'
  openthings vuln decide CVE-2023-44487 --product prd_… --take vst_…`,
		RunE: func(c *cobra.Command, args []string) error {
			if expires != "" {
				at, err := time.Parse(time.RFC3339, expires)
				if err != nil {
					return problem.Invalid("--expires is an instant with an offset, such as 2027-05-31T00:00:00Z").At("--expires")
				}
				in.Expires = at
			}
			return do(c, r, http.MethodPost, vulnPath(args[0], "/decisions"), in, func(w io.Writer, p api.Page[vuln.Decision]) error {
				rows := [][]string{{"DECISION", "PRODUCT", "COMPONENT", "RELEASE", "STATUS"}}
				for _, d := range p.Items {
					rows = append(rows, []string{d.ID, d.Product, d.Component, d.Release, string(d.Status)})
				}
				return table(w, rows)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&in.Product, "product", "", "id of the product")
	f.StringVar(&in.Component, "component", "", "id of the component; default: every one that has it")
	f.StringVar(&in.Release, "release", "", "id of the one release that it holds for; default: the release line")
	f.StringVar((*string)(&in.Status), "status", "", "under_investigation, affected, not_affected or fixed")
	f.StringVar(&in.Justification, "justification", "", "of not_affected: "+strings.Join(vuln.Justifications, ", "))
	f.StringVar(&in.Evidence, "evidence", "", "what shows it; needed for not_affected and fixed")
	f.StringVar(&in.Action, "action", "", "what users should do about it")
	f.StringVar(&expires, "expires", "", "when it is to be asked for again, RFC 3339")
	f.StringVar(&in.Origin, "take", "", "id of a proposal to take over; what is left out comes from it")
	cobra.CheckErr(c.MarkFlagRequired("product"))
	return c
}
