// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
)

// put sends the JSON of a file and prints the answer.
func put[T any](c *cobra.Command, r *remote, path, file string, human func(w io.Writer, v T) error) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return problem.Invalid("%s cannot be read", file).Because(err)
	}
	if !json.Valid(b) {
		return problem.Invalid("%s is not JSON", file)
	}
	return do(c, r, http.MethodPut, path, json.RawMessage(b), human)
}

// productsOf says which products a policy is for: those that it names, or all that no policy names.
func productsOf(p enroll.Policy) string {
	if len(p.Products) == 0 {
		return "every other"
	}
	return strings.Join(p.Products, " ")
}

func policyCommand() *cobra.Command {
	c, r := group("policy", "Enrolment policies: how devices get in and renew, by label")
	path := func(label string) string { return "/v1/enrolment-policies/" + url.PathEscape(label) }
	one := func(w io.Writer, p enroll.Policy) error {
		return table(w, [][]string{{"LABEL", "VERSION", "PRODUCTS", "WHAT IT SAYS"}, {p.Label, fmt.Sprint(p.Version), productsOf(p), p.Words()}})
	}
	list := &cobra.Command{
		Use: "list", Short: "Policies by label", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, "/v1/enrolment-policies", func(w io.Writer, p api.Page[enroll.Policy]) error {
				rows := [][]string{{"LABEL", "VERSION", "PRODUCTS", "WHAT IT SAYS"}}
				for _, x := range p.Items {
					rows = append(rows, []string{x.Label, fmt.Sprint(x.Version), productsOf(x), x.Words()})
				}
				return table(w, rows)
			})
		},
	}
	get := &cobra.Command{
		Use: "get LABEL", Short: "One policy", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return read(c, r, path(args[0]), one) },
	}
	set := &cobra.Command{
		Use: "set LABEL FILE", Short: "Set a policy from a file of JSON, as its next version", Args: cobra.ExactArgs(2),
		Example: `  openthings policy set lamps policy.json
  # policy.json: {"grade": "A", "leaf_days": 45, "renew_days": 30, "lapse_days": 730}`,
		RunE: func(c *cobra.Command, args []string) error { return put(c, r, path(args[0]), args[1], one) },
	}
	c.AddCommand(list, get, set)
	return c
}

func baselineCommand() *cobra.Command {
	c, r := group("baseline", "Commissioning baseline of a product, and how devices stand against it")
	path := func(product string) string { return "/v1/products/" + url.PathEscape(product) + "/baseline" }
	one := func(w io.Writer, v product.BaselineVersion) error {
		if v.Version == 0 {
			_, err := fmt.Fprintln(w, "no baseline: devices are commissioned as they are")
			return err
		}
		b, err := json.MarshalIndent(v.Baseline, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "version %d, set %s\n%s\n", v.Version, instant(v.Created), b)
		return err
	}
	get := &cobra.Command{
		Use: "get PRODUCT", Short: "What a product's devices must fulfil before they are commissioned", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return read(c, r, path(args[0]), one) },
	}
	set := &cobra.Command{
		Use: "set PRODUCT FILE", Short: "Set it from a file of JSON, as its next signed version", Args: cobra.ExactArgs(2),
		Example: `  openthings baseline set prd_01m8 baseline.json
  # baseline.json: {"secure_boot": true, "ports": ["tcp/443"], "debug_closed": ["jtag", "uart"], "no_default_credentials": true, "least_tls": "1.2"}`,
		RunE: func(c *cobra.Command, args []string) error { return put(c, r, path(args[0]), args[1], one) },
	}
	device := &cobra.Command{
		Use: "device DEVICE", Short: "How a device stands against its product's baseline", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, "/v1/devices/"+url.PathEscape(args[0])+"/baseline", func(w io.Writer, st enroll.Standing) error {
				rows := [][]string{{"REPORTED", "BASELINE", "FULFILS", "SECURE BOOT", "ROOT OF TRUST"},
					{instant(st.At), fmt.Sprint(st.Version), yes(st.OK), st.Report.SecureBoot, st.Report.Root}}
				if err := table(w, rows); err != nil {
					return err
				}
				for _, f := range st.Failed {
					if _, err := fmt.Fprintln(w, "- "+f); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	c.AddCommand(get, set, device)
	return c
}
