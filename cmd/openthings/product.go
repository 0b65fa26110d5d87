// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/product/eox"
)

func productCommand() *cobra.Command {
	c, r := group("product", "What is sold, until when it is supported, and what its users are told")
	c.AddCommand(&cobra.Command{
		Use: "list", Short: "Products", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, "/v1/products", func(w io.Writer, p api.Page[product.Product]) error {
				rows := [][]string{{"PRODUCT", "MODEL", "ID"}}
				for _, x := range p.Items {
					rows = append(rows, []string{x.Name, x.Model, x.ID})
				}
				return table(w, rows)
			})
		},
	}, &cobra.Command{
		Use: "readiness PRODUCT", Short: "What a product has of what it needs before it is sold", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, "/v1/products/"+url.PathEscape(args[0])+"/readiness", func(w io.Writer, v product.Readiness) error {
				fmt.Fprintf(w, "%d/%d ready for sale\n", v.Done, v.Of)
				for _, x := range v.Checks {
					if !x.Done {
						fmt.Fprintln(w, "missing:", x.Text)
					}
				}
				return nil
			})
		},
	}, &cobra.Command{
		Use: "ends", Short: "Every end that is declared, by day", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, "/v1/ends", func(w io.Writer, p api.Page[product.EndDate]) error {
				rows := [][]string{{"DAY", "PUBLISHED", "WHAT ENDS"}}
				for _, e := range p.Items {
					rows = append(rows, []string{string(e.Day), yes(e.Published), e.Text})
				}
				return table(w, rows)
			})
		},
	}, productAvailability(r), productInformation(r), productSupport(r), productOpenEoX(r), orphanBundleCommand(r), productPlaceCommand(r))
	return c
}

func productAvailability(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "availability PRODUCT [CODE...]", Short: "Member States where a product is declared to be available; codes declare anew, the word none declares none", Args: cobra.MinimumNArgs(1),
		Example: "  openthings product availability $PRODUCT DE FR",
		RunE: func(c *cobra.Command, args []string) error {
			path := "/v1/products/" + url.PathEscape(args[0]) + "/availability"
			human := func(w io.Writer, a product.Availability) error {
				if len(a.MemberStates) == 0 {
					_, err := fmt.Fprintln(w, "none")
					return err
				}
				_, err := fmt.Fprintln(w, strings.Join(a.MemberStates, " "))
				return err
			}
			states := args[1:]
			switch {
			case len(states) == 0:
				return read(c, r, path, human)
			case len(states) == 1 && states[0] == "none":
				states = []string{}
			}
			return do(c, r, http.MethodPut, path, map[string]any{"member_states": states}, human)
		},
	}
}

func productInformation(r *remote) *cobra.Command {
	c := &cobra.Command{Use: "information", Short: "User information: the 14 items of CRA Annex II"}
	var lang string
	path := func(p string) string {
		return "/v1/products/" + url.PathEscape(p) + "/information"
	}
	human := func(w io.Writer, p api.Page[product.Item]) error {
		rows := [][]string{{"ITEM", "ID", "GIVEN", "ASKS"}}
		for _, i := range p.Items {
			rows = append(rows, []string{i.Number(), i.ID, yes(i.Given), i.Asks})
		}
		return table(w, rows)
	}
	show := &cobra.Command{
		Use: "show PRODUCT", Short: "The items as they are being prepared", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, path(args[0])+"/"+url.PathEscape(lang), human)
		},
	}
	var absent bool
	set := &cobra.Command{
		Use: "set PRODUCT ITEM TEXT", Short: "Fill an item; an empty text takes it away", Args: cobra.ExactArgs(3),
		Example: `  openthings product information set $PRODUCT cra.ii.10 'The lamp installs security updates by itself at night.'`,
		RunE: func(c *cobra.Command, args []string) error {
			return do(c, r, http.MethodPut, path(args[0])+"/"+url.PathEscape(lang)+"/"+url.PathEscape(args[1]), map[string]any{"text": args[2], "not_applicable": absent}, human)
		},
	}
	set.Flags().BoolVar(&absent, "not-applicable", false, "the item does not apply; the text says why")
	for _, x := range []*cobra.Command{show, set} {
		x.Flags().StringVar(&lang, "lang", product.Languages[0], "language: "+strings.Join(product.Languages, " or "))
	}
	publish := &cobra.Command{
		Use: "publish PRODUCT", Short: "Publish the user information as its next version", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return do(c, r, http.MethodPost, path(args[0]), nil, func(w io.Writer, p product.Page) error {
				_, err := fmt.Fprintf(w, "version %d is published\n", p.Version)
				return err
			})
		},
	}
	c.AddCommand(show, set, publish)
	return c
}

