// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/vuln"
)

func vexCommand() *cobra.Command {
	c, r := group("vex", "Statements on vulnerabilities: OpenVEX, CycloneDX and CSAF, in and out")
	var origin string
	take := &cobra.Command{
		Use: "import FILE", Short: "Import what others say: OpenVEX, CycloneDX or CSAF", Args: cobra.ExactArgs(1),
		Long: "Import what others say: OpenVEX, CycloneDX or CSAF. Nothing is decided by it: openthings vex proposals shows what it\n" +
			"proposes, now and for products that appear later.",
		Example: `  openthings vex import openssl.openvex.json
  openthings vex import DSA-5417.csaf.json --origin distribution`,
		RunE: func(c *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return problem.Invalid("the document cannot be read").Because(err)
			}
			defer f.Close()
			return do(c, r, http.MethodPost, "/v1/vex?origin="+url.QueryEscape(origin), io.Reader(f), func(w io.Writer, t vuln.Taken) error {
				fmt.Fprintf(w, "%s: %s of %s (%s, %s), imported as %s\n", cmp.Or(t.Document, args[0]), console.Plural(t.Statements, "statement", "statements"), cmp.Or(t.Author, "an unnamed author"), t.Format, t.Origin, t.ID)
				if !t.Current {
					fmt.Fprintln(w, "a newer version of this document is here already; what this one says is not proposed")
				}
				for _, s := range t.Unread {
					fmt.Fprintln(w, "not taken over:", s)
				}
				return nil
			})
		},
	}
	take.Flags().StringVar(&origin, "origin", "vendor", "whose statements they are: vendor (the maker of a component), distribution, or own")

	var release, product, format, file string
	export := &cobra.Command{
		Use: "export --release ID | --product ID", Short: "Write what was decided about a release, or about all of a product", Args: cobra.NoArgs,
		Example: `  openthings vex export --release rel_… --format csaf -o vex.json
  openthings vex export --product prd_… --format cyclonedx`,
		RunE: func(c *cobra.Command, _ []string) error {
			of, id := "releases", release
			if product != "" {
				of, id = "products", product
			}
			if (release == "") == (product == "") {
				return usageError{errors.New("name a release or a product")}
			}
			cl, err := r.client()
			if err != nil {
				return err
			}
			var b []byte
			if err := cl.Do(c.Context(), http.MethodGet, "/v1/"+of+"/"+url.PathEscape(id)+"/vex?format="+url.QueryEscape(format), nil, &b); err != nil {
				return err
			}
			if file == "" {
				_, err = c.OutOrStdout().Write(b)
				return err
			}
			return os.WriteFile(file, b, 0o644)
		},
	}
	f := export.Flags()
	f.StringVar(&release, "release", "", "id of the release")
	f.StringVar(&product, "product", "", "id of the product: every release of it")
	f.StringVar(&format, "format", "openvex", "openvex, cyclonedx or csaf")
	f.StringVarP(&file, "out", "o", "", "where to write it; default: standard output")

	var pages paging
	list := &cobra.Command{
		Use: "list", Short: "Documents of others that were imported", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, pages.path("/v1/vex", nil), func(w io.Writer, p api.Page[vuln.Taken]) error {
				rows := [][]string{{"ID", "DOCUMENT", "VERSION", "AUTHOR", "ORIGIN", "STATEMENTS", "CURRENT", "IMPORTED"}}
				for _, t := range p.Items {
					rows = append(rows, []string{t.ID, t.Document, t.Version, t.Author, string(t.Origin), fmt.Sprint(t.Statements), yes(t.Current), instant(t.At)})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(list)

	proposals := &cobra.Command{
		Use: "proposals CVE", Short: "What might be decided: earlier decisions that do not hold everywhere, and what others say", Args: cobra.ExactArgs(1),
		Long: "What might be decided on a vulnerability. To take a proposal over, decide and name it:\n" +
			"openthings api POST /v1/vulnerabilities/CVE/decisions product=… component=… origin=ORIGIN",
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, "/v1/vulnerabilities/"+url.PathEscape(args[0])+"/proposals", func(w io.Writer, p api.Page[vuln.Proposal]) error {
				rows := [][]string{{"ORIGIN", "FROM", "COMPONENT", "RELEASES", "STATUS", "BECAUSE", "DECIDED"}}
				for _, x := range p.Items {
					from, decided := x.From, "no"
					if x.Why != "" {
						from += " (" + string(x.Why) + ")"
					}
					if x.Conflict() {
						decided = "CONFLICT: " + string(x.Decided.Status)
					}
					because := x.Justification
					if because == "" {
						because = x.Foreign
					}
					rows = append(rows, []string{x.Origin, from, x.Name + " " + x.Has, strings.Join(x.Releases, " "), string(x.Status), because, decided})
				}
				return table(w, rows)
			})
		},
	}
	c.AddCommand(take, export, list, proposals)
	return c
}
