// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/respond/advisory"
	"github.com/openthings-platform/openthings/vuln/csaf"
)

func advisoryCommand() *cobra.Command {
	c, r := group("advisory", "Security advisories: drafted from a vulnerability, signed, published as CSAF")
	var pages paging
	list := &cobra.Command{
		Use: "list", Short: "Advisories, the newest first", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, pages.path("/v1/advisories", nil), func(w io.Writer, p api.Page[advisory.Advisory]) error {
				rows := [][]string{{"ADVISORY", "ID", "PRODUCT", "VULNERABILITY", "STATE", "TLP", "REVISION", "TITLE"}}
				for _, a := range p.Items {
					rows = append(rows, []string{a.Tracking, a.ID, a.ProductName, a.Vulnerability, a.State, string(a.TLP), fmt.Sprint(a.Revision), a.Title})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(list)
	get := &cobra.Command{
		Use: "show ADVISORY", Short: "An advisory, and what its next revision would say of each release", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, "/v1/advisories/"+url.PathEscape(args[0]), printAdvisory)
		},
	}
	c.AddCommand(list, get, draftAdvisory(r), publishAdvisory(r), holdAdvisory(r), exportAdvisory(r), publisherAdvisory(r))
	return c
}

func printAdvisory(w io.Writer, a advisory.Advisory) error {
	fmt.Fprintf(w, "%s %s: %s, revision %d, %s\n", a.ID, a.Tracking, a.Title, a.Revision, a.State)
	if a.Hold != nil {
		fmt.Fprintf(w, "held back until %s: %s\n", instant(a.Hold.Until), a.Hold.Reason)
	}
	if a.URL != "" {
		fmt.Fprintln(w, a.URL)
	}
	if a.Outdated {
		fmt.Fprintln(w, "What is known now differs from what is published: publish another revision.")
	}
	rows := [][]string{{"RELEASE", "VERSION", "STATUS", "COMPONENTS"}}
	for _, x := range a.Releases {
		rows = append(rows, []string{x.Release, x.Version, string(x.Status), strings.Join(x.Components, ", ")})
	}
	return table(w, rows)
}

func draftAdvisory(r *remote) *cobra.Command {
	var product, tlp string
	var words advisory.Text
	c := &cobra.Command{
		Use: "draft VULNERABILITY", Short: "Draft an advisory: affected and fixed releases come from findings and decisions", Args: cobra.ExactArgs(1),
		Example: `  openthings advisory draft CVE-2023-44487 --product $PRODUCT --summary 'A remote peer can exhaust the lamp.' --cvss CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H`,
		RunE: func(c *cobra.Command, args []string) error {
			words.TLP = csaf.TLPLabel(strings.ToUpper(tlp))
			in := map[string]any{"product": product, "vulnerability": args[0], "title": words.Title, "summary": words.Summary, "action": words.Action,
				"cvss": words.CVSS, "cwe": words.CWE, "tlp": words.TLP, "lang": words.Lang}
			return do(c, r, http.MethodPost, "/v1/advisories", in, printAdvisory)
		},
	}
	f := c.Flags()
	f.StringVar(&product, "product", "", "id of the product")
	f.StringVar(&words.Title, "title", "", "title; default: made of the vulnerability and the product")
	f.StringVar(&words.Summary, "summary", "", "what users are told")
	f.StringVar(&words.Action, "action", "", "what users can do until they run a fixed release")
	f.StringVar(&words.CVSS, "cvss", "", "vector of CVSS 3.1 or 3.0")
	f.StringVar(&words.CWE, "cwe", "", "kind of weakness, such as CWE-787")
	f.StringVar(&words.Lang, "lang", "en", "language of the words")
	f.StringVar(&tlp, "tlp", "white", "who may read it: white (everybody), green, amber or red")
	cobra.CheckErr(c.MarkFlagRequired("product"))
	return c
}

func publishAdvisory(r *remote) *cobra.Command {
	var change string
	c := &cobra.Command{
		Use: "publish ADVISORY", Short: "Sign and publish the next revision", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return do(c, r, http.MethodPost, "/v1/advisories/"+url.PathEscape(args[0])+"/publish", map[string]any{"change": change}, printAdvisory)
		},
	}
	c.Flags().StringVar(&change, "change", "", "what is new in this revision; needed from the second on")
	return c
}

func holdAdvisory(r *remote) *cobra.Command {
	var reason, until string
	c := &cobra.Command{
		Use: "hold ADVISORY", Short: "Hold an advisory back for a reason and until an end; without either, lift the hold", Args: cobra.ExactArgs(1),
		Example: `  openthings advisory hold adv_… --reason 'The fix reaches devices until Friday.' --until 2026-11-27T18:00:00Z
  openthings advisory hold adv_…`,
		RunE: func(c *cobra.Command, args []string) error {
			path := "/v1/advisories/" + url.PathEscape(args[0])
			if reason == "" && until == "" {
				return do(c, r, http.MethodPost, path+"/lift", nil, printAdvisory)
			}
			in := map[string]any{"reason": reason}
			if until != "" {
				end, err := time.Parse(time.RFC3339, until)
				if err != nil {
					return problem.Invalid("--until is an instant with an offset, such as 2026-11-27T18:00:00Z").At("--until")
				}
				in["until"] = end
			}
			return do(c, r, http.MethodPost, path+"/hold", in, printAdvisory)
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "what justifies the delay")
	c.Flags().StringVar(&until, "until", "", "when it ends, RFC 3339")
	return c
}

func exportAdvisory(r *remote) *cobra.Command {
	var draft, cve bool
	var revision int
	var out string
	c := &cobra.Command{
		Use: "export ADVISORY", Short: "The document in CSAF 2.0, or a draft of the CVE record for a CNA", Args: cobra.ExactArgs(1),
		Example: `  openthings advisory export adv_… -o advisory.json
  openthings advisory export adv_… --draft
  openthings advisory export adv_… --cve`,
		RunE: func(c *cobra.Command, args []string) error {
			path, query := "/v1/advisories/"+url.PathEscape(args[0])+"/csaf", url.Values{}
			switch {
			case cve:
				path = strings.TrimSuffix(path, "csaf") + "cve"
			case draft:
				query.Set("draft", "1")
			case revision > 0:
				query.Set("revision", fmt.Sprint(revision))
			}
			cl, err := r.client()
			if err != nil {
				return err
			}
			var b []byte
			if err := cl.Do(c.Context(), http.MethodGet, path+"?"+query.Encode(), nil, &b); err != nil {
				return err
			}
			if out != "" {
				return os.WriteFile(out, b, 0o644)
			}
			_, err = c.OutOrStdout().Write(b)
			return err
		},
	}
	c.Flags().BoolVar(&draft, "draft", false, "the next revision as it would be published now, unsigned")
	c.Flags().BoolVar(&cve, "cve", false, "a draft of the CVE record (CVE JSON 5)")
	c.Flags().IntVar(&revision, "revision", 0, "this published revision; default: the newest")
	c.Flags().StringVarP(&out, "out", "o", "", "file to write; default: standard output")
	return c
}

func publisherAdvisory(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "publisher", Short: "In whose name advisories are published", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, "/v1/publisher", func(w io.Writer, p advisory.Publisher) error {
				return table(w, [][]string{{"NAME", "NAMESPACE", "ADDRESS", "PREFIX"}, {p.Name, p.Namespace, p.URL, p.Prefix}})
			})
		},
	}
}
