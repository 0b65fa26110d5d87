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
	"github.com/openthings-platform/openthings/conform"
	"github.com/openthings-platform/openthings/law"
)

func conformCommand() *cobra.Command {
	c, r := group("conform", "Class, conformity route, risk assessment, components and modifications of a product")
	c.AddCommand(conformLaw(r), conformClasses(r), conformClass(r), conformRoute(r), conformRisk(r), conformRow(r), conformSeal(r), conformRegister(r), conformReview(r), conformScreen(r), conformReady(r))
	return c
}

func ofProduct(id, path string) string { return "/v1/products/" + url.PathEscape(id) + path }

func conformLaw(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "law", Short: "The rules that clocks and gates follow, with their age and what stands behind each", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, "/v1/law", func(w io.Writer, p api.Page[conform.RuleView]) error {
				rows := [][]string{{"RULE", "REFERENCE", "IN FORCE", "CHECKED", "CHECKS", "PERSON"}}
				for _, x := range p.Items {
					checks, person := "", ""
					if x.Covered != nil {
						checks = fmt.Sprint(len(x.Covered.Tests) + len(x.Covered.Controls))
						if x.Covered.Step != nil {
							person = x.Covered.Step.Role
						}
					}
					rows = append(rows, []string{x.ID, x.Ref, yes(x.InForce), fmt.Sprintf("%d days ago", x.Age), checks, person})
				}
				return table(w, rows)
			})
		},
	}
}

func conformClasses(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "classes", Short: "Categories of important and critical products", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, "/v1/product-classes", func(w io.Writer, p api.Page[law.Category]) error {
				rows := [][]string{{"CATEGORY", "CLASS", "TITLE"}}
				for _, x := range p.Items {
					rows = append(rows, []string{x.ID, x.Class.Name(), x.Title})
				}
				return table(w, rows)
			})
		},
	}
}

func printClass(w io.Writer, x conform.Classified) error {
	if x.Version == 0 {
		_, err := fmt.Fprintln(w, "the class is not decided")
		return err
	}
	confirmed := "not confirmed"
	if x.Confirmed.Version > 0 {
		confirmed = "confirmed " + instant(x.Confirmed.At) + " by " + x.Confirmed.By
	}
	_, err := fmt.Fprintf(w, "%s (%s), version %d of %s by %s, %s\n%s\n", x.ClassName, orNone(x.Category), x.Version, instant(x.At), x.By, confirmed, x.Reason)
	return err
}

func orNone(s string) string {
	if s == "" {
		return "no category"
	}
	return s
}

func conformClass(r *remote) *cobra.Command {
	var in conform.Classification
	var confirm int64
	var note string
	c := &cobra.Command{
		Use: "class PRODUCT", Short: "The class of a product; with --core and --reason record it, with --confirm confirm it", Args: cobra.ExactArgs(1),
		Long: "The class of a product. The category of the core functionality decides; what is integrated does not.\n" +
			"Who recorded a version does not confirm it.",
		Example: `  openthings conform class prd_…
  openthings conform class prd_… --core 'Lights a street' --reason 'no category names it'
  openthings conform class prd_… --core 'Issues certificates' --category cra.iii.1.9 --reason 'that is what it is for'
  openthings conform class prd_… --confirm 1`,
		RunE: func(c *cobra.Command, args []string) error {
			at := ofProduct(args[0], "/classification")
			switch {
			case confirm > 0:
				return do(c, r, http.MethodPost, at+"/confirm", map[string]any{"version": confirm, "note": note}, printClass)
			case in.Core+in.Reason+in.Category != "":
				return do(c, r, http.MethodPut, at, in, printClass)
			}
			return read(c, r, at, printClass)
		},
	}
	f := c.Flags()
	f.StringVar(&in.Core, "core", "", "the core functionality, in words")
	f.StringVar(&in.Category, "category", "", "id of the category whose core functionality it is; none: the default class")
	f.StringSliceVar(&in.Integrates, "integrates", nil, "category of a component in it; may be repeated")
	f.StringVar(&in.Reason, "reason", "", "why this category, or why none")
	f.Int64Var(&confirm, "confirm", 0, "confirm this version as a second person")
	f.StringVar(&note, "note", "", "of who confirms")
	return c
}