func productSupport(r *remote) *cobra.Command {
	c := &cobra.Command{Use: "support", Short: "Support periods by placement cohort: declared, published, extended, never shortened"}
	cohort := func(id string) string { return "/v1/cohorts/" + url.PathEscape(id) }
	list := &cobra.Command{
		Use: "list PRODUCT", Short: "Placement cohorts of a product", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, "/v1/products/"+url.PathEscape(args[0])+"/cohorts", func(w io.Writer, p api.Page[product.CohortOut]) error {
				rows := [][]string{{"COHORT", "ID", "PLACED", "SUPPORT ENDS", "MONTHS LEFT", "PUBLISHED"}}
				for _, x := range p.Items {
					d := x.Declared()
					rows = append(rows, []string{x.Name, x.ID, placed(d), string(d.SupportEnd), fmt.Sprint(x.Months), yes(x.Public != nil)})
				}
				return table(w, rows)
			})
		},
	}
	show := &cobra.Command{
		Use: "show COHORT", Short: "A cohort: draft, everything published, decisions about its end", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, cohort(args[0]), printCohort)
		},
	}
	publish := &cobra.Command{
		Use: "publish COHORT", Short: "Publish the draft as the next version", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return do(c, r, http.MethodPost, cohort(args[0])+"/publish", nil, func(w io.Writer, x product.Cohort) error {
				_, err := fmt.Fprintf(w, "%s: support until the end of %s is published as version %d\n", x.Name, x.Public.SupportEnd.Words(), x.Version)
				return err
			})
		},
	}
	var d product.EndDecision
	decide := &cobra.Command{
		Use: "decide COHORT extend|successor|restrict|isolate", Short: "Record what is decided about the end of support", Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return do(c, r, http.MethodPost, cohort(args[0])+"/decisions", map[string]any{"kind": args[1], "successor": d.Successor, "reason": d.Reason}, func(w io.Writer, x product.EndDecision) error {
				_, err := fmt.Fprintf(w, "%s: %s\n", x.Kind, x.Reason)
				return err
			})
		},
	}
	decide.Flags().StringVar(&d.Successor, "successor", "", "hardware revision that follows")
	decide.Flags().StringVar(&d.Reason, "reason", "", "why")
	cobra.CheckErr(decide.MarkFlagRequired("reason"))
	var leave product.Leave
	var days int
	allow := &cobra.Command{
		Use: "allow-enrol REVISION", Short: "Let new units get identities although their support has ended", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			in := map[string]any{"reason": leave.Reason, "until": time.Now().UTC().AddDate(0, 0, days)}
			return do(c, r, http.MethodPost, "/v1/revisions/"+url.PathEscape(args[0])+"/enrol-leave", in, func(w io.Writer, x product.Leave) error {
				_, err := fmt.Fprintf(w, "new units get identities until %s\n", instant(x.Until))
				return err
			})
		},
	}
	allow.Flags().StringVar(&leave.Reason, "reason", "", "why")
	allow.Flags().IntVar(&days, "days", 30, "for how long, at most 90")
	cobra.CheckErr(allow.MarkFlagRequired("reason"))
	transition := &cobra.Command{
		Use: "transition COHORT", Short: "Devices of an ending cohort: which can move to newer software, which need hardware", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, cohort(args[0])+"/transition", func(w io.Writer, t product.Transition) error {
				fmt.Fprintf(w, "%d devices end in %d months: %d can move, %d need hardware\n", t.Devices, t.Months, t.Move, t.Hardware)
				rows := [][]string{{"RELEASE", "DEVICES", "NEWEST"}}
				for _, x := range t.Releases {
					rows = append(rows, []string{x.Version, fmt.Sprint(x.Devices), yes(x.Newest)})
				}
				return table(w, rows)
			})
		},
	}
	c.AddCommand(list, show, declareSupport(r), publish, decide, allow, transition)
	return c
}

func declareSupport(r *remote) *cobra.Command {
	var file, name, revision string
	c := &cobra.Command{
		Use: "declare [COHORT]", Short: "Replace the draft of a cohort by a declaration in JSON, or add a cohort to a hardware revision", Args: cobra.MaximumNArgs(1),
		Example: `  openthings product support declare coh_… --file declaration.json
  openthings product support declare --revision rev_… --name 2029 --file declaration.json`,
		RunE: func(c *cobra.Command, args []string) error {
			b, err := bodyOf(nil, file, c.InOrStdin())
			if err != nil {
				return err
			}
			human := func(w io.Writer, x product.Cohort) error {
				fmt.Fprintf(w, "%s %s: support until the end of %s is prepared\n", x.ID, x.Name, x.Draft.SupportEnd.Words())
				if len(x.Missing) > 0 {
					fmt.Fprintf(w, "before it is published it needs %s\n", strings.Join(x.Missing, ", "))
				}
				return nil
			}
			switch {
			case len(args) == 1 && revision == "":
				return do(c, r, http.MethodPut, "/v1/cohorts/"+url.PathEscape(args[0]), json.RawMessage(b), human)
			case len(args) == 0 && revision != "":
				return do(c, r, http.MethodPost, "/v1/revisions/"+url.PathEscape(revision)+"/cohorts", map[string]any{"name": name, "declaration": json.RawMessage(b)}, human)
			}
			return usageError{errors.New("name a cohort, or --revision and --name of a new one")}
		},
	}
	c.Flags().StringVar(&file, "file", "", "declaration as JSON; - is standard input")
	c.Flags().StringVar(&revision, "revision", "", "hardware revision that gets a new cohort")
	c.Flags().StringVar(&name, "name", "", "name of the new cohort")
	cobra.CheckErr(c.MarkFlagRequired("file"))
	return c
}

func placed(d product.Declaration) string {
	if d.LastPlaced == "" {
		return string(d.FirstPlaced) + " on"
	}
	return string(d.FirstPlaced) + " to " + string(d.LastPlaced)
}

func printCohort(w io.Writer, c product.CohortOut) error {
	d := c.Declared()
	fmt.Fprintf(w, "%s %s: placed %s, support until the end of %s, %d months left\n", c.ID, c.Name, placed(d), d.SupportEnd.Words(), c.Months)
	if d.LastPlaced == "" {
		fmt.Fprintf(w, "under this end units may be placed until %s\n", c.PlaceUntil)
	}
	if c.Public == nil {
		fmt.Fprintln(w, "not published")
	}
	for _, v := range c.Versions {
		fmt.Fprintf(w, "version %d, published %s: until the end of %s\n", v.Version, instant(v.Published), v.SupportEnd.Words())
	}
	for _, x := range c.Decisions {
		fmt.Fprintf(w, "%s decided %s: %s\n", instant(x.At), x.Kind, x.Reason)
	}
	return nil
}

// productOpenEoX checks a document without a platform.
func productOpenEoX(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "openeox FILE", Short: "Check a document of OpenEoX Core 1.0: schema, mandatory, recommended and informative tests", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := readInput("FILE", args[0])
			if err != nil {
				return err
			}
			findings, bad := eox.Validate(b), false
			for _, f := range findings {
				bad = bad || f.Level == eox.Error
			}
			w := c.OutOrStdout()
			if r.json {
				if findings == nil {
					findings = []eox.Finding{}
				}
				err = printJSON(w, map[string]any{"valid": !bad, "findings": findings})
			} else {
				for _, f := range findings {
					fmt.Fprintf(w, "%s %s\n", f.Level, f)
				}
				if !bad {
					fmt.Fprintln(w, "valid")
				}
			}
			if err == nil && bad {
				err = problem.Invalid("the document is not valid OpenEoX Core")
			}
			return err
		},
	}
}