func conformRoute(r *remote) *cobra.Command {
	var in conform.Choice
	var module string
	c := &cobra.Command{
		Use: "route PRODUCT", Short: "Which conformity assessment procedures are open to a product; with --module choose one", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			say := func(w io.Writer, x conform.Route) error {
				if x.Version > 0 {
					fmt.Fprintf(w, "%s, version %d of %s by %s, permitted today: %s\n", x.Module.Name(), x.Version, instant(x.At), x.By, yes(x.Stands))
				}
				rows := [][]string{{"MODULE", "OPEN", "WHY"}}
				for _, o := range x.Options {
					rows = append(rows, []string{string(o.Module), yes(o.Open), o.Why})
				}
				return table(w, rows)
			}
			at := ofProduct(args[0], "/conformity-route")
			if module == "" {
				return read(c, r, at, say)
			}
			in.Module = conform.Module(module)
			return do(c, r, http.MethodPut, at, in, say)
		},
	}
	f := c.Flags()
	f.StringVar(&module, "module", "", "A, B+C, H or scheme")
	f.StringVar(&in.Reason, "reason", "", "why")
	f.BoolVar(&in.OpenSource, "open-source", false, "the product qualifies as free and open-source software")
	f.StringVar(&in.PublicDocs, "public-docs", "", "https address where its technical documentation is public")
	f.StringSliceVar(&in.Standards, "standard", nil, "harmonised standard applied in full; may be repeated")
	return c
}

func printDraft(w io.Writer, d conform.Draft) error {
	fmt.Fprintf(w, "%d of %d rows decided, sealed version %d\n", d.Decided(), len(d.Rows), d.Sealed.Version)
	for _, x := range d.Due {
		fmt.Fprintf(w, "to review since %s: %s\n", instant(x.At), x.Text)
	}
	rows := [][]string{{"ROW", "REFERENCE", "APPLIES", "HOW, OR WHY NOT"}}
	for _, x := range d.Rows {
		how := x.Treatment
		if x.Applies == "no" {
			how = x.Why
		}
		rows = append(rows, []string{x.ID, x.Ref, x.Applies, how})
	}
	return table(w, rows)
}

func conformRisk(r *remote) *cobra.Command {
	var in conform.Context
	var of string
	c := &cobra.Command{
		Use: "risk PRODUCT", Short: "The risk assessment as it stands; with --purpose and others describe what it rests on", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case of != "":
				return read(c, r, ofProduct(args[0], "/risk-assessments/"+url.PathEscape(of)), func(w io.Writer, a conform.Assessment) error {
					fmt.Fprintf(w, "version %d, sealed %s by %s: %s\n", a.Version, instant(a.At), a.By, a.Note)
					return printDraft(w, conform.Draft{Rows: a.Rows, Sealed: a.Stamp})
				})
			case in.Purpose != "":
				return do(c, r, http.MethodPut, ofProduct(args[0], "/risk-assessment"), in, printDraft)
			}
			return read(c, r, ofProduct(args[0], "/risk-assessment"), printDraft)
		},
	}
	f := c.Flags()
	f.StringVar(&of, "version", "", "a sealed version, or latest")
	f.StringVar(&in.Purpose, "purpose", "", "intended purpose")
	f.StringVar(&in.Use, "use", "", "reasonably foreseeable use and misuse")
	f.StringVar(&in.Environment, "environment", "", "conditions of use")
	f.StringVar(&in.Assets, "assets", "", "what is to be protected")
	f.StringVar(&in.Threats, "threats", "", "who or what threatens it")
	f.StringVar(&in.Assumptions, "assumptions", "", "what is taken for granted")
	f.Int64Var(&in.Years, "years", 0, "how long it is expected to be in use")
	return c
}

func conformRow(r *remote) *cobra.Command {
	var in conform.Decision
	c := &cobra.Command{
		Use: "row PRODUCT ROW --applies yes|no", Short: "Decide on a row of Annex I", Args: cobra.ExactArgs(2),
		Example: `  openthings conform row prd_… cra.i.1.2.e --applies yes --treatment 'TLS 1.3, keys in the TPM' --evidence /releases/rel_…
  openthings conform row prd_… cra.i.1.2.l --applies no --why 'It has no users and keeps no log'`,
		RunE: func(c *cobra.Command, args []string) error {
			return do(c, r, http.MethodPut, ofProduct(args[0], "/risk-assessment/rows/"+url.PathEscape(args[1])), in, func(w io.Writer, d conform.Draft) error {
				_, err := fmt.Fprintf(w, "%s is recorded: %d of %d rows decided\n", args[1], d.Decided(), len(d.Rows))
				return err
			})
		},
	}
	f := c.Flags()
	f.StringVar(&in.Applies, "applies", "", "yes or no")
	f.StringVar(&in.Why, "why", "", "the risk, or why it does not apply")
	f.StringVar(&in.Treatment, "treatment", "", "how it is met")
	f.StringSliceVar(&in.Evidence, "evidence", nil, "link to evidence; may be repeated")
	return c
}

func conformSeal(r *remote) *cobra.Command {
	var note string
	c := &cobra.Command{
		Use: "seal PRODUCT --note TEXT", Short: "Seal the risk assessment as its next version", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return do(c, r, http.MethodPost, ofProduct(args[0], "/risk-assessments"), map[string]string{"note": note}, func(w io.Writer, a conform.Assessment) error {
				_, err := fmt.Fprintf(w, "version %d is sealed with %d rows\n", a.Version, len(a.Rows))
				return err
			})
		},
	}
	c.Flags().StringVar(&note, "note", "", "what was looked at and concluded")
	return c
}

func conformRegister(r *remote) *cobra.Command {
	var pages paging
	var due bool
	var of string
	c := &cobra.Command{
		Use: "components", Short: "The component register: supplier, licence, end of support, contact, last review", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			q := url.Values{}
			if due {
				q.Set("due", "true")
			}
			if of != "" {
				q.Set("product", of)
			}
			return read(c, r, pages.path("/v1/component-register", q), func(w io.Writer, p api.Page[conform.Entry]) error {
				rows := [][]string{{"COMPONENT", "VERSION", "SUPPLIER", "LICENCE", "SUPPORT ENDS", "CONTACT", "REVIEW"}}
				for _, x := range p.Items {
					end := "not stated"
					if !x.SupportEnd.IsZero() {
						end = x.SupportEnd.UTC().Format(time.DateOnly)
					}
					rows = append(rows, []string{x.Name, x.Version, x.Supplier, x.Licence, end, x.Contact, strings.TrimSpace(x.State + " " + x.Why)})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(c)
	c.Flags().BoolVar(&due, "due", false, "only what needs a review")
	c.Flags().StringVar(&of, "product", "", "only of the newest release of this product")
	return c
}

func conformReview(r *remote) *cobra.Command {
	var in struct {
		Name string `json:"name"`
		conform.Component
	}
	var end string
	c := &cobra.Command{
		Use: "review COMPONENT --note TEXT", Short: "Record a review of a component, for all its versions and all products", Args: cobra.ExactArgs(1),
		Example: `  openthings conform review pkg:golang/golang.org/x/net --support-end 2031-06-30 --contact security@golang.org --note 'monthly releases, no open finding'`,
		RunE: func(c *cobra.Command, args []string) error {
			in.Name = args[0]
			if end != "" {
				var err error
				if in.SupportEnd, err = time.Parse(time.DateOnly, end); err != nil {
					return usageError{fmt.Errorf("--support-end %q is no day such as 2031-06-30", end)}
				}
			}
			return do(c, r, http.MethodPost, "/v1/component-register", in, func(w io.Writer, x conform.Entry) error {
				_, err := fmt.Fprintf(w, "the review of %s is recorded\n", x.Name)
				return err
			})
		},
	}
	f := c.Flags()
	f.StringVar(&in.Supplier, "supplier", "", "who makes or maintains it; absent: as the bill of materials says")
	f.StringVar(&end, "support-end", "", "last day of its security updates, as 2031-06-30; absent: not stated")
	f.StringVar(&in.Contact, "contact", "", "where its vulnerabilities are reported")
	f.StringVar(&in.Marking, "marking", "", "CE marking or declaration of conformity")
	f.StringVar(&in.Note, "note", "", "what was looked at")
	return c
}

func conformScreen(r *remote) *cobra.Command {
	var in conform.Screen
	var said []string
	c := &cobra.Command{
		Use: "modification RELEASE", Short: "Whether a release is a substantial modification; with --reason sign the answers", Args: cobra.ExactArgs(1),
		Long: "Whether a release is a substantial modification (CRA Art. 3(30)), as a person signed it. With --reason the answers are\n" +
			"signed: every question that --yes does not name is answered with no.",
		Example: `  openthings conform modification rel_… --reason 'fixes an overflow, nothing else'
  openthings conform modification rel_… --yes purpose='it films now' --substantial --reason 'a camera is added'`,
		RunE: func(c *cobra.Command, args []string) error {
			at := "/v1/releases/" + url.PathEscape(args[0]) + "/modification"
			say := func(w io.Writer, x conform.Screened) error {
				if x.Version == 0 {
					_, err := fmt.Fprintln(w, "nobody has answered it")
					return err
				}
				fmt.Fprintf(w, "substantial modification: %s, blocks publication: %s, signed %s by %s: %s\n", yes(x.Substantial), yes(x.Blocks()), instant(x.At), x.By, x.Reason)
				rows := [][]string{{"QUESTION", "ANSWER", "BECAUSE"}}
				for _, a := range x.Answers {
					rows = append(rows, []string{a.ID, yes(a.Yes), a.Why})
				}
				return table(w, rows)
			}
			if in.Reason == "" {
				return read(c, r, at, say)
			}
			why := map[string]string{}
			for _, s := range said {
				id, text, _ := strings.Cut(s, "=")
				why[id] = text
			}
			for _, q := range conform.Questions {
				text, ok := why[q.ID]
				in.Answers = append(in.Answers, conform.Answer{ID: q.ID, Yes: ok, Why: text})
				delete(why, q.ID)
			}
			for id := range why {
				return usageError{fmt.Errorf("there is no question %q", id)}
			}
			return do(c, r, http.MethodPut, at, in, say)
		},
	}
	f := c.Flags()
	f.StringArrayVar(&said, "yes", nil, "QUESTION=WHY, a question answered with yes: purpose, requirements, vectors, scenarios, likelihood, impact; may be repeated")
	f.BoolVar(&in.Substantial, "substantial", false, "it is a substantial modification")
	f.StringVar(&in.Covered, "covered", "", "if a risk changes: where the risk assessment had considered it")
	f.StringVar(&in.Reason, "reason", "", "what changes, and why it is concluded so")
	return c
}

func conformReady(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "readiness PRODUCT", Short: "What a product needs for its conformity assessment, and what is recorded of it", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, ofProduct(args[0], "/conformity-readiness"), func(w io.Writer, p api.Page[conform.Item]) error {
				rows := [][]string{{"DONE", "WHAT", "WHERE"}}
				for _, x := range p.Items {
					rows = append(rows, []string{yes(x.Done), x.Text, x.Href})
				}
				return table(w, rows)
			})
		},
	}
}
